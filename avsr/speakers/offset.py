"""How far sound and lips are apart in time.

Letters: T slots of 40 ms, D embedding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Present
from avsr.grid import SLOT_MS

MAX_OFFSET_SLOTS = 15
"""Offsets of up to 600 ms either way are considered."""

_PEAK_SLOTS = 3  # lags at most this far from the most likely one belong to its peak
# Chosen on the development split, and checked on the speakers of train_other.
_FAIR_HEIGHT = 3.8  # a peak of this height is as likely right as wrong
_HEIGHT_STEP = 0.4  # how fast the confidence rises with the height


class Offset(NamedTuple):
    """How far the sound is from the lips."""

    ms: float
    """Positive if the sound comes later than the lips move, negative if it comes earlier."""
    confidence: float
    """In [0, 1]: how sure it is that sound and lips belong together and the true offset is within 40 ms."""


def lag_evidence(
    lips_TD: NDArray[np.float32], present_T: Present, sound_TD: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Evidence in nats [31] for each lag of the sound behind the lips, from -MAX_OFFSET_SLOTS to MAX_OFFSET_SLOTS.

    lips_TD: embeddings of a mouth over a stretch of slots, as in `SlotEvidence`.
    present_T: whether the mouth is seen. Its embeddings in other slots do not matter.
    sound_TD: embeddings of the sound.

    The evidence of several stretches can be added up. The evidence of slots drawn at random is subtracted, because each
    lag compares other slots, and longer lags compare fewer.
    """
    slots = len(lips_TD)
    lips_TD = np.where(present_T[:, None], lips_TD, 0).astype(np.float64)
    at_random = 0.0
    if present_T.any():
        at_random = float(lips_TD.sum(0) / present_T.sum() @ sound_TD.mean(0, dtype=np.float64))
    evidence = []
    for lag in range(-MAX_OFFSET_SLOTS, MAX_OFFSET_SLOTS + 1):
        # A stretch shorter than the lag has nothing to compare.
        count = max(0, slots - abs(lag))
        lips = slice(max(0, -lag), max(0, -lag) + count)
        sound = slice(max(0, lag), max(0, lag) + count)
        nats = np.einsum("td,td->", lips_TD[lips], sound_TD[sound])
        evidence.append(float(nats) - at_random * float(present_T[lips].sum()))
    return np.array(evidence)


def estimate_offset(evidence: NDArray[np.float64]) -> Offset:
    """The most likely offset, from what `lag_evidence` gives. A parabola through the peak refines it below one slot.

    The confidence follows from the height of the peak, in deviations of the lags away from it. Unlike nats, the height
    does not depend on how much the speech is like the speech that the network was trained on.
    """
    # Without any lips all lags are zero, and the peak would be wherever `argmax` looks first.
    if not evidence.any():
        return Offset(0.0, 0.0)
    # The parabola needs a neighbour on either side of the peak.
    peak = int(np.clip(evidence.argmax(), 1, len(evidence) - 2))
    before, at, after = evidence[peak - 1 : peak + 2]
    curvature = before - 2 * at + after
    fraction = float(np.clip((before - after) / (2 * curvature), -0.5, 0.5)) if curvature < 0 else 0.0
    away = evidence[np.abs(np.arange(len(evidence)) - peak) > _PEAK_SLOTS]
    height = (at - away.mean()) / max(float(away.std()), 1e-6)
    # The clip keeps `exp` from overflowing for a very flat peak.
    confidence = 1 / (1 + math.exp(-float(np.clip((height - _FAIR_HEIGHT) / _HEIGHT_STEP, -50, 50))))
    return Offset((peak - MAX_OFFSET_SLOTS + fraction) * SLOT_MS, confidence)
