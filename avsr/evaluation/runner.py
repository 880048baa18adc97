"""Running an evaluation: a grid of conditions over the utterances of a manifest, in processes, interrupted at will.

Work is cut into batches of utterances that depend on the manifest alone. Numbers therefore do not depend on the number
of processes, on shards, on their order or on interruptions: the same utterances meet in the same batches, on one thread
each. `folder.py` describes the files; when all work is done, results.json and results.csv are written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from avsr.datasets.manifest import Utterance
from avsr.errors import AvsrError, ConfigError
from avsr.evaluation.conditions import Grid
from avsr.evaluation.folder import SETTINGS_NAME, is_ours, own_units, read_units, settings_of
from avsr.evaluation.job import Evaluation, chosen_utterances, make_batches
from avsr.evaluation.machine import cores, processor
from avsr.evaluation.normalizers import find_normalizer
from avsr.evaluation.opened import Opened
from avsr.evaluation.other_lips import LipSource
from avsr.evaluation.results import JSON_NAME, Results, Spoken, make_cell, read_results
from avsr.evaluation.results_file import write_results
from avsr.evaluation.sounds import PLAN_NAME, describe_plan, make_plan, save_plan
from avsr.evaluation.word_times import start_errors_ms
from avsr.evaluation.work import BatchWork, Task, Unit, units_of
from avsr.files import write_text
from avsr.noise.plan import NoisePlan, read_plan
from avsr.processes import Crew, one_thread, run

POOL_MIXTURES = 10_000  # fewer are planned before processes have started

Progress = Callable[[float, str], None]
"""Called with the finished share, in [0, 1], and a text about the present step."""

_PLANNING_SHARE = 0.03  # of the time, about


class Outcome(NamedTuple):
    """What a run has done."""

    results: Results | None
    """None for a shard when other shards are not done yet."""
    missing: int
    """Units that are not done."""


def evaluate(
    evaluation: Evaluation,
    output: Path,
    *,
    workers: int | None = None,
    shard: tuple[int, int] = (1, 1),
    command: str = "",
    on_progress: Progress | None = None,
) -> Outcome:
    """Do the missing work in `output`; then, if all is done, write the results.

    workers: processes; None for one a core, or one beside a GPU. Processes are spawned: a script that calls this needs
        the usual `if __name__ == "__main__":`.
    shard: (i, n) does every n-th batch, from the i-th. The shard that ends last writes the results, or a run without
        shards over the same folder does.
    command: the command line, for the record.

    Raises ConfigError if `output` holds another evaluation or is being written to, DataError, ModelError.
    """
    utterances = chosen_utterances(evaluation)
    LipSource(Path(evaluation.manifest)).require(evaluation.grid, utterances)
    batches = make_batches(utterances, evaluation.batch_size)
    started = time.monotonic()
    opened = evaluation.system.open()
    grid = evaluation.grid
    _check_modalities(opened, grid)
    opened.card.require_search(evaluation.search)
    workers = workers or (
        1 if opened.device.startswith("cuda") else cores()
    )  # two on one GPU would wait for each other
    settings = settings_of(evaluation, opened, utterances)
    plan = _plan(evaluation, output, settings, utterances, workers, on_progress)
    index, count = shard
    # Batches are sorted by length, so every n-th batch gives all shards about the same work.
    mine = [number for number in range(len(batches)) if number % count == index - 1]
    with own_units(output, f"shard-{index}-of-{count}") as file:
        done = read_units(output, batches, grid)
        todo = [
            Task(number, [utterances[i] for i in batches[number]], missing)
            for number in mine
            if (missing := [unit for unit in units_of(grid) if (number, unit) not in done])
        ]
        crew = min(workers, len(todo))
        _do(todo, evaluation, output, crew, _Writer(file, sum(task.steps(grid) for task in todo), on_progress))
        done = read_units(output, batches, grid)
    # Units of other shards count too: the shard that ends last writes the results.
    missing_units = len(batches) * len(units_of(grid)) - len(done)
    if missing_units:
        return Outcome(None, missing_units)
    # Nothing was done now, so the record of the run that did the work stays.
    if not todo and (output / JSON_NAME).exists():
        return Outcome(_with_speakers(read_results(output), output, utterances), 0)
    # The time is unknown if earlier runs or other shards did a part of the work.
    in_one_go = sum(len(task.missing) for task in todo) == len(done)
    record = {
        **settings,
        "noise": settings["noise"] if plan is None else describe_plan(plan),
        "command": command,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"platform": platform.platform(), "processor": processor(), "cores": cores(), "workers": crew},
        "seconds": round(time.monotonic() - started, 1) if in_one_go else None,
    }
    results = _merge(evaluation, record, utterances, batches, done)
    write_results(output, results)
    return Outcome(results, 0)


def _check_modalities(opened: Opened, grid: Grid) -> None:
    """Raises ConfigError for a modality that the model does not have."""
    for modality in grid.modalities:
        if modality not in opened.card.modalities:
            possible = ",".join(m for m in grid.modalities if m in opened.card.modalities)
            raise ConfigError(
                f"{opened.name} cannot do modality {modality}",
                expected=", ".join(opened.card.modalities),
                remedy=f"--modalities {possible or 'a'}",
            )


class _Writer:
    """Writes each finished unit, and reports the progress."""

    def __init__(self, file: BinaryIO, total: int, on_progress: Progress | None) -> None:
        self._file, self._total, self._on_progress = file, total, on_progress
        self._steps = 0

    def __call__(self, index: int, unit: Unit | None) -> None:
        """A step of a task is done; unit: None for a step that is no unit of its own."""
        self._steps += 1
        if unit is not None:
            self._file.write(json.dumps(unit, ensure_ascii=False).encode() + b"\n")
            self._file.flush()  # a line is there or it is not: a torn last one is dropped by the next run
        if self._on_progress is not None:
            share = _PLANNING_SHARE + (1 - _PLANNING_SHARE) * self._steps / self._total
            self._on_progress(share, f"{self._steps}/{self._total} steps")


def _do(todo: Sequence[Task], evaluation: Evaluation, output: Path, crew: int, writer: _Writer) -> None:
    """Do all tasks. Raises the error of the first that fails."""
    # One thread each: two would add up in another order, and gain little on tensors so small.
    pool = Crew(workers=crew if crew > 1 else 0, threads=1)
    open_work = functools.partial(_open_work, evaluation, output)
    with one_thread() if pool.workers == 0 else contextlib.nullcontext():
        outcomes = run(open_work, todo, pool, on_report=writer)
        # An error must end the processes now, not when Python collects the iterator.
        with contextlib.closing(outcomes):
            for _, outcome in outcomes:
                if isinstance(outcome, AvsrError):
                    raise outcome


def _open_work(evaluation: Evaluation, output: Path) -> BatchWork:
    return BatchWork(evaluation, output, evaluation.system.open())


def _plan(
    evaluation: Evaluation,
    output: Path,
    settings: dict[str, Any],
    utterances: Sequence[Utterance],
    workers: int,
    on_progress: Progress | None,
) -> NoisePlan | None:
    """The noise plan of the folder, which becomes this evaluation's; nothing is left behind if that fails."""
    if is_ours(output, settings):
        path = output / PLAN_NAME
        return read_plan(path) if path.exists() else None

    def show(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(_PLANNING_SHARE * done / total, f"{done}/{total} utterances planned")

    sounds = evaluation.grid.sounds
    plan = make_plan(
        evaluation.noise,
        evaluation.manifest,
        evaluation.split,
        sounds,
        [utterance.id for utterance in utterances if utterance.audio is not None],
        workers=workers if workers > 1 and len(utterances) * len(sounds) > POOL_MIXTURES else 0,
        on_progress=show,
    )
    save_plan(output, plan)
    # Written after the plan: a folder with settings then always has its plan.
    write_text(output / SETTINGS_NAME, json.dumps(settings, indent=1) + "\n")
    return plan


def _with_speakers(results: Results, output: Path, utterances: Sequence[Utterance]) -> Results:
    """The results with the speakers of the manifest; results without speakers are written again."""
    speakers = {utterance.id: utterance.speaker for utterance in utterances}
    named = [spoken._replace(speaker=speakers.get(spoken.id, "")) for spoken in results.utterances]
    if tuple(named) == results.utterances or any(spoken.speaker for spoken in results.utterances):
        return results
    results = dataclasses.replace(results, utterances=tuple(named))
    write_results(output, results)
    return results


def _merge(
    evaluation: Evaluation,
    run: dict[str, Any],
    utterances: Sequence[Utterance],
    batches: Sequence[Sequence[int]],
    units: dict[tuple[int, int], Unit],
) -> Results:
    """All units put together, utterances in the order of their ids."""
    normalize = find_normalizer(evaluation.normalizer).apply
    order = sorted(range(len(utterances)), key=lambda index: utterances[index].id)
    spoken = [_spoken(utterances[i], normalize) for i in order]
    found: dict[tuple[int, int], _Row] = {}
    for unit in units.values():
        numbers = batches[unit["batch"]]
        for cell in unit["cells"]:
            for place, index in enumerate(numbers):
                found[cell[0], index] = _row(utterances[index], unit, cell, place, normalize)
    cells = {}
    for number, condition in enumerate(evaluation.grid.conditions()):
        texts, achieved_db, latency_ms, start_errors = zip(*(found[number, index] for index in order), strict=True)
        cells[condition] = make_cell(spoken, texts, achieved_db, latency_ms, start_errors if any(start_errors) else ())
    return Results.make(run, spoken, cells)


def _spoken(utterance: Utterance, normalize: Callable[[str], str]) -> Spoken:
    return Spoken(utterance.id, normalize(utterance.text), utterance.duration, utterance.speaker)


class _Row(NamedTuple):
    """One utterance under one condition."""

    text: str
    achieved_snr_db: float | None
    latency_ms: float
    start_errors_ms: tuple[int, ...]


def _row(utterance: Utterance, unit: Unit, cell: list[Any], place: int, normalize: Callable[[str], str]) -> _Row:
    """place: of the utterance in its batch."""
    _, texts, milliseconds, *starts_s = cell
    errors_ms: tuple[int, ...] = ()
    if starts_s:
        spoken = [(word, start_s) for word, start_s, _ in utterance.words]
        written = list(zip(texts[place].split(), starts_s[0][place], strict=True))
        errors_ms = start_errors_ms(spoken, written, normalize)
    return _Row(normalize(texts[place]), unit["achieved_snr_db"][place], milliseconds, errors_ms)
