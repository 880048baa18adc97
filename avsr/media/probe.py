"""What a media file offers, without decoding more than its first picture."""

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
    """The sound as stored. start_s: media time of its first sample."""

    codec: str
    sample_rate: int
    channels: int
    start_s: float


@dataclasses.dataclass(frozen=True)
class VideoStreamInfo:
    """The picture. width, height: as `iter_frames` gives it, upright with square pixels.

    rotation_deg: counter-clockwise turn (0, 90, 180, 270) that was applied to the stored picture to get there, and
    sample_aspect_ratio the width of a stored pixel over its height. start_s: media time of the first picture.
    """

    codec: str
    width: int
    height: int
    average_fps: float
    rotation_deg: int
    sample_aspect_ratio: float
    start_s: float


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """One file. duration_s: as the container states it, None where it does not. audio, video: None where missing."""

    path: Path
    duration_s: float | None
    audio: AudioStreamInfo | None
    video: VideoStreamInfo | None


def probe(path: str | PathLike[str]) -> MediaInfo:
    """Look into `path`. Raises MediaError where it cannot be opened or holds neither sound nor video."""
    with open_media(path) as media:
        if media.audio is None and media.video is None:
            raise MediaError(f"{media.path}: holds neither sound nor video", expected="an audio or video stream")
        return MediaInfo(
            path=media.path,
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
    # The rotation is readable on decoded pictures only.
    first = next(decode_video(media, media.video, Damage(media.path, "the video", None)), None)
    turns = 0 if first is None else quarter_turns(first)
    aspect = sample_aspect(media.video)
    width, height = square_pixel_size(codec.width, codec.height, aspect)
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
