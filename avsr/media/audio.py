"""Reads the sound of a media file as mono samples at 16 kHz, on the media clock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from os import PathLike
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from avsr.account import Account
from avsr.arrays import Samples
from avsr.errors import MediaError
from avsr.grid import MAX_HOURS, SAMPLE_RATE_HZ
from avsr.media.channels import Downmix
from avsr.media.container import BEYOND_LIMIT, Damage, OpenMedia, decode_audio, is_sane_sound, open_media
from avsr.media.timeline import MAX_GAP_S
from avsr.media.tracks import Tracks

# Some containers round time stamps to a millisecond or more. A smaller step than this is jitter, not a gap.
_GAP_TOLERANCE_S = 0.04
_SAID_GAP_S = 0.5

MAX_HOURS_IN_MEMORY = 4.0
"""One array holds at most this much sound: 0.9 GB, and twice that while it is put together."""

# With this many planes, as in 7.1 sound in AAC, PyAV (seen in 18.1) looks for the end of the list of planes in memory
# that does not belong to it, and crashes the process.
_UNSAFE_PLANES = 8

# PyAV makes no arrays of 64-bit integers. All others come as they are.
_UNKNOWN_TO_PYAV = {"s64", "s64p"}


def iter_audio(
    path: str | PathLike[str],
    *,
    tracks: Tracks | None = None,
    account: Account | None = None,
    max_hours: float = MAX_HOURS,
) -> Iterator[Samples]:
    """The sound of a file in consecutive blocks: float32 [S], mono, 16 kHz, at most about a second each.

    The first sample is at media time 0. Silence fills gaps and the time before sound that starts later; overlaps are
    cut. The result is the mean of all channels, or one of them where the mean would spoil the voice. A lossy codec may
    overshoot, so samples may exceed [-1, 1].

    tracks: which sound track to read; None for the default of the file.
    account: counts the samples that were decoded, used and left out, at the rate of the track. It says if one channel
        was used alone, and if the sound is clipped.
    max_hours: sound after this is not read, and neither is sound beyond the limits of `budget.py`; the account says so.

    Everything else that can be decoded is read. Raises MediaError if that is nothing.
    """
    account = Account() if account is None else account
    with open_media(path, tracks, max_hours=max_hours) as media:
        if media.audio is None:
            raise MediaError(f"{media.path}: has no sound", expected="an audio stream")
        tape = _Placed(media, Damage(media.path, "sound", account))
        for frame, mono in _mixed(decode_audio(media, media.audio, tape.damage), account):
            yield from tape.push(frame, mono)
        yield from tape.finish()


def read_audio(path: str | PathLike[str], *, tracks: Tracks | None = None, account: Account | None = None) -> Samples:
    """The sound of a file in one array [S], at most MAX_HOURS_IN_MEMORY; otherwise as `iter_audio`."""
    blocks = iter_audio(path, tracks=tracks, account=account, max_hours=MAX_HOURS_IN_MEMORY)
    return np.concatenate([np.zeros(0, np.float32), *blocks])


class _Placed:
    """Places decoded frames on the media clock, and counts every sample in the account."""

    def __init__(self, media: OpenMedia, damage: Damage) -> None:
        self.damage = damage
        self._media = media
        self._account = damage.account
        self._resampler: Resampler | None = None
        self._start_s = 0.0  # media time of the first sample of the resampler
        self._is_full = False

    def push(self, frame: av.AudioFrame, mono: Samples) -> Iterator[Samples]:
        """The blocks that are complete with this frame. mono: its one channel."""
        if not is_sane_sound(frame.layout.nb_channels, frame.sample_rate):
            # A damaged packet can state an absurd layout in the middle of a good stream; the rest is usable.
            self._account.lost(
                "samples",
                "absurd layout",
                frame.samples,
                line=f"the sound is damaged at {self._reached_s:.2f} s ({frame.layout.nb_channels} channels at"
                f" {frame.sample_rate} Hz)",
            )
            return
        is_first = self._resampler is None
        if self._resampler is not None and self._resampler.rate != frame.sample_rate:  # some streams change it midway
            yield from self._resampler.flush()
            self._start_s = self._reached_s
            self._resampler = None
        if self._resampler is None:
            self._resampler = Resampler(frame.sample_rate)
        # The times of a bare stream follow from its first sample rate and from its bytes; its samples are all there.
        time_s = None if self._media.is_bare else frame.time
        ahead_s = 0.0 if time_s is None else time_s - self._media.origin_s - self._reached_s
        if is_first or abs(ahead_s) > _GAP_TOLERANCE_S:
            ahead = round(ahead_s * self._resampler.rate)
            # Sound may begin late beside pictures, and `Timeline` has placed its beginning.
            if (
                ahead_s > MAX_GAP_S and not is_first
            ):  # the clock of the packets does not go so far ahead, so this time is wrong
                line = f"sound at {self._reached_s:.2f} s has a time {ahead_s:.0f} s ahead, and follows without a pause"
                self._account.note("time of the sound", line)
                ahead = 0
            if ahead > 0 and self._may_reach(self._reached_s + ahead_s):
                yield from self._fill(ahead, is_first=is_first)
            elif ahead < 0:
                mono = self._cut(mono, -ahead, is_first=is_first)
        if not self._may_reach(self._reached_s + len(mono) / frame.sample_rate):
            self._account.lost("samples", BEYOND_LIMIT, len(mono))
        elif len(mono):
            self._account.used("samples", len(mono))
            yield from self._resampler.push(mono)

    def _may_reach(self, end_s: float) -> bool:
        """Whether the sound may last until `end_s` of media time. After the first refusal nothing more is read."""
        budget = self._media.budget
        if self._is_full:
            return False
        why = budget.refuse_time(end_s)
        if why is not None:
            self._is_full = True
            self.damage.stop(self._reached_s, why)
        return why is None

    def finish(self) -> Iterator[Samples]:
        """The rest. Raises MediaError if there was no sound at all."""
        if self._resampler is None:
            raise MediaError(f"{self._media.path}: no sound can be decoded", remedy="check the file")
        yield from self._resampler.flush()

    @property
    def _reached_s(self) -> float:
        """Media time after the last sample."""
        return self._start_s + (self._resampler.num_in / self._resampler.rate if self._resampler else 0.0)

    def _fill(self, count: int, *, is_first: bool) -> Iterator[Samples]:
        """Silence for a gap of `count` samples."""
        assert self._resampler is not None
        rate = self._resampler.rate
        seconds = count / rate
        if not is_first and seconds >= _SAID_GAP_S:
            line = f"there is no sound for {seconds:.2f} s from {self._reached_s:.2f} s on: silence takes its place"
            self._account.note("gap in the sound", line, seconds=seconds)
        while count > 0:  # a second at a time: a gap may last minutes
            silence = np.zeros(min(count, rate), np.float32)
            yield from self._resampler.push(silence)
            count -= len(silence)

    def _cut(self, mono: Samples, count: int, *, is_first: bool) -> Samples:
        """The sound of a frame without its first `count` samples, which would move all later words."""
        assert self._resampler is not None
        cut = min(count, len(mono))
        seconds = cut / self._resampler.rate
        if is_first:
            self._account.lost("samples", "before the beginning", cut)
        else:
            line = f"{seconds:.2f} s of sound at {self._reached_s:.2f} s overlaps the sound before, and is left out"
            self._account.lost("samples", "overlap", cut, line=line, seconds=seconds)
        return mono[cut:]


class Resampler:
    """Resamples a mono signal from `rate` (Hz) to 16 kHz. The output is not delayed against the input."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.num_in = 0
        """Samples pushed so far, at `rate`."""
        self._resampler = None
        if rate != SAMPLE_RATE_HZ:
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)

    def push(self, mono: Samples) -> Iterator[Samples]:
        """The blocks at 16 kHz that are complete with these samples. Nothing happens until the result is read."""
        self.num_in += len(mono)
        if self._resampler is None:
            yield mono
            return
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono)[None], format="flt", layout="mono")
        frame.sample_rate = self.rate
        yield from self._arrays(frame)

    def flush(self) -> Iterator[Samples]:
        """The rest, after the last samples."""
        if self._resampler is not None and self.num_in:
            yield from self._arrays(None)

    def _arrays(self, frame: av.AudioFrame | None) -> Iterator[Samples]:
        assert self._resampler is not None
        # At the end `frame` is None. Without that last call the 16 samples inside the resampler are lost.
        for resampled in self._resampler.resample(frame):
            if resampled.samples:
                yield resampled.to_ndarray()[0]


