"""Joint CTC/attention search: the texts that decoder, CTC and language model together find most likely.

Watanabe et al. 2017, "Hybrid CTC/Attention Architecture for End-to-End Speech Recognition", section III-B. Order,
pruning and end follow the search of ESPnet as auto_avsr runs it, so that published models give the texts, scores and
number of steps that they were published with.

Letters: B running hypotheses, K candidates of each, U units so far, V units of the vocabulary, N parts of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import LogProbs
from avsr.decoding.ctc_prefix import CTCPrefixScorer
from avsr.decoding.scorers import LengthBonus, Part, Scorer, UnitScores
from avsr.errors import ConfigError, ModelError

PRE_BEAM = 1.5
"""For each place in the beam, how many units of a hypothesis are tried: those that the decoder finds best."""
END_LENGTHS = 3
"""The search ends when this many lengths in a row gave bad texts only."""
END_MARGIN = 10.0
"""A text is bad if its score is lower than the best one's by this."""


class JointSettings(NamedTuple):
    """The settings of the search. auto_avsr has the same defaults."""

    beam: int = 40
    """How many hypotheses run on after each step."""
    ctc_weight: float = 0.1
    """The weight of the CTC prefix score; the decoder has the rest of 1. A part with weight 0 is left out."""
    lm_weight: float = 0.0
    """The weight of the language model."""
    bonus: float = 0.0
    """Added for each unit."""
    best: int | None = None
    """Stop as soon as the best texts, of this number, are certain: they and their scores are unchanged, and worse texts
    may be missing. None: stop where the original search does."""


class Hypothesis(NamedTuple):
    """One text that ended."""

    units: tuple[int, ...]
    """All units, with start and end unit. The end unit is there twice if the text ended in the very last step."""
    score: float
    """The weighted sum."""
    scores: dict[str, float]
    """The sum of each part, without its weight."""

    @property
    def text_units(self) -> tuple[int, ...]:
        """The units without start and end."""
        return tuple(unit for unit in self.units if unit != self.units[0])


class Found(NamedTuple):
    """The result of a search."""

    hypotheses: list[Hypothesis]
    """The texts that ended, best first."""
    steps: int
    """How many units the longest hypothesis got, the end unit included."""


def joint_search(
    decoder: Scorer[Any],
    ctc_TV: LogProbs,
    settings: JointSettings,
    lm: Scorer[Any] | None = None,
    *,
    blank_id: int = 0,
) -> Found:
    """The most likely texts of one utterance.

    decoder, lm: scorers of this utterance. ctc: natural logarithms of the CTC probabilities, [T, V]; the search makes
    at most T steps. The last unit of the vocabulary is both start and end. Raises ConfigError for impossible settings,
    ModelError if the scores are not finite.
    """
    steps, vocabulary = ctc_TV.shape
    ctc = CTCPrefixScorer(ctc_TV, blank_id, vocabulary - 1)
    return joint_search_by(decoder, ctc, vocabulary, steps, settings, lm)


def joint_search_by(
    decoder: Scorer[Any],
    ctc: Scorer[Any],
    vocabulary: int,
    steps: int,
    settings: JointSettings,
    lm: Scorer[Any] | None = None,
) -> Found:
    """The same search with any scorer in the place of the CTC prefix score.

    vocabulary: how many units there are. steps: the most units of a text.
    """
    check_settings(settings, has_lm=lm is not None)
    parts = [
        Part("decoder", decoder, 1 - settings.ctc_weight),
        Part("ctc", ctc, settings.ctc_weight),
        *([] if lm is None else [Part("lm", lm, settings.lm_weight)]),
        Part("length_bonus", LengthBonus(vocabulary), settings.bonus),
    ]
    used = [part for part in parts if part.weight]
    # The original tries all units if only one of decoder and CTC takes part.
    has_both = 0 < settings.ctc_weight < 1
    tried = min(vocabulary, int(PRE_BEAM * settings.beam)) if has_both else vocabulary
    return beam_search(used, vocabulary - 1, steps, settings, tried)


def check_settings(settings: JointSettings, has_lm: bool) -> None:
    """Raises ConfigError for settings that no search can have."""
    if settings.beam < 1:
        raise ConfigError("wrong beam of the search", got=settings.beam, expected="a whole number from 1 on")
    if not 0 <= settings.ctc_weight <= 1:
        raise ConfigError("wrong CTC weight of the search", got=settings.ctc_weight, expected="0 to 1")
    if not np.isfinite((settings.lm_weight, settings.bonus)).all() or settings.lm_weight < 0:
        got = f"{settings.lm_weight}, {settings.bonus}"
        raise ConfigError(
            "wrong weight of the language model, or bonus", got=got, expected="finite, a weight of 0 or more"
        )
    if settings.lm_weight and not has_lm:
        raise ConfigError("the search has no language model to weigh", got=settings.lm_weight, expected="lm_weight 0")
    if settings.best is not None and settings.best < 1:
        raise ConfigError("wrong number of best texts", got=settings.best, expected="a whole number from 1 on, or None")


class _Running(NamedTuple):
    """The hypotheses of a beam, best first."""

    units_BU: NDArray[np.int64]
    scores_B: NDArray[np.float64]
    sums_BN: NDArray[np.float64]
    """The sum of each part, without its weight."""
    states: list[Any]
    """The state of each part."""


