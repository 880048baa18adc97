"""English in words, with one spelling for each word.

In this order, after lower case:

- letters joined by full stops become one word: "U.S." and "us";
- $ £ € % & become words, amounts first: "$5" becomes "five dollars", "$5.50" "five dollars and fifty cents";
- figures become words: "21st", "1960s", "10:30", "3.5", "1/2", "1,969" as a number and "1969" as a year; see
  `numbers.read_aloud` for plain runs of figures. "and" between hundred or thousand and the rest of a number is left
  out, and "a hundred" is "one hundred";
- what `plain` does;
- negations and the short forms of am, are, have and will are written out; 's becomes "is" after the words of
  `_BEFORE_IS` alone ("it's been" too). 'd and every other 's stay;
- "mr", "dr" and the other words of `_WORDS` are written out;
- British spellings become American by the beginnings in `_AMERICAN`; "-ize" becomes "-ise" from seven letters on.

Hesitations ("um") stay, and so do compounds written apart or together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from avsr.evaluation.normalizers.numbers import NUMBER_WORDS, UNITS, cardinal, ordinal, read_aloud
from avsr.evaluation.normalizers.plain import composed, plain_text

_UNITS_OF_MONEY = {"$": ("dollar", "cents"), "£": ("pound", "pence"), "€": ("euro", "cents")}
_SIGNS = {"%": " percent ", "&": " and ", "½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 ", "’": "'"}
_FRACTIONS = {"1/2": "one half", "1/3": "one third", "2/3": "two thirds", "1/4": "one quarter", "3/4": "three quarters"}

_BEFORE_IS = frozenset("he here how it she that there what when where who why".split())
_ENDINGS = {"n't": "not", "'re": "are", "'ll": "will", "'ve": "have", "'m": "am"}
_WORDS = {
    "alright": "all right",
    "cannot": "can not",
    "can't": "can not",
    "dr": "doctor",
    "etc": "et cetera",
    "gonna": "going to",
    "gotta": "got to",
    "jr": "junior",
    "let's": "let us",
    "mr": "mister",
    "mrs": "missus",
    "ok": "okay",
    "prof": "professor",
    "programme": "program",
    "programmes": "programs",
    "shan't": "shall not",
    "sr": "senior",
    "vs": "versus",
    "wanna": "want to",
    "won't": "will not",
}
_DOUBLED = ("ed", "er", "ing")
_AMERICAN = {
    **{f"{stem}our": f"{stem}or" for stem in "arm behavi col fav flav harb hon hum lab neighb od rum vap vig".split()},
    **{f"{stem}re": f"{stem}er" for stem in "cent fib lit met theat".split()},
    **{f"{stem}ll{end}": f"{stem}l{end}" for stem in "cance labe leve mode signa trave".split() for end in _DOUBLED},
    **{f"{stem}ence": f"{stem}ense" for stem in "def lic off".split()},
    **{f"{stem}ogue": f"{stem}og" for stem in "anal catal dial".split()},
    "grey": "gray",
    "jewellery": "jewelry",
    "mould": "mold",
    "moustache": "mustache",
    "plough": "plow",
    "pyjama": "pajama",
    "sceptic": "skeptic",
}


def english_text(text: str) -> str:
    """The text in the words that an English speaker says."""
    text = composed(text).lower()
    for sign, said in _SIGNS.items():
        text = text.replace(sign, said)
    text = re.sub(r"\b[^\W\d_](?:\.[^\W\d_])+\b\.?", lambda found: found[0].replace(".", ""), text)
    words = plain_text(_figures_in_words(text).replace("per cent", "percent")).split()
    return " ".join(_like_a_number(" ".join(map(_written_out, words)).split()))


# --- figures ---


def _figures_in_words(text: str) -> str:
    text = re.sub(
        r"([$£€])\s?([0-9]+(?:,[0-9]{3})*)(?:\.([0-9]{2})\b)?((?:\.[0-9]+)?(?: (?:hundred|thousand|million|billion))?)",
        _amount,
        text,
    )
    for fraction, words in _FRACTIONS.items():
        text = re.sub(rf"(?<![0-9/]){fraction}(?![0-9/])", f" {words} ", text)
    for pattern, say in _FIGURES:
        text = re.sub(pattern, say, text)
    return re.sub(r" o'clock +([ap]m)\b", r" \1", text)  # "10:00 am" is "ten am"


def _amount(found: re.Match[str]) -> str:
    one, small = _UNITS_OF_MONEY[found[1]]
    unit = one if (found[2], found[3], found[4]) == ("1", None, "") else f"{one}s"
    rest = f" and {found[3]} {small}" if found[3] and found[3] != "00" else ""
    return f" {found[2]}{found[4]} {unit}{rest} "


def _time(found: re.Match[str]) -> str:
    hour, minute = cardinal(int(found[1])), int(found[2])
    if minute == 0:
        return _said([*hour, "o'clock"])
    return _said([*hour, *(["oh"] if minute < 10 else []), *cardinal(minute)])


def _ordinal(found: re.Match[str]) -> str:
    *first, last = read_aloud(found[1].replace(",", ""))
    return _said([*first, ordinal(last)])


def _decade(found: re.Match[str]) -> str:
    *first, last = read_aloud(found[1])
    return _said([*first, f"{last[:-1]}ies" if last.endswith("y") else f"{last}s"])


def _number(found: re.Match[str]) -> str:
    return _said(cardinal(int(found[0].replace(",", ""))))


def _decimal(found: re.Match[str]) -> str:
    return _said([*read_aloud(found[1]), "point", *(UNITS[int(figure)] for figure in found[2])])


def _run(found: re.Match[str]) -> str:
    return _said(read_aloud(found[0]))


def _said(words: Iterable[str]) -> str:
    return f" {' '.join(words)} "


_FIGURES = (
    (r"\b([0-2]?[0-9]):([0-5][0-9])\b", _time),
    (r"\b([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:st|nd|rd|th)\b", _ordinal),
    (r"\b([0-9]{0,2}[0-9]0)'?s\b", _decade),
    (r"\b[0-9]{1,3}(?:,[0-9]{3}){1,3}\b(?!,[0-9])", _number),
    (r"\b([0-9]+)\.([0-9]+)\b", _decimal),
    (r"[0-9]+", _run),
)
"""Forms of figures, the longer ones first, and the function that says them."""


# --- words ---


def _written_out(word: str) -> str:
    if word in _WORDS:
        return _WORDS[word]
    for ending, full in _ENDINGS.items():
        if word.endswith(ending) and word != "ain't":
            return f"{word.removesuffix(ending)} {full}"
    if word.endswith("'s") and word[:-2] in _BEFORE_IS:
        return f"{word[:-2]} is"
    return _american(word)


def _american(word: str) -> str:
    for british, american in _AMERICAN.items():
        if word.startswith(british):
            return american + word.removeprefix(british)
    # Towards -ise, because many words are spelled so everywhere ("promise"); short ones in -ize are words of their own.
    return re.sub(r"iz(e|es|ed|ing|ation|ations)$", r"is\1", word) if len(word) >= 7 else word


def _like_a_number(words: list[str]) -> list[str]:
    """The words without "and" inside numbers, and with "one hundred" for "a hundred"."""
    out: list[str] = []
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        if word == "a" and after in ("hundred", "thousand", "million", "billion"):
            out.append("one")
        elif not (word == "and" and before in ("hundred", "thousand", "million") and after in NUMBER_WORDS):
            out.append(word)
    return out
