"""The mixtures of a noise plan as files: prepared corpora like the clean one, for any recogniser.

OUT/plan.jsonl                                what was rendered
OUT/seed1/babble_-5/manifest.jsonl            a manifest of one condition; lips are those of the clean corpus
OUT/seed1/babble_-5/audio/<id>.wav            16 kHz, 16 bit
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import wave
from collections.abc import Callable
from os import PathLike
from pathlib import Path

import numpy as np

from avsr.datasets.manifest import read_manifest, write_manifest, write_wav
from avsr.errors import DataError
from avsr.noise.library import sound_hash
from avsr.noise.plan import NoisePlan, PlanLine, Progress, Renderer, write_plan
from avsr.processes import map_in_order

_LINES_AT_A_TIME = 32


def render_plan(
    plan: NoisePlan, out: str | PathLike[str], *, workers: int = 0, on_progress: Progress | None = None
) -> list[Path]:
    """Write all mixtures of `plan` under the folder `out`. Returns the manifests, one a condition and seed.

    Files that are there and as planned are kept, so an interrupted rendering goes on where it stopped. workers:
    processes; 0 works in this one. Raises DataError where a mixture would not be what was planned.
    """
    out = Path(out)
    utterances = {utterance.id: utterance for utterance in read_manifest(plan.manifest)}
    for line in plan.lines:  # ids and conditions become paths
        for name in (line.utterance, line.condition):
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise DataError(f"{out}: a name of the plan leads out of the folder", got=name)
        if line.utterance not in utterances:
            raise DataError(f"{plan.manifest}: has no utterance {line.utterance}", remedy="use the plan's manifest")
    blocks = [plan.lines[i : i + _LINES_AT_A_TIME] for i in range(0, len(plan.lines), _LINES_AT_A_TIME)]
    done = 0
    for count in map_in_order(functools.partial(_open_renderer, plan, out), blocks, workers):
        done += count
        if on_progress is not None:
            on_progress(done, len(plan.lines))
    root = Path(plan.manifest).parent
    manifests = []
    by_folder = sorted(plan.lines, key=lambda line: str(_folder(line)))
    for folder, lines in itertools.groupby(by_folder, key=_folder):
        rows = []
        for line in lines:
            utterance = utterances[line.utterance]
            video = utterance.video and os.path.relpath(root / utterance.video, out / folder)
            rows.append(dataclasses.replace(utterance, audio=f"audio/{utterance.id}.wav", video=video))
        manifests.append(out / folder / "manifest.jsonl")
        write_manifest(manifests[-1], sorted(rows, key=lambda row: row.id))
    write_plan(out / "plan.jsonl", plan)
    return manifests


def _folder(line: PlanLine) -> Path:
    return Path(f"seed{line.seed}", line.condition)


def _open_renderer(plan: NoisePlan, out: Path) -> Callable[[tuple[PlanLine, ...]], int]:
    return functools.partial(_render, Renderer(plan), out)


def _render(renderer: Renderer, out: Path, lines: tuple[PlanLine, ...]) -> int:
    for line in lines:
        path = out / _folder(line) / "audio" / f"{line.utterance}.wav"
        if not _is_there(path, line):
            write_wav(path, renderer.render(line).samples)
    return len(lines)


def _is_there(path: Path, line: PlanLine) -> bool:
    try:
        with wave.open(str(path), "rb") as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    except (OSError, EOFError, wave.Error):
        return False
    return sound_hash(samples.astype(np.int16)) == line.sha256
