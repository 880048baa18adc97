"""The tables of a report: error rates by level, by kind of noise and by damage to the lips; confusions; speed."""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from avsr.evaluation.compare import CHANCE, test_groups
from avsr.evaluation.conditions import CLEAN, INTACT, LIPS, MODALITY_NAMES, UNUSED, Condition
from avsr.evaluation.figures import Curve, with_whole_lips
from avsr.evaluation.noise_mean import describe_mean, mean_conditions, noise_weights
from avsr.evaluation.results import Results
from avsr.evaluation.scores import SCORES
from avsr.evaluation.statistics import TEST_RESAMPLES, PairedTest, aligned_words, snr_gain_db
from avsr.evaluation.word_times import median_and_p90_ms
from avsr.grid import Modality
from avsr.text import columns as columns_of
from avsr.text import pad

CONFUSIONS = 12
WORTH_AT_DB = (5.0, 0.0)


class Table(NamedTuple):
    """Text in rows and columns."""

    titles: list[str]
    rows: list[list[str]]
    notes: list[str]
    """Lines below the table."""


def markdown(table: Table) -> str:
    """A table and its notes in Markdown, columns aligned for a terminal."""
    rows = [[_escaped(cell) for cell in row] for row in [table.titles, *table.rows]]
    widths = [max(3, *map(columns_of, column)) for column in zip(*rows, strict=True)]
    title, *lines = [f"| {' | '.join(map(pad, row, widths))} |" for row in rows]
    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([title, rule, *lines, "", *table.notes])


def _escaped(cell: str) -> str:
    """The text of a cell so that Markdown shows it: names of speakers come from others."""
    cell = cell.replace("\\", "\\\\").replace("|", "\\|").replace("](", "]\\(")
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", cell)


def level_table(curves: Sequence[Curve]) -> Table:
    """Error rate by level of the noise, mean over the kinds of noise, with intact lips."""
    results = curves[0].results
    weights = noise_weights(results)
    rows = []
    for snr_db in [None, *results.levels_db]:
        groups = [mean_conditions(c.results, c.modality, snr_db, LIPS[c.modality], weights) for c in curves]
        # Lips alone are the same at every level: a row with nothing else is shown once, as clean.
        if snr_db is None or any(g for curve, g in zip(curves, groups, strict=True) if curve.modality != "v"):
            rows.append([_level(snr_db), *map(_cell, curves, groups)])
    n_wers = [(curve, curve.results.n_wer(curve.modality)) for curve in curves]
    if any(found for _, found in n_wers):
        rows.append(["N-WER", *(str(found[0]) if found else "" for _, found in n_wers)])
    title = results.score.title
    notes = [f"{title[0].upper()}{title[1:]} in percent with the 95 % interval of a bootstrap over utterances."]
    if results.noises:
        notes.append(f"In noise: {describe_mean(results)}; intact lips.")
    others = {curve.results.name: curve.results for curve in curves if curve.results is not results}
    for name, other in others.items():
        if results.noises and _plan_hash(other) != _plan_hash(results):
            notes.append(f"{name} was evaluated with other mixtures of the same kinds of noise.")
    over = dict.fromkeys(found[1] for _, found in n_wers if found)
    notes += [f"N-WER: mean over -10, -5, 0, 5, 10 dB and {', '.join(names)}." for names in over]
    return Table(["", *(curve.label for curve in curves)], rows, notes + _worth_of_lips(results))


def _worth_of_lips(results: Results) -> list[str]:
    """Notes on how much louder the noise may be with lips for the same error rate as without them."""
    rates: dict[Modality, dict[float, float]] = {"a": {}, "av": {}}
    for modality, by_level in rates.items():
        for snr_db in results.levels_db:
            group = mean_conditions(results, modality, snr_db, LIPS[modality])
            if group:
                by_level[snr_db] = results.rates([group])[0].percent
    levels_db = sorted(rates["a"].keys() & rates["av"].keys())
    notes = []
    for at_db in WORTH_AT_DB:
        # The gain is read at lower levels, so that one must have been measured.
        if at_db in levels_db and levels_db[0] < at_db:
            audio_only, audio_visual = ([curve[level] for level in levels_db] for curve in (rates["a"], rates["av"]))
            gain_db = snr_gain_db(levels_db, audio_only, audio_visual, at_db)
            # Below the lowest level nothing was measured.
            least = "at least " if gain_db >= at_db - levels_db[0] else ""
            notes.append(
                f"At {at_db:g} dB lips are worth {least}{gain_db:.1f} dB: the SNR may be that much lower with lips for "
                "the same error rate."
            )
    return notes


