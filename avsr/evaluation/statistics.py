"""Error counts as jiwer defines them, their intervals, and whether two recognisers differ beyond chance.

C conditions, N utterances, R resamples. Rates are in percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import jiwer
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 2000  # enough for an interval to one decimal
TEST_RESAMPLES = 10_000  # for p values, whose smallest is one in as many


class ErrorCounts(NamedTuple):
    """How a hypothesis differs from its reference: words, then characters with spaces."""

    hits: int
    substitutions: int
    deletions: int
    insertions: int
    characters: int
    character_errors: int

    @property
    def words(self) -> int:
        """Of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
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


def aligned_words(reference: str, hypothesis: str) -> list[tuple[str, str]]:
    """Pairs (word of the reference, word of the hypothesis) as jiwer aligns them; "" where one side has none."""
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
    """Errors in percent of the units of all references. Without any unit each error counts as 100, as in jiwer."""
    return 100.0 * errors / max(1, units)


def resampling(utterances: int, resamples: int = RESAMPLES, seed: int = 1) -> Array:
    """How often each utterance is drawn in each resample: [R, N], rows add up to N.

    Bootstrap over utterances (Bisani and Ney, ICASSP 2004): words of one utterance are not independent, utterances
    are. Given to several conditions or recognisers alike, it keeps what is paired together.
    """
    if utterances == 0:
        return np.zeros((resamples, 0))
    drawn = np.random.default_rng(seed).integers(0, utterances, (resamples, utterances))
    flat = drawn + utterances * np.arange(resamples)[:, None]
    return np.bincount(flat.ravel(), minlength=resamples * utterances).reshape(resamples, utterances).astype(np.float64)


def resampled_rates(errors_CN: Array, units_N: Array, weights_RN: Array) -> Array:
    """The error rate of every condition in every resample: [C, R] percent."""
    return 100.0 * (errors_CN @ weights_RN.T) / np.maximum(weights_RN @ units_N, 1.0)


def intervals(errors_CN: Array, units_N: Array, weights_RN: Array) -> tuple[Array, Array]:
    """Lower and upper ends of the 95 % intervals (percentiles of the resamples): [C] each, percent."""
    rates_CR = resampled_rates(errors_CN, units_N, weights_RN)
    low_C, high_C = np.percentile(rates_CR, [2.5, 97.5], axis=1)
    return low_C, high_C


class PairedTest(NamedTuple):
    """Two recognisers on the same utterances, condition by condition; B minus A, in points of error rate.

    difference, low, high: [C], with the 95 % interval. p: [C], two-sided, of one condition by itself. p_family: [C],
    the chance that any of the C conditions would show so much if none differed.
    """

    difference: Array
    low: Array
    high: Array
    p: Array
    p_family: Array


def paired_test(errors_a_CN: Array, errors_b_CN: Array, units_N: Array, weights_RN: Array) -> PairedTest:
    """Paired bootstrap over utterances of the difference in error rate.

    p is the share of resamples whose difference, moved to a mean of zero, is as large as the one seen (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, section 16.4). p_family does so with the largest of all C
    studentised differences (single-step max-T, Westfall and Young, Resampling-Based Multiple Testing, 1993), which
    needs no independence of the conditions. Neither falls below 1 / (R + 1), nor for M utterances that differ at all
    below 2^(1 - M), which is what a paired test gives when all of them differ in the same direction.
    """
    units = max(1.0, float(units_N.sum()))
    difference_C = 100.0 * (errors_b_CN - errors_a_CN).sum(axis=1) / units
    drawn_CR = resampled_rates(errors_b_CN - errors_a_CN, units_N, weights_RN)
    low_C, high_C = np.percentile(drawn_CR, [2.5, 97.5], axis=1)
    moved_CR = np.abs(drawn_CR - difference_C[:, None])
    seen_C = np.abs(difference_C) - 1e-9  # sums of integers, divided: equal ones may differ in the last bit
    resamples = weights_RN.shape[0]
    differing_C = np.count_nonzero(errors_a_CN != errors_b_CN, axis=1)
    p_C = (1 + (moved_CR >= seen_C[:, None]).sum(axis=1)) / (resamples + 1)
    p_C = np.maximum(p_C, 2.0 ** np.minimum(0, 1 - differing_C))
    deviation_C = drawn_CR.std(axis=1)
    differs_C = deviation_C > 0  # where all utterances differ equally, or none do, there is nothing to resample
    scale_C = np.where(differs_C, deviation_C, 1.0)
    largest_R = np.sort((moved_CR[differs_C] / scale_C[differs_C, None]).max(axis=0, initial=0.0))
    as_large_C = resamples - np.searchsorted(largest_R, seen_C / scale_C)
    p_family_C = np.maximum(p_C, (1 + as_large_C) / (resamples + 1))
    p_family_C[difference_C == 0] = p_C[difference_C == 0] = 1.0
    return PairedTest(difference_C, low_C, high_C, p_C, p_family_C)


class WordErrorRate(NamedTuple):
    """A word error rate in percent with its 95 % interval, and what it was measured on."""

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

    Raises ValueError when there is nothing to measure.
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
    """How many dB lower the SNR may be with something for as many errors as without it at `at_db`.

    The effective SNR gain of Potamianos et al., Proc. IEEE 91(9), 2003. without, with_: error rates at the levels,
    which rise; between levels they are interpolated. Where errors stay below
    down to the lowest level, the gain is at least what is returned; it is negative where there are more errors.
    Raises ValueError when `at_db` is no level.
    """
    levels, rates = np.asarray(levels_db, float), np.asarray(with_, float)
    if at_db not in levels_db:
        raise ValueError(f"got {at_db:g} dB, expected one of the levels {list(levels_db)}")
    allowed = float(without[list(levels_db).index(at_db)])
    above = np.flatnonzero(rates > allowed)  # levels at which there are more errors than that
    if len(above) == 0:
        return float(at_db - levels[0])
    last = int(above[-1])
    if last == len(levels) - 1:
        return float(at_db - levels[-1])
    share = (rates[last] - allowed) / (rates[last] - rates[last + 1])
    return float(at_db - (levels[last] + share * (levels[last + 1] - levels[last])))
