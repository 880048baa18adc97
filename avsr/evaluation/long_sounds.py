"""An engine that recognises the sound of utterances as `avsr transcribe` recognises files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from avsr.arrays import Crops, Present, Samples
from avsr.decoding.search import Search, Spoken
from avsr.engine import Card, Engine, Model
from avsr.grid import SAMPLE_RATE_HZ
from avsr.offline.transcribe import transcribe


def with_long_sounds(model: Model) -> Engine[Any, Any]:
    """An engine of the model for utterances of any length.

    Sounds longer than `longest_s` are cut and joined as `avsr transcribe` does it; shorter ones are recognised whole,
    several at once. A model that is cut at pauses gets stretches of speech only, as in `avsr transcribe`. A model that
    reads lips too gets every utterance whole: a, v and av are then cut alike, that is not at all.
    """
    return _LongSounds(model) if model.card.modalities == ("a",) else model.engine


def longest_s(card: Card) -> float:
    """The length of the longest sound that `avsr transcribe` gives the model uncut, in seconds."""
    return 0.0 if card.cut_at_pauses else card.window_s + 2 * card.margin_s


class _Batch(NamedTuple):
    """The encoded short sounds of a batch; its long sounds wait for the search."""

    short: Any
    """None if all sounds are long."""
    long: dict[int, Samples]
    """By the place in the batch."""
    size: int


class _LongSounds:
    def __init__(self, model: Model) -> None:
        self._model = model
        self._longest = longest_s(model.card) * SAMPLE_RATE_HZ

    def encode_audio(self, samples: Sequence[Samples]) -> _Batch:
        long = {place: item for place, item in enumerate(samples) if len(item) > self._longest}
        short = [item for place, item in enumerate(samples) if place not in long]
        return _Batch(self._model.engine.encode_audio(short) if short else None, long, len(samples))

    def encode_lips(self, crops: Sequence[Crops], present: Sequence[Present], audio: _Batch | None) -> Any:
        raise AssertionError("a model that only hears was given lips")

    def decode(self, audio: _Batch | None, lips: Any, search: Search) -> list[list[Spoken]]:
        assert audio is not None and lips is None
        short = iter([] if audio.short is None else self._model.engine.decode(audio.short, None, search))
        return [
            self._in_windows(audio.long[place], search) if place in audio.long else next(short)
            for place in range(audio.size)
        ]

    def _in_windows(self, samples: Samples, search: Search) -> list[Spoken]:
        # Evaluation measures the recogniser: every word counts, as of short sounds.
        words = transcribe(self._model, samples, modality="a", search=search, force=True).words
        return [Spoken(word.word, word.start, word.end, word.confidence) for word in words]