def _mixed(frames: Iterator[av.AudioFrame], account: Account) -> Iterator[tuple[av.AudioFrame, Samples]]:
    """Each decoded frame, in order, with its one channel [S]; empty for an absurd layout. Counts what is found."""
    downmix = Downmix(account)
    waiting: deque[av.AudioFrame] = deque()
    for frame in frames:
        # Counted before the mix, so that the account also shows what would be lost in it.
        account.found("samples", frame.samples)
        if is_sane_sound(frame.layout.nb_channels, frame.sample_rate):
            waiting.append(frame)
            ready = downmix.push(_channels(frame), frame.sample_rate)
        else:
            ready = downmix.finish()
        for mono in ready:
            yield waiting.popleft(), mono
        if not is_sane_sound(frame.layout.nb_channels, frame.sample_rate):
            yield frame, np.zeros(0, np.float32)
    for mono in downmix.finish():
        yield waiting.popleft(), mono


def _channels(frame: av.AudioFrame) -> npt.NDArray[np.float32]:
    """The channels [C, S], in [-1, 1] unless the codec overshoots.

    The resampler could mix down too, but its float mono is the mean of the channels times 1.414.
    """
    form = frame.format
    # Packed sound has one plane, which keeps PyAV away from the list of planes.
    packs = form.is_planar and frame.layout.nb_channels >= _UNSAFE_PLANES
    if packs or form.name in _UNKNOWN_TO_PYAV:
        wanted = "dbl" if form.name in _UNKNOWN_TO_PYAV else form.packed
        (frame,) = av.AudioResampler(wanted, frame.layout, frame.sample_rate).resample(frame)
    values: npt.NDArray[Any] = frame.to_ndarray()
    # AAC decodes to planar floats, WAV to interleaved integers.
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype == np.uint8:
        # 8-bit sound is unsigned, with silence at 128.
        return (values.astype(np.float32) - 128) / 128
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.float32) * np.float32(-1 / np.iinfo(values.dtype).min)
    values = values.astype(np.float32, copy=False)
    # Floating-point formats can hold anything. The sum shows it in less time than a check of each sample.
    with np.errstate(over="ignore", invalid="ignore"):
        is_finite = math.isfinite(values.sum())
    return values if is_finite else np.nan_to_num(values, posinf=0.0, neginf=0.0)
