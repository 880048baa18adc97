"""The report of an evaluation: one page that needs nothing else, a Markdown table, figures.

OUT/report.html    curves, tables, confusions, worst utterances, speed, how to repeat it
OUT/report.md      the tables, for a README
OUT/figures/       PNG and PDF
"""

from __future__ import annotations

import base64
import collections
import html
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.datasets.manifest import load_lips, load_samples
from avsr.evaluation.compare import CHANCE, require_same_utterances, test_groups
from avsr.evaluation.conditions import CLEAN, INTACT, UNUSED, Condition, Picture, change_picture
from avsr.evaluation.figures import (
    Curve,
    check_matplotlib,
    curves_of,
    groups_over_noises,
    levels_of,
    noise_figure,
    noises_of,
    picture_figure,
    pictures_of,
    render,
    with_whole_lips,
)
from avsr.evaluation.job import Evaluation, chosen_utterances
from avsr.evaluation.results import Rates, Results, write_bytes, write_text
from avsr.evaluation.sounds import Sounds
from avsr.evaluation.statistics import TEST_RESAMPLES, PairedTest, aligned_words, snr_gain_db
from avsr.grid import SAMPLE_RATE_HZ, Modality

HTML_NAME, MARKDOWN_NAME = "report.html", "report.md"
WORST = 8
CONFUSIONS = 12
_STRIP_PICTURES, _STRIP_PX = 20, 48
_MP3_BITS = 32_000

check_report_packages = check_matplotlib


def write_report(
    folder: Path, results: Results, *, beside: Sequence[Results] = (), media: Evaluation | None = None
) -> str:
    """Write the page, the Markdown and the figures; returns the first table, in Markdown.

    beside: other evaluations of the same utterances, for the same tables and curves. media: where sound and lips of
    the worst utterances come from; None leaves them out of the page. Raises DataError where the others do not fit.
    """
    for other in beside:
        require_same_utterances(results, other)
    curves = curves_of(results, beside)
    figures = {"wer-snr": noise_figure(curves)}
    pictures = picture_figure(results)
    if pictures is not None:
        figures["wer-picture"] = pictures
    images = {}
    for name, figure in figures.items():
        images[name] = render(figure, "png")
        write_bytes(folder / "figures" / f"{name}.png", images[name])
        write_bytes(folder / "figures" / f"{name}.pdf", render(figure, "pdf"))
    by_level, by_noise = level_table(curves), noise_table(curves)
    markdown = [f"# {_title(results)}", "", _subject(results), "", _markdown(by_level), ""]
    markdown += ["By kind of noise, with whole lips:", "", _markdown(by_noise), ""]
    write_text(folder / MARKDOWN_NAME, "\n".join(markdown))
    write_text(folder / HTML_NAME, _page(results, curves, images, by_level, by_noise, media, folder))
    return _markdown(by_level) + "\n"


class Table(NamedTuple):
    """Column titles and rows of text; notes below."""

    titles: list[str]
    rows: list[list[str]]
    notes: list[str]


def level_table(curves: Sequence[Curve]) -> Table:
    """WER by level, the mean over all kinds of noise, with whole lips."""
    results = curves[0].results
    noises = noises_of(results)
    rows = []
    for snr_db in [None, *levels_of(results)]:
        groups = [
            groups_over_noises(c.results, c.modality, noises, snr_db, UNUSED if c.modality == "a" else INTACT)
            for c in curves
        ]
        if any(group for curve, group in zip(curves, groups, strict=True) if curve.modality != "v") or snr_db is None:
            rows.append([CLEAN if snr_db is None else f"{snr_db:g} dB", *map(_cell, curves, groups)])
    n_wers = [(curve, curve.results.n_wer(curve.modality)) for curve in curves]
    if any(found for _, found in n_wers):
        rows.append(["N-WER", *(_percent(found[0]) if found else "" for _, found in n_wers)])
    notes = ["Word error rate in percent with the 95 % interval of a bootstrap over utterances."]
    if noises:
        notes.append(f"In noise: mean of {', '.join(noises)}, whole lips.")
    plans = {curve.results.name: curve.results.run.get("noise", {}).get("plan_sha256") for curve in curves[::-1]}
    strange = [name for name, plan in plans.items() if noises and plan != plans[results.name]]
    notes += [f"{name} was given other mixtures of the same kinds of noise." for name in strange]
    over = dict.fromkeys(found[1] for _, found in n_wers if found)
    notes += [f"N-WER: mean over -10, -5, 0, 5, 10 dB and {', '.join(names)}." for names in over]
    return Table(["", *(curve.label for curve in curves)], rows, notes + _worth_of_lips(results, noises))


