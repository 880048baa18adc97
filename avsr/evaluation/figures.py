"""Figures of an evaluation: error rate against level of noise, and error rate by damage to the lips."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from avsr.errors import AvsrError
from avsr.evaluation.conditions import CLEAN, INTACT, MODALITY_NAMES, UNUSED, Condition
from avsr.evaluation.lips_effect import LipsEffect
from avsr.evaluation.noise_mean import mean_conditions
from avsr.evaluation.results import Results
from avsr.evaluation.statistics import Rate
from avsr.grid import Modality

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PNG_DPI = 110
COLOURS: dict[Modality, str] = {"a": "#c2571a", "v": "#5b8c3e", "av": "#2a5d9f"}
NOISY_COLOUR = "#8fb4e3"
EFFECT_COLOURS = {"helped": "#3d7f4c", "unchanged": "#d5d8dd", "hurt": "#b3261e"}
OTHERS = ("#8e4f9e", "#777777", "#b59a00", "#00908a")


class Curve(NamedTuple):
    """One recogniser by one modality."""

    results: Results
    modality: Modality
    label: str
    colour: str


def check_matplotlib() -> None:
    """Raise AvsrError with the remedy if matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise AvsrError(f"the report needs the package {error.name}", remedy="pip install '.[report]'") from None


def curves_of(results: Results, beside: Sequence[Results]) -> list[Curve]:
    """The curves of an evaluation, one a modality, then the curves of the evaluations beside it."""
    curves = [Curve(results, m, MODALITY_NAMES[m], COLOURS[m]) for m in results.modalities]
    others = [(other, modality) for other in beside for modality in other.modalities]
    return curves + [
        Curve(other, modality, f"{other.name}, {MODALITY_NAMES[modality]}", OTHERS[index % len(OTHERS)])
        for index, (other, modality) in enumerate(others)
    ]


def with_whole_lips(curve: Curve, noise: str, snr_db: float | None) -> list[Condition]:
    """The conditions of one point of a curve, all seeds: one noise at one level, with intact lips."""
    if curve.modality == "v":  # noise does not change the lips
        return curve.results.find("v", UNUSED, None, INTACT)
    return curve.results.find(curve.modality, noise, snr_db, UNUSED if curve.modality == "a" else INTACT)


