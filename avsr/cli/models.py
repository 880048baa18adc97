"""avsr models: what can be given to --model by name."""

from __future__ import annotations

import argparse

SUMMARY = "the models that come with this package"
DESCRIPTION = "List the models that come with this package."
EXAMPLE = "avsr models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr models`."""


def run(arguments: argparse.Namespace) -> int:
    """Print a table of the models."""
    return 0
