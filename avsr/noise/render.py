"""Make the mixtures of a noise plan: one at a time in memory, or all as files.

    renderer = Renderer(plan)
    renderer.render(plan.lines[0]).samples        # int16 [S]

`render_plan` writes prepared corpora like the clean one, for any recogniser:

    OUT/plan.jsonl                                the plan that was rendered
    OUT/seed1/babble_-5/manifest.jsonl            the manifest of one condition, with the lips of the clean corpus
    OUT/seed1/babble_-5/audio/<id>.wav            16 kHz, 16 bit
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import os
import wave
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from avsr.datasets.manifest import Utterance, load_samples, read_manifest, write_manifest, write_wav
from avsr.errors import DataError
from avsr.files import only_writer, remove_partial
from avsr.noise.compose import change_mixture, change_voice, loop_recording, sum_noise
from avsr.noise.filters import NoiseColour, coloured_noise
from avsr.noise.library import Pcm, open_library, pcm_of, sound_hash
from avsr.noise.mixing import add_noise
from avsr.noise.plan import NoisePart, NoisePlan, PlanLine, describe_other_manifest, write_plan
from avsr.noise.planning import Progress
from avsr.noise.protocols import COLOURS
from avsr.processes import map_in_order

logger = logging.getLogger(__name__)

_LINES_AT_A_TIME = 32


class Rendered(NamedTuple):
    """One mixture."""

    samples: Pcm
    line: PlanLine


class Renderer:
    """Makes the mixtures of a plan. It keeps recordings in memory, so use one renderer for many lines."""

    def __init__(self, plan: NoisePlan) -> None:
        """Raises DataError if the manifest or a folder of noise is missing."""
        self.plan = plan
        self.library = open_library(plan)
        self.root = Path(plan.manifest).parent
        self.utterances = {utterance.id: utterance for utterance in read_manifest(plan.manifest)}

    def render(self, line: PlanLine) -> Rendered:
        """The mixture that `line` describes. Raises DataError if the samples are not the planned ones."""
        if line.utterance not in self.utterances:
            raise DataError(
                f"{self.plan.manifest}: has no utterance {line.utterance}", remedy="use the plan's manifest"
            )
        speech = pcm_of(load_samples(self.utterances[line.utterance], self.root))
        try:
            samples = self._mixture(speech, line)
        # A plan from a stranger may lack a parameter of an effect, or state one that nothing can be computed with.
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise DataError(
                f"{line.utterance}: {line.condition}: the plan cannot be followed",
                got=f"{type(error).__name__}: {error}",
                remedy="plan again",
            ) from error
        if sound_hash(samples) != line.sha256:
            raise DataError(
                f"{line.utterance}: {line.condition}: the mixture is not the planned one",
                remedy="the sound of the utterance has changed since, or a room or codec differs here: plan again",
            )
        return Rendered(samples, line)

    def _mixture(self, speech: Pcm, line: PlanLine) -> Pcm:
        voice, _ = change_voice(speech, line.effects, self._impulse_response(line))
        samples = voice
        if line.gain_db is not None:
            recordings = [self._recording(part, len(voice)) for part in line.noises]
            noise = sum_noise(recordings, line.noises)
            samples = cast(Pcm, add_noise(voice, noise, line.gain_db, level=self.plan.level).samples)
        return change_mixture(samples, line.effects)[0]

    def _recording(self, part: NoisePart, count: int) -> NDArray[Any]:
        if part.noise_sha256 in COLOURS:
            return coloured_noise(count, cast(NoiseColour, part.noise_sha256), part.offset)
        return loop_recording(self._planned(part.noise_sha256), part.offset, count)

    def _impulse_response(self, line: PlanLine) -> Callable[[str], Pcm]:
        # By hash and not by name: a folder may hold another recording under this name by now.
        hashes = {record["rir"]: record["rir_sha256"] for record in line.effects if record["effect"] == "reverb"}
        return lambda name: self._planned(hashes[name])

    def _planned(self, sha256: str) -> Pcm:
        """The recording with this hash. Raises DataError if the file at its place is another one."""
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


def render_plan(
    plan: NoisePlan, out: str | PathLike[str], *, workers: int = 0, on_progress: Progress | None = None
) -> list[Path]:
    """Write all mixtures of `plan` below the folder `out`. Returns the manifests, one for each condition and seed.

    plan: if its manifest has changed since the plan was made but still has the utterances, a warning is logged.
    out: files that are already there and as planned are kept, so an interrupted rendering can be continued.
    workers: processes; 0 works in this one.
    on_progress: called after every few mixtures, with their number and the number of all.

    Raises DataError if the manifest lacks an utterance, or if a mixture is not the planned one.
    """
    out = Path(out)
    utterances = {utterance.id: utterance for utterance in read_manifest(plan.manifest)}
    other_manifest = describe_other_manifest(plan, plan.manifest)
    for line in plan.lines:
        for name in (line.utterance, line.condition):  # both become parts of paths
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise DataError(f"{out}: a name of the plan leads out of the folder", got=name)
        if line.utterance not in utterances:
            raise DataError(
                f"{plan.manifest}: has no utterance {line.utterance}",
                got=other_manifest,
                remedy="use the plan's manifest",
            )
    if other_manifest is not None:
        logger.warning("%s: has changed: got %s; each mixture is checked by its hash", plan.manifest, other_manifest)
    out.mkdir(parents=True, exist_ok=True)
    with only_writer(out):
        return _render_all(plan, out, utterances, workers, on_progress)


def _render_all(
    plan: NoisePlan, out: Path, utterances: Mapping[str, Utterance], workers: int, on_progress: Progress | None
) -> list[Path]:
    """Write all mixtures into a folder that no other process writes to."""
    remove_partial(out)  # temporary files have random names, so a killed run's are never overwritten
    # Blocks, because neighbouring lines use the same recordings, which each process keeps in memory.
    blocks = [plan.lines[i : i + _LINES_AT_A_TIME] for i in range(0, len(plan.lines), _LINES_AT_A_TIME)]
    done = 0
    for count in map_in_order(functools.partial(_open_renderer, plan, out), blocks, workers):
        done += count
        if on_progress is not None:
            on_progress(done, len(plan.lines))
    root = Path(plan.manifest).parent
    manifests = []
    # `groupby` joins neighbours only.
    by_folder = sorted(plan.lines, key=lambda line: str(_folder(line)))
    for folder, lines in itertools.groupby(by_folder, key=_folder):
        rows = []
        for line in lines:
            utterance = utterances[line.utterance]
            video = utterance.video and os.path.relpath(root / utterance.video, out / folder)
            rows.append(dataclasses.replace(utterance, audio=f"audio/{utterance.id}.wav", video=video))
        manifests.append(out / folder / "manifest.jsonl")
        write_manifest(manifests[-1], sorted(rows, key=lambda row: row.id))
    # The manifests and the plan come last, so a folder with them has all its sound.
    write_plan(out / "plan.jsonl", plan)
    return manifests


def _folder(line: PlanLine) -> Path:
    return Path(f"seed{line.seed}", line.condition)


def _open_renderer(plan: NoisePlan, out: Path) -> Callable[[tuple[PlanLine, ...]], int]:
    return functools.partial(_render, Renderer(plan), out)


def _render(renderer: Renderer, out: Path, lines: tuple[PlanLine, ...]) -> int:
    for line in lines:
        path = out / _folder(line) / "audio" / f"{line.utterance}.wav"
        # The hash decides, because a file of another plan may lie at the same place.
        if not _is_rendered(path, line):
            write_wav(path, renderer.render(line).samples)
    return len(lines)


def _is_rendered(path: Path, line: PlanLine) -> bool:
    """Whether the file has the planned samples; False if it is missing or damaged."""
    try:
        with wave.open(str(path), "rb") as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    except (OSError, EOFError, wave.Error):
        return False
    return sound_hash(samples.astype(np.int16)) == line.sha256
