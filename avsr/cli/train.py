"""avsr train: one training run."""

from __future__ import annotations

import argparse
import json

from avsr.cli.arguments import add_output_dir, add_quiet
from avsr.cli.console import Console

DESCRIPTION = (
    "Train a model with the settings of CONFIG, a YAML file or the name of a shipped one (avsr configs\n"
    "lists them); KEY=VALUE changes single settings. The same command continues an interrupted run.\n"
    "Prints the folder of the trained model, which avsr transcribe takes as --model.\n\n"
    "--dry-run prepares everything, computes two batches, one of them the largest, and prints how much\n"
    "memory and time the run would take. It writes nothing."
)
EXAMPLE = "avsr train grid-tiny-audio --output-dir runs/mine optimizer.epochs=30"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr train`."""
    add = parser.add_argument
    add("config", metavar="CONFIG", help="configuration file, or the name of a shipped one")
    add("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="setting to change, as in optimizer.epochs=30")
    add_output_dir(parser, "folder of the run, the same as the setting output=DIR; default: the one in CONFIG")
    add("--dry-run", action="store_true", help="only print what the run would take: data, sizes, memory and time")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train; 0 if the run is complete, or if a dry run shows that it can be done."""
    overrides = list(arguments.overrides)
    if arguments.output_dir is not None:
        # In quotes, because settings are YAML: a folder called 2024 would be a number there.
        overrides.append(f"output={json.dumps(str(arguments.output_dir))}")
    with Console(quiet=arguments.quiet) as console:
        if arguments.dry_run:
            from avsr.training.dry_run import dry_run

            dry_run(arguments.config, overrides, on_message=lambda line: console.result(f"{line}\n"))
            return 0
        from avsr.training.run import train

        try:
            checkpoint = train(arguments.config, overrides, on_message=console.note)
        except KeyboardInterrupt:
            console.note("the same command goes on after the last finished epoch")
            raise
        console.result(f"{checkpoint}\n")
    return 0
