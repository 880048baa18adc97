"""Output of a command: results on standard output, everything else on standard error.

The progress bar appears only if standard error is a terminal. It is removed before a message or a result is written
and drawn again below it.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TextIO

from avsr.errors import AvsrError
from avsr.files import file_error, remedy_for
from avsr.surroundings import quiet_matplotlib

BAR_WIDTH = 24

logger = logging.getLogger(__name__)


class UsageError(Exception):
    """The command line is wrong; str() is one line with the mistake and the remedy."""


class Console:
    """Results, messages and the progress bar of one command. A context manager; leaving it removes the bar.

    quiet: show no bar and no notes; errors and results remain.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self.has_bar = not quiet and sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._bar = ""  # the line that the terminal shows now
        self._start: tuple[float, float] | None = None  # time of the first progress, and the fraction done by then

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._replace_bar("")

    def result(self, text: str) -> None:
        """Write to standard output at once, so that a reader behind a pipe gets each finished result.

        Raises AvsrError if the text cannot be written, BrokenPipeError if the reader of a pipe has gone.
        """
        if sys.stdout is None:  # the program that started this one closed it
            raise AvsrError("standard output is closed", got=f"the result {text.strip()!r}", expected="a place for it")
        encoding = sys.stdout.encoding or "utf-8"
        with self._bar_aside():
            try:
                # The terminal may lack a letter of the words, and an error would lose the whole result.
                sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
                sys.stdout.flush()
            # A closed pipe is no failure to report: main() gives it an exit code of its own.
            except BrokenPipeError:
                raise
            except OSError as error:
                raise AvsrError(
                    "standard output cannot be written", got=describe(error), remedy=remedy_for(error)
                ) from error

    def error(self, line: str) -> None:
        """One line about what failed."""
        with self._bar_aside():
            to_stderr(f"avsr: {printable(line)}\n")

    def note(self, line: str) -> None:
        """One line that the user may want to know; nothing if quiet."""
        if not self._quiet:
            self.error(line)

    def progress(self, fraction: float, status: str) -> None:
        """Draw the bar, with the time that is left at the present pace.

        fraction: how much is done, from 0 to 1.
        status: text beside the bar, such as "3/8 files".
        """
        if not self.has_bar:
            return
        left = ""
        if self._start is not None:
            start_s, start_fraction = self._start
            if start_fraction < fraction < 1:
                left_s = (time.monotonic() - start_s) * (1 - fraction) / (fraction - start_fraction)
                left = f", {duration(left_s)} left"
        elif fraction > 0:
            # The pace is measured from here: the time before went into loading a model, not into files.
            self._start = (time.monotonic(), fraction)
        filled = round(BAR_WIDTH * fraction)
        line = f"{fraction:4.0%} |{'#' * filled}{'-' * (BAR_WIDTH - filled)}| {status}{left}"
        # A line as wide as the terminal would wrap, and a carriage return could not erase it.
        self._replace_bar(line[: shutil.get_terminal_size().columns - 1])

    @contextmanager
    def _bar_aside(self) -> Iterator[None]:
        bar = self._bar
        self._replace_bar("")
        yield
        self._replace_bar(bar)

    def _replace_bar(self, line: str) -> None:
        if line != self._bar:
            blank = "\r" + " " * len(self._bar) + "\r"
            to_stderr(blank + line)
            self._bar = line


@contextmanager
def messages_on_stderr(*, debug: bool = False) -> Iterator[None]:
    """Show the log messages of the package as lines that look like the lines of Console.

    debug: also show messages of the levels INFO and DEBUG, with tracebacks, and Python's warnings for developers.
    """
    package = logging.getLogger("avsr")
    handler = logging.StreamHandler()
    handler.setFormatter(_LineFormatter("avsr: %(name)s: %(message)s" if debug else "avsr: %(message)s"))
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.DEBUG if debug else logging.WARNING)
    try:
        with warnings.catch_warnings(), nullcontext() if debug else quiet_matplotlib():
            # Whoever runs Python with -W asked for the warnings.
            if not debug and not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)


class _LineFormatter(logging.Formatter):
    """Messages may quote a stranger's file; a traceback below them keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of the base class
        return printable(super().formatMessage(record))


def printable(text: str) -> str:
    """`text` on one line that is safe to print: control characters, line breaks and undecodable bytes are escaped.

    A file name may contain a line break, which would break a list of one file a line, and sequences that make a
    terminal overwrite what it shows.
    """
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    """A character as Python writes it in a string; for a byte that is no UTF-8, the byte."""
    if "\udc80" <= character <= "\udcff":  # Python's form of such a byte in a file name
        return rf"\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def without_name(message: str, path: str) -> str:
    """A message about a file without the file's name in front; the same message if it does not begin with the name."""
    return message.removeprefix(f"{' '.join(str(Path(path)).split())}: ")  # AvsrError prints the name like this


def describe(error: OSError) -> str:
    """One line for an error of the operating system, with the file if it names one."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def explain(error: Exception) -> AvsrError:
    """Any error as an error that prints as one line. An error that nobody raised on purpose is called unexpected."""
    logger.debug("traceback", exc_info=error)
    match error:
        case AvsrError():
            return error
        case ImportError() if ".so" in str(error):
            remedy = "install the system package that has it; on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0"
            return AvsrError("a system library is missing", got=error, remedy=remedy)
        case ImportError():
            return AvsrError("a package is missing", got=error, remedy="install avsr again, with its dependencies")
        case OSError():
            return file_error(error)
        case _:
            what = f"unexpected {type(error).__name__}"
            return AvsrError(what, got=error, remedy="--debug shows where it happened")


def duration(seconds: float) -> str:
    """A time as `M:SS`, or as `H:MM:SS` from one hour on."""
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole_seconds:02}" if hours else f"{minutes}:{whole_seconds:02}"


def to_stderr(text: str) -> None:
    """Write `text` unchanged to standard error, at once. A message that cannot be written must not cost the results."""
    # None if the program that started this one closed it; print() would then write to standard output.
    if sys.stderr is not None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Drop the text that `stream` still holds for a place that takes none. Flushing it at exit would fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    except (OSError, ValueError):  # not a real file, as in tests
        logger.debug("an output has no file descriptor")
    finally:
        os.close(nowhere)