def _worth_of_lips(results: Results, noises: Sequence[str]) -> list[str]:
    """By how much louder noise may be with the lips, for as many errors as by the sound alone."""
    rates: dict[Modality, dict[float, float]] = {"a": {}, "av": {}}
    sides: tuple[tuple[Modality, str], ...] = (("a", UNUSED), ("av", INTACT))
    for modality, picture in sides:
        for snr_db in levels_of(results):
            group = groups_over_noises(results, modality, noises, snr_db, picture)
            if group:
                rates[modality][snr_db] = results.rates([group])[0].wer
    levels_db = sorted(rates["a"].keys() & rates["av"].keys())
    notes = []
    for at_db in (5.0, 0.0):
        if at_db in levels_db and levels_db[0] < at_db:
            heard, both = ([curve[level] for level in levels_db] for curve in (rates["a"], rates["av"]))
            gain_db = snr_gain_db(levels_db, heard, both, at_db)
            least = "at least " if gain_db >= at_db - levels_db[0] else ""
            notes.append(f"At {at_db:g} dB lips are worth {least}{gain_db:.1f} dB: the SNR at which AV has A's errors.")
    return notes


def noise_table(curves: Sequence[Curve]) -> Table:
    """WER by noise and level, with the gain of A to AV and whether it is more than chance."""
    results = curves[0].results
    keys: list[tuple[str, float | None]] = [(CLEAN, None)]
    keys += [(noise, snr_db) for noise in noises_of(results) for snr_db in levels_of(results)]
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
        if not any(group for curve, group in zip(curves, groups, strict=True) if curve.modality != "v"):
            continue
        cells = list(map(_cell, curves, groups))
        if result is not None:
            index = tested.get(key)
            cells += ["", ""] if index is None else _gain(results, own, key, result, index)
        rows.append([key[0] if key[1] is None else f"{key[0]} {key[1]:g} dB", *cells])
    titles = ["", *(curve.label for curve in curves)]
    notes = []
    if result is not None:
        titles += ["gain A to AV", "p"]
        notes.append(_p_note(len(tested)))
    return Table(titles, rows, notes)


def picture_table(results: Results) -> tuple[Table, list[list[str]]] | None:
    """WER by what happened to the lips, V and AV by level; and for each cell whether it is better or worse than A."""
    pictures = pictures_of(results)
    if not pictures:
        return None
    noises, levels = noises_of(results), [None, *levels_of(results)]
    columns: list[tuple[Modality, float | None]] = [("v", None)] if "v" in results.modalities else []
    if "av" in results.modalities:
        columns += [
            ("av", snr_db) for snr_db in levels if groups_over_noises(results, "av", noises, snr_db, pictures[0])
        ]
    groups = {
        (picture, column): groups_over_noises(results, column[0], noises, column[1], picture)
        for picture in pictures
        for column in columns
    }
    sound = {column: groups_over_noises(results, "a", noises, column[1], UNUSED) for column in columns}
    compared = [key for key, group in groups.items() if group and key[1][0] == "av" and sound[key[1]]]
    classes = {}
    if compared:
        test = test_groups(results, [sound[key[1]] for key in compared], results, [groups[key] for key in compared])
        for index, key in enumerate(compared):
            if test.p_family[index] <= CHANCE:
                classes[key] = "better" if test.difference[index] < 0 else "worse"
    rows, marks = [], []
    if any(sound[column] for column in columns):
        heard = [
            "" if m == "v" or not sound[m, s] else f"{results.rates([sound[m, s]])[0].wer:.1f}" for m, s in columns
        ]
        rows.append(["sound alone (A)", *heard])
        marks.append([""] * len(rows[0]))
    for picture in pictures:
        cells = [groups[picture, column] for column in columns]
        rows.append([picture, *(f"{results.rates([group])[0].wer:.1f}" if group else "" for group in cells)])
        marks.append(["", *(classes.get((picture, column), "") for column in columns)])
    titles = [""] + ["V" if m == "v" else f"AV {CLEAN if s is None else f'{s:g} dB'}" for m, s in columns]
    notes = ["Mean over all kinds of noise and all seeds."]
    if compared:
        notes.append(
            "Green: better than the sound alone beyond chance, red: worse "
            f"(paired bootstrap, {CHANCE:.0%} for all {len(compared)} cells together)."
        )
    return Table(titles, rows, notes), marks


