"""avsr transcribe: files and folders to text with times."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from avsr.account import Account
from avsr.cli.arguments import (
    add_device,
    add_language,
    add_layout,
    add_max_hours,
    add_model,
    add_output_dir,
    add_quiet,
    add_search,
    add_tracks,
    face,
    layout_of,
    model_name,
    number_to_1,
    positive_integer,
    search_of,
    tracks_of,
)
from avsr.cli.claims import Claims
from avsr.cli.console import Console, UsageError, explain, messages_on_stderr, printable, without_name
from avsr.cli.files_to_do import FAILED, Job, check_writable, find_files, is_folder, plan, without_finished
from avsr.cli.sources import Sources
from avsr.cli.suggestions import FORMATS as FORMAT_MEANINGS
from avsr.cli.suggestions import suggest
from avsr.errors import AvsrError
from avsr.files import not_written, write_text
from avsr.output import FORMATS, SUBTITLES, render, to_json_line
from avsr.processes import Crew, Report
from avsr.processes import run as run_pool
from avsr.transcript import Transcript

if TYPE_CHECKING:
    from avsr import Search
    from avsr.media import Tracks
    from avsr.offline.transcribe import ModalityChoice
    from avsr.output import Layout

    Outcome = Transcript | AvsrError | None

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
    add_layout(parser)
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
    add_max_hours(parser)
    add(
        "--force",
        action="store_true",
        help="show all words; default: a model that knows certain sentences only shows no words for other speech",
    )
    add(
        "--min-confidence",
        type=number_to_1,
        default=0.0,
        metavar="X",
        help="leave out words whose confidence is below X, from 0 to 1; default 0",
    )
    add_device(parser)
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="precision of the arithmetic; default fp32")
    add("--workers", type=positive_integer, default=1, metavar="N", help="files at a time, each with its own model")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Transcribe all inputs; 0 if every input has its result, 1 if some failed."""
    to_stdout = arguments.output_dir is None
    one_file = len(arguments.inputs) == 1 and not is_folder(arguments.inputs[0])
    # A closed standard output fails now, and not after the first file.
    if to_stdout and sys.stdout is None:
        raise AvsrError("standard output is closed", remedy="open it, or write files with --output-dir")
    if to_stdout and len(arguments.format) > 1:
        raise UsageError("several formats need --output-dir")
    # Only these formats have one line for a file, so that several files can be told apart.
    if to_stdout and not one_file and arguments.format[0] not in ("txt", "json"):
        raise UsageError(f"--format {arguments.format[0]} of several inputs needs --output-dir")
    layout_of(arguments)  # a mistake shows now, and not after the first file

    with Console(quiet=arguments.quiet) as console:
        account = Account()
        files, num_failed_folders = find_files(
            arguments.inputs, recursive=arguments.recursive, account=account, console=console
        )
        if to_stdout and files:
            _transcribe([Job(file.path) for file in files], arguments, console, account, None, one_file=one_file)
        if not to_stdout:
            jobs = plan(files, arguments.output_dir, arguments.format)
            num_kept = _fill_folder(jobs, arguments, console, account, one_file=one_file)
            if not one_file:
                console.note(_summary(account, num_kept, num_failed_folders))
    return 1 if account["files"].lost[FAILED] or num_failed_folders else 0


def _fill_folder(
    jobs: Sequence[Job], arguments: argparse.Namespace, console: Console, account: Account, *, one_file: bool
) -> int:
    """Do all jobs that --output-dir has no results of. Returns the number of the others."""
    folder: Path = arguments.output_dir
    sources = Sources(folder)
    num_kept = 0
    while jobs:
        if not arguments.overwrite:
            jobs, num_finished = without_finished(jobs, sources, account, console)
            num_kept += num_finished
        if jobs:
            check_writable(folder)
            jobs = _transcribe(jobs, arguments, console, account, sources, one_file=one_file)
        for job in jobs:
            _wait_for_other_run(job, folder, console)
        sources.read()
    return num_kept


def _wait_for_other_run(job: Job, folder: Path, console: Console) -> None:
    claims = Claims(folder)
    if not claims.take(job.stem):
        console.note(f"{job.path}: waiting for another run, which is working on it")
        claims.take(job.stem, wait=True)
    claims.give_up()


def _summary(account: Account, num_kept: int, num_failed_folders: int) -> str:
    """One line that names every file once."""
    files = account["files"]
    failed = files.lost[FAILED]
    left_out = files.lost.total() - failed
    line = f"{files.used - num_kept} transcribed, {num_kept} kept, {failed} failed"
    line += f", {left_out} left out" if left_out else ""
    plural = "" if num_failed_folders == 1 else "s"
    return line + (f"; {num_failed_folders} folder{plural} failed" if num_failed_folders else "")


