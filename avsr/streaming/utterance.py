"""The current utterance of a stream: frames become partial and final words. Each frame is decoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from avsr.arrays import LogProbs
from avsr.decoding.search import FrameSearch
from avsr.grid import Modality
from avsr.transcript import Word

MAX_UTTERANCE_S = 20.0
"""A longer utterance is cut at a pause between words."""

PATIENCE = 3
"""Noise may count as voice for ever. After a pause between words of this many times the usual length, the utterance
ends whether there is voice or not."""

End = Literal["pause", "length", "end"]


class Source(NamedTuple):
    """The inputs that a frame was recognised from."""

    modality: Modality
    face: int | None
    """The face that was read; None without lips."""


class Said(NamedTuple):
    """The words of an utterance, with times in seconds from the beginning of the stream."""

    words: tuple[Word, ...]
    changed: int = 0
    """How many of the words shown before are changed or removed."""
    ended: End | None = None
    """The reason for the end of the utterance; None while it goes on."""


class Utterance:
    """The frames since the last utterance ended, as a beam of the search, and the words last shown.

    search: the search through the frames.
    frame_s: seconds a frame.
    pause_s: the length of a pause that ends an utterance.
    """

    def __init__(self, search: FrameSearch[Any], frame_s: float, pause_s: float) -> None:
        self._search, self._frame_s, self._pause_s = search, frame_s, pause_s
        self._shown: tuple[str, ...] = ()
        self._begin(0)

    def _begin(self, frame: int) -> None:
        """Begin an utterance at a frame of the stream."""
        self._first = self._frames = frame
        self._beam: Any = self._search.initial_state(frame)
        self._sources: list[Source] = []
        # An utterance that gets too long is cut after its last pause: the beam at that pause, and the rows since.
        self._at_pause: Any = self._beam
        self._since_pause: list[LogProbs] = []

    def show(self, log_probs_TV: LogProbs, sources: list[Source]) -> Said | None:
        """The words if these frames followed; None if they equal the words last shown. The frames are not kept."""
        beam = self._search.step(log_probs_TV, self._beam)
        return self._show(self._words(beam, self._sources + sources))

    def add(self, log_probs_TV: LogProbs, sources: list[Source], since_voice_s: float) -> list[Said]:
        """Add frames. Returns the new words and the final, if there are any.

        log_probs_TV: log-probabilities [T, V + 1].
        sources: the inputs of each frame.
        since_voice_s: time from the end of the last voice to the end of these frames.
        """
        self._step(log_probs_TV)
        self._sources += sources
        said = [self._show(self._words(self._beam, self._sources)), self._end(since_voice_s)]
        return [some for some in said if some is not None]

    def finish(self) -> list[Said]:
        """End the stream. Returns the last final, if it has words."""
        words = self._words(self._beam, self._sources)
        self._begin(self._frames)
        self._shown = ()
        return [Said(words, ended="end")] if words else []

    def _step(self, log_probs_TV: LogProbs) -> None:
        self._beam = self._search.step(log_probs_TV, self._beam)
        self._frames += len(log_probs_TV)
        if self._search.pause(self._beam):
            self._at_pause, self._since_pause = self._beam, []
        else:
            self._since_pause.append(log_probs_TV)

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
        """The final, if the utterance is over."""
        pause = self._search.pause(self._beam)
        # An utterance begins with its first word: silence before it must not count towards the longest utterance.
        if pause == self._frames - self._first:  # no word so far
            self._begin(self._frames)
            return None
        if has_ended(blank_s=pause * self._frame_s, since_voice_s=since_voice_s, pause_s=self._pause_s):
            words = self._words(self._beam, self._sources)
            self._begin(self._frames)
            self._shown = ()
            return Said(words, ended="pause") if words else None
        if (self._frames - self._first) * self._frame_s >= MAX_UTTERANCE_S:
            return self._cut()
        return None

    def _cut(self) -> Said | None:
        """End a long utterance after its last pause, so that no word is cut in two; without any pause, here."""
        beam = after = self._at_pause
        rest: list[LogProbs] = []
        # The last pause may lie inside a chunk, so the rows since the last known one are searched one by one.
        for rows_TV in self._rows_since_pause():
            after = self._search.step(rows_TV, after)
            rest.append(rows_TV)
            if self._search.pause(after):
                beam, rest = after, []
        words = self._words(beam, self._sources)
        # No word ends before the last pause, so the utterance is cut after its last frame.
        if not words:
            beam, rest = self._beam, []
            words = self._words(beam, self._sources)
        cut_at = self._frames - len(rest)
        sources = self._sources[cut_at - self._first :]
        self._begin(cut_at)
        for rows_TV in rest:
            self._step(rows_TV)
        self._sources = sources
        self._shown = tuple(word.word for word in self._words(self._beam, self._sources))
        return Said(words, ended="length") if words else None

    def _rows_since_pause(self) -> Iterator[LogProbs]:
        for rows_TV in self._since_pause:
            for frame in range(len(rows_TV)):
                yield rows_TV[frame : frame + 1]

    def _words(self, beam: Any, sources: list[Source]) -> tuple[Word, ...]:
        words = []
        for spoken in self._search.words(beam):
            first, end = (round(time_s / self._frame_s) - self._first for time_s in (spoken.start_s, spoken.end_s))
            modality, face = Counter(sources[first:end]).most_common(1)[0][0]
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
