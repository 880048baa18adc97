"""Lists the media files and the other files of folders, each once, and counts every left-out file by its reason.

Links are followed. A folder or a media file with several names counts under the first name. Real paths come before
links, and otherwise names come in alphabetical order. So a circle of links ends, and no film is done twice.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import stat
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from avsr.account import Account
from avsr.media.types import HEAD_BYTES, is_media_head, media_suffix, says_nothing

HIDDEN = "hidden"
UNREADABLE = "cannot be read"
BROKEN_LINK = "broken link"
SPECIAL = "pipe, socket or device"
SECOND_NAME = "second name of a file"
SECOND_WAY = "second way into a folder"
SUBFOLDER = "subfolder"
OUTPUT = "folder of the results"
NO_MEDIA = "no video or sound"

What = Literal["files", "folders"]

# In the order of the line.
_PHRASES: dict[tuple[What, str], tuple[str, str]] = {
    ("files", NO_MEDIA): ("file that is no video or sound", "files that are no video or sound"),
    ("files", SECOND_NAME): ("second name of a file", "second names of files"),
    ("files", BROKEN_LINK): ("broken link", "broken links"),
    ("files", SPECIAL): ("pipe, socket or device", "pipes, sockets or devices"),
    ("files", UNREADABLE): ("file that cannot be read", "files that cannot be read"),
    ("files", HIDDEN): ("hidden file", "hidden files"),
    ("folders", SECOND_WAY): ("second way into a folder", "second ways into folders"),
    ("folders", UNREADABLE): ("folder that cannot be read", "folders that cannot be read"),
    ("folders", SUBFOLDER): ("subfolder", "subfolders"),
    ("folders", HIDDEN): ("hidden folder", "hidden folders"),
    ("folders", OUTPUT): ("folder of results", "folders of results"),
}
_MAX_SUFFIXES = 5

logger = logging.getLogger(__name__)


class LeftOut(NamedTuple):
    """A file or folder that is not used."""

    kind: What
    path: str
    reason: str
    """One of the constants above, or a reason that the caller of `Lister.leave_out` gave."""
    detail: str = ""
    """What the operating system says, or the first name of the same file or folder."""


@dataclasses.dataclass
class Listing:
    """The content of a folder. All paths begin with the name that the caller gave for the folder."""

    folder: str
    media: list[str] = dataclasses.field(default_factory=list)
    """Files of video or sound: in each folder the files in the order of their names, then its subfolders."""
    others: list[str] = dataclasses.field(default_factory=list)
    """All other files, in the same order."""
    left_out: list[LeftOut] = dataclasses.field(default_factory=list)
    was_listed: bool = False
    """Whether the same lister listed the folder, or a part of it, before."""

    def line(self) -> str | None:
        """One line that counts the left-out files and folders; None if nothing was left out."""
        counts = Counter((entry.kind, entry.reason) for entry in self.left_out)
        if not counts:
            return None
        parts = []
        for key in dict.fromkeys([*_PHRASES, *counts]):
            if counts[key]:
                one, many = _PHRASES.get(key, (f"file: {key[1]}", f"files: {key[1]}"))
                parts.append(f"{counts[key]} {one if counts[key] == 1 else many}")
                if key[1] == NO_MEDIA:
                    parts[-1] += f" ({_suffixes(entry.path for entry in self.left_out if entry.reason == NO_MEDIA)})"
        return f"left out of {self.folder}: {', '.join(parts)}"


class Lister:
    """Lists one folder or several, and counts in an account all files and folders that it finds.

    account: gets found files and folders, the folders that were read as used, and everything that is left out as lost.
        The caller counts which of the files it uses.
    recursive: also list subfolders.
    without: a folder that is not entered, such as the one for the results.
    """

    def __init__(self, account: Account, *, recursive: bool = True, without: str | Path | None = None) -> None:
        self._account = account
        self._recursive = recursive
        self._without = None if without is None or not os.path.exists(without) else _identity_of_folder(without)
        self._counted: set[str] = set()
        self._folders: dict[tuple[object, ...], str] = {}
        self._files: dict[tuple[object, ...], str] = {}

    def list_folder(self, folder: str) -> Listing:
        """What is in a folder and, if the lister is recursive, below it; nothing that was listed before."""
        listing = Listing(folder)
        folders: list[str] = []
        links: deque[str] = deque()
        self._add_folder(listing, folder, folders, is_root=True)
        while folders or links:
            # Links come last: a folder with a real path below this one is entered by that path.
            if folders:
                self._read(listing, folders.pop(), folders, links)
            else:
                self._follow(listing, links.popleft(), folders)
        listing.media.sort(key=_place)
        listing.others.sort(key=_place)
        listing.left_out.sort(key=lambda entry: _place(entry.path))
        return listing

    def add(self, path: str) -> bool:
        """Count a file that was named by itself, so that folders do not list it under another name.

        The file may be missing. Returns whether it is new.
        """
        if os.path.exists(path):
            self._files.setdefault(_identity_of_file(os.stat(path), path), os.path.abspath(path))
        return self._found("files", path)

    def first_name(self, path: str) -> str:
        """The absolute path under which an existing file was added or listed first; its own if it is new."""
        return self._files.get(_identity_of_file(os.stat(path), path), os.path.abspath(path))

    def leave_out(self, listing: Listing, path: str, reason: str, detail: object = "", kind: What = "files") -> None:
        """Count a file or a folder as left out."""
        logger.debug("left out %r: %s %s", path, reason, detail)
        self._account.lost(kind, reason)
        listing.left_out.append(LeftOut(kind, path, reason, str(detail)))

    def _found(self, kind: What, path: str) -> bool:
        """Count a path, unless it was counted already. Returns whether it is new."""
        absolute = os.path.abspath(path)
        is_new = absolute not in self._counted
        if is_new:
            self._counted.add(absolute)
            self._account.found(kind)
        return is_new

    def _read(self, listing: Listing, folder: str, folders: list[str], links: deque[str]) -> None:
        try:
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            self.leave_out(listing, folder, UNREADABLE, error.strerror or error, "folders")
            return
        self._account.used("folders")
        below: list[str] = []
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            # Hidden files are no videos, whatever their suffix: macOS stores attributes of talk.mp4 in ._talk.mp4.
            if entry.name.startswith("."):
                kind: What = "folders" if is_folder else "files"
                if self._found(kind, entry.path):
                    self.leave_out(listing, entry.path, HIDDEN, kind=kind)
            elif entry.is_symlink():
                links.append(entry.path)
            elif is_folder:
                self._add_folder(listing, entry.path, below)
            else:
                self._add_file(listing, entry.path)
        folders += reversed(below)  # the last one is read first

    def _follow(self, listing: Listing, link: str, folders: list[str]) -> None:
        try:
            is_folder = stat.S_ISDIR(os.stat(link).st_mode)
        except OSError as error:
            if self._found("files", link):
                self.leave_out(listing, link, BROKEN_LINK, error.strerror or error)
            return
        if is_folder:
            self._add_folder(listing, link, folders)
        else:
            self._add_file(listing, link)

    def _add_folder(self, listing: Listing, path: str, folders: list[str], *, is_root: bool = False) -> None:
        """Put a folder into `folders`, the ones to read, unless it was entered already or is to be left out."""
        is_new = self._found("folders", path)
        try:
            identity = _identity_of_folder(path)
        except OSError as error:
            if is_new:
                self.leave_out(listing, path, UNREADABLE, error.strerror or error, "folders")
            return
        first = self._folders.get(identity)
        if first == os.path.abspath(path):
            listing.was_listed = True
            return
        if identity == self._without:
            reason = OUTPUT
        elif not self._recursive and not is_root:
            reason = SUBFOLDER
        elif first is not None:
            reason = SECOND_WAY
        else:
            if not is_new:  # as a subfolder that was left out; now it is named by itself
                self._account.found("folders")
            self._folders[identity] = os.path.abspath(path)
            folders.append(path)
            return
        listing.was_listed |= reason == SECOND_WAY
        if is_new:
            self.leave_out(listing, path, reason, first or "", "folders")

    def _add_file(self, listing: Listing, path: str) -> None:
        is_new = self._found("files", path)
        try:
            status = os.stat(path)
            is_media = _is_media(path) if stat.S_ISREG(status.st_mode) else None
        except OSError as error:
            # A film that cannot be read is listed, so that it fails with a line of its own.
            if media_suffix(os.path.basename(path)):
                listing.media.append(path)
            elif is_new:
                self.leave_out(listing, path, UNREADABLE, error.strerror or error)
            return
        if is_media is None:
            if is_new:
                self.leave_out(listing, path, SPECIAL)
            return
        if not is_media:
            # Texts with equal content may be one file with many names, and each name has a meaning.
            listing.others.append(path)
            return
        first = self._files.setdefault(_identity_of_file(status, path), os.path.abspath(path))
        if first == os.path.abspath(path):
            listing.media.append(path)
        elif is_new:
            self.leave_out(listing, path, SECOND_NAME, first)


def _is_media(path: str) -> bool:
    """By the suffix, or by the first bytes if the name says nothing. Raises OSError."""
    name = os.path.basename(path)
    if media_suffix(name):
        return True
    if not says_nothing(name):
        return False
    with open(path, "rb") as file:
        return is_media_head(file.read(HEAD_BYTES))


def _identity_of_folder(path: str | Path) -> tuple[object, ...]:
    """The same for all names of a folder. Raises OSError."""
    return _number(os.stat(path), path)


def _identity_of_file(status: os.stat_result, path: str) -> tuple[object, ...]:
    """The same for all names of a file."""
    # Size and time too: where two files share a number by mistake, none of them may be lost.
    return (*_number(status, path), status.st_size, status.st_mtime_ns)


def _number(status: os.stat_result, path: str | Path) -> tuple[object, ...]:
    # Some network file systems number nothing.
    return (status.st_dev, status.st_ino) if status.st_ino else (os.path.realpath(path),)


def _place(path: str) -> tuple[tuple[bool, str], ...]:
    """A key that sorts the files of a folder before its subfolders, each by name."""
    *folders, name = path.split(os.sep)
    return (*((True, folder) for folder in folders), (False, name))


def _suffixes(paths: Iterable[str]) -> str:
    """The most frequent suffixes, such as ".pdf, .srt"."""
    counts = Counter(
        "without suffix" if says_nothing(name) else os.path.splitext(name)[1].strip().lower()
        for name in map(os.path.basename, paths)
    )
    shown = sorted(counts, key=lambda suffix: (-counts[suffix], suffix))[:_MAX_SUFFIXES]
    return ", ".join([*shown, "..."] if len(counts) > len(shown) else shown)
