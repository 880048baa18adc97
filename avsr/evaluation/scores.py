"""The scores of an evaluation: the units that each of them counts, and its names in results and tables.

| name | counted |
|---|---|
| `wer` | words, as jiwer counts them |
| `cer_no_spaces` | characters without spaces: a letter with its marks is one, and a Korean syllable is one |
| `mixed_error_rate` | Hangul syllables, Han characters and kana one by one, and whole words of all other scripts |

The mixed error rate is the usual score of speech that mixes Korean or Chinese with English; papers shorten it to MER,
as jiwer does with another score, the match error rate. Here it is never shortened. `cer` in results is the older score
that counts spaces too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from avsr.text import characters

_ONE_BY_ONE = "\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff"
_MIXED_UNIT = re.compile(rf"[{_ONE_BY_ONE}]|[^\s{_ONE_BY_ONE}]+")


class Score(NamedTuple):
    """One error rate."""

    short: str
    """For the heads of columns."""
    title: str
    """For headings and sentences."""
    unit: str
    """The name of its units, in the plural."""
    units: Callable[[str], list[str]]
    """The units of a text. None of them holds a space."""


def _without_spaces(text: str) -> list[str]:
    return characters("".join(text.split()))


def mixed_units(text: str) -> list[str]:
    """The syllables and characters of Korean, Chinese and Japanese, and the words of other scripts."""
    return _MIXED_UNIT.findall(text)


WER, CER_NO_SPACES, MIXED = "wer", "cer_no_spaces", "mixed_error_rate"
SCORES: dict[str, Score] = {
    WER: Score("WER", "word error rate", "words", str.split),
    CER_NO_SPACES: Score("CER without spaces", "character error rate without spaces", "characters", _without_spaces),
    MIXED: Score("mixed error rate", "mixed error rate", "syllables and words", mixed_units),
}
