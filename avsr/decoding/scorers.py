"""What a beam search adds up: the contract of every part that scores the next unit of a hypothesis.

Letters: B hypotheses of one utterance, V units of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class WeightedSum:
    """A `Scorer` that adds up the scores of others, each times its weight."""

    def __init__(self, weighted: Sequence[tuple[Scorer[Any], float]]) -> None:
        self._weighted = tuple(weighted)

    def initial_state(self, batch: int) -> tuple[Any, ...]:
        """The states of the others."""
        return tuple(scorer.initial_state(batch) for scorer, _ in self._weighted)

    def score(self, last_B: Units, state: tuple[Any, ...]) -> tuple[UnitScores, tuple[Any, ...]]:
        """See `Scorer`."""
        scored = [scorer.score(last_B, own) for (scorer, _), own in zip(self._weighted, state, strict=True)]
        total_BV = sum(weight * scores_BV for (_, weight), (scores_BV, _) in zip(self._weighted, scored, strict=True))
        return np.asarray(total_BV), tuple(own for _, own in scored)

    def select(self, state: tuple[Any, ...], kept_B: Kept) -> tuple[Any, ...]:
        """See `Scorer`."""
        return tuple(scorer.select(own, kept_B) for (scorer, _), own in zip(self._weighted, state, strict=True))


def mixed(scorers: Sequence[Scorer[Any]], weights: Sequence[float]) -> Scorer[Any]:
    """The weighted sum of scorers. Weight 0 leaves a scorer out; with weight 1 the scorer itself is returned."""
    used = [(scorer, weight) for scorer, weight in zip(scorers, weights, strict=True) if weight]
    return used[0][0] if len(used) == 1 and used[0][1] == 1 else WeightedSum(used)


def score_units(scorer: Scorer[Any], units: Sequence[int], end_id: int) -> float:
    """The score of a whole text: of all its units and of the end after them. end_id: the start unit too."""
    total, last, state = 0.0, end_id, scorer.initial_state(1)
    for unit in (*units, end_id):
        scores_BV, state = scorer.score(np.array([last]), state)
        total += float(scores_BV[0, unit])
        last = unit
    return total
