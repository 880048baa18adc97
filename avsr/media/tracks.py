"""Which sound track and which video track of a file are read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from avsr.errors import MediaError

_BESIDE = Disposition.comment | Disposition.visual_impaired | Disposition.lyrics
"""Tracks that are made to be heard or seen beside another one."""

StreamT = TypeVar("StreamT", AudioStream, VideoStream)


class Tracks(NamedTuple):
    """The tracks to read, each by its number among the tracks of its kind, from 1 on, as `avsr doctor` lists them."""

    audio: int | None = None
    """None: the one that the file marks as the default, else the best."""
    video: int | None = None
    """None: as audio."""


def audio_tracks(container: InputContainer) -> list[AudioStream]:
    """All sound tracks in the order of the file; some may have no decoder."""
    return list(container.streams.audio)


def video_tracks(container: InputContainer) -> list[VideoStream]:
    """All video tracks in the order of the file; some may have no decoder. The cover of an album is no video."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def choose_audio(path: Path, container: InputContainer, number: int | None) -> AudioStream | None:
    """The sound track with this number; None for a file without sound. Raises MediaError for a wrong number."""
    best = container.streams.best("audio")
    return _choose(path, "sound", "--audio-track", audio_tracks(container), best, number)


def choose_video(path: Path, container: InputContainer, number: int | None) -> VideoStream | None:
    """The video track with this number; None for a file without video. Raises MediaError for a wrong number."""
    best = container.streams.best("video")
    return _choose(path, "video", "--video-track", video_tracks(container), best, number)


def is_decodable(stream: AudioStream | VideoStream) -> bool:
    """Whether there is a decoder for it, and something to decode."""
    codec = stream.codec_context
    if codec is None:
        return False
    if isinstance(codec, av.VideoCodecContext):
        return bool(codec.width > 0 and codec.height > 0)
    return bool(codec.sample_rate > 0 and codec.channels > 0)


def _choose(
    path: Path, kind: str, option: str, tracks: list[StreamT], best: object, number: int | None
) -> StreamT | None:
    if number is None:
        usable = [track for track in tracks if is_decodable(track)]
        # The words of a film are not in the commentary on it.
        main = [track for track in usable if not track.disposition & _BESIDE] or usable
        return next((track for track in main if track is best), main[0] if main else None)
    if not 1 <= number <= len(tracks):
        has = f"{len(tracks)} {kind} track" + ("" if len(tracks) == 1 else "s")
        raise MediaError(
            f"{path}: there is no {kind} track {number}", got=f"a file with {has}", expected=_range(len(tracks))
        )
    chosen = tracks[number - 1]
    if not is_decodable(chosen):
        others = [str(index) for index, track in enumerate(tracks, start=1) if is_decodable(track)]
        remedy = f"{option} {' or '.join(others)}" if others else None
        raise MediaError(f"{path}: {kind} track {number} cannot be decoded", got="an unknown codec", remedy=remedy)
    return chosen


def _range(count: int) -> str:
    return "no number" if count == 0 else "number 1" if count == 1 else f"a number from 1 to {count}"
