"""What an evaluation found: results.json with every utterance, results.csv with one row a condition.

results.json, schema 1: `run` says what was evaluated and how to repeat it; `utterances` are ids and references, once;
each of `cells` is a condition with its rates and, in the order of `utterances`, what came out for every one of them.
latency_ms is the time the recogniser took for an utterance from prepared sound and lips, in batches on one thread.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avsr.errors import DataError
from avsr.evaluation.conditions import CLEAN, INTACT, UNUSED, Condition
from avsr.evaluation.statistics import Array, ErrorCounts, count_errors, error_rate, intervals, resampling
from avsr.grid import Modality

SCHEMA = 1
JSON_NAME, CSV_NAME = "results.json", "results.csv"
COLUMNS = "modality noise snr_db video seed clips words wer wer_low wer_high cer latency_ms".split()

# What AV-HuBERT calls N-WER (Shi et al., arXiv 2201.01763): the mean over these noises and levels.
N_WER_NOISES = ("babble", "speech", "music", "noise")
N_WER_SNRS_DB = (-10.0, -5.0, 0.0, 5.0, 10.0)


class Spoken(NamedTuple):
    """One utterance of the test set. reference: as it is scored. duration: seconds."""

    id: str
    reference: str
    duration: float


@dataclass(frozen=True)
class Cell:
    """Every utterance under one condition, in the order of `Results.utterances`.

    hypotheses: as they are scored. achieved_snr_db: None where there is no noise. latency_ms: time the recogniser took.
    """

    hypotheses: tuple[str, ...]
    achieved_snr_db: tuple[float | None, ...]
    latency_ms: tuple[float, ...]
    counts: tuple[ErrorCounts, ...]


class Rates(NamedTuple):
    """Error rates in percent of one condition, or of several taken together (seeds, say)."""

    wer: float
    low: float
    high: float
    cer: float


@dataclass(frozen=True)
class Results:
    """A whole evaluation. run: how it was made; cells: in the order of the grid."""

    run: Mapping[str, Any]
    utterances: tuple[Spoken, ...]
    cells: Mapping[Condition, Cell]
    weights_RN: Array = field(repr=False, compare=False)

    @classmethod
    def make(cls, run: Mapping[str, Any], utterances: Sequence[Spoken], cells: Mapping[Condition, Cell]) -> Results:
        return cls(run, tuple(utterances), cells, resampling(len(utterances)))

    @property
    def name(self) -> str:
        """Of the recogniser."""
        return str(self.run["system"]["name"])

    @functools.cached_property
    def words_of_each(self) -> Array:
        """Words of each reference, [N]."""
        return np.array([count_errors(u.reference, "").words for u in self.utterances], np.float64)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return tuple(dict.fromkeys(condition.modality for condition in self.cells))

    def errors_of_each(self, conditions: Iterable[Condition]) -> Array:
        """Word errors of each utterance, added up over conditions."""
        rows = [[count.errors for count in self.cells[condition].counts] for condition in conditions]
        return np.array(rows, np.float64).sum(axis=0)

    def by_condition(self) -> dict[Condition, list[Condition]]:
        """The conditions that differ in nothing but their seed, by what they share."""
        groups: dict[Condition, list[Condition]] = {}
        for condition in self.cells:
            groups.setdefault(condition.without_seed, []).append(condition)
        return groups

    def rates(self, groups: Sequence[Sequence[Condition]]) -> list[Rates]:
        """Rates of groups of conditions, each taken as one; in intervals the seeds of an utterance stay together."""
        if not groups:
            return []
        # Mean errors of an utterance over the group, so that all groups have the same words.
        errors_CN = np.stack([self.errors_of_each(group) / len(group) for group in groups])
        words_N = self.words_of_each
        low_C, high_C = intervals(errors_CN, words_N, self.weights_RN)
        rates = []
        for group, low, high in zip(groups, low_C, high_C, strict=True):
            counts = [count for condition in group for count in self.cells[condition].counts]
            wer = error_rate(sum(c.errors for c in counts), sum(c.words for c in counts))
            cer = error_rate(sum(c.character_errors for c in counts), sum(c.characters for c in counts))
            rates.append(Rates(wer, float(low), float(high), cer))
        return rates

    def find(self, modality: Modality, noise: str, snr_db: float | None, video: str) -> list[Condition]:
        """The conditions of all seeds; none where that was not measured."""
        return [c for c in self.cells if (c.modality, c.noise, c.snr_db, c.video) == (modality, noise, snr_db, video)]

    def clean(self, modality: Modality) -> list[Condition]:
        """Those without noise and with whole lips."""
        return self.find(modality, UNUSED if modality == "v" else CLEAN, None, UNUSED if modality == "a" else INTACT)

    def n_wer(self, modality: Modality) -> tuple[Rates, tuple[str, ...]] | None:
        """The mean over noises and -10 to 10 dB with whole lips, as AV-HuBERT's N-WER, and the noises it is over.

        AV-HuBERT's own noises where all four are there, else all that there are. None where a level is missing.
        """
        video = UNUSED if modality == "a" else INTACT
        there = tuple(dict.fromkeys(c.noise for c in self.cells if c.modality == modality and c.snr_db is not None))
        noises = N_WER_NOISES if set(N_WER_NOISES) <= set(there) else there
        groups = [self.find(modality, noise, snr_db, video) for noise in noises for snr_db in N_WER_SNRS_DB]
        if not groups or not all(groups):
            return None
        return self.rates([[condition for group in groups for condition in group]])[0], noises

    def rows(self) -> Iterator[dict[str, Any]]:
        """One mapping an utterance and condition: everything that is known of it."""
        for condition, cell in self.cells.items():
            for index, spoken in enumerate(self.utterances):
                counts = cell.counts[index]
                yield {
                    **condition._asdict(),
                    "id": spoken.id,
                    "reference": spoken.reference,
                    "hypothesis": cell.hypotheses[index],
                    "hits": counts.hits,
                    "substitutions": counts.substitutions,
                    "deletions": counts.deletions,
                    "insertions": counts.insertions,
                    "achieved_snr_db": cell.achieved_snr_db[index],
                    "latency_ms": cell.latency_ms[index],
                }

    def table(self) -> list[dict[str, Any]]:
        """The rows of results.csv."""
        words = int(self.words_of_each.sum())
        rates = self.rates([[condition] for condition in self.cells])
        return [
            {
                **condition._asdict(),
                "clips": len(self.utterances),
                "words": words,
                "wer": round(rate.wer, 4),
                "wer_low": round(rate.low, 4),
                "wer_high": round(rate.high, 4),
                "cer": round(rate.cer, 4),
                "latency_ms": round(float(np.mean(cell.latency_ms)), 3),
            }
            for (condition, cell), rate in zip(self.cells.items(), rates, strict=True)
        ]


def write_results(folder: Path, results: Results) -> None:
    """Write results.json and results.csv, each whole or not at all."""
    table = results.table()
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in table:
        snr_db = "" if row["snr_db"] is None else f"{row['snr_db']:g}"
        writer.writerow({**row, "snr_db": snr_db, "seed": "" if row["seed"] is None else row["seed"]})
    write_text(folder / CSV_NAME, text.getvalue())

    spoken = []
    for utterance in results.utterances:
        counts = count_errors(utterance.reference, "")
        spoken.append({**utterance._asdict(), "words": counts.words, "characters": counts.characters})
    lines = ["{", f'"schema": {SCHEMA},', f'"run": {json.dumps(dict(results.run), ensure_ascii=False)},']
    lines += ['"utterances": [', ",\n".join(json.dumps(row, ensure_ascii=False) for row in spoken), "],", '"cells": [']
    rows = []
    for row, cell in zip(table, results.cells.values(), strict=True):
        found = {
            "hypotheses": cell.hypotheses,
            "hits": [c.hits for c in cell.counts],
            "substitutions": [c.substitutions for c in cell.counts],
            "deletions": [c.deletions for c in cell.counts],
            "insertions": [c.insertions for c in cell.counts],
            "character_errors": [c.character_errors for c in cell.counts],
            "achieved_snr_db": cell.achieved_snr_db,
            "latencies_ms": cell.latency_ms,
        }
        rows.append(json.dumps({**row, **found}, ensure_ascii=False))
    lines += [",\n".join(rows), "]", "}", ""]
    write_text(folder / JSON_NAME, "\n".join(lines))


def read_results(path: str | PathLike[str]) -> Results:
    """The results in a folder, or of one results.json. Raises DataError where there are none, or of another schema."""
    path = Path(path)
    if path.is_dir():
        path = path / JSON_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no results", remedy="make them with: avsr evaluate") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot read the results", got=error) from None
    try:
        if content["schema"] != SCHEMA:
            raise DataError(f"{path}: results of another version", got=content["schema"], expected=SCHEMA)
        utterances = [Spoken(row["id"], row["reference"], row["duration"]) for row in content["utterances"]]
        cells = {}
        for row in content["cells"]:
            condition = Condition(*(row[name] for name in Condition._fields))
            cells[condition] = make_cell(utterances, row["hypotheses"], row["achieved_snr_db"], row["latencies_ms"])
        content["run"]["system"]["name"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not the results of an evaluation", got=f"{type(error).__name__}: {error}") from None
    return Results.make(content["run"], utterances, cells)


def make_cell(
    utterances: Sequence[Spoken],
    hypotheses: Sequence[str],
    achieved_snr_db: Sequence[float | None],
    latency_ms: Sequence[float],
) -> Cell:
    """A cell with its errors counted."""
    counts = tuple(count_errors(u.reference, h) for u, h in zip(utterances, hypotheses, strict=True))
    return Cell(tuple(hypotheses), tuple(achieved_snr_db), tuple(latency_ms), counts)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Whole or not at all, also where several machines write the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = own_temporary_path(path)
    temporary.write_bytes(data)
    os.replace(temporary, path)


def own_temporary_path(path: Path) -> Path:
    """Where to write what is to become `path`, another one for each process of each machine."""
    return path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.tmp")
