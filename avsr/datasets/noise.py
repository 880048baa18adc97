"""Noise to train with: environment recordings, babble of other talkers, coloured noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from avsr.augment.audio import NoiseColour, Samples, coloured_noise
from avsr.errors import DataError

NOISE_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
NoiseKind = Literal["environment", "babble", "coloured"]


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
        return coloured_noise(count, colours[random.integers(len(colours))], random), "coloured"


def _loop(samples: Samples, count: int, random: np.random.Generator) -> Samples:
    offset = int(random.integers(len(samples)))
    repeats = -(-(offset + count) // len(samples))
    return np.tile(samples, repeats)[offset : offset + count]
