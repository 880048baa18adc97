"""Reads the sound of a media file as mono samples at 16 kHz, on the media clock."""

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

# Some containers round time stamps to a millisecond or more. A smaller step than this is jitter, not a gap.
_GAP_TOLERANCE_S = 0.02

# With this many planes, as in 7.1 sound in AAC, PyAV (seen in 18.1) looks for the end of the list of planes in memory
# that does not belong to it, and crashes the process.
_UNSAFE_PLANES = 8


def iter_audio(path: str | PathLike[str], *, on_warning: WarningSink | None = None) -> Iterator[Samples]:
    """The sound of a file in consecutive blocks: float32 [S], mono, 16 kHz, at most about a second each.

    The first sample is at media time 0. Silence fills gaps and the time before sound that starts later; overlaps are
    cut. The result is the mean of all channels. A lossy codec may overshoot, so samples may exceed [-1, 1].

    The first damage is reported to `on_warning`, and everything that can be decoded is read. Raises MediaError if no
    sound can be read.
    """
    with open_media(path) as media:
        if media.audio is None:
            raise MediaError(f"{media.path}: has no sound", expected="an audio stream")
        damage = Damage(media.path, "the sound", on_warning)
        resampler: Resampler | None = None
        start_s = 0.0  # media time of the first sample of the current resampler
        for frame in decode_audio(media, media.audio, damage):
            if not is_sane_sound(frame.layout.nb_channels, frame.sample_rate):
                damage.report(start_s, f"{frame.layout.nb_channels} channels at {frame.sample_rate} Hz")
                # A damaged packet can state an absurd layout in the middle of a good stream; the rest of the stream is
                # usable.
                continue
            mono = _mono(frame)
            is_first = resampler is None
            if resampler is not None and resampler.rate != frame.sample_rate:  # some streams change it midway
                yield from resampler.flush()
                start_s += resampler.num_in / resampler.rate
                resampler = None
            if resampler is None:
                resampler = Resampler(frame.sample_rate)
            reached_s = start_s + resampler.num_in / resampler.rate
            ahead_s = 0.0 if frame.time is None else frame.time - media.origin_s - reached_s
            if abs(ahead_s) > MAX_GAP_S:  # the times after it cannot be trusted either
                damage.report(reached_s, f"the clock jumps by {ahead_s:.0f} s")
                break
            if is_first or abs(ahead_s) > _GAP_TOLERANCE_S:
                ahead = round(ahead_s * resampler.rate)
                while ahead > 0:  # a second at a time: a gap may last minutes
                    silence = np.zeros(min(ahead, resampler.rate), np.float32)
                    yield from resampler.push(silence)
                    ahead -= len(silence)
                # Overlapping sound would move all later words.
                mono = mono[-ahead:] if ahead < 0 else mono
            if len(mono):
                yield from resampler.push(mono)
        if resampler is None:
            raise MediaError(f"{media.path}: no sound can be decoded", remedy="check the file")
        yield from resampler.flush()


def read_audio(path: str | PathLike[str], *, on_warning: WarningSink | None = None) -> Samples:
    """The sound of a file in one array [S], otherwise as `iter_audio`."""
    return np.concatenate([np.zeros(0, np.float32), *iter_audio(path, on_warning=on_warning)])


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


def _mono(frame: av.AudioFrame) -> Samples:
    """The mean of all channels, in [-1, 1] unless the codec overshoots.

    The resampler could mix down too, but its float mono is the mean of the channels times 1.414.
    """
    if frame.format.is_planar and frame.layout.nb_channels >= _UNSAFE_PLANES:
        # Packed sound has one plane, which keeps PyAV away from the list of planes.
        (frame,) = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate).resample(frame)
    values: npt.NDArray[Any] = frame.to_ndarray()
    # AAC decodes to planar floats, WAV to interleaved integers.
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype == np.uint8:
        # 8-bit sound is unsigned, with silence at 128.
        mono = (values.mean(axis=0, dtype=np.float32) - 128) / 128
    elif np.issubdtype(values.dtype, np.integer):
        mono = values.mean(axis=0, dtype=np.float32) / -float(np.iinfo(values.dtype).min)
    else:  # floating-point formats can hold anything
        mono = np.nan_to_num(values.mean(axis=0, dtype=np.float32), posinf=0.0, neginf=0.0)
    return mono.astype(np.float32, copy=False)