def noise_figure(curves: Sequence[Curve]) -> Figure:
    """A panel for each kind of noise: error rate against SNR with 95 % bands, clean at the right end."""
    from matplotlib.figure import Figure

    results = curves[0].results
    noises, levels_db = results.noises or (CLEAN,), sorted(results.levels_db)
    columns = min(3, len(noises))
    rows = math.ceil(len(noises) / columns)
    figure = Figure(figsize=(3.3 * columns + 0.4, 2.7 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    # Levels stand at equal distances, because clean sound has no place on an axis of dB.
    places = [*range(len(levels_db)), len(levels_db)]
    for panel, noise in zip(panels, noises, strict=False):
        for curve in curves:
            points = []
            for place, snr_db in zip(places, [*levels_db, None], strict=True):
                group = with_whole_lips(curve, CLEAN if snr_db is None else noise, snr_db)
                if group:
                    points.append((place, curve.results.rates([group])[0]))
            _band(panel, points, curve)
        panel.set_title(noise, fontsize=10)
        panel.set_xticks(places, [f"{snr_db:g}" for snr_db in levels_db] + [CLEAN], fontsize=8)
        panel.tick_params(axis="y", labelsize=8)
        panel.grid(alpha=0.25)
    panels[0].set_ylim(bottom=0)
    for panel in panels[len(noises) :]:
        panel.set_axis_off()
    for panel in panels[max(0, len(noises) - columns) : len(noises)]:  # above an empty panel, too, levels are named
        panel.tick_params(axis="x", labelbottom=True)
    figure.supxlabel("SNR, dB", fontsize=9)
    figure.supylabel(f"{results.score.title}, %", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    if len(noises) < len(panels):  # an empty panel has room for the legend
        panels[-1].legend(handles, labels, loc="center", frameon=False, fontsize=9)
    else:
        panels[0].legend(handles, labels, fontsize=8)
    return figure


def picture_figure(results: Results) -> Figure | None:
    """Error rate by damage to the lips: lips only, and audio-visual in clean sound and at a low SNR.

    None if there is only one condition of the lips.
    """
    from matplotlib.figure import Figure

    pictures, levels_db = results.pictures, results.levels_db
    if len(pictures) < 2:
        return None
    # One level of noise is shown: the best one at 0 dB or below, else the worst of all.
    low_db = next((level_db for level_db in levels_db if level_db <= 0), levels_db[-1] if levels_db else None)
    shown: list[tuple[Modality, float | None, str, str]] = [
        ("v", None, COLOURS["v"], ""),
        ("av", None, COLOURS["av"], ", clean"),
    ]
    if low_db is not None:
        shown.append(("av", low_db, NOISY_COLOUR, f", {low_db:g} dB"))
    figure = Figure(figsize=(7.5, 0.24 * len(pictures) + 1.1), layout="constrained")
    panel = figure.subplots()
    for offset, (modality, snr_db, colour, where) in zip((0.25, 0.0, -0.25), shown, strict=False):
        points = []
        for place, picture in enumerate(pictures):
            group = mean_conditions(results, modality, snr_db, picture)
            if group:
                points.append((len(pictures) - 1 - place + offset, results.rates([group])[0]))
        if not points:
            continue
        percent = [rate.percent for _, rate in points]
        # The interval of a resampled rate may lie beside the rate itself; a bar has no negative length.
        spread = [
            [max(0.0, rate.percent - rate.low) for _, rate in points],
            [max(0.0, rate.high - rate.percent) for _, rate in points],
        ]
        label = MODALITY_NAMES[modality] + where
        panel.errorbar(percent, [y for y, _ in points], xerr=spread, fmt="o", ms=4, lw=1, color=colour, label=label)
        sound = mean_conditions(results, "a", snr_db, UNUSED)
        if modality == "av" and sound:
            audio_percent = results.rates([sound])[0].percent
            panel.axvline(audio_percent, color=colour, ls="--", lw=1, label=MODALITY_NAMES["a"] + where)
    panel.set_yticks(range(len(pictures)), pictures[::-1], fontsize=8)
    panel.set_ylim(-0.7, len(pictures) - 0.3)
    panel.set_xlim(left=0)
    panel.set_xlabel(f"{results.score.title}, %", fontsize=9)
    panel.grid(alpha=0.25)
    figure.legend(fontsize=8, loc="outside upper center", ncols=3, frameon=False)
    return figure


def lips_figure(effects: Mapping[str, LipsEffect]) -> Figure:
    """Bars of the shares of utterances that lips helped, did not change and hurt. effects: by sound, from above."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 0.32 * len(effects) + 1.0), layout="constrained")
    panel = figure.subplots()
    places = range(len(effects) - 1, -1, -1)
    shares = [[100 * count / max(1, e.utterances) for count in e.utterance_counts] for e in effects.values()]
    start = [0.0] * len(shares)
    for index, (name, colour) in enumerate(EFFECT_COLOURS.items()):
        widths = [row[index] for row in shares]
        panel.barh(places, widths, left=start, color=colour, label=name, height=0.7)
        start = [left + width for left, width in zip(start, widths, strict=True)]
    panel.set_yticks(places, list(effects), fontsize=8)
    panel.set_xlim(0, 100)
    panel.set_xlabel("utterances, %", fontsize=9)
    figure.legend(fontsize=8, loc="outside upper center", ncols=3, frameon=False)
    return figure


def render(figure: Figure, form: str) -> bytes:
    """A figure as png or pdf; the same bytes each time."""
    data = io.BytesIO()
    # By default the file would hold the version of matplotlib, or the time.
    metadata = {"Software": None} if form == "png" else {"CreationDate": None}
    figure.savefig(data, format=form, dpi=PNG_DPI, metadata=metadata)
    return data.getvalue()


def _band(panel: Axes, points: Sequence[tuple[int, Rate]], curve: Curve) -> None:
    if not points:
        return
    x = [place for place, _ in points]
    percent, low, high = zip(*(rate for _, rate in points), strict=True)
    style = "-" if curve.modality != "v" else "--"
    panel.plot(x, percent, style, marker="o", ms=3, lw=1.5, color=curve.colour, label=curve.label)
    panel.fill_between(x, low, high, color=curve.colour, alpha=0.15, linewidth=0)
