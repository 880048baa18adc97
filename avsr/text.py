"""Text in any script: one form of it, words put together, its width on a screen, and where a line may break.

"Unspaced" are the scripts that are written without spaces between words: Han, Hiragana, Katakana, Thai, Lao, Khmer and
Myanmar. A "character" is what a reader takes for one: a letter with its marks, a whole Korean syllable, a flag.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_UNSPACED = (
    ("\u0e00", "\u0eff"),  # Thai, Lao
    ("\u1000", "\u109f"),  # Myanmar
    ("\u1780", "\u17ff"),  # Khmer
    ("\u3000", "\u30ff"),  # punctuation of Han texts, Hiragana, Katakana
    ("\u31f0", "\u31ff"),  # small Katakana
    ("\u3400", "\u4dbf"),  # Han
    ("\u4e00", "\u9fff"),  # Han
    ("\uf900", "\ufaff"),  # Han
    ("\uff01", "\uff9f"),  # full-width letters and punctuation, half-width Katakana
    ("\U00020000", "\U0003ffff"),  # Han
)
_MARKS = ("Mn", "Mc", "Me", "Cf")
_LETTERS_LIKE_MARKS = "\u0e33\u0eb3"  # the Thai and Lao vowel AM, which Unicode calls letters
_JOIN_THE_NEXT = "\u200d\u1039\u17d2"  # zero-width joiner, and the signs that stack Myanmar and Khmer consonants
_NO_LINE_BEGINS_WITH = ("Pe", "Pf", "Po", "Lm")  # closing marks, full stops, the sign of a long vowel
_NO_LINE_ENDS_WITH = ("Ps", "Pi")


# What a terminal obeys, and what turns the direction of the text around it. Left are the spaces (tab, line break and so
# on) and the joiners and marks of direction, without which words of several scripts are misspelt.
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]")


def has_controls(text: str) -> bool:
    """Whether a text has control characters that are no spaces."""
    return _CONTROLS.search(text) is not None


def without_controls(text: str) -> str:
    """The text without control characters that are no spaces."""
    return _CONTROLS.sub("", text)


def escape_controls(json_text: str) -> str:
    """The same JSON with control characters written as escapes, as `json.dumps` does for some of them only."""
    return _CONTROLS.sub(lambda control: f"\\u{ord(control[0]):04x}", json_text)


def one_line(text: str) -> str:
    """The text in Unicode's form NFC, with one space between its parts, none at its ends, and no control characters.

    NFC writes a Korean syllable as one character and an accented letter as one, wherever Unicode has it. Every text
    that comes from outside goes through this function, so that equal texts are equal strings.
    """
    return " ".join(unicodedata.normalize("NFC", without_controls(text)).split())


def join_words(words: Iterable[str]) -> str:
    """The words as one text, with a space where `is_spaced` wants it. Empty words are left out."""
    parts: list[str] = []
    last = ""
    for word in filter(None, words):
        parts.append(f" {word}" if is_spaced(last, word) else word)
        last = word
    return "".join(parts)


def is_spaced(left: str, right: str) -> bool:
    """Whether a space comes between two words: not between unspaced scripts, and not beside an empty word.

    Punctuation at the edge of a word counts as its nearest letter does.
    """
    return bool(left and right) and not (_is_unspaced(_edge(left[::-1])) and _is_unspaced(_edge(right)))


def is_unspaced(text: str) -> bool:
    """Whether the first letter of a text belongs to a script without spaces between words."""
    return bool(text) and _is_unspaced(_edge(text))


def columns(text: str) -> int:
    """The width of a text in columns of a terminal or a subtitle.

    A wide or full-width character of Unicode's East Asian Width has 2 columns: Han, kana, Hangul, emoji. A mark
    that combines with the letter before it has 0, and so has a control character. Everything else has 1.
    """
    if text.isascii() and text.isprintable():
        return len(text)  # most texts: the other way takes a hundred times as long
    return sum(map(_columns_of, text))


def pad(text: str, width: int) -> str:
    """The text with spaces at its end, `width` columns wide or wider."""
    return text + " " * (width - columns(text))


def characters(text: str) -> list[str]:
    """The characters of a text as a reader counts them: a short form of Unicode's extended grapheme clusters."""
    result: list[str] = []
    for letter in text:
        if result and _belongs_to(result[-1], letter):
            result[-1] += letter
        else:
            result.append(letter)
    return result


def unbreakable_parts(text: str) -> list[str]:
    """The text cut wherever `may_break` lets a line end."""
    result: list[str] = []
    for character in characters(text):
        if result and not may_break(result[-1], character):
            result[-1] += character
        else:
            result.append(character)
    return result


def may_break(left: str, right: str) -> bool:
    """Whether a line may end between two texts that have no space between them.

    It may between characters that are wide or of an unspaced script. No line begins with a closing mark, or ends with
    an opening one.
    """
    if not left or not right:
        return False
    before, after = characters(left)[-1][0], right[0]
    is_forbidden = (
        unicodedata.category(after) in _NO_LINE_BEGINS_WITH or unicodedata.category(before) in _NO_LINE_ENDS_WITH
    )
    return not is_forbidden and all(_is_unspaced(letter) or _columns_of(letter) == 2 for letter in (before, after))


def _is_unspaced(letter: str) -> bool:
    return any(first <= letter <= last for first, last in _UNSPACED)


def _edge(text: str) -> str:
    """The first letter that is no punctuation; the first of all if every one is."""
    return next((letter for letter in text if unicodedata.category(letter)[0] not in "PZ"), text[0])


def _columns_of(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf", "Cc") or _is_inside_syllable(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _belongs_to(character: str, letter: str) -> bool:
    """Whether a letter is a part of the character before it."""
    is_flag = len(character) == 1 and all("\U0001f1e6" <= part <= "\U0001f1ff" for part in (character, letter))
    is_skin = "\U0001f3fb" <= letter <= "\U0001f3ff"
    is_mark = unicodedata.category(letter) in _MARKS or letter in _LETTERS_LIKE_MARKS or _is_inside_syllable(letter)
    return is_mark or is_flag or is_skin or character[-1] in _JOIN_THE_NEXT


def _is_inside_syllable(letter: str) -> bool:
    """Whether it is a Korean vowel or final consonant that follows the first consonant of its syllable.

    NFC leaves such letters only in syllables of old Korean, which Unicode does not have as characters.
    """
    return "\u1160" <= letter <= "\u11ff" or "\ud7b0" <= letter <= "\ud7ff"
