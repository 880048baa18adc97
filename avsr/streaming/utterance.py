"""The current utterance of a stream: frames become partial and final words. The search gets each frame once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from avsr.arrays import Rows
from avsr.decoding.checked import checked_words
from avsr.decoding.search import FrameSearch, Spoken
from avsr.grid import Modality
from avsr.transcript import Word

MAX_UTTERANCE_S = 20.0
"""A longer utterance is cut at a pause between words."""

PATIENCE = 3
"""Noise may count as voice for ever. After a pause between words of this many times the usual length, the utterance
ends whether there is voice or not."""

End = Literal["pause", "length", "end", "foreign"]


class Source(NamedTuple):
    """The inputs that a frame was recognised from."""

    modality: Modality
    face: int | None
    """The face that was read; None without lips."""


class Said(NamedTuple):
    """The words of an utterance, with times in seconds from the beginning of the stream."""

    words: tuple[Word, ...]
    committed: int
    """How many of the first words later sound can never change; all of them once the utterance has ended. Only the end
    of a foreign utterance takes them back."""
    changed: int = 0
    """How many of the words shown before are changed or removed."""
    ended: End | None = None
    """The reason for the end of the utterance; None while it goes on. "foreign": it has ended and was other speech or
    noise, so that all words shown before are taken back."""
    taken_back: tuple[Word, ...] = ()
    """The words of a foreign utterance."""


class Utterance:
    """The frames since the last utterance ended, as a beam of the search, and the words last shown.

    search: the search through the frames.
    frame_s: seconds a frame.
    pause_s: the length of a pause that ends an utterance.
    are_foreign: tells the words of other speech or noise at the end of an utterance; None: all words are shown.
    """

    def __init__(
        self,
        search: FrameSearch[Any],
        frame_s: float,
        pause_s: float,
        are_foreign: Callable[[Sequence[Spoken]], bool] | None = None,
    ) -> None:
        self._search, self._frame_s, self._pause_s = search, frame_s, pause_s
        self._are_foreign = are_foreign
        self._frames = 0
        self._begin(0, search.initial_state())

    def _begin(self, first: int, beam: Any) -> None:
        """Begin an utterance.

        first: its first frame in the stream.
        beam: what the search knows of it.
        """
        self._first, self._beam = first, beam
        self._sources: list[Source] = []
        self._shown: tuple[str, ...] = ()
        self._committed = 0
        """How many of the words last shown are committed."""

    def show(self, rows: Rows, sources: list[Source]) -> Said | None:
        """The words if these frames followed; None if they equal the words last shown. The frames are not kept."""
        beam = self._search.step(rows, self._beam)
        return self._show(self._words(beam, self._sources + sources))

    def add(self, rows: Rows, sources: list[Source], since_voice_s: float) -> list[Said]:
        """Add frames. Returns the new words and the final, if there are any.

        rows: what the engine gave for each frame.
        sources: the inputs of each frame.
        since_voice_s: time from the end of the last voice to the end of these frames.
        """
        self._beam = self._search.step(rows, self._beam)
        self._frames += len(rows)
        self._sources += sources
        words = self._words(self._beam, self._sources)
        said = [self._show(words), self._end(words, since_voice_s)]
        # After a cut, the words of the rest have to be shown again.
        said.append(self._show(self._words(self._beam, self._sources)))
        return [some for some in said if some is not None]

    def finish(self) -> list[Said]:
        """End the stream. Returns the last final, if it has words."""
        final = self._final(self._words(self._beam, self._sources), "end")
        self._begin_after()
        return [] if final is None else [final]

    def _final(self, words: tuple[Word, ...], ended: End) -> Said | None:
        """The final of an utterance with these words; None without words."""
        spoken = [Spoken(word.word, word.start, word.end, word.confidence) for word in words]
        if self._are_foreign is not None and self._are_foreign(spoken):
            return Said((), 0, len(self._shown), "foreign", words)
        return Said(words, len(words), ended=ended) if words else None

    def _begin_after(self) -> None:
        """Begin an utterance after the last frame."""
        self._begin(self._frames, self._search.initial_state(self._frames, self._beam))

    def _show(self, words: tuple[Word, ...]) -> Said | None:
        texts = tuple(word.word for word in words)
        # Frames that are only shown may come again with other rows, so they commit nothing.
        committed = self._search.committed(self._beam)
        if (texts, committed) == (self._shown, self._committed):
            return None
        same = 0
        while same < min(len(texts), len(self._shown)) and texts[same] == self._shown[same]:
            same += 1
        changed = len(self._shown) - same
        self._shown, self._committed = texts, committed
        return Said(words, committed, changed)

    def _end(self, words: tuple[Word, ...], since_voice_s: float) -> Said | None:
        """The final, if the utterance is over."""
        pause = self._search.pause(self._beam)
        # An utterance begins with its first word: silence before it must not count towards the longest utterance.
        if pause == self._frames - self._first:  # no word so far
            self._begin_after()
            return None
        if has_ended(blank_s=pause * self._frame_s, since_voice_s=since_voice_s, pause_s=self._pause_s):
            final = self._final(words, "pause")
            self._begin_after()
            return final
        if (self._frames - self._first) * self._frame_s >= MAX_UTTERANCE_S:
            return self._cut()
        return None

    def _cut(self) -> Said | None:
        """End a long utterance after its last pause, so that no word is cut in two."""
        spoken, frame, rest = self._search.cut(self._beam)
        final = self._final(self._attributed(spoken, self._sources), "length")
        sources = self._sources[frame - self._first :]
        self._begin(frame, rest)
        self._sources = sources
        return final

    def _words(self, beam: Any, sources: list[Source]) -> tuple[Word, ...]:
        return self._attributed(self._search.words(beam), sources)

    def _attributed(self, spoken_words: list[Spoken], sources: list[Source]) -> tuple[Word, ...]:
        """The words, each with the input that most of its frames were recognised from."""
        words = []
        for spoken in checked_words(spoken_words, "of this stream"):
            first, end = (round(time_s / self._frame_s) - self._first for time_s in (spoken.start_s, spoken.end_s))
            first = min(max(first, 0), len(sources) - 1)
            # Words of a recogniser with times of its own may be shorter than a frame.
            modality, face = Counter(sources[first : max(end, first + 1)]).most_common(1)[0][0]
            words.append(
                Word(
                    word=spoken.word,
                    start=spoken.start_s,
                    end=spoken.end_s,
                    confidence=spoken.confidence,
                    modality=modality,
                    face=face,
                )
            )
        return tuple(words)


def has_ended(*, blank_s: float, since_voice_s: float, pause_s: float) -> bool:
    """Whether an utterance is over.

    blank_s: time since the last recognised unit.
    since_voice_s: time since the last voice.
    pause_s: the length of a pause that ends an utterance.
    """
    return blank_s >= pause_s * PATIENCE or (blank_s >= pause_s and since_voice_s >= pause_s / 2)
