"""Which input each file in an output folder was made from, so that one input's text is never taken for another's.

The folder's record is `.avsr-sources.jsonl`, one line a written file: its name, the input as it was named, and the
input's fingerprint. Lines are only appended, each in one write, so that several commands may share a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

RECORD_NAME = ".avsr-sources.jsonl"
_PART_BYTES = 1 << 20


class Source(NamedTuple):
    """An input: as it was named, and its fingerprint."""

    name: str
    fingerprint: str


class Sources:
    """The record of one output folder, as it was when this was made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._of: dict[str, Source] = {}
        try:
            lines = (folder / RECORD_NAME).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:  # none yet
            return
        for line in lines:
            try:
                row = json.loads(line)
                self._of[row["output"]] = Source(str(row["source"]), str(row["fingerprint"]))
            except (ValueError, KeyError, TypeError):  # cut off, as by a full disk
                continue

    def other_source(self, output: Path, path: str) -> str | None:
        """The name of the input that `output` was made from, where that is known and not the file `path`."""
        known = self._of.get(self._key(output))
        if known is None or (os.path.isfile(path) and known.fingerprint == fingerprint(path)):
            return None
        return known.name

    def record(self, output: Path, path: str) -> None:
        """Note that `output` was just made from `path`. Raises OSError when that cannot be written."""
        row = {"output": self._key(output), "source": path, "fingerprint": fingerprint(path)}
        with (self._folder / RECORD_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _key(self, output: Path) -> str:
        return output.relative_to(self._folder).as_posix()


def fingerprint(path: str) -> str:
    """Of a file's content, wherever it lies: SHA-256 of its size, first and last MiB. Raises OSError."""
    size = os.stat(path).st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(_PART_BYTES))
        file.seek(max(0, size - _PART_BYTES))
        digest.update(file.read(_PART_BYTES))
    return digest.hexdigest()
