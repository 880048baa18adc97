"""How likely a CTC network finds each continuation of a hypothesis: the prefix score of joint decoding.

Watanabe et al. 2017, "Hybrid CTC/Attention Architecture for End-to-End Speech Recognition", section III-C: the score of
a prefix is the probability of all alignments of all texts that begin with it. The recursions over time are linear, so
each is one running sum in the log domain, and no loop in Python goes through the frames.

Everything is numpy and float64: in float32, products of small probabilities vanish below e-103. A step of 40 hypotheses
in 250 frames and 5049 units takes 7 ms, a twelfth of the time of a decoder (`benchmarks/published_lips.py`).

Letters: B hypotheses, T frames, P = T + 1 points in time (point p is after p frames), V units.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import LogProbs
from avsr.decoding.scorers import Kept, Units, UnitScores

LOGZERO = -1e10
"""The logarithm of an impossible event. It is finite, so that differences of two of them are numbers."""

FAINT = 1e-150
"""Probabilities below this, e-345, count as 0 in sums over alignments, beside the best alignment. Products of two that
count are normal numbers: processors multiply others many times slower."""

NO_UNIT = -1

Array = NDArray[np.float64]


class CTCPrefixState(NamedTuple):
    """The alignments of each prefix to the frames. All prefixes are equally long."""

    in_unit_BP: Array
    """Logarithm of the probability of all alignments of the prefix to the first p frames that end in a unit."""
    in_blank_BP: Array
    """The same for alignments that end in a blank, and for the empty prefix before the first frame."""
    prefix_B: Array
    """The prefix score: all alignments of all texts that begin with this prefix."""
    last_B: Units
    """The last unit of each prefix; NO_UNIT for the empty prefix."""
    started: bool
    """Whether the start unit was given."""


class CTCPrefixScorer:
    """A `Scorer` by the CTC log-probabilities [T, V] of one utterance.

    blank_id: never a next unit. end_id: scores the texts that end with the prefix; its CTC probability is not used.
    """

    def __init__(self, log_probs_TV: LogProbs, blank_id: int, end_id: int) -> None:
        self._log_probs_TV = np.maximum(log_probs_TV, LOGZERO).astype(np.float64)
        self._probs_TV = _without_faint(np.exp(self._log_probs_TV))
        self._blank_P = _before(np.cumsum(self._log_probs_TV[:, blank_id]), 0.0)
        self._blank_id, self._end_id = blank_id, end_id

    def initial_state(self, batch: int) -> CTCPrefixState:
        """See `Scorer`."""
        in_blank_BP = np.tile(self._blank_P, (batch, 1))
        return CTCPrefixState(
            in_unit_BP=np.full_like(in_blank_BP, LOGZERO),
            in_blank_BP=in_blank_BP,
            prefix_B=np.zeros(batch),
            last_B=np.full(batch, NO_UNIT),
            started=False,
        )

    def score(self, last_B: Units, state: CTCPrefixState) -> tuple[UnitScores, CTCPrefixState]:
        """See `Scorer`. Scores are logarithms of the probability of the longer prefix, given the prefix."""
        # The start unit is not spoken: it changes no prefix.
        state = self._extended(last_B, state) if state.started else state._replace(started=True)
        any_BP = np.logaddexp(state.in_unit_BP, state.in_blank_BP)
        scores_BV = self._longer(any_BP)
        rows = np.flatnonzero(state.last_B != NO_UNIT)
        repeated = state.last_B[rows]
        # The same unit again is a second one only if a blank is between the two.
        again_RT = state.in_blank_BP[rows, :-1] + self._log_probs_TV[:, repeated].T
        scores_BV[rows, repeated] = np.logaddexp.reduce(again_RT, axis=1, initial=LOGZERO)
        scores_BV[:, self._blank_id] = LOGZERO
        scores_BV[:, self._end_id] = any_BP[:, -1]
        scores_BV -= state.prefix_B[:, None]
        return scores_BV, state

    def select(self, state: CTCPrefixState, kept_B: Kept) -> CTCPrefixState:
        """See `Scorer`."""
        return CTCPrefixState(
            in_unit_BP=state.in_unit_BP[kept_B],
            in_blank_BP=state.in_blank_BP[kept_B],
            prefix_B=state.prefix_B[kept_B],
            last_B=state.last_B[kept_B],
            started=state.started,
        )

    def _longer(self, any_BP: Array) -> Array:
        """The prefix scores [B, V] of the prefixes with one more unit, which begins after any point in time."""
        # A product of matrices instead of a logarithm of sums for each unit: it takes a tenth of the time.
        start_BT = any_BP[:, :-1]
        best_B1 = start_BT.max(axis=1, keepdims=True, initial=LOGZERO)
        sums_BV = _without_faint(np.exp(start_BT - best_B1)) @ self._probs_TV
        return np.log(np.maximum(sums_BV, FAINT**2)) + best_B1

    def _extended(self, unit_B: Units, state: CTCPrefixState) -> CTCPrefixState:
        """The state of the prefixes with one more unit each."""
        in_blank_BP = state.in_blank_BP
        is_again_B1 = (unit_B == state.last_B)[:, None]
        before_BP = np.where(is_again_B1, in_blank_BP, np.logaddexp(state.in_unit_BP, in_blank_BP))
        unit_BT = self._log_probs_TV[:, unit_B].T
        in_unit_BP = _stayed(before_BP, np.cumsum(unit_BT, axis=1))
        return CTCPrefixState(
            in_unit_BP=in_unit_BP,
            in_blank_BP=_stayed(in_unit_BP, self._blank_P[1:]),
            prefix_B=np.logaddexp.reduce(before_BP[:, :-1] + unit_BT, axis=1, initial=LOGZERO),
            last_B=unit_B,
            started=True,
        )


def _without_faint(probs: Array) -> Array:
    probs[probs < FAINT] = 0
    return probs


def _stayed(enter_BP: Array, emitted_BT: Array) -> Array:
    """The log-probabilities [B, P] of being in a symbol that can be entered at each point and emits every frame since.

    emitted: sums of the symbol's log-probabilities of all frames so far. With e their logarithm, the recursion is
    r[p] = logaddexp(r[p - 1], enter[p - 1]) + e[p]; r minus the sum of e is a running sum of enter minus that sum.
    """
    emitted_BP = _before(emitted_BT, 0.0)
    sums_BT = np.logaddexp.accumulate((enter_BP - emitted_BP)[:, :-1], axis=1)
    return _before(sums_BT + emitted_BT, LOGZERO)


def _before(values_BT: Any, first: float) -> Array:
    """The values with one more before the first."""
    return np.concatenate((np.full((*values_BT.shape[:-1], 1), first), values_BT), axis=-1)
