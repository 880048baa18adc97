"""Models by name: which there are, which are installed, and how to install one.

    import avsr

    for model in avsr.models.list():
        print(model.name, model.state)
    avsr.models.pull("whisper-base")
    recognizer = avsr.load("whisper-base")

Nothing is downloaded but by `pull`. Installed models lie in the folder AVSR_MODELS, by default
~/.local/share/avsr/models.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from avsr import families
from avsr.catalogue import pull as pulling
from avsr.catalogue.entries import Entry, find_entry, read_catalogue
from avsr.catalogue.store import (
    RECORD,
    describe_file,
    hash_record_path,
    installed_folder,
    models_folder,
    problem,
    read_record,
    source_of,
)
from avsr.engine import Card
from avsr.errors import ConfigError, ModelError

State = Literal["shipped", "installed", "available", "by hand"]

NOT_STATED = "not stated"


class ModelFile(NamedTuple):
    """One file of a model."""

    name: str
    bytes: int
    """0: not known before the model is pulled."""
    sha256: str
    """Empty: not known before the model is pulled."""


class ModelInfo(NamedTuple):
    """The facts about a model, known without opening it."""

    name: str
    state: State
    """"shipped" in the package, "installed" by `pull`, "available" to it, or "by hand": its authors alone offer it."""
    family: str
    """The kind of model."""
    opens: bool
    """Whether this version can open this kind."""
    modalities: tuple[str, ...]
    """"a" recognises from sound, "v" from lips, "av" from both at once."""
    languages: tuple[str, ...]
    """Codes such as "en"; empty if the model does not state them."""
    domain: str
    """"open" for ordinary speech, else what the model knows."""
    licence: str
    """SPDX identifier of the licence of the weights, or what its authors say."""
    terms: str
    """Conditions beside the licence; empty: no such conditions."""
    must_accept: bool
    """Whether `pull` needs accept_terms."""
    chunks_ms: tuple[int, ...]
    """Chunks of sound in which it works live; empty if that is not known or it works on files only."""
    size_bytes: int
    """Of all files; an estimate where the sizes of the files are not known."""
    files: tuple[ModelFile, ...]
    folder: str
    """Where the files lie, or will lie; empty if no place is known."""
    sources: tuple[str, ...]
    """Where the files come from, such as "hub Systran/faster-whisper-base"."""
    pulled_from: str
    """"hub", "packages" or "by hand" for an installed model, else empty."""
    problem: str
    """Why files in the folder are no installed model; empty if there is nothing wrong."""

    @property
    def weights_sha256(self) -> str:
        """The hash of the largest file; empty if it is not known."""
        return max(self.files, key=lambda file: file.bytes).sha256


def list(*, catalogue: Path | None = None) -> tuple[ModelInfo, ...]:
    """All models: the ones in the package, then the ones that can be pulled.

    catalogue: a list in the form of avsr/assets/catalogue.yaml; None for that one.
    """
    return (*map(_shipped, families.shipped()), *map(_listed, read_catalogue(catalogue).values()))


def show(name: str, *, catalogue: Path | None = None) -> ModelInfo:
    """One model. Raises ModelError, with the nearest name, if there is no such model."""
    for card in families.shipped():
        if card.name == name:
            return _shipped(card)
    return _listed(find_entry(name, catalogue))


def pull(
    name: str,
    *,
    source: str | None = None,
    accept_terms: bool = False,
    catalogue: Path | None = None,
    on_message: Callable[[str], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ModelInfo:
    """Install a model, and return the facts about it. Of an installed model all files are checked.

    Every file is hashed before it is accepted, and the model appears whole or not at all. A pull that was interrupted
    goes on where it stopped. Files that were put into the folder of the model by hand are checked and taken.

    source: "hub", the Hugging Face hub (needs the extra `hub`); "packages", the package index; None for the first that
        can be used, in this order.
    accept_terms: that the terms of the model are accepted; see ModelInfo.terms.
    on_message: takes lines about the progress, such as the source that is used.
    on_progress: takes the bytes that are there and the bytes of all files.

    Raises ModelError for an unknown name, terms that were not accepted, no connection, a wrong file, a full disk, and
    another process that pulls the same model; ConfigError for an unknown source.
    """
    if source not in (None, *pulling.SOURCES):
        raise ConfigError("unknown source of models", got=repr(source), expected=" or ".join(pulling.SOURCES))
    model = show(name, catalogue=catalogue)
    if model.state == "shipped":
        raise ModelError(f"{name} comes with the package", remedy=f"use it as it is: --model {name}")
    if not model.opens:
        raise ModelError(f"{name} is a model of the kind {model.family}, which this version of avsr cannot open")
    pulling.pull(
        find_entry(name, catalogue),
        source=source,
        accept_terms=accept_terms,
        say=on_message or (lambda line: None),
        on_progress=on_progress or (lambda done, total: None),
    )
    return show(name, catalogue=catalogue)


def remove(name: str, *, catalogue: Path | None = None) -> ModelInfo:
    """Remove an installed model, or what an interrupted pull left of it. Raises ModelError if there is neither."""
    if show(name, catalogue=catalogue).state == "shipped":
        raise ModelError(f"{name} comes with the package and stays in it")
    pulling.remove(find_entry(name, catalogue))
    return show(name, catalogue=catalogue)


def default(*, catalogue: Path | None = None) -> str:
    """The name of the default model.

    The environment variable AVSR_MODEL if it is set; else the best installed model for ordinary speech that suits this
    machine. A model suits it if the machine has an NVIDIA GPU or as many cores as the catalogue asks for; if none
    does, the one that asks for the fewest is taken. Raises ModelError if no such model is installed.
    """
    named = os.environ.get("AVSR_MODEL")
    if named:
        return named
    ready = [entry for entry in read_catalogue(catalogue).values() if entry.rank and _is_ready(entry)]
    if not ready:
        raise ModelError(
            "no model for ordinary speech is installed",
            got=folder_fault(),
            remedy='avsr.models.pull("whisper-base") installs one, and avsr.load("grid-tiny") takes the small one in'
            " the package, which knows 51 words",
        )
    cores = os.cpu_count() or 1
    suitable = [entry for entry in ready if entry.cores <= cores or os.path.exists("/dev/nvidia0")]
    if not suitable:
        return min(ready, key=lambda entry: (entry.cores, -entry.rank)).name
    return max(suitable, key=lambda entry: entry.rank).name


def folder_fault() -> str | None:
    """A line if the place of installed models is no folder; None if it is one, or is not there yet."""
    root = models_folder()
    if root is None or not os.path.lexists(root) or root.is_dir():
        return None
    return f"{root}, the place of installed models, is no folder"


def _is_ready(entry: Entry) -> bool:
    return _can_open(entry.family) and installed_folder(entry) is not None


def _can_open(family: str) -> bool:
    return family in (known.name for known in families.FAMILIES)


def _shipped(card: Card) -> ModelInfo:
    folder = families.ASSETS / card.name
    files = [(path.name, describe_file(path)) for path in sorted(folder.iterdir())]
    return ModelInfo(
        name=card.name,
        state="shipped",
        family=card.family,
        opens=True,
        modalities=card.modalities,
        languages=card.languages,
        domain=card.domain,
        licence=card.licence or NOT_STATED,
        terms="",
        must_accept=False,
        chunks_ms=card.chunks_ms,
        size_bytes=sum(file.bytes for _, file in files),
        files=tuple(ModelFile(name, file.bytes, file.sha256) for name, file in files),
        folder=str(folder),
        sources=("in the package",),
        pulled_from="",
        problem="",
    )


def _listed(entry: Entry) -> ModelInfo:
    root = models_folder()
    fault = "" if root is None else problem(entry, root)
    files = entry.files
    if root is not None:
        recorded = read_record(root / entry.name / RECORD) if fault is None else {}
        recorded = recorded or read_record(hash_record_path(entry, root))
        files = {name: recorded.get(name, file) for name, file in files.items()}
    sizes = [file.bytes for file in files.values()]
    return ModelInfo(
        name=entry.name,
        state="installed" if fault is None else "available" if entry.hub or entry.packages else "by hand",
        family=entry.family,
        opens=_can_open(entry.family),
        modalities=entry.modalities,
        languages=entry.languages,
        domain=entry.domain,
        licence=entry.licence,
        terms=entry.terms,
        must_accept=entry.must_accept,
        chunks_ms=entry.chunks_ms,
        size_bytes=sum(sizes) if all(sizes) else entry.size_bytes,
        files=tuple(ModelFile(name, file.bytes, file.sha256) for name, file in files.items()),
        folder="" if root is None else str(root / entry.name),
        sources=tuple(_sources(entry)),
        pulled_from=source_of(entry),
        problem=fault or "",
    )


def _sources(entry: Entry) -> builtins.list[str]:
    sources = []
    if entry.hub is not None:
        sources.append(f"hub {entry.hub.id} at {entry.hub.revision}")
    if entry.packages:
        sources.append("packages " + ", ".join(f"{package.name} {package.version}" for package in entry.packages))
    if entry.page:
        sources.append(f"page {entry.page}")
    return sources