class _Extended(NamedTuple):
    """The hypotheses of a beam after a step, best first; each goes on from row `kept` of the states."""

    units_BU: NDArray[np.int64]
    scores_B: NDArray[np.float64]
    sums_BN: NDArray[np.float64]
    kept_B: NDArray[np.int64]
    states: list[Any]

    def ended(self, parts: Sequence[Part], end_id: int) -> list[Hypothesis]:
        """The hypotheses that got the end in this step."""
        names = [part.name for part in parts]
        return [
            Hypothesis(
                tuple(self.units_BU[row].tolist()),
                float(self.scores_B[row]),
                dict(zip(names, self.sums_BN[row].tolist(), strict=True)),
            )
            for row in np.flatnonzero(self.units_BU[:, -1] == end_id)
        ]

    def running(self, parts: Sequence[Part], end_id: int) -> _Running:
        """The other hypotheses. The places of those that ended stay empty."""
        rows = np.flatnonzero(self.units_BU[:, -1] != end_id)
        kept_B = self.kept_B[rows]
        # A hypothesis that ended needs no copy of its keys and values, the largest part of a state.
        states = [part.scorer.select(state, kept_B) for part, state in zip(parts, self.states, strict=True)]
        return _Running(self.units_BU[rows], self.scores_B[rows], self.sums_BN[rows], states)


def beam_search(parts: Sequence[Part], end_id: int, steps: int, settings: JointSettings, tried: int) -> Found:
    """The most likely texts by any parts; of the settings, beam, bonus and best are used.

    parts: their scores are at most 0, but for a `LengthBonus`. end_id: the end and start unit. steps: the most units of
    a text. tried: how many units each hypothesis is extended by, the best by the first part; the end is tried too. At
    least the size of the vocabulary: all are tried.
    """
    running = _Running(
        units_BU=np.array([[end_id]]),
        scores_B=np.zeros(1),
        sums_BN=np.zeros((1, len(parts))),
        states=[part.scorer.initial_state(1) for part in parts],
    )
    ended: list[Hypothesis] = []
    step = -1
    for step in range(steps):
        extended = _extended(running, parts, end_id, settings.beam, tried)
        if step == steps - 1:
            extended = _all_ended(extended, end_id)
        ended += extended.ended(parts, end_id)
        if _is_over(ended, step):
            break
        running = extended.running(parts, end_id)
        if _is_settled(ended, running, settings, steps - step - 1):
            break
    return Found(sorted(ended, key=lambda hypothesis: -hypothesis.score), step + 1)


def _extended(running: _Running, parts: Sequence[Part], end_id: int, beam: int, tried: int) -> _Extended:
    """The best hypotheses with one more unit."""
    last_B = running.units_BU[:, -1]
    scored = [part.scorer.score(last_B, state) for part, state in zip(parts, running.states, strict=True)]
    units_BK = _candidates(scored[0][0], tried, end_id)
    scores_NBK = np.stack([np.take_along_axis(scores_BV, units_BK, axis=1) for scores_BV, _ in scored])
    total_BK = running.scores_B[:, None] + np.tensordot([part.weight for part in parts], scores_NBK, axes=1)
    total_BK[units_BK < 0] = -np.inf
    row_B, column_B = np.unravel_index(_best(total_BK.ravel(), beam), total_BK.shape)
    return _Extended(
        units_BU=np.concatenate((running.units_BU[row_B], units_BK[row_B, column_B, None]), axis=1),
        scores_B=total_BK[row_B, column_B],
        sums_BN=running.sums_BN[row_B] + scores_NBK[:, row_B, column_B].T,
        kept_B=row_B,
        states=[state for _, state in scored],
    )


NO_CANDIDATE = -1


def _candidates(scores_BV: UnitScores, tried: int, end_id: int) -> NDArray[np.int64]:
    """The units [B, K] by which each hypothesis is extended; NO_CANDIDATE fills the rest of a row."""
    batch, vocabulary = scores_BV.shape
    if tried >= vocabulary:
        return np.tile(np.arange(vocabulary), (batch, 1))
    best_BK = np.argpartition(-scores_BV, tried - 1, axis=1)[:, :tried]
    # The end is tried once: it may be among the best, and takes a place there.
    best_BK[best_BK == end_id] = NO_CANDIDATE
    return np.concatenate((best_BK, np.full((batch, 1), end_id)), axis=1)


def _best(values: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The places of the highest values, best first. Raises ModelError if all are infinite or NaN."""
    places = np.argpartition(-values, count - 1)[:count] if count < len(values) else np.arange(len(values))
    places = places[np.isfinite(values[places])]
    if not len(places):
        raise ModelError("the model gives no finite score for any next unit", remedy="download the model again")
    return places[np.argsort(-values[places], kind="stable")]


def _all_ended(extended: _Extended, end_id: int) -> _Extended:
    """The hypotheses with the end as one more unit, without a score for it, even where it is there already."""
    ends_B1 = np.full((len(extended.units_BU), 1), end_id)
    return extended._replace(units_BU=np.concatenate((extended.units_BU, ends_B1), axis=1))


def _is_over(ended: Sequence[Hypothesis], step: int) -> bool:
    """Whether the texts of several lengths in a row are bad; texts that ended in this step are longer than these."""
    best = max((hypothesis.score for hypothesis in ended), default=0.0)
    for length in range(step, step - END_LENGTHS, -1):
        scores = [hypothesis.score for hypothesis in ended if len(hypothesis.units) == length]
        if not scores or max(scores) >= best - END_MARGIN:
            return False
    return True


def _is_settled(ended: Sequence[Hypothesis], running: _Running, settings: JointSettings, left: int) -> bool:
    """Whether nothing runs, or nothing that runs can become one of the best: only a bonus lets scores rise."""
    if not len(running.scores_B):
        return True
    if settings.best is None or len(ended) < settings.best:
        return False
    reachable = running.scores_B[0] + max(settings.bonus, 0.0) * left
    return reachable < sorted((hypothesis.score for hypothesis in ended), reverse=True)[settings.best - 1]
