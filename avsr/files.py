"""Writing files whole or not at all: a reader gets the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from avsr.errors import AvsrError


@contextlib.contextmanager
def write_whole(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to. It becomes `path` when the block ends, and is removed when the block fails.

    The folder of `path` is made. The temporary file lies in the same folder, because a rename works within one file
    system only. Its name is random, so that processes on several machines may write the same file; short, so that it
    fits wherever `path` does; and begins with a dot, so that no pattern such as `*.srt` matches it. Raises OSError.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.urandom(6).hex()}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        # After a success the temporary file is gone already, which is an OSError too.
        with contextlib.suppress(OSError, ValueError):  # ValueError: a null byte in the name
            temporary.unlink()


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder for temporary files, removed when the block ends. Raises AvsrError if no place for one is found."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="avsr-")
    except OSError as error:
        raise AvsrError(
            "no folder for temporary files", got=error, remedy="set TMPDIR to a folder that can be written"
        ) from None
    with folder as name:
        yield Path(name)


def remove_partial(folder: str | PathLike[str], *, older_than_s: float = 3600.0) -> None:
    """Remove the temporary files that killed runs of `write_whole` left below `folder`, which may be missing.

    Younger files stay: another run may be writing them right now.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            if re.fullmatch(r"\.[0-9a-f]{12}\.partial", name):
                path = Path(parent, name)
                with contextlib.suppress(OSError):  # another run removes it too, or the folder cannot be written
                    if time.time() - path.stat().st_mtime > older_than_s:
                        path.unlink()


def write_bytes(path: str | PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, whole or not at all. Raises OSError."""
    with write_whole(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | PathLike[str], text: str) -> None:
    """Write `text` to `path` in UTF-8 with Unix line ends, whole or not at all. Raises OSError.

    A file name that is not UTF-8 reaches Python with lone surrogates; they are written as backslash escapes, because
    a results file must not fail at its very end on the name of its input.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def local_path(name: str) -> str:
    """The path of a file that is named by its path, or by an address that begins with file:.

    Raises AvsrError, without the name, for an address on another machine and for an empty name.
    """
    if not name:
        raise AvsrError("the name of a file is empty", remedy="check the variables and the quotes in the command")
    if os.path.lexists(name):
        return name
    address = re.fullmatch(r"file:(?://(?P<host>[^/]*))?(?P<path>/.*)", name, re.IGNORECASE | re.DOTALL)
    if address and (address["host"] or "localhost").lower() == "localhost":
        from urllib.parse import unquote_to_bytes

        return os.fsdecode(unquote_to_bytes(os.fsencode(address["path"])))
    if address or re.match("[a-z][a-z0-9+.-]*://", name, re.IGNORECASE):
        raise AvsrError(
            "is an address, and only files on this machine are read", remedy="download it, and name the file"
        )
    return name
