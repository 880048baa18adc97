"""avsr models: what can be given to --model by name."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from avsr.cli.command import Action
from avsr.cli.console import Console
from avsr.cli.suggestions import suggest
from avsr.errors import ModelError
from avsr.text import columns, pad

DESCRIPTION = "The models that come with this package. Without an action: list."
EXAMPLE = "avsr models show grid-tiny"
DEFAULT_ACTION = "list"

LIST_DESCRIPTION = (
    "List the models that come with this package: the name for --model; whether they recognise from sound\n"
    "(a), from lips (v) or from both at once (av); their languages; the domain, which is what they know; the\n"
    "size; the licence of the weights; and the chunks of sound in which they work live (--chunk-ms), or -\n"
    "if they work on files only."
)
LIST_EXAMPLE = "avsr models list --json"
SHOW_DESCRIPTION = "Show one model: the same as in the list, and its folder and the SHA-256 of its weights file."

NOT_STATED = "not stated"
_PART_BYTES = 1 << 20


class ShippedModel(NamedTuple):
    """A model that comes with the package."""

    name: str
    modalities: tuple[str, ...]
    languages: tuple[str, ...]
    """Codes such as "en"; empty if the model does not state them."""
    domain: str
    """"open" for ordinary speech, else what the model knows."""
    licence: str
    """SPDX identifier of the licence of the weights."""
    chunks_ms: tuple[int, ...]
    """Chunks of sound in which it works live; empty if it works on files only."""
    size_bytes: int
    """Of all files of the model."""
    folder: str
    weights_sha256: str

    def document(self) -> dict[str, object]:
        """The JSON object of this model."""
        return self._asdict()


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr models list`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object with all models")


def add_show_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr models show`."""
    parser.add_argument("name", metavar="NAME", help="name of a model, as avsr models list prints it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def list_models(arguments: argparse.Namespace) -> int:
    """Print all models, one a line."""
    models = shipped_models()
    with Console() as console:
        if arguments.json:
            console.result(_json({"schema": 1, "models": [model.document() for model in models]}))
            return 0
        rows = [("NAME", "MODALITIES", "LANGUAGES", "DOMAIN", "SIZE", "LICENCE", "LIVE, MS")]
        for model in models:
            rows.append(
                (
                    model.name,
                    " ".join(model.modalities),
                    " ".join(model.languages) or "-",
                    model.domain,
                    _megabytes(model),
                    model.licence,
                    " ".join(str(chunk) for chunk in model.chunks_ms) or "-",
                )
            )
        for line in _columns(rows):
            console.result(line)
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Print one model, one property a line."""
    models = {model.name: model for model in shipped_models()}
    if arguments.name not in models:
        close = suggest(arguments.name, models, {})
        raise ModelError(
            f"no model {arguments.name!r} comes with this package",
            expected=", ".join(models),
            remedy=f"did you mean {close}?" if close else "avsr models lists them",
        )
    model = models[arguments.name]
    with Console() as console:
        if arguments.json:
            console.result(_json({"schema": 1, **model.document()}))
            return 0
        rows = [
            ("name", model.name),
            ("modalities", " ".join(model.modalities)),
            ("languages", " ".join(model.languages) or NOT_STATED),
            ("domain", model.domain),
            ("size", _megabytes(model)),
            ("licence", model.licence),
            ("live, ms", " ".join(str(chunk) for chunk in model.chunks_ms) or "files only"),
            ("folder", model.folder),
            ("weights", f"sha256 {model.weights_sha256}"),
        ]
        for line in _columns(rows):
            console.result(line)
    return 0


def shipped_models() -> list[ShippedModel]:
    """The models that come with the package, by name."""
    from avsr.families import ASSETS, shipped

    models = []
    for card in shipped():
        folder = ASSETS / card.name
        digest = hashlib.sha256()
        with (folder / "model.safetensors").open("rb") as weights:
            while part := weights.read(_PART_BYTES):
                digest.update(part)
        models.append(
            ShippedModel(
                name=card.name,
                modalities=card.modalities,
                languages=card.languages,
                domain=card.domain,
                licence=card.licence or NOT_STATED,
                chunks_ms=card.chunks_ms,
                size_bytes=sum(path.stat().st_size for path in folder.iterdir()),
                folder=str(folder),
                weights_sha256=digest.hexdigest(),
            )
        )
    return models


def _megabytes(model: ShippedModel) -> str:
    return f"{model.size_bytes / 1e6:.1f} MB"


def _json(content: dict[str, object]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines, each column as wide as its widest cell."""
    widths = [max(columns(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    ]


ACTIONS = {
    "list": Action("all models, one a line", LIST_DESCRIPTION, LIST_EXAMPLE, add_list_arguments, list_models),
    "show": Action("one model, with the hash of its weights", SHOW_DESCRIPTION, EXAMPLE, add_show_arguments, show),
}