def confusions(results: Results, modality: Modality) -> collections.Counter[tuple[str, str]]:
    """How often each word was written for another, over all conditions with whole lips; "" is none."""
    found: collections.Counter[tuple[str, str]] = collections.Counter()
    texts: collections.Counter[tuple[str, str]] = collections.Counter()
    for condition, cell in results.cells.items():
        if condition.modality == modality and condition.video in (UNUSED, INTACT):
            texts.update(zip((u.reference for u in results.utterances), cell.hypotheses, strict=True))
    for (reference, hypothesis), times in texts.items():
        for pair in aligned_words(reference, hypothesis):
            if pair[0] != pair[1]:
                found[pair] += times
    return found


class Worst(NamedTuple):
    """An utterance with many errors: its number, and under which condition."""

    number: int
    condition: Condition


def worst_utterances(results: Results, count: int = WORST) -> list[Worst]:
    """Those with the most errors, each once, where it goes wrong with the least noise; by both senses if possible."""
    modality: Modality = next(m for m in ("av", "a", "v") if m in results.modalities)
    conditions = [c for c in results.cells if c.modality == modality and c.video in (UNUSED, INTACT)]
    ranked = []
    for place, condition in enumerate(conditions):
        level = float("inf") if condition.snr_db is None else condition.snr_db
        for index, counts in enumerate(results.cells[condition].counts):
            if counts.errors:
                ranked.append((-counts.errors, -level, place, index))
    chosen: dict[int, Worst] = {}
    for _, _, place, index in sorted(ranked):
        if len(chosen) == count:
            break
        chosen.setdefault(index, Worst(index, conditions[place]))
    return list(chosen.values())


def _cell(curve: Curve, group: Sequence[Condition]) -> str:
    if not group:
        return ""
    return _percent(curve.results.rates([group])[0])


def _percent(rate: Rates) -> str:
    return f"{rate.wer:.1f} [{rate.low:.1f}, {rate.high:.1f}]"


def _gain(
    results: Results, own: dict[Modality, Curve], key: tuple[str, float | None], test: PairedTest, index: int
) -> list[str]:
    heard = results.rates([with_whole_lips(own["a"], *key)])[0].wer
    both = results.rates([with_whole_lips(own["av"], *key)])[0].wer
    gain = f"{100 * (heard - both) / heard:+.0f} %" if heard else "none to gain"
    return [gain, _p(test.p_family[index])]


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _p_note(count: int) -> str:
    return (
        f"p: paired bootstrap over utterances ({TEST_RESAMPLES} resamples), two-sided, for all {count} rows together "
        "(max-T): the chance that any row would differ so much if none did."
    )


def _title(results: Results) -> str:
    run = results.run
    split = f", split {run['split']}" if run.get("split") else ""
    return f"{results.name} on {Path(run['manifest']).parent.name}{split}"


def _subject(results: Results) -> str:
    words = int(results.words_of_each.sum())
    seeds = {c.seed for c in results.cells if c.seed is not None}
    minutes = sum(spoken.duration for spoken in results.utterances) / 60
    seeded = f", {len(seeds)} seed{'s' if len(seeds) > 1 else ''}" if seeds else ""
    return (
        f"{len(results.utterances)} clips, {words} words, {minutes:.1f} min; {len(results.cells)} conditions{seeded}; "
        f"finished {results.run['finished']}."
    )


def _markdown(table: Table) -> str:
    lines = ["| " + " | ".join(table.titles) + " |", "|" + "---|" * len(table.titles)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows]
    return "\n".join([*lines, "", *table.notes])


