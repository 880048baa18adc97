"""avsr compare: two evaluations, and which of their differences are more than chance."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from typing import TYPE_CHECKING

from avsr.cli.console import Console, UsageError
from avsr.text import escape_controls

if TYPE_CHECKING:
    from avsr.evaluation.compare import Comparison, Difference
    from avsr.grid import Modality

DESCRIPTION = (
    "Compare evaluation B with evaluation A in every condition that both have. Both are folders that\n"
    "avsr evaluate wrote for the same utterances. FOLDER:a, FOLDER:v or FOLDER:av takes one modality only;\n"
    "so two modalities of one evaluation can be compared. Prints the conditions that differ beyond chance."
)
EXAMPLE = "avsr compare runs/dev:a runs/dev:av"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr compare`."""
    add = parser.add_argument
    add("a", metavar="A", help="folder of the first evaluation")
    add("b", metavar="B", help="folder of the second evaluation")
    add("--all", action="store_true", help="also print the conditions that may differ by chance")
    add("--json", action="store_true", help="print one JSON object with all conditions")


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison."""
    from avsr.evaluation.compare import compare
    from avsr.evaluation.results import read_results

    path_a, modality_a = _run_and_modality(arguments.a)
    path_b, modality_b = _run_and_modality(arguments.b)
    a = read_results(path_a)
    b = a if path_b == path_a else read_results(path_b)
    comparison = compare(a, b, modality_a=modality_a, modality_b=modality_b)
    with Console() as console:
        if arguments.json:
            console.result(_json(arguments, comparison))
        else:
            console.result(_text(arguments, comparison))
    return 0


def _run_and_modality(text: str) -> tuple[str, Modality | None]:
    path, colon, modality = text.rpartition(":")
    if colon and modality in ("a", "v", "av"):
        return path, modality  # type: ignore[return-value]
    # A folder's name may hold a colon, so the text after it is a mistake only if no such folder is there.
    if colon and not os.path.exists(text) and os.path.isdir(path):
        raise UsageError(f"{text}: got modality {modality!r}, expected {path}:a, {path}:v or {path}:av")
    return text, None


def _text(arguments: argparse.Namespace, comparison: Comparison) -> str:
    lines = []
    for verdict in ("better", "worse", ""):
        chosen = [d for d in comparison.conditions if d.verdict == verdict]
        count = f"{len(chosen)} of {len(comparison.conditions)} conditions"
        lines.append(f"{count}: {f'B is {verdict} beyond chance' if verdict else 'any difference may be chance'}")
        if verdict or arguments.all:
            largest = sorted(chosen, key=lambda d: -abs(d.difference))
            lines += [f"  {_row(d)}  {d.condition}" for d in largest]
    lines.append(f"all together: {_row(comparison.overall)}")
    rates = f"{comparison.score.short} of A -> B in percent, B - A with its 95 % interval"
    lines += [f"A is {arguments.a}, B is {arguments.b}; {rates}."]
    return "\n".join([*lines, *comparison.notes]) + "\n"


def _row(d: Difference) -> str:
    return f"{d.a:5.1f} -> {d.b:5.1f}  {d.difference:+6.1f} [{d.low:+.1f}, {d.high:+.1f}]  p {_p(d.p_family)}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _json(arguments: argparse.Namespace, comparison: Comparison) -> str:
    def row(difference: Difference) -> dict[str, object]:
        values = dataclasses.asdict(difference)
        condition = difference.condition._asdict()
        del values["condition"], condition["seed"]
        return {**condition, **values, "verdict": difference.verdict}

    overall = row(comparison.overall)
    for name in ("modality", "noise", "snr_db", "video"):  # the overall result mixes all conditions
        del overall[name]
    content = {
        "schema": 1,
        "a": arguments.a,
        "b": arguments.b,
        "score": comparison.score.title,
        "overall": overall,
        "conditions": [row(difference) for difference in comparison.conditions],
        "notes": comparison.notes,
    }
    return escape_controls(json.dumps(content, ensure_ascii=False)) + "\n"
