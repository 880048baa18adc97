"""The plain form of words: one spelling for what several recognisers write in their own ways.

"Bin blue at F2 now." and "bin blue at f two now" are the same words. Models that judge each other's texts compare these
forms. Case and punctuation go, letters and digits are parted, and a digit alone becomes its English word; longer
numbers stay digits, because they can be said in several ways.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
APOSTROPHES = "'\u2019"

Plain = tuple[str, ...]
"""Words in their plain form."""


def plain(words: Iterable[str]) -> Plain:
    """The plain form of words; one word may become several, or none."""
    return tuple(part for word in words for part in _parts(word))


def _parts(word: str) -> list[str]:
    """The runs of letters and of digits of a word. An apostrophe between two letters is left out: it parts nothing."""
    folded = unicodedata.normalize("NFC", word.casefold())
    kept = "".join(letter for letter in folded if letter not in APOSTROPHES)
    runs = ["".join(run) for kind, run in itertools.groupby(kept, key=_kind) if kind]
    return [DIGITS[int(run)] if len(run) == 1 and run in "0123456789" else run for run in runs]


def _kind(letter: str) -> str:
    """The kind of a letter: "d" for a digit, "l" for a letter or its mark, empty outside of words."""
    if letter.isdecimal():
        return "d"
    return "l" if letter.isalnum() or unicodedata.category(letter).startswith("M") else ""


def writings(words: Plain) -> list[str]:
    """How a recogniser that writes sentences may write plain words: as words, and with letters and digits as a code.

    "bin blue at f two now" -> "Bin blue at f two now." and "Bin blue at F2 now."
    """
    if not words:
        return []
    code = ""
    for before, word in itertools.pairwise(("", *words)):
        is_digit = word in DIGITS
        # A letter and the digits after it are written as one: "F2".
        joins = is_digit and (len(before) == 1 or before in DIGITS)
        shown = str(DIGITS.index(word)) if is_digit else word.upper() if len(word) == 1 else word
        code += shown if joins else f" {shown}"
    both = (" ".join(words), code.strip())
    return list(dict.fromkeys(f"{text[:1].upper()}{text[1:]}." for text in both))
