"""The results of an evaluation: results.json with every utterance, results.csv with one row a condition.

results.json, schema 1: `run` is the record of the evaluation and how to repeat it; `utterances` are ids and references;
each of `cells` is a condition with its rates and, in the order of `utterances`, the hypothesis of each utterance.
latency_ms is the time the recogniser took for an utterance from prepared sound and lips, in batches on one thread.
"""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avsr.errors import DataError
from avsr.evaluation.conditions import CLEAN, INTACT, UNUSED, Condition
from avsr.evaluation.statistics import Array, ErrorCounts, count_errors, error_rate, intervals, resampling
from avsr.files import write_text
from avsr.grid import Modality

SCHEMA = 1
JSON_NAME, CSV_NAME = "results.json", "results.csv"
COLUMNS = "modality noise snr_db video seed clips words wer wer_low wer_high cer latency_ms".split()

# AV-HuBERT's N-WER (Shi et al., arXiv 2201.01763) is the mean over these noises and levels.
N_WER_NOISES = ("babble", "speech", "music", "noise")
N_WER_SNRS_DB = (-10.0, -5.0, 0.0, 5.0, 10.0)


class Spoken(NamedTuple):
    """One utterance of the test set."""

    id: str
    reference: str
    """The text to score against, after normalisation."""
    duration: float
    """Seconds."""


@dataclass(frozen=True)
class Cell:
    """Every utterance under one condition, in the order of `Results.utterances`."""

    hypotheses: tuple[str, ...]
    """The recognised texts, after normalisation."""
    achieved_snr_db: tuple[float | None, ...]
    """None without noise."""
    latency_ms: tuple[float, ...]
    """The time the recogniser took."""
    counts: tuple[ErrorCounts, ...]


class Rates(NamedTuple):
    """Error rates in percent of one condition, or of several taken as one, such as all seeds."""

    wer: float
    low: float
    """Lower end of the 95 % interval of the word error rate."""
    high: float
    """Upper end of the 95 % interval of the word error rate."""
    cer: float
    """Character error rate."""


@dataclass(frozen=True)
class Results:
    """A whole evaluation."""

    run: Mapping[str, Any]
    """The record of the recogniser, the test set and the settings."""
    utterances: tuple[Spoken, ...]
    cells: Mapping[Condition, Cell]
    """In the order of the grid."""
    weights_RN: Array = field(repr=False, compare=False)
    """Of the bootstrap, R resamples of N utterances; see `resampling`."""

    @classmethod
    def make(cls, run: Mapping[str, Any], utterances: Sequence[Spoken], cells: Mapping[Condition, Cell]) -> Results:
        """The results with their bootstrap drawn."""
        # One draw of resamples for all conditions keeps them paired.
        return cls(run, tuple(utterances), cells, resampling(len(utterances)))

    @property
    def name(self) -> str:
        """Name of the recogniser."""
        return str(self.run["system"]["name"])

    @functools.cached_property
    def words_of_each(self) -> Array:
        """Words of each reference, [N]."""
        return np.array([count_errors(u.reference, "").words for u in self.utterances], np.float64)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """In the order of the grid."""
        return tuple(dict.fromkeys(condition.modality for condition in self.cells))

    @property
    def noises(self) -> tuple[str, ...]:
        """The kinds of noise, in the order of the grid."""
        return tuple(dict.fromkeys(condition.noise for condition in self.cells if condition.snr_db is not None))

    @property
    def levels_db(self) -> tuple[float, ...]:
        """The SNRs, best first."""
        return tuple(sorted({c.snr_db for c in self.cells if c.snr_db is not None}, reverse=True))

    @property
    def pictures(self) -> tuple[str, ...]:
        """The names of the conditions of the lips, in the order of the grid."""
        # By lips only, absent lips are no condition: the audio-visual cells have all of them.
        names = [c.video for c in self.cells if c.modality == "av"] or [c.video for c in self.cells]
        return tuple(name for name in dict.fromkeys(names) if name != UNUSED)

    def errors_of_each(self, conditions: Iterable[Condition]) -> Array:
        """Word errors of each utterance, [N], added up over the conditions."""
        rows = [[count.errors for count in self.cells[condition].counts] for condition in conditions]
        return np.array(rows, np.float64).sum(axis=0)

    def by_condition(self) -> dict[Condition, list[Condition]]:
        """Condition without a seed -> the conditions of all its seeds."""
        groups: dict[Condition, list[Condition]] = {}
        for condition in self.cells:
            groups.setdefault(condition.without_seed, []).append(condition)
        return groups

    def rates(self, groups: Sequence[Sequence[Condition]]) -> list[Rates]:
        """Rates of groups of conditions, each group taken as one.

        A condition that is several times in a group weighs as much more. The bootstrap draws utterances, so all
        conditions of an utterance stay together.
        """
        if not groups:
            return []
        # An utterance counts with its mean errors over the group, so that all groups have the same number of words.
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
        """The conditions of all seeds; empty if they were not measured."""
        return [c for c in self.cells if (c.modality, c.noise, c.snr_db, c.video) == (modality, noise, snr_db, video)]

    def clean(self, modality: Modality) -> list[Condition]:
        """The conditions of clean sound and intact lips."""
        return self.find(modality, UNUSED if modality == "v" else CLEAN, None, UNUSED if modality == "a" else INTACT)

    def n_wer(self, modality: Modality) -> tuple[Rates, tuple[str, ...]] | None:
        """AV-HuBERT's N-WER: the mean over noises and -10 to 10 dB with intact lips; and the noises in it.

        The noises are AV-HuBERT's four if all were measured, else all measured ones. None if a level is missing.
        """
        video = UNUSED if modality == "a" else INTACT
        all_noises = tuple(
            dict.fromkeys(c.noise for c in self.cells if c.modality == modality and c.snr_db is not None)
        )
        noises = N_WER_NOISES if set(N_WER_NOISES) <= set(all_noises) else all_noises
        groups = [self.find(modality, noise, snr_db, video) for noise in noises for snr_db in N_WER_SNRS_DB]
        if not groups or not all(groups):
            return None
        return self.rates([[condition for group in groups for condition in group]])[0], noises

    def rows(self) -> Iterator[dict[str, Any]]:
        """One mapping for each utterance under each condition, with texts and counts."""
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
    # results.json is written last: a later run takes it as the sign that both files are complete.
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
    """The results in a folder, or in one results.json. Raises DataError if they are missing or of another schema."""
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
        # Every table needs this name, so a file without it fails here.
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
    """A cell with its errors counted. All arguments are in the order of the utterances."""
    counts = tuple(count_errors(u.reference, h) for u, h in zip(utterances, hypotheses, strict=True))
    return Cell(tuple(hypotheses), tuple(achieved_snr_db), tuple(latency_ms), counts)
