"""Whole texts by our own network: the likely ones, and how likely a given one is.

Letters: T frames, V units.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avsr.arrays import LogProbs
from avsr.decoding.alignment import align
from avsr.decoding.ctc_texts import ctc_log_prob, ctc_texts
from avsr.decoding.domain import Sentences
from avsr.decoding.greedy import words_of
from avsr.decoding.plain import Plain
from avsr.decoding.search import Search, Spoken
from avsr.decoding.tokenizer import WordTokenizer
from avsr.errors import DataError
from avsr.families.own.engine import EncodedAudio, EncodedLips, OwnEngine


class OwnTexts:
    """See `avsr.engine.Texts`.

    sentences: the only ones that the model knows. Other texts have no probability then, and none but the text that the
    model decodes is listed.
    """

    def __init__(self, engine: OwnEngine, sentences: Sentences | None) -> None:
        self._engine, self._blank_id = engine, engine.network.blank_id
        self._places = None
        if sentences is not None and isinstance(engine.tokenizer, WordTokenizer):
            self._places = [engine.tokenizer.encode(words) for words in sentences.places]

    def candidates(
        self, audio: EncodedAudio | None, lips: EncodedLips | None, search: Search, count: int
    ) -> list[list[list[Spoken]]]:
        """See `avsr.engine.Texts`."""
        return [self._candidates(rows_TV, search, count) for rows_TV in self._engine.log_probs(audio, lips)]

    def _candidates(self, rows_TV: LogProbs, search: Search, count: int) -> list[list[Spoken]]:
        own = self._engine.frame_search(search)
        best = own.words(own.step(rows_TV, own.initial_state()))
        frame_s = self._engine.frame_ms / 1000
        others = [
            words_of(self._engine.tokenizer, align(rows_TV, list(text.units), self._blank_id), frame_s)
            for text in ctc_texts(rows_TV, self._blank_id, count, self._places)
        ]
        is_best = [word.word for word in best]
        return [best, *(words for words in others if [word.word for word in words] != is_best)][:count]

    def log_probs_of(
        self,
        audio: EncodedAudio | None,
        lips: EncodedLips | None,
        search: Search,
        texts: Sequence[Sequence[Plain]],
    ) -> list[list[float]]:
        """See `avsr.engine.Texts`."""
        rows = self._engine.log_probs(audio, lips)
        return [[self._log_prob(rows_TV, text) for text in own] for rows_TV, own in zip(rows, texts, strict=True)]

    def _log_prob(self, rows_TV: LogProbs, text: Plain) -> float:
        units = self._units(text)
        if units is None or not self._are_sentences(units):
            return -np.inf
        return ctc_log_prob(rows_TV, self._blank_id, units)

    def _are_sentences(self, units: Sequence[int]) -> bool:
        """Whether units are whole sentences of those that the model knows; True if it does not know which."""
        if self._places is None:
            return True
        in_place = [unit in self._places[place % len(self._places)] for place, unit in enumerate(units)]
        return all(in_place) and len(units) % len(self._places) == 0

    def _units(self, text: Plain) -> list[int] | None:
        """The units of a text; None if it has a word that they cannot spell."""
        tokenizer = self._engine.tokenizer
        try:
            units = tokenizer.encode(" ".join(text))
        except DataError:
            return None
        # Pieces spell an unknown letter by a piece of its own, which has another text.
        return units if tokenizer.decode(units).split() == list(text) else None
