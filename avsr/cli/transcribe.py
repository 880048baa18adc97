"""avsr transcribe: files and folders to text with times."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from avsr.cli.arguments import (
    add_device,
    add_language,
    add_model,
    add_output_dir,
    add_quiet,
    add_search,
    add_tracks,
    face,
    model_name,
    positive_integer,
    search_of,
    tracks_of,
)
from avsr.cli.console import Console, UsageError, describe, explain, messages_on_stderr, printable, without_name
from avsr.cli.sources import Sources
from avsr.cli.suggestions import FORMATS as FORMAT_MEANINGS
from avsr.cli.suggestions import suggest
from avsr.errors import AvsrError
from avsr.output import FORMATS, render, to_json_line, write
from avsr.processes import Crew, Report
from avsr.processes import run as run_pool
from avsr.transcript import Transcript

if TYPE_CHECKING:
    from avsr import Search
    from avsr.media import Tracks
    from avsr.offline.transcribe import ModalityChoice

DESCRIPTION = (
    "Transcribe video and sound files. The text goes to standard output or, with --output-dir, into files.\n"
    "On standard output several inputs, or a folder, give one line for each file: PATH<TAB>text, or JSON."
)
EXAMPLE = "avsr transcribe talk.mp4 lectures/ --format srt,json --output-dir subtitles"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr transcribe`."""
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="video or sound file, or folder of such files")
    add("--recursive", action="store_true", help="also search the subfolders of folders")
    add(
        "-f",
        "--format",
        type=_formats,
        default=("txt",),
        metavar="FORMAT",
        help=f"{', '.join(FORMATS)}; several are joined by commas; default txt",
    )
    add_output_dir(parser, "write files here, in the same subfolders as in an INPUT folder")
    add("--overwrite", action="store_true", help="replace files that DIR already has; default: keep them")
    add_model(parser)
    add_language(parser)
    add_search(parser)
    add("--modality", choices=("auto", "av", "a", "v"), default="auto", help="use sound, lips, or both; default auto")
    add(
        "--face",
        type=face,
        default="auto",
        metavar="auto|largest|ID",
        help="whose lips to read; auto: the speaker's; ID: a number from the JSON format",
    )
    add_tracks(parser)
    add_device(parser)
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="precision of the arithmetic; default fp32")
    add("--workers", type=positive_integer, default=1, metavar="N", help="files at a time, each with its own model")
    add_quiet(parser)


@dataclasses.dataclass(frozen=True)
class _File:
    """A file to transcribe."""

    path: str
    relative: Path
    """Where its results belong below --output-dir, with the suffix of the input."""


@dataclasses.dataclass(frozen=True)
class _Job:
    """One file to transcribe."""

    path: str
    outputs: tuple[Path, ...] = ()
    """The files to write; empty: the text goes to standard output."""


def run(arguments: argparse.Namespace) -> int:
    """Transcribe all inputs; 0 if every input has its result, 1 if some failed."""
    to_stdout = arguments.output_dir is None
    one_file = len(arguments.inputs) == 1 and not os.path.isdir(arguments.inputs[0])
    # A closed standard output fails now, and not after the first file.
    if to_stdout and sys.stdout is None:
        raise AvsrError("standard output is closed", remedy="open it, or write files with --output-dir")
    if to_stdout and len(arguments.format) > 1:
        raise UsageError("several formats need --output-dir")
    # Only these formats have one line for a file, so that several files can be told apart.
    if to_stdout and not one_file and arguments.format[0] not in ("txt", "json"):
        raise UsageError(f"--format {arguments.format[0]} of several inputs needs --output-dir")

    with Console(quiet=arguments.quiet) as console:
        files, num_missing = _find_files(arguments.inputs, recursive=arguments.recursive, console=console)
        num_kept = num_refused = 0
        sources = None
        if to_stdout:
            jobs = [_Job(file.path) for file in files]
        else:
            jobs = _plan(files, arguments.output_dir, arguments.format)
            sources = Sources(arguments.output_dir)
            if not arguments.overwrite:
                jobs, num_kept, num_refused = _without_finished(jobs, sources, console)
            if jobs:
                _check_writable(arguments.output_dir)
        num_failed = _transcribe(jobs, arguments, console, sources, one_file=one_file) if jobs else 0
        num_failed_in_all = num_failed + num_missing + num_refused
        if not to_stdout and not one_file:
            console.note(f"{len(jobs) - num_failed} transcribed, {num_kept} kept, {num_failed_in_all} failed")
    return 1 if num_failed_in_all else 0


def open_work(
    *,
    model: str,
    device: str,
    precision: str,
    modality: ModalityChoice,
    face: str,
    search: Search,
    tracks: Tracks,
    with_progress: bool,
) -> Callable[[str, Report], Transcript]:
    """Load the model and return a function that transcribes one file with it. Raises ModelError."""
    import avsr

    dtype = "bfloat16" if precision == "bf16" else None
    recognizer = avsr.load(model, device=device, dtype=dtype)

    def transcribe(path: str, on_fraction: Report) -> Transcript:
        on_progress = _as_seconds(path, on_fraction) if with_progress else None
        return recognizer.transcribe(
            path, modality=modality, face=face, search=search, tracks=tracks, on_progress=on_progress
        )

    return transcribe


def _as_seconds(path: str, on_fraction: Callable[[float], None]) -> Callable[[float], None] | None:
    """A callback that takes seconds done and passes the fraction done on; None if the file's length is not known."""
    from avsr.media import probe

    total_s = probe(path).duration_s
    return (lambda done_s: on_fraction(min(1.0, done_s / total_s))) if total_s else None


