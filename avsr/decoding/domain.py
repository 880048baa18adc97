"""Whether recognised words belong to the only sentences that a model knows, or to other speech or noise.

A model with a closed vocabulary writes its words for any sound. What it was trained for looks different in two ways:
the words are sure and stand in the order of its sentences, and they fill the time of the sentence. Other speech leaves
words in the wrong order, doubtful words, and pauses where it said something that the model has no word for.

`benchmarks/foreign_speech.py` measures the rule and shows how the limit of `grid-tiny` was chosen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from avsr.decoding.search import Spoken

UTTERANCE_PAUSE_S = 0.7
"""A longer pause between two words begins another utterance, which is judged by itself; live too, by default."""


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """The only sentences that a model knows: one word of each place, in this order, again and again."""

    places: tuple[str, ...]
    """The words of each place, separated by spaces. No word has two places."""
    least_fit: float
    """Words that fit less than this are foreign. The right value depends on the weights of the model."""

    def __post_init__(self) -> None:
        words = " ".join(self.places).split()
        if not words or len(set(words)) != len(words) or not all(place.split() for place in self.places):
            raise ValueError(f"places: got {list(self.places)}, expected one or more, with words that differ")
        if not 0 <= self.least_fit <= 1:
            raise ValueError(f"least_fit: got {self.least_fit}, expected 0 to 1")

    def are_foreign(self, words: Sequence[Spoken]) -> bool:
        """Whether the words of one utterance are other speech or noise. False without words."""
        return bool(words) and fit(words, self.places) < self.least_fit


def fit(words: Sequence[Spoken], places: Sequence[str]) -> float:
    """How well the words of one utterance fit whole sentences, in [0, 1].

    Two thirds are `certainty` and one third is `filled_share`. With more of the latter, a single word, which fills all
    of its time, would come near to a sentence. Raises ValueError if there are no words.
    """
    if not words:
        raise ValueError("fit: got no words, expected one or more")
    place_of = {word: place for place, group in enumerate(places) for word in group.split()}
    placed = [place_of.get(word.word) for word in words]
    return (2 * certainty(words, placed, len(places)) + filled_share(words, placed, len(places))) / 3


class _Path(NamedTuple):
    """One way to see the words so far as whole sentences. The smallest is the best one."""

    faults: int
    """Words that are too many, and places without a word. A word in the place of another is both."""
    doubt: float
    """Minus the sum of the confidences of the words in their places."""
    length: int
    """Number of words and of places without a word."""

    def step(self, *, faults: int = 1, confidence: float = 0.0) -> _Path:
        return _Path(self.faults + faults, self.doubt - confidence, self.length + 1)


def certainty(words: Sequence[Spoken], placed: Sequence[int | None], count: int) -> float:
    """The mean confidence, where words that are too many and places without a word count as 0.

    placed: the place of each word in a sentence; None for a word of no place. count: places of a sentence.

    Words are matched with whole sentences with the fewest faults, as in an edit distance.
    """
    unreached = _Path(1 << 30, 0.0, 0)
    # The best path by the place that comes next.
    paths = _with_gaps([_Path(0, 0.0, 0)] + [unreached] * (count - 1))
    for word, place in zip(words, placed, strict=True):
        # The word is too many, or it is in its place.
        after = [path.step() for path in paths]
        if place is not None:
            following = (place + 1) % count
            in_place = paths[place].step(faults=0, confidence=word.confidence or 0.0)
            after[following] = min(after[following], in_place)
        paths = _with_gaps(after)
    whole = paths[0]
    return -whole.doubt / whole.length if whole.length else 0.0


def _with_gaps(paths: list[_Path]) -> list[_Path]:
    """The best paths if places may stay without a word."""
    paths = list(paths)
    for place in (*range(len(paths)), *range(len(paths))):  # twice, because a gap may go on into the next sentence
        following = (place + 1) % len(paths)
        paths[following] = min(paths[following], paths[place].step())
    return paths


def filled_share(words: Sequence[Spoken], placed: Sequence[int | None], count: int) -> float:
    """The time of the words over the time of the words and of the pauses between them.

    Pauses after the last place of a sentence do not count: people may rest there.
    """
    spoken_s = sum(word.end_s - word.start_s for word in words)
    paused_s = sum(
        max(0.0, after.start_s - before.end_s)
        for (before, place), after in zip(zip(words, placed, strict=True), words[1:], strict=False)
        if place != count - 1
    )
    return spoken_s / (spoken_s + paused_s) if spoken_s > 0 else 0.0


def utterances(words: Iterable[Spoken]) -> list[list[Spoken]]:
    """The words in groups between long pauses, in order."""
    groups: list[list[Spoken]] = []
    for before, word in itertools.pairwise([None, *words]):
        assert word is not None
        if before is None or word.start_s - before.end_s >= UTTERANCE_PAUSE_S:
            groups.append([])
        groups[-1].append(word)
    return groups
