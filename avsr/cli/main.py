"""Entry point of the `avsr` command: finds the command, runs it, and turns whatever happens into an exit code.

    0    everything was done
    1    something failed; the rest was done where that is possible
    2    wrong usage
    130  interrupted
    141  the reader of our output has gone

The last two are 128 + SIGINT and 128 + SIGPIPE, which is what a shell reports for other programs.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from avsr import __version__
from avsr.cli.arguments import old_names
from avsr.cli.command import Action, name_list
from avsr.cli.console import Console, UsageError, discard, explain, messages_on_stderr, to_stderr
from avsr.cli.suggestions import ACTIONS as ACTION_MEANINGS
from avsr.cli.suggestions import COMMANDS as COMMAND_MEANINGS
from avsr.cli.suggestions import OPTIONS as OPTION_MEANINGS
from avsr.cli.suggestions import suggest
from avsr.surroundings import name_user, require_folder

COMMANDS = {
    "transcribe": "speech in video or sound files to text with times",
    "stream": "live: words as they are spoken, from a file or a microphone",
    "doctor": "what a file offers: sound, picture, faces, and how they fit",
    "serve": "live captions of camera and microphone, in the browser",
    "prepare": "a corpus to sound, lip crops and a manifest, ready for training",
    "vocabulary": "word pieces or a list of words, from the texts of a prepared corpus",
    "configs": "the training configurations that come with this package",
    "train": "a model from a configuration file and prepared data",
    "average": "the weighted mean of models that were trained on from each other",
    "noise": "speech in noise that anyone can make again: plan it, render it",
    "evaluate": "error rates of a recogniser, by noise, level and what happens to the picture",
    "compare": "two evaluations: what got better or worse beyond chance",
    "bench": "figures of this machine: latency live, speed on files",
    "import": "a published .nemo model to a checkpoint folder",
    "models": "the models: list them, install one, remove one",
}
"""Every command and its summary. The module of a command is imported only when that command runs."""

EXAMPLE = "avsr transcribe talk.mp4 lectures/ --format srt,json --output-dir subtitles"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    argv: the words after `avsr`; None for the words that this process was started with.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    name_user()
    # Mistakes in the command line happen before it is parsed, so --debug is looked for among the words.
    with messages_on_stderr(debug="--debug" in words), _terminable():
        try:
            try:
                code = _run(words)
            except SystemExit as stop:  # by argparse after --help and --version, by SIGTERM
                code = stop.code if isinstance(stop.code, int) else 0
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk or a closed pipe then fails here, where it can still be reported
            return code
        except KeyboardInterrupt:
            Console(quiet="--quiet" in words).note("interrupted")
            return 130
        except BrokenPipeError:
            discard(sys.stdout)
            return 141
        except UsageError as error:
            Console().error(str(error))
            return 2
        except Exception as error:
            Console().error(str(explain(error)))
            return 1


def command_module(command: str) -> Any:
    """The module of a command in COMMANDS."""
    # `import` is a word of Python itself, so that no module can be called like this command.
    return importlib.import_module(f"avsr.cli.{'import_' if command == 'import' else command}")


def command_actions(command: str) -> Mapping[str, Action]:
    """The actions of a command by name; empty for a command without actions."""
    actions: Mapping[str, Action] = getattr(command_module(command), "ACTIONS", {})
    return actions


def argument_parser(command: str | None = None, action: str | None = None) -> argparse.ArgumentParser:
    """The parser of a command line.

    command: None for the options before a command, which are --help and --version.
    action: None for a command without actions, or for the help of a command with actions.
    """
    if command is None:
        return _top_parser()
    module = command_module(command)
    actions = command_actions(command)
    if action is not None:
        chosen = actions[action]
        parser = _parser(f"avsr {command} {action}", chosen.description, example=chosen.example)
        chosen.add_arguments(parser)
    elif actions:
        listed = name_list({name: item.summary for name, item in actions.items()})
        parser = _parser(
            f"avsr {command}",
            module.DESCRIPTION,
            usage=f"avsr {command} {'|'.join(actions)} ...",
            before=f"actions:\n{listed}\n\n",
            example=module.EXAMPLE,
            after=f"\n\navsr {command} ACTION --help shows the options of an action.",
        )
    else:
        parser = _parser(f"avsr {command}", module.DESCRIPTION, example=module.EXAMPLE)
        module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show tracebacks and log messages")
    return parser


def _top_parser() -> argparse.ArgumentParser:
    parser = _parser(
        "avsr",
        "Audio-visual speech recognition: sound and lips of a video to text with times.",
        usage="avsr COMMAND ...",
        before=f"commands:\n{name_list(COMMANDS)}\n\n",
        example=EXAMPLE,
        after="\n\navsr COMMAND --help shows the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"avsr {__version__}")
    return parser


def _parser(
    name: str, description: str, *, example: str, usage: str | None = None, before: str = "", after: str = ""
) -> argparse.ArgumentParser:
    """A parser with a help text that ends with a list (`before`), an example, and a last line (`after`)."""
    return _Parser(
        name,
        usage=usage,
        description=description,
        epilog=f"{before}example:\n  {example}{after}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an option that is added later must not change what a script means
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help explains)")


def _run(words: list[str]) -> int:
    command = words[0] if words else ""
    if command.startswith("-"):
        _parse(argument_parser(), words)  # --help and --version end here, and so does an unknown option
        command = next((word for word in words if not word.startswith("-")), "")
    if not command:
        Console().error("no command given (avsr --help explains)")
        to_stderr(f"commands:\n{name_list(COMMANDS)}\n")
        return 2
    if command not in COMMANDS:
        raise UsageError(
            f"unknown command {command}" + _hint(command, COMMANDS, COMMAND_MEANINGS, "avsr --help lists the commands")
        )
    words = words[1:]
    actions = command_actions(command)
    action = None
    if actions:
        action, words = _split_action(command, actions, words)
    arguments = _parse(argument_parser(command, action), words, command)
    console = Console(quiet=getattr(arguments, "quiet", False))
    for line in old_names(arguments):
        console.note(line)
    require_folder()
    return command_module(command).run(arguments) if action is None else actions[action].run(arguments)


def _split_action(command: str, actions: Mapping[str, Action], words: list[str]) -> tuple[str | None, list[str]]:
    """The action that `words` name, and the other words. The action is None if only --help of the command is asked."""
    end = words.index("--") if "--" in words else len(words)
    # Options may stand before the action, and their values look like actions to us: only a known name is taken.
    place = next((place for place, word in enumerate(words[:end]) if word in actions), None)
    if place is not None and (place == 0 or words[0].startswith("-")):
        return words[place], words[:place] + words[place + 1 :]
    if {"-h", "--help"} & set(words[:end]):
        return None, words
    wrong = next((word for word in words if not word.startswith("-")), None)
    default: str | None = getattr(command_module(command), "DEFAULT_ACTION", None)
    if wrong is None and default is not None:
        return default, words
    if wrong is None:
        raise UsageError(f"{command} needs an action: {', '.join(actions)} (avsr {command} --help explains)")
    hint = _hint(wrong, actions, ACTION_MEANINGS, f"avsr {command} --help lists the actions")
    raise UsageError(f"{command} has no action {wrong}{hint}")


def _parse(parser: argparse.ArgumentParser, words: list[str], command: str | None = None) -> argparse.Namespace:
    # Intermixed, so that files may stand before, between and after options. That way of parsing forgets the meaning of
    # "--", after which a file may begin with a dash; "./" in front of such a file says the same.
    if "--" in words:
        end = words.index("--")
        words = words[:end] + [f"./{word}" if word.startswith("-") else word for word in words[end + 1 :]]
    # argparse checks required options before it has seen the last arguments, and the output in its old place may be
    # among them. So these options are checked here, when all is parsed.
    required = [option for option in parser._actions if option.required and option.option_strings]
    # The usage line is fixed first, or it would show the required options as optional ones.
    usage, parser.usage = parser.usage, parser.format_usage().removeprefix("usage: ")
    for option in required:
        option.required = False
    arguments, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        _refuse(parser, unknown[0].partition("=")[0], command)
    for option in required:
        option.required = True
        if getattr(arguments, option.dest) is None:
            parser.error(f"the following arguments are required: {'/'.join(option.option_strings)}")
    parser.usage = usage
    return arguments


def _refuse(parser: argparse.ArgumentParser, word: str, command: str | None) -> NoReturn:
    """Raise UsageError for a word that no argument takes."""
    if not word.startswith("-"):
        parser.error(f"{word} is one argument too many")
    for action in command_actions(command) if command is not None else ():
        if word in _options(argument_parser(command, action)):
            raise UsageError(f"{word} is an option of avsr {command} {action}, not of {parser.prog}")
    hint = _hint(word, _options(parser), OPTION_MEANINGS, f"{parser.prog} --help lists the options")
    raise UsageError(f"unknown option {word}{hint}")


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """The long names of the options that the help shows; it hides the former names."""
    shown = [option for option in parser._actions if option.help != argparse.SUPPRESS]
    return [name for option in shown for name in option.option_strings if name.startswith("--")]


def _hint(name: str, known: Sequence[str] | Mapping[str, object], meanings: Mapping[str, str], otherwise: str) -> str:
    """The end of a message about an unknown name: the name that was meant, or how to see all names."""
    meant = suggest(name, known, meanings)
    return f"; did you mean {meant}? ({otherwise})" if meant else f" ({otherwise})"


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
