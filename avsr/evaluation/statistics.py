"""Error counts as jiwer defines them, their intervals, and tests of the difference between two recognisers.

Letters: C conditions, N utterances, R resamples. Rates are in percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import jiwer
import numpy as np
from numpy.typing import NDArray

from avsr.evaluation.scores import SCORES, WER

Array = NDArray[np.float64]

RESAMPLES = 2000  # enough for an interval to one decimal
TEST_RESAMPLES = 10_000  # for p values: none can be smaller than 1 in 10 000


class ErrorCounts(NamedTuple):
    """How a hypothesis differs from its reference."""

    hits: int
    """Words that are right."""
    substitutions: int
    deletions: int
    insertions: int
    characters: int
    """Characters of the reference, spaces among them."""
    character_errors: int

    @property
    def words(self) -> int:
        """Words of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        """Word errors."""
        return self.substitutions + self.deletions + self.insertions


@lru_cache(maxsize=100_000)  # the same sentence comes out under many conditions
def count_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """The counts of `jiwer.process_words` and `jiwer.process_characters`; either text may be empty."""
    words = jiwer.process_words(reference, hypothesis)
    characters = jiwer.process_characters(reference, hypothesis)
    return ErrorCounts(
        words.hits,
        words.substitutions,
        words.deletions,
        words.insertions,
        characters.hits + characters.substitutions + characters.deletions,
        characters.substitutions + characters.deletions + characters.insertions,
    )


class Counted(NamedTuple):
    """A hypothesis against its reference by one score."""

    units: int
    """Units of the reference."""
    errors: int


def count_units(score: str, reference: str, hypothesis: str) -> Counted:
    """Units and errors by one of `SCORES`; either text may be empty."""
    if score == WER:
        counts = count_errors(reference, hypothesis)
        return Counted(counts.words, counts.errors)
    return _count_others(score, reference, hypothesis)


@lru_cache(maxsize=200_000)  # two scores
def _count_others(score: str, reference: str, hypothesis: str) -> Counted:
    spoken, written = (" ".join(SCORES[score].units(text)) for text in (reference, hypothesis))
    # To jiwer a unit is a word now.
    aligned = jiwer.process_words(spoken, written)
    units = aligned.hits + aligned.substitutions + aligned.deletions
    return Counted(units, aligned.substitutions + aligned.deletions + aligned.insertions)


@lru_cache(maxsize=200_000)
def right_units(score: str, reference: str, hypothesis: str) -> tuple[bool, ...]:
    """Whether each unit of the reference is right, as jiwer aligns the texts. score: one of `SCORES`."""
    spoken, written = (" ".join(SCORES[score].units(text)) for text in (reference, hypothesis))
    return tuple(left == right for left, right in aligned_words(spoken, written) if left)


def aligned_words(reference: str, hypothesis: str) -> list[tuple[str, str]]:
    """Pairs (word of the reference, word of the hypothesis) as jiwer aligns them; "" for a missing word."""
    aligned = jiwer.process_words(reference, hypothesis)
    spoken, written = aligned.references[0], aligned.hypotheses[0]
    pairs = []
    for chunk in aligned.alignments[0]:
        left = spoken[chunk.ref_start_idx : chunk.ref_end_idx]
        right = written[chunk.hyp_start_idx : chunk.hyp_end_idx]
        length = max(len(left), len(right))
        pairs += list(zip(left + [""] * (length - len(left)), right + [""] * (length - len(right)), strict=True))
    return pairs


def error_rate(errors: int, units: int) -> float:
    """Errors in percent of the units of all references. Without any unit, each error counts as 100, as in jiwer."""
    return 100.0 * errors / max(1, units)


def resampling(utterances: int, resamples: int = RESAMPLES, seed: int = 1) -> Array:
    """How often each utterance is drawn in each resample: [R, N], rows add up to N.

    Bootstrap over utterances (Bisani and Ney, ICASSP 2004): the words of one utterance are not independent, utterances
    are. Use one array for all conditions and recognisers that are compared, so that they stay paired.

    utterances: N.
    resamples: R.
    seed: of the draws.
    """
    if utterances == 0:
        return np.zeros((resamples, 0))
    drawn = np.random.default_rng(seed).integers(0, utterances, (resamples, utterances))
    flat = drawn + utterances * np.arange(resamples)[:, None]
    return np.bincount(flat.ravel(), minlength=resamples * utterances).reshape(resamples, utterances).astype(np.float64)


def resampled_rates(errors_CN: Array, units_N: Array, weights_RN: Array) -> Array:
    """The error rate of every condition in every resample: [C, R] percent."""
    # A resample may draw only utterances without words.
    return 100.0 * (errors_CN @ weights_RN.T) / np.maximum(weights_RN @ units_N, 1.0)


def intervals(errors_CN: Array, units_N: Array, weights_RN: Array) -> tuple[Array, Array]:
    """Lower and upper ends of the 95 % intervals (percentiles of the resamples): [C] each, percent."""
    rates_CR = resampled_rates(errors_CN, units_N, weights_RN)
    low_C, high_C = np.percentile(rates_CR, [2.5, 97.5], axis=1)
    return low_C, high_C


