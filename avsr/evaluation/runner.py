"""Running an evaluation: a grid of conditions over the utterances of a manifest, in processes, interrupted at will.

    OUT/settings.json    what is evaluated; a folder belongs to one evaluation
    OUT/noise.jsonl      the mixtures: a noise plan
    OUT/units/*.jsonl    what is done: a line for the lips, or for one sound, of one batch of utterances
    OUT/results.json, results.csv    when all of it is done

Work is cut into batches of utterances that depend on the manifest alone. Of a batch each sound is encoded once, each
picture once, and every pair fused. Numbers therefore do not depend on the number of processes, on shards, on their
order or on interruptions: the same utterances meet in the same batches, on one thread each.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import multiprocessing
import os
import platform
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

import avsr
from avsr.bench.machine import cores, processor
from avsr.datasets.manifest import Utterance, load_lips, load_samples, read_manifest
from avsr.decoding.search import Search
from avsr.errors import AvsrError, ConfigError, DataError, nearest
from avsr.evaluation.conditions import Condition, Grid, Picture, change_picture
from avsr.evaluation.opened import ModelSource, Opened
from avsr.evaluation.results import JSON_NAME, Results, Spoken, make_cell, read_results, write_results, write_text
from avsr.evaluation.sounds import PLAN_NAME, NoiseSource, Sounds, describe_plan, make_plan, save_plan
from avsr.noise.plan import NoisePlan, read_plan

BATCH_SIZE = 8
BATCH_SECONDS = 120.0  # bounds the memory of long utterances
SETTINGS_NAME = "settings.json"
POOL_MIXTURES = 10_000  # fewer are planned before processes have started
LIPS = -1  # number of the unit that is not about a sound

Progress = Callable[[float, str], None]
"""Called with the share that is done, in [0, 1], and what is being done."""

_PLANNING_SHARE = 0.03  # of the time, about

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated; may be sent to another process.

    manifest: path. clips: so many of the split, evenly spread, None for all. batch_size: utterances at a time.
    normalize: letter case and punctuation do not count.
    """

    manifest: str
    split: str
    system: ModelSource
    grid: Grid
    noise: NoiseSource
    clips: int | None = None
    batch_size: int = BATCH_SIZE
    normalize: bool = False


class Outcome(NamedTuple):
    """What a run has done. results: None for a shard whose other shards are not done yet. missing: units not done."""

    results: Results | None
    missing: int


def evaluate(
    evaluation: Evaluation,
    output: Path,
    *,
    workers: int | None = None,
    shard: tuple[int, int] = (1, 1),
    command: str = "",
    on_progress: Progress | None = None,
) -> Outcome:
    """Do what is missing in `output`, and when nothing is, write the results.

    workers: processes; None for one a core, or one beside a GPU. shard: (i, n) does every n-th batch, from the i-th;
    results come from the shard that ends last, or from a run without shards over the same folder. Processes are
    spawned: a script that calls this needs the usual `if __name__ == "__main__":`.
    Raises ConfigError where `output` holds another evaluation or is being written to, DataError, ModelError.
    """
    utterances = chosen_utterances(evaluation)
    batches = make_batches(utterances, evaluation.batch_size)
    started = time.monotonic()
    system = evaluation.system.open()
    grid = evaluation.grid
    for modality in grid.modalities:
        if modality not in system.card.modalities:
            possible = ",".join(m for m in grid.modalities if m in system.card.modalities)
            raise ConfigError(
                f"{system.name} cannot do modality {modality}",
                expected=", ".join(system.card.modalities),
                remedy=f"--modalities {possible or 'a'}",
            )
    workers = workers or _default_workers(evaluation.system)
    settings = _settings(evaluation, system, utterances)
    plan = _plan(evaluation, output, settings, utterances, workers, on_progress)
    index, count = shard
    mine = [number for number in range(len(batches)) if number % count == index - 1]
    with _own_units(output, f"shard-{index}-of-{count}") as file:
        done = _read_units(output, batches, grid)
        todo = [
            _Task(number, [utterances[i] for i in batches[number]], missing)
            for number in mine
            if (missing := [unit for unit in _units(grid) if (number, unit) not in done])
        ]
        total = sum(task.steps(grid) for task in todo)
        crew = min(workers, len(todo))
        work = _in_processes(evaluation, output, todo, crew) if crew > 1 else _here(evaluation, output, system, todo)
        with contextlib.closing(work):
            for step, unit in enumerate(work, start=1):
                if unit is not None:
                    file.write(json.dumps(unit, ensure_ascii=False).encode() + b"\n")
                    file.flush()  # a line is there or it is not: a torn last one is dropped by the next run
                if on_progress is not None:
                    on_progress(_PLANNING_SHARE + (1 - _PLANNING_SHARE) * step / total, f"{step}/{total} steps")
        done = _read_units(output, batches, grid)
    missing_units = len(batches) * len(_units(grid)) - len(done)
    if missing_units:
        return Outcome(None, missing_units)
    if not todo and (output / JSON_NAME).exists():
        return Outcome(read_results(output), 0)
    in_one_go = sum(len(task.missing) for task in todo) == len(done)
    run = {
        **settings,
        "noise": settings["noise"] if plan is None else describe_plan(plan),
        "command": command,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"platform": platform.platform(), "processor": processor(), "cores": cores(), "workers": crew},
        "seconds": round(time.monotonic() - started, 1) if in_one_go else None,
    }
    results = _merge(evaluation, run, utterances, batches, done)
    write_results(output, results)
    return Outcome(results, 0)


