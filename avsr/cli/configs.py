"""avsr configs: the training configurations that come with the package."""

from __future__ import annotations

import argparse

from avsr.cli.console import Console

DESCRIPTION = (
    "List the training configurations that come with this package: the name for avsr train, and\n"
    "what it trains. With a NAME, print that configuration, to begin one of your own with."
)
EXAMPLE = "avsr configs grid-tiny-audio"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the argument of `avsr configs`."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="configuration to print; without it, all are listed")


def run(arguments: argparse.Namespace) -> int:
    """Print the list, or one configuration."""
    from avsr import shipped

    with Console() as console:
        if arguments.name is not None:
            console.result(shipped.find_configuration(arguments.name).read_text(encoding="utf-8"))
            console.note(f"the recipes that use it are in {shipped.RECIPES}")
            return 0
        names = shipped.configuration_names()
        width = max(map(len, names))
        for name in names:
            console.result(f"{name:{width}}  {shipped.summary_of(shipped.CONFIGURATIONS / f'{name}.yaml')}\n")
        console.note("avsr configs NAME prints one; avsr train NAME trains with it")
    return 0
