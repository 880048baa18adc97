"""Whole texts by Whisper: the likely ones, and how likely a given one is.

Letters: B texts, P positions of the encoded sound, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from avsr.decoding.plain import Plain, writings
from avsr.decoding.search import Search, Spoken
from avsr.families.whisper.engine import MOST_TOKENS, Heard, WhisperEngine, computed, storage
from avsr.grid import SAMPLE_RATE_HZ

POSITIONS_A_SECOND = 50
SILENCE_S = 2.0
"""How much of the silence after a sound a text is judged with. The rest of 30 s says nothing, and costs time."""
FEWEST_FRAMES = 2


class WhisperTexts:
    """See `avsr.engine.Texts`."""

    def __init__(self, engine: WhisperEngine) -> None:
        self._engine = engine

    def candidates(self, audio: Heard | None, lips: Any | None, search: Search, count: int) -> list[list[list[Spoken]]]:
        """See `avsr.engine.Texts`. Other texts have no times for their phrases, and none exist where nobody speaks."""
        best = self._engine.decode(audio, lips, search)
        assert audio is not None
        if count == 1:
            return [[words] for words in best]
        others = self._engine.other_texts(audio, search, count)
        return [
            [own, *(words for words in listed if own and words and _letters(words) != _letters(own))][:count]
            for own, listed in zip(best, others, strict=True)
        ]

    def log_probs_of(
        self, audio: Heard | None, lips: Any | None, search: Search, texts: Sequence[Sequence[Plain]]
    ) -> list[list[float]]:
        """See `avsr.engine.Texts`: of a text without times, as the likeliest ways to write it, without its end.

        The end is left out because the runtime does not give its probability: after a full stop it is nearly certain.
        """
        assert audio is not None
        languages = self._engine.languages_of(audio, search)
        encoded_BPD = np.array(audio.encoded.to_device(_cpu()))
        return [
            self._of_item(encoded_BPD[item], len(audio.items[item]), languages[item], search, own)
            for item, own in enumerate(texts)
        ]

    def _of_item(
        self, encoded_PD: np.ndarray, samples: int, language: str, search: Search, texts: Sequence[Plain]
    ) -> list[float]:
        tokens = self._engine.tokens
        ways = [[tokens.encode(f" {text}")[:MOST_TOKENS] for text in writings(words)] for words in texts]
        written = [way for of_text in ways for way in of_text]
        if not written:
            return [-math.inf] * len(texts)
        seconds = samples / SAMPLE_RATE_HZ
        kept_PD = encoded_PD[: math.ceil((seconds + SILENCE_S) * POSITIONS_A_SECOND)]
        aligned = computed(
            self._engine.model.align,
            storage(np.repeat(kept_PD[None], len(written), axis=0)),
            tokens.prompt(language, search.task),
            written,
            max(FEWEST_FRAMES, min(2 * len(kept_PD), round(seconds * 2 * POSITIONS_A_SECOND))),
        )
        sums = iter([_log(item.text_token_probs) for item in aligned])
        # The probability that the text is written in any of its ways.
        return [float(np.logaddexp.reduce([next(sums) for _ in of_text], initial=-np.inf)) for of_text in ways]


def _log(probabilities: Sequence[float]) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(np.asarray(probabilities, np.float64)).sum())


def _cpu() -> Any:
    import ctranslate2

    return ctranslate2.Device.cpu


def _letters(words: Sequence[Spoken]) -> list[str]:
    return [word.word for word in words]