def _transcribe(
    jobs: Sequence[_Job], arguments: argparse.Namespace, console: Console, sources: Sources | None, *, one_file: bool
) -> int:
    """Do all jobs and return how many failed.

    sources: the record of the output folder; None if results go to standard output.
    one_file: the command line names a single file, not a folder or several files.
    """
    opener = functools.partial(
        open_work,
        model=model_name(arguments, console.note),
        device=arguments.device,
        precision=arguments.precision,
        modality=arguments.modality,
        face=arguments.face,
        search=search_of(arguments),
        tracks=tracks_of(arguments),
        # Without a bar nobody sees the progress, so that processes need not send it.
        with_progress=console.has_bar,
    )
    num_done = num_failed = 0
    said: set[str] = set()
    under_way: dict[int, float] = {}

    def show() -> None:
        console.progress((num_done + sum(under_way.values())) / len(jobs), f"{num_done}/{len(jobs)} files")

    def on_progress(index: int, fraction: float) -> None:
        under_way[index] = fraction
        show()

    crew = Crew(
        # A single file gains nothing from another process, which takes seconds to start.
        workers=min(arguments.workers, len(jobs)) if arguments.workers > 1 and len(jobs) > 1 else 0,
        explain=explain,
        # A spawned process does not inherit the handlers of the log.
        around=functools.partial(messages_on_stderr, debug=arguments.debug),
    )
    outcomes = run_pool(opener, [job.path for job in jobs], crew, on_report=on_progress)
    show()
    with closing(outcomes):
        # Files may be written as they come, but lines on standard output follow the order of the inputs.
        for index, outcome in outcomes if arguments.output_dir else _in_order(outcomes):
            under_way.pop(index, None)
            num_done += 1
            show()
            job = jobs[index]
            if isinstance(outcome, AvsrError):
                console.error(f"{job.path}: {without_name(str(outcome), job.path)}")
                num_failed += 1
                continue
            for warning in outcome.warnings:
                about_model = warning.startswith(f"model {outcome.model} ")
                if about_model and warning in said:
                    continue  # true of every file, so a folder gets it once
                said.add(warning)
                console.note(f"{job.path}: warning: {without_name(warning, job.path)}")
            if sources is None:
                console.result(_as_result(outcome, job.path, arguments.format[0], one_file=one_file))
            elif not _write(outcome, job, sources, console, overwrite=arguments.overwrite):
                num_failed += 1
    return num_failed


def _as_result(transcript: Transcript, path: str, format_name: str, *, one_file: bool) -> str:
    """The text for standard output of one file."""
    if format_name == "json":
        return to_json_line(transcript)
    if one_file:
        return render(transcript, format_name)
    # One line a file: a line break in a name or a text would look like another file.
    return f"{printable(path)}\t{' '.join(transcript.text.split())}\n"


def _write(transcript: Transcript, job: _Job, sources: Sources, console: Console, *, overwrite: bool) -> bool:
    """Write the files of a job. Returns False, after an error on the console, if one of them cannot be written."""
    for output in job.outputs:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            write(transcript, output, overwrite=overwrite)
            sources.record(output, job.path)
        except AvsrError as error:
            console.error(str(error))
            return False
        except OSError as error:
            console.error(f"{output}: cannot be written: {describe(error)}")
            return False
        console.note(f"wrote {output}")
    return True


def _check_writable(folder: Path) -> None:
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


def _in_order(outcomes: Iterable[tuple[int, Transcript | AvsrError]]) -> Iterator[tuple[int, Transcript | AvsrError]]:
    """The same outcomes in the order of their index; an outcome that comes early waits for the ones before it."""
    held = {}
    next_index = 0
    for index, outcome in outcomes:
        held[index] = outcome
        while next_index in held:
            yield next_index, held.pop(next_index)
            next_index += 1


def _find_files(inputs: Sequence[str], *, recursive: bool, console: Console) -> tuple[list[_File], int]:
    """All files that the inputs name, in their order and each once; and the number of inputs without any file."""
    files: dict[str, _File] = {}
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
            found = [_File(name, Path(Path(name).name))]
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


def _media_files(folder: str, *, recursive: bool, on_error: Callable[[OSError], None]) -> Iterator[_File]:
    from avsr.media.types import MEDIA_SUFFIXES  # its package loads the decoders, which --help does not need

    for parent, folders, names in os.walk(folder, onerror=on_error):
        # os.walk enters the folders of this very list, in its order.
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        for name in sorted(names):
            # Hidden files are no videos, whatever their suffix: macOS stores attributes of talk.mp4 in ._talk.mp4.
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in MEDIA_SUFFIXES:
                path = os.path.join(parent, name)
                yield _File(path, Path(os.path.relpath(path, folder)))


def _plan(files: Sequence[_File], folder: Path, formats: Sequence[str]) -> list[_Job]:
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
        jobs.append(_Job(file.path, outputs))
    return jobs


def _without_finished(jobs: Sequence[_Job], sources: Sources, console: Console) -> tuple[list[_Job], int, int]:
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
            remaining.append(_Job(job.path, missing))
        else:
            num_kept += 1
    return remaining, num_kept, num_refused


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.lower().split(",")))
    for name in names:
        if name not in FORMATS:
            close = suggest(name, FORMATS, FORMAT_MEANINGS)
            hint = f"; did you mean {close}?" if close else ""
            raise argparse.ArgumentTypeError(f"got {name!r}, expected {', '.join(FORMATS)}{hint}")
    return names
