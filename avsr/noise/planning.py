"""Plan which noise is mixed into each utterance of a corpus, so that the mixtures can be repeated bit for bit.

    plan = plan_noise("work/grid/manifest.jsonl", "test_seen", folders={"environment": folder}, seeds=(1,))

Every draw is a SHA-256 of (protocol, seed, utterance, kind of noise, purpose). It depends neither on the order of the
utterances nor on workers, machine or other conditions. An utterance gets the same noise at each SNR, so that results
at different levels can be compared.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import cast

import avsr
from avsr.datasets.manifest import Utterance, load_samples, read_manifest
from avsr.errors import ConfigError, DataError, nearest
from avsr.noise.compose import change_mixture, change_voice, loop_recording, sum_noise
from avsr.noise.effects import Effect, Record, draw_effects, parse_effects
from avsr.noise.filters import NoiseColour, coloured_noise
from avsr.noise.folders import Part
from avsr.noise.library import PIECE_SAMPLES, NoiseLibrary, Pcm, open_library, pcm_of, sound_hash
from avsr.noise.mixing import MixResult, mix, rms_db
from avsr.noise.plan import NoisePart, NoisePlan, PlanLine, hash_manifest
from avsr.noise.protocols import COLOURS, Protocol, find_protocol
from avsr.processes import map_in_order
from avsr.randomness import stable_seed

_VOICE_DB = -26.0  # level of each voice of a babble before they are added up
_QUIET_DB = 20.0  # a stretch this far below the level of its recording is drawn again
_DRAWS = 50  # attempts to find a recording that is not silent, and four more for each voice
_SHORTEST_PIECE_SAMPLES = 48_000  # as in the manifests of av_hubert

Progress = Callable[[int, int], None]
"""Called with the number of finished utterances and the number of all utterances."""


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
    """A mixture of each utterance of a split with each kind of noise at each SNR for each seed, and clean speech.

    protocol: name of the protocol.
    folders: folders of noise recordings, as `NoiseLibrary` takes them.
    part: part of the collections among the folders.
    voices: split that babble and interfering talkers come from; None is `split`.
    noises: kinds of noise; None takes the kinds of the protocol.
    snrs_db: levels of noise, None among them is clean; None takes the levels of the protocol.
    effects: effects that may occur on an utterance, as `parse_effects` reads them; the same in all its conditions.
    seeds: seeds of the draws; each makes a full set of mixtures.
    only: ids of the utterances to plan for; an utterance gets the same lines as without this choice.
    workers: processes; 0 works in this one. The plan is the same for any number.
    on_progress: called after each utterance.

    An utterance without a measurable level is listed in `unusable`. Raises ConfigError if the protocol or the folders
    lack something that was named, DataError and MediaError for files.
    """
    utterances = [u for u in read_manifest(manifest) if u.split == split and (only is None or u.id in only)]
    if not utterances:
        raise DataError(f"{manifest}: no utterance of split {split!r}", remedy="check the split")
    chosen = find_protocol(protocol)
    if snrs_db is not None:
        levels_db = (None if snr_db is None else float(snr_db) for snr_db in snrs_db)  # 0 and 0.0 draw the same
        chosen = dataclasses.replace(chosen, snrs_db=tuple(dict.fromkeys(levels_db)))
    if noises is not None:
        chosen = dataclasses.replace(chosen, noises=tuple(dict.fromkeys(noises)))
    if not seeds or not (None in chosen.snrs_db or (chosen.noises and chosen.snrs_db)):
        raise ConfigError("nothing to plan", expected="a seed, and a noise and an SNR, or clean")
    empty_plan = NoisePlan(
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
        avsr_version=avsr.__version__,
        manifest_sha256=hash_manifest(manifest),
    )
    library = open_library(empty_plan)
    _check_noises(chosen, library)
    if any(effect.name == "reverb" for effect in parse_effects(effects)) and not library.names("rir"):
        raise ConfigError("no impulse responses for reverb", remedy="give their folder as rir=FOLDER")
    lines: list[PlanLine] = []
    names: dict[str, str] = {}
    unusable: dict[str, str] = {}
    open_work = functools.partial(_open_planner, chosen, empty_plan, tuple(dict.fromkeys(seeds)))
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
        empty_plan, lines=tuple(lines), noises=dict(sorted(names.items(), key=lambda item: item[1])), unusable=unusable
    )


def _check_noises(protocol: Protocol, library: NoiseLibrary) -> None:
    """Raise ConfigError if a kind of noise has no recordings."""
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
"""The lines of an utterance with hash and name of each recording in them, or the reason why it is unusable."""


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
    for seed in seeds:
        draw = _Draw(protocol.name, seed, utterance.id, "effects")
        records = tuple(draw_effects(effects, draw, library.names("rir")))
        for record in records:
            if record["effect"] == "reverb":
                # The name alone would not show that the folder has another recording under it by now.
                record["rir_sha256"] = library.sha256(record["rir"])
                names[record["rir_sha256"]] = record["rir"]
        voice, voice_scale_db = change_voice(speech, records, library.samples)
        plan_line = functools.partial(_plan_line, utterance, seed, records, voice_scale_db)
        if None in protocol.snrs_db and (seed == seeds[0] or effects):  # without effects clean speech has no draws
            lines.append(plan_line(mix(voice, voice, None), "clean", None, ()))
        for noise in protocol.noises:
            # The SNR is no part of the draw, so that an utterance has the same noise at each level.
            draw = _Draw(protocol.name, seed, utterance.id, noise)
            parts, used = _draw_noise(noise, protocol, library, utterance, len(voice), draw)
            names |= used
            recordings = [
                coloured_noise(len(voice), cast(NoiseColour, part.noise_sha256), part.offset)
                if part.noise_sha256 in COLOURS
                else loop_recording(library.samples(used[part.noise_sha256]), part.offset, len(voice))
                for part in parts
            ]
            total = sum_noise(recordings, parts)
            for snr_db in protocol.snrs_db:
                if snr_db is None:
                    continue
                try:
                    mixed = mix(voice, total, snr_db, level=protocol.level)
                except DataError as error:  # the noise was drawn to have a level, so the speech is too faint
                    return f"{noise} at {snr_db:g} dB: {error}"
                lines.append(plan_line(mixed, f"{noise}_{snr_db:g}", noise, parts))
    return lines, names


def _plan_line(
    utterance: Utterance,
    seed: int,
    records: tuple[Record, ...],
    voice_scale_db: float,
    mixed: MixResult,
    condition: str,
    noise: str | None,
    parts: tuple[NoisePart, ...],
) -> PlanLine:
    samples, scale_db = change_mixture(cast(Pcm, mixed.samples), records)
    return PlanLine(
        utterance=utterance.id,
        condition=condition,
        noise=noise,
        snr_db=mixed.snr_db,
        seed=seed,
        noises=parts,
        gain_db=mixed.gain_db,
        scale_db=round(voice_scale_db + mixed.scale_db + scale_db, 2),
        achieved_snr_db=mixed.achieved_snr_db,
        effects=records,
        sha256=sound_hash(samples),
    )


class _Draw:
    """Draws whole numbers that depend on their purpose alone, by SHA-256, which no release of a library changes."""

    def __init__(self, *what: object) -> None:
        self._what = what

    def __call__(self, bound: int, *purpose: object) -> int:
        """A number from 0 to bound - 1."""
        return stable_seed(*self._what, *purpose) % bound


def _draw_noise(
    noise: str, protocol: Protocol, library: NoiseLibrary, utterance: Utterance, count: int, draw: _Draw
) -> tuple[tuple[NoisePart, ...], dict[str, str]]:
    """The parts of a noise of `count` samples for one utterance, and the names of their recordings by hash."""
    if noise in COLOURS:
        return (NoisePart(noise, draw(1 << 62, "colour")),), {}
    wanted, names, is_babble = _sources(noise, protocol, library, utterance)
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
        # A voice that is drawn twice would be one louder voice.
        if name in parts or not recording.any():
            continue
        if not protocol.loop and len(recording) < count:
            raise DataError(
                f"{library.path(name)}: the noise is shorter than {utterance.id}",
                got=f"{len(recording)} samples",
                expected=f"at least {count}",
                remedy="give a longer recording, or use a protocol that loops",
            )
        # A recording that is long enough is not looped, because a loop has a seam.
        spare = len(recording) - count
        bound = 1 if protocol.offset == "start" else spare + 1 if spare >= 0 else len(recording)
        if (
            is_babble
        ):  # voices come from the same corpus: if all began at their start, they would pause at the same time
            bound = len(recording)
        offset = draw(bound, "offset", attempt)
        stretch = loop_recording(recording, offset, count)
        # A quiet stretch would be turned up until its own noise floor is the noise.
        if not stretch.any() or (protocol.offset == "random" and rms_db(stretch) < rms_db(recording) - _QUIET_DB):
            continue
        # Every voice gets the same level, so that babble is not one loud voice.
        gain_db = round(_VOICE_DB - rms_db(recording, "active"), 3) if is_babble else 0.0
        parts[name] = NoisePart(library.sha256(name), offset, gain_db)
        used[library.sha256(name)] = name
    if len(parts) < wanted:
        raise DataError(
            f"{utterance.id}: not enough to make {noise} of",
            got=f"{len(parts)} recordings with sound",
            expected=f"{wanted}",
            remedy=f"leave {noise} out of --noise-kinds" + (", or name a larger split by --voices SPLIT" * is_babble),
        )
    return tuple(parts.values()), used


def _sources(
    noise: str, protocol: Protocol, library: NoiseLibrary, utterance: Utterance
) -> tuple[int, list[str], bool]:
    """How many recordings a noise takes, their possible names, and whether they are voices of the corpus."""
    if noise in ("babble", "talker") and protocol.babble == "voices":
        wanted = protocol.babble_voices if noise == "babble" else 1
        return wanted, library.voices(apart_from=utterance, at_least=wanted), True
    if noise == "babble" and protocol.babble == "speech":
        return protocol.babble_voices, library.names("speech"), False
    return 1, library.names(noise), False
