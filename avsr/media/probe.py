"""Describes a media file without decoding more than the first picture of each video track."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

import av
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from avsr.account import Account
from avsr.errors import MediaError
from avsr.grid import MAX_HOURS
from avsr.media.budget import check_stated_hours
from avsr.media.container import Damage, OpenMedia, decode_video, open_media
from avsr.media.tracks import Tracks, audio_tracks, is_decodable, video_tracks
from avsr.media.video import average_fps, quarter_turns, sample_aspect, square_pixel_size

_UNKNOWN = "an unknown codec"


@dataclasses.dataclass(frozen=True)
class AudioStreamInfo:
    """A sound track as stored."""

    number: int
    """Among the sound tracks, from 1 on."""
    codec: str
    sample_rate: int
    """Hz."""
    channels: int
    start_s: float
    """Media time of the first sample."""
    title: str
    """Its title and language, as the file states them; empty if it does not."""
    is_decodable: bool = True


@dataclasses.dataclass(frozen=True)
class VideoStreamInfo:
    """A video track, as `iter_frames` gives it."""

    number: int
    """Among the video tracks, from 1 on. The cover of an album is none."""
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
    title: str
    """As of a sound track."""
    is_decodable: bool = True


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """The tracks of one media file."""

    path: Path
    duration_s: float | None
    """Media time of the end, as the container states it; None: it does not."""
    audio: AudioStreamInfo | None
    """The sound track that is read; None: no sound."""
    video: VideoStreamInfo | None
    """The video track that is read; None: no video."""
    audio_tracks: tuple[AudioStreamInfo, ...]
    """All sound tracks, also the ones that are not read."""
    video_tracks: tuple[VideoStreamInfo, ...]
    """All video tracks. The rotation of a track that is not read is not known, and stands as 0."""
    is_estimated: bool = False
    """Whether the duration is an estimate by the bit rate, as in bare MP3 and AAC."""

    @property
    def tracks(self) -> Tracks:
        """The tracks that are read, to pass on to the readers."""
        return Tracks(
            None if self.audio is None else self.audio.number, None if self.video is None else self.video.number
        )


def probe(path: str | PathLike[str], *, tracks: Tracks | None = None, max_hours: float = MAX_HOURS) -> MediaInfo:
    """The tracks of the file at `path`.

    tracks: which of them to read; None for the default of the file.
    max_hours: a file that states a longer time is refused, before it costs any work.

    Raises MediaError if the file cannot be opened, holds neither sound nor video, is too long, or lacks a track that
    was asked for.
    """
    with open_media(path, tracks, max_hours=max_hours) as media:
        if media.audio is None and media.video is None:
            raise MediaError(f"{media.path}: holds neither sound nor video", expected="an audio or video stream")
        duration_s = _duration_s(media)
        check_stated_hours(media.path, None if media.is_bare else duration_s, max_hours)
        audio, video = audio_tracks(media.container), video_tracks(media.container)
        sounds = tuple(_audio_info(media, track, number) for number, track in enumerate(audio, start=1))
        videos = tuple(_video_info(media, track, number) for number, track in enumerate(video, start=1))
        return MediaInfo(
            path=media.path,
            duration_s=duration_s,
            audio=None if media.audio is None else sounds[audio.index(media.audio)],
            video=None if media.video is None else videos[video.index(media.video)],
            audio_tracks=sounds,
            is_estimated=media.is_bare,
            video_tracks=videos,
        )


def count_tracks(info: MediaInfo, account: Account, *, sound_because: str | None, video_because: str | None) -> None:
    """Count the tracks of a file, and say which are read if there are several.

    sound_because, video_because: why a track was chosen; None if it was asked for.
    """
    _count(account, "sound", info.audio_tracks, info.audio, sound_because)
    _count(account, "video", info.video_tracks, info.video, video_because)


def _duration_s(media: OpenMedia) -> float | None:
    """Media time of the end, None if the file does not state it."""
    ends_s = [
        (track.start_time + track.duration) * float(track.time_base)
        for track in (media.audio, media.video)
        if track is not None and track.duration and track.start_time is not None and track.time_base
    ]
    if ends_s and all(track.duration for track in (media.audio, media.video) if track is not None):
        return max(ends_s) - media.origin_s
    # The container's duration is in FFmpeg's global time base of microseconds, not in the time base of a stream.
    duration = media.container.duration
    if duration is None:
        return None
    duration_s = duration / av.time_base
    # Matroska states the time of the end; its duration counts from 0, not from the first packet.
    return duration_s - media.origin_s if 0 < media.origin_s < duration_s else duration_s


def _count(
    account: Account,
    kind: Literal["sound", "video"],
    tracks: Sequence[AudioStreamInfo | VideoStreamInfo],
    chosen: AudioStreamInfo | VideoStreamInfo | None,
    why: str | None,
) -> None:
    account.found("tracks", len(tracks))
    account.used("tracks", chosen is not None)
    for track in tracks:
        if track is chosen:
            continue
        if track.is_decodable:
            account.lost("tracks", f"another {kind} track is read")
        else:
            line = f"{kind} track {track.number} is not read: its codec is unknown, or it begins late in the file"
            account.lost("tracks", "no decoder", line=line)
    if chosen is not None and len(tracks) > 1 and why is not None:
        option = "--audio-track" if kind == "sound" else "--video-track"
        line = f"{kind} track {chosen.number} of {len(tracks)} is read ({why}); {option} takes another"
        account.note(f"{kind} track", line)


def _title(track: AudioStream | VideoStream) -> str:
    """The title and the language that the file states for a track."""
    metadata = track.metadata
    language = metadata.get("language", "und")
    return ", ".join(text for text in (metadata.get("title", ""), "" if language == "und" else language) if text)


def _audio_info(media: OpenMedia, track: AudioStream, number: int) -> AudioStreamInfo:
    codec = track.codec_context
    return AudioStreamInfo(
        number=number,
        codec=_UNKNOWN if codec is None else codec.name,
        sample_rate=0 if codec is None else codec.sample_rate,
        channels=0 if codec is None else codec.channels,
        start_s=media.start_s(track),
        title=_title(track),
        is_decodable=is_decodable(track),
    )


def _video_info(media: OpenMedia, track: VideoStream, number: int) -> VideoStreamInfo:
    codec = track.codec_context
    turns = _turns(media, track) if track is media.video else 0
    aspect = sample_aspect(track)
    has_size = codec is not None and codec.width > 0 and codec.height > 0
    width, height = square_pixel_size(codec.width, codec.height, aspect) if has_size else (0, 0)
    # The size is stored for the picture before it is turned.
    if turns % 2:
        width, height = height, width
    return VideoStreamInfo(
        number=number,
        codec=_UNKNOWN if codec is None else codec.name,
        width=width,
        height=height,
        average_fps=average_fps(track),
        rotation_deg=turns * 90,
        sample_aspect_ratio=aspect,
        start_s=media.start_s(track),
        title=_title(track),
        is_decodable=is_decodable(track),
    )


def _turns(media: OpenMedia, track: VideoStream) -> int:
    """How many turns by 90 degrees bring the pictures upright."""
    # Only a decoded picture has the rotation.
    first = next(decode_video(media, track, Damage(media.path, "picture", Account())), None)
    # A file without any decodable picture still has a description; reading its pictures gives the error.
    return 0 if first is None else quarter_turns(first)