def open_work(
    *,
    model: str,
    device: str,
    precision: str,
    modality: ModalityChoice,
    face: str,
    search: Search,
    tracks: Tracks,
    force: bool,
    min_confidence: float,
    max_hours: float,
    with_progress: bool,
    shared_folder: Path | None,
) -> Callable[[Job, Report], Transcript | None]:
    """Load the model and return a function that transcribes one file with it. Raises ModelError.

    shared_folder: the folder of the results, in which other runs may be at work; None if that does not matter. The
        function returns None if another run is working on the file, or has transcribed it.
    """
    import avsr

    dtype = "bfloat16" if precision == "bf16" else None
    recognizer = avsr.load(model, device=device, dtype=dtype)

    claims = None if shared_folder is None else Claims(shared_folder)

    def transcribe(job: Job, on_fraction: Report) -> Transcript | None:
        if claims is not None and (not claims.take(job.stem) or job.is_finished):
            return None
        path = job.path
        on_progress = _as_seconds(path, on_fraction, max_hours) if with_progress else None
        return recognizer.transcribe(
            path,
            modality=modality,
            face=face,
            search=search,
            tracks=tracks,
            force=force,
            min_confidence=min_confidence,
            max_hours=max_hours,
            on_progress=on_progress,
        )

    return transcribe


def _as_seconds(path: str, on_fraction: Callable[[float], None], max_hours: float) -> Callable[[float], None] | None:
    """A callback that takes seconds done and passes the fraction done on; None if the file's length is not known."""
    from avsr.media import probe

    total_s = probe(path, max_hours=max_hours).duration_s
    return (lambda done_s: on_fraction(min(1.0, done_s / total_s))) if total_s else None


def _transcribe(
    jobs: Sequence[Job],
    arguments: argparse.Namespace,
    console: Console,
    account: Account,
    sources: Sources | None,
    *,
    one_file: bool,
) -> list[Job]:
    """Do all jobs, but for those that another run is working on, which are returned.

    account: gets the files that are done as used, and those that failed.
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
        force=arguments.force,
        min_confidence=arguments.min_confidence,
        max_hours=arguments.max_hours,
        # Without a bar nobody sees the progress, so that processes need not send it.
        with_progress=console.has_bar,
        shared_folder=arguments.output_dir if sources is not None and not arguments.overwrite else None,
    )
    layout = layout_of(arguments)
    num_done = 0
    left: list[Job] = []
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
    outcomes = run_pool(opener, jobs, crew, on_report=on_progress)
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
                account.lost("files", FAILED)
                continue
            if outcome is None:  # another run is working on it, or has done it
                left.append(job)
                continue
            for warning in outcome.warnings:
                about_model = warning.startswith(f"model {outcome.model} ")
                if about_model and warning in said:
                    continue  # true of every file, so a folder gets it once
                said.add(warning)
                console.note(f"{job.path}: warning: {without_name(warning, job.path)}")
            if sources is None:
                console.result(_as_result(outcome, job.path, arguments.format[0], layout, one_file=one_file))
                account.used("files")
                continue
            match _write(outcome, job, sources, console, layout, overwrite=arguments.overwrite):
                case "written":
                    account.used("files")
                case "failed":
                    account.lost("files", FAILED)
                case "there already":
                    left.append(job)
    return left


def _as_result(transcript: Transcript, path: str, format_name: str, layout: Layout | None, *, one_file: bool) -> str:
    """The text for standard output of one file."""
    if format_name == "json":
        return to_json_line(transcript)
    if one_file:
        return render(transcript, format_name, layout)
    # One line a file: a line break in a name or a text would look like another file.
    return f"{printable(path)}\t{' '.join(transcript.text.split())}\n"


def _write(
    transcript: Transcript,
    job: Job,
    sources: Sources,
    console: Console,
    layout: Layout | None,
    *,
    overwrite: bool,
) -> Literal["written", "failed", "there already"]:
    """Write the files of a job. A file that cannot be written is an error on the console and costs no other."""
    num_failed = num_there = 0
    for output in job.outputs:
        # Another run may have written it in the meantime.
        if not overwrite and os.path.exists(output):
            num_there += 1
            continue
        try:
            format_name = output.suffix.removeprefix(".")
            text = render(transcript, format_name, layout if format_name in SUBTITLES else None)
            # The record goes before the new file and behind its text: each is there with the other, or not at all.
            write_text(output, text, before=functools.partial(sources.record, output, job.path))
        except OSError as error:
            sources.keep(output)
            console.error(str(not_written(output, error)))
            num_failed += 1
        else:
            console.note(f"wrote {output}")
    return "failed" if num_failed else "there already" if num_there == len(job.outputs) else "written"


def _in_order(outcomes: Iterable[tuple[int, Outcome]]) -> Iterator[tuple[int, Outcome]]:
    """The same outcomes in the order of their index; an outcome that comes early waits for the ones before it."""
    held = {}
    next_index = 0
    for index, outcome in outcomes:
        held[index] = outcome
        while next_index in held:
            yield next_index, held.pop(next_index)
            next_index += 1


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.lower().split(",")))
    for name in names:
        if name not in FORMATS:
            close = suggest(name, FORMATS, FORMAT_MEANINGS)
            hint = f"; did you mean {close}?" if close else ""
            raise argparse.ArgumentTypeError(f"got {name!r}, expected {', '.join(FORMATS)}{hint}")
    return names
