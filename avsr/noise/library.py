"""Noise recordings: read when they are needed, known by what they sound like, kept apart for training and test."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Samples
from avsr.datasets.manifest import Utterance, load_samples
from avsr.errors import DataError
from avsr.noise.filters import NoiseColour, coloured_noise
from avsr.noise.folders import NOISE_SUFFIXES, Part, find_noises
from avsr.noise.mixing import FULL_SCALE, fitting_scale_db, linear

NoiseKind = Literal["environment", "babble", "coloured"]
Pcm = NDArray[np.int16]

PIECE_SAMPLES = 160_000  # 10 s
_CACHE_BYTES = 256 << 20


class NoiseLibrary:
    """Recordings and voices by kind and name; 16-bit samples at 16 kHz, read when they are asked for.

    folders: {"environment": folder, "musan": folder, ...}, see `find_noises`; of collections only `part` is used. A
    recording's name is the key of its folder and the path below it, "environment/rain.wav"; with "#2" behind it is its
    third piece of 10 s. voices: utterances for babble and interfering talkers, with their folder; "voice/" and the id.
    """

    def __init__(
        self,
        folders: Mapping[str, str | Path] | None = None,
        *,
        part: Part = "test",
        voices: Sequence[Utterance] = (),
        voices_root: str | Path = ".",
    ) -> None:
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
        """The kinds of recordings, in the order of their names."""
        return sorted(self._names)

    def names(self, kind: str) -> list[str]:
        """Recordings of one kind, in the order of their names."""
        return self._names.get(kind, [])

    def voices(self, *, apart_from: Utterance, at_least: int) -> list[str]:
        """Voices to talk into `apart_from`: other speakers, or, where those are fewer than `at_least`, all others."""
        others = [name for name, voice in self._voices.items() if voice.id != apart_from.id]
        strangers = [name for name in others if self._voices[name].speaker != apart_from.speaker]
        return strangers if len(strangers) >= at_least else others

    def samples(self, name: str) -> Pcm:
        """All of one recording or voice. Raises DataError for an unknown name, AvsrError where it cannot be read."""
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        recording, has_piece, piece = name.rpartition("#")
        if has_piece and recording in self._paths:
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
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return samples

    def sha256(self, name: str) -> str:
        """The hash of what a recording sounds like; see `sound_hash`."""
        if name not in self._hashes:
            self._hashes[name] = sound_hash(self.samples(name))
        return self._hashes[name]

    def path(self, name: str) -> str:
        """Where it lies, for messages."""
        return str(self._paths.get(name.partition("#")[0], name))


def sound_hash(samples: Pcm) -> str:
    """SHA-256 of 16-bit little-endian samples at 16 kHz: the same for the same sound in any lossless container."""
    return hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()


def read_pcm(path: Path) -> Pcm:
    """All sound of a media file in 16 bits at 16 kHz. Raises MediaError."""
    from avsr.media import read_audio

    return pcm_of(read_audio(path))


def pcm_of(samples: Samples) -> Pcm:
    """Float samples in 16 bits; those that go beyond full scale are all turned down, rather than some clipped."""
    scaled = samples.astype(np.float64) * FULL_SCALE
    return np.rint(scaled * linear(fitting_scale_db(scaled))).astype(np.int16)


def require_disjoint(training: Mapping[str, str], test: Mapping[str, str]) -> None:
    """Raises DataError naming the recordings that are in both; each maps the hash of a sound to the file's name."""
    shared = sorted(training.keys() & test.keys(), key=lambda sha256: test[sha256])
    if shared:
        more = f", and {len(shared) - 1} more" if len(shared) > 1 else ""
        raise DataError(
            f"{test[shared[0]]}: this test noise is used in training",
            got=f"the same sound as {training[shared[0]]}{more}",
            remedy="test with recordings that the model has never heard",
        )


def noise_hashes(folder: Path, name: str = "environment", part: Part | None = None) -> dict[str, str]:
    """The hash of each recording below a folder (read as `find_noises` does) and its path."""
    return {sound_hash(read_pcm(file.path)): str(file.path) for file in find_noises(name, folder, part)}


def read_noise_folder(folder: Path) -> dict[str, Samples]:
    """Every WAV, FLAC, OGG and MP3 below a folder, by relative path: float32 at 16 kHz.

    Raises DataError when there is none, MediaError when one cannot be read.
    """
    from avsr.media import read_audio

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in NOISE_SUFFIXES)
    if not paths:
        raise DataError(f"{folder}: no noise", expected=f"a folder with {', '.join(NOISE_SUFFIXES)} files")
    noises = {str(path.relative_to(folder)): read_audio(path) for path in paths}
    return {name: samples for name, samples in noises.items() if np.any(samples)}


class NoiseBank:
    """Draws noise of any length: recordings (looped from a random offset), babble of 2 to 8 voices, coloured noise."""

    def __init__(self, environment: Sequence[Samples], voices: Sequence[Samples]) -> None:
        self.environment = [samples for samples in environment if np.any(samples)]
        self.voices = [samples for samples in voices if np.any(samples)]

    def draw(self, count: int, random: np.random.Generator) -> tuple[Samples, NoiseKind]:
        """`count` samples of noise, not silent, and its kind: environment 45 %, babble 35 %, coloured 20 %."""
        choice = random.random()
        for _ in range(10):
            if choice < 0.45 and self.environment:
                noise = _loop(self.environment[random.integers(len(self.environment))], count, random)
                kind: NoiseKind = "environment"
            elif choice < 0.8 and self.voices:
                noise = np.zeros(count, np.float32)
                for _ in range(random.integers(2, 9)):
                    voice = _loop(self.voices[random.integers(len(self.voices))], count, random)
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
    offset = int(random.integers(len(samples)))
    repeats = -(-(offset + count) // len(samples))
    return np.tile(samples, repeats)[offset : offset + count]
