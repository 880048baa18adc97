"""Checks of the arrays and times that callers push into a session."""

from __future__ import annotations

import math

import numpy as np

from avsr.arrays import Crops, Samples
from avsr.grid import CROP_PX, SAMPLE_RATE_HZ

MAX_PUSH_S = 60.0
"""Most sound in one call: more is a mistake, not a stream."""


def check_samples(samples: Samples) -> None:
    """Raises ValueError unless `samples` is sound: float32 [S], finite, at most a minute."""
    if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
        raise ValueError(f"samples: got {_kind(samples)}, expected float32 [S] in [-1, 1] at 16 kHz")
    if len(samples) > MAX_PUSH_S * SAMPLE_RATE_HZ:
        raise ValueError(f"samples: got {len(samples)}, expected {MAX_PUSH_S:.0f} s or less at a time")
    if not np.isfinite(samples).all():
        raise ValueError("samples: got values that are not finite, expected float32 [S] in [-1, 1]")


def check_time(t: float | None) -> None:
    """Raises ValueError unless `t` is a time in seconds, or None."""
    if t is not None and not math.isfinite(t):
        raise ValueError(f"t: got {t}, expected seconds")


def is_crop(picture: Crops) -> bool:
    """Whether an array is a lip crop, not a whole picture. Raises ValueError if it is neither."""
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8:
        if picture.shape == (CROP_PX, CROP_PX):
            return True
        if picture.ndim == 3 and picture.shape[2] == 3 and min(picture.shape) > 0:
            return False
    raise ValueError(f"picture: got {_kind(picture)}, expected uint8 [H, W, 3] in RGB, or a lip crop uint8 [96, 96]")


def _kind(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