# -- the page ----------------------------------------------------------------------------------------------------------

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d1f23; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; margin: .6rem 0; }
th, td { padding: .18rem .7rem; text-align: right; border-bottom: 1px solid #e4e6ea; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #b9bec6; }
.better { background: #dff0d8; } .worse { background: #f8d7d3; }
.note, .subject { color: #5b616b; font-size: .85rem; margin: .2rem 0; }
img { max-width: 100%; } .strip { image-rendering: auto; border: 1px solid #ccc; }
.scroll { overflow-x: auto; } .columns { display: flex; gap: 0 1.2rem; flex-wrap: wrap; }
pre { background: #f4f5f7; padding: .7rem; overflow-x: auto; font-size: .8rem; }
.worst { border-top: 1px solid #e4e6ea; padding: .6rem 0; }
.worst td { text-align: center; border: 0; padding: 0 .4rem; }
.wrong { color: #b3261e; font-weight: 600; } audio { height: 2rem; vertical-align: middle; }
"""


def _page(
    results: Results,
    curves: Sequence[Curve],
    images: dict[str, bytes],
    by_level: Table,
    by_noise: Table,
    media: Evaluation | None,
    folder: Path,
) -> str:
    title = _title(results)
    parts = [f"<h1>{_e(title)}</h1>", f'<p class="subject">{_e(_subject(results))}</p>', _html(by_level)]
    parts += ["<h2>Word error rate in noise</h2>", _image("word error rate against SNR", images["wer-snr"])]
    parts.append('<p class="note">Bands: 95 % intervals, bootstrap over utterances. Whole lips.</p>')
    parts.append(_html(by_noise))
    pictures = picture_table(results)
    if pictures is not None:
        parts.append("<h2>What happens to the lips</h2>")
        if "wer-picture" in images:
            parts.append(_image("word error rate by what happened to the lips", images["wer-picture"]))
        parts += [_html(*pictures), f'<p class="note">{_e(_PICTURES)}</p>']
    parts += ["<h2>Words that are confused</h2>", _confusion_section(results)]
    parts += ["<h2>Worst utterances</h2>", _worst_section(results, media, folder)]
    parts += ["<h2>Speed</h2>", _speed_section(results), "<h2>To repeat this</h2>", _repeat_section(curves)]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_e(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


_PICTURES = (
    "lost-*: no lips in that third of the time. random-N: N % of the 40 ms slots lost. blur-N: Gaussian of N pixels of "
    "the 96. low-resolution-N: N pixels a side. occluder-N: N % of the picture covered. late-N, early-N: lips against "
    "sound, ms. frozen-N: the last N % of the time stands still."
)


def _confusion_section(results: Results) -> str:
    tables = []
    for modality in results.modalities:
        found = confusions(results, modality)
        total = sum(found.values())
        rows = [
            [f"{said or '(nothing)'} → {written or '(nothing)'}", str(times), f"{100 * times / total:.1f} %"]
            for (said, written), times in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:CONFUSIONS]
        ]
        table = Table(["said → written", "times", "of all errors"], rows, [f"{total} errors"])
        tables.append(f"<div><h3>{modality.upper()}</h3>{_html(table)}</div>")
    note = '<p class="note">Over all conditions of the sound, with whole lips.</p>'
    return f'<div class="columns">{"".join(tables)}</div>{note}'


def _worst_section(results: Results, media: Evaluation | None, folder: Path) -> str:
    sounds = Sounds(folder)
    worst = worst_utterances(results)
    if not worst:
        return "<p>No errors.</p>"
    parts = ['<p class="note">Each where it goes wrong with the least noise. Above: what was said; below: written.</p>']
    if media is None:
        parts.append('<p class="note">Sound and lips were left out of this page.</p>')
    for index, condition in worst:
        spoken, cell = results.utterances[index], results.cells[condition]
        achieved = cell.achieved_snr_db[index]
        measured = f", measured {achieved:.2f} dB" if achieved is not None else ""
        seed = "" if condition.seed is None else f", seed {condition.seed}"
        head = f"<b>{_e(spoken.id)}</b> <span class=note>{_e(str(condition) + seed + measured)}</span>"
        parts.append(f'<div class="worst">{head}{_alignment(spoken.reference, cell.hypotheses[index])}')
        for modality in results.modalities:
            if modality != condition.modality:
                noise, snr_db = (UNUSED, None) if modality == "v" else (condition.noise, condition.snr_db)
                video = UNUSED if modality == "a" else INTACT
                others = [c for c in results.find(modality, noise, snr_db, video) if c.seed in (None, condition.seed)]
                for other in others:
                    parts.append(
                        f'<p class="note">{modality.upper()}: {_e(results.cells[other].hypotheses[index])}</p>'
                    )
        if media is not None:
            parts.append(_media(media, sounds, spoken.id, condition))
        parts.append("</div>")
    return "\n".join(parts)


def _alignment(reference: str, hypothesis: str) -> str:
    pairs = aligned_words(reference, hypothesis)
    rows = []
    for side in (0, 1):
        cells = [f'<td class="{"" if pair[0] == pair[1] else "wrong"}">{_e(pair[side]) or "∅"}</td>' for pair in pairs]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _media(evaluation: Evaluation, sounds: Sounds, utterance_id: str, condition: Condition) -> str:
    """A player and a strip of lips of one utterance under a condition."""
    root = Path(evaluation.manifest).parent
    utterance = next(u for u in chosen_utterances(evaluation) if u.id == utterance_id)
    parts = []
    if utterance.audio is not None and condition.modality != "v":
        samples = load_samples(utterance, root)
        noise, seeds = (condition.noise, condition.snr_db), (None, condition.seed)
        sound = next(s for s in evaluation.grid.sounds if s[:2] == noise and s.seed in seeds)
        mixed, _ = sounds.render(utterance, samples, sound)
        encoded = base64.b64encode(mp3(mixed)).decode()
        parts.append(f'<p><audio controls src="data:audio/mpeg;base64,{encoded}"></audio></p>')
    if utterance.video is not None and condition.modality != "a":
        crops, present = change_picture(Picture(condition.video), *load_lips(utterance, root), utterance.id)
        if present.any():
            parts.append(_image("lips", lip_strip(crops, present), "jpeg", "strip"))
    return "".join(parts)


def lip_strip(crops_THW: NDArray[np.uint8], present_T: NDArray[np.bool_]) -> bytes:
    """Lips of a clip side by side, evenly spread over its time, as JPEG; black where they are absent."""
    import cv2

    chosen = np.unique(np.linspace(0, len(crops_THW) - 1, _STRIP_PICTURES).round().astype(int))
    shown = [crops_THW[index] * present_T[index] for index in chosen]
    small = [cv2.resize(crop, (_STRIP_PX, _STRIP_PX), interpolation=cv2.INTER_AREA) for crop in shown]
    _, data = cv2.imencode(".jpg", np.hstack(small), [cv2.IMWRITE_JPEG_QUALITY, 70])
    return data.tobytes()


def mp3(samples: NDArray[np.float32]) -> bytes:
    """Samples at 16 kHz in [-1, 1] as MP3, which every browser plays."""
    import av

    data = io.BytesIO()
    pcm = np.clip(np.rint(samples * 32767), -32768, 32767).astype(np.int16)
    with av.open(data, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE_HZ, layout="mono")
        stream.bit_rate = _MP3_BITS
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16p", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return data.getvalue()


def _speed_section(results: Results) -> str:
    mean_s = sum(spoken.duration for spoken in results.utterances) / max(1, len(results.utterances))
    rows = []
    for modality in results.modalities:
        cells = [cell for condition, cell in results.cells.items() if condition.modality == modality]
        spent_ms = float(np.mean([cell.latency_ms for cell in cells]))
        rows.append([modality.upper(), f"{spent_ms:.1f}", f"{1000 * mean_s / spent_ms:.0f}" if spent_ms else ""])
    machine, run = results.run["machine"], results.run
    table = Table(["", "ms a clip", "times real time"], rows, [])
    whole = f" The whole evaluation took {run['seconds']:.0f} s." if run.get("seconds") else ""
    note = (
        f"Time of the recogniser for a clip of {mean_s:.1f} s, from prepared sound and lips to text, in batches of up "
        f"to {run['batch_size']}, on one thread of {machine['processor']}, {machine['workers']} at a time.{whole}"
    )
    return f'{_html(table)}<p class="note">{_e(note)}</p>'


def _repeat_section(curves: Sequence[Curve]) -> str:
    parts = []
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
