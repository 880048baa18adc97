"""How often lips help, change nothing or hurt: audio-visual against audio only, utterance by utterance.

Both sides have the same utterance in the same sound: the same noise, level and seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.evaluation.conditions import UNUSED, Condition
from avsr.evaluation.results import Results
from avsr.evaluation.statistics import count_units, right_units


class LipsEffect(NamedTuple):
    """What lips change in one pass over some utterances: counts, as means over seeds, kinds of noise and levels.

    An utterance is helped if it has fewer errors with lips than by the sound alone, and hurt if it has more. A word of
    a reference is helped if it is right with lips only, and hurt if it is right by the sound alone only. Scores that
    count no words have their own units in place of words.
    """

    utterances: int
    utterances_helped: float
    utterances_hurt: float
    words: int
    words_helped: float
    words_hurt: float
    errors_removed: float
    """Errors that the helped utterances have fewer."""
    errors_added: float
    """Errors that the hurt utterances have more."""

    @property
    def utterances_unchanged(self) -> float:
        return self.utterances - self.utterances_helped - self.utterances_hurt

    @property
    def words_unchanged(self) -> float:
        return self.words - self.words_helped - self.words_hurt

    @property
    def utterance_counts(self) -> tuple[float, float, float]:
        """Helped, unchanged, hurt."""
        return self.utterances_helped, self.utterances_unchanged, self.utterances_hurt

    @property
    def word_counts(self) -> tuple[float, float, float]:
        """Helped, unchanged, hurt."""
        return self.words_helped, self.words_unchanged, self.words_hurt

    @property
    def net_points(self) -> float:
        """Error rate with lips minus error rate by the sound alone, in points."""
        return 100 * (self.errors_added - self.errors_removed) / max(1, self.words)


class LipsEffects:
    """The effects of lips in one evaluation."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._counts: dict[Condition, NDArray[np.int32]] = {}

    def conditions(self) -> dict[Condition, list[Condition]]:
        """Audio-visual condition without a seed -> the conditions of all its seeds, if audio only had the same sound.

        Empty without audio only or without audio-visual.
        """
        groups = self._results.by_condition()
        return {c: group for c, group in groups.items() if c.modality == "av" and all(map(self.sound_alone, group))}

    def sound_alone(self, condition: Condition) -> Condition | None:
        """The audio-only condition with the sound of an audio-visual one; None if it was not measured."""
        # If only the lips are random, the seed belongs to the lips, and the sound stands in the results without a seed.
        for seed in (condition.seed, None):
            found = Condition("a", condition.noise, condition.snr_db, UNUSED, seed)
            if found in self._results.cells:
                return found
        return None

    def over(self, conditions: Sequence[Condition], places: Sequence[int] | None = None) -> LipsEffect | None:
        """The mean over audio-visual conditions; one that is several times in them weighs as much more.

        places: of the utterances that count, in `Results.utterances`; None for all.
        None without conditions, or if one of them has no audio-only side.
        """
        if not conditions or not all(map(self.sound_alone, conditions)):
            return None
        chosen = slice(None) if places is None else list(places)
        sums_K = np.sum([self._counts_of_each(condition)[chosen].sum(axis=0) for condition in conditions], axis=0)
        helped, hurt, words_helped, words_hurt, removed, added = (float(k) / len(conditions) for k in sums_K)
        units_N = self._results.units_of_each[chosen]
        return LipsEffect(len(units_N), helped, hurt, int(units_N.sum()), words_helped, words_hurt, removed, added)

    def _counts_of_each(self, condition: Condition) -> NDArray[np.int32]:
        """Of each utterance what `LipsEffect` counts, from `utterances_helped` on, without the sizes: [N, 6]."""
        if condition not in self._counts:
            alone = self.sound_alone(condition)
            assert alone is not None
            cells, score = self._results.cells, self._results.score_name
            texts = zip(cells[alone].hypotheses, cells[condition].hypotheses, strict=True)
            rows = [
                _counts(score, spoken.reference, *pair)
                for spoken, pair in zip(self._results.utterances, texts, strict=True)
            ]
            self._counts[condition] = np.array(rows, np.int32).reshape(-1, 6)
        return self._counts[condition]


def _counts(score: str, reference: str, alone: str, with_lips: str) -> tuple[int, ...]:
    if alone == with_lips:
        return (0,) * 6
    fewer = count_units(score, reference, alone).errors - count_units(score, reference, with_lips).errors
    right = zip(right_units(score, reference, alone), right_units(score, reference, with_lips), strict=True)
    changed = [after - before for before, after in right]
    return fewer > 0, fewer < 0, changed.count(1), changed.count(-1), max(0, fewer), max(0, -fewer)
