"""The files of a model on their way to being installed: checked one by one, installed all at once."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from avsr.catalogue.entries import Entry, File
from avsr.catalogue.store import RECORD, describe_file, hash_record_path, partial_path, read_record, write_record
from avsr.errors import ModelError


class Arrivals:
    """The right files of a model that have arrived in its partial folder.

    there: files of an earlier attempt, or files that somebody put into the folder of the model.
    """

    def __init__(self, entry: Entry, root: Path, there: dict[str, File]) -> None:
        self._entry = entry
        self._folder = partial_path(entry, root) / "files"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._final = root / entry.name
        self.there = self._collected(there)

    @property
    def missing(self) -> tuple[str, ...]:
        """The files that have not arrived."""
        return tuple(name for name in self._entry.files if name not in self.there)

    def take(self, source: str, name: str, path: Path) -> None:
        """Check a file from a source and move it here. Raises ModelError, and deletes the file, if it is wrong."""
        found, expected = describe_file(path), self._entry.files[name]
        if not fits(found, expected):
            path.unlink()
            raise wrong_file(f"{self._entry.name}: {name} from the {source}", found, expected, "nothing was installed")
        os.replace(path, self._folder / name)
        self.there[name] = found

    def install(self, root: Path, source: str) -> None:
        """Make the partial folder the folder of the model, by renaming it."""
        write_records(self._entry, root, self._folder, self.there, source)
        if self._final.exists():
            # Only files of the catalogue are in it, and the right ones are here as well.
            for name in (RECORD, *self._entry.files):
                (self._final / name).unlink(missing_ok=True)
            self._final.rmdir()
        os.rename(self._folder, self._final)

    def _collected(self, there: dict[str, File]) -> dict[str, File]:
        """The right files here: those in the folder of the model are linked, and wrong ones are removed."""
        found = {}
        for name, expected in self._entry.files.items():
            path = self._folder / name
            if name in there:
                path.unlink(missing_ok=True)
                try:
                    os.link(self._final / name, path)
                except OSError:  # a file system without links
                    shutil.copyfile(self._final / name, path)
            if path.exists():
                described = describe_file(path)
                if fits(described, expected):
                    found[name] = described
                else:
                    path.unlink()
        return found


def check_present(entry: Entry, folder: Path, say: Callable[[str], None]) -> dict[str, File]:
    """The right files in the folder of a model: of an earlier pull, or put there by hand.

    Raises ModelError for a wrong file that was put there by hand, and for a folder with anything else in it.
    """
    if not os.path.lexists(folder):
        return {}
    if folder.is_symlink() or not folder.is_dir():
        raise ModelError(f"{folder} is no folder", remedy="move it away")
    others = sorted(set(os.listdir(folder)) - {RECORD, *entry.files})
    if others:
        raise ModelError(f"{folder} holds more", got=others[0], expected=listed(entry.files), remedy="move it away")
    ours = bool(read_record(folder / RECORD))
    there = {}
    for name, expected in entry.files.items():
        path = folder / name
        if not os.path.lexists(path):
            continue
        found = _describe_own(path)
        if fits(found, expected):
            there[name] = found
        elif ours:
            say(f"{path} is damaged and fetched again")
        else:
            raise wrong_file(str(path), found, expected, "put the right file there, or remove it")
    return there


def write_records(entry: Entry, root: Path, folder: Path, there: dict[str, File], source: str) -> None:
    """Write the records that make the files in `folder` an installed model."""
    if not all(file.sha256 for file in entry.files.values()):
        write_record(hash_record_path(entry, root), entry, there, source)
    write_record(folder / RECORD, entry, there, source)


def fits(found: File, expected: File) -> bool:
    """Whether a file is the expected one, as far as its size and hash are known."""
    same_size = expected.bytes in (0, found.bytes)
    return same_size and expected.sha256 in ("", found.sha256)


def wrong_file(what: str, found: File, expected: File, remedy: str) -> ModelError:
    """The error for a file that is not the expected one. what: the file, and where it comes from."""
    return ModelError(
        f"{what} is not the file of the catalogue",
        got=f"{found.bytes} bytes, SHA-256 {found.sha256}",
        expected=f"{expected.bytes} bytes, {expected.sha256}",
        remedy=remedy,
    )


def listed(names: Iterable[str]) -> str:
    """Names for a message."""
    return ", ".join(names)


def _describe_own(path: Path) -> File:
    """Size and hash of a file that may have been put there by hand. Raises ModelError for a link and the like."""
    try:
        return describe_file(path)
    except OSError as error:
        got = "a link" if error.errno == errno.ELOOP else error
        raise ModelError(f"{path} cannot be read", got=got, expected="a file", remedy="copy the file itself") from None
