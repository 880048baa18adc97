"""Which of the recognised words a transcript shows. What is left out is counted, and said in a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from avsr.decoding.domain import utterances
from avsr.decoding.search import Spoken
from avsr.engine import Card
from avsr.errors import ConfigError


class ChosenWords(NamedTuple):
    """The words of a transcript, and what was left out."""

    words: list[Spoken]
    recognised: int
    """How many words the model gave."""
    foreign: int
    """How many of these are of speech or noise that the model does not know, shown or not."""
    unsure: int
    """How many were left out because of their confidence."""
    warnings: list[str]


def choose_words(card: Card, recognised: Sequence[Spoken], *, force: bool, min_confidence: float) -> ChosenWords:
    """The words to show.

    recognised: all words of a recording, in order.
    force: show foreign words too: those that `card.sentences` judges to be other speech, or noise.
    min_confidence: words below it are left out; words without a confidence stay.
    """
    foreign = _foreign(card, recognised)
    judged = list(zip(recognised, foreign, strict=True))
    kept = [(word, is_foreign) for word, is_foreign in judged if force or not is_foreign]
    sure = [each for each in kept if each[0].confidence is None or each[0].confidence >= min_confidence]
    words = [word for word, _ in sure]
    forced = sum(is_foreign for _, is_foreign in sure) if force else None
    warnings = [_foreign_line(card, sum(foreign), len(foreign), forced)] if any(foreign) else []
    if unsure := len(kept) - len(words):
        warnings.append(f"{unsure} of {len(kept)} words are left out: their confidence is below {min_confidence:g}")
    if min_confidence and any(word.confidence is None for word in words):
        warnings.append(f"model {card.name} gives no confidences: --min-confidence has no effect")
    return ChosenWords(words, len(recognised), sum(foreign), unsure, warnings)


def check_confidence(confidence: object) -> None:
    """Raises ConfigError for anything but a number from 0 to 1."""
    is_number = isinstance(confidence, int | float) and not isinstance(confidence, bool)
    if not is_number or not 0 <= confidence <= 1:  # type: ignore[operator]
        raise ConfigError("wrong min_confidence", got=repr(confidence), expected="a number from 0 to 1")


def _foreign(card: Card, words: Sequence[Spoken]) -> list[bool]:
    """Of each word: whether its utterance is other speech, or noise."""
    if card.sentences is None:
        return [False] * len(words)
    return [verdict for group in utterances(words) for verdict in [card.sentences.are_foreign(group)] * len(group)]


def _foreign_line(card: Card, foreign: int, count: int, forced: int | None) -> str:
    """The line about foreign words. forced: how many of them are shown; None without --force."""
    part = "this" if foreign == count else "some of this"
    if forced is not None:
        fate = f"{forced} of {count} words are shown because of --force"
    elif foreign == count:
        fate = "no words are shown (--force shows them)"
    else:
        fate = f"{foreign} of {count} words are left out (--force shows them)"
    return f"{part} does not sound like {card.domain}: {fate}"
