"""Text in any script: one line of it, words put together, its width on a screen."""

from __future__ import annotations

import unicodedata


def one_line(text: str) -> str:
    """The text in Unicode's form NFC, with one space between its parts and none at its ends.

    NFC writes a Korean syllable as one character and an accented letter as one, wherever Unicode has it. Every text
    that comes from outside goes through this function, so that equal texts are equal strings.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())
