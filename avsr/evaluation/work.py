"""The work of an evaluation: one batch of utterances under the conditions that are still missing.

Of a batch each sound is encoded once, each condition of the lips once, and every pair of them decoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from avsr.arrays import Crops, Present, Samples
from avsr.datasets.manifest import Utterance, load_samples
from avsr.decoding.search import Spoken
from avsr.evaluation.conditions import Condition, Grid, LipCondition, SoundCondition
from avsr.evaluation.job import Evaluation
from avsr.evaluation.opened import Opened
from avsr.evaluation.other_lips import LipSource
from avsr.evaluation.sounds import Sounds

LIPS = -1
"""Number of the unit of a batch that is about the lips alone; other units have the number of their sound."""

Unit = dict[str, Any]
"""A part of a batch, as one line of a file: batch, unit, achieved_snr_db of each utterance, and cells: a list of
[number of the condition, texts, milliseconds an utterance]. A cell also has the starts of all words in seconds if the
model and the manifest have word times."""


class Task(NamedTuple):
    """A batch and its missing units."""

    batch: int
    utterances: list[Utterance]
    missing: list[int]

    def steps(self, grid: Grid) -> int:
        """How many times the work of this task reports."""
        return len(_pictures_needed(grid, self.missing)) + len(self.missing)


def units_of(grid: Grid) -> list[int]:
    """The units of every batch."""
    lips = [LIPS] if "v" in grid.modalities else []
    return lips + (list(range(len(grid.sounds))) if {"a", "av"} & set(grid.modalities) else [])


class BatchWork:
    """Works on batches with one open model."""

    def __init__(self, evaluation: Evaluation, output: Path, opened: Opened) -> None:
        self._grid, self._engine, self._sounds = evaluation.grid, opened.engine, Sounds(output)
        self._root, self._search = Path(evaluation.manifest).parent, evaluation.search
        self._lips = LipSource(Path(evaluation.manifest))
        self._has_times = opened.card.has_times
        self._numbers = {condition: number for number, condition in enumerate(evaluation.grid.conditions())}

    def __call__(self, task: Task, report: Callable[[Unit | None], None]) -> None:
        """Report each unit of the task when it is done, and None after a step that is no unit of its own."""
        clean = None
        # In a batch all utterances have sound or none has (`chosen_utterances`).
        if task.utterances[0].audio is not None:
            clean = [load_samples(utterance, self._root) for utterance in task.utterances]
        lips = self._encode_lips(task, clean, report)
        for number in task.missing:
            if number == LIPS:
                cells = [self._cell(self._grid.lips_only(p), task, None, lips[p]) for p in self._grid.visible_pictures]
                achieved_db: list[float | None] = [None] * len(task.utterances)
            else:
                cells, achieved_db = self._sound_cells(task, clean, self._grid.sounds[number], lips)
            report({"batch": task.batch, "unit": number, "achieved_snr_db": achieved_db, "cells": cells})

    def _encode_lips(
        self, task: Task, clean: list[Samples] | None, report: Callable[[None], None]
    ) -> dict[LipCondition, _Encoded | None]:
        """The encoded lips under each condition that is needed; None if the utterances have no lips."""
        pictures = _pictures_needed(self._grid, task.missing)
        own = [self._lips.own(utterance) for utterance in task.utterances] if pictures else []
        # The lips are encoded for the lengths of the sound. Noise does not change them, so clean sound will do.
        audio = self._engine.encode_audio(clean) if clean is not None and pictures and self._uses_sound else None
        encoded: dict[LipCondition, _Encoded | None] = {}
        for picture in pictures:
            encoded[picture] = None
            if task.utterances[0].video is not None:
                changed = [
                    self._lips.under(picture, utterance, lips)
                    for utterance, lips in zip(task.utterances, own, strict=True)
                ]
                encoded[picture] = self._encode_changed(changed, audio)
            report(None)
        return encoded

    def _encode_changed(self, changed: list[tuple[Crops, Present]], audio: Any) -> _Encoded:
        began = time.perf_counter()
        lips = self._engine.encode_lips([crops for crops, _ in changed], [present for _, present in changed], audio)
        spent_s = time.perf_counter() - began
        return _Encoded(lips, spent_s, [bool(present.any()) for _, present in changed])

    @property
    def _uses_sound(self) -> bool:
        return bool({"a", "av"} & set(self._grid.modalities))

    def _sound_cells(
        self, task: Task, clean: list[Samples] | None, sound: SoundCondition, lips: dict[LipCondition, _Encoded | None]
    ) -> tuple[list[list[Any]], list[float | None]]:
        """All cells with one condition of the sound, and the SNR that was measured for each utterance."""
        audio = None
        achieved_db: list[float | None] = [None] * len(task.utterances)
        if clean is not None:
            rendered = [
                self._sounds.render(utterance, samples, sound)
                for utterance, samples in zip(task.utterances, clean, strict=True)
            ]
            achieved_db = [snr_db for _, snr_db in rendered]
            began = time.perf_counter()
            encoded = self._engine.encode_audio([samples for samples, _ in rendered])
            audio = _Encoded(encoded, time.perf_counter() - began)
        cells = []
        if "a" in self._grid.modalities:
            cells.append(self._cell(self._grid.audio_only(sound), task, audio, None))
        if "av" in self._grid.modalities:
            for picture in self._grid.pictures_with(sound):
                cells.append(self._cell(self._grid.audio_visual(sound, picture), task, audio, lips[picture]))
        return cells, achieved_db

    def _cell(self, condition: Condition, task: Task, audio: _Encoded | None, lips: _Encoded | None) -> list[Any]:
        """A cell of a `Unit`. The text is empty if nothing is left to recognise from."""
        count, number = len(task.utterances), self._numbers[condition]
        if audio is None and lips is None:
            return self._described(task, number, [[]] * count, 0.0)
        began = time.perf_counter()
        sound, picture = (None if part is None else part.encoded for part in (audio, lips))
        decoded = self._engine.decode(sound, picture, self._search)
        # Conditions share the encoded sound and lips, but a recogniser on its own would encode for each of them.
        spent_s = time.perf_counter() - began + sum(part.seconds for part in (audio, lips) if part is not None)
        if audio is None and lips is not None:
            # An utterance of the batch may have lost all its lips, so that there is nothing to recognise it from.
            decoded = [words if visible else [] for words, visible in zip(decoded, lips.visible, strict=True)]
        return self._described(task, number, decoded, round(1000 * spent_s / count, 3))

    def _described(self, task: Task, number: int, decoded: list[list[Spoken]], milliseconds: float) -> list[Any]:
        texts = [" ".join(word.word for word in words) for words in decoded]
        if not (self._has_times and any(utterance.words for utterance in task.utterances)):
            return [number, texts, milliseconds]
        # A recogniser may give two written words as one.
        starts_s = [[round(word.start_s, 3) for word in words for _ in word.word.split()] for words in decoded]
        return [number, texts, milliseconds, starts_s]


class _Encoded(NamedTuple):
    """The encoded sound or lips of a batch."""

    encoded: Any
    seconds: float
    """How long encoding took."""
    visible: list[bool] = []
    """Of lips: whether each utterance has any."""


def _pictures_needed(grid: Grid, missing: Sequence[int]) -> list[LipCondition]:
    needed: dict[LipCondition, None] = {}
    for unit in missing:
        if unit == LIPS:
            needed |= dict.fromkeys(grid.visible_pictures)
        elif "av" in grid.modalities:
            needed |= dict.fromkeys(grid.pictures_with(grid.sounds[unit]))
    return list(needed)
