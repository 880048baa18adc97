"""Spelled names and read numbers, as in CMU AN4: single letters and figures.

Everything becomes one letter or one figure after another, so that "P-I-T-T", "PITT" and "p i t t" are the same, and so
are "two five", "twenty five" and "25". Merged on both sides alike are:

- case, punctuation, spaces and apostrophes;
- numbers in words and in figures, by their figures: "twenty second" is 2 2, "one thousand" is 1 0 0 0, "nineteen sixty
  nine" is 1 9 6 9. So "seventy two" and "seven two" are the same;
- the letter o, "oh", "zero" and 0: as single letters and figures, the first two sound alike, the last three mean the
  same figure.

A word that is no number counts by its letters: "enter" is five units. The score of such texts is therefore named the
character error rate; the word error rate of single letters and figures is the same number.
"""

from __future__ import annotations

import re

from avsr.evaluation.normalizers.numbers import figures_of, without_grouping
from avsr.evaluation.normalizers.plain import composed, plain_text


def spelled_text(text: str) -> str:
    """The single letters and figures of the text, with one space between them."""
    text = without_grouping(composed(text).lower())
    text = re.sub(r"\b([0-9]+)(?:st|nd|rd|th)\b", r"\1", text)
    words = plain_text(text).replace("'", "").split()
    units = "".join("0" if word == "oh" else word for word in figures_of(words))
    return " ".join(units.replace("o", "0"))
