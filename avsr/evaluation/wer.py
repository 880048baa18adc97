"""Word error rate and its confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jiwer
import numpy as np


class WordErrorRate(NamedTuple):
    """A word error rate in percent with its 95 % interval, and what it was measured on."""

    percent: float
    low: float
    high: float
    utterances: int
    words: int

    def __str__(self) -> str:
        return f"{self.percent:.1f} % [{self.low:.1f}, {self.high:.1f}]"


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Substitutions, deletions and insertions together, and the number of words in the reference, as jiwer counts."""
    if not reference.split():  # jiwer does not align an empty reference
        return len(hypothesis.split()), 0
    measured = jiwer.process_words(reference, hypothesis)
    return measured.substitutions + measured.deletions + measured.insertions, len(reference.split())


def word_error_rate(
    references: Sequence[str], hypotheses: Sequence[str], *, resamples: int = 2000, seed: int = 1
) -> WordErrorRate:
    """Errors of all utterances over words of all references, with a bootstrap interval over utterances.

    Percentile bootstrap (Bisani and Ney, ICASSP 2004). Raises ValueError when the references hold no word.
    """
    counts = np.array([word_errors(r, h) for r, h in zip(references, hypotheses, strict=True)], np.float64)
    errors, words = counts.T if len(counts) else (np.zeros(0), np.zeros(0))
    if words.sum() == 0:
        raise ValueError("word error rate: the references hold no word")
    drawn = np.random.default_rng(seed).integers(0, len(errors), (resamples, len(errors)))
    drawn_words = words[drawn].sum(1)
    rates = 100 * errors[drawn].sum(1)[drawn_words > 0] / drawn_words[drawn_words > 0]
    low, high = np.percentile(rates, [2.5, 97.5])
    return WordErrorRate(
        float(100 * errors.sum() / words.sum()), float(low), float(high), len(errors), int(words.sum())
    )
