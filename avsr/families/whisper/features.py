"""The log-mel features of Whisper.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.2: windows of 25 ms every
10 ms, mel filters on Slaney's scale, the logarithm of the energies limited to 8 decades below the loudest.

Letters: S samples, T frames of 10 ms, F mel filters, K bins of the spectrum.
"""

from __future__ import annotations

import functools

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from avsr.arrays import Samples
from avsr.grid import HOP_SAMPLES, SAMPLE_RATE_HZ

Floats = NDArray[np.float32]

WINDOW_SAMPLES = 400
"""25 ms."""
DECADES = 8.0
"""Energies further below the loudest one than this count as equal to the limit."""
FLOOR = 1e-10
"""The smallest energy, so that digital silence has a logarithm."""


def log_mel(samples_S: Samples, filters: int, frames: int) -> Floats:
    """Features float32 [F, T] of the samples; frames after their end are 0.

    Zeros as in faster-whisper, so that the same weights give the same words; the original goes on with the features of
    silence.

    samples_S: float32 [S] at 16 kHz. filters: F, 80 or 128. frames: T; later samples are left out.
    """
    own = min(frames, len(samples_S) // HOP_SAMPLES + 1)
    half = WINDOW_SAMPLES // 2
    needed = own * HOP_SAMPLES + half
    padded_S = np.zeros(half + needed, np.float32)
    kept_S = samples_S[:needed]
    padded_S[half : half + len(kept_S)] = kept_S
    if len(samples_S) > half:
        padded_S[:half] = samples_S[half:0:-1]  # the sound is mirrored at its beginning
    windows_TS = np.lib.stride_tricks.sliding_window_view(padded_S, WINDOW_SAMPLES)[::HOP_SAMPLES][:own]
    spectrum_TK = scipy.fft.rfft(windows_TS * _hann_window(), axis=1)
    power_TK = spectrum_TK.real**2 + spectrum_TK.imag**2
    log_FT = np.log10(np.maximum(mel_filters(filters) @ power_TK.T, FLOOR))
    features_FT = np.zeros((filters, frames), np.float32)
    features_FT[:, :own] = (np.maximum(log_FT, log_FT.max() - DECADES) + 4) / 4
    return features_FT


@functools.cache
def _hann_window() -> Floats:
    return np.hanning(WINDOW_SAMPLES + 1)[:-1].astype(np.float32)  # periodic


@functools.cache
def mel_filters(filters: int) -> Floats:
    """Triangular filters [F, K] of unit area up to 8 kHz, on the scale of Slaney 1998, "Auditory Toolbox"."""
    bins_hz = np.fft.rfftfreq(WINDOW_SAMPLES, 1 / SAMPLE_RATE_HZ)
    corners_hz = _mel_to_hz(np.linspace(0, _hz_to_mel(SAMPLE_RATE_HZ / 2), filters + 2))
    widths_hz = np.diff(corners_hz)
    ramps = corners_hz[:, None] - bins_hz
    rising = -ramps[:-2] / widths_hz[:-1, None]
    falling = ramps[2:] / widths_hz[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (corners_hz[2:] - corners_hz[:-2]))[:, None]).astype(np.float32)


# The scale is linear up to 1 kHz (15 mel) and logarithmic above: 27 mel for a factor of 6.4.
_LINEAR_HZ, _LINEAR_MEL, _LOG_STEP = 1000.0, 15.0, np.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    if hz < _LINEAR_HZ:
        return hz * _LINEAR_MEL / _LINEAR_HZ
    return float(_LINEAR_MEL + np.log(hz / _LINEAR_HZ) / _LOG_STEP)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    linear_hz = mel * _LINEAR_HZ / _LINEAR_MEL
    return np.where(mel < _LINEAR_MEL, linear_hz, _LINEAR_HZ * np.exp((mel - _LINEAR_MEL) * _LOG_STEP))
