"""The times of words, from the attention of the decoder to the sound, and from pauses in the sound.

Letters: S samples, T steps of 20 ms.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from avsr.arrays import Samples
from avsr.decoding.search import Spoken
from avsr.families.whisper.tokens import TokenWord
from avsr.grid import SAMPLE_RATE_HZ

STEP_S = 0.02
"""From one position of the encoder to the next."""
ATTENTION_EARLY_S = 0.04
"""The attention enters a word this much before the word begins: the median over words of 40 clips of GRID's `train`,
aligned with their known text."""
PAUSE_STEPS = 10
"""A word holds no pause longer than 0.2 s; the closure of a consonant is shorter."""
QUIET_DB = 20.0
"""Sound this far below the loudest of the word counts as a pause. With it, the beginnings of 9 in 10 words of those
clips lie within 160 ms, without it within 450 ms; 15 dB are as good, 30 dB are not."""

_STEP_SAMPLES = round(STEP_S * SAMPLE_RATE_HZ)


def spoken(word: TokenWord, aligned: Any, samples_S: Samples, language: str) -> Spoken:
    """A word with its times and confidence.

    aligned: what `ctranslate2.models.Whisper.align` gives for its text. samples_S: the sound of the text.
    """
    duration_s = len(samples_S) / SAMPLE_RATE_HZ
    enters_s: dict[int, float] = {}
    for token, position in aligned.alignments:
        enters_s.setdefault(token, position * STEP_S + ATTENTION_EARLY_S)
    start_s = min(enters_s.get(word.start, duration_s), duration_s)
    end_s = min(max(start_s, enters_s.get(word.end, duration_s)), duration_s)
    probability = float(np.mean(aligned.text_token_probs[word.start : word.end]))
    start_s, end_s = without_pauses(samples_S, start_s, end_s)
    return Spoken(word.text, start_s, end_s, min(1.0, max(0.0, probability)), language)


def without_pauses(samples_S: Samples, start_s: float, end_s: float) -> tuple[float, float]:
    """The times of a word without the pauses before, in and after it. Of several parts the longest is the word."""
    start = round(start_s * SAMPLE_RATE_HZ)
    steps = (round(end_s * SAMPLE_RATE_HZ) - start) // _STEP_SAMPLES
    if steps <= PAUSE_STEPS:
        return start_s, end_s
    powers_T = np.square(samples_S[start : start + steps * _STEP_SAMPLES]).reshape(steps, -1).mean(axis=1)
    loud = np.flatnonzero(powers_T >= powers_T.max() * 10 ** (-QUIET_DB / 10))
    part = max(np.split(loud, np.flatnonzero(np.diff(loud) > PAUSE_STEPS) + 1), key=len)
    first, last = int(part[0]), int(part[-1])
    # Shorter quiet parts belong to the word: faint sounds begin and end many words.
    begin_s = start_s + first * STEP_S if first > PAUSE_STEPS else start_s
    return begin_s, start_s + (last + 1) * STEP_S if steps - 1 - last > PAUSE_STEPS else end_s
