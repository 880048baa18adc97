"""What `avsr transcribe` has to do: the files that its inputs name, and the files to write for each of them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avsr.account import Account
from avsr.cli.console import Console, UsageError
from avsr.cli.sources import Sources
from avsr.errors import AvsrError
from avsr.files import local_path, remedy_for

if TYPE_CHECKING:
    from avsr.media.folders import Lister

FAILED = "failed"
"""In the account, the reason of files that were to be transcribed and have no result."""

_NAME_BYTES = 255


@dataclasses.dataclass(frozen=True)
class File:
    """A file to transcribe."""

    path: str
    relative: str
    """Where its results belong below --output-dir, with the suffix of the input."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One file to transcribe."""

    path: str
    stem: str = ""
    """Path of the results below --output-dir, without suffix."""
    outputs: tuple[Path, ...] = ()
    """The files to write; empty: the text goes to standard output."""

    @property
    def is_finished(self) -> bool:
        """Whether all files to write are there."""
        return bool(self.outputs) and all(map(os.path.exists, self.outputs))


def find_files(inputs: Sequence[str], *, recursive: bool, account: Account, console: Console) -> tuple[list[File], int]:
    """All files that the inputs name, in their order and each once; and the number of folders that failed.

    A second name of a file, such as a link to it, is no second file, as in folders.

    account: gets all files and folders that were found, and counts left-out files and folders as lost. An input that
        does not exist counts as a file that failed.
    """
    from avsr.media.folders import SECOND_NAME, Lister  # its package loads the decoders, which --help does not need

    lister = Lister(account, recursive=recursive)
    files: dict[str, File] = {}
    num_failed_folders = 0
    for name in inputs:
        try:
            path = _existing(name)
        except AvsrError as error:
            if lister.add(name):
                account.lost("files", FAILED)
            console.error(f"{name}: {error}" if name else str(error))
            continue
        if os.path.isdir(path):
            found, is_whole = _files_in(path, lister, console, recursive=recursive)
            num_failed_folders += not is_whole
        else:
            found = [File(path, os.path.basename(path))]
            is_new = lister.add(path)
            first = files.get(lister.first_name(path))
            if first is not None and os.path.abspath(first.path) != os.path.abspath(path):
                if is_new:
                    account.lost("files", SECOND_NAME)
                console.note(f"{path} is another name of {first.path}: done once")
                continue
        for file in found:
            # A file may be named twice, for example by its path and by its folder.
            if files.setdefault(os.path.abspath(file.path), file) is not file:
                console.note(f"{file.path} is named twice: done once")
    return list(files.values()), num_failed_folders


def is_folder(name: str) -> bool:
    """Whether an input is a folder."""
    try:
        return os.path.isdir(local_path(name))
    except AvsrError:
        return False


def _existing(name: str) -> str:
    """The path of an input. Raises AvsrError if there is no such file or folder."""
    if name == "-":
        raise AvsrError("standard input is not read", remedy="write it to a file, and name that")
    path = local_path(name)
    if not os.path.exists(path):
        what = "link to a missing file" if os.path.islink(path) else "no such file or folder"
        raise AvsrError(what, remedy="check the path")
    return path


def _files_in(folder: str, lister: Lister, console: Console, *, recursive: bool) -> tuple[list[File], bool]:
    """The media files of a folder, and whether the folder and its subfolders could be read and hold any."""
    from avsr.media.folders import NO_MEDIA, SUBFOLDER, UNREADABLE, Listing

    listing = lister.list_folder(folder)
    if listing == Listing(folder, was_listed=True):
        console.note(f"{folder} is named twice, by itself or in another folder: done once")
    unreadable = [entry for entry in listing.left_out if (entry.kind, entry.reason) == ("folders", UNREADABLE)]
    for entry in unreadable:
        console.error(f"{entry.path}: {entry.detail}")
        listing.left_out.remove(entry)  # it has its line
    for path in listing.others:
        lister.leave_out(listing, path, NO_MEDIA)
    is_empty = not listing.media and not unreadable and not listing.was_listed
    line = listing.line()
    # Of a folder with nothing but texts, the line of the error says enough.
    if line is not None and not (is_empty and all(entry.reason == NO_MEDIA for entry in listing.left_out)):
        hint = "; --recursive enters subfolders" if any(e.reason == SUBFOLDER for e in listing.left_out) else ""
        console.note(f"{line}{hint}; --debug names each")
    if is_empty:
        hint = "name the files" if recursive else "name the files, or add --recursive for subfolders"
        console.error(f"{folder}: no video or sound files in this folder; {hint}")
        return [], False
    return [File(path, os.path.relpath(path, folder)) for path in listing.media], not unreadable


