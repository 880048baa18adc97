"""Writing files whole or not at all: a reader gets the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path

from avsr.errors import AvsrError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors that mean that there is no room: on the disk, or for this user."""
LOCK_NAME = ".avsr-lock"

_REMEDIES = {
    **dict.fromkeys(DISK_FULL, "free some space, then run the same command again"),
    errno.EFBIG: "raise the limit of the size of a file (ulimit -f), or use another disk",
    errno.EROFS: "give a folder that can be written",
    errno.EACCES: "give a folder that you may write to, or change its permissions",
    errno.EPERM: "give a folder that you may write to, or change its permissions",
    errno.ENAMETOOLONG: "give a shorter name",
}


def file_error(error: OSError) -> AvsrError:
    """An error of the operating system as one line, with the file if it names one, and a remedy if one is known."""
    reason = error.strerror or str(error)
    what = f"{os.fsdecode(error.filename)}: {reason}" if error.filename else reason
    return AvsrError(what, remedy=remedy_for(error))


def not_written(path: str | PathLike[str], error: OSError, kind: type[AvsrError] = AvsrError) -> AvsrError:
    """The error for a file that cannot be written, with its name and a remedy if one is known."""
    # The folder in which it should lie may be at fault.
    other = None if error.filename in (None, path, os.fspath(path)) else os.fsdecode(error.filename)
    got = error if other is None else f"{other}: {error.strerror}"
    return kind(f"{os.fspath(path)}: cannot be written", got=got, remedy=remedy_for(error))


def remedy_for(error: OSError) -> str | None:
    """What the user can do about a file that cannot be written; None if that is not known."""
    return _REMEDIES.get(error.errno or 0)


@contextlib.contextmanager
def naming(path: str | PathLike[str], *parts: str | PathLike[str]) -> Iterator[None]:
    """Name `path` in an OSError of the block that names no file, such as a failed write, or that names one of `parts`.

    parts: temporary files and folders, which the user does not know. An error of the writer of weights holds the number
    of the system's error in its text: it becomes an OSError too.
    """
    try:
        yield
    except OSError as error:
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else None
        if name is None or any(Path(part) in (Path(name), *Path(name).parents) for part in parts):
            error.filename, error.filename2 = os.fspath(path), None
        raise
    except Exception as error:
        # The writer of safetensors is written in Rust and says "I/O error: ... (os error 28)".
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def take_lock(handle: int) -> bool:
    """Lock an open file until it is closed. False if another process has locked it.

    The system frees the lock with the process, however that ends. Where the file system has no locks, there is none.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to `folder` while the block runs. Raises AvsrError if one does so now.

    The lock is a file in the folder, and the system frees it with the process, however that ends: a file that is left
    blocks nobody. Where the file system has no locks, there is none.
    """
    # Without following a link, which would create a file elsewhere.
    with naming(folder, folder / LOCK_NAME):
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        # Not `take_lock`: forked processes, such as those that load data, would keep the lock of a killed process.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            os.close(handle)
            raise AvsrError(
                f"{folder}: another process is writing to this folder", remedy="wait for it, or give another folder"
            ) from None
    try:
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def write_whole(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to. It becomes `path` when the block ends, and is removed when the block fails.

    The folder of `path` is made. The temporary file lies in the same folder, because a rename works within one file
    system only. Its name is random, so that processes on several machines may write the same file; short, so that it
    fits wherever `path` does; and begins with a dot, so that no pattern such as `*.srt` matches it. Raises OSError that
    names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.urandom(6).hex()}.partial")
    try:
        with naming(path, temporary):
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
        try:
            yield Path(name)
        except OSError as error:
            inside = error.filename is None or os.fsdecode(error.filename).startswith(name)
            if not inside or error.errno not in (*DISK_FULL, errno.EFBIG):
                raise
            remedy = "free some space, or set TMPDIR to a folder on another disk"
            raise AvsrError(f"no room for temporary files in {name}", got=error, remedy=remedy) from None


def append_line(path: str | PathLike[str], line: str) -> None:
    """Append one line to a file, in one write. It begins a new line if the last one was cut off. Raises OSError."""
    with naming(path), open(path, "a+b") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            line = f"\n{line}"
        file.write(f"{line}\n".encode("utf-8", "backslashreplace"))


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


def write_text(path: str | PathLike[str], text: str, *, before: Callable[[], None] = lambda: None) -> None:
    """Write `text` to `path` in UTF-8 with Unix line ends, whole or not at all. Raises OSError.

    before: called when the text is on the disk under a temporary name; if it fails, `path` stays as it was.

    A file name that is not UTF-8 reaches Python with lone surrogates; they are written as backslash escapes, because
    a results file must not fail at its very end on the name of its input.
    """
    with write_whole(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
        before()


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when the block ends, or is removed if it fails. Parents are made.

    Raises OSError with the name of `folder`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written beside the folder, because a rename does not cross file systems.
    # The name is short, so that it fits wherever the folder does.
    staging = folder.parent / f".{os.urandom(6).hex()}.partial"
    try:
        with naming(folder, staging):
            staging.mkdir()
            yield staging
            _put_in_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put_in_place(staging: Path, folder: Path) -> None:
    """Rename a finished folder. The folder of that name is replaced, and stays if that fails."""
    if not folder.exists():
        return os.replace(staging, folder)
    # A folder with files in it cannot be replaced by a rename.
    retired = folder.parent / f".{os.urandom(6).hex()}.partial"
    os.replace(folder, retired)
    try:
        os.replace(staging, folder)
    except OSError:
        os.replace(retired, folder)
        raise
    shutil.rmtree(retired)


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


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, however large it is. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
