"""Sentences of the GRID corpus as an open-vocabulary recogniser writes them.

"Bin blue at F2, now." becomes "bin blue at f two now": figures become words one by one, and are parted from letters.
Words that sound like a word of the corpus become that word (`HOMOPHONES`), in the reference too. Words that only
sound similar stay: "Bim", "then".
"""

from __future__ import annotations

import re

from avsr.evaluation.normalizers.numbers import UNITS
from avsr.evaluation.normalizers.plain import plain_text

HOMOPHONES = {
    "bin": "been",
    "blue": "blew",
    "red": "read",
    "by": "buy bye",
    "in": "inn",
    "place": "plaice",
    "please": "pleas",
    "one": "won",
    "two": "to too",
    "four": "for fore",
    "eight": "ate",
    "b": "be bee",
    "c": "sea see",
    "g": "gee",
    "i": "eye",
    "j": "jay",
    "o": "oh owe",
    "p": "pea pee",
    "q": "cue queue",
    "r": "are",
    "t": "tea tee",
    "u": "ewe you",
    "x": "ex",
    "y": "why",
    "z": "zed zee",
}
"""Word of the corpus -> other words with the same sound."""

_WORD_OF = {other: word for word, others in HOMOPHONES.items() for other in others.split()}


def grid_text(text: str) -> str:
    """The words of the text as the corpus writes them."""
    parts = re.findall(r"[0-9]|[^0-9\s]+", plain_text(text))
    words = [UNITS[int(part)] if part.isdigit() and part.isascii() else part for part in parts]
    return " ".join(_WORD_OF.get(word, word) for word in words)
