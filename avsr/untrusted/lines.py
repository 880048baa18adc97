"""Files of lines: lists, manifests and noise plans."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avsr.errors import DataError
from avsr.untrusted.files import open_file, without_path
from avsr.untrusted.settings import parse_json

MAX_LIST_BYTES = 1 << 30
MAX_LINE_BYTES = 4 << 20


def numbered_lines(path: Path, what: str = "", remedy: str | None = None) -> Iterator[tuple[str, str]]:
    """Each line of a list that is not blank, after its place `FILE:NUMBER`.

    what: the kind of list, for errors. remedy: for a file that cannot be read.

    Raises DataError if the file is no regular file, cannot be read, is too large or not UTF-8, or if a line is longer
    than 4 MiB.
    """
    number = 0
    cannot = f"{path}: cannot read the {what}" if what else f"{path}: cannot be read"
    try:
        file = open_file(path, MAX_LIST_BYTES, DataError)
    except DataError as error:
        raise DataError(cannot, got=without_path(error, path), remedy=remedy) from None
    with file:
        try:
            while data := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(data) > MAX_LINE_BYTES:
                    raise DataError(f"{path}:{number}: line too long", expected=f"at most {MAX_LINE_BYTES} bytes")
                # Editors on Windows write a byte order mark.
                line = data.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if line:
                    yield f"{path}:{number}", line
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(cannot, got=error, remedy=remedy) from error


def json_lines(
    path: Path, what: str = "", remedy: str | None = None, expected: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each JSON object of a list, after its place `FILE:NUMBER`.

    expected: what the file should be, for errors of its lines.

    Raises DataError as `numbered_lines`, and with the place of a line that is no JSON object.
    """
    for where, line in numbered_lines(path, what, remedy):
        try:
            row = parse_json(line, where, DataError)
        except DataError as error:
            raise DataError(error.what, got=error.got, expected=expected) from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: not a JSON object", got=type(row).__name__)
        yield where, row
