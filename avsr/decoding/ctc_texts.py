"""Whole texts by the log-probabilities of a CTC network: the likely ones, and how likely a given one is.

The probability of a text is the sum over all its alignments to the frames (Graves et al., ICML 2006, section 3), from
the prefix scores of `avsr.decoding.ctc_prefix`.

Letters: T frames, V units, the blank among them; one more unit stands for the end of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from avsr.arrays import LogProbs
from avsr.decoding.ctc_prefix import LOGZERO, CTCPrefixScorer
from avsr.decoding.joint import JointSettings, beam_search
from avsr.decoding.scorers import Kept, Part, Units, UnitScores, score_units

BEAM_FOR_EACH = 4
"""How many hypotheses run on for each text that is asked for."""


class Text(NamedTuple):
    """One text by its units."""

    units: tuple[int, ...]
    log_prob: float


class InPlaces:
    """A `Scorer` that allows, at each place of a sentence, its units alone; a text ends after whole sentences.

    places: the units of each place; sentences follow each other. end_id: the last unit.
    """

    def __init__(self, places: Sequence[Sequence[int]], end_id: int) -> None:
        self._allowed_PV = np.full((len(places), end_id + 1), LOGZERO)
        for place, units in enumerate(places):
            self._allowed_PV[place, list(units)] = 0.0
        self._allowed_PV[0, end_id] = 0.0

    def initial_state(self, batch: int) -> int:
        """The number of units so far, which is the same for all hypotheses."""
        return 0

    def score(self, last_B: Units, state: int) -> tuple[UnitScores, int]:
        """See `Scorer`: 0 for a unit that may come next."""
        return np.tile(self._allowed_PV[state % len(self._allowed_PV)], (len(last_B), 1)), state + 1

    def select(self, state: int, kept_B: Kept) -> int:
        """See `Scorer`."""
        return state


def ctc_texts(
    log_probs_TV: LogProbs, blank_id: int, count: int, places: Sequence[Sequence[int]] | None = None
) -> list[Text]:
    """The most likely texts, best first, at most `count`.

    places: the units of each place of a sentence, if the model knows such sentences only; None: any units.
    """
    frames, end_id = log_probs_TV.shape
    parts = [Part("ctc", _prefix_scorer(log_probs_TV, blank_id), 1.0)]
    if places is not None:
        parts.append(Part("places", InPlaces(places, end_id), 1.0))
    settings = JointSettings(beam=BEAM_FOR_EACH * count, best=count)
    # One step more than there can be units: in its last step the search ends every text, finished or not.
    found = beam_search(parts, end_id, frames + 1, settings, end_id + 1)
    texts = [Text(item.text_units, item.scores["ctc"]) for item in found.hypotheses if item.score > LOGZERO / 2]
    return texts[:count]


def ctc_log_prob(log_probs_TV: LogProbs, blank_id: int, units: Sequence[int]) -> float:
    """The natural logarithm of the probability of a text; about -1e10 if it has too many units for the frames."""
    end_id = log_probs_TV.shape[1]
    return score_units(_prefix_scorer(log_probs_TV, blank_id), units, end_id)


def _prefix_scorer(log_probs_TV: LogProbs, blank_id: int) -> CTCPrefixScorer:
    """The scorer with a column for the end, which no frame shows."""
    frames, end_id = log_probs_TV.shape
    rows_TV = np.concatenate((log_probs_TV, np.full((frames, 1), LOGZERO, log_probs_TV.dtype)), axis=1)
    return CTCPrefixScorer(rows_TV, blank_id, end_id)
