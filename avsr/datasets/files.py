"""The files of a corpus: which there are, which are left out, and their text, read within bounds."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from avsr.account import Account
from avsr.errors import DataError
from avsr.media.folders import BROKEN_LINK, NO_MEDIA, SECOND_NAME, SPECIAL, UNREADABLE, Lister
from avsr.media.types import media_stem, media_suffix
from avsr.untrusted.files import read_file

MAX_TRANSCRIPT_BYTES = 1 << 20

# A left-out file with the name of a clip becomes a rejected clip for these reasons. Other left-out files are counted.
_PROBLEMS = (BROKEN_LINK, SECOND_NAME, SPECIAL, UNREADABLE)


class CorpusFiles:
    """The files of the copy of a corpus in the folder `src`, each once.

    account: gets everything that is found and left out.
    without: a folder that is not entered, the one for the prepared files.

    Raises DataError if `src` cannot be read.
    """

    def __init__(self, src: Path, account: Account | None = None, without: Path | None = None) -> None:
        self.src = src
        self._account = account or Account()
        self._lister = Lister(self._account, without=without)
        self._listing = self._lister.list_folder(str(src))
        self.media = [Path(path) for path in self._listing.media]
        """Files of video or sound, in a fixed order."""
        self.others = [Path(path) for path in self._listing.others]
        """All other files, in a fixed order."""
        self._num_used = len(self.media) + len(self.others)
        self.problems: dict[Path, str] = {}
        """Files of video or sound that cannot be used, and folders that cannot be read, with the reason."""
        for entry in list(self._listing.left_out):
            if entry.path == str(src) and entry.reason == UNREADABLE:
                raise DataError(f"{src}: cannot be read", got=entry.detail)
            if entry.reason in _PROBLEMS and (entry.kind == "folders" or media_suffix(entry.path)):
                reason = "is another name of a file" if entry.reason == SECOND_NAME else entry.reason
                self.problems[Path(entry.path)] = f"{reason}: got {self._shown(entry.detail)}"
                self._listing.left_out.remove(entry)  # its reason comes with the clip

    def id(self, path: Path) -> str:
        """The path of a file below `src` without the suffix of a media file or a text."""
        name = path.relative_to(self.src).as_posix()
        return name[: -len(path.suffix)] if is_text(path) else media_stem(name)

    def key(self, path: Path) -> str:
        """The id in one form of Unicode, because file and text may come from systems that write letters in two."""
        return one_form(self.id(path))

    def leave_out(self, path: Path, reason: str) -> None:
        """Count a file as left out."""
        self._lister.leave_out(self._listing, str(path), reason)
        self._num_used -= 1

    def leave_out_all_but(self, named: Iterable[Path], reason: str) -> None:
        """Count files of video or sound that are not in `named` as left out, for a reason, and all other files."""
        known = {os.path.realpath(path) for path in named}
        for path in self.media:
            if os.path.realpath(path) not in known:
                self.leave_out(path, reason)
        for path in self.others:
            if os.path.realpath(path) not in known:
                self.leave_out(path, NO_MEDIA)

    def say_what_is_left_out(self) -> None:
        """Count the files that were not left out as used, and put one line about the others into the account."""
        self._account.used("files", self._num_used)
        line = self._listing.line()
        if line is not None:
            self._account.note(f"left out of {self.src}", line)

    def _shown(self, detail: str) -> str:
        return os.path.relpath(detail, self.src) if os.path.isabs(detail) else detail


def is_text(path: Path) -> bool:
    """Whether the name of a file says that it is a text."""
    return path.suffix.lower() == ".txt"


def one_form(name: str) -> str:
    """A name in Unicode's form NFC."""
    return unicodedata.normalize("NFC", name)


def leads_out(name: str) -> bool:
    """Whether an id or a path of a list names something outside of the folder that it begins in."""
    return PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts


def read_transcript_file(path: Path) -> str:
    """The content of a transcript. Raises DataError if it is missing, longer than a MiB or not UTF-8."""
    if not path.exists():
        raise DataError("no transcript", expected=f"{path.name} beside it")
    try:
        # Editors on Windows write a byte order mark, which would become part of the first word.
        return read_file(path, MAX_TRANSCRIPT_BYTES, DataError).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: transcript cannot be read", got=error) from error
