"""Options that several commands share, and the types of option values.

An option that means the same in two commands is declared here once, so that it has one name, one default and one
explanation everywhere.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avsr import Search
    from avsr.media.tracks import Tracks
    from avsr.output import Layout

from avsr.cli.console import UsageError
from avsr.errors import AvsrError, ModelError
from avsr.files import local_path
from avsr.grid import MAX_HOURS

DEFAULT_SEEDS = (1, 2, 3)
DEVICES = "auto|cpu|cuda[:N]"


MODEL_FORMS = (
    "name in avsr models, checkpoint or run folder, .nemo file, hf:ACCOUNT/NAME, command:PROGRAM or"
    " function:MODULE:NAME"
)
"""What --model takes, for its help."""


def add_model(
    options: argparse._ActionsContainer,
    what: str = MODEL_FORMS,
) -> argparse.Action:
    """Declare -m/--model.

    options: a parser, or a group of its options.
    what: which models the command takes.
    """
    return options.add_argument(
        "-m",
        "--model",
        metavar="NAME|PATH",
        help=f"{what}; default: $AVSR_MODEL if that is set, else the best installed model for ordinary speech",
    )


def media_file(name: str) -> str:
    """The type of an argument that names one media file; `local_path` explains it."""
    try:
        return local_path(name)
    except AvsrError as error:
        raise argparse.ArgumentTypeError(f"{name} {error}".strip()) from None


def model_name(arguments: argparse.Namespace, note: Callable[[str], None]) -> str:
    """The model of a command line: --model, else the default model. note: takes a line that names an installed one.

    Raises UsageError if there is no default model.
    """
    if arguments.model is not None:
        return str(arguments.model)
    from avsr.models import default  # reads the catalogue, which --help does not need

    try:
        name = default()
    except ModelError as error:
        remedy = "avsr models pull whisper-base installs one, and --model grid-tiny takes the small one in the package"
        line = ModelError(error.what, got=error.got, remedy=f"{remedy}, which knows 51 words")
        raise UsageError(str(line)) from None
    if not os.environ.get("AVSR_MODEL"):
        note(f"model {name}, the best that is installed; --model names another")
    return name


def add_device(options: argparse._ActionsContainer) -> argparse.Action:
    """Declare --device."""
    return options.add_argument(
        "--device", type=device, default="auto", metavar=DEVICES, help="where the model computes; default auto"
    )


def add_seeds(options: argparse._ActionsContainer) -> argparse.Action:
    """Declare --seed for a command that mixes speech with noise. The value is None if the option is not given."""
    default = ",".join(str(seed) for seed in DEFAULT_SEEDS)
    return options.add_argument(
        "--seed",
        metavar="LIST",
        type=whole_numbers,
        help=f"seeds of all random choices; each seed gives one set of mixtures; default {default}",
    )


def add_output_dir(
    options: argparse._ActionsContainer, what: str, *, required: bool = False, metavar: str = "DIR"
) -> argparse.Action:
    """Declare -o/--output-dir, the folder that a command writes into; a Path or None."""
    return options.add_argument("-o", "--output-dir", type=Path, required=required, metavar=metavar, help=what)


def add_output_file(options: argparse._ActionsContainer, what: str, *, metavar: str) -> argparse.Action:
    """Declare the required option -o/--output, the one file that a command writes; a Path."""
    return options.add_argument("-o", "--output", type=Path, required=True, metavar=metavar, help=what)


def add_look_ahead(parser: argparse.ArgumentParser) -> None:
    """Declare --look-ahead-ms."""
    parser.add_argument(
        "--look-ahead-ms",
        type=non_negative_integer,
        default=0,
        metavar="MS",
        help="words become final after this much more sound; default 0",
    )


def add_chunk(parser: argparse.ArgumentParser) -> None:
    """Declare --chunk-ms; None for the usual chunk of the model."""
    parser.add_argument(
        "--chunk-ms",
        type=positive_integer,
        metavar="MS",
        help="time between updates of the words; default 320, or the next that the model has",
    )


def add_language(options: argparse._ActionsContainer) -> None:
    """Declare -l/--language: a code such as "en", or None for auto."""
    options.add_argument(
        "-l",
        "--language",
        type=language,
        metavar="CODE|auto",
        help="the spoken language, such as en or ko; default auto: the model finds out",
    )


def add_search(options: argparse._ActionsContainer, *, usual_beam: str = "as many as the model was made for") -> None:
    """Declare --task, --beam and --temperature. `search_of` reads them together with --language.

    usual_beam: what happens without --beam, in words.
    """
    add = options.add_argument
    add(
        "--task",
        choices=("transcribe", "translate"),
        default="transcribe",
        help="translate: English words for speech of other languages, if the model can; default transcribe",
    )
    add(
        "--beam",
        type=positive_integer,
        metavar="N",
        help=f"hypotheses that a beam search keeps; 1 is fastest; default {usual_beam}",
    )
    add(
        "--temperature",
        type=number_to_1,
        default=0.0,
        metavar="T",
        help="0: the most likely words; up to 1: words drawn at random, if the model can; default 0",
    )


def search_of(arguments: argparse.Namespace) -> Search:
    """The settings of the search that the options of `add_language` and `add_search` state."""
    from avsr import Search

    return Search(
        language=arguments.language,
        task=arguments.task,
        beam=arguments.beam,
        temperature=arguments.temperature,
    )


def add_layout(parser: argparse.ArgumentParser) -> None:
    """Declare --max-line-width, --max-line-count and --highlight-words. `layout_of` reads them together."""
    add = parser.add_argument
    add(
        "--max-line-width",
        type=positive_integer,
        metavar="N",
        help="columns of a line of srt and vtt; a wider Latin word stays whole; default 42",
    )
    add("--max-line-count", type=positive_integer, metavar="N", help="lines of a cue of srt and vtt; default 2")
    add(
        "--highlight-words",
        action="store_true",
        help="underline each word of srt and vtt while it is spoken, in a cue for each word",
    )


def layout_of(arguments: argparse.Namespace) -> Layout | None:
    """The layout of subtitles that the options of `add_layout` state; None if none is given.

    Raises UsageError if no format has a layout.
    """
    from avsr.output import SUBTITLES, Layout

    names = ("max_line_width", "max_line_count", "highlight_words")
    given: dict[str, Any] = {name: getattr(arguments, name) for name in names if getattr(arguments, name)}
    if not given:
        return None
    if not set(SUBTITLES) & set(arguments.format):
        option = "--" + next(iter(given)).replace("_", "-")
        raise UsageError(f"{option} is for subtitles; add --format {' or '.join(SUBTITLES)}")
    return Layout(**given)


def add_quiet(options: argparse._ActionsContainer) -> None:
    """Declare --quiet."""
    options.add_argument("--quiet", action="store_true", help="no progress bar, notes or warnings; errors remain")


def add_old_name(options: argparse._ActionsContainer, old: str, current: argparse.Action) -> None:
    """Accept `old`, the former name of the option `current`, without showing it in the help."""
    # A blank in `dest` keeps it apart from the names of all other options.
    options.add_argument(old, action=_OldName, dest=f"old {old}", current=current)


def add_old_place(options: argparse._ActionsContainer, current: argparse.Action) -> None:
    """Accept the output as the last argument, which was its place before it became the option `current`."""
    options.add_argument("old place", action=_OldName, nargs="?", current=current)


def old_names(arguments: argparse.Namespace) -> list[str]:
    """One line for each former name that the command line used. Each line gives the present name."""
    return list(dict.fromkeys(getattr(arguments, _OldName.DEST, ())))


class _OldName(argparse.Action):
    """Stores the value as the present option does, and adds a line about the change to the namespace."""

    DEST = "old names"

    def __init__(
        self, option_strings: Sequence[str], dest: str, *, current: argparse.Action, nargs: str | None = None
    ) -> None:
        convert: Any = current.type
        super().__init__(option_strings, dest, nargs=nargs, type=convert, help=argparse.SUPPRESS)
        self._current = current

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if values is None:  # argparse also calls for a last argument that is not there
            return
        present = "/".join(self._current.option_strings)
        if option is not None:
            line = f"{option} is now called {present}"
        else:
            # Both places at once: the last argument is then a mistake, as in any command with an output option.
            if getattr(namespace, self._current.dest) is not None:
                parser.error(f"{values} is one argument too many")
            line = f"the output is now an option: {present} {values}"
        self._current(parser, namespace, values, option)
        setattr(namespace, self.DEST, [*getattr(namespace, self.DEST, ()), line])


def add_tracks(parser: argparse.ArgumentParser) -> None:
    """Declare the options that choose tracks of a file."""
    parser.add_argument(
        "--audio-track",
        type=positive_integer,
        metavar="N",
        help="sound track N, as avsr doctor lists them; default: by the flags of the file, without commentaries",
    )
    parser.add_argument(
        "--video-track",
        type=positive_integer,
        metavar="N",
        help="video track N; default: of several tracks, the one with faces that move",
    )


def add_max_hours(parser: argparse.ArgumentParser) -> None:
    """Declare --max-hours."""
    parser.add_argument(
        "--max-hours",
        type=hours,
        default=MAX_HOURS,
        metavar="H",
        help=f"refuse a file that states a longer time, and cut one that is longer; default {MAX_HOURS:g}",
    )


def tracks_of(arguments: argparse.Namespace) -> Tracks:
    """The tracks that the command line names."""
    from avsr.media.tracks import Tracks  # its package loads the decoders, which --help does not need

    return Tracks(arguments.audio_track, arguments.video_track)


def positive_integer(text: str) -> int:
    """Type of a whole number from 1 on."""
    # isdigit() also accepts characters such as ², which int() refuses.
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 1 on")
    return int(text)


def non_negative_integer(text: str) -> int:
    """Type of a whole number from 0 on."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 0 on")
    return int(text)