class PairedTest(NamedTuple):
    """Two recognisers on the same utterances, condition by condition; B minus A, in points of error rate."""

    difference: Array
    """[C]."""
    low: Array
    """[C]: lower end of the 95 % interval of the difference."""
    high: Array
    """[C]: upper end of the 95 % interval of the difference."""
    p: Array
    """[C]: two-sided, of one condition by itself."""
    p_family: Array
    """[C]: probability that chance alone makes any of the C conditions differ as much."""


def paired_test(errors_a_CN: Array, errors_b_CN: Array, units_N: Array, weights_RN: Array) -> PairedTest:
    """Paired bootstrap over utterances of the difference in error rate.

    p is the share of resamples with a difference as large as the measured one, after all were shifted to a mean of
    zero (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 16.4). p_family does the same with the
    largest of all C studentised differences (single-step max-T, Westfall and Young, Resampling-Based Multiple Testing,
    1993), which does not need independent conditions. Neither falls below 1 / (R + 1). If M utterances differ at all,
    neither falls below 2^(1 - M), the p of a sign test in which all M differ in the same direction.

    errors_a_CN, errors_b_CN: errors of each utterance.
    units_N: units of each reference, such as words.
    weights_RN: of `resampling`.
    """
    units = max(1.0, float(units_N.sum()))
    difference_C = 100.0 * (errors_b_CN - errors_a_CN).sum(axis=1) / units
    drawn_CR = resampled_rates(errors_b_CN - errors_a_CN, units_N, weights_RN)
    low_C, high_C = np.percentile(drawn_CR, [2.5, 97.5], axis=1)
    moved_CR = np.abs(drawn_CR - difference_C[:, None])
    measured_C = np.abs(difference_C) - 1e-9  # equal quotients of integer sums may differ in the last bit
    resamples = weights_RN.shape[0]
    differing_C = np.count_nonzero(errors_a_CN != errors_b_CN, axis=1)
    p_C = (1 + (moved_CR >= measured_C[:, None]).sum(axis=1)) / (resamples + 1)
    p_C = np.maximum(p_C, 2.0 ** np.minimum(0, 1 - differing_C))
    deviation_C = drawn_CR.std(axis=1)
    differs_C = deviation_C > 0  # if all utterances differ equally, or none do, all resamples are the same
    scale_C = np.where(differs_C, deviation_C, 1.0)
    largest_R = np.sort((moved_CR[differs_C] / scale_C[differs_C, None]).max(axis=0, initial=0.0))
    as_large_C = resamples - np.searchsorted(largest_R, measured_C / scale_C)
    p_family_C = np.maximum(p_C, (1 + as_large_C) / (resamples + 1))
    p_family_C[difference_C == 0] = p_C[difference_C == 0] = 1.0
    return PairedTest(difference_C, low_C, high_C, p_C, p_family_C)


class Rate(NamedTuple):
    """An error rate with its 95 % interval, in percent."""

    percent: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.percent:.1f} [{self.low:.1f}, {self.high:.1f}]"


class WordErrorRate(NamedTuple):
    """A word error rate with its 95 % interval, in percent, and the size of the test set."""

    percent: float
    low: float
    high: float
    utterances: int
    words: int

    def __str__(self) -> str:
        return f"{self.percent:.1f} % [{self.low:.1f}, {self.high:.1f}]"


def word_error_rate(
    references: Sequence[str], hypotheses: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 1
) -> WordErrorRate:
    """Errors of all utterances over words of all references, with a bootstrap interval over utterances.

    references, hypotheses: texts in the same order.
    resamples, seed: of the bootstrap.
    Raises ValueError if there are no texts.
    """
    counts = [count_errors(r, h) for r, h in zip(references, hypotheses, strict=True)]
    if not counts:
        raise ValueError("word error rate: got no utterance")
    errors_1N = np.array([[count.errors for count in counts]], np.float64)
    words_N = np.array([count.words for count in counts], np.float64)
    low_1, high_1 = intervals(errors_1N, words_N, resampling(len(counts), resamples, seed))
    percent = error_rate(sum(count.errors for count in counts), sum(count.words for count in counts))
    return WordErrorRate(percent, float(low_1[0]), float(high_1[0]), len(counts), int(words_N.sum()))


def snr_gain_db(levels_db: Sequence[float], without: Sequence[float], with_: Sequence[float], at_db: float) -> float:
    """The effective SNR gain of an aid, such as lips, in dB (Potamianos et al., Proc. IEEE 91(9), 2003).

    It is the distance from `at_db` down to the level at which the error rate with the aid equals the error rate without
    it at `at_db`. If the aid keeps errors below that down to the lowest level, the gain is at least the returned value.
    It is negative if the aid makes errors more frequent.

    levels_db: rising.
    without: error rates at the levels without the aid.
    with_: error rates at the levels with the aid, linearly interpolated between levels.
    at_db: one of the levels; raises ValueError if it is not.
    """
    levels, rates = np.asarray(levels_db, float), np.asarray(with_, float)
    if at_db not in levels_db:
        raise ValueError(f"got {at_db:g} dB, expected one of the levels {list(levels_db)}")
    allowed = float(without[list(levels_db).index(at_db)])
    above = np.flatnonzero(rates > allowed)  # levels at which the aid does not suffice
    if len(above) == 0:
        return float(at_db - levels[0])
    last = int(above[-1])
    if last == len(levels) - 1:
        return float(at_db - levels[-1])
    share = (rates[last] - allowed) / (rates[last] - rates[last + 1])
    return float(at_db - (levels[last] + share * (levels[last + 1] - levels[last])))
