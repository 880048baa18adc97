"""Text without case and punctuation, in any language."""

from __future__ import annotations

import unicodedata


def composed(text: str) -> str:
    """The text in Unicode form NFC: an accented letter and a Korean syllable are one character each."""
    return unicodedata.normalize("NFC", text)


def plain_text(text: str) -> str:
    """Lower case; only letters, digits and apostrophes within words remain, with one space between words.

    Vowel signs and other marks stay with their letters, as Hindi and Thai need.
    """
    lower = composed(text).lower().replace("’", "'")
    kept = "".join(character if _belongs_to_words(character) else " " for character in lower)
    # Some letters grow a mark when they become lower case.
    return composed(" ".join(word for part in kept.split() if (word := part.strip("'"))))


def _belongs_to_words(character: str) -> bool:
    return character.isalnum() or character == "'" or unicodedata.category(character).startswith("M")
