"""English numbers: from figures to words, and from words to figures."""

from __future__ import annotations

import re
from collections.abc import Sequence

UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
SCALES = {"billion": 10**9, "million": 10**6, "thousand": 1000, "hundred": 100}
_IRREGULAR = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
_IRREGULAR |= {"twelve": "twelfth"}


def ordinal(word: str) -> str:
    """ "third" for "three", "twentieth" for "twenty"."""
    return _IRREGULAR.get(word) or (f"{word[:-1]}ieth" if word.endswith("y") else f"{word}th")


_BELOW_20 = {word: value for value, word in enumerate(UNITS)}
_BELOW_20 |= {ordinal(word): value for word, value in _BELOW_20.items()}
_OF_TENS = {word: 10 * value for value, word in enumerate(TENS, start=2)}
_ORDINAL_TENS = {ordinal(word): value for word, value in _OF_TENS.items()}
NUMBER_WORDS = frozenset(_BELOW_20) | frozenset(_OF_TENS) | frozenset(_ORDINAL_TENS)
"""Words that begin a number."""


# --- figures to words ---


def cardinal(value: int) -> list[str]:
    """The words of a whole number below 10^12, without "and": 105 is "one hundred five"."""
    for name, size in SCALES.items():
        if value >= size:
            rest = value % size
            return [*cardinal(value // size), name, *(cardinal(rest) if rest else [])]
    if value < 20:
        return [UNITS[value]]
    tens, unit = divmod(value, 10)
    return [TENS[tens - 2], *([UNITS[unit]] if unit else [])]


def read_aloud(figures: str) -> list[str]:
    """The words of a run of figures, as English speakers mostly read it.

    1100 to 1999 and 2010 to 2099 in pairs, as years: "nineteen sixty nine". One figure at a time if the first is a
    zero, or if there are more than four and the last two are not zeros, as in telephone numbers. Else as a number.
    """
    is_code = (figures[0] == "0" and len(figures) > 1) or (len(figures) > 4 and not figures.endswith("00"))
    if is_code or len(figures) > 12:
        return [UNITS[int(figure)] for figure in figures]
    value = int(figures)
    return _pairs(value) if 1100 <= value <= 1999 or 2010 <= value <= 2099 else cardinal(value)


def _pairs(year: int) -> list[str]:
    first, last = divmod(year, 100)
    if last == 0:
        return [*cardinal(first), "hundred"]
    return [*cardinal(first), *(["oh"] if last < 10 else []), *cardinal(last)]


# --- words to figures ---


def figures_of(words: Sequence[str]) -> list[str]:
    """The words with every number in them written in figures.

    "twenty two" is 22 and "twenty second" too; "one hundred and five" is 105; "seven seven" stays two numbers.
    """
    out, place = [], 0
    while place < len(words):
        value, place_after = _number(words, place)
        out.append(words[place] if value is None else str(value))
        place = place_after if value is not None else place + 1
    return out


def _number(
    words: Sequence[str], place: int, scales: Sequence[str] = ("million", "thousand")
) -> tuple[int | None, int]:
    """The number that begins at a place, and the place after it; None if none begins there."""
    value, place = _below_1000(words, place)
    for index, scale in enumerate(scales, start=1):
        if value is not None and words[place : place + 1] == [scale]:
            rest, after = _number(words, _after_and(words, place + 1), scales[index:])
            value *= SCALES[scale]
            return (value, place + 1) if rest is None else (value + rest, after)
    return value, place


def _below_1000(words: Sequence[str], place: int) -> tuple[int | None, int]:
    value, place = _below_100(words, place)
    if value is not None and words[place : place + 1] == ["hundred"]:
        value *= 100
        rest, after = _below_100(words, _after_and(words, place + 1))
        return (value, place + 1) if rest is None else (value + rest, after)
    return value, place


def _below_100(words: Sequence[str], place: int) -> tuple[int | None, int]:
    word = words[place] if place < len(words) else ""
    if word in _OF_TENS:
        unit = _BELOW_20.get(words[place + 1], 0) if place + 1 < len(words) else 0
        return (_OF_TENS[word] + unit, place + 2) if 1 <= unit <= 9 else (_OF_TENS[word], place + 1)
    value = _BELOW_20.get(word, _ORDINAL_TENS.get(word))
    return value, place if value is None else place + 1


def _after_and(words: Sequence[str], place: int) -> int:
    return place + 1 if words[place : place + 1] == ["and"] else place


def without_grouping(text: str) -> str:
    """The text without the commas that group figures: "58,939" becomes "58939"."""
    return re.sub(r"\b[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])", lambda found: found[0].replace(",", ""), text)
