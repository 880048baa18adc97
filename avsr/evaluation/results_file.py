"""Writing results.json with every utterance, and results.csv with one row a condition.

results.json, schema 1:

- `run`: the record of the evaluation and how to repeat it
- `utterances`: ids, references and speakers
- `cells`: each condition with its rates and, in the order of `utterances`, the hypothesis of each utterance.
  `avsr.evaluation.scores` has the rates by name; "cer" alone counts spaces as characters. latency_ms is the time the
  recogniser took for an utterance from prepared sound and lips, in batches on one thread. start_errors_ms: recognised
  minus true start of each word that was recognised right, if both times are known
- `lips_effect`: for each audio-visual condition, all seeds together, what `LipsEffect` counts, and the unchanged
- `people`: each speaker with intact lips; `rates` by the score that leads, `lips_effect` as above. noise "mean" is the
  mean over kinds of noise, at one level or, if snr_db is null, at all. Intervals are null where utterances are too few

The last two are worked out from the cells and are not read again. They are empty if audio only or audio-visual is
missing, and if no speaker is known.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avsr.evaluation.conditions import UNUSED, Condition
from avsr.evaluation.lips_effect import LipsEffect, LipsEffects
from avsr.evaluation.people import Person, people_of
from avsr.evaluation.results import COLUMNS, JSON_NAME, OTHER_SCORES, SCHEMA, Results, rounded
from avsr.evaluation.statistics import count_errors, count_units
from avsr.files import write_text

CSV_NAME = "results.csv"
DIGITS = 4


def write_results(folder: Path, results: Results) -> None:
    """Write results.json and results.csv, each whole or not at all."""
    table = results.table()
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in table:
        snr_db = "" if row["snr_db"] is None else f"{row['snr_db']:g}"
        writer.writerow({**row, "snr_db": snr_db})  # None becomes an empty field
    # results.json is written last: a later run takes it as the sign that both files are complete.
    write_text(folder / CSV_NAME, text.getvalue())
    effects = LipsEffects(results)
    lists = {
        "utterances": _utterance_rows(results),
        "cells": [{**row, **_cell_row(results, c)} for row, c in zip(table, results.cells, strict=True)],
        "lips_effect": _lips_rows(effects),
        "people": [_person_row(person, results.score_name) for person in people_of(results, effects)],
    }
    parts = [f'"schema": {SCHEMA}', f'"run": {json.dumps(dict(results.run), ensure_ascii=False)}']
    parts += [f'"{name}": {_one_a_line(rows)}' for name, rows in lists.items()]
    write_text(folder / JSON_NAME, "{\n" + ",\n".join(parts) + "\n}\n")


def _one_a_line(rows: Sequence[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]"


def _utterance_rows(results: Results) -> list[dict[str, Any]]:
    rows = []
    for utterance in results.utterances:
        counts = count_errors(utterance.reference, "")
        units = {f"{score}_units": count_units(score, utterance.reference, "").units for score in OTHER_SCORES}
        rows.append({**utterance._asdict(), "words": counts.words, "characters": counts.characters, **units})
    return rows


def _cell_row(results: Results, condition: Condition) -> dict[str, Any]:
    """What results.json has of a cell for each utterance."""
    cell = results.cells[condition]
    row = {
        "hypotheses": cell.hypotheses,
        "hits": [c.hits for c in cell.counts],
        "substitutions": [c.substitutions for c in cell.counts],
        "deletions": [c.deletions for c in cell.counts],
        "insertions": [c.insertions for c in cell.counts],
        "character_errors": [c.character_errors for c in cell.counts],
        **{f"{score}_errors": results.errors_of_each([condition], score).tolist() for score in OTHER_SCORES},
        "achieved_snr_db": cell.achieved_snr_db,
        "latencies_ms": cell.latency_ms,
    }
    return {**row, "start_errors_ms": cell.start_errors_ms} if cell.start_errors_ms else row


def _lips_rows(effects: LipsEffects) -> list[dict[str, Any]]:
    rows = []
    for condition, group in effects.conditions().items():
        effect = effects.over(group)
        if effect is not None:
            sound = {"noise": condition.noise, "snr_db": condition.snr_db, "video": condition.video}
            rows.append(sound | _effect_row(effect))
    return rows


def _effect_row(effect: LipsEffect) -> dict[str, Any]:
    unchanged = {
        "utterances_unchanged": effect.utterances_unchanged,
        "words_unchanged": effect.words_unchanged,
        "net_points": effect.net_points,
    }
    return {name: rounded(value, DIGITS) for name, value in (effect._asdict() | unchanged).items()}


def _person_row(person: Person, score: str) -> dict[str, Any]:
    rates = []
    for (modality, group), rate in person.rates.items():
        noise, snr_db = (UNUSED, None) if group is None else (group.noise, group.snr_db)
        low, high = (rate.low, rate.high) if person.has_intervals else (None, None)
        values = {score: rate.percent, f"{score}_low": low, f"{score}_high": high}
        values = {name: rounded(value, DIGITS) for name, value in values.items()}
        rates.append({"modality": modality, "noise": noise, "snr_db": snr_db, **values})
    lips = [
        {"noise": group.noise, "snr_db": group.snr_db, **_effect_row(effect)} for group, effect in person.lips.items()
    ]
    sizes = {"speaker": person.name, "utterances": person.utterances, "words": person.words}
    return {**sizes, "rates": rates, "lips_effect": lips}
