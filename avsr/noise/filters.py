"""Filters and coloured noise with the same results, to the last bit, on every machine.

A Fourier transform gives slightly different numbers on different machines. Here the signal and the filter are integers,
so the exact result of a convolution is integers too. The transform is wrong by less than 0.1, and rounding its result
gives the exact integers.
"""

from __future__ import annotations

import functools
import hashlib
import math
from typing import Literal

import numpy as np
import scipy.fft  # three times as fast as numpy.fft; after rounding both give the same integers
from numpy.typing import NDArray

from avsr.grid import SAMPLE_RATE_HZ

NoiseColour = Literal["white", "pink", "brown"]

# The error of a transform is about 2**-52 * log2(length) * |signal| * |filter|, where |x| is the Euclidean norm. A
# block of 2**16 samples of up to 2**16 has a norm of at most 2**24, and a filter has the norm 2**20, so the error is
# below 0.1.
_BLOCK = 1 << 16
_FILTER_BITS = 20

# Coloured noise is white noise through the filter (1 - r / z) ** -a, with a = 1/2 for pink and a = 1 for brown (Kasdin,
# Proc. IEEE 83(5), 1995, section III). Deviation from the paper: the pole is at r < 1 instead of 1, so the power falls
# as 1 / f (pink) or 1 / f ** 2 (brown) above 20 Hz only and is flat below.
_POLE = 0.9922  # exp(-2 pi 20 / 16000)
_COLOUR_TAPS = 2048  # _POLE ** 2048 is 1e-7
_WHITE_DEVIATION = math.sqrt(8 * (256**2 - 1) / 12)


class Filter:
    """A finite impulse response as integers of norm 2**20, and the factor that scales them back to the taps."""

    integers: NDArray[np.float64]
    factor: float
    delay: int
    """Samples by which the filter delays its input; `apply_filter` removes this delay."""

    def __init__(self, taps: NDArray[np.float64], delay: int = 0) -> None:
        # `fsum` is exact, whatever the order of the terms.
        norm = math.sqrt(math.fsum(np.square(taps).tolist()))
        # A power of two scales without rounding.
        exponent = _FILTER_BITS - math.frexp(norm)[1]
        self.integers = np.rint(taps * 2.0**exponent)
        self.factor = 2.0**-exponent
        self.delay = delay
        self._spectrum: tuple[int, NDArray[np.complex128]] | None = None

    def spectrum(self, size: int) -> NDArray[np.complex128]:
        """The Fourier transform of the integers, padded to `size`; the last one is kept for the next call."""
        if self._spectrum is None or self._spectrum[0] != size:
            self._spectrum = size, scipy.fft.rfft(self.integers, size)
        return self._spectrum[1]


def apply_filter(pcm: NDArray[np.float64], filter_: Filter) -> NDArray[np.float64]:
    """The filtered samples [S], without the delay of the filter and not rounded.

    pcm: whole numbers [S]. The result is the same on every machine if none of them exceeds 2**16.
    """
    _keep_freed_memory()
    num_taps = len(filter_.integers)
    out = np.zeros(len(pcm) + num_taps - 1)
    block = _BLOCK if len(pcm) > _BLOCK else max(1, len(pcm))
    size = fast_length(block + num_taps - 1)
    for first in range(0, len(pcm), block):
        piece = pcm[first : first + block]
        spectrum = scipy.fft.rfft(piece, size)
        spectrum *= filter_.spectrum(size)
        filtered = scipy.fft.irfft(spectrum, size)[: len(piece) + num_taps - 1]
        # Rounded before the blocks are added: only single blocks are short enough for an error below 0.1.
        out[first : first + len(filtered)] += np.rint(filtered)
    return out[filter_.delay : filter_.delay + len(pcm)] * filter_.factor


