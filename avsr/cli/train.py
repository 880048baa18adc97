"""avsr train: one training run."""

from __future__ import annotations

import argparse

from avsr.cli.arguments import add_quiet
from avsr.cli.console import Console

SUMMARY = "a model from a configuration file and prepared data"
DESCRIPTION = (
    "Train a model as the YAML file CONFIG says; KEY=VALUE changes single settings. The same\n"
    "command goes on with an interrupted run. Prints the folder of the trained model, which\n"
    "avsr transcribe takes as --model.\n\n"
    "--dry-run makes everything, computes two batches, the largest among them, and prints what\n"
    "the run would take. It writes nothing."
)
EXAMPLE = "avsr train configs/grid-tiny-audio.yaml output=runs/mine optimizer.epochs=30"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr train`."""
    add = parser.add_argument
    add("config", metavar="CONFIG", help="configuration file")
    add("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="setting to change, as in optimizer.epochs=30")
    add("--dry-run", action="store_true", help="only say what it would take: data, sizes, memory and time")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train; 0 when the run is complete, or a dry one shows that it can be."""
    with Console(quiet=arguments.quiet) as console:
        if arguments.dry_run:
            from avsr.training.dry_run import dry_run

            dry_run(arguments.config, arguments.overrides, on_message=lambda line: console.result(f"{line}\n"))
            return 0
        from avsr.training.run import train

        checkpoint = train(arguments.config, arguments.overrides, on_message=console.note)
        console.result(f"{checkpoint}\n")
    return 0
