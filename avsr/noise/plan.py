"""Noise plans: what is mixed into each utterance, written down so that anyone gets the same bytes.

    plan = plan_noise("work/grid/manifest.jsonl", "test_seen", folders={"environment": folder}, seeds=(1,))
    renderer = Renderer(plan)
    renderer.render(plan.lines[0]).samples          # int16 [S]

A plan is JSON lines: the first says what it is a plan of, each other is one mixture of one utterance:

    {"utterance": "s1/bbaf2n", "condition": "babble_-5", "noise": "babble", "snr_db": -5.0, "seed": 1,
     "noises": [{"noise_sha256": "...", "offset": 4711, "gain_db": -3.214}, ...], "gain_db": 8.123, "scale_db": 0.0,
     "achieved_snr_db": -4.9999, "effects": [], "sha256": "..."}

snr_db null is clean, 0.0 is 0 dB. `sha256` is that of the resulting 16-bit samples, and rendering anything else is an
error. Draws are SHA-256 of (protocol, seed, utterance, kind of noise, purpose): nothing depends on order, workers, the
machine or the other conditions, and an utterance hears the same noise at each SNR, so that results can be compared.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from avsr.datasets.manifest import Utterance, load_samples, read_manifest, write_json_lines
from avsr.errors import ConfigError, DataError, nearest
from avsr.noise.effects import VOICE_EFFECTS, Effect, apply_effects, draw_effects, parse_effects
from avsr.noise.filters import NoiseColour, coloured_noise
from avsr.noise.folders import Part
from avsr.noise.library import PIECE_SAMPLES, NoiseLibrary, Pcm, noise_hashes, pcm_of, sound_hash
from avsr.noise.mixing import FULL_SCALE, Level, MixResult, add_noise, fitting_scale_db, linear, mix, rms_db
from avsr.noise.protocols import COLOURS, Protocol, find_protocol
from avsr.processes import map_in_order
from avsr.randomness import stable_seed

PLAN_VERSION = 1
_VOICE_DB = -26.0  # level of each voice of a babble before they are added up
_QUIET_DB = 20.0  # a stretch of a recording this far below the whole is drawn again
_DRAWS = 50
_SHORTEST_PIECE_SAMPLES = 48_000  # as av_hubert's manifests have it

Progress = Callable[[int, int], None]
"""Called with the number of utterances done and of all."""


@dataclasses.dataclass(frozen=True)
class NoisePart:
    """What a mixture's noise is made of: a recording, looped from an offset, or coloured noise.

    noise_sha256: of the recording (`sound_hash`), or the colour. offset: sample to start with, or the seed of coloured
    noise. gain_db: before the parts are added up.
    """

    noise_sha256: str
    offset: int
    gain_db: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanLine:
    """One mixture.

    utterance: its id. condition: name for folders and tables, as "clean" or "babble_-5". noise: its kind, None for
    clean. snr_db: the target, None for clean. seed: of the draws. noises: added up. gain_db: of their sum, None for
    clean. scale_db: what the mixture was turned down by to fit. achieved_snr_db: measured before the effects that come
    after the noise. effects: what else was done, in order, with all parameters. sha256: of the resulting samples.
    """

    utterance: str
    condition: str
    noise: str | None
    snr_db: float | None
    seed: int
    noises: tuple[NoisePart, ...]
    gain_db: float | None
    scale_db: float
    achieved_snr_db: float | None
    effects: tuple[dict[str, Any], ...]
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisePlan:
    """Mixtures, and what they were planned with.

    protocol: its name. level: how speech is measured. manifest, split: the utterances. folders, part, voices: what
    `NoiseLibrary` found the noise in; voices is the split of the manifest that they are from. effects: as
    `parse_effects` reads them. noises: hash of each recording used, impulse responses among them -> its name in the
    library. unusable: utterances without lines -> why.
    """

    protocol: str
    level: Level
    manifest: str
    split: str
    voices: str
    folders: dict[str, str]
    part: Part
    effects: str
    noises: dict[str, str]
    unusable: dict[str, str]
    lines: tuple[PlanLine, ...]


class Rendered(NamedTuple):
    """One mixture: int16 samples at 16 kHz, and how it came about."""

    samples: Pcm
    line: PlanLine


def plan_noise(
    manifest: str | PathLike[str],
    split: str,
    *,
    protocol: str = "avsr",
    folders: Mapping[str, str | Path] | None = None,
    part: Part = "test",
    voices: str | None = None,
    noises: Sequence[str] | None = None,
    snrs_db: Sequence[float | None] | None = None,
    effects: str = "",
    seeds: Sequence[int] = (1,),
    only: Collection[str] | None = None,
    workers: int = 0,
    on_progress: Progress | None = None,
) -> NoisePlan:
    """Mixtures of each utterance of a split with each kind of noise at each SNR, for each seed, and clean ones.

    folders, part: noise recordings, see `NoiseLibrary`. voices: split that babble and talkers are made of, if not the
    same. noises, snrs_db: those of the protocol unless given (None in snrs_db is clean). effects: what else happens to
    each utterance (`parse_effects`), the same in all its conditions. only: ids of the utterances to plan for, which get
    what they would get among all. workers: processes; 0 works in this one; the plan
    is the same for any number. Utterances without a level to refer to are listed as unusable. Raises ConfigError for
    what the protocol or the folders do not have, DataError and MediaError for files.
    """
    utterances = [u for u in read_manifest(manifest) if u.split == split and (only is None or u.id in only)]
    if not utterances:
        raise DataError(f"{manifest}: no utterance of split {split!r}", remedy="check the split")
    chosen = find_protocol(protocol)
    if snrs_db is not None:
        levels_db = (None if snr_db is None else float(snr_db) for snr_db in snrs_db)
        chosen = dataclasses.replace(chosen, snrs_db=tuple(dict.fromkeys(levels_db)))
    if noises is not None:
        chosen = dataclasses.replace(chosen, noises=tuple(dict.fromkeys(noises)))
    if not seeds or not (None in chosen.snrs_db or (chosen.noises and chosen.snrs_db)):
        raise ConfigError("nothing to plan", expected="a seed, and a noise and an SNR, or clean")
    frame = NoisePlan(
        protocol=chosen.name,
        level=chosen.level,
        manifest=str(manifest),
        split=split,
        voices=voices or split,
        folders={key: str(folder) for key, folder in (folders or {}).items()},
        part=part,
        effects=effects,
        noises={},
        unusable={},
        lines=(),
    )
    library = open_library(frame)
    _check_noises(chosen, library)
    if any(effect.name == "reverb" for effect in parse_effects(effects)) and not library.names("rir"):
        raise ConfigError("no impulse responses for reverb", remedy="give their folder as rir=FOLDER")
    lines: list[PlanLine] = []
    names: dict[str, str] = {}
    unusable: dict[str, str] = {}
    open_work = functools.partial(_open_planner, chosen, frame, tuple(dict.fromkeys(seeds)))
    for done, (utterance, outcome) in enumerate(
        zip(utterances, map_in_order(open_work, utterances, workers), strict=True), start=1
    ):
        if isinstance(outcome, str):
            unusable[utterance.id] = outcome
        else:
            lines += outcome[0]
            names |= outcome[1]
        if on_progress is not None:
            on_progress(done, len(utterances))
    return dataclasses.replace(
        frame, lines=tuple(lines), noises=dict(sorted(names.items(), key=lambda item: item[1])), unusable=unusable
    )


def open_library(plan: NoisePlan) -> NoiseLibrary:
    """The noise a plan was made with. Raises DataError where it is not there."""
    voices = [utterance for utterance in read_manifest(plan.manifest) if utterance.split == plan.voices]
    return NoiseLibrary(plan.folders, part=plan.part, voices=voices, voices_root=Path(plan.manifest).parent)


class Renderer:
    """Makes the mixtures of a plan. It keeps recordings in memory; use one for many lines."""

    def __init__(self, plan: NoisePlan) -> None:
        """Raises DataError where manifest or noise are not there."""
        self.plan = plan
        self.library = open_library(plan)
        self.root = Path(plan.manifest).parent
        self.utterances = {utterance.id: utterance for utterance in read_manifest(plan.manifest)}

    def render(self, line: PlanLine) -> Rendered:
        """The mixture that `line` describes. Raises DataError where what comes out is not what was planned."""
        if line.utterance not in self.utterances:
            raise DataError(
                f"{self.plan.manifest}: has no utterance {line.utterance}", remedy="use the plan's manifest"
            )
        speech = pcm_of(load_samples(self.utterances[line.utterance], self.root))
        voice, _ = _affect(speech, line.effects, self._impulse_response(line), voice=True)
        samples = voice
        if line.gain_db is not None:
            recordings = [self._recording(part, len(voice)) for part in line.noises]
            noise = _sum(recordings, line.noises)
            samples = cast(Pcm, add_noise(voice, noise, line.gain_db, level=self.plan.level).samples)
        samples, _ = _affect(samples, line.effects, None, voice=False)
        if sound_hash(samples) != line.sha256:
            raise DataError(
                f"{line.utterance}: {line.condition}: the mixture is not the planned one",
                remedy="the sound of the utterance has changed since, or a room or codec differs here: plan again",
            )
        return Rendered(samples, line)

    def _recording(self, part: NoisePart, count: int) -> NDArray[Any]:
        if part.noise_sha256 in COLOURS:
            return coloured_noise(count, cast(NoiseColour, part.noise_sha256), part.offset)
        return _loop(self._planned(part.noise_sha256), part.offset, count)

    def _impulse_response(self, line: PlanLine) -> Callable[[str], Pcm]:
        hashes = {record["rir"]: record["rir_sha256"] for record in line.effects if record["effect"] == "reverb"}
        return lambda name: self._planned(hashes[name])

    def _planned(self, sha256: str) -> Pcm:
        name = self.plan.noises.get(sha256)
        if name is None:
            raise DataError("the plan does not say which recording this is", got=sha256)
        if self.library.sha256(name) != sha256:
            raise DataError(
                f"{self.library.path(name)}: is not the recording that was planned with",
                got=f"SHA-256 {self.library.sha256(name)[:12]}... of its samples",
                expected=f"{sha256[:12]}...",
                remedy="use the same file; as lossy files differ between decoders, share 16 kHz WAV or FLAC",
            )
        return self.library.samples(name)


def write_plan(path: str | PathLike[str], plan: NoisePlan) -> None:
    """Write a plan, whole or not at all."""
    header = {"plan": PLAN_VERSION} | {
        field.name: getattr(plan, field.name) for field in dataclasses.fields(plan) if field.name != "lines"
    }
    write_json_lines(path, itertools.chain([header], map(dataclasses.asdict, plan.lines)))


def read_plan(path: str | PathLike[str]) -> NoisePlan:
    """Read a plan. Raises DataError naming file, line and key where it is none, or of a newer version."""
    try:
        rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot read the noise plan", got=error, remedy="make it with: avsr noise plan"
        ) from error
    header = rows[0] if rows else None
    if not isinstance(header, dict) or not isinstance(header.get("plan"), int):
        raise DataError(
            f"{path}: is no noise plan", expected='a first line with "plan"', remedy="make it with: avsr noise plan"
        )
    if header.pop("plan") > PLAN_VERSION:
        raise DataError(f"{path}: the noise plan is of a newer version", remedy="install a newer avsr")
    lines = []
    for number, row in enumerate(rows[1:], start=2):
        values = _fields(PlanLine, row, f"{path}:{number}")
        parts = values["noises"]
        if not isinstance(parts, list):
            raise DataError(f"{path}:{number}: wrong value of noises", expected="a list")
        values["noises"] = tuple(NoisePart(**_fields(NoisePart, part, f"{path}:{number}: noises")) for part in parts)
        values["effects"] = tuple(values["effects"])
        lines.append(PlanLine(**values))
    return NoisePlan(**_fields(NoisePlan, header | {"lines": tuple(lines)}, f"{path}:1"))


def held_out_hashes(path: Path) -> dict[str, str]:
    """The hash of each recording of a noise plan, or below a folder of test noise, and its name."""
    if path.is_dir():
        return noise_hashes(path)
    return {sha256: f"{path}: {name}" for sha256, name in read_plan(path).noises.items()}


def _fields(kind: type, row: object, where: str) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(row, dict) or sorted(row) != sorted(names):
        got = ", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__
        raise DataError(f"{where}: wrong keys", got=got, expected=", ".join(names))
    return dict(row)


def _check_noises(protocol: Protocol, library: NoiseLibrary) -> None:
    for noise in protocol.noises:
        if noise in COLOURS or (noise in ("babble", "talker") and protocol.babble == "voices"):
            continue
        wanted = "speech" if noise == "babble" and protocol.babble == "speech" else noise
        if not library.names(wanted):
            known = [*COLOURS, *(("babble", "talker") if protocol.babble == "voices" else ()), *library.kinds]
            close = nearest(noise, known)
            raise ConfigError(
                f"no recordings for the noise {noise!r}",
                expected=f"a folder of {wanted}, or one of {', '.join(known)}",
                remedy=f"did you mean {close}?" if close else "give its folder, or name the noises to use",
            )


def _open_planner(protocol: Protocol, plan: NoisePlan, seeds: tuple[int, ...]) -> Callable[[Utterance], _Outcome]:
    effects = parse_effects(plan.effects)
    return functools.partial(_plan_utterance, protocol, effects, open_library(plan), Path(plan.manifest).parent, seeds)


_Outcome = tuple[list[PlanLine], dict[str, str]] | str
"""Lines of an utterance and the recordings they need, or why there are none."""


def _plan_utterance(
    protocol: Protocol,
    effects: tuple[Effect, ...],
    library: NoiseLibrary,
    root: Path,
    seeds: tuple[int, ...],
    utterance: Utterance,
) -> _Outcome:
    if utterance.audio is None:
        return "has no sound"
    speech = pcm_of(load_samples(utterance, root))
    if not speech.any():
        return "digital silence, which has no level"
    lines: list[PlanLine] = []
    names: dict[str, str] = {}

    def add(voice: MixResult, records: tuple[dict[str, Any], ...], voice_scale_db: float, **values: Any) -> None:
        samples, scale_db = _affect(cast(Pcm, voice.samples), records, None, voice=False)
        line = PlanLine(
            utterance=utterance.id,
            snr_db=voice.snr_db,
            gain_db=voice.gain_db,
            scale_db=round(voice_scale_db + voice.scale_db + scale_db, 2),
            achieved_snr_db=voice.achieved_snr_db,
            effects=records,
            sha256=sound_hash(samples),
            **values,
        )
        lines.append(line)

    for seed in seeds:
        records = tuple(
            draw_effects(effects, _Draw(protocol.name, seed, utterance.id, "effects"), library.names("rir"))
        )
        for record in records:
            if record["effect"] == "reverb":
                record["rir_sha256"] = library.sha256(record["rir"])
                names[record["rir_sha256"]] = record["rir"]
        voice, voice_scale_db = _affect(speech, records, library.samples, voice=True)
        if None in protocol.snrs_db and (seed == seeds[0] or effects):  # without effects all seeds have the same
            clean = mix(voice, voice, None)
            add(clean, records, voice_scale_db, condition="clean", noise=None, seed=seed, noises=())
        for noise in protocol.noises:
            draw = _Draw(protocol.name, seed, utterance.id, noise)
            parts, used = _draw_noise(noise, protocol, library, utterance, len(voice), draw)
            names |= used
            recordings = [
                coloured_noise(len(voice), cast(NoiseColour, part.noise_sha256), part.offset)
                if part.noise_sha256 in COLOURS
                else _loop(library.samples(used[part.noise_sha256]), part.offset, len(voice))
                for part in parts
            ]
            total = _sum(recordings, parts)
            for snr_db in protocol.snrs_db:
                if snr_db is None:
                    continue
                try:
                    mixed = mix(voice, total, snr_db, level=protocol.level)
                except DataError as error:  # too faint for it, as the noise is known to have a level
                    return f"{noise} at {snr_db:g} dB: {error}"
                condition = f"{noise}_{snr_db:g}"
                add(mixed, records, voice_scale_db, condition=condition, noise=noise, seed=seed, noises=parts)
    return lines, names


def _affect(
    samples: Pcm, records: Sequence[dict[str, Any]], impulse_response: Callable[[str], Pcm] | None, *, voice: bool
) -> tuple[Pcm, float]:
    """Samples after the effects on the voice, or after the others, and what they were turned down by to fit."""
    chosen = [record for record in records if (record["effect"] in VOICE_EFFECTS) == voice]
    if not chosen:
        return samples, 0.0
    affected = apply_effects((samples / FULL_SCALE).astype(np.float32), chosen, impulse_response)
    return pcm_of(affected), fitting_scale_db(affected.astype(np.float64) * FULL_SCALE)


class _Draw:
    """Numbers that depend on what they are for and on nothing else, by SHA-256, which no release can change."""

    def __init__(self, *what: object) -> None:
        self._what = what

    def __call__(self, bound: int, *purpose: object) -> int:
        """A number from 0 to bound - 1."""
        return stable_seed(*self._what, *purpose) % bound


def _draw_noise(
    noise: str, protocol: Protocol, library: NoiseLibrary, utterance: Utterance, count: int, draw: _Draw
) -> tuple[tuple[NoisePart, ...], dict[str, str]]:
    """The parts of one noise for one utterance, and the names of their recordings by hash."""
    if noise in COLOURS:
        return (NoisePart(noise, draw(1 << 62, "colour")),), {}
    if noise in ("babble", "talker") and protocol.babble == "voices":
        wanted = protocol.babble_voices if noise == "babble" else 1
        names = library.voices(apart_from=utterance, at_least=wanted)
        is_babble = True
    elif noise == "babble" and protocol.babble == "speech":
        wanted, names, is_babble = protocol.babble_voices, library.names("speech"), False
    else:
        wanted, names, is_babble = 1, library.names(noise), False
    parts: dict[str, NoisePart] = {}
    used: dict[str, str] = {}
    for attempt in range(_DRAWS + 4 * wanted):
        if len(parts) == wanted or not names:
            break
        name = names[draw(len(names), "recording", attempt)]
        recording = library.samples(name)
        if protocol.pieces:
            if len(recording) <= PIECE_SAMPLES:
                continue
            name += f"#{draw(-(-len(recording) // PIECE_SAMPLES), 'piece', attempt)}"
            recording = library.samples(name)
            if len(recording) < _SHORTEST_PIECE_SAMPLES:
                continue
        if name in parts or not recording.any():
            continue
        if not protocol.loop and len(recording) < count:
            raise DataError(
                f"{library.path(name)}: the noise is shorter than {utterance.id}",
                got=f"{len(recording)} samples",
                expected=f"at least {count}",
                remedy="give a longer recording, or use a protocol that loops",
            )
        spare = len(recording) - count
        bound = 1 if protocol.offset == "start" else spare + 1 if spare >= 0 else len(recording)
        if is_babble:  # voices are recorded like the speech itself: from their start they would pause where it does
            bound = len(recording)
        offset = draw(bound, "offset", attempt)
        stretch = _loop(recording, offset, count)
        if not stretch.any() or (protocol.offset == "random" and rms_db(stretch) < rms_db(recording) - _QUIET_DB):
            continue
        gain_db = round(_VOICE_DB - rms_db(recording, "active"), 3) if is_babble else 0.0
        parts[name] = NoisePart(library.sha256(name), offset, gain_db)
        used[library.sha256(name)] = name
    if len(parts) < wanted:
        raise DataError(
            f"{utterance.id}: not enough to make {noise} of",
            got=f"{len(parts)} recordings with sound",
            expected=f"{wanted}",
            remedy="use a larger split for voices, or other noises",
        )
    return tuple(parts.values()), used


def _loop(recording: Pcm, offset: int, count: int) -> Pcm:
    return recording[np.arange(offset, offset + count) % len(recording)]


def _sum(recordings: Sequence[NDArray[Any]], parts: Sequence[NoisePart]) -> NDArray[np.float64]:
    """The parts with their gains, added up one by one, as float samples."""
    total = np.zeros(len(recordings[0]))
    for samples, part in zip(recordings, parts, strict=True):
        scale = FULL_SCALE if samples.dtype == np.int16 else 1.0
        total += samples * (linear(part.gain_db) / scale)
    return total
