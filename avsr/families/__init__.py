"""The kinds of recogniser this package can open: one row a family in `FAMILIES`.

To add a family, write a module that makes a `Model` (`avsr.engine`) and add a row. Nothing else names a family.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from avsr.catalogue.entries import Entry, read_catalogue
from avsr.catalogue.store import installed_folder
from avsr.engine import Card, Model
from avsr.errors import ConfigError, ModelError, nearest
from avsr.shipped import ASSETS
from avsr.surroundings import start_computing
from avsr.untrusted.weights import enough_memory

DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")
""""auto": what the model is best computed in; float32 for networks of torch, 8 bit for Whisper on a CPU."""
OTHER_DEVICES = ("mps", "meta", "xpu", "xla", "hpu", "mtia", "vulkan")
"""Devices of torch that this package does not compute on: they are named in the error."""

HUB_ADDRESS = r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/"
"""How the address of a model begins in a browser. It opens nothing; the error says how to name the model."""


class Family(NamedTuple):
    """One kind of recogniser."""

    name: str
    owns: Callable[[str], bool]
    """Whether this family opens a target: a path that exists, or a text that only this family knows."""
    open: Callable[[str, str, str], Model]
    """Opens a target on a device ("auto", "cpu", "cuda", "cuda:N") with a dtype of `DTYPES`. Raises ModelError."""
    expected: str = ""
    """What a target of this family looks like, for messages."""
    card: Callable[[str], Card] | None = None
    """The card of a target without opening it, if that is possible."""


# Each family is imported only when it is asked, so that one kind of model does not load the libraries of another.
def _is_checkpoint(target: str) -> bool:
    from avsr.families.own.family import owns

    return owns(target)


def _open_checkpoint(target: str, device: str, dtype: str) -> Model:
    start_computing()
    from avsr.families.own.family import open_model

    return open_model(target, device, dtype)


def _checkpoint_card(target: str) -> Card:
    from avsr.families.own.family import read_card

    return read_card(target)


def _open_nemo(target: str, device: str, dtype: str) -> Model:
    start_computing()
    from avsr.families.own.family import open_nemo

    return open_nemo(target, device, dtype)


def _open_external(target: str, device: str, dtype: str) -> Model:
    from avsr.families.external import open_model

    return open_model(target)


def _is_whisper(target: str) -> bool:
    from avsr.families.whisper.family import owns

    return owns(target)


def _open_whisper(target: str, device: str, dtype: str) -> Model:
    start_computing()
    from avsr.families.whisper.family import open_model

    return open_model(target, device, dtype)


def _whisper_card(target: str) -> Card:
    from avsr.families.whisper.family import read_card

    return read_card(target)


def _is_published(target: str) -> bool:
    from avsr.families.auto_avsr.family import owns

    return owns(target)


def _open_published(target: str, device: str, dtype: str) -> Model:
    start_computing()
    from avsr.families.auto_avsr.family import open_model

    return open_model(target, device, dtype)


def _published_card(target: str) -> Card:
    start_computing()
    from avsr.families.auto_avsr.family import read_card

    return read_card(target)


def _open_together(target: str, device: str, dtype: str) -> Model:
    from avsr.families.together import open_model as open_both

    return open_both(target, device, dtype, lambda name, *where: _open(find(name), *where))


FAMILIES: tuple[Family, ...] = (
    Family(
        "own", _is_checkpoint, _open_checkpoint, "a folder with config.yaml and model.safetensors", _checkpoint_card
    ),
    Family("nemo", lambda target: target.endswith(".nemo") and os.path.isfile(target), _open_nemo, "a .nemo file"),
    Family("whisper", _is_whisper, _open_whisper, "a folder with model.bin and tokenizer.json", _whisper_card),
    Family(
        "auto_avsr",
        _is_published,
        _open_published,
        "a .pth file of a published lip reader, or a folder with model.pth",
        _published_card,
    ),
    Family(
        "external",
        lambda target: target.startswith(("command:", "function:")),
        _open_external,
        "command:PROGRAM or function:MODULE:NAME",
    ),
    Family("together", lambda target: target.startswith("together:"), _open_together, "together:SOUND,LIPS"),
)
"""The first family that owns a target opens it."""


def open_model(name: str | PathLike[str], *, device: object = "auto", dtype: object = None) -> Model:
    """The model that `name` stands for.

    name: of a shipped or installed model, a path that a family owns, `hf:ACCOUNT/NAME`, or the text of an external
        recogniser.
    device: as text or a torch.device. dtype: as text or a torch.dtype; None for "auto". Raises ModelError, ConfigError.
    """
    device_text, dtype_text = _device(device), _dtype(dtype)
    text = os.fsdecode(name)
    try:
        return _open(find(text), device_text, dtype_text)
    except ModelError as error:
        if text != os.environ.get("AVSR_MODEL"):
            raise
        what = f"{error.what} (AVSR_MODEL names it)"  # the command line that was typed does not
        raise ModelError(what, got=error.got, expected=error.expected, remedy=error.remedy) from error


def _open(target: str, device_text: str, dtype_text: str) -> Model:
    for family in FAMILIES:
        if family.owns(target):
            with enough_memory(target):
                return family.open(target, device_text, dtype_text)
    raise _no_model(target)


def find(name: str, *, catalogue: Path | None = None) -> str:
    """The target that `name` stands for: a shipped or installed model, a path, or the text itself.

    catalogue: the list of models that can be installed; None for the one in the package. Only `hf:ACCOUNT/NAME` is
    fetched, from the hub, if it is not installed. Raises ModelError when there is no such model.
    """
    from avsr.families.hub import fetch, hub_id

    repository = hub_id(name)
    # Names of models go before paths of that name in the current folder, so that a name always means the same model.
    if Path(name).name == name and os.path.isfile(ASSETS / name / "config.yaml"):
        return str(ASSETS / name)
    entry = _catalogue_entry(repository or name, catalogue)
    folder = installed_folder(entry) if entry is not None else None
    if entry is not None and folder is not None:
        return str(folder / entry.opens)
    if repository is not None:
        return str(fetch(repository, _is_owned))
    if name and (os.path.exists(name) or _is_owned(name)):
        return name
    if name.endswith(".nemo"):
        raise ModelError(f"{name}: no such file", expected="a .nemo archive", remedy="check the path")
    if entry is not None:
        raise ModelError(f"{name} is not installed", remedy=f"avsr models pull {entry.name}")
    raise _unknown(name, catalogue)


def _catalogue_entry(name: str, catalogue: Path | None) -> Entry | None:
    """The model of the catalogue with this name or this id on the hub."""
    if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)?", name):  # a path or a command: the list need not be read
        return None
    entries = read_catalogue(catalogue)
    by_id = {entry.hub.id: entry for entry in entries.values() if entry.hub is not None}
    return entries.get(name) or by_id.get(name)


def _is_owned(target: str) -> bool:
    return any(family.owns(target) for family in FAMILIES)


def _unknown(name: str, catalogue: Path | None) -> ModelError:
    from avsr.families.hub import PREFIX, is_hub_id

    asked = re.fullmatch(rf"(?:{PREFIX}|{HUB_ADDRESS})([^/]+/[^/?#]+).*", name, re.IGNORECASE)
    if asked is not None and is_hub_id(asked[1]):
        return ModelError(f"{name}: no such file or model", remedy=f"this model of the hub is named {PREFIX}{asked[1]}")
    if is_hub_id(name):
        remedy = f"check the path; a model of the hub is named {PREFIX}ACCOUNT/NAME"
        return ModelError(f"{name}: no such file or model", remedy=remedy)
    if os.path.dirname(name):
        return ModelError(f"{name}: no such file or model", remedy="check the path")
    known = [path.parent.name for path in sorted(ASSETS.glob("*/config.yaml"))] + list(read_catalogue(catalogue))
    # "tiny" is a part of several names, and the most similar one need not be the one that is meant.
    close = [model for model in known if len(name) > 2 and name.lower() in model][:3]
    similar = nearest(name, known)
    if not close and similar is None:
        return ModelError(f"no model {name!r}", remedy="avsr models lists the names; check the path if it is one")
    meant = " or ".join(close) or similar
    return ModelError(f"no model {name!r}", remedy=f"avsr models lists the names; did you mean {meant}?")


def _no_model(target: str) -> ModelError:
    """The error for a file or folder that no family opens."""
    kind = "a folder" if os.path.isdir(target) else "a file"
    expected = ", or ".join(family.expected for family in FAMILIES if family.expected.startswith("a "))
    return ModelError(f"{target}: not a checkpoint", got=kind, expected=expected, remedy="docs/models.md explains each")


def shipped() -> list[Card]:
    """The cards of the models that come with the package."""
    return [card_of(path.parent) for path in sorted(ASSETS.glob("*/config.yaml"))]


def card_of(target: str | PathLike[str]) -> Card:
    """The card of a model on disk, read without its weights if its family can do that."""
    text = os.fsdecode(target)
    for family in FAMILIES:
        if family.owns(text):
            return family.card(text) if family.card else family.open(text, "cpu", "float32").card
    raise ModelError(f"{text}: no family opens it")


def _device(device: Any) -> str:
    text = str(device)
    if not re.fullmatch("auto|cpu|cuda(:[0-9]{1,4})?", text):
        expected = "auto, cpu, cuda or cuda:N"
        if text.partition(":")[0] in OTHER_DEVICES:
            raise ConfigError(f"device {text} is not supported", expected=expected)
        raise ConfigError("unknown device", got=repr(device), expected=expected)
    return text


def _dtype(dtype: Any) -> str:
    # As text, so that the check of a torch.dtype needs no torch.
    text = "auto" if dtype is None else str(dtype).removeprefix("torch.")
    if text not in DTYPES:
        raise ConfigError("unknown dtype", got=repr(dtype), expected=f"None, a torch.dtype, or {', '.join(DTYPES)}")
    return text
