"""The input of a live session: blocks of sound, and pictures, each with two times in seconds.

`time_s` is when the sound or the picture was recorded. The session gets it. `arrival_s` is when it reaches this
program. It decides the order of work. A file has no delay: a block arrives when its last sample was spoken, a picture
when it was taken.

A source is an iterator. A source that waits for a device gives None now and then, so that its reader can stop.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterable, Iterator
from os import PathLike
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from avsr.account import Account
from avsr.arrays import Samples
from avsr.errors import MediaError
from avsr.grid import SAMPLE_RATE_HZ
from avsr.lips.tracks import probe_faces
from avsr.media import Tracks, iter_audio, iter_frames
from avsr.sound.level import raised

BLOCK_S = 0.02
BLOCK_SAMPLES = round(BLOCK_S * SAMPLE_RATE_HZ)


class LiveSound(NamedTuple):
    """A block of sound."""

    arrival_s: float
    time_s: float
    """Time of the first sample."""
    samples: Samples


class LivePicture(NamedTuple):
    """A picture."""

    arrival_s: float
    time_s: float
    """When it was taken."""
    rgb: NDArray[np.uint8] | None
    """uint8 RGB [H, W, 3], or a lip crop uint8 [96, 96], or None for a picture without lips."""


Item = TypeVar("Item", LiveSound, LivePicture)


def file_sound(
    path: str | PathLike[str], *, tracks: Tracks | None = None, account: Account | None = None
) -> Iterator[LiveSound]:
    """The sound of a file in blocks of 20 ms, the last one shorter; very quiet speech is raised.

    Raises MediaError if the file has no sound.
    """
    return blocks(raised(iter_audio(path, tracks=tracks, account=account), account))


def blocks(sound: Iterable[Samples]) -> Iterator[LiveSound]:
    """Consecutive samples, cut into blocks of 20 ms. The first block has time 0."""
    rest = np.zeros(0, np.float32)
    position = 0

    def block(samples: Samples) -> LiveSound:
        nonlocal position
        start, position = position, position + len(samples)
        return LiveSound(position / SAMPLE_RATE_HZ, start / SAMPLE_RATE_HZ, samples)

    for samples in sound:
        rest = np.concatenate((rest, samples))
        whole = len(rest) // BLOCK_SAMPLES * BLOCK_SAMPLES
        for start in range(0, whole, BLOCK_SAMPLES):
            yield block(rest[start : start + BLOCK_SAMPLES])
        # A slice without a copy would keep the whole block in memory.
        rest = rest[whole:].copy()
    if len(rest):
        yield block(rest)


def file_pictures(
    path: str | PathLike[str], *, tracks: Tracks | None = None, account: Account | None = None
) -> Iterator[LivePicture]:
    """The pictures of a file. Raises MediaError if the file has no video."""
    frames = iter_frames(path, tracks=tracks, account=account)
    return (LivePicture(frame.time_s, frame.time_s, frame.rgb) for frame in frames)


def open_live_source(
    source: str | PathLike[str] | Samples | Iterable[LiveSound | None],
    pictures: Iterable[LivePicture | None] | None = None,
    *,
    tracks: Tracks | None = None,
    account: Account | None = None,
) -> tuple[Iterable[LiveSound | None], Iterable[LivePicture | None] | None]:
    """The sound and the pictures of a source; pictures None for sound alone.

    source: a file, samples float32 [S] at 16 kHz, or an iterator of live sound.
    pictures: live pictures; None for the pictures of the file, if it has any.
    tracks: which tracks of a file to read; None for its default, and of several video tracks the one with faces.
    account: counts what is read, and says what is wrong with the file.

    Raises MediaError for a file without sound, because the sound is the clock of a stream.
    """
    if isinstance(source, np.ndarray):
        return blocks(raised([source], account)), pictures
    if not isinstance(source, str | PathLike):
        return source, pictures
    sound, moving = open_file(source, tracks=tracks, account=account)
    return sound, moving if pictures is None else pictures


def open_file(
    path: str | PathLike[str], *, tracks: Tracks | None = None, account: Account | None = None
) -> tuple[Iterator[LiveSound], Iterator[LivePicture] | None]:
    """The sound and the pictures of a file, as `open_live_source` gives them."""
    info = probe_faces(path, tracks=tracks, account=account)
    if info.audio is None:
        raise MediaError(
            f"{path}: has no sound",
            expected="sound, which is the clock of live recognition",
            remedy="avsr transcribe --modality v reads lips alone",
        )
    sound = file_sound(path, tracks=info.tracks, account=account)
    pictures = None if info.video is None else file_pictures(path, tracks=info.tracks, account=account)
    return sound, pictures


def in_order(sound: Iterable[LiveSound], pictures: Iterable[LivePicture]) -> Iterator[LiveSound | LivePicture]:
    """Sound and pictures in order of arrival. At equal times the picture comes first, so that no sound waits for it."""
    return heapq.merge(pictures, sound, key=lambda item: item.arrival_s)  # stable: the first argument first


class Clock:
    """Seconds since this was made, the same for all threads and devices."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()

    def now_s(self) -> float:
        return time.monotonic() - self._start_s


class Pace:
    """Passes items on when they arrive by a clock. Several threads may share the clock and `stop`."""

    def __init__(self, clock: Clock, stop: threading.Event) -> None:
        self._clock, self._stop = clock, stop
        self.lag_s = 0.0
        """How late the last item was passed on, in seconds. It grows if the work is too slow for real time."""

    def follow(self, items: Iterable[Item | None]) -> Iterator[Item | None]:
        """The same items, none before it arrives. Ends early after `stop` is set."""
        for item in items:
            if item is not None:
                early_s = item.arrival_s - self._clock.now_s()
                if early_s > 0:
                    # Not time.sleep(): stopping must not wait for the next item.
                    self._stop.wait(early_s)
                self.lag_s = max(0.0, -early_s)
            if self._stop.is_set():
                return
            yield item
