"""The results of an evaluation in memory, and reading them from the results.json that `results_file` writes."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avsr.errors import DataError
from avsr.evaluation.conditions import CLEAN, INTACT, UNUSED, Condition
from avsr.evaluation.scores import CER_NO_SPACES, MIXED, SCORES, WER, Score
from avsr.evaluation.statistics import (
    Array,
    ErrorCounts,
    Rate,
    count_errors,
    count_units,
    error_rate,
    intervals,
    resampling,
)
from avsr.evaluation.word_times import median_and_p90_ms
from avsr.grid import Modality
from avsr.untrusted.files import read_file
from avsr.untrusted.lines import MAX_LIST_BYTES
from avsr.untrusted.settings import parse_json

SCHEMA = 1
JSON_NAME = "results.json"
OTHER_SCORES = (CER_NO_SPACES, MIXED)
COLUMNS = [
    *"modality noise snr_db video seed clips words wer wer_low wer_high cer latency_ms".split(),
    *(f"{score}{end}" for score in OTHER_SCORES for end in ("", "_low", "_high")),
    *"start_error_median_ms start_error_p90_ms".split(),
]

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
    speaker: str = ""
    """Name of the speaker; empty if it is not known, as in results of version 0.1.0."""


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
    start_errors_ms: tuple[tuple[int, ...], ...] = ()
    """Of each utterance, the errors of the starts of the words that are right; empty if times are unknown."""


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

    @property
    def normalizer(self) -> str:
        """Name and version of the normaliser of all texts, such as "plain 1"."""
        recorded = self.run.get("normalizer")
        if recorded is None:  # before normalisers had names, there was one, and it could be off
            return "plain 1" if self.run.get("normalize") else "none 1"
        return f"{recorded['name']} {recorded['version']}"

    @property
    def score_name(self) -> str:
        """The score that leads in tables and comparisons."""
        return str(self.run.get("score", WER))

    @property
    def score(self) -> Score:
        return SCORES[self.score_name]

    @functools.cached_property
    def units_of_each(self) -> Array:
        """Units of each reference by the leading score, such as words, [N]."""
        return self._units_of_each(self.score_name)

    def _units_of_each(self, score: str) -> Array:
        return np.array([count_units(score, u.reference, "").units for u in self.utterances], np.float64)

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

    def errors_of_each(self, conditions: Iterable[Condition], score: str | None = None) -> Array:
        """Errors of each utterance, [N], added up over the conditions. score: None for the leading one."""
        return np.sum([self._errors(condition, score or self.score_name) for condition in conditions], axis=0)

    def _errors(self, condition: Condition, score: str) -> Array:
        pairs = zip(self.utterances, self.cells[condition].hypotheses, strict=True)
        return np.array([count_units(score, u.reference, text).errors for u, text in pairs], np.float64)

    def by_condition(self) -> dict[Condition, list[Condition]]:
        """Condition without a seed -> the conditions of all its seeds."""
        groups: dict[Condition, list[Condition]] = {}
        for condition in self.cells:
            groups.setdefault(condition.without_seed, []).append(condition)
        return groups

    def rates(self, groups: Sequence[Sequence[Condition]], score: str | None = None) -> list[Rate]:
        """Error rates of groups of conditions, each group taken as one, such as all seeds of a condition.

        A condition that is several times in a group weighs as much more. The bootstrap draws utterances, so all
        conditions of an utterance stay together. score: None for the leading one.
        """
        if not groups:
            return []
        score = score or self.score_name
        # An utterance counts with its mean errors over the group, so that all groups have the same number of units.
        errors_CN = np.stack([self.errors_of_each(group, score) / len(group) for group in groups])
        units_N = self._units_of_each(score)
        low_C, high_C = intervals(errors_CN, units_N, self.weights_RN)
        percent_C = 100 * errors_CN.sum(axis=1) / max(1.0, float(units_N.sum()))
        return [Rate(*map(float, values)) for values in zip(percent_C, low_C, high_C, strict=True)]

    def find(self, modality: Modality, noise: str, snr_db: float | None, video: str) -> list[Condition]:
        """The conditions of all seeds; empty if they were not measured."""
        return [c for c in self.cells if (c.modality, c.noise, c.snr_db, c.video) == (modality, noise, snr_db, video)]

    def clean(self, modality: Modality) -> list[Condition]:
        """The conditions of clean sound and intact lips."""
        return self.find(modality, UNUSED if modality == "v" else CLEAN, None, UNUSED if modality == "a" else INTACT)

    def n_wer(self, modality: Modality) -> tuple[Rate, tuple[str, ...]] | None:
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
        return self.rates([[condition for group in groups for condition in group]], WER)[0], noises

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

    def start_errors_ms(self, conditions: Iterable[Condition]) -> Array:
        """Recognised minus true start of each word that is right and has both times, over all these conditions."""
        found = [row for condition in conditions for row in self.cells[condition].start_errors_ms]
        return np.concatenate([np.zeros(0), *(np.array(row, np.float64) for row in found)])

    def table(self) -> list[dict[str, Any]]:
        """The rows of results.csv."""
        words = int(self._units_of_each(WER).sum())
        groups = [[condition] for condition in self.cells]
        rates = {score: self.rates(groups, score) for score in (WER, *OTHER_SCORES)}
        rows = []
        for index, (condition, cell) in enumerate(self.cells.items()):
            row = {**condition._asdict(), "clips": len(self.utterances), "words": words}
            for score, of_all in rates.items():
                rate = of_all[index]
                row |= {score: rate.percent, f"{score}_low": rate.low, f"{score}_high": rate.high}
            row["cer"] = error_rate(
                sum(count.character_errors for count in cell.counts), sum(count.characters for count in cell.counts)
            )
            row["latency_ms"] = float(np.mean(cell.latency_ms))
            found = median_and_p90_ms(self.start_errors_ms([condition]))
            row["start_error_median_ms"], row["start_error_p90_ms"] = found or (None, None)
            rows.append({name: rounded(row[name], 3 if name.endswith("_ms") else 4) for name in COLUMNS})
        return rows


def rounded(value: Any, digits: int) -> Any:
    """The value, rounded if it is a float; numpy's floats become Python's."""
    return round(float(value), digits) if isinstance(value, float) else value


def read_results(path: str | PathLike[str]) -> Results:
    """The results in a folder, or in one results.json. Raises DataError if they are missing or of another schema."""
    path = Path(path)
    if path.is_dir():
        path = path / JSON_NAME
    if not path.exists():
        raise DataError(f"{path}: no results", remedy="make them with: avsr evaluate")
    content = parse_json(read_file(path, MAX_LIST_BYTES, DataError), f"{path}: cannot read the results", DataError)
    try:
        if content["schema"] != SCHEMA:
            raise DataError(f"{path}: results of another version", got=content["schema"], expected=SCHEMA)
        utterances = [
            Spoken(row["id"], row["reference"], row["duration"], _text(row.get("speaker", "")))
            for row in content["utterances"]
        ]
        cells = {}
        for row in content["cells"]:
            condition = Condition(*(row[name] for name in Condition._fields))
            cells[condition] = make_cell(
                utterances,
                row["hypotheses"],
                row["achieved_snr_db"],
                row["latencies_ms"],
                [tuple(errors) for errors in row.get("start_errors_ms", ())],
            )
        results = Results.make(content["run"], utterances, cells)
        # Every table needs these, so a file without them fails here.
        _ = results.name, results.score, results.normalizer
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not the results of an evaluation", got=f"{type(error).__name__}: {error}") from None
    return results


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a speaker is {type(value).__name__}, not a string")
    return value


def make_cell(
    utterances: Sequence[Spoken],
    hypotheses: Sequence[str],
    achieved_snr_db: Sequence[float | None],
    latency_ms: Sequence[float],
    start_errors_ms: Sequence[tuple[int, ...]] = (),
) -> Cell:
    """A cell with its errors counted. All arguments are in the order of the utterances."""
    counts = tuple(count_errors(u.reference, h) for u, h in zip(utterances, hypotheses, strict=True))
    return Cell(tuple(hypotheses), tuple(achieved_snr_db), tuple(latency_ms), counts, tuple(start_errors_ms))