def hours(text: str) -> float:
    """Type of a number of hours above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan  # fails the comparison below, like any number out of range
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected hours above 0")
    return value


def named_folder(text: str) -> tuple[str, str]:
    """Type of KIND=FOLDER."""
    kind, equals, folder = text.partition("=")
    if not (kind and equals and folder):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected KIND=FOLDER, as in environment=noise/")
    return kind, folder


def words(text: str) -> tuple[str, ...]:
    """Type of a list of words joined by commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def decibels(text: str) -> tuple[float | None, ...]:
    """Type of a list of signal-to-noise ratios in dB; the word "clean" becomes None."""
    return tuple(None if word == "clean" else _decibel(word) for word in words(text))


def _decibel(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan  # fails the comparison below, like any number out of range
    if not -60 <= value <= 60:
        raise argparse.ArgumentTypeError(f"got {word!r}, expected dB from -60 to 60, or clean")
    return value


def whole_numbers(text: str) -> tuple[int, ...]:
    """Type of a list of seeds joined by commas."""
    try:
        return tuple(int(word) for word in words(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected whole numbers, as in 1,2,3") from None


def face(text: str) -> str:
    """Type of --face."""
    if text not in ("auto", "largest") and not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected auto, largest or the number of a face")
    return text


def language(text: str) -> str | None:
    """Type of --language; None for auto."""
    code = text.lower()
    if not re.fullmatch("auto|[a-z]{2,3}", code):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected auto or a code such as en, ko or yue")
    return None if code == "auto" else code


def number_to_1(text: str) -> float:
    """Type of a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan  # fails the comparison below, like any number out of range
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number from 0 to 1")
    return value


def device(text: str) -> str:
    """Type of --device."""
    if not re.fullmatch("auto|cpu|cuda(:[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected auto, cpu, cuda or cuda:N")
    return text
