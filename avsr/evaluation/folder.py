"""The folder of an evaluation: its settings, and the units that are done.

OUT/settings.json    the evaluation; a folder belongs to one evaluation only
OUT/noise.jsonl      the mixtures: a noise plan
OUT/units/*.jsonl    finished work: a line for each unit of a batch
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import avsr
from avsr.datasets.manifest import Utterance
from avsr.errors import ConfigError, DataError
from avsr.evaluation.conditions import Grid
from avsr.evaluation.job import Evaluation
from avsr.evaluation.normalizers import find_normalizer
from avsr.evaluation.opened import Opened
from avsr.evaluation.sounds import PLAN_NAME, NoiseSource
from avsr.evaluation.work import Unit
from avsr.files import naming, take_lock
from avsr.untrusted.files import read_file, without_path
from avsr.untrusted.lines import MAX_LIST_BYTES
from avsr.untrusted.settings import parse_json

MAX_SETTINGS_BYTES = 16 << 20

SETTINGS_NAME = "settings.json"


def settings_of(evaluation: Evaluation, opened: Opened, utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Everything that the numbers depend on, as JSON has it."""
    grid, normalizer = evaluation.grid, find_normalizer(evaluation.normalizer)
    sources = hashlib.sha256("".join(f"{u.id} {u.sha256}\n" for u in utterances).encode()).hexdigest()
    settings = {
        "system": {"name": opened.name, **opened.record},
        "manifest": evaluation.manifest,
        "manifest_sha256": hashlib.sha256(Path(evaluation.manifest).read_bytes()).hexdigest(),
        "utterances_sha256": sources,
        "split": evaluation.split,
        "clips": len(utterances),
        "modalities": grid.modalities,
        "sounds": grid.sounds,
        "pictures": grid.pictures,
        "noise": _noise_settings(evaluation.noise),
        "normalizer": {"name": evaluation.normalizer, "version": normalizer.version},
        "score": normalizer.score,
        "search": opened.card.settled(evaluation.search)._asdict(),
        "batch_size": evaluation.batch_size,
        "versions": {
            "avsr": avsr.__version__,
            "python": platform.python_version(),
            "torch": _version("torch"),
            "numpy": _version("numpy"),
        },
    }
    # Tuples become lists, so that these settings equal the ones read back from the file.
    return json.loads(json.dumps(settings))


def _version(package: str) -> str:
    """The version of an installed package; empty if it is not installed, as torch is not for every kind of model."""
    module = sys.modules.get(package)
    if module is not None:  # it names the build too, as in 2.11.0+cu130: another build may give other numbers
        return str(module.__version__)
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _noise_settings(noise: NoiseSource) -> dict[str, Any]:
    if noise.plan is None:
        return {key: value for key, value in asdict(noise).items() if key != "plan"}
    try:
        return {"plan_file_sha256": hashlib.sha256(Path(noise.plan).read_bytes()).hexdigest()}
    except OSError as error:
        raise DataError(f"{noise.plan}: cannot read the noise plan", got=error.strerror) from None


def is_ours(output: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder holds this very evaluation; False if it is new. Raises ConfigError if it holds another."""
    path = output / SETTINGS_NAME
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file, not a folder", remedy="give another --output-dir")
    if not os.path.lexists(path):
        found = {p.name for p in output.iterdir() if not p.name.startswith(".")} if output.is_dir() else set()
        # A plan alone is of a run that was killed just then, or of a part that begins right now.
        if found - {PLAN_NAME}:
            raise ConfigError(f"{output} is there already and holds no evaluation", remedy="give another --output-dir")
        return False
    try:
        held = parse_json(read_file(path, MAX_SETTINGS_BYTES, ConfigError), str(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: cannot be read", got=without_path(error, path), remedy=f"delete {output}") from None
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
def own_units(output: Path, name: str) -> Iterator[BinaryIO]:
    """The file that this run appends to. It is locked, and a line that a killed run left half written is cut off."""
    path = output / "units" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # a pipe would block
        raise ConfigError(f"{path}: no regular file", remedy="delete it, or give another --output-dir")
    with naming(path), path.open("a+b") as file:
        if not take_lock(file.fileno()):
            raise ConfigError(f"{path}: another run is writing to it", remedy="wait, or give another --output-dir")
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        yield file


def read_units(output: Path, batches: Sequence[Sequence[int]], grid: Grid) -> dict[tuple[int, int], Unit]:
    """All units in the folder, of all shards."""
    units: dict[tuple[int, int], Unit] = {}
    num_cells = sum(1 for _ in grid.conditions())
    for path in sorted((output / "units").glob("*.jsonl")):
        lines = read_file(path, MAX_LIST_BYTES, DataError).split(b"\n")[
            :-1
        ]  # the rest after the last line break is half a line
        for number, line in enumerate(lines, start=1):
            try:
                unit = json.loads(line)
                key = (unit["batch"], unit["unit"])
                size = len(batches[unit["batch"]])
                fits = len(unit["achieved_snr_db"]) == size
                fits = fits and all(len(c[1]) == size and 0 <= c[0] < num_cells for c in unit["cells"])
            except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
                raise DataError(
                    f"{path}:{number}: damaged", got=error, remedy="delete the file and run again"
                ) from None
            if not fits:
                raise DataError(f"{path}:{number}: not of this evaluation", remedy="delete the file and run again")
            # A shard and a run without shards may both have done a unit; their texts are the same.
            units[key] = unit
    return units
