"""The files of a corpus: which there are, and their text, read within bounds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avsr.errors import DataError

MAX_TRANSCRIPT_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 20


def files_below(src: Path) -> Iterator[Path]:
    """All files below `src` in a fixed order, also through links, without hidden files and folders."""
    for folder, folders, files in os.walk(src, followlinks=True):
        # Hidden files such as "._clip.mp4" are leftovers of file managers. Sorted, because file systems list in any
        # order.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(folder, name)


def read_transcript_file(path: Path) -> str:
    """The content of a transcript. Raises DataError if it is missing, longer than a MiB or not UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TRANSCRIPT_BYTES + 1)
        if len(data) > MAX_TRANSCRIPT_BYTES:
            raise DataError(f"{path}: too long for a transcript", expected=f"at most {MAX_TRANSCRIPT_BYTES} bytes")
        # Editors on Windows write a byte order mark, which would become part of the first word.
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError("no transcript", expected=f"{path.name} beside it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: transcript cannot be read", got=error) from error


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line of a list that is not blank, after its place `FILE:NUMBER`.

    Raises DataError if the file cannot be read or is not UTF-8, or if a line is longer than a MiB.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while data := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(data) > MAX_LINE_BYTES:
                    raise DataError(f"{path}:{number}: line too long", expected=f"at most {MAX_LINE_BYTES} bytes")
                line = data.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if line:
                    yield f"{path}:{number}", line
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read", got=error) from error


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each JSON object of a list, after its place `FILE:NUMBER`. Raises DataError with the place of a wrong line."""
    for where, line in numbered_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # RecursionError: thousands of brackets
            raise DataError(f"{where}: not JSON", got=error) from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: not a JSON object", got=type(row).__name__)
        yield where, row
