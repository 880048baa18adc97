"""The utterance that is being spoken: from log-probabilities to partial and final words."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from avsr.grid import Modality
from avsr.transcript import Word

if TYPE_CHECKING:
    from avsr.recognizer import Recognizer

MAX_UTTERANCE_S = 20.0

PATIENCE = 3
"""Noise may sound like voices for ever: after so many times the pause, the words decide alone."""

End = Literal["pause", "length", "end"]


class Source(NamedTuple):
    """What a frame was recognised from, and whose lips."""

    modality: Modality
    face: int | None


class Said(NamedTuple):
    """Words of an utterance with times in seconds from the beginning of the stream. ended: by what, where it did."""

    words: tuple[Word, ...]
    changed: int = 0
    ended: End | None = None


class Utterance:
    """Frames of the network since the last utterance ended, and the words that were last shown of them."""

    def __init__(self, recognizer: Recognizer, pause_s: float) -> None:
        self._recognizer = recognizer
        self._frame_s = recognizer.config.frame_ms / 1000
        self._pause_s = pause_s
        self._log_probs_TV = torch.zeros(0, recognizer.network.blank_id + 1)
        self._sources: list[Source] = []
        self._first = 0  # frame of the stream
        self._shown: tuple[str, ...] = ()

    def show(self, log_probs_TV: Tensor, sources: list[Source]) -> Said | None:
        """What would be said with these frames besides, where it differs from what was last shown."""
        return self._show(self._words(torch.cat((self._log_probs_TV, log_probs_TV)), self._sources + sources))

    def add(self, log_probs_TV: Tensor, sources: list[Source], since_voice_s: float) -> list[Said]:
        """More frames, for good. since_voice_s: how long before their end a voice was heard last."""
        self._log_probs_TV = torch.cat((self._log_probs_TV, log_probs_TV))
        self._sources += sources
        said = [self._show(self._words(self._log_probs_TV, self._sources)), self._end(since_voice_s)]
        return [some for some in said if some is not None]

    def finish(self) -> list[Said]:
        """The stream ends here."""
        said = self._cut(len(self._sources), "end")
        return [] if said is None else [said]

    def _show(self, words: tuple[Word, ...]) -> Said | None:
        texts = tuple(word.word for word in words)
        if texts == self._shown:
            return None
        same = 0
        while same < min(len(texts), len(self._shown)) and texts[same] == self._shown[same]:
            same += 1
        changed, self._shown = len(self._shown) - same, texts
        return Said(words, changed)

    def _end(self, since_voice_s: float) -> Said | None:
        """The final, where the utterance is over."""
        blank_T = self._log_probs_TV.argmax(dim=-1) == self._recognizer.network.blank_id
        spoken = (~blank_T).nonzero()
        if not len(spoken):
            self._drop(len(blank_T) - 1)  # nothing was said so far
            return None
        blank_s = (len(blank_T) - 1 - int(spoken[-1])) * self._frame_s
        if has_ended(blank_s=blank_s, since_voice_s=since_voice_s, pause_s=self._pause_s):
            return self._cut(len(blank_T), "pause")
        if len(blank_T) * self._frame_s >= MAX_UTTERANCE_S:
            # At the last blank, so that no word is cut in two; where there is none, wherever it is.
            blanks = blank_T.nonzero()
            return self._cut(int(blanks[-1]) if len(blanks) and int(blanks[-1]) else len(blank_T), "length")
        return None

    def _cut(self, count: int, ended: End) -> Said | None:
        """End the utterance after so many frames; what follows belongs to the next."""
        words = self._words(self._log_probs_TV[:count], self._sources)
        self._drop(count)
        self._shown = tuple(word.word for word in self._words(self._log_probs_TV, self._sources))
        return Said(words, ended=ended) if words else None

    def _drop(self, count: int) -> None:
        self._log_probs_TV = self._log_probs_TV[count:].clone()
        self._sources = self._sources[count:]
        self._first += count

    def _words(self, log_probs_TV: Tensor, sources: list[Source]) -> tuple[Word, ...]:
        words = []
        for text, first, end, confidence in self._recognizer.words(log_probs_TV):
            modality, face = Counter(sources[first:end]).most_common(1)[0][0]
            start_s, end_s = ((self._first + frame) * self._frame_s for frame in (first, end))
            words.append(Word(word=text, start=start_s, end=end_s, confidence=confidence, modality=modality, face=face))
        return tuple(words)


def has_ended(*, blank_s: float, since_voice_s: float, pause_s: float) -> bool:
    """Whether an utterance is over: no unit for `blank_s`, no voice for `since_voice_s`; pause_s: how long it takes."""
    return blank_s >= pause_s * PATIENCE or (blank_s >= pause_s and since_voice_s >= pause_s / 2)
