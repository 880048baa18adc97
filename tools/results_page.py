"""The page of results of a model: word error rates by level and kind of noise, from its evaluations.

    python tools/results_page.py runs/test_seen runs/test_unseen --live runs/test_seen_320 runs/test_unseen_320 \\
        --late-fusion runs/late_seen runs/late_unseen > docs/results.md

Each folder is what `avsr evaluate` wrote: of a whole grid, of chunks of 320 ms without noise, and of
experiments/late_fusion.py as the recogniser. "Noise" is the mean of babble, environment noise and of white and pink
together, each a third; intervals are 95 %, of a bootstrap over utterances.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avsr.errors import AvsrError
from avsr.evaluation.conditions import INTACT, UNUSED, Condition
from avsr.evaluation.results import Results, read_results
from avsr.evaluation.statistics import paired_test, snr_gain_db
from avsr.grid import Modality

NOISES = {"babble": 2, "environment": 2, "white": 1, "pink": 1}  # how often each counts in the mean
INTRODUCTION = (
    "In percent, with 95 % intervals of a bootstrap over utterances. A: by the sound, V: by the lips, AV: by both.",
    "Noise is the mean of babble, environment noise, and white and pink noise together.",
    "Made by `tools/results_page.py` from the evaluations in README.md.",
)


def group(results: Results, modality: Modality, level_db: float | None, noises: Sequence[str]) -> list[Condition]:
    """The conditions of one cell, all seeds."""
    if modality == "v" or level_db is None:
        return results.clean(modality)
    video = UNUSED if modality == "a" else INTACT
    return [
        condition
        for noise in noises
        for condition in results.find(modality, noise, level_db, video) * NOISES.get(noise, 1)
    ]


def with_interval(results: Results, conditions: Sequence[Condition]) -> str:
    if not conditions:
        return ""
    rate = results.rates([conditions])[0]
    return f"{rate.wer:.1f} [{rate.low:.1f}, {rate.high:.1f}]"


def percent(results: Results, conditions: Sequence[Condition]) -> float:
    return results.rates([conditions])[0].wer


def kinds(results: Results) -> list[str]:
    """The noises that there are."""
    return list(dict.fromkeys(condition.noise for condition in results.cells if condition.snr_db is not None))


def mean_of(results: Results) -> list[str]:
    """The noises that the mean is over."""
    there = kinds(results)
    return [noise for noise in NOISES if noise in there] or there


def levels(results: Results) -> list[float]:
    """From the least noise to the most."""
    return sorted({c.snr_db for c in results.cells if c.snr_db is not None}, reverse=True)


def name_of(level_db: float | None) -> str:
    return "clean" if level_db is None else f"{level_db:g} dB"


def by_level(results: Results, late: Results | None) -> list[str]:
    """A, V, AV and how many of A's errors lips take away, over all kinds of noise."""
    titles = ["", "A", "V", "AV", "fewer errors"] + (["late fusion"] if late else [])
    lines = [row(titles), "|---" * len(titles) + "|"]
    for level_db in (None, *levels(results)):
        a, v, av = (group(results, m, level_db, mean_of(results)) for m in ("a", "v", "av"))
        heard, both = percent(results, a), percent(results, av)
        fewer = f"{100 * (1 - both / heard):.0f} %" if heard else ""
        cells = [name_of(level_db), *(with_interval(results, side) for side in (a, v, av)), fewer]
        lines.append(
            row(cells + ([with_interval(late, group(late, "av", level_db, mean_of(results)))] if late else []))
        )
    return lines


def by_kind(results: Results) -> list[str]:
    """A and AV of every kind of noise."""
    names = kinds(results)
    lines = [row(["A / AV", *names]), "|---" * (len(names) + 1) + "|"]
    for level_db in levels(results):
        cells = []
        for noise in names:
            heard, both = (percent(results, group(results, m, level_db, [noise])) for m in ("a", "av"))
            cells.append(f"{heard:.1f} / {both:.1f}")
        lines.append(row([name_of(level_db), *cells]))
    return lines


def worth(results: Results) -> list[str]:
    """How much more noise AV stands at A's error rate."""
    levels_db = sorted(levels(results))
    heard, both = (
        [percent(results, group(results, m, level_db, mean_of(results))) for level_db in levels_db] for m in ("a", "av")
    )
    said = []
    for at_db in (10.0, 5.0, 0.0):
        if at_db not in levels_db:
            continue
        gain_db = snr_gain_db(levels_db, heard, both, at_db)
        least = "at least " if gain_db >= at_db - levels_db[0] else ""
        said.append(f"{least}{gain_db:.1f} dB at {at_db:g} dB")
    return [
        f"Lips are worth {', '.join(said)}: by so much louder noise may be for as many errors as by the sound alone."
    ]


def worse(results: Results, than: Modality) -> list[str]:
    """The cells in which both have more errors than one side alone, and where that is more than chance."""
    cells = [("clean", None), *((noise, level_db) for noise in kinds(results) for level_db in levels(results))]
    both = [group(results, "av", level_db, [noise]) for noise, level_db in cells]
    alone = [group(results, than, level_db, [noise]) for noise, level_db in cells]
    errors = [np.stack([results.errors_of_each(g) / len(g) for g in side]) for side in (alone, both)]
    test = paired_test(errors[0], errors[1], results.words_of_each, results.weights_RN)
    more = [i for i in range(len(cells)) if test.difference[i] > 0]
    beyond = [i for i in more if test.low[i] > 0]

    def named(index: int) -> str:
        noise, level_db = cells[index]
        where = noise if level_db is None else f"{noise} {name_of(level_db)}"
        return f"{where} (+{test.difference[index]:.1f} [{test.low[index]:.1f}, {test.high[index]:.1f}])"

    side = {"a": "the sound", "v": "the lips"}[than]
    if not more:
        return [f"In none of the {len(cells)} cells both have more errors than {side} alone."]
    listed = f": {', '.join(map(named, beyond))}" if beyond else ""
    return [
        f"In {len(more)} of the {len(cells)} cells both have more errors than {side} alone, in {len(beyond)} of them"
        f" beyond the interval of the difference{listed}."
    ]


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def section(results: Results, live: Results | None, late: Results | None) -> list[str]:
    split, words = results.run["split"], int(results.words_of_each.sum())
    seeds = len({condition.seed for condition in results.cells if condition.snr_db is not None})
    lines = [f"## {split}", "", f"{len(results.utterances)} clips, {words} words, {seeds} seeds of noise.", ""]
    lines += [*by_level(results, late), "", *worth(results), *worse(results, "a"), *worse(results, "v"), ""]
    lines += ["By kind of noise:", "", *by_kind(results), ""]
    if live is not None:
        sides = ", ".join(f"{m.upper()} {with_interval(live, live.clean(m))}" for m in live.modalities)
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
