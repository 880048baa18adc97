"""Live words from a recogniser of whole sounds: the sound of the last seconds is recognised again at each step.

Words that two steps agree on are committed (`agreement`). When the window of sound gets too long, its beginning moves
to a pause between committed words, and the text before it goes to the recogniser as context. Nothing is recognised
where nobody has spoken since, and words without a voice under them are dropped: recognisers of this kind write
sentences into silence.

Letters: S samples, T frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from avsr.arrays import Present, Rows, Samples
from avsr.decoding.agreement import after_known, agreed, best_cut
from avsr.decoding.search import Cut, Spoken
from avsr.grid import SAMPLE_RATE_HZ
from avsr.sound.voice import VOICE_FROM
from avsr.sound.voice_track import VoiceTrack, initial_voice_track
from avsr.text import join_words

Recognize = Callable[[Samples, str, str | None], Sequence[Spoken]]
"""The words of a sound, with times from its beginning. Further arguments: the text before, and the language if it is
known from the words before."""

FAINT = 0.1
"""Probability of the voice that a word needs under it."""
LEAST_VOICE_S = 0.06
"""Length of that voice: two windows of the voice detector."""
LEAST_S = 0.2
"""A shorter word is widened to this for the search for its voice: its times are less exact than the voice detector."""
LINGER_S = 0.3
"""After the last voice the window is recognised again until this much silence follows it."""
KEEP_S = 0.4
"""Sound before an utterance that belongs to its window: the voice detector misses faint first sounds."""
CONTEXT_LETTERS = 200
"""Length of the text before the window that the recogniser gets."""


class Window(NamedTuple):
    """The beam: an utterance so far, and the sound that is recognised again."""

    first: int
    """The first frame of the utterance."""
    frames: int
    """The number of the next frame."""
    samples_S: Samples
    """The sound of the window, which ends with the last frame."""
    voice: VoiceTrack
    recognized_s: float
    """The end of the sound that was recognised last."""
    committed: tuple[Spoken, ...]
    tentative: tuple[Spoken, ...]
    """What the last step found after the committed words."""
    before: str
    """The text before, if the utterance goes on from a cut."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RedecodingSearch:
    """See the module. One search serves many streams. Rows are the samples [T, S] of the frames."""

    recognize: Recognize
    frame_s: float
    longest_s: float
    """Length of the window at which its beginning moves on."""
    look_ahead_s: float = 0.0
    """Sound that must follow a word before it is committed."""

    def initial_state(self, first_frame: int = 0, after: Window | None = None) -> Window:
        """See `FrameSearch`. The last sound of the pause between the utterances is kept."""
        if after is None:
            voice = initial_voice_track()
            return Window(first_frame, first_frame, np.zeros(0, np.float32), voice, 0.0, (), (), "")
        end_s = first_frame * self.frame_s
        words = self.words(after)
        since_s = max(end_s - KEEP_S, words[-1].end_s if words else 0.0)
        # Not its text: a mistake in it would be repeated from utterance to utterance.
        after = after._replace(first=first_frame, committed=(), tentative=(), before="")
        return self._from(after, min(since_s, end_s))

    def step(self, rows: Rows, beam: Window) -> Window:
        """See `FrameSearch`. The window is recognised once, unless more frames come than it may hold."""
        most = round(self.longest_s / self.frame_s)
        for first in range(0, len(rows), most):
            beam = self._step(rows[first : first + most], beam)
        return beam

    def _step(self, rows: Rows, beam: Window) -> Window:
        samples_S = rows.reshape(-1)
        beam = beam._replace(
            frames=beam.frames + len(rows),
            samples_S=np.concatenate((beam.samples_S, samples_S)),
            voice=beam.voice.heard(samples_S),
        )
        if self._has_news(beam):
            beam = self._committed(self._hypothesis(beam), beam)
        return self._shortened(beam)

    def words(self, beam: Window) -> list[Spoken]:
        """See `FrameSearch`."""
        return [*beam.committed, *beam.tentative]

    def committed(self, beam: Window) -> int:
        """See `FrameSearch`."""
        return len(beam.committed)

    def pause(self, beam: Window) -> int:
        """See `FrameSearch`. A voice without a word so far counts as a unit: its word may still come."""
        words = self.words(beam)
        frames = beam.frames - beam.first
        if words:
            return max(0, beam.frames - round(words[-1].end_s / self.frame_s))
        voiced = beam.voice.span(self._start_s(beam), self._end_s(beam), VOICE_FROM)
        return frames if voiced is None else max(0, min(frames - 1, beam.frames - round(voiced[1] / self.frame_s)))

    def cut(self, beam: Window) -> Cut:
        """See `FrameSearch`. Committed words are cut at the longest pause of their second half."""
        count = best_cut(beam.committed)
        if not count:
            return Cut(self.words(beam), beam.frames, self.initial_state(beam.frames, beam))
        words, rest = beam.committed[:count], beam.committed[count:]
        frame = round((words[-1].end_s + rest[0].start_s) / 2 / self.frame_s)
        beam = beam._replace(first=frame, committed=rest, before=_text(beam.before, words))
        return Cut(list(words), frame, self._from(beam, max(self._start_s(beam), frame * self.frame_s)))

    def silence(self, rows: Rows, where_T: Present) -> Rows:
        """See `FrameSearch`."""
        return np.where(where_T[:, None], np.float32(0), rows)

    def _end_s(self, beam: Window) -> float:
        return beam.frames * self.frame_s

    def _start_s(self, beam: Window) -> float:
        return self._end_s(beam) - len(beam.samples_S) / SAMPLE_RATE_HZ

    def _known(self, beam: Window) -> list[Spoken]:
        """The committed words that end in the window."""
        start_s = self._start_s(beam)
        return [word for word in beam.committed if word.end_s > start_s]

    def _has_news(self, beam: Window) -> bool:
        """Whether the words can change: a new voice, or words that have not been agreed on."""
        if beam.tentative:
            return True
        since_s = beam.recognized_s - LINGER_S
        if beam.committed:
            since_s = max(since_s, beam.committed[-1].end_s)
        return beam.voice.span(since_s, self._end_s(beam), VOICE_FROM) is not None

    def _hypothesis(self, beam: Window) -> list[Spoken]:
        """The words of the window after the committed ones."""
        start_s = self._start_s(beam)
        known = self._known(beam)
        before = _text(beam.before, beam.committed[: len(beam.committed) - len(known)])
        language = beam.committed[0].language if beam.committed else None
        words = [
            voiced
            for word in self.recognize(beam.samples_S, before, language)
            if (voiced := self._within_voice(_later(word, start_s), beam)) is not None
        ]
        # Times of words that were recognised again may differ by a little from those that are committed.
        least_s = beam.committed[-1].end_s if beam.committed else beam.first * self.frame_s
        return [_not_before(word, least_s) for word in after_known(known, words)]

    def _within_voice(self, word: Spoken, beam: Window) -> Spoken | None:
        """The word without silence at its ends; None if there is too little voice under it."""
        spare_s = max(0.0, LEAST_S - (word.end_s - word.start_s)) / 2
        voiced = beam.voice.span(word.start_s - spare_s, word.end_s + spare_s, FAINT)
        if voiced is None or voiced[1] - voiced[0] < LEAST_VOICE_S:
            return None
        start_s = min(max(word.start_s, voiced[0]), voiced[1])
        return word._replace(start_s=start_s, end_s=max(start_s, min(word.end_s, voiced[1])))

    def _committed(self, rest: list[Spoken], beam: Window) -> Window:
        """The beam with the words that this step and the one before agree on."""
        count = agreed(beam.tentative, rest)
        while count and rest[count - 1].end_s > self._end_s(beam) - self.look_ahead_s:
            count -= 1
        return beam._replace(
            committed=(*beam.committed, *rest[:count]), tentative=tuple(rest[count:]), recognized_s=self._end_s(beam)
        )

    def _shortened(self, beam: Window) -> Window:
        """The beam with a window that is not too long."""
        end_s = self._end_s(beam)
        window_s = end_s - self._start_s(beam)
        if window_s <= self.longest_s:
            return beam
        known = self._known(beam)
        if (count := best_cut(known)) > 0:
            return self._from(beam, (known[count - 1].end_s + known[count].start_s) / 2)
        if window_s <= 2 * self.longest_s:
            return beam
        # The steps agree on nothing: the newest one decides on the words that leave the window.
        start_s = end_s - self.longest_s
        gone = [word for word in beam.tentative if word.end_s <= start_s]
        beam = beam._replace(committed=(*beam.committed, *gone), tentative=beam.tentative[len(gone) :])
        return self._from(beam, start_s)

    def _from(self, beam: Window, start_s: float) -> Window:
        """The beam with a window that begins at this time."""
        drop = max(0, round((start_s - self._start_s(beam)) * SAMPLE_RATE_HZ))
        return beam._replace(samples_S=beam.samples_S[drop:].copy(), voice=beam.voice.without(start_s))


def _text(before: str, words: Sequence[Spoken]) -> str:
    """The end of the text so far."""
    text = join_words((before, *(word.word for word in words)))
    # From the beginning of a word, so that the context holds no part of one.
    return text if len(text) <= CONTEXT_LETTERS else text[-CONTEXT_LETTERS:].partition(" ")[2]


def _later(word: Spoken, seconds: float) -> Spoken:
    return word._replace(start_s=word.start_s + seconds, end_s=word.end_s + seconds)


def _not_before(word: Spoken, least_s: float) -> Spoken:
    return word._replace(start_s=max(word.start_s, least_s), end_s=max(word.end_s, least_s))
