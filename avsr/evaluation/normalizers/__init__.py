"""Normalisers: each makes texts alike that differ only in their way of writing. Each has a name and a version.

A normaliser is applied to the reference and to the hypothesis alike, before errors are counted. All of them give text
in Unicode form NFC, in which a Korean syllable is one character. Results record the name and the version; results of
different normalisers are never compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from avsr.errors import ConfigError, nearest
from avsr.evaluation.normalizers.english import english_text
from avsr.evaluation.normalizers.grid import grid_text
from avsr.evaluation.normalizers.korean import korean_text
from avsr.evaluation.normalizers.plain import composed, plain_text
from avsr.evaluation.normalizers.spelled import spelled_text

DEFAULT = "none"


class Normalizer(NamedTuple):
    """One way to make texts comparable."""

    apply: Callable[[str], str]
    version: int
    """A change of what `apply` gives for any text raises it. A test notices if it was not raised."""
    score: str
    """Name of the score that leads in tables and comparisons; see `avsr.evaluation.scores`."""
    what: str
    """Its effect in a few words, for `--help`."""


NORMALIZERS: dict[str, Normalizer] = {
    "none": Normalizer(composed, 1, "wer", "the texts unchanged"),
    "plain": Normalizer(plain_text, 1, "wer", "lower case; letters, digits and apostrophes"),
    "english": Normalizer(english_text, 1, "wer", "plain; numbers, short forms and titles in words, one spelling"),
    "spelled": Normalizer(spelled_text, 1, "cer_no_spaces", "single letters and digits, for spelled names and numbers"),
    "grid": Normalizer(grid_text, 1, "wer", "plain; digits in words, words that sound alike as one, for GRID"),
    "korean": Normalizer(korean_text, 1, "cer_no_spaces", "plain; characters are counted, spaces are not"),
    "mixed": Normalizer(korean_text, 1, "mixed_error_rate", "as korean; syllables and foreign words are counted"),
}


def label_of(name: str) -> str:
    """Name and version of a normaliser, such as "plain 1"."""
    return f"{name} {find_normalizer(name).version}"


def find_normalizer(name: str) -> Normalizer:
    """The normaliser of this name. Raises ConfigError for an unknown name."""
    found = NORMALIZERS.get(name)
    if found is None:
        close = nearest(name, NORMALIZERS)
        raise ConfigError(
            "unknown normaliser",
            got=name,
            expected=f"one of {', '.join(NORMALIZERS)}",
            remedy=f"did you mean {close}?" if close else None,
        )
    return found
