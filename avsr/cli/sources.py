"""The record of an output folder: for each file, the input that it was made from.

Without it, talk.txt of one talk.mp4 would be taken for the finished result of another talk.mp4. The record is the file
`.avsr-sources.jsonl` in the folder. It has one line for each written file: the file's name, the input as it was named
on the command line, and the input's fingerprint. Lines are only appended, each in one write, so that several commands
may write to the same folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from avsr.errors import DataError
from avsr.files import append_line
from avsr.untrusted.files import read_file

MAX_RECORD_BYTES = 256 << 20
RECORD_NAME = ".avsr-sources.jsonl"
_PART_BYTES = 1 << 20


class Source(NamedTuple):
    """An input file."""

    name: str
    """As it was named on the command line."""
    fingerprint: str


class Sources:
    """The record of one output folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._of: dict[str, Source] = {}
        self.read()

    def read(self) -> None:
        """Read the record, in case that another command has written to it."""
        path = self._folder / RECORD_NAME
        if not os.path.lexists(path):  # a new folder has no record yet
            return
        for line in read_file(path, MAX_RECORD_BYTES, DataError).decode("utf-8", "replace").splitlines():
            try:
                row = json.loads(line)
                self._of[row["output"]] = Source(str(row["source"]), str(row["fingerprint"]))
            except (
                ValueError,
                KeyError,
                TypeError,
                RecursionError,
            ):  # a damaged line, such as one cut off by a full disk
                continue

    def other_source(self, output: Path, path: str) -> str | None:
        """The name of the input that `output` was made from. None if that is `path`, or is not known."""
        known = self._of.get(self._key(output))
        if known is None or (os.path.isfile(path) and known.fingerprint == fingerprint(path)):
            return None
        return known.name

    def record(self, output: Path, path: str) -> None:
        """Record that `output` was made from `path`. Raises OSError if the line cannot be written."""
        row = {"output": self._key(output), "source": path, "fingerprint": fingerprint(path)}
        append_line(self._folder / RECORD_NAME, json.dumps(row))

    def keep(self, output: Path) -> None:
        """Record the former input of `output` again, if it is known, because the file could not be replaced."""
        known = self._of.get(self._key(output))
        if known is not None:
            row = {"output": self._key(output), "source": known.name, "fingerprint": known.fingerprint}
            with contextlib.suppress(OSError):
                append_line(self._folder / RECORD_NAME, json.dumps(row))

    def _key(self, output: Path) -> str:
        return output.relative_to(self._folder).as_posix()


def fingerprint(path: str) -> str:
    """SHA-256 of a file's size, first MiB and last MiB; the same wherever the file lies. Raises OSError."""
    size = os.stat(path).st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(_PART_BYTES))
        file.seek(max(0, size - _PART_BYTES))
        digest.update(file.read(_PART_BYTES))
    return digest.hexdigest()
