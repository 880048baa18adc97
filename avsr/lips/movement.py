"""Whether lips move as in speech.

Letters: T slots, K slots that are judged together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Present
from avsr.lips.slots import LipSlot

MOVES_FROM = 0.01
"""Standard deviation of the opening of the lips, in eye distances. In 30 clips of GRID it is above this for three
quarters of the time with words, and below 0.005 for 95 % of the time without."""
_SLOTS = 10  # measured over 0.4 s: the length of one or two syllables
_LEAST_SLOTS = 5


class Movement(NamedTuple):
    """The lips in the last slots, oldest first."""

    openings_T: NDArray[np.float64]
    """In eye distances; NaN if the lips were not seen."""
    faces_T: NDArray[np.int64]
    """Numbers of the faces; -1 without a face."""


def initial_movement() -> Movement:
    """Before the first slot."""
    return Movement(np.full(_SLOTS - 1, np.nan), np.full(_SLOTS - 1, -1))


def follow_movement(slots: Sequence[LipSlot], state: Movement) -> tuple[Present, Movement]:
    """Whether the lips move in each of the next slots, bool [T], and the next state.

    A slot is judged together with the 0.4 s before it, as far as they show the same face.
    """
    if not slots:
        return np.zeros(0, bool), state
    openings = [slot.opening if slot.present else math.nan for slot in slots]
    openings_T = np.concatenate((state.openings_T, openings))
    faces = np.array([-1 if slot.face is None else slot.face for slot in slots], np.int64)
    faces_T = np.concatenate((state.faces_T, faces))
    near_TK = np.lib.stride_tricks.sliding_window_view(openings_T, _SLOTS)
    is_same_TK = np.lib.stride_tricks.sliding_window_view(faces_T, _SLOTS) == faces_T[_SLOTS - 1 :, None]
    seen_TK = is_same_TK & np.isfinite(near_TK)
    count_T = np.maximum(1, seen_TK.sum(axis=1))
    near_TK = np.where(seen_TK, near_TK, 0.0)
    mean_T = near_TK.sum(axis=1) / count_T
    variance_T = (np.where(seen_TK, near_TK - mean_T[:, None], 0.0) ** 2).sum(axis=1) / count_T
    moving_T = (count_T >= _LEAST_SLOTS) & (variance_T >= MOVES_FROM**2)
    return moving_T, Movement(openings_T[len(slots) :], faces_T[len(slots) :])
