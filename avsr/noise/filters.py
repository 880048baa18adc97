"""Filters and coloured noise with results that are the same to the last bit on every machine.

A Fourier transform gives slightly different numbers on different machines. Here signal and filter are integers, so the
exact result is integers too, and what the transform gives is off by less than 0.1: rounding it gives the exact result.
"""

from __future__ import annotations

import functools
import hashlib
import math
from typing import Literal

import numpy as np
import scipy.fft  # a third of the time of numpy.fft; the results are the same, as they are rounded to exact ones
from numpy.typing import NDArray

NoiseColour = Literal["white", "pink", "brown"]

# The error of a transform is about 2**-52 * log2(length) * |signal| * |filter|: with blocks of 2**16 samples of up to
# 2**16 (|signal| below 2**24) and filters of norm 2**20 it stays below 0.1.
_BLOCK = 1 << 16
_FILTER_BITS = 20

# Coloured noise is white noise through (1 - r / z) ** -a, a = 1/2 for pink and 1 for brown (Kasdin, Proc. IEEE 83(5),
# 1995, section III, with a pole at r in place of 1): power falls as 1 / f and 1 / f ** 2 above 20 Hz and is flat below.
_POLE = 0.9922  # exp(-2 pi 20 / 16000)
_COLOUR_TAPS = 2048  # _POLE ** 2048 is 1e-7
_WHITE_DEVIATION = math.sqrt(8 * (256**2 - 1) / 12)


class Filter:
    """A finite impulse response, as integers of norm 2**20 and their common factor; `delay` samples are compensated."""

    def __init__(self, taps: NDArray[np.float64], delay: int = 0) -> None:
        norm = math.sqrt(math.fsum(np.square(taps).tolist()))
        exponent = _FILTER_BITS - math.frexp(norm)[1]
        self.integers = np.rint(taps * 2.0**exponent)
        self.factor = 2.0**-exponent
        self.delay = delay
        self._spectrum: tuple[int, NDArray[np.complex128]] | None = None

    def spectrum(self, size: int) -> NDArray[np.complex128]:
        if self._spectrum is None or self._spectrum[0] != size:
            self._spectrum = size, scipy.fft.rfft(self.integers, size)
        return self._spectrum[1]


def apply_filter(pcm: NDArray[np.float64], filter_: Filter) -> NDArray[np.float64]:
    """Filtered samples, as many as came in, not rounded: exact up to the last multiplication.

    pcm: whole numbers, of up to 2**16 for the promise to hold.
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
        out[first : first + len(filtered)] += np.rint(filtered)
    return out[filter_.delay : filter_.delay + len(pcm)] * filter_.factor


@functools.cache
def _keep_freed_memory() -> None:
    """Let the C library (glibc) keep memory of this size for reuse, as it does once a block of it was freed.

    Otherwise it returns the arrays of each transform to the system and gets them back page by page, which takes twice
    as long as the transforms. Nothing is written to the block, so it costs no memory itself.
    """
    np.empty(31 << 20, np.uint8)


def fast_length(count: int) -> int:
    """The next number from `count` on that transforms are quick for: 1, 5/4, 3/2 or 7/4 of a power of two."""
    power = 1 << max(2, count - 1).bit_length()
    return next(size for size in (power * 5 // 8, power * 6 // 8, power * 7 // 8, power) if size >= count)


def room_response(response: NDArray[np.float64], direct: int) -> Filter:
    """An impulse response whose direct sound is at sample `direct`: no delay, and white noise keeps its level."""
    return Filter(response / math.sqrt(math.fsum(np.square(response).tolist())), delay=direct)


def coloured_noise(count: int, colour: NoiseColour, seed: int) -> NDArray[np.float32]:
    """Nearly Gaussian noise of about unit deviation: white, pink (1 / f) or brown (1 / f ** 2, both flat below 20 Hz).

    Each white value is the sum of eight bytes of SHAKE-128(seed) less their mean, so it never exceeds 4.9 deviations.
    """
    taps = _COLOUR_TAPS if colour != "white" else 1
    total = count + taps - 1
    stream = np.frombuffer(hashlib.shake_128(str(seed).encode()).digest(8 * total), np.uint8)
    white = stream.reshape(total, 8).sum(axis=1, dtype=np.float64) - 8 * 255 / 2
    if colour == "white":
        return (white / _WHITE_DEVIATION).astype(np.float32)
    noise = apply_filter(white, _colour_filter(colour))[taps - 1 :]  # without the first, which have no past yet
    return (noise / _WHITE_DEVIATION).astype(np.float32)


@functools.lru_cache
def _colour_filter(colour: NoiseColour) -> Filter:
    half = 0.5 if colour == "pink" else 1.0
    taps = np.ones(_COLOUR_TAPS)
    for k in range(1, _COLOUR_TAPS):
        taps[k] = taps[k - 1] * (k - 1 + half) / k * _POLE
    return room_response(taps, 0)


# Taps are rounded to nine decimals: the last bits of a cosine, which differ between machines, then do not matter.


@functools.lru_cache(maxsize=256)
def lowpass_filter(cutoff_hz: int, rate: int = 16_000) -> Filter:
    """511 taps of a sinc in a Blackman window: -6 dB at the cut-off, -70 dB 90 Hz beyond (at 16 kHz); without delay."""
    half = 255
    steps = np.arange(-half, half + 1)
    window = np.blackman(2 * half + 3)[1:-1].astype(np.float64)
    taps = np.sinc(2 * cutoff_hz / rate * steps) * window
    return Filter(np.round(taps / taps.sum(), 9), delay=half)


@functools.lru_cache(maxsize=256)
def microphone_filter(depth_db: float, seed: int) -> Filter:
    """A response that runs through random levels within +-depth_db at the octaves from 62.5 Hz to 8 kHz; no delay."""
    half = 255
    levels = np.frombuffer(hashlib.shake_128(f"microphone/{seed}".encode()).digest(8), np.uint8)
    frequency_hz = np.linspace(0, 8000, 257)
    octave = np.log2(np.maximum(frequency_hz, 62.5) / 62.5)
    response_db = np.interp(octave, np.arange(8), depth_db * (levels / 127.5 - 1))
    taps = np.roll(np.fft.irfft(10 ** (response_db / 20), 512), half)[: 2 * half + 1]
    return Filter(np.round(taps * np.hanning(2 * half + 3)[1:-1].astype(np.float64), 9), delay=half)
