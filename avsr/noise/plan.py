"""A noise plan: which noise is mixed into each utterance, written down so that anyone gets the same bytes.

A plan is a file of JSON lines. The first line says what the plan is for. Every other line is one mixture of one
utterance:

    {"utterance": "s1/bbaf2n", "condition": "babble_-5", "noise": "babble", "snr_db": -5.0, "seed": 1,
     "noises": [{"noise_sha256": "...", "offset": 4711, "gain_db": -3.214}, ...], "gain_db": 8.123, "scale_db": 0.0,
     "achieved_snr_db": -4.9999, "effects": [], "sha256": "..."}

snr_db null is clean, 0.0 is 0 dB. `sha256` is the hash of the resulting 16-bit samples; a rendering that gives other
samples is an error. `avsr.noise.planning` makes plans, `avsr.noise.render` makes the mixtures.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from os import PathLike
from pathlib import Path
from typing import Any

from avsr.datasets.manifest import write_json_lines
from avsr.errors import DataError
from avsr.noise.effects import Record
from avsr.noise.folders import Part
from avsr.noise.mixing import Level
from avsr.untrusted.files import read_file, without_path
from avsr.untrusted.lines import MAX_LIST_BYTES, json_lines
from avsr.untrusted.values import shown

MAX_PLAN_NUMBER = 100_000.0
PLAN_VERSION = 2
"""Version 2 added `avsr_version` and `manifest_sha256` to the first line; plans of version 1 are still read."""


@dataclasses.dataclass(frozen=True)
class NoisePart:
    """One recording, or coloured noise, in the noise of a mixture."""

    noise_sha256: str
    """`sound_hash` of the recording, or the colour of coloured noise."""
    offset: int
    """Sample of the recording to start with; the recording is looped. For coloured noise: the seed."""
    gain_db: float = 0.0
    """Gain before the parts are added up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanLine:
    """One mixture of one utterance."""

    utterance: str
    """Id of the utterance."""
    condition: str
    """Name of the condition for folders and tables, as "clean" or "babble_-5"."""
    noise: str | None
    """Kind of noise; None for clean."""
    snr_db: float | None
    """Requested SNR; None for clean."""
    seed: int
    """Seed of the draws."""
    noises: tuple[NoisePart, ...]
    """The parts of the noise, which are added up; empty for clean."""
    gain_db: float | None
    """Gain of the sum of the parts; None for clean."""
    scale_db: float
    """Gain of the mixture, negative if the mixture did not fit into 16 bits, else 0.0."""
    achieved_snr_db: float | None
    """SNR measured before the effects that come after the noise; None for clean."""
    effects: tuple[Record, ...]
    """The effects in their order, with all parameters."""
    sha256: str
    """Hash of the resulting 16-bit samples."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisePlan:
    """The mixtures of a split of a manifest, and everything they were planned with."""

    protocol: str
    """Name of the protocol."""
    level: Level
    """How the level of speech is measured."""
    manifest: str
    """Path of the manifest of the utterances."""
    split: str
    """Split of the utterances."""
    voices: str
    """Split of the manifest that babble and interfering talkers come from."""
    folders: dict[str, str]
    """Folders of the recordings, as `NoiseLibrary` takes them."""
    part: Part
    """Part of the collections among the folders."""
    effects: str
    """Possible effects, as `parse_effects` reads them."""
    noises: dict[str, str]
    """Hash of each recording used, including impulse responses, and its name in the `NoiseLibrary`."""
    unusable: dict[str, str]
    """Id of each utterance without a line, and the reason."""
    lines: tuple[PlanLine, ...]
    """The mixtures."""
    avsr_version: str | None = None
    """Version of avsr that made the plan; None in a plan of version 1."""
    manifest_sha256: str | None = None
    """Hash of the manifest file; None in a plan of version 1."""


def write_plan(path: str | PathLike[str], plan: NoisePlan) -> None:
    """Write a plan, whole or not at all."""
    header = {"plan": PLAN_VERSION} | {
        field.name: getattr(plan, field.name) for field in dataclasses.fields(plan) if field.name != "lines"
    }
    write_json_lines(path, itertools.chain([header], map(dataclasses.asdict, plan.lines)))


def read_plan(path: str | PathLike[str]) -> NoisePlan:
    """Read a plan. Raises DataError, with file, line and key, if it is damaged, no plan, or of a newer version."""
    rows = json_lines(Path(path), "noise plan", "make it with: avsr noise plan")
    _, header = next(rows, ("", {}))
    if not isinstance(header.get("plan"), int):
        raise DataError(
            f"{path}: is no noise plan", expected='a first line with "plan"', remedy="make it with: avsr noise plan"
        )
    if header.pop("plan") > PLAN_VERSION:
        raise DataError(f"{path}: the noise plan is of a newer version", remedy="install a newer avsr")
    lines = []
    for where, row in rows:
        values = _fields(PlanLine, row, where)
        values["noises"] = tuple(NoisePart(**_fields(NoisePart, part, f"{where}: noises")) for part in values["noises"])
        values["effects"] = tuple(values["effects"])
        # A line has noise with all that belongs to it, or none of it.
        parts = (values["snr_db"], values["gain_db"], values["achieved_snr_db"], values["noises"] or None)
        if len({part is None for part in parts}) != 1:
            raise DataError(f"{where}: wrong values", expected="snr_db, gain_db, achieved_snr_db and noises, or none")
        lines.append(PlanLine(**values))
    # Plans of version 1 lack the last fields of the header, which therefore have defaults.
    return NoisePlan(**_fields(NoisePlan, header | {"lines": tuple(lines)}, f"{path}:1"))


def _fields(kind: type, row: object, where: str) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(kind)]
    # A part of a line is always complete: only a plan of version 1 lacks fields.
    optional = {"avsr_version", "manifest_sha256"}
    if not isinstance(row, dict) or not set(names) - optional <= row.keys() <= set(names):
        got = type(row).__name__
        if isinstance(row, dict):
            unknown = sorted(row.keys() - set(names))
            got = shown(", ".join(unknown)).strip("'") if unknown else ", ".join(sorted(row))
        raise DataError(f"{where}: wrong keys", got=got, expected=", ".join(names))
    for field in dataclasses.fields(kind):
        value = row.get(field.name)
        if field.name in row and not any(_is_a(value, form) for form in str(field.type).split(" | ")):
            raise DataError(f"{where}: wrong value of {field.name}", got=shown(value), expected=field.type)
    return dict(row)


def _is_a(value: object, form: str) -> bool:
    """Whether a value of JSON has the type that an annotation names."""
    match form:
        case "None":
            return value is None
        case "int":
            return type(value) is int
        case "float":
            # Decibels and seconds. Arithmetic beyond this overflows.
            return type(value) in (int, float) and abs(value) <= MAX_PLAN_NUMBER  # type: ignore[arg-type]
        case "tuple[Record, ...]":
            return isinstance(value, list) and all(isinstance(item, dict) for item in value)
        case "dict[str, str]":
            return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
        case _ if form.startswith("tuple"):
            return isinstance(value, list | tuple)
    return isinstance(value, str)


def hash_manifest(path: str | PathLike[str]) -> str:
    """SHA-256 of a manifest file. Raises DataError if it cannot be read."""
    try:
        return hashlib.sha256(read_file(Path(path), MAX_LIST_BYTES, DataError)).hexdigest()
    except DataError as error:
        raise DataError(
            f"{path}: cannot read the manifest",
            got=without_path(error, Path(path)),
            remedy="make it with: avsr prepare",
        ) from None


def describe_other_manifest(plan: NoisePlan, manifest: str | PathLike[str]) -> str | None:
    """What the plan was made for, in a few words, if that is not `manifest`.

    None if the content of `manifest` is the content that the plan was made for, wherever the file lies, or if the plan
    does not say (version 1). A plan for another manifest can still fit: the caller checks that it has the utterances,
    and rendering checks the hash of every mixture.
    """
    if plan.manifest_sha256 is None:
        return None
    got = hash_manifest(manifest)
    if got == plan.manifest_sha256:
        return None
    return (
        f"a plan for split {plan.split!r} of {plan.manifest} with SHA-256 {plan.manifest_sha256[:12]}..., "
        f"not {got[:12]}..., by protocol {plan.protocol} of avsr {plan.avsr_version}"
    )