def _plan(
    evaluation: Evaluation,
    output: Path,
    settings: dict[str, Any],
    utterances: Sequence[Utterance],
    workers: int,
    on_progress: Progress | None,
) -> NoisePlan | None:
    """The folder made ours, with its noise plan; nothing is left behind where that cannot be."""
    if _is_ours(output, settings):
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
    write_text(output / SETTINGS_NAME, json.dumps(settings, indent=1) + "\n")
    return plan


def chosen_utterances(evaluation: Evaluation) -> list[Utterance]:
    """The utterances of an evaluation, by length and id: neighbours are padded little.

    Those without sound, and those without lips, stand apart, so that a batch has either for all or for none.
    Raises DataError where there are none.
    """
    everything = read_manifest(evaluation.manifest)
    splits = sorted({utterance.split for utterance in everything})
    utterances = [u for u in everything if u.split == evaluation.split]
    if not utterances:
        close = nearest(evaluation.split, splits)
        raise DataError(
            f"{evaluation.manifest}: no utterance of split {evaluation.split!r}",
            expected=f"one of {', '.join(splits)}" if splits else "utterances",
            remedy=f"did you mean {close}?" if close else None,
        )
    utterances.sort(key=lambda u: u.id)
    if evaluation.clips is not None and evaluation.clips < len(utterances):
        utterances = [utterances[len(utterances) * k // evaluation.clips] for k in range(evaluation.clips)]
    return sorted(utterances, key=lambda u: (u.audio is None, u.video is None, u.duration, u.id))


def make_batches(utterances: Sequence[Utterance], batch_size: int) -> list[list[int]]:
    """Which utterances, by number, are recognised together."""
    batches: list[list[int]] = []
    for number, utterance in enumerate(utterances):
        if batches:
            first = utterances[batches[-1][0]]
            alike = (first.audio is None, first.video is None) == (utterance.audio is None, utterance.video is None)
            seconds = utterance.duration * (len(batches[-1]) + 1)
            if alike and len(batches[-1]) < batch_size and seconds <= BATCH_SECONDS:
                batches[-1].append(number)
                continue
        batches.append([number])
    return batches


class _Task(NamedTuple):
    """A batch and its units that are missing."""

    batch: int
    utterances: list[Utterance]
    missing: list[int]

    def steps(self, grid: Grid) -> int:
        return len(_pictures_needed(grid, self.missing)) + len(self.missing)


Unit = dict[str, Any]
"""What is written of one: batch, unit, achieved_snr_db of each utterance, cells: [number, texts, ms an utterance]."""


def _units(grid: Grid) -> list[int]:
    """The units of a batch: the lips, and each sound by its number."""
    lips = [LIPS] if "v" in grid.modalities else []
    return lips + (list(range(len(grid.sounds))) if {"a", "av"} & set(grid.modalities) else [])


def _pictures_needed(grid: Grid, missing: Sequence[int]) -> list[Picture]:
    needed: dict[Picture, None] = {}
    for unit in missing:
        if unit == LIPS:
            needed |= dict.fromkeys(grid.visible_pictures)
        elif "av" in grid.modalities:
            needed |= dict.fromkeys(grid.pictures_with(grid.sounds[unit]))
    return list(needed)


class _Bench:
    """Works on batches with one open system."""

    def __init__(self, evaluation: Evaluation, output: Path, system: Opened) -> None:
        self._grid, self._engine, self._sounds = evaluation.grid, system.engine, Sounds(output)
        self._root = Path(evaluation.manifest).parent
        self._numbers = {condition: number for number, condition in enumerate(evaluation.grid.conditions())}

    def work(self, task: _Task) -> Iterator[Unit | None]:
        """The units of a batch as they are done; None for a step that is not a unit of its own."""
        grid, engine = self._grid, self._engine
        batch = task.utterances
        clean = None
        if batch[0].audio is not None:
            clean = [load_samples(utterance, self._root) for utterance in batch]
        seen: dict[Picture, _Seen | None] = {}
        heard = engine.encode_audio(clean) if clean is not None and {"a", "av"} & set(grid.modalities) else None
        pictures = _pictures_needed(grid, task.missing)
        lips = [load_lips(utterance, self._root) for utterance in batch] if pictures else []
        for picture in pictures:
            seen[picture] = None
            if batch[0].video is not None:
                changed = [
                    change_picture(picture, crops, present, utterance.id)
                    for utterance, (crops, present) in zip(batch, lips, strict=True)
                ]
                began = time.perf_counter()
                encoded = engine.encode_lips([c for c, _ in changed], [p for _, p in changed], heard)
                spent = time.perf_counter() - began
                seen[picture] = _Seen(encoded, [bool(present.any()) for _, present in changed], spent)
            yield None
        for number in task.missing:
            if number == LIPS:
                cells = [self._cell(grid.seen(p), batch, None, 0.0, seen[p]) for p in grid.visible_pictures]
                yield {"batch": task.batch, "unit": LIPS, "achieved_snr_db": [None] * len(batch), "cells": cells}
                continue
            sound = grid.sounds[number]
            mixed = clean
            achieved_db: list[float | None] = [None] * len(batch)
            if clean is not None:
                rendered = [self._sounds.render(u, samples, sound) for u, samples in zip(batch, clean, strict=True)]
                mixed, achieved_db = [r[0] for r in rendered], [r[1] for r in rendered]
            began = time.perf_counter()
            heard = engine.encode_audio(mixed) if mixed is not None else None
            spent = time.perf_counter() - began
            cells = []
            if "a" in grid.modalities:
                cells.append(self._cell(grid.heard(sound), batch, heard, spent, None))
            if "av" in grid.modalities:
                cells += [
                    self._cell(grid.both(sound, p), batch, heard, spent, seen[p]) for p in grid.pictures_with(sound)
                ]
            yield {"batch": task.batch, "unit": number, "achieved_snr_db": achieved_db, "cells": cells}

    def _cell(
        self, condition: Condition, batch: Sequence[Utterance], heard: Any, heard_s: float, seen: _Seen | None
    ) -> list[Any]:
        """[number, texts, milliseconds an utterance]. Where nothing is left to recognise from, the text is empty."""
        if heard is None and seen is None:
            return [self._numbers[condition], [""] * len(batch), 0.0]
        began = time.perf_counter()
        decoded = self._engine.decode(heard, None if seen is None else seen.encoded, Search())
        texts = [" ".join(word.word for word in words) for words in decoded]
        spent = time.perf_counter() - began + heard_s + (0.0 if seen is None else seen.seconds)
        if heard is None and seen is not None:
            texts = [text if visible else "" for text, visible in zip(texts, seen.visible, strict=True)]
        return [self._numbers[condition], texts, round(1000 * spent / len(batch), 3)]


class _Seen(NamedTuple):
    """Encoded lips of a batch, in which utterances there are any, and the time it took."""

    encoded: Any
    visible: list[bool]
    seconds: float


def _here(
    evaluation: Evaluation, output: Path, system: Opened, tasks: Sequence[_Task]
) -> Generator[Unit | None, None, None]:
    if not tasks:
        return
    with _one_thread():
        bench = _Bench(evaluation, output, system)
        for task in tasks:
            yield from bench.work(task)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Arithmetic on one thread: two would add up in another order, and gain little on tensors so small."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_processes(
    evaluation: Evaluation, output: Path, tasks: Sequence[_Task], workers: int
) -> Generator[Unit | None, None, None]:
    """As `_here`, in several processes; closing it stops them."""
    context = multiprocessing.get_context("spawn")  # forked ones would share CUDA and the state of threads
    waiting = deque(tasks)
    crew: dict[Connection, BaseProcess] = {}
    before = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, evaluation, output), daemon=True)
            if in_main_thread:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is for us, who then stop them
            try:
                process.start()
            finally:
                if in_main_thread:
                    signal.signal(signal.SIGINT, before)
            theirs.close()  # so that its death closes the pipe
            crew[ours] = process
        while crew:
            for connection in wait(list(crew)):
                assert isinstance(connection, Connection)
                try:
                    kind, value = connection.recv()
                    if kind == "idle":
                        connection.send(waiting.popleft() if waiting else None)  # None: it ends, and closes its pipe
                        continue
                except (EOFError, ConnectionError):
                    ended = crew.pop(connection)
                    ended.join(5)
                    if ended.exitcode:
                        raise AvsrError(
                            "a process of the evaluation was killed",
                            got=f"exit code {ended.exitcode}",
                            remedy="run it again, with fewer --workers if memory was short: it goes on from there",
                        ) from None
                    continue
                if kind == "error":
                    raise value
                yield value
    finally:
        for left in crew.values():
            left.terminate()
        for left in crew.values():
            left.join(5)


