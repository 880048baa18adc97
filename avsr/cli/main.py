"""Entry point of the `avsr` command: finds the subcommand, and turns whatever happens into an exit code.

    0    all done
    1    something failed; what could be done is done
    2    wrong usage
    130  interrupted
    141  the reader of our output has gone

The last two are 128 + SIGINT and 128 + SIGPIPE, which is what the shell shows for other programs.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from avsr import __version__
from avsr.cli import bench, compare, doctor, evaluate, import_, models, noise, prepare, serve, stream, train, transcribe
from avsr.cli.console import Console, UsageError, explain, messages_on_stderr
from avsr.errors import nearest

COMMANDS = {
    "transcribe": transcribe,
    "stream": stream,
    "doctor": doctor,
    "serve": serve,
    "prepare": prepare,
    "train": train,
    "noise": noise,
    "evaluate": evaluate,
    "compare": compare,
    "bench": bench,
    "import": import_,
    "models": models,
}

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (its words after `avsr`; None for those of this process). Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    with messages_on_stderr(debug="--debug" in words), _terminable():
        try:
            try:
                code = _run(words)
            except SystemExit as stop:  # by argparse after --help and --version, by SIGTERM
                code = stop.code if isinstance(stop.code, int) else 0
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk or a closed pipe shows here and not as noise at the very end
            return code
        except KeyboardInterrupt:
            Console(quiet="--quiet" in words).note("interrupted")
            return 130
        except BrokenPipeError:
            _discard_output()
            return 141
        except UsageError as error:
            Console().error(str(error))
            return 2
        except Exception as error:
            Console().error(str(explain(error)))
            return 1


def argument_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of one command, or of what comes before a command."""
    if command is None:
        summaries = "\n".join(f"  {name:12}{module.SUMMARY}" for name, module in COMMANDS.items())
        parser = _Parser(
            "avsr",
            usage="avsr COMMAND ...",
            description="Audio-visual speech recognition: sound and lips of a video to text with times.",
            epilog=f"commands:\n{summaries}\n\nexample:\n  {transcribe.EXAMPLE}\n\navsr COMMAND --help tells more.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        parser.add_argument("--version", action="version", version=f"avsr {__version__}")
        return parser

    module = COMMANDS[command]
    parser = _Parser(
        f"avsr {command}",
        description=module.DESCRIPTION,
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an option that is added later must not change what a script means
    )
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show tracebacks and log messages")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help explains)")


def _run(words: list[str]) -> int:
    command = words[0] if words else ""
    if command in COMMANDS:
        return COMMANDS[command].run(_parse(argument_parser(command), words[1:]))
    if command.startswith("-"):
        _parse(argument_parser(), words)
        command = next((word for word in words if not word.startswith("-")), "")
    if not command:
        raise UsageError("no command given (avsr --help lists them)")
    close = nearest(command, COMMANDS)
    raise UsageError(f"unknown command {command}" + (f"; did you mean {close}?" if close else " (see avsr --help)"))


def _parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    # Intermixed, so that files may stand before, between and after options. That way of parsing forgets the meaning of
    # "--", after which a file may begin with a dash; "./" in front of such a file says the same.
    if "--" in words:
        end = words.index("--")
        words = words[:end] + [f"./{word}" if word.startswith("-") else word for word in words[end + 1 :]]
    arguments, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        word = unknown[0].partition("=")[0]
        if not word.startswith("-"):
            parser.error(f"{word} is one argument too many")
        known = [option for option in parser._option_string_actions if option.startswith("--")]
        close = nearest(word, known)
        parser.error(f"unknown option {word}" + (f"; did you mean {close}?" if close else ""))
    return arguments


@contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM unwind like Ctrl-C, so that it too leaves whole files and no processes behind."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may change this
        yield
        return

    def stop(signal_number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + signal_number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _discard_output() -> None:
    """Let what is still buffered for the closed pipe go nowhere; flushing it at exit would complain again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):  # not a real file, as in tests
        logger.debug("standard output has no file descriptor")
    finally:
        os.close(nowhere)
