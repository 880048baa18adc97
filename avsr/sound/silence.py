"""Where a recording holds any sound at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SILENCE_PEAK = 1e-4
"""-80 dB of full scale, 3 steps of 16 bit. Speech whose peak is ten times this drowns in the guard of the log-mel."""

REACH_FRAMES = 6
"""In 80 ms: how far from its sound a word may be placed."""


def audible_frames(samples: NDArray[np.float32], frame_samples: int) -> NDArray[np.bool_]:
    """Of samples [S]: bool [ceil(S / frame_samples)], whether anything in each frame is above `SILENCE_PEAK`."""
    padded = np.pad(np.abs(samples), (0, -len(samples) % frame_samples))
    return padded.reshape(-1, frame_samples).max(axis=1, initial=0.0) > SILENCE_PEAK


def within_reach(there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """bool [T]: frames that are `there` or not further than `REACH_FRAMES` from one that is."""
    if not len(there):
        return there
    counts = np.convolve(there, np.ones(2 * REACH_FRAMES + 1))
    return counts[REACH_FRAMES : REACH_FRAMES + len(there)] > 0.5
