"""The units of published models: the list that their weights were trained with, and the texts of units.

A list is a file of lines `piece id`, ids from 1 on; the blank stands before it and the end of a text behind it. Older
models have the whole list as `char_list` in their settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avsr.decoding.tokenizer import MAX_VOCABULARY_BYTES
from avsr.errors import ModelError
from avsr.text import has_controls
from avsr.untrusted.files import read_file
from avsr.untrusted.values import shown

BLANK, END = "<blank>", "<eos>"
WORD_BEGINS = "\u2581"
"""Stands for the blank before a word, as in SentencePiece."""
SPACE = "<space>"
MAX_UNIT_LETTERS = 200


class UnitList:
    """The units of a model by number: the blank first, the end last. The text of units is upper case."""

    def __init__(self, units: Sequence[str]) -> None:
        self.units = tuple(units)
        # The end has no text; a unit of its name may stand in a text twice.
        self._texts = [unit.replace(SPACE, " ").replace(WORD_BEGINS, " ") for unit in self.units]
        self._texts[0] = self._texts[-1] = ""
        # By their letters without case. Of equal ones the first counts: lists hold no others.
        self._ids = {text.casefold(): unit for unit, text in reversed(list(enumerate(self._texts))) if text}
        self._longest = max(map(len, self._ids), default=0)

    def __len__(self) -> int:
        return len(self.units)

    def text(self, ids: Sequence[int]) -> str:
        """The text of units, without blanks at its ends."""
        return "".join(self._texts[unit] for unit in ids).strip()

    def spelled(self, words: Sequence[str]) -> list[int] | None:
        """The fewest units that spell words, whatever their case; None if no units do.

        Lists do not say how likely a unit is. Of equally many units those with a long one at the end are taken.
        """
        text = "".join(f" {word}" for word in words).casefold()
        # Units with a blank begin a word; lists of letters have the blank as a unit between words.
        text = text if any(unit.startswith(WORD_BEGINS) for unit in self.units) else text[1:]
        best: list[tuple[int, int] | None] = [(0, 0)]  # for each end: how many units, and the last of them
        for end in range(1, len(text) + 1):
            ways = [
                (before[0] + 1, unit)
                for start in range(max(0, end - self._longest), end)
                if (before := best[start]) is not None and (unit := self._ids.get(text[start:end])) is not None
            ]
            best.append(min(ways, key=lambda way: way[0], default=None))
        if best[-1] is None:
            return None
        ids, end = [], len(text)
        while end:
            _, unit = best[end]  # type: ignore[misc]
            ids.append(unit)
            end -= len(self._texts[unit].casefold())
        return ids[::-1]

    def words(self, ids: Sequence[int]) -> list[tuple[str, int, int]]:
        """Each word with the places in `ids` of its first unit and after its last."""
        groups: list[tuple[str, int, int]] = []
        word, first, last = "", 0, 0
        for place, unit in enumerate(ids):
            for part, letters in enumerate(self._texts[unit].split(" ")):
                if part and word:
                    groups.append((word, first, last))
                    word = ""
                if letters:
                    first = place if not word else first
                    word, last = word + letters, place + 1
        return [*groups, (word, first, last)] if word else groups


def read_units(path: Path, expected: int) -> UnitList:
    """The units in a file of lines `piece id`. Raises ModelError unless they are `expected` with blank and end."""
    try:
        lines = read_file(path, MAX_VOCABULARY_BYTES).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: the list of units cannot be read", got=error) from None
    pieces = []
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, start=1):
        piece, _, id_ = line.rstrip("\r").rpartition(" ")
        if id_ != str(number):
            raise ModelError(f"{path}:{number}: no unit", got=shown(line), expected=f"a piece of text and {number}")
        pieces.append(piece)
    return _checked([BLANK, *pieces, END], str(path), expected)


def settings_units(units: object, where: str, expected: int) -> UnitList:
    """The units in `char_list` of settings. Raises ModelError unless they are `expected` texts."""
    if not isinstance(units, list) or not all(isinstance(unit, str) for unit in units):
        raise ModelError(f"{where}: char_list", got=shown(units), expected="a list of texts")
    return _checked(units, f"{where}: char_list", expected)


def _checked(units: list[str], where: str, expected: int) -> UnitList:
    if len(units) != expected:
        raise ModelError(
            f"{where}: not the units of this model",
            got=f"{len(units)} with blank and end",
            expected=str(expected),
            remedy="use the list that belongs to the weights",
        )
    if len(set(units)) != len(units):
        raise ModelError(f"{where}: a unit is there twice")
    if units[0] != BLANK or units[-1] != END:
        raise ModelError(f"{where}: wrong ends", got=shown([units[0], units[-1]]), expected=f"{BLANK} and {END}")
    wrong = next((unit for unit in units if not unit or len(unit) > MAX_UNIT_LETTERS or has_controls(unit)), None)
    if wrong is not None:
        raise ModelError(f"{where}: a unit is no text", got=shown(wrong))
    return UnitList(units)
