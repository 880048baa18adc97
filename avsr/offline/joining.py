"""The windows of a recording become its words, by any engine."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from avsr.arrays import Present
from avsr.decoding.checked import CheckedFrames, checked_words
from avsr.decoding.search import FrameSearch, Search, Spoken
from avsr.engine import Card, Engine, FrameEngine, Model
from avsr.grid import FRAME_MS, FRAME_SAMPLES, FRAME_SLOTS
from avsr.offline.tape import Window
from avsr.sound.silence import audible_frames, within_reach

FRAME_S = FRAME_MS / 1000
SAME_WORD_S = 0.4
"""Equal words of two windows that begin at most so far apart are one word. A word of speech takes about as long."""


class Joiner(Protocol):
    """Puts the results of windows together."""

    def add(self, window: Window) -> None:
        """Recognise the next window, at once or together with those after it."""

    def words(self) -> list[Spoken]:
        """The words of all windows. No window may follow."""


def joiner(model: Model, search: Search) -> Joiner:
    """The joiner for a model. Raises ConfigError for a search that the model does not have."""
    model.card.require_search(search)
    if model.frames is not None:
        return _FrameJoiner(CheckedFrames(model.frames, model.card.name), search)
    return _WordJoiner(model.engine, search, model.card)


class _FrameJoiner:
    """Joins windows frame by frame, before the search: no word is lost or doubled where two windows meet."""

    def __init__(self, engine: FrameEngine[Any, Any], search: Search) -> None:
        self._engine = engine
        self._search: FrameSearch[Any] = engine.frame_search(search)
        self._beam = self._search.initial_state()

    def add(self, window: Window) -> None:
        log_probs_TV = window_log_probs(self._engine, self._search, window)
        self._beam = self._search.step(log_probs_TV, self._beam)

    def words(self) -> list[Spoken]:
        return self._search.words(self._beam)


class _WordJoiner:
    """Joins windows of an engine that gives words only. Windows in which nobody speaks are not recognised."""

    def __init__(self, engine: Engine[Any, Any], search: Search, card: Card) -> None:
        self._engine, self._search, self._card = engine, search, card
        self._waiting: list[Window] = []
        self._words: list[Spoken] = []

    def add(self, window: Window) -> None:
        if window.speech is not None and not window.speech:
            return
        # The items of one call all have sound, all have lips, or both.
        if self._waiting and _sides(self._waiting[0]) != _sides(window):
            self._recognise()
        self._waiting.append(window)
        if len(self._waiting) >= self._card.batch:
            self._recognise()

    def words(self) -> list[Spoken]:
        self._recognise()
        return self._words

    def _recognise(self) -> None:
        windows, self._waiting = self._waiting, []
        if not windows:
            return
        items = self._engine.decode(*_encode(self._engine, windows), self._search)
        for window, item in zip(windows, items, strict=True):
            first_s, words = window.first * FRAME_S, checked_words(item, self._card.name)
            words = [
                word._replace(start_s=word.start_s + first_s, end_s=word.end_s + first_s)
                for word in _words_of(window, words, has_times=self._card.has_times)
            ]
            if window.speech is None and window.first:
                self._words = joined(self._words, words, window.keep[0] * FRAME_S)
            else:  # nothing overlaps
                self._words += words


def _words_of(window: Window, words: Sequence[Spoken], *, has_times: bool) -> list[Spoken]:
    """The words of a window. Some models invent words for silence and noise; those are dropped.

    words: with times from the beginning of the window. has_times: False if the times are estimates.
    """
    if window.speech is not None:
        return [word for word in words if _is_in_speech(word, window)]
    reach = _within_reach(window)
    if not has_times:  # an estimate may lie in a silence between the words, and is no reason to drop a word
        reach[:] = reach.any()
    kept = []
    for word in words:
        first = int(word.start_s / FRAME_S)
        if reach[first : max(first + 1, int(np.ceil(word.end_s / FRAME_S)))].any():
            kept.append(word)
    return kept


def joined(before: Sequence[Spoken], after: Sequence[Spoken], seam_s: float) -> list[Spoken]:
    """The words of a recording up to the end of a window, each once.

    before: the words up to the end of the window before, those of its margin behind the seam among them. after: the
    words of the window, those of its margin before the seam among them. seam_s: where the part that the window decides
    on begins.

    Both windows see the words near the seam, at times that differ a little. Where they agree on a word, one list goes
    on after the other there. Without such a word each keeps what begins on its own side of the seam.
    """
    # No word before the second window can be in it too; a recording may have very many of these.
    first = bisect.bisect_left(before, after[0].start_s - SAME_WORD_S, key=lambda word: word.start_s) if after else 0
    same = [
        (abs(before[place].start_s - seam_s), place, other)
        for place in range(first, len(before))
        for other, word in enumerate(after)
        if before[place].word == word.word and abs(before[place].start_s - word.start_s) <= SAME_WORD_S
    ]
    if same:
        _, place, other = min(same)
        return [*before[: place + 1], *after[other + 1 :]]
    return [
        *(word for word in before if word.start_s < seam_s),
        *(word for word in after if word.start_s >= seam_s),
    ]


def _is_in_speech(word: Spoken, window: Window) -> bool:
    """Whether a word touches a stretch in which somebody may speak. Stretches are wider than the voice by 0.3 s."""
    start, end = (window.first + time_s / FRAME_S for time_s in (word.start_s, word.end_s))
    return any(stretch.start <= end and start <= stretch.end for stretch in window.speech or ())


def window_log_probs(engine: FrameEngine[Any, Any], search: FrameSearch[Any], window: Window) -> np.ndarray:
    """Log-probabilities [T, V + 1] of the frames that a window decides on.

    Frames that have neither sound nor lips within reach are certain to hold nothing.
    """
    (log_probs_TV,) = engine.log_probs(*_encode(engine, [window]))
    # Windows are cut in frames of 80 ms, whatever the frames of the model are.
    per_frame = FRAME_MS // engine.frame_ms
    absent_T = np.repeat(~_within_reach(window), per_frame)
    # Causal subsampling may give one frame more than there are; it is like the one before.
    absent_T = np.concatenate((absent_T, absent_T[-1:]))[: len(log_probs_TV)]
    if absent_T.any():
        # Models make words out of digital silence: from zeros `grid-tiny` gave "bin by".
        log_probs_TV = search.silence(log_probs_TV, absent_T)
    start, end = ((frame - window.first) * per_frame for frame in window.keep)
    if len(log_probs_TV) - end <= 1:  # the recording ends here, and the frame too many belongs to this window
        end = len(log_probs_TV)
    return log_probs_TV[start:end]


def _sides(window: Window) -> tuple[bool, bool]:
    """Whether an engine gets the sound and the lips of a window.

    Sound that is silent throughout counts as absent if there are lips: an engine makes noise of it.
    """
    has_lips = window.present is not None and bool(window.present.any())
    audible = window.samples is not None and bool(audible_frames(window.samples, FRAME_SAMPLES).any())
    has_sound = window.samples is not None and (audible or not has_lips)
    # Absent lips are given only if nothing else is, because an engine needs one side at least.
    return has_sound, window.present is not None and (has_lips or not has_sound)


def _encode(engine: Engine[Any, Any], windows: Sequence[Window]) -> tuple[Any, Any]:
    """Encoded sound and lips of windows with the same sides; None for a missing side."""
    has_sound, has_lips = _sides(windows[0])
    audio = lips = None
    if has_sound:
        audio = engine.encode_audio([window.samples for window in windows if window.samples is not None])
    if has_lips:
        crops = [window.crops for window in windows if window.crops is not None]
        present = [window.present for window in windows if window.present is not None]
        lips = engine.encode_lips(crops, present, audio)
    return audio, lips


def _within_reach(window: Window) -> Present:
    """Of each 80 ms frame of a window: whether sound or lips are near enough for a word."""
    audible = np.zeros(0, bool) if window.samples is None else audible_frames(window.samples, FRAME_SAMPLES)
    seen = np.zeros(0, bool) if window.present is None else window.present.reshape(-1, FRAME_SLOTS).any(axis=1)
    there = np.zeros(max(len(audible), len(seen)), bool)
    there[: len(audible)] |= audible
    there[: len(seen)] |= seen
    return within_reach(there)
