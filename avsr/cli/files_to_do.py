"""What `avsr transcribe` has to do: the files that its inputs name, and the files to write for each of them."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from avsr.cli.console import Console, UsageError, describe
from avsr.cli.sources import Sources
from avsr.errors import AvsrError


@dataclasses.dataclass(frozen=True)
class File:
    """A file to transcribe."""

    path: str
    relative: Path
    """Where its results belong below --output-dir, with the suffix of the input."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One file to transcribe."""

    path: str
    outputs: tuple[Path, ...] = ()
    """The files to write; empty: the text goes to standard output."""


def find_files(inputs: Sequence[str], *, recursive: bool, console: Console) -> tuple[list[File], int]:
    """All files that the inputs name, in their order and each once; and the number of inputs without any file."""
    files: dict[str, File] = {}
    num_failed = 0

    def fail(line: str) -> None:
        nonlocal num_failed
        num_failed += 1
        console.error(line)

    for name in inputs:
        if os.path.isdir(name):
            failed_before = num_failed
            found = list(_media_files(name, recursive=recursive, on_error=lambda error: fail(describe(error))))
            # A folder that cannot be read has its error already.
            if not found and num_failed == failed_before:
                hint = "name the files" if recursive else "name the files, or add --recursive for subfolders"
                fail(f"{name}: no video or sound files in this folder; {hint}")
        elif os.path.exists(name):
            found = [File(name, Path(Path(name).name))]
        elif re.match("[a-z]+://", name):
            fail(f"{name}: is an address, and only files on this machine are read; download it, and name the file")
            continue
        elif name == "-":
            fail("-: standard input is not read; write it to a file, and name that")
            continue
        else:
            fail(f"{name}: no such file or folder; check the path")
            continue
        for file in found:
            # A file may be named twice, for example by its path and by its folder.
            files.setdefault(os.path.abspath(file.path), file)
    return list(files.values()), num_failed


def _media_files(folder: str, *, recursive: bool, on_error: Callable[[OSError], None]) -> Iterator[File]:
    from avsr.media.types import MEDIA_SUFFIXES  # its package loads the decoders, which --help does not need

    for parent, folders, names in os.walk(folder, onerror=on_error):
        # os.walk enters the folders of this very list, in its order.
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        for name in sorted(names):
            # Hidden files are no videos, whatever their suffix: macOS stores attributes of talk.mp4 in ._talk.mp4.
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in MEDIA_SUFFIXES:
                path = os.path.join(parent, name)
                yield File(path, Path(os.path.relpath(path, folder)))


def plan(files: Sequence[File], folder: Path, formats: Sequence[str]) -> list[Job]:
    """A job for each file, with the files to write. Raises UsageError if two inputs would get the same output file."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output-dir {folder} is a file, not a folder")
    num_with_stem = Counter(file.relative.with_suffix("") for file in files)
    owners: dict[Path, str] = {}
    jobs = []
    for file in files:
        stem = file.relative.with_suffix("")
        if num_with_stem[stem] > 1:
            stem = file.relative  # talk.mp4 and talk.wav beside each other become talk.mp4.txt and talk.wav.txt
        outputs = tuple(folder / f"{stem}.{format_name}" for format_name in formats)
        for output in outputs:
            other = owners.setdefault(output, file.path)
            if other != file.path:
                raise UsageError(
                    f"{other} and {file.path} would both be written to {output}; name a folder that holds both, with"
                    " --recursive, to keep them apart, or transcribe them one at a time"
                )
        jobs.append(Job(file.path, outputs))
    return jobs


def without_finished(jobs: Sequence[Job], sources: Sources, console: Console) -> tuple[list[Job], int, int]:
    """The jobs with the files that they still have to write; the number of finished jobs; the number of refused jobs.

    A job is refused if one of its files exists already and was made from another input.
    """
    remaining = []
    num_kept = num_refused = 0
    for job in jobs:
        there = [output for output in job.outputs if output.exists()]
        # A file of that name may be of another input; keeping it would leave this input without a text.
        others = [(output, sources.other_source(output, job.path)) for output in there]
        output, other = next(((output, other) for output, other in others if other is not None), (None, None))
        if other is not None:
            num_refused += 1
            console.error(
                f"{job.path}: {output} is there already, made from {other}; give another --output-dir, --overwrite to"
                " replace it, or name both inputs in one command to keep them apart"
            )
            continue
        for output in there:
            console.note(f"kept {output}, which was there already; --overwrite replaces it")
        missing = tuple(output for output in job.outputs if output not in there)
        if missing:
            remaining.append(Job(job.path, missing))
        else:
            num_kept += 1
    return remaining, num_kept, num_refused


def check_writable(folder: Path) -> None:
    """Make `folder` and try to write into it, before any work is done. Raises AvsrError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f".{os.urandom(6).hex()}.partial"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise AvsrError(
            f"--output-dir {folder}: cannot be written", got=error.strerror, remedy="give another folder"
        ) from error
