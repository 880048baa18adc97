"""Noise recordings: read on demand, identified by the hash of their samples, different ones for training and tests."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from avsr.account import Account
from avsr.arrays import Samples
from avsr.datasets.manifest import Utterance, load_samples, read_manifest
from avsr.errors import DataError, MediaError
from avsr.media import read_audio
from avsr.noise.filters import NoiseColour, coloured_noise
from avsr.noise.folders import SOUND_FOLDER, Part, find_noises, sound_files
from avsr.noise.mixing import FULL_SCALE, fitting_scale_db, linear
from avsr.noise.plan import NoisePlan, read_plan

NoiseKind = Literal["environment", "babble", "coloured"]

Pcm = NDArray[np.int16]
"""Sound [S]: mono, 16 kHz, 16 bit."""

PIECE_SAMPLES = 160_000  # 10 s
_CACHE_BYTES = 256 << 20


class NoiseLibrary:
    """Recordings and voices by kind and name: 16-bit samples at 16 kHz, read on demand and kept in memory for a while.

    The name of a recording is the key of its folder and the path below the folder, "environment/rain.wav". With "#2"
    at the end it is the third piece of 10 s of the recording. The name of a voice is "voice/" and the id of its
    utterance.
    """

    def __init__(
        self,
        folders: Mapping[str, str | Path] | None = None,
        *,
        part: Part = "test",
        voices: Sequence[Utterance] = (),
        voices_root: str | Path = ".",
    ) -> None:
        """Find the recordings.

        folders: {"environment": folder, "musan": folder, ...}; `find_noises` explains the keys.
        part: the part of the collections to use.
        voices: utterances for babble and interfering talkers.
        voices_root: folder of the manifest of the voices.
        """
        self._paths: dict[str, Path] = {}
        self._names: dict[str, list[str]] = {}
        for key, folder in (folders or {}).items():
            for file in find_noises(key, Path(folder), part):
                name = f"{key}/{file.name}"
                self._paths[name] = file.path
                self._names.setdefault(file.kind, []).append(name)
        self._voices = {
            f"voice/{voice.id}": voice for voice in sorted(voices, key=lambda voice: voice.id) if voice.audio
        }
        self._voices_root = Path(voices_root)
        self._cache: collections.OrderedDict[str, Pcm] = collections.OrderedDict()
        self._cached_bytes = 0
        self._hashes: dict[str, str] = {}

    @property
    def kinds(self) -> list[str]:
        """The kinds of recordings, sorted."""
        return sorted(self._names)

    def names(self, kind: str) -> list[str]:
        """The names of the recordings of a kind, sorted within each folder; empty for an unknown kind."""
        return self._names.get(kind, [])

    def voices(self, *, apart_from: Utterance, at_least: int) -> list[str]:
        """The names of voices that can interfere with an utterance.

        They are utterances of other speakers. If there are fewer than `at_least`, they are all other utterances.
        """
        others = [name for name, voice in self._voices.items() if voice.id != apart_from.id]
        other_speakers = [name for name in others if self._voices[name].speaker != apart_from.speaker]
        return other_speakers if len(other_speakers) >= at_least else others

    def samples(self, name: str) -> Pcm:
        """All samples of a recording, a piece or a voice.

        Raises DataError for an unknown name, AvsrError if the file cannot be read.
        """
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        recording, has_piece, piece = name.rpartition("#")
        if has_piece and recording in self._paths:  # "#" may also be a part of a file name
            first = int(piece) * PIECE_SAMPLES
            samples = self.samples(recording)[first : first + PIECE_SAMPLES]
        elif name in self._voices:
            samples = pcm_of(load_samples(self._voices[name], self._voices_root))
        elif name in self._paths:
            samples = read_pcm(self._paths[name])
        else:
            raise DataError(f"{name}: no such noise", remedy="name the folders and voices that the plan was made with")
        self._cache[name] = samples
        self._cached_bytes += samples.nbytes
        # The newest one stays even if it alone is larger: the caller is about to use it.
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return samples

    def sha256(self, name: str) -> str:
        """The `sound_hash` of a recording, a piece or a voice."""
        if name not in self._hashes:
            self._hashes[name] = sound_hash(self.samples(name))
        return self._hashes[name]

    def path(self, name: str) -> str:
        """The file of a recording, for messages; a voice has its name only."""
        return str(self._paths.get(name.partition("#")[0], name))


def open_library(plan: NoisePlan) -> NoiseLibrary:
    """The noise that a plan was made with. Raises DataError if the folders or the manifest are missing."""
    voices = [utterance for utterance in read_manifest(plan.manifest) if utterance.split == plan.voices]
    return NoiseLibrary(plan.folders, part=plan.part, voices=voices, voices_root=Path(plan.manifest).parent)


def sound_hash(samples: Pcm) -> str:
    """SHA-256 of 16-bit little-endian samples at 16 kHz: the same for the same sound in any lossless container."""
    return hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()


def read_pcm(path: Path) -> Pcm:
    """The sound of a media file in 16 bits at 16 kHz. Raises MediaError."""
    return pcm_of(read_whole(path))


def read_whole(path: Path) -> Samples:
    """The sound of a recording. Raises MediaError if a part of it cannot be used: a noise plan counts on its length."""
    account = Account()
    samples = read_audio(path, account=account)
    losses = account.losses()
    if losses:
        raise MediaError(f"{path}: {losses[0]}", remedy="replace this recording, or take it out of the folder")
    return samples


def pcm_of(samples: Samples) -> Pcm:
    """Float samples in 16 bits. If samples exceed full scale, all of them are turned down instead of clipped."""
    scaled = samples.astype(np.float64) * FULL_SCALE
    return np.rint(scaled * linear(fitting_scale_db(scaled))).astype(np.int16)


def require_disjoint(training: Mapping[str, str], test: Mapping[str, str]) -> None:
    """Check that no test recording is used in training. Raises DataError, with the file, if one is.

    training, test: `sound_hash` of each recording and the name of its file.
    """
    shared = sorted(training.keys() & test.keys(), key=lambda sha256: test[sha256])
    if shared:
        more = f", and {len(shared) - 1} more" if len(shared) > 1 else ""
        raise DataError(
            f"{test[shared[0]]}: this test noise is used in training",
            got=f"the same sound as {training[shared[0]]}{more}",
            remedy="test with recordings that the model was not trained with",
        )


def noise_hashes(folder: Path, name: str = "environment", part: Part | None = None) -> dict[str, str]:
    """The `sound_hash` and the path of each recording that `find_noises` finds in a folder."""
    return {sound_hash(read_pcm(file.path)): str(file.path) for file in find_noises(name, folder, part)}


def held_out_hashes(path: Path) -> dict[str, str]:
    """The `sound_hash` and the name of each recording of a noise plan or in a folder of test noise."""
    if path.is_dir():
        return noise_hashes(path)
    return {sha256: f"{path}: {name}" for sha256, name in read_plan(path).noises.items()}


def read_noise_folder(folder: Path) -> dict[str, Samples]:
    """All sound files below a folder, by their relative paths: float32 at 16 kHz, without silent files.

    Raises DataError if the folder has no sound file, MediaError if a file cannot be read.
    """
    paths = sound_files(folder)
    if not paths:
        raise DataError(f"{folder}: no noise", expected=SOUND_FOLDER)
    noises = {str(path.relative_to(folder)): read_whole(path) for path in paths}
    return {name: samples for name, samples in noises.items() if np.any(samples)}


class NoiseBank:
    """Draws noise of any length for training: looped recordings, babble of 2 to 8 voices, or coloured noise."""

    def __init__(self, environment: Sequence[Samples], voices: Sequence[Samples], babble_share: float = 0.35) -> None:
        """environment: recordings. voices: speech that babble is made of. Either may be empty; silence is left out.

        babble_share: of the draws, 0 to 1. The rest is 9 parts of recordings and 4 of coloured noise.
        """
        self.babble_share = babble_share
        self.environment = [samples for samples in environment if np.any(samples)]
        self.voices = [samples for samples in voices if np.any(samples)]

    def draw(self, count: int, random: np.random.Generator) -> tuple[Samples, NoiseKind]:
        """`count` samples of noise, not silent, and its kind. Coloured noise replaces a kind without recordings."""
        environment_share = (1 - self.babble_share) * 9 / 13
        # One draw for all attempts: silent stretches must not shift the shares of the kinds.
        choice = random.random()
        for _ in range(10):  # a stretch of a recording may be silent; then another is drawn
            if choice < environment_share and self.environment:
                noise = _loop(self.environment[random.integers(len(self.environment))], count, random)
                kind: NoiseKind = "environment"
            elif choice < environment_share + self.babble_share and self.voices:
                noise = np.zeros(count, np.float32)
                for _ in range(random.integers(2, 9)):
                    voice = _loop(self.voices[random.integers(len(self.voices))], count, random)
                    # Equal levels, so that babble is not one loud voice.
                    noise += voice / max(float(voice.std()), 1e-6)
                kind = "babble"
            else:
                break
            if np.any(noise):
                return noise, kind
        colours = get_args(NoiseColour)
        colour = colours[random.integers(len(colours))]
        return coloured_noise(count, colour, int(random.integers(1 << 62))), "coloured"


def _loop(samples: Samples, count: int, random: np.random.Generator) -> Samples:
    """`count` samples of a looped recording, from a random offset."""
    offset = int(random.integers(len(samples)))
    repeats = -(-(offset + count) // len(samples))
    return np.tile(samples, repeats)[offset : offset + count]
