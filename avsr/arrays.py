"""The arrays that cross the seams between parts, by name. Everything outside the engines is numpy.

Letters: S samples, T slots or frames, H W pixels, V units of a vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
"""Sound [S]: mono, 16 kHz, in [-1, 1]."""

Crops = NDArray[np.uint8]
"""Lip crops [T, 96, 96] in grey, one a 40 ms slot."""

Present = NDArray[np.bool_]
"""[T]: whether the crop of each slot shows lips that can be read."""

LogProbs = NDArray[np.float32]
"""[T, V + 1]: natural logarithms of the probability of each unit in each frame; the blank is the last."""

Rows = NDArray[np.float32]
"""[T, ...]: what a stream engine gives its search, one row a frame: `LogProbs`, or the samples of each frame for a
search that recognises sound by itself."""


MAX_LEVEL = 4.0
"""The largest absolute value of samples from Python. Lossy codecs overshoot 1 a little; 16-bit values that were not
divided by 32768 are far above."""


def check_samples(samples: Any, name: str = "samples") -> None:
    """Raises ValueError unless `samples` is sound as callers give it: floats [S], finite, mono, at most `MAX_LEVEL`."""
    check_form(samples, name)
    array = np.asarray(samples)
    level = max(array.max(initial=0.0), -array.min(initial=0.0))
    if level > MAX_LEVEL:
        raise ValueError(f"{name}: got values up to {level:.0f}, expected float32 in [-1, 1]; divide by 32768")


def check_form(samples: Any, name: str = "samples") -> None:
    """Raises ValueError unless `samples` is floats [S], finite, mono, of any level: files may be far too loud."""
    array = np.asarray(samples)
    if not np.issubdtype(array.dtype, np.floating):  # integers would be taken for sound 32768 times too loud
        raise ValueError(f"{name}: got {array.dtype}, expected float32 in [-1, 1]")
    if array.ndim != 1:
        raise ValueError(f"{name}: got shape {array.shape}, expected one dimension, mono at 16 kHz")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: got values that are not finite")
