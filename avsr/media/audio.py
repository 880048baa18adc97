"""Sound of a media file as mono 16 kHz samples on the media clock."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from avsr.arrays import Samples
from avsr.errors import MediaError
from avsr.grid import SAMPLE_RATE_HZ
from avsr.media.container import MAX_GAP_S, Damage, WarningSink, decode_audio, is_sane_sound, open_media

# Time stamps are rounded to a millisecond or more in some containers: a smaller step is jitter, not a gap.
_GAP_TOLERANCE_S = 0.02

# PyAV (seen in 18.1) looks for the end of the list of planes in memory that does not belong to it, and crashes the
# process, with so many planes: 7.1 sound in AAC is enough.
_UNSAFE_PLANES = 8


def iter_audio(path: str | PathLike[str], *, on_warning: WarningSink | None = None) -> Iterator[Samples]:
    """The sound of `path` as consecutive blocks of float32 samples [S], mono, 16 kHz, at most about a second each.

    The first sample is at media time 0: silence is put before sound that starts later and into gaps, overlaps are cut.
    All channels count the same. Samples may exceed [-1, 1] where a lossy codec overshoots.
    Damage is passed to `on_warning` once and what decodes is kept. Raises MediaError where there is no readable sound.
    """
    with open_media(path) as media:
        if media.audio is None:
            raise MediaError(f"{media.path}: has no sound", expected="an audio stream")
        damage = Damage(media.path, "the sound", on_warning)
        resampler: Resampler | None = None
        start_s = 0.0  # media time at which the present resampler started
        for frame in decode_audio(media, media.audio, damage):
            if not is_sane_sound(frame.layout.nb_channels, frame.sample_rate):
                damage.report(start_s, f"{frame.layout.nb_channels} channels at {frame.sample_rate} Hz")
                continue
            mono = _mono(frame)
            is_first = resampler is None
            if resampler is not None and resampler.rate != frame.sample_rate:
                yield from resampler.flush()
                start_s += resampler.num_in / resampler.rate
                resampler = None
            if resampler is None:
                resampler = Resampler(frame.sample_rate)
            reached_s = start_s + resampler.num_in / resampler.rate
            ahead_s = 0.0 if frame.time is None else frame.time - media.origin_s - reached_s
            if abs(ahead_s) > MAX_GAP_S:
                damage.report(reached_s, f"the clock jumps by {ahead_s:.0f} s")
                break
            if is_first or abs(ahead_s) > _GAP_TOLERANCE_S:
                ahead = round(ahead_s * resampler.rate)
                while ahead > 0:
                    silence = np.zeros(min(ahead, resampler.rate), np.float32)
                    yield from resampler.push(silence)
                    ahead -= len(silence)
                mono = mono[-ahead:] if ahead < 0 else mono
            if len(mono):
                yield from resampler.push(mono)
        if resampler is None:
            raise MediaError(f"{media.path}: no sound can be decoded", remedy="check the file")
        yield from resampler.flush()


def read_audio(path: str | PathLike[str], *, on_warning: WarningSink | None = None) -> Samples:
    """All of `iter_audio` in one array [S]."""
    return np.concatenate([np.zeros(0, np.float32), *iter_audio(path, on_warning=on_warning)])


class Resampler:
    """Mono float32 at any rate to 16 kHz, without delay."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.num_in = 0
        self._resampler = None
        if rate != SAMPLE_RATE_HZ:
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)

    def push(self, mono: Samples) -> Iterator[Samples]:
        self.num_in += len(mono)
        if self._resampler is None:
            yield mono
            return
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono)[None], format="flt", layout="mono")
        frame.sample_rate = self.rate
        yield from self._arrays(frame)

    def flush(self) -> Iterator[Samples]:
        if self._resampler is not None and self.num_in:
            yield from self._arrays(None)

    def _arrays(self, frame: av.AudioFrame | None) -> Iterator[Samples]:
        assert self._resampler is not None
        for resampled in self._resampler.resample(frame):
            if resampled.samples:
                yield resampled.to_ndarray()[0]


def _mono(frame: av.AudioFrame) -> Samples:
    """The mean of all channels in [-1, 1].

    Not left to the resampler: its down-mix to float mono is the channel mean times 1.414.
    """
    if frame.format.is_planar and frame.layout.nb_channels >= _UNSAFE_PLANES:
        (frame,) = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate).resample(frame)
    values: npt.NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype == np.uint8:
        mono = (values.mean(axis=0, dtype=np.float32) - 128) / 128
    elif np.issubdtype(values.dtype, np.integer):
        mono = values.mean(axis=0, dtype=np.float32) / -float(np.iinfo(values.dtype).min)
    else:
        mono = np.nan_to_num(values.mean(axis=0, dtype=np.float32), posinf=0.0, neginf=0.0)
    return mono.astype(np.float32, copy=False)