def noise_table(curves: Sequence[Curve]) -> Table:
    """Error rate by noise and level with intact lips, and whether lips make a difference beyond chance."""
    results = curves[0].results
    keys: list[tuple[str, float | None]] = [(CLEAN, None)]
    keys += [(noise, snr_db) for noise in results.noises for snr_db in results.levels_db]
    own = {curve.modality: curve for curve in curves if curve.results is results}
    tested: dict[tuple[str, float | None], int] = {}
    result: PairedTest | None = None
    if {"a", "av"} <= own.keys():
        pairs = {key: tuple(with_whole_lips(own[m], *key) for m in ("a", "av")) for key in keys}
        pairs = {key: pair for key, pair in pairs.items() if all(pair)}
        if pairs:
            tested = {key: index for index, key in enumerate(pairs)}
            result = test_groups(results, [p[0] for p in pairs.values()], results, [p[1] for p in pairs.values()])
    rows = []
    for key in keys:
        groups = [with_whole_lips(curve, *key) for curve in curves]
        # Noise does not change lips only, so a row with nothing else would repeat the same number.
        if not any(group for curve, group in zip(curves, groups, strict=True) if curve.modality != "v"):
            continue
        cells = list(map(_cell, curves, groups))
        if result is not None:
            index = tested.get(key)
            cells += ["", ""] if index is None else [_fewer(own, key), _p(result.p_family[index])]
        rows.append([key[0] if key[1] is None else f"{key[0]} {key[1]:g} dB", *cells])
    titles = ["", *(curve.label for curve in curves)]
    notes = []
    if result is not None:
        titles += ["fewer errors with lips", "p"]
        notes.append(
            f"p: paired bootstrap over utterances ({TEST_RESAMPLES} resamples), two-sided, for all {len(tested)} rows "
            "together (max-T): the chance that any row would differ so much if none did."
        )
    return Table(titles, rows, notes)


def picture_table(results: Results) -> tuple[Table, list[list[str]]] | None:
    """Error rate by damage to the lips, for lips only and for audio-visual at each level; None without lips.

    The second value has a mark for each cell: "better" or "worse" than audio only beyond chance, else "".
    """
    pictures = results.pictures
    if not pictures:
        return None
    columns: list[tuple[Modality, float | None]] = [("v", None)] if "v" in results.modalities else []
    if "av" in results.modalities:
        levels_db = [None, *results.levels_db]
        columns += [("av", snr_db) for snr_db in levels_db if mean_conditions(results, "av", snr_db, pictures[0])]
    groups = {
        (picture, column): mean_conditions(results, *column, picture) for picture in pictures for column in columns
    }
    sound = {column: mean_conditions(results, "a", column[1], UNUSED) for column in columns}
    compared = [key for key, group in groups.items() if group and key[1][0] == "av" and sound[key[1]]]
    classes = {}
    if compared:
        test = test_groups(results, [sound[key[1]] for key in compared], results, [groups[key] for key in compared])
        for index, key in enumerate(compared):
            if test.p_family[index] <= CHANCE:
                classes[key] = "better" if test.difference[index] < 0 else "worse"
    rows, marks = [], []
    if any(sound[column] for column in columns):
        audio_only = [
            "" if m == "v" or not sound[m, s] else f"{results.rates([sound[m, s]])[0].percent:.1f}" for m, s in columns
        ]
        rows.append([MODALITY_NAMES["a"], *audio_only])
        marks.append([""] * len(rows[0]))
    for picture in pictures:
        cells = [groups[picture, column] for column in columns]
        rows.append([picture, *(f"{results.rates([group])[0].percent:.1f}" if group else "" for group in cells)])
        marks.append(["", *(classes.get((picture, column), "") for column in columns)])
    titles = ["", *(MODALITY_NAMES[m] if m == "v" else f"{MODALITY_NAMES[m]}, {_level(s)}" for m, s in columns)]
    notes = [f"In noise: {describe_mean(results)}; all seeds." if results.noises else "All seeds."]
    if compared:
        notes.append(
            f"Green: better than {MODALITY_NAMES['a']} beyond chance, red: worse "
            f"(paired bootstrap, {CHANCE:.0%} for all {len(compared)} cells together)."
        )
    return Table(titles, rows, notes), marks