@functools.cache
def _keep_freed_memory() -> None:
    """Make the C library (glibc) keep freed blocks of up to 31 MB for reuse, instead of returning them to the system.

    glibc raises its threshold for this when a block of that size is freed once. Below the threshold every transform
    would get its arrays from the system page by page, which takes twice as long as the transform itself. Nothing is
    written to the block that is freed here, so it costs no memory.
    """
    np.empty(31 << 20, np.uint8)


def fast_length(count: int) -> int:
    """The smallest length of at least `count` samples that is fast to transform: 1, 5/4, 3/2 or 7/4 of a power of 2."""
    power = 1 << max(2, count - 1).bit_length()
    return next(size for size in (power * 5 // 8, power * 6 // 8, power * 7 // 8, power) if size >= count)


def room_response(response: NDArray[np.float64], direct: int) -> Filter:
    """A filter from an impulse response. Speech keeps its time, and white noise keeps its level.

    direct: sample of the direct sound, which becomes the delay that `apply_filter` removes.
    """
    return Filter(response / math.sqrt(math.fsum(np.square(response).tolist())), delay=direct)


def coloured_noise(count: int, colour: NoiseColour, seed: int) -> NDArray[np.float32]:
    """`count` samples of nearly Gaussian noise with a standard deviation of about 1.

    White noise is flat; the power of pink noise falls as 1 / f and the power of brown noise as 1 / f ** 2, both above
    20 Hz. A white sample is the sum of eight bytes of SHAKE-128(seed) minus its mean, so no sample exceeds 4.9 standard
    deviations.
    """
    taps = _COLOUR_TAPS if colour != "white" else 1
    total = count + taps - 1
    # A hash and no generator of numpy, so that no release of a library changes the noise.
    stream = np.frombuffer(hashlib.shake_128(str(seed).encode()).digest(8 * total), np.uint8)
    white = stream.reshape(total, 8).sum(axis=1, dtype=np.float64) - 8 * 255 / 2
    if colour == "white":
        return (white / _WHITE_DEVIATION).astype(np.float32)
    noise = apply_filter(white, _colour_filter(colour))[taps - 1 :]  # the first samples lack a complete past
    return (noise / _WHITE_DEVIATION).astype(np.float32)


@functools.lru_cache
def _colour_filter(colour: NoiseColour) -> Filter:
    half = 0.5 if colour == "pink" else 1.0
    taps = np.ones(_COLOUR_TAPS)
    for k in range(1, _COLOUR_TAPS):
        taps[k] = taps[k - 1] * (k - 1 + half) / k * _POLE
    return room_response(taps, 0)


# Taps are rounded to nine decimals, because the last bits of a cosine differ between machines.


@functools.lru_cache(maxsize=256)
def lowpass_filter(cutoff_hz: int, rate_hz: int = SAMPLE_RATE_HZ) -> Filter:
    """511 taps of a sinc in a Blackman window: -6 dB at `cutoff_hz` and, at 16 kHz, -70 dB at 90 Hz above it."""
    half = 255
    steps = np.arange(-half, half + 1)
    window = np.blackman(2 * half + 3)[1:-1].astype(np.float64)
    taps = np.sinc(2 * cutoff_hz / rate_hz * steps) * window
    return Filter(np.round(taps / taps.sum(), 9), delay=half)


@functools.lru_cache(maxsize=256)
def microphone_filter(depth_db: float, seed: int) -> Filter:
    """A random frequency response: a level within +-depth_db at each octave from 62.5 Hz to 8 kHz, linear between."""
    half = 255
    levels = np.frombuffer(hashlib.shake_128(f"microphone/{seed}".encode()).digest(8), np.uint8)
    frequency_hz = np.linspace(0, 8000, 257)
    octaves = np.log2(np.maximum(frequency_hz, 62.5) / 62.5)
    response_db = np.interp(octaves, np.arange(8), depth_db * (levels / 127.5 - 1))
    taps = np.roll(np.fft.irfft(10 ** (response_db / 20), 512), half)[: 2 * half + 1]
    return Filter(np.round(taps * np.hanning(2 * half + 3)[1:-1].astype(np.float64), 9), delay=half)
