"""avsr average: the weighted mean of trained models."""

from __future__ import annotations

import argparse
from pathlib import Path

from avsr.cli.arguments import add_output_dir, add_quiet
from avsr.cli.console import Console

DESCRIPTION = (
    "Write the weighted mean of checkpoints of one configuration. The mean of a model and of the\n"
    "model that it was tuned from keeps most of what the tuning taught, and most of what the first\n"
    "one could do elsewhere (arXiv 2109.01903). The shares add up to 1. Prints the new folder."
)
EXAMPLE = "avsr average runs/tuned/model=0.6 runs/start/model=0.4 --output-dir runs/mean/model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr average`."""
    add = parser.add_argument
    add("shares", nargs="+", type=_share, metavar="FOLDER=SHARE", help="a checkpoint and its weight in the mean")
    add_output_dir(parser, "folder of the mean, a checkpoint", required=True)
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the mean; 0 when it is written."""
    from avsr.training.averaging import average_checkpoints

    with Console(quiet=arguments.quiet) as console:
        folder = average_checkpoints(arguments.shares, arguments.output_dir)
        console.result(f"{folder}\n")
    return 0


def _share(text: str) -> tuple[Path, float]:
    # From the right, because a folder's name may hold an equals sign.
    folder, _, share = text.rpartition("=")
    try:
        return Path(folder), float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text}, expected FOLDER=SHARE, as in runs/a/model=0.6") from None
