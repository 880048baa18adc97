"""What two hypotheses of the same sound agree on, and where the words that are already known end in a new one.

Macháček et al. 2023, "Turning Whisper into Real-Time Transcription System", section 2.1: the longest common prefix of
two consecutive hypotheses is stable. Here an alignment of texts finds the known words again: if the time of a word
moves, the word is neither lost nor doubled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from avsr.decoding.search import Spoken


def key(word: str) -> str:
    """What two forms of one word have in common: its letters and digits without case."""
    return "".join(letter for letter in word.casefold() if letter.isalnum())


def agreed(before: Sequence[Spoken], now: Sequence[Spoken]) -> int:
    """How many of the first words of two hypotheses are the same, whatever their case and punctuation.

    The last word of the new hypothesis must have the same punctuation too: a full stop after it may be there only
    because the sound ends. A number at the end is left out, because the next one may join it ("2", "26", "268").
    """
    count = 0
    for old, new in zip(before, now, strict=False):
        is_last = count == len(now) - 1
        if key(old.word) != key(new.word) or (is_last and old.word != new.word):
            break
        count += 1
    while count and key(now[count - 1].word)[-1:].isdigit() and (count == len(now) or _is_number(now[count])):
        count -= 1
    return count


def _is_number(word: Spoken) -> bool:
    return key(word.word)[:1].isdigit()


def after_known(known: Sequence[Spoken], words: Sequence[Spoken]) -> list[Spoken]:
    """The words of a hypothesis after those that are known already.

    Leaves out the beginning of the hypothesis with the smallest edit distance from the known words. The distance counts
    letters, because the recogniser may divide them into words in another way ("2 6" and "26"). If several beginnings
    have that distance, the one that ends nearest to the end of the known words counts.
    """
    letters = "".join(key(word.word) for word in known)
    if not letters or not words:
        return list(words)
    # Where the letters of each word end, and the time there.
    ends = np.cumsum([0, *(len(key(word.word)) for word in words)])
    distances = _prefix_distances(letters, "".join(key(word.word) for word in words))
    places = np.flatnonzero(distances == distances.min())
    times_s = np.interp(places, ends, [words[0].start_s, *(word.end_s for word in words)])
    place = int(places[np.argmin(np.abs(times_s - known[-1].end_s))])
    # Most of a word that lies on both sides decides about it.
    nearest = int(np.argmin(np.abs(ends - place)[::-1]))
    return list(words[len(words) - nearest :])


def _prefix_distances(known: str, letters: str) -> NDArray[np.int64]:
    """The edit distance of a text from each beginning of another one: int [letters + 1]."""
    codes = np.array([ord(letter) for letter in letters], np.int64)
    steps = np.arange(len(letters) + 1)
    distances = steps.copy()
    for letter in known:
        best = distances + 1
        best[1:] = np.minimum(best[1:], distances[:-1] + (codes != ord(letter)))
        # Letters that only the other text has: each costs one more than its left neighbour.
        distances = np.minimum.accumulate(best - steps) + steps
    return distances


def best_cut(words: Sequence[Spoken]) -> int:
    """The number of words before the longest pause in the second half of them; 0 for fewer than two words."""
    places = range(max(1, len(words) // 2), len(words))
    # Of equal pauses the last one: it leaves the least to be recognised again.
    return max(places, key=lambda place: (words[place].start_s - words[place - 1].end_s, place), default=0)
