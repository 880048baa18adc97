"""The HTML page of a report, with everything inside it: tables, figures, sound and lips of the worst utterances."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from avsr.datasets.manifest import load_samples
from avsr.evaluation.conditions import INTACT, LIPS, MODALITY_NAMES, UNUSED, Condition, LipCondition
from avsr.evaluation.figures import Curve
from avsr.evaluation.job import Evaluation, chosen_utterances
from avsr.evaluation.measure_tables import Measures
from avsr.evaluation.media import lip_strip, mp3
from avsr.evaluation.other_lips import LipSource
from avsr.evaluation.results import Results
from avsr.evaluation.sounds import Sounds
from avsr.evaluation.statistics import aligned_words
from avsr.evaluation.tables import Table, confusion_table, picture_table, score_table, speed_table, time_table
from avsr.grid import Modality

WORST = 8

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d1f23; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; margin: .6rem 0; }
th, td { padding: .18rem .7rem; text-align: right; border-bottom: 1px solid #e4e6ea; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #b9bec6; white-space: normal;
  vertical-align: bottom; }
.better { background: #dff0d8; } .worse { background: #f8d7d3; }
.note, .subject { color: #5b616b; font-size: .85rem; margin: .2rem 0; }
img { max-width: 100%; } .strip { image-rendering: auto; border: 1px solid #ccc; }
.scroll { overflow-x: auto; } .columns { display: flex; gap: 0 1.2rem; flex-wrap: wrap; }
pre { background: #f4f5f7; padding: .7rem; overflow-x: auto; font-size: .8rem; }
.worst { border-top: 1px solid #e4e6ea; padding: .6rem 0; }
.worst td { text-align: center; border: 0; padding: 0 .4rem; }
.wrong { color: #b3261e; font-weight: 600; } audio { height: 2rem; vertical-align: middle; }
"""

_PICTURES = (
    "lost-*: no lips in that third of the time. random-N: N % of the 40 ms slots lost. blur-N: Gaussian of N pixels of "
    "the 96. low-resolution-N: N pixels a side. occluder-N: N % of the picture covered. late-N, early-N: lips N ms "
    "behind or ahead of the sound. frozen-N: the picture stands still for the last N % of the time."
)


class Page(NamedTuple):
    """What a page shows."""

    results: Results
    curves: Sequence[Curve]
    images: dict[str, bytes]
    """PNG files: "wer-snr", "wer-picture" if there are several conditions of the lips, "lips-effect" if measured."""
    by_level: Table
    by_noise: Table
    measures: Measures
    media: Evaluation | None
    """Where the sound and lips of the worst utterances come from; None leaves them out."""
    folder: Path
    """Of the evaluation, with its noise plan."""


