"""What all sources of files share: the task, and the error of a source that cannot be used."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from avsr.catalogue.entries import Entry
from avsr.errors import ModelError

Result = TypeVar("Result")

TICK_S = 0.2


class SourceError(ModelError):
    """A source cannot be used on this machine now; another one may work."""


class Task(NamedTuple):
    """What a source has to fetch."""

    entry: Entry
    missing: tuple[str, ...]
    """The files that are not there yet."""
    work: Path
    """A folder for unfinished things. It is kept, so that the next attempt goes on from it."""
    deliver: Callable[[str, Path], None]
    """Takes a fetched file by its name in the model: checks it and moves it away. Raises ModelError if it is wrong."""
    tick: Callable[[], None]
    """To be called often while something is being fetched; it reports the progress."""


def watched(do: Callable[[], Result], tick: Callable[[], None]) -> Result:
    """The result of `do`, which runs in a thread of its own while this thread calls `tick`. Raises what `do` raises."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = do()
        except BaseException as error:  # raised again in the thread that waits
            outcome["error"] = error

    # A daemon, because nothing can stop a download, and Ctrl-C must not wait for its end.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(TICK_S)
        tick()
    if "error" in outcome:
        raise outcome["error"]
    result: Result = outcome["result"]
    return result


def folder_bytes(folder: Path) -> int:
    """The size of all files below a folder, while others write into it."""
    total = 0
    for parent, _, names in os.walk(folder):  # which passes over folders that vanish; Path.rglob does not
        for name in names:
            with contextlib.suppress(OSError):  # moved or removed since it was listed
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
