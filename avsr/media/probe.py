"""Describes a media file without decoding more than its first picture."""

from __future__ import annotations

import dataclasses
from os import PathLike
from pathlib import Path

import av

from avsr.errors import MediaError
from avsr.media.container import Damage, OpenMedia, decode_video, open_media
from avsr.media.video import average_fps, quarter_turns, sample_aspect, square_pixel_size


@dataclasses.dataclass(frozen=True)
class AudioStreamInfo:
    """The sound of a file as stored."""

    codec: str
    sample_rate: int
    """Hz."""
    channels: int
    start_s: float
    """Media time of the first sample."""


@dataclasses.dataclass(frozen=True)
class VideoStreamInfo:
    """The pictures of a file, as `iter_frames` gives them."""

    codec: str
    width: int
    """Pixels of the upright picture, which are square."""
    height: int
    """Pixels, as width."""
    average_fps: float
    """Pictures per second, as the container states it."""
    rotation_deg: int
    """Counter-clockwise turn that brings the stored picture upright: 0, 90, 180 or 270."""
    sample_aspect_ratio: float
    """Width of a stored pixel over its height."""
    start_s: float
    """Media time of the first picture."""


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """The streams of one media file."""

    path: Path
    duration_s: float | None
    """As the container states it; None: it does not."""
    audio: AudioStreamInfo | None
    """None: no sound."""
    video: VideoStreamInfo | None
    """None: no video."""


def probe(path: str | PathLike[str]) -> MediaInfo:
    """The streams of the file at `path`. Raises MediaError if it cannot be opened or holds neither sound nor video."""
    with open_media(path) as media:
        if media.audio is None and media.video is None:
            raise MediaError(f"{media.path}: holds neither sound nor video", expected="an audio or video stream")
        return MediaInfo(
            path=media.path,
            # The container's duration is in FFmpeg's global time base of microseconds, not in the time base of a
            # stream.
            duration_s=None if media.container.duration is None else media.container.duration / av.time_base,
            audio=_audio_info(media),
            video=_video_info(media),
        )


def _audio_info(media: OpenMedia) -> AudioStreamInfo | None:
    if media.audio is None:
        return None
    codec = media.audio.codec_context
    return AudioStreamInfo(
        codec=codec.name,
        sample_rate=codec.sample_rate,
        channels=codec.channels,
        start_s=media.start_s(media.audio),
    )


def _video_info(media: OpenMedia) -> VideoStreamInfo | None:
    if media.video is None:
        return None
    codec = media.video.codec_context
    # Only a decoded picture has the rotation.
    first = next(decode_video(media, media.video, Damage(media.path, "the video", None)), None)
    # A file without any decodable picture still has a description; reading its pictures gives the error.
    turns = 0 if first is None else quarter_turns(first)
    aspect = sample_aspect(media.video)
    width, height = square_pixel_size(codec.width, codec.height, aspect)
    # The size is stored for the picture before it is turned.
    if turns % 2:
        width, height = height, width
    return VideoStreamInfo(
        codec=codec.name,
        width=width,
        height=height,
        average_fps=average_fps(media.video),
        rotation_deg=turns * 90,
        sample_aspect_ratio=aspect,
        start_s=media.start_s(media.video),
    )
