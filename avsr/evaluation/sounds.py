"""The sound of each utterance under each condition: clean, or mixed with noise as a noise plan says."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avsr.arrays import Samples
from avsr.datasets.manifest import Utterance
from avsr.errors import DataError
from avsr.evaluation.conditions import SoundCondition
from avsr.files import write_whole
from avsr.noise.folders import Part
from avsr.noise.library import noise_hashes, open_library, require_disjoint
from avsr.noise.plan import NoisePlan, PlanLine, describe_other_manifest, read_plan, write_plan
from avsr.noise.planning import plan_noise
from avsr.noise.protocols import COLOURS, find_protocol
from avsr.noise.render import Renderer

logger = logging.getLogger(__name__)

PLAN_NAME = "noise.jsonl"


@dataclass(frozen=True, kw_only=True)
class NoiseSource:
    """Where the noise of an evaluation comes from; see `plan_noise`."""

    protocol: str = "avsr"
    """Name of a noise protocol."""
    folders: tuple[tuple[str, str], ...] = ()
    """Pairs (kind of noise, folder of recordings)."""
    effects: str = ""
    """Room, microphone and line, as `avsr.noise.effects` reads them."""
    part: Part = "test"
    """Part of a noise collection."""
    voices: str | None = None
    """Split that babble is made of; None for the evaluated split."""
    training: tuple[str, ...] = ()
    """Folders of the noise that the model was trained with. Using a recording of them is an error."""
    plan: str | None = None
    """File of an existing noise plan. It replaces all other settings."""


class DefaultSounds(NamedTuple):
    """The conditions of the sound that are used unless the user names others."""

    noises: tuple[str, ...]
    snrs_db: tuple[float | None, ...]
    """None is clean sound."""
    seeds: tuple[int, ...]
    """Empty for the usual seeds."""
    clean_is_random: bool
    """Whether clean sound depends on the seed too, because random effects are applied to it."""
    left_out: tuple[str, ...]
    """Kinds of noise of the protocol without recordings."""


def default_sounds(source: NoiseSource) -> DefaultSounds:
    """The sounds of the plan if there is one, else of the protocol.

    Of the protocol "avsr", kinds of noise without recordings are left out.
    Raises ConfigError for an unknown protocol, DataError if the file is no plan.
    """
    if source.plan is not None:
        plan = read_plan(source.plan)
        sounds = planned_sounds(plan)
        return DefaultSounds(
            noises=tuple(dict.fromkeys(sound.noise for sound in sounds if sound.snr_db is not None)),
            snrs_db=tuple(dict.fromkeys(sound.snr_db for sound in sounds)),
            seeds=tuple(dict.fromkeys(sound.seed for sound in sounds if sound.seed is not None)),
            clean_is_random=bool(plan.effects),
            left_out=(),
        )
    protocol = find_protocol(source.protocol)
    left_out: tuple[str, ...] = ()
    # The default protocol must work without any recording; the protocols of the literature need the noises they name.
    if protocol.name == "avsr" and not source.folders:
        left_out = tuple(noise for noise in protocol.noises if noise not in (*COLOURS, "babble"))
    noises = tuple(noise for noise in protocol.noises if noise not in left_out)
    return DefaultSounds(noises, protocol.snrs_db, (), bool(source.effects), left_out)


def make_plan(
    source: NoiseSource,
    manifest: str,
    split: str,
    sounds: tuple[SoundCondition, ...],
    utterances: Collection[str],
    *,
    workers: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> NoisePlan | None:
    """The noise plan of these sounds for some utterances of a split; None if nothing is mixed.

    source: where the noise comes from.
    sounds: conditions of the sound.
    utterances: ids.
    workers: processes; 0 plans in this one.
    on_progress: called with the number of planned utterances and of all.
    Raises as `plan_noise`; DataError if an existing plan lacks a sound or an utterance, or if a recording was used in
    training.
    """
    # Clean sound without effects needs no plan.
    mixed = [sound for sound in sounds if sound != SoundCondition()]
    if not mixed or not utterances:
        return None
    if source.plan is not None:
        plan = read_plan(source.plan)
        there = planned_sounds(plan)
        lacking = [sound for sound in mixed if sound not in there]
        if lacking:
            raise DataError(
                f"{source.plan}: has no {lacking[0]}",
                expected=", ".join(dict.fromkeys(str(sound._replace(seed=None)) for sound in there)),
                remedy="leave out --noise-kinds, --snr and --seed to use all that is planned",
            )
        # An utterance too faint for any SNR has no line: the plan lists it as unusable.
        planned = {line.utterance for line in plan.lines} | plan.unusable.keys()
        left_out = sorted(set(utterances) - planned)
        other_manifest = describe_other_manifest(plan, manifest)
        if left_out:
            raise DataError(
                f"{source.plan}: does not plan for {left_out[0]}",
                got=f"{len(left_out)} of {len(utterances)} utterances without a line"
                + (f", and {other_manifest}" if other_manifest else ""),
                remedy="plan for the same --split" + (" of this manifest" if other_manifest else ""),
            )
        if other_manifest is not None:
            logger.warning(
                "%s: got %s; the utterances fit, and each mixture is checked by its hash", source.plan, other_manifest
            )
        # The sound of the evaluated manifest is mixed, wherever the plan was made.
        plan = replace(plan, manifest=manifest)
    else:
        plan = plan_noise(
            manifest,
            split,
            protocol=source.protocol,
            folders=dict(source.folders),
            part=source.part,
            voices=source.voices,
            noises=list(dict.fromkeys(sound.noise for sound in mixed if sound.snr_db is not None)),
            snrs_db=list(dict.fromkeys(sound.snr_db for sound in sounds)),
            effects=source.effects,
            seeds=list(dict.fromkeys(sound.seed for sound in mixed if sound.seed is not None)),
            only=utterances,
            workers=workers,
            on_progress=on_progress,
        )
    if source.training:
        library = open_library(plan)
        used = {sha256: library.path(name) for sha256, name in plan.noises.items()}
        for folder in source.training:
            require_disjoint(noise_hashes(Path(folder)), used)
    return plan


def planned_sounds(plan: NoisePlan) -> list[SoundCondition]:
    """The conditions of the sound in a plan, in its order."""
    return list(dict.fromkeys(_sound(plan, line) for line in plan.lines))


def describe_plan(plan: NoisePlan) -> dict[str, Any]:
    """The record of a plan, as JSON. Its hash covers every recording, offset and gain, but not where the files lie."""
    lines = "\n".join(json.dumps(asdict(line), sort_keys=True) for line in plan.lines)
    return {
        "protocol": plan.protocol,
        "level": plan.level,
        "voices": plan.voices,
        "part": plan.part,
        "folders": plan.folders,
        "effects": plan.effects,
        "recordings": len(plan.noises),
        "unusable": plan.unusable,
        "plan_sha256": hashlib.sha256(lines.encode()).hexdigest(),
    }


def save_plan(folder: Path, plan: NoisePlan | None) -> None:
    """Write the plan into the folder of the results, whole or not at all, so that others can repeat the mixtures."""
    if plan is not None:
        with write_whole(folder / PLAN_NAME) as temporary:  # shards on several machines may write it at once
            write_plan(temporary, plan)


class Sounds:
    """Renders the sounds of an evaluation by the noise plan in its folder; without a plan all sound is clean."""

    def __init__(self, folder: Path) -> None:
        path = folder / PLAN_NAME
        self._renderer: Renderer | None = None
        self._lines: dict[tuple[str, SoundCondition], PlanLine] = {}
        self._unusable: dict[str, str] = {}
        if path.exists():
            plan = read_plan(path)
            self._renderer = Renderer(plan)
            self._lines = {(line.utterance, _sound(plan, line)): line for line in plan.lines}
            self._unusable = plan.unusable

    def render(self, utterance: Utterance, samples: Samples, sound: SoundCondition) -> tuple[Samples, float | None]:
        """Samples under a condition, and the achieved SNR in dB, None without noise.

        Noise cannot be measured against digital silence; such an utterance is returned unchanged, not dropped.
        Raises DataError if the plan does not have the sound, or changes the length of the samples.
        """
        if sound == SoundCondition() or utterance.id in self._unusable:
            return samples, None
        line = self._lines.get((utterance.id, sound))
        if line is None or self._renderer is None:
            raise DataError(f"the noise plan has no {sound} for {utterance.id}")
        mixed = self._renderer.render(line).samples
        if len(mixed) != len(samples):
            raise DataError(
                f"{utterance.id}: the plan changes the length of the sound",
                got=f"{len(mixed)} samples",
                expected=f"{len(samples)}, as the lips have",
                remedy="leave out effects that change it",
            )
        return (mixed.astype(np.float32) / 32768).astype(np.float32), line.achieved_snr_db


def _sound(plan: NoisePlan, line: PlanLine) -> SoundCondition:
    if line.noise is None:
        # Only effects make clean sound random.
        return SoundCondition(seed=line.seed if plan.effects else None)
    return SoundCondition(line.noise, line.snr_db, line.seed)
