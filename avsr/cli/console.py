"""What a command says: results on standard output, everything else on standard error.

The progress bar appears only where standard error is a terminal; messages and results pass it without breaking it.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from avsr.errors import AvsrError

BAR_WIDTH = 24

logger = logging.getLogger(__name__)


class UsageError(Exception):
    """The command line asks for something that makes no sense; str() is one line saying what and how to mend it."""


class Console:
    """Results, messages and the progress bar of one command. A context manager; leaving it removes the bar.

    quiet: no bar, notes or warnings; errors and results remain.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self.has_bar = not quiet and sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._bar = ""  # as it stands on the terminal now
        self._start: tuple[float, float] | None = None  # when progress was first made, and how much there was then

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._replace_bar("")

    def result(self, text: str) -> None:
        """Write to standard output at once, so that a reader behind a pipe gets each result as it is ready.

        Raises AvsrError when it cannot be written, BrokenPipeError when nobody reads any more.
        """
        if sys.stdout is None:  # by the caller
            raise AvsrError("standard output is closed", got=f"the result {text.strip()!r}", expected="a place for it")
        encoding = sys.stdout.encoding or "utf-8"
        with self._bar_aside():
            try:
                sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
                sys.stdout.flush()
            except BrokenPipeError:
                raise
            except OSError as error:
                raise AvsrError("standard output cannot be written", got=describe(error)) from error

    def error(self, line: str) -> None:
        """One line about what failed."""
        with self._bar_aside():
            _to_stderr(f"avsr: {printable(line)}\n")

    def note(self, line: str) -> None:
        """One line that the user may want to know; silent when quiet."""
        if not self._quiet:
            self.error(line)

    def progress(self, fraction: float, status: str) -> None:
        """Show how much is done, in [0, 1], with the time that is left at the present pace."""
        if not self.has_bar:
            return
        left = ""
        if self._start is not None:
            start_s, start_fraction = self._start
            if start_fraction < fraction < 1:
                left_s = (time.monotonic() - start_s) * (1 - fraction) / (fraction - start_fraction)
                left = f", {duration(left_s)} left"
        elif fraction > 0:
            self._start = (time.monotonic(), fraction)  # the time before, as for loading a model, says nothing
        filled = round(BAR_WIDTH * fraction)
        line = f"{fraction:4.0%} |{'#' * filled}{'-' * (BAR_WIDTH - filled)}| {status}{left}"
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
            _to_stderr(blank + line)
            self._bar = line


@contextmanager
def messages_on_stderr(*, debug: bool = False) -> Iterator[None]:
    """Show what the package logs as lines like those of Console; with debug everything, tracebacks included.

    Python warnings, which are for developers, are shown with debug only.
    """
    package = logging.getLogger("avsr")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("avsr: %(name)s: %(message)s" if debug else "avsr: %(message)s"))
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.DEBUG if debug else logging.WARNING)
    try:
        with warnings.catch_warnings():
            if not debug and not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)


def printable(text: str) -> str:
    """`text` as it is safe to show in one line: control characters, line breaks and undecodable bytes are escaped.

    A file name may hold anything, also sequences that rewrite a terminal or break a list of one file a line.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def without_name(message: str, path: str) -> str:
    """A message about a file without the file's name in front, which most but not all of them have."""
    return message.removeprefix(f"{' '.join(str(Path(path)).split())}: ")  # as AvsrError prints it


def describe(error: OSError) -> str:
    """One line for an error of the operating system."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def explain(error: Exception) -> AvsrError:
    """Any error as one that prints as one line: what we raise on purpose as it is, a fault of ours as unexpected."""
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
            return AvsrError(describe(error))
        case _:
            what = f"unexpected {type(error).__name__}"
            return AvsrError(what, got=error, remedy="--debug shows where it happened")


def duration(seconds: float) -> str:
    """`M:SS`, or `H:MM:SS` from an hour on."""
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole_seconds:02}" if hours else f"{minutes}:{whole_seconds:02}"


def _to_stderr(text: str) -> None:
    if sys.stderr is not None:  # None when the caller closed it; print() would then write to standard output
        sys.stderr.write(text)
        sys.stderr.flush()