def plan(files: Sequence[File], folder: Path, formats: Sequence[str]) -> list[Job]:
    """A job for each file, with the files to write. Raises UsageError if two inputs would get the same output file."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output-dir {folder} is a file, not a folder")
    max_bytes = _max_name_bytes(folder)
    owners: dict[Path, str] = {}
    jobs = []
    for file, stem in zip(files, _stems(files), strict=True):
        outputs = tuple(folder / _fitting(stem, f".{format_name}", max_bytes) for format_name in formats)
        for output in outputs:
            other = owners.setdefault(output, file.path)
            if other != file.path:
                raise UsageError(
                    f"{other} and {file.path} would both be written to {output}; name a folder that holds both, with"
                    " --recursive, to keep them apart, or transcribe them one at a time"
                )
        jobs.append(Job(file.path, stem, outputs))
    return jobs


def _stems(files: Sequence[File]) -> list[str]:
    """Where the results of each file belong below --output-dir, without the suffix of the format."""
    from avsr.media.types import media_stem

    stems = {file.path: media_stem(file.relative) for file in files}
    while True:
        counts = Counter(stems.values())
        # talk.mp4 and talk.wav beside each other become talk.mp4.txt and talk.wav.txt. That takes the name of
        # talk.mp4.mp4, which becomes talk.mp4.mp4.txt in the next round.
        longer = {
            file.path: file.relative
            for file in files
            if counts[stems[file.path]] > 1 and stems[file.path] != file.relative
        }
        if not longer:
            return [stems[file.path] for file in files]
        stems |= longer


def _max_name_bytes(folder: Path) -> int:
    """How long a name in `folder`, which may be missing, can be."""
    for parent in (folder, *folder.absolute().parents):
        try:
            return os.pathconf(parent, "PC_NAME_MAX")
        except (OSError, ValueError):
            continue
    return _NAME_BYTES


def _fitting(stem: str, suffix: str, max_bytes: int) -> str:
    """`stem` with `suffix`. If the name would be too long, its end becomes "~" and a hash."""
    parent, name = os.path.split(stem)
    if len(os.fsencode(name + suffix)) > max_bytes:
        suffix = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}{suffix}"
        while len(os.fsencode(name + suffix)) > max_bytes:
            name = name[:-1]
    return os.path.join(parent, name + suffix)


def without_finished(
    jobs: Sequence[Job], sources: Sources, account: Account, console: Console
) -> tuple[list[Job], int]:
    """The jobs with the files that they still have to write, and the number of finished jobs.

    A job fails if one of its files exists already and was made from another input.
    """
    remaining = []
    num_kept = 0
    for job in jobs:
        there = [output for output in job.outputs if os.path.exists(output)]
        # A file of that name may be of another input; keeping it would leave this input without a text.
        foreign = next((line for output in there if (line := made_from_another(output, job, sources))), None)
        if foreign:
            account.lost("files", FAILED)
            console.error(foreign)
            continue
        for output in there:
            console.note(f"kept {output}, which was there already; --overwrite replaces it")
        missing = tuple(output for output in job.outputs if output not in there)
        if missing:
            remaining.append(dataclasses.replace(job, outputs=missing))
        else:
            account.used("files")
            num_kept += 1
    return remaining, num_kept


def made_from_another(output: Path, job: Job, sources: Sources) -> str | None:
    """One line if `output` was made from another input than the one of `job`; None if not."""
    other = sources.other_source(output, job.path)
    if other is None:
        return None
    return (
        f"{job.path}: {output} is there already, made from {other}; give another --output-dir, --overwrite to"
        " replace it, or name both inputs in one command to keep them apart"
    )


def check_writable(folder: Path) -> None:
    """Make `folder` and try to write into it, before any work is done. Raises AvsrError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f".{os.urandom(6).hex()}.partial"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise AvsrError(
            f"--output-dir {folder}: cannot be written",
            got=error.strerror,
            remedy=remedy_for(error) or "give another folder",
        ) from error