def _serve(connection: Connection, evaluation: Evaluation, output: Path) -> None:
    """Life of a worker process."""
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        with _one_thread():
            bench = _Bench(evaluation, output, evaluation.system.open())
            while True:
                connection.send(("idle", None))
                task = connection.recv()
                if task is None:
                    return
                for unit in bench.work(task):
                    connection.send(("unit", unit))
    except (EOFError, ConnectionError):
        logger.debug("nobody waits for this process any more")
    except AvsrError as error:
        connection.send(("error", error))
    except Exception as error:
        logger.debug("traceback", exc_info=error)
        connection.send(("error", AvsrError(f"unexpected {type(error).__name__}", got=error)))


def _default_workers(source: ModelSource) -> int:
    import torch

    on_gpu = source.device != "cpu" and torch.cuda.is_available()
    return 1 if on_gpu else cores()  # two processes on one GPU only wait for each other


def _settings(evaluation: Evaluation, system: Opened, utterances: Sequence[Utterance]) -> dict[str, Any]:
    """All that the numbers depend on, as JSON has it."""
    import torch

    grid = evaluation.grid
    sources = hashlib.sha256("".join(f"{u.id} {u.sha256}\n" for u in utterances).encode()).hexdigest()
    settings = {
        "system": {"name": system.name, **system.record},
        "manifest": evaluation.manifest,
        "manifest_sha256": hashlib.sha256(Path(evaluation.manifest).read_bytes()).hexdigest(),
        "utterances_sha256": sources,
        "split": evaluation.split,
        "clips": len(utterances),
        "modalities": grid.modalities,
        "sounds": grid.sounds,
        "pictures": grid.pictures,
        "noise": _noise_settings(evaluation.noise),
        "normalize": evaluation.normalize,
        "batch_size": evaluation.batch_size,
        "versions": {
            "avsr": avsr.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
    return json.loads(json.dumps(settings))


def _noise_settings(noise: NoiseSource) -> dict[str, Any]:
    if noise.plan is None:
        return {key: value for key, value in asdict(noise).items() if key != "plan"}
    try:
        return {"plan_file_sha256": hashlib.sha256(Path(noise.plan).read_bytes()).hexdigest()}
    except OSError as error:
        raise DataError(f"{noise.plan}: cannot read the noise plan", got=error.strerror) from None


def _is_ours(output: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder is one of the same evaluation; False where it is new. Raises ConfigError for any other."""
    path = output / SETTINGS_NAME
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file, not a folder", remedy="give another --output-dir")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = {p.name for p in output.iterdir() if not p.name.startswith(".")} if output.is_dir() else set()
        # A plan alone is of a run that was killed just then, or of a part that begins right now.
        if found - {PLAN_NAME}:
            raise ConfigError(
                f"{output} is there already and holds no evaluation", remedy="give another --output-dir"
            ) from None
        return False
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read", got=error, remedy=f"delete {output}") from None
    if not isinstance(held, dict):
        raise ConfigError(f"{path}: not the settings of an evaluation", remedy=f"delete {output}")
    for key in sorted(settings.keys() | held.keys()):
        if key != "manifest" and settings.get(key) != held.get(key):  # its content counts, not its place
            raise ConfigError(
                f"{output} holds another evaluation: {key}",
                got=_short(settings.get(key)),
                expected=_short(held.get(key)),
                remedy=f"give another --output-dir, or delete {output}",
            )
    return True


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."


@contextlib.contextmanager
def _own_units(output: Path, name: str) -> Iterator[BinaryIO]:
    """The file that this run appends to, ours alone, and without what a killed run left half written."""
    path = output / "units" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"{path}: another run is writing to it", remedy="wait, or give another --output-dir"
            ) from None
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        yield file


def _read_units(output: Path, batches: Sequence[Sequence[int]], grid: Grid) -> dict[tuple[int, int], Unit]:
    """All units in the folder, of all shards."""
    units: dict[tuple[int, int], Unit] = {}
    num_cells = sum(1 for _ in grid.conditions())
    for path in sorted((output / "units").glob("*.jsonl")):
        lines = path.read_bytes().split(b"\n")[:-1]  # what comes after the last line break is half a line
        for number, line in enumerate(lines, start=1):
            try:
                unit = json.loads(line)
                key = (unit["batch"], unit["unit"])
                size = len(batches[unit["batch"]])
                fits = len(unit["achieved_snr_db"]) == size
                fits = fits and all(len(c[1]) == size and 0 <= c[0] < num_cells for c in unit["cells"])
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise DataError(
                    f"{path}:{number}: damaged", got=error, remedy="delete the file and run again"
                ) from None
            if not fits:
                raise DataError(f"{path}:{number}: not of this evaluation", remedy="delete the file and run again")
            units[key] = unit
    return units


def _merge(
    evaluation: Evaluation,
    run: dict[str, Any],
    utterances: Sequence[Utterance],
    batches: Sequence[Sequence[int]],
    units: dict[tuple[int, int], Unit],
) -> Results:
    """All units put together, utterances in the order of their ids."""
    scored = plain_text if evaluation.normalize else str
    order = sorted(range(len(utterances)), key=lambda index: utterances[index].id)
    spoken = [Spoken(utterances[i].id, scored(utterances[i].text), utterances[i].duration) for i in order]
    conditions = list(evaluation.grid.conditions())
    texts = [[""] * len(utterances) for _ in conditions]
    achieved: list[list[float | None]] = [[None] * len(utterances) for _ in conditions]
    latency = [[0.0] * len(utterances) for _ in conditions]
    for unit in units.values():
        numbers = batches[unit["batch"]]
        for cell, hypotheses, milliseconds in unit["cells"]:
            for place, index in enumerate(numbers):
                texts[cell][index] = scored(hypotheses[place])
                achieved[cell][index] = unit["achieved_snr_db"][place]
                latency[cell][index] = milliseconds
    cells = {
        condition: make_cell(
            spoken, [texts[c][i] for i in order], [achieved[c][i] for i in order], [latency[c][i] for i in order]
        )
        for c, condition in enumerate(conditions)
    }
    return Results.make(run, spoken, cells)


def plain_text(text: str) -> str:
    """Lower case; only letters, digits and apostrophes within words remain."""
    kept = "".join(character if character.isalnum() or character in "'’" else " " for character in text.lower())
    return " ".join(word.strip("'’") for word in kept.replace("’", "'").split() if word.strip("'’"))
