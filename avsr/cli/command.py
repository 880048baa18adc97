"""What a command, or one action of a command, consists of."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple


class Action(NamedTuple):
    """One action of a command, such as `plan` of `avsr noise`."""

    summary: str
    """Half a line for the list of actions in the command's help."""
    description: str
    """What it does, what it prints and what it writes; lines of at most 100 characters."""
    example: str
    """A whole command line that works."""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    """Declares the arguments of this action, and no others."""
    run: Callable[[argparse.Namespace], int]
    """Does the work and returns the exit code."""


def name_list(summaries: dict[str, str]) -> str:
    """Names and summaries in two columns, for a help text."""
    width = max(len(name) for name in summaries)
    return "\n".join(f"  {name:{width}}  {summary}" for name, summary in summaries.items())
