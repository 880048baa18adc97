"""How far the times of recognised words are from the true ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from avsr.evaluation.statistics import Array, aligned_words

TimedWord = tuple[str, float]
"""A word and its start in seconds."""


def start_errors_ms(
    spoken: Sequence[TimedWord], written: Sequence[TimedWord], normalize: Callable[[str], str]
) -> tuple[int, ...]:
    """Recognised minus true start, in ms, of each word that was recognised right.

    spoken, written: the words of the reference and of the hypothesis.
    normalize: makes words comparable, one by one. A word that becomes several, as "25" does in some normalisers, or
    none, has no error, because its parts have no times.
    Which words belong together is decided by the alignment that counts word errors.
    """
    true, found = (_single_words(words, normalize) for words in (spoken, written))
    errors, places = [], [0, 0]
    for pair in aligned_words(" ".join(word for word, _ in true), " ".join(word for word, _ in found)):
        if pair[0] == pair[1]:
            errors.append(round(1000 * (found[places[1]][1] - true[places[0]][1])))
        places = [place + bool(word) for place, word in zip(places, pair, strict=True)]
    return tuple(errors)


def _single_words(words: Sequence[TimedWord], normalize: Callable[[str], str]) -> list[TimedWord]:
    normal = [(normalize(word), start_s) for word, start_s in words]
    return [(word, start_s) for word, start_s in normal if len(word.split()) == 1]


def median_and_p90_ms(errors_ms: Array) -> tuple[float, float] | None:
    """Median and 90th percentile of the absolute errors; None without any."""
    if not len(errors_ms):
        return None
    median, p90 = np.percentile(np.abs(errors_ms), [50, 90])
    return float(median), float(p90)