def confusions(results: Results, modality: Modality) -> collections.Counter[tuple[str, str]]:
    """How often each word of a reference was recognised as another word, over all conditions with intact lips.

    Keys are pairs (word of the reference, word of the hypothesis); "" in place of a missing word.
    """
    found: collections.Counter[tuple[str, str]] = collections.Counter()
    texts: collections.Counter[tuple[str, str]] = collections.Counter()
    for condition, cell in results.cells.items():
        if condition.modality == modality and condition.video in (UNUSED, INTACT):
            # The same pair of texts comes out under many conditions: it is counted here and aligned once.
            texts.update(zip((u.reference for u in results.utterances), cell.hypotheses, strict=True))
    for (reference, hypothesis), times in texts.items():
        for pair in aligned_words(reference, hypothesis):
            if pair[0] != pair[1]:
                found[pair] += times
    return found


def confusion_table(results: Results, modality: Modality) -> Table:
    """The most frequent confusions of words by one modality."""
    found = confusions(results, modality)
    total = sum(found.values())
    rows = [
        [f"{spoken or '(nothing)'} → {written or '(nothing)'}", str(times), f"{100 * times / total:.1f} %"]
        # Ties go by the alphabet, so that the same results give the same page.
        for (spoken, written), times in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:CONFUSIONS]
    ]
    return Table(["reference → hypothesis", "times", "of all errors"], rows, [f"{total} errors"])


def score_table(curves: Sequence[Curve]) -> Table:
    """All scores in clean sound with intact lips, or in all conditions of a curve without them."""
    rows = []
    for curve in curves:
        results = curve.results
        group = results.clean(curve.modality) or [c for c in results.cells if c.modality == curve.modality]
        rows.append([curve.label, *(str(results.rates([group], score)[0]) for score in SCORES)])
    normalizer, version = curves[0].results.normalizer.split()
    notes = [f"Texts by the normaliser {normalizer}, version {version}, on both sides."]
    return Table(["", *(score.short for score in SCORES.values())], rows, notes)


def time_table(results: Results) -> Table | None:
    """How well the starts of words are placed, by modality and level of the noise; None if times are unknown."""
    rows = []
    for modality in results.modalities:
        for snr_db in [None] if modality == "v" else [None, *results.levels_db]:
            conditions = dict.fromkeys(mean_conditions(results, modality, snr_db, LIPS[modality]))
            errors_ms = results.start_errors_ms(conditions)
            found = median_and_p90_ms(errors_ms)
            if found is not None:
                level = "" if modality == "v" else f", {_level(snr_db)}"
                rows.append([MODALITY_NAMES[modality] + level, str(len(errors_ms)), *(f"{ms:.0f}" for ms in found)])
    note = "Recognised against true start of the words that are right, absolute. Seeds and kinds of noise together."
    return Table(["", "words", "median, ms", "90th percentile, ms"], rows, [note]) if rows else None


def speed_table(results: Results) -> Table:
    """The time that the recogniser took for a clip, by modality."""
    mean_s = sum(spoken.duration for spoken in results.utterances) / max(1, len(results.utterances))
    rows = []
    for modality in results.modalities:
        cells = [cell for condition, cell in results.cells.items() if condition.modality == modality]
        spent_ms = float(np.mean([cell.latency_ms for cell in cells]))
        speed = f"{1000 * mean_s / spent_ms:.0f}" if spent_ms else ""
        rows.append([MODALITY_NAMES[modality], f"{spent_ms:.1f}", speed])
    machine, run = results.run["machine"], results.run
    whole = f" The whole evaluation took {run['seconds']:.0f} s." if run.get("seconds") else ""
    note = (
        f"Time of the recogniser for a clip of {mean_s:.1f} s, from prepared sound and lips to text, in batches of up "
        f"to {run['batch_size']}, on one thread of {machine['processor']}, {machine['workers']} at a time.{whole}"
    )
    return Table(["", "ms a clip", "times real time"], rows, [note])


def _plan_hash(results: Results) -> object:
    return results.run.get("noise", {}).get("plan_sha256")


def _level(snr_db: float | None) -> str:
    return CLEAN if snr_db is None else f"{snr_db:g} dB"


def _cell(curve: Curve, group: Sequence[Condition]) -> str:
    return str(curve.results.rates([group])[0]) if group else ""


def _fewer(own: dict[Modality, Curve], key: tuple[str, float | None]) -> str:
    """By what share of the audio-only errors audio-visual recognition makes fewer errors."""
    audio_only, audio_visual = (own[m].results.rates([with_whole_lips(own[m], *key)])[0].percent for m in ("a", "av"))
    return f"{100 * (audio_only - audio_visual) / audio_only:+.0f} %" if audio_only else "none to lose"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
