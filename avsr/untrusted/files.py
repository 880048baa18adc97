"""Files that may be anything: a pipe, a device, a link to one, or larger than the memory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from avsr.errors import AvsrError, ModelError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_file(path: Path, most_bytes: int, error: type[AvsrError] = ModelError) -> BinaryIO:
    """A regular file of at most `most_bytes`, open for reading. Links are followed: caches of models consist of them.

    Raises `error` if it is missing, cannot be read, is no regular file, or is larger.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits until somebody writes to it. Regular files do not know it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        what = "link to a missing file" if path.is_symlink() else "no such file"
        raise error(f"{path}: {what}", remedy="check the path") from None
    except (OSError, ValueError) as reason:  # ValueError: a null byte in the name
        raise error(f"{path}: cannot be read", got=reason) from None
    try:
        # The open file is asked, and not its name: the name may stand for another file by now.
        _check(os.fstat(descriptor), path, most_bytes, error)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: Path, most_bytes: int, error: type[AvsrError] = ModelError) -> bytes:
    """The content of a file. Raises `error` as `open_file` does."""
    with open_file(path, most_bytes, error) as file:
        try:
            data = file.read(most_bytes + 1)
        except OSError as reason:
            raise error(f"{path}: cannot be read", got=reason) from None
    if len(data) > most_bytes:  # it has grown since it was opened
        raise _too_large(path, len(data), most_bytes, error)
    return data


def _check(status: os.stat_result, path: Path, most_bytes: int, error: type[AvsrError]) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise error(f"{path}: cannot be read", got=_KINDS.get(kind, "a special file"), expected="a regular file")
    if status.st_size > most_bytes:
        raise _too_large(path, status.st_size, most_bytes, error)


def _too_large(path: Path, size: int, most_bytes: int, error: type[AvsrError]) -> AvsrError:
    return error(f"{path}: too large", got=f"{size} bytes", expected=f"{most_bytes} bytes at most")


def without_path(error: Exception, path: Path) -> object:
    """What an error says, without the name of the file in front, for another error that names the file."""
    if not isinstance(error, AvsrError):
        return error
    what = error.what.removeprefix(f"{path}: ")
    return what if error.got is None else f"{what}: {error.got}"
