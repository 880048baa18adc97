"""The folder of installed models.

    MODELS/NAME/               an installed model: its files and the record avsr-model.json
    MODELS/.NAME.partial/      an unfinished pull
    MODELS/.NAME.sha256.json   hashes that no list knows, recorded at the first pull
    MODELS/.NAME.lock          held while a process pulls or removes the model

A folder without a whole record is not an installed model, whatever files it holds. The record is written last, and the
finished folder is renamed to NAME, so that a pull that is killed leaves nothing that looks installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from avsr.catalogue.entries import SHA256, Entry, File
from avsr.errors import ModelError
from avsr.files import take_lock, write_text
from avsr.untrusted.files import read_file
from avsr.untrusted.settings import parse_json
from avsr.untrusted.values import shown

RECORD = "avsr-model.json"
MAX_RECORD_BYTES = 1 << 16
PART_BYTES = 1 << 20


def models_folder() -> Path | None:
    """The folder of installed models, which may not exist yet.

    AVSR_MODELS, else avsr/models in XDG_DATA_HOME or ~/.local/share. None if there is no home folder either.
    """
    chosen = os.environ.get("AVSR_MODELS")
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    data = os.environ.get("XDG_DATA_HOME", "")
    # The standard of these variables says that a relative path is to be ignored.
    if not os.path.isabs(data):
        data = os.path.expanduser(os.path.join("~", ".local", "share"))
    # In a container the user may have neither HOME nor an entry in passwd; "~" is then left in the path.
    return Path(data, "avsr", "models") if os.path.isabs(data) else None


def require_models_folder() -> Path:
    """The folder of installed models. Raises ModelError if no place for it is known."""
    folder = models_folder()
    if folder is None:
        raise ModelError(
            "no place for models: HOME is not set, and the system knows no home folder of this user",
            remedy="set AVSR_MODELS to a folder",
        )
    return folder


def installed_folder(entry: Entry) -> Path | None:
    """The folder of a model that is installed and whole; None if it is not installed or damaged."""
    root = models_folder()
    if root is None or problem(entry, root) is not None:
        return None
    return root / entry.name


def problem(entry: Entry, root: Path) -> str | None:
    """Why a model is not installed and whole, in half a line; "" if nothing is there; None if it is usable.

    Sizes are compared, not hashes: the hashes were checked when the model was pulled.
    """
    folder = root / entry.name
    if not os.path.lexists(folder):
        return ""
    if os.path.islink(folder) or not os.path.isdir(folder):
        return "is not a folder"
    record = read_record(folder / RECORD)
    if not record:
        return "holds files that were not checked"
    for name, file in entry.files.items():
        if name not in record or regular_size(folder / name) != record[name].bytes:
            return f"is damaged: {name} is missing or has another size"
        if file.sha256 and record[name].sha256 != file.sha256:
            return f"is another version: {name} has another hash"
    return None


def read_record(path: Path) -> dict[str, File]:
    """Sizes and hashes in a record of this folder; empty if the record is missing or damaged."""
    try:
        return {str(name): _recorded(file) for name, file in _record(path)["files"].items()}
    # Whatever is wrong with a record, it does not vouch for any file.
    except (ModelError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def source_of(entry: Entry) -> str:
    """Where the installed files came from, as the record says; empty if it does not."""
    folder = installed_folder(entry)
    if folder is None:
        return ""
    try:
        source = _record(folder / RECORD).get("source", "")
    except ModelError:  # removed since
        return ""
    return shown(source).strip("'")


def write_record(path: Path, entry: Entry, files: dict[str, File], source: str) -> None:
    """Write a record of these files, whole or not at all. A pull has made sure that the terms are accepted."""
    content: dict[str, Any] = {
        "schema": 1,
        "name": entry.name,
        "source": source,
        **({"accepted_terms": entry.terms} if entry.must_accept else {}),
        "files": {name: {"bytes": file.bytes, "sha256": file.sha256} for name, file in files.items()},
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def hash_record_path(entry: Entry, root: Path) -> Path:
    """Where the hashes are kept that the list does not know. They stay when the model is removed."""
    return root / f".{entry.name}.sha256.json"


def partial_path(entry: Entry, root: Path) -> Path:
    """The folder of an unfinished pull."""
    return root / f".{entry.name}.partial"


@contextlib.contextmanager
def locked(entry: Entry, root: Path) -> Iterator[None]:
    """Keep other processes from pulling or removing this model. Raises ModelError if one is doing so."""
    root.mkdir(parents=True, exist_ok=True)
    # Without following a link, which would create a file elsewhere.
    handle = os.open(root / f".{entry.name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        if not take_lock(handle):
            raise ModelError(f"{entry.name}: another process is pulling or removing this model", remedy="wait for it")
        yield
    finally:
        os.close(handle)  # which gives the lock back; so does the end of the process, however it comes


def describe_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> File:
    """Size and hash of a regular file. on_bytes: called with the number of bytes of each part. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    # A link could lead to an endless device, and a pipe would block.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(f"{path} is no regular file")
        while part := stream.read(PART_BYTES):
            digest.update(part)
            size += len(part)
            if on_bytes is not None:
                on_bytes(len(part))
    return File(bytes=size, sha256=digest.hexdigest())


def regular_size(path: Path) -> int | None:
    """The size of a regular file that is no link; None for anything else."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _record(path: Path) -> dict[str, Any]:
    """The content of a record. Raises ModelError if it is a link, is no regular file or is damaged."""
    if regular_size(path) is None:
        raise ModelError(f"{path}: no record")
    content = parse_json(read_file(path, MAX_RECORD_BYTES), str(path), ModelError)
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a record", got=type(content).__name__)
    return content


def _recorded(content: Any) -> File:
    size, digest = content["bytes"], content["sha256"]
    if not isinstance(size, int) or not SHA256.fullmatch(digest):
        raise ValueError("no size and hash")
    return File(bytes=size, sha256=digest)