def html_page(page: Page) -> str:
    """The whole page."""
    results = page.results
    title = title_of(results)
    parts = [f"<h1>{_e(title)}</h1>", f'<p class="subject">{_e(subject_of(results))}</p>', _html(page.by_level)]
    rate = results.score.title
    parts += [f"<h2>{rate.capitalize()} in noise</h2>", _image(f"{rate} against SNR", page.images["wer-snr"])]
    parts.append('<p class="note">Bands: 95 % intervals, bootstrap over utterances. Intact lips.</p>')
    parts += [_html(page.by_noise), "<h2>All scores</h2>"]
    parts += ["<p>In clean sound with intact lips.</p>", _html(score_table(page.curves))]
    times = time_table(results)
    parts += [] if times is None else ["<h2>Word times</h2>", _html(times)]
    pictures = picture_table(results)
    if pictures is not None:
        parts.append("<h2>Damage to the lips</h2>")
        if "wer-picture" in page.images:
            parts.append(_image(f"{rate} by damage to the lips", page.images["wer-picture"]))
        parts += [_html(*pictures), f'<p class="note">{_e(_PICTURES)}</p>']
    parts += _measure_sections(page)
    parts += ["<h2>Confused words</h2>", _confusion_section(results)]
    parts += ["<h2>Worst utterances</h2>", _worst_section(page)]
    parts += ["<h2>Speed</h2>", _html(speed_table(results)), "<h2>To repeat this</h2>", _repeat_section(page.curves)]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_e(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _measure_sections(page: Page) -> list[str]:
    """How often lips help and hurt, and the people, as far as there is something to compare."""
    measures, parts = page.measures, []
    if measures.lips is not None:
        parts += ["<h2>Lips helped, changed nothing, hurt</h2>", _html(measures.lips)]
        parts.append(_image("Utterances that lips helped, did not change and hurt", page.images["lips-effect"]))
    if measures.lips_by_noise is not None:
        parts += ["<h3>By kind of noise</h3>", _html(measures.lips_by_noise)]
    if measures.lips_by_picture is not None:
        parts += ["<h3>By condition of the lips</h3>", _html(measures.lips_by_picture)]
    if measures.people is not None:
        parts += ["<h2>By person</h2>", _html(measures.people)]
    return parts


def title_of(results: Results) -> str:
    """The recogniser, the corpus and the split."""
    run = results.run
    split = f", split {run['split']}" if run.get("split") else ""
    return f"{results.name} on {Path(run['manifest']).parent.name}{split}"


def subject_of(results: Results) -> str:
    """The size of the evaluation, and when it finished."""
    units = f"{int(results.units_of_each.sum())} {results.score.unit}"
    language = results.run.get("search", {}).get("language")
    seeds = {c.seed for c in results.cells if c.seed is not None}
    minutes = sum(spoken.duration for spoken in results.utterances) / 60
    seeded = f", {len(seeds)} seed{'s' if len(seeds) > 1 else ''}" if seeds else ""
    return (
        f"{len(results.utterances)} clips, {units}, {minutes:.1f} min{f', language {language}' if language else ''}; "
        f"{len(results.cells)} conditions{seeded}; normaliser {results.normalizer.split()[0]}; "
        f"finished {results.run['finished']}."
    )


class Worst(NamedTuple):
    """An utterance with many errors."""

    number: int
    """Its place in `Results.utterances`."""
    condition: Condition


def worst_utterances(results: Results, count: int = WORST) -> list[Worst]:
    """The utterances with the most errors, each once, under the condition with the least noise that has as many.

    They are of the audio-visual conditions if there are any, else of audio only, else of lips only.
    """
    modality: Modality = next(m for m in ("av", "a", "v") if m in results.modalities)
    conditions = [c for c in results.cells if c.modality == modality and c.video in (UNUSED, INTACT)]
    ranked = []
    for place, condition in enumerate(conditions):
        noisiness = (condition.snr_db is not None, -(condition.snr_db or 0.0))  # clean, then from the best SNR down
        for index, errors in enumerate(results.errors_of_each([condition])):
            if errors:
                ranked.append((-errors, noisiness, place, index))
    chosen: dict[int, Worst] = {}
    for _, _, place, index in sorted(ranked):
        if len(chosen) == count:
            break
        chosen.setdefault(index, Worst(index, conditions[place]))
    return list(chosen.values())


def _confusion_section(results: Results) -> str:
    tables = [
        f"<div><h3>{MODALITY_NAMES[modality]}</h3>{_html(confusion_table(results, modality))}</div>"
        for modality in results.modalities
    ]
    note = '<p class="note">Over all conditions of the sound, with intact lips.</p>'
    return f'<div class="columns">{"".join(tables)}</div>{note}'


def _worst_section(page: Page) -> str:
    results = page.results
    sounds = Sounds(page.folder)
    worst = worst_utterances(results)
    if not worst:
        return "<p>No errors.</p>"
    parts = [
        '<p class="note">Each under the condition with the least noise that has as many errors. Upper line: reference; '
        "lower line: hypothesis.</p>"
    ]
    if page.media is None:
        parts.append('<p class="note">Sound and lips were left out of this page.</p>')
    for index, condition in worst:
        spoken, cell = results.utterances[index], results.cells[condition]
        achieved_db = cell.achieved_snr_db[index]
        achieved = f", achieved {achieved_db:.2f} dB" if achieved_db is not None else ""
        seed = "" if condition.seed is None else f", seed {condition.seed}"
        head = f"<b>{_e(spoken.id)}</b> <span class=note>{_e(str(condition) + seed + achieved)}</span>"
        parts.append(f'<div class="worst">{head}{_alignment(spoken.reference, cell.hypotheses[index])}')
        for other in _in_other_modalities(results, condition):
            text = f"{MODALITY_NAMES[other.modality]}: {results.cells[other].hypotheses[index]}"
            parts.append(f'<p class="note">{_e(text)}</p>')
        if page.media is not None:
            parts.append(_media(page.media, sounds, spoken.id, condition))
        parts.append("</div>")
    return "\n".join(parts)


def _in_other_modalities(results: Results, condition: Condition) -> list[Condition]:
    """The conditions of the other modalities with the same sound and intact lips."""
    found = []
    for modality in results.modalities:
        if modality != condition.modality:
            noise, snr_db = (UNUSED, None) if modality == "v" else (condition.noise, condition.snr_db)
            alike = results.find(modality, noise, snr_db, LIPS[modality])
            found += [c for c in alike if c.seed in (None, condition.seed)]
    return found


def _alignment(reference: str, hypothesis: str) -> str:
    pairs = aligned_words(reference, hypothesis)
    rows = []
    for side in (0, 1):
        cells = [f'<td class="{"" if pair[0] == pair[1] else "wrong"}">{_e(pair[side]) or "∅"}</td>' for pair in pairs]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _media(evaluation: Evaluation, sounds: Sounds, utterance_id: str, condition: Condition) -> str:
    """A player of the sound and a strip of the lips of one utterance under a condition."""
    root = Path(evaluation.manifest).parent
    utterance = next(u for u in chosen_utterances(evaluation) if u.id == utterance_id)
    parts = []
    if utterance.audio is not None and condition.modality != "v":
        samples = load_samples(utterance, root)
        # The seed of a condition may belong to its picture, while the sound is clean and without a seed.
        noise, seeds = (condition.noise, condition.snr_db), (None, condition.seed)
        sound = next(s for s in evaluation.grid.sounds if s[:2] == noise and s.seed in seeds)
        mixed, _ = sounds.render(utterance, samples, sound)
        encoded = base64.b64encode(mp3(mixed)).decode()
        parts.append(f'<p><audio controls src="data:audio/mpeg;base64,{encoded}"></audio></p>')
    if utterance.video is not None and condition.modality != "a":
        # The utterances of this section have intact lips, so that nothing is drawn and no seed is needed.
        source = LipSource(Path(evaluation.manifest))
        crops, present = source.under(LipCondition(condition.video), utterance, source.own(utterance))
        if present.any():
            parts.append(_image("lips", lip_strip(crops, present), "jpeg", "strip"))
    return "".join(parts)


def _repeat_section(curves: Sequence[Curve]) -> str:
    parts = []
    # An evaluation has a curve for each modality, but its record is shown once.
    for results in {id(curve.results): curve.results for curve in curves}.values():
        run: dict[str, Any] = {k: v for k, v in results.run.items() if k not in ("sounds", "pictures")}
        lines = [f"$ {run.pop('command', '')}", "", json.dumps(run, indent=1, ensure_ascii=False)]
        parts.append(f"<pre>{_e(chr(10).join(lines))}</pre>")
    parts.append(
        '<p class="note">Every utterance under every condition is in results.json, each condition in results.csv.</p>'
    )
    return "".join(parts)


def _html(table: Table, marks: Sequence[Sequence[str]] | None = None) -> str:
    head = "".join(f"<th>{_e(title)}</th>" for title in table.titles)
    rows = []
    for number, row in enumerate(table.rows):
        classes: Iterable[str] = marks[number] if marks else [""] * len(row)
        rows.append(
            "<tr>"
            + "".join(
                f'<td class="{c}">{_e(t)}</td>' if c else f"<td>{_e(t)}</td>" for t, c in zip(row, classes, strict=True)
            )
            + "</tr>"
        )
    notes = "".join(f'<p class="note">{_e(note)}</p>' for note in table.notes)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>{notes}'
    )


def _image(alt: str, data: bytes, form: str = "png", css: str = "") -> str:
    return (
        f'<p><img class="{css}" alt="{_e(alt)}" src="data:image/{form};base64,{base64.b64encode(data).decode()}"></p>'
    )


def _e(text: str) -> str:
    return html.escape(text)
