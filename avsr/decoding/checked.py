"""Whether what a model gives can be speech recognition at all: broken weights give sure words for any sound.

Weights may be finite and still be broken: all zero, all the same, or so large that the biases decide. The rows of such
a model are not finite, or they are the same whatever is said. Files, evaluation and `Recognizer.log_probs` go through
`CheckedFrames`; a live session has a `RowsCheck` of its own.

Letters: S samples, T frames or slots, V units with the blank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from avsr.arrays import Crops, LogProbs, Present, Samples
from avsr.decoding.search import FrameSearch, Search, Spoken
from avsr.errors import ModelError
from avsr.grid import FRAME_MS, FRAME_SAMPLES, SLOT_MS

if TYPE_CHECKING:
    from avsr.engine import FrameEngine

ROUNDING = 1e-3
"""A probability may be above 1 by this: half precision has 3 digits."""
UNIFORM = 1e-3
"""Rows with smaller differences between all units say nothing. A network without training has differences of 0.1."""
SAME = 1e-6
"""Rows with smaller differences are the same row, computed twice."""
JUDGED_AFTER_S = 1.0
"""The same row for shorter sound proves nothing."""
LEAST_LEVEL = 1e-5
"""Mean square, -50 dB of full scale. In quieter sound a model may well hear nothing."""
LEAST_CHANGE = 0.05
"""Share by which the levels of 80 ms of sound differ if they vary. In steady noise they differ by more than 0.1, in a
steady tone by 0.01."""
LEAST_MOVEMENT = 2.0
"""Mean difference of the greys of two crops, 0 to 255, if the picture varies."""
BROKEN = "download the model again; with dtype float16 or bfloat16, try float32"


def check_log_probs(rows_TV: LogProbs, model: str, most: float = ROUNDING) -> None:
    """Raises ModelError unless each row can be log-probabilities: no NaN, and the best is finite and at most `most`.

    A unit that is impossible may be -inf, but not all of a row.
    """
    if not len(rows_TV):
        return
    best_T = rows_TV.max(axis=1)  # NaN if anything in the row is
    bad_T = ~(np.isfinite(best_T) & (best_T <= most))
    if bad_T.any():
        frame = int(bad_T.argmax())
        raise ModelError(
            f"model {model} gives no log-probabilities",
            got=f"{best_T[frame]} as the largest of frame {frame}",
            expected="a number, 0 at most",
            remedy=BROKEN,
        )


class RowsCheck:
    """Finds out whether the rows of one recording vary with what is said. Stops as soon as they do.

    model: its name, for errors.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._varies = False
        self._first_V: LogProbs | None = None
        self._levels: list[float] = []
        """Mean square of each 80 ms of sound that is loud enough."""
        self._first_crop: Crops | None = None
        self._seen_slots, self._moves = 0, False

    def add(
        self,
        rows_TV: LogProbs,
        samples_S: Samples | None = None,
        crops: Crops | None = None,
        present: Present | None = None,
    ) -> None:
        """The next rows, and the sound and lips that they were computed from; None: it was not used.

        Raises ModelError if the rows are no log-probabilities, or if they stay the same while the input varies.
        """
        check_log_probs(rows_TV, self._model)
        # Without input, such as in digital silence, every row may be the same.
        if self._varies or not len(rows_TV) or (samples_S is None and (present is None or not present.any())):
            return
        if self._first_V is None:
            self._first_V = rows_TV[0].copy()
        is_uniform = _is_uniform(rows_TV)
        if not is_uniform and not _are_same(rows_TV, self._first_V):
            self._varies = True
            return
        if samples_S is not None:
            self._note_sound(samples_S)
        if crops is not None and present is not None:
            self._note_lips(crops[present])
        if is_uniform and (self._levels or self._seen_slots):
            raise self._refused("the same probability for every unit")
        if self._input_varies:
            raise self._refused("the same row for all frames")

    def _refused(self, got: str) -> ModelError:
        return ModelError(
            f"model {self._model} does not react to its input",
            got=got,
            expected="log-probabilities that vary with what is said",
            remedy=BROKEN,
        )

    @property
    def _input_varies(self) -> bool:
        heard_s, seen_s = len(self._levels) * FRAME_MS / 1000, self._seen_slots * SLOT_MS / 1000
        sound_varies = heard_s >= JUDGED_AFTER_S and min(self._levels) < (1 - LEAST_CHANGE) * max(self._levels)
        return sound_varies or (seen_s >= JUDGED_AFTER_S and self._moves)

    def _note_sound(self, samples_S: Samples) -> None:
        frames = samples_S[: len(samples_S) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
        levels = np.square(frames).mean(axis=1)
        self._levels += levels[levels >= LEAST_LEVEL].tolist()

    def _note_lips(self, seen: Crops) -> None:
        if not len(seen):
            return
        if self._first_crop is None:
            self._first_crop = seen[0]
        self._seen_slots += len(seen)
        difference = np.abs(seen[:, ::4, ::4].astype(np.int16) - self._first_crop[::4, ::4]).mean(axis=(1, 2))
        self._moves = self._moves or bool(difference.max() >= LEAST_MOVEMENT)


def _is_uniform(rows_TV: LogProbs) -> bool:
    return rows_TV.shape[1] > 1 and bool((rows_TV.max(axis=1) - rows_TV.min(axis=1) < UNIFORM).all())


def _are_same(rows_TV: LogProbs, first_V: LogProbs) -> bool:
    """Whether all rows equal the first. Rows that vary usually show it in the middle of the recording."""
    some = [len(rows_TV) // 2]
    return all(bool(np.isclose(rows, first_V, rtol=SAME, atol=SAME).all()) for rows in (rows_TV[some], rows_TV))


class _Sound(NamedTuple):
    encoded: Any
    samples: Sequence[Samples]


class _Lips(NamedTuple):
    encoded: Any
    crops: Sequence[Crops]
    present: Sequence[Present]


class CheckedFrames:
    """A `FrameEngine` whose log-probabilities are checked, each item as one recording. model: its name, for errors."""

    def __init__(self, engine: FrameEngine[Any, Any], model: str) -> None:
        self._engine, self._model = engine, model

    @property
    def frame_ms(self) -> int:
        return self._engine.frame_ms

    def encode_audio(self, samples: Sequence[Samples]) -> _Sound:
        return _Sound(self._engine.encode_audio(samples), samples)

    def encode_lips(self, crops: Sequence[Crops], present: Sequence[Present], audio: _Sound | None) -> _Lips:
        encoded = self._engine.encode_lips(crops, present, None if audio is None else audio.encoded)
        return _Lips(encoded, crops, present)

    def log_probs(self, audio: _Sound | None, lips: _Lips | None) -> list[LogProbs]:
        """See `FrameEngine`. Raises ModelError for rows that broken weights give."""
        rows = self._engine.log_probs(None if audio is None else audio.encoded, None if lips is None else lips.encoded)
        for item, rows_TV in enumerate(rows):
            RowsCheck(self._model).add(
                rows_TV,
                None if audio is None else audio.samples[item],
                None if lips is None else lips.crops[item],
                None if lips is None else np.asarray(lips.present[item], bool),
            )
        return rows

    def frame_search(self, search: Search) -> FrameSearch[Any]:
        return self._engine.frame_search(search)

    def decode(self, audio: _Sound | None, lips: _Lips | None, search: Search) -> list[list[Spoken]]:
        found = self.frame_search(search)
        return [found.words(found.step(rows_TV, found.initial_state())) for rows_TV in self.log_probs(audio, lips)]


def checked_words(words: Sequence[Spoken], model: str) -> list[Spoken]:
    """The words, with confidences in [0, 1]. Raises ModelError for a confidence or time that is not a number."""
    return [_checked(word, model) for word in words]


def _checked(word: Spoken, model: str) -> Spoken:
    numbers = [word.start_s, word.end_s, 0.0 if word.confidence is None else word.confidence]
    if not all(map(math.isfinite, numbers)) or not -ROUNDING <= numbers[2] <= 1 + ROUNDING:
        raise ModelError(
            f"model {model} gives a word that cannot be",
            got=f"start {numbers[0]}, end {numbers[1]}, confidence {word.confidence}",
            expected="seconds, and a confidence from 0 to 1",
            remedy=BROKEN,
        )
    if word.confidence is None or 0 <= word.confidence <= 1:
        return word
    return word._replace(confidence=min(1.0, max(0.0, word.confidence)))  # rounding
