"""The page of results of a model: word error rates by level and kind of noise, from its evaluations.

    python tools/results_page.py runs/test_seen runs/test_unseen --live runs/test_seen_320 runs/test_unseen_320 \\
        --late-fusion runs/late_seen runs/late_unseen > docs/results.md

Each folder is what `avsr evaluate` wrote: of a whole grid, of chunks of 320 ms without noise, and of
experiments/late_fusion.py as the recogniser. The mean over kinds of noise is the report's,
`avsr.evaluation.noise_mean`; intervals are 95 %, of a bootstrap over utterances.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from avsr.errors import AvsrError
from avsr.evaluation.conditions import INTACT, MODALITY_NAMES, UNUSED, Condition
from avsr.evaluation.measure_tables import measure
from avsr.evaluation.noise_mean import describe_mean, mean_conditions, noise_weights
from avsr.evaluation.results import Results, read_results
from avsr.evaluation.statistics import paired_test, snr_gain_db
from avsr.evaluation.tables import markdown
from avsr.grid import Modality

INTRODUCTION = (
    "In percent, with 95 % intervals of a bootstrap over utterances.",
    "Made by `tools/results_page.py` from the evaluations in docs/evaluation.md.",
)


def group(results: Results, modality: Modality, level_db: float | None, weights: Mapping[str, int]) -> list[Condition]:
    """The conditions of one cell, all seeds, each as often as its noise weighs."""
    return mean_conditions(results, modality, level_db, UNUSED if modality == "a" else INTACT, weights)


def with_interval(results: Results, conditions: Sequence[Condition]) -> str:
    if not conditions:
        return ""
    return str(results.rates([conditions])[0])


def percent(results: Results, conditions: Sequence[Condition]) -> float:
    return results.rates([conditions])[0].percent


def name_of(level_db: float | None) -> str:
    return "clean" if level_db is None else f"{level_db:g} dB"


def by_level(results: Results, late: Results | None) -> list[str]:
    """Error rates by modality, and how many of the audio-only errors lips take away, mean over the kinds of noise."""
    titles = ["", *MODALITY_NAMES.values(), "fewer errors"] + (["late fusion"] if late else [])
    weights = noise_weights(results)
    lines = [row(titles), "|---" * len(titles) + "|"]
    for level_db in (None, *results.levels_db):
        a, v, av = (group(results, m, level_db, weights) for m in ("a", "v", "av"))
        audio_only, audio_visual = percent(results, a), percent(results, av)
        fewer = f"{100 * (1 - audio_visual / audio_only):.0f} %" if audio_only else ""
        cells = [name_of(level_db), *(with_interval(results, side) for side in (a, v, av)), fewer]
        lines.append(row(cells + ([with_interval(late, group(late, "av", level_db, weights))] if late else [])))
    return lines


def by_kind(results: Results) -> list[str]:
    """Audio only and audio-visual in every kind of noise."""
    names = results.noises
    lines = [row([f"{MODALITY_NAMES['a']} / {MODALITY_NAMES['av']}", *names]), "|---" * (len(names) + 1) + "|"]
    for level_db in results.levels_db:
        cells = []
        for noise in names:
            audio_only, audio_visual = (percent(results, group(results, m, level_db, {noise: 1})) for m in ("a", "av"))
            cells.append(f"{audio_only:.1f} / {audio_visual:.1f}")
        lines.append(row([name_of(level_db), *cells]))
    return lines


def worth(results: Results) -> list[str]:
    """How much louder the noise may be with lips for the error rate of audio only."""
    levels_db, weights = sorted(results.levels_db), noise_weights(results)
    audio_only, audio_visual = (
        [percent(results, group(results, m, level_db, weights)) for level_db in levels_db] for m in ("a", "av")
    )
    gains = []
    for at_db in (10.0, 5.0, 0.0):
        if at_db not in levels_db:
            continue
        gain_db = snr_gain_db(levels_db, audio_only, audio_visual, at_db)
        least = "at least " if gain_db >= at_db - levels_db[0] else ""
        gains.append(f"{least}{gain_db:.1f} dB at {at_db:g} dB")
    return [
        f"Lips are worth {', '.join(gains)}: the noise may be that much louder with lips for the errors of audio only."
    ]


def worse(results: Results, than: Modality) -> list[str]:
    """In which cells audio-visual has more errors than one side alone, and in which of them beyond chance."""
    cells = [("clean", None), *((noise, level_db) for noise in results.noises for level_db in results.levels_db)]
    named = [noise if level_db is None else f"{noise} {name_of(level_db)}" for noise, level_db in cells]
    both = [group(results, "av", level_db, {noise: 1}) for noise, level_db in cells]
    alone = [group(results, than, level_db, {noise: 1}) for noise, level_db in cells]
    return [compared(results, named, alone, both, "cells", MODALITY_NAMES[than])]


def worse_by_damage(results: Results) -> list[str]:
    """In which cells of changed lips audio-visual has more errors than audio only: each kind of noise and level."""
    pictures = sorted({c.video for c in results.cells if c.modality == "av" and c.video != INTACT})
    sounds = [("clean", None), *((noise, level_db) for noise in results.noises for level_db in results.levels_db)]
    named, alone, both = [], [], []
    for picture in pictures:
        for noise, level_db in sounds:
            changed = mean_conditions(results, "av", level_db, picture, {noise: 1})
            if changed:
                named.append(f"{picture}, {noise}" + ("" if level_db is None else f" {name_of(level_db)}"))
                alone.append(group(results, "a", level_db, {noise: 1}))
                both.append(changed)
    if not both:
        return []
    return [compared(results, named, alone, both, "cells of lost, covered, blurred and late lips", MODALITY_NAMES["a"])]


def compared(
    results: Results,
    named: Sequence[str],
    alone: Sequence[Sequence[Condition]],
    both: Sequence[Sequence[Condition]],
    cells: str,
    than: str,
) -> str:
    """One sentence: how often `both` has more errors than `alone`, and where beyond chance."""
    errors = [np.stack([results.errors_of_each(g) / len(g) for g in side]) for side in (alone, both)]
    test = paired_test(errors[0], errors[1], results.units_of_each, results.weights_RN)
    more = [i for i in range(len(named)) if test.difference[i] > 0]
    if not more:
        return f"In none of the {len(named)} {cells} audio-visual has more errors than {than}."
    beyond = [
        f"{named[i]} (+{test.difference[i]:.1f} [{test.low[i]:.1f}, {test.high[i]:.1f}])"
        for i in more
        if test.low[i] > 0
    ]
    return (
        f"In {len(more)} of the {len(named)} {cells} audio-visual has more errors than {than}, in"
        f" {len(beyond)} of them beyond the interval of the difference{': ' if beyond else ''}{', '.join(beyond)}."
    )


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def section(results: Results, live: Results | None, late: Results | None) -> list[str]:
    split, words = results.run["split"], int(results.units_of_each.sum())
    seeds = len({condition.seed for condition in results.cells if condition.snr_db is not None})
    lines = [f"## {split}", "", f"{len(results.utterances)} clips, {words} words, {seeds} seeds of noise."]
    lines += [f"In noise: {describe_mean(results)}.", ""]
    lines += [*by_level(results, late), "", *worth(results), *worse(results, "a"), *worse(results, "v")]
    lines += [*worse_by_damage(results), ""]
    lines += ["By kind of noise:", "", *by_kind(results), ""]
    measures = measure(results)
    for title, table in (("Lips helped, changed nothing, hurt", measures.lips), ("By person", measures.people)):
        lines += [] if table is None else [f"{title}:", "", markdown(table), ""]
    if live is not None:
        sides = ", ".join(f"{MODALITY_NAMES[m]} {with_interval(live, live.clean(m))}" for m in live.modalities)
        lines += [f"Live, in chunks of 320 ms, clean: {sides}.", ""]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", type=Path)
    parser.add_argument("--live", nargs="+", type=Path, default=[], help="the same in chunks, in the same order")
    parser.add_argument("--late-fusion", nargs="+", type=Path, default=[], help="late fusion, in the same order")
    arguments = parser.parse_args()
    lines: list[str] = []
    for index, folder in enumerate(arguments.evaluations):
        results = read_results(folder)
        beside = [
            read_results(of[index]) if index < len(of) else None for of in (arguments.live, arguments.late_fusion)
        ]
        if not lines:
            lines += [f"# Word error rates of {results.name}", "", *INTRODUCTION, ""]
        lines += section(results, *beside)
    print("\n".join(lines).rstrip())


if __name__ == "__main__":
    try:
        main()
    except AvsrError as error:
        sys.exit(f"results_page.py: {error}")
