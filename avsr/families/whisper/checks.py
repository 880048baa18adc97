"""Checks of what Whisper writes: whether anybody spoke, and whether it repeats itself without end."""

from __future__ import annotations

from collections.abc import Sequence

from avsr.decoding.search import Spoken

NO_SPEECH_FROM = 0.6
"""A window counts as without speech from this probability on, if the text is unlikely too."""
UNLIKELY_BELOW = -1.0
"""A text is unlikely if the mean log-probability of its tokens is below this. The original has the same values."""
MOST_REPEATS = 4
"""A phrase may follow itself this often in speech ("no, no, no, no"). More is a loop of the decoder."""
LONGEST_PHRASE = 24
"""The longest phrase that is looked at, in tokens."""

MOST_INSTANT_WORDS = 2
"""This many words in a row may have no duration, as at the end of a sound that is cut off."""


def is_without_speech(no_speech: float, log_prob: float) -> bool:
    """Whether a text is an invention for sound without speech.

    no_speech: probability of the token for no speech. log_prob: mean log-probability of the tokens.
    """
    return no_speech > NO_SPEECH_FROM and log_prob < UNLIKELY_BELOW


def without_loop(tokens: Sequence[int]) -> list[int]:
    """The tokens up to the first loop; of the phrase that repeats itself, one copy stays."""
    tokens = list(tokens)
    for start in range(len(tokens)):
        for length in range(1, min(LONGEST_PHRASE, (len(tokens) - start) // (MOST_REPEATS + 1)) + 1):
            phrase = tokens[start : start + length]
            copies = 1
            while tokens[start + copies * length : start + (copies + 1) * length] == phrase:
                copies += 1
            if copies > MOST_REPEATS:
                # What follows a loop was written with the loop before it, and is no better.
                return tokens[: start + length]
    return tokens


def without_crowds(words: Sequence[Spoken]) -> list[Spoken]:
    """The words without those that crowd in one instant: no sound belongs to them."""
    kept: list[Spoken] = []
    crowd: list[Spoken] = []
    for word in words:
        if word.end_s <= word.start_s:
            crowd.append(word)
            continue
        kept += crowd if len(crowd) <= MOST_INSTANT_WORDS else []
        kept.append(word)
        crowd = []
    return kept + (crowd if len(crowd) <= MOST_INSTANT_WORDS else [])
