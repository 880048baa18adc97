"""Where a recording holds any sound at all.

Letters: S samples, T frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SILENCE_PEAK = 1e-4
"""-80 dB of full scale, 3 steps of 16 bit. Even speech that peaks at ten times this drowns in the guard of the log-mel,
the small number that is added before the logarithm."""

# Half a second, rounded down to whole frames.
REACH_FRAMES = 6
"""How far a word may be from its sound, in frames of 80 ms."""


def audible_frames(samples: NDArray[np.float32], frame_samples: int) -> NDArray[np.bool_]:
    """Whether each frame holds a sample above `SILENCE_PEAK`: samples [S] -> bool [ceil(S / frame_samples)]."""
    padded = np.pad(np.abs(samples), (0, -len(samples) % frame_samples))
    return padded.reshape(-1, frame_samples).max(axis=1, initial=0.0) > SILENCE_PEAK


def within_reach(there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Bool [T]: the frames in `there`, and all frames at most `REACH_FRAMES` away from one of them."""
    if not len(there):
        return there
    counts = np.convolve(there, np.ones(2 * REACH_FRAMES + 1))
    return counts[REACH_FRAMES : REACH_FRAMES + len(there)] > 0.5
