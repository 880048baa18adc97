"""avsr models: what can be given to --model by name."""

from __future__ import annotations

import argparse

from avsr.cli.console import Console

SUMMARY = "the models that come with this package"
DESCRIPTION = (
    "List the models that come with this package: the name for --model, whether they hear (a), read\n"
    "lips (v) or do both at once (av), how many words or word pieces they know, their size, and in which\n"
    "chunks of sound they can work live (--chunk-ms), - where they work on files only."
)
EXAMPLE = "avsr models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr models`: none."""


def run(arguments: argparse.Namespace) -> int:
    """Print the table of the models."""
    from avsr.families import ASSETS
    from avsr.families.own.checkpoint import read_config

    rows = [("NAME", "MODALITIES", "UNITS", "SIZE", "LIVE, MS")]
    for folder in sorted(path.parent for path in ASSETS.glob("*/config.yaml")):
        name, config = folder.name, read_config(folder)
        size = sum(path.stat().st_size for path in (ASSETS / name).iterdir())
        live = " ".join(str(frames * config.frame_ms) for frames in config.chunk_contexts) or "-"
        units = str(config.vocabulary_size)
        rows.append((name, " ".join(config.modalities), units, f"{size / 1e6:.1f} MB", live))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    with Console() as console:
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            console.result("  ".join(cells).rstrip() + "\n")
    return 0
