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

from avsr.engine import Card, Model
from avsr.errors import ConfigError, ModelError, nearest
from avsr.shipped import ASSETS

DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")
""""auto": what the model is best computed in; float32 for networks of torch, 8 bit for Whisper on a CPU."""
OTHER_DEVICES = ("mps", "meta", "xpu", "xla", "hpu", "mtia", "vulkan")
"""Devices of torch that this package does not compute on: they are named in the error."""


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
    from avsr.families.own.family import open_model

    return open_model(target, device, dtype)


def _checkpoint_card(target: str) -> Card:
    from avsr.families.own.family import read_card

    return read_card(target)


def _open_nemo(target: str, device: str, dtype: str) -> Model:
    from avsr.families.own.family import open_nemo

    return open_nemo(target, device, dtype)


def _open_external(target: str, device: str, dtype: str) -> Model:
    from avsr.families.external import open_model

    return open_model(target)


def _is_whisper(target: str) -> bool:
    from avsr.families.whisper.family import owns

    return owns(target)


def _open_whisper(target: str, device: str, dtype: str) -> Model:
    from avsr.families.whisper.family import open_model

    return open_model(target, device, dtype)


def _whisper_card(target: str) -> Card:
    from avsr.families.whisper.family import read_card

    return read_card(target)


FAMILIES: tuple[Family, ...] = (
    Family("own", _is_checkpoint, _open_checkpoint, "a folder with config.yaml", _checkpoint_card),
    Family("nemo", lambda target: target.endswith(".nemo") and os.path.isfile(target), _open_nemo, "a .nemo file"),
    Family("whisper", _is_whisper, _open_whisper, "a folder with model.bin and tokenizer.json", _whisper_card),
    Family(
        "external",
        lambda target: target.startswith(("command:", "function:")),
        _open_external,
        "command:PROGRAM or function:MODULE:NAME",
    ),
)
"""The first family that owns a target opens it."""


def open_model(name: str | PathLike[str], *, device: object = "auto", dtype: object = None) -> Model:
    """The model that `name` stands for.

    name: of a shipped model, a path that a family owns, a hub id, or the text of an external recogniser. device: as
    text or a torch.device. dtype: as text or a torch.dtype; None for "auto". Raises ModelError, ConfigError.
    """
    device_text, dtype_text = _device(device), _dtype(dtype)
    target = find(os.fsdecode(name))
    for family in FAMILIES:
        if family.owns(target):
            return family.open(target, device_text, dtype_text)
    kind = "a folder" if os.path.isdir(target) else "a file"
    raise ModelError(f"{target}: not a checkpoint", got=kind, expected=_expected())


def find(name: str) -> str:
    """The target that `name` stands for: a folder of a shipped model, a path, or the text itself.

    Models of the hub are fetched. Raises ModelError when there is no such model.
    """
    from avsr.families.hub import fetch, is_hub_id

    shipped_folder = ASSETS / name
    # A shipped name goes before a folder of that name in the current folder, so that it always means the same model.
    if Path(name).name == name and os.path.isfile(shipped_folder / "config.yaml"):
        return str(shipped_folder)
    # Paths go before ids of the hub: nothing is fetched if the file is here.
    if name and (os.path.exists(name) or any(family.owns(name) for family in FAMILIES)):
        return name
    if name.endswith(".nemo"):
        raise ModelError(f"{name}: no such file", expected="a .nemo archive", remedy="check the path")
    if is_hub_id(name):
        return str(fetch(name))
    names = [path.parent.name for path in sorted(ASSETS.glob("*/config.yaml"))]
    close = nearest(name, names)
    raise ModelError(
        f"no model {name!r}",
        expected=f"a shipped one ({', '.join(names)}), a hub id, {_expected()}",
        remedy=f"did you mean {close}?" if close else "check the path",
    )


def _expected() -> str:
    """What the targets of all families look like."""
    return " or ".join(family.expected for family in FAMILIES if family.expected)


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
