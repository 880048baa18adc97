"""What a beam search adds up: the contract of every part that scores the next unit of a hypothesis.

Letters: B hypotheses of one utterance, V units of the vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Units = NDArray[np.int64]
"""[B]: one unit of the vocabulary for each hypothesis."""

UnitScores = NDArray[np.floating[Any]]
"""[B, V]: natural logarithms of the probability of each unit, given the units before it."""

Kept = NDArray[np.int64]
"""[B']: which row of a state each new hypothesis goes on from. A row may be there many times, or not at all."""

StateT = TypeVar("StateT")


class Scorer(Protocol[StateT]):
    """Scores each next unit of many hypotheses of one utterance: a decoder, a language model, a CTC prefix score.

    The state holds the past, one row for each hypothesis; a decoder keeps its keys and values there. The scorer itself
    keeps nothing of the hypotheses and never changes a state that it is given.
    """

    def initial_state(self, batch: int) -> StateT:
        """The state of `batch` hypotheses without any unit, not even the start unit."""

    def score(self, last_B: Units, state: StateT) -> tuple[UnitScores, StateT]:
        """The scores [B, V] of every unit after `last_B`, and the state with `last_B` in it.

        last_B: the unit that each hypothesis got after `state`; in the first call the start unit. All hypotheses of a
            call are equally long. The scores belong to the caller, who may change them.
        """

    def select(self, state: StateT, kept_B: Kept) -> StateT:
        """A state for the hypotheses `kept_B`: its row i is row `kept_B[i]` of the given state."""


class Part(NamedTuple):
    """One scorer in the weighted sum of a search."""

    name: str
    scorer: Scorer[Any]
    weight: float


class LengthBonus:
    """A `Scorer` that gives 1 for every unit, whatever it is: its weight pays for longer hypotheses."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary

    def initial_state(self, batch: int) -> None:
        """Nothing: the bonus does not depend on the past."""

    def score(self, last_B: Units, state: None) -> tuple[UnitScores, None]:
        return np.ones((len(last_B), self._vocabulary)), None

    def select(self, state: None, kept_B: Kept) -> None:
        """Nothing: see `initial_state`."""
