"""What the makers of synthetic GRID speech share: the grammar, held-out sentences, and how a recording is written."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from avsr.datasets.manifest import read_manifest, write_wav
from avsr.errors import DataError
from avsr.shipped import find_file

GRAMMAR = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    tuple("abcdefghijklmnopqrstuvxyz"),  # GRID leaves out w, the only letter of more than one syllable
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)
DEMO_SENTENCE = "place blue by r nine again"
"""The sentence of the demo clip, never among the synthetic ones."""

SAMPLE_RATE = 16_000
_MOST_DRAWS = 1000
"""All 34 000 sentences of GRID may be excluded, about half of the grammar's 64 000; then ten draws are enough."""


def draw_sentence(rng: np.random.Generator, excluded: Collection[str]) -> list[str]:
    """A random sentence of the grammar that is not in `excluded`. Raises DataError if hardly any sentence is left."""
    for _ in range(_MOST_DRAWS):
        words = [str(rng.choice(choices)) for choices in GRAMMAR]
        if " ".join(words) not in excluded:
            return words
    raise DataError("no sentence is left to say", got=f"{len(excluded)} excluded sentences")


def is_sentence(text: str) -> bool:
    """Whether a text is a sentence of the grammar."""
    words = text.split()
    return len(words) == len(GRAMMAR) and all(word in choices for word, choices in zip(words, GRAMMAR, strict=True))


def read_excluded(path: Path) -> set[str]:
    """The sentences of a text file, or of a manifest's development and test splits.

    data/grid/held_out.txt is found in any folder.
    """
    if path.suffix == ".jsonl":
        return {u.text for u in read_manifest(path) if u.split.startswith(("dev", "test"))}
    return {" ".join(line.split()) for line in find_file(path).read_text(encoding="utf-8").splitlines()}


def resample(samples: np.ndarray, from_rate: float, to_rate: float) -> np.ndarray:
    """`samples` at another rate, band-limited: the spectrum is cut or filled up."""
    # Zeros around it, or the end would wrap into the beginning.
    padded = np.pad(samples, (256, 256))
    num_out = round(len(padded) * to_rate / from_rate)
    resampled = np.fft.irfft(np.fft.rfft(padded)[: num_out // 2 + 1], num_out) * (num_out / len(padded))
    skip = round(256 * to_rate / from_rate)
    return resampled[skip : num_out - skip]


def noise_floor(duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """The hiss of a quiet recording, 28 to 60 dB under a speech level of 1; between white and pink. float64 [S]."""
    num_samples = round(duration_s * SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.normal(size=num_samples))
    frequencies = np.maximum(np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE), 50)
    noise = np.fft.irfft(spectrum * frequencies ** -rng.uniform(0, 0.7), num_samples)
    return noise / np.sqrt(np.mean(noise**2)) * 10 ** (rng.uniform(-60, -28) / 20)


def record(samples: np.ndarray, lead_s: float, duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """int16 [S] of `duration_s`: `samples` after `lead_s` of hiss, at a random level of -34 to -15 dB."""
    speech_rms = float(np.sqrt(np.mean(samples**2)))
    recording = noise_floor(duration_s, rng) * speech_rms
    lead = round(lead_s * SAMPLE_RATE)
    room = min(len(samples), len(recording) - lead)
    recording[lead : lead + room] += samples[:room]
    gain = min(10 ** (rng.uniform(-34, -15) / 20) / speech_rms, 0.98 / float(np.abs(recording).max()))
    return np.round(recording * gain * 32767).astype(np.int16)


def write_utterance(
    folder: Path,
    id: str,
    *,
    voice: str,
    split: str,
    words: Sequence[tuple[str, float, float]],
    samples: np.ndarray,
) -> dict[str, object]:
    """Write FOLDER/audio/ID.wav (16 kHz, mono, 16 bit) and return its entry for a manifest of `avsr.datasets`."""
    audio = f"audio/{id}.wav"
    write_wav(folder / audio, samples)
    return {
        "id": id,
        "speaker": voice,
        "split": split,
        "text": " ".join(word for word, _, _ in words),
        "audio": audio,
        "video": None,
        "duration": len(samples) / SAMPLE_RATE,
        "fps": 0,
        "coverage": 0,
        "sha256": hashlib.sha256((folder / audio).read_bytes()).hexdigest(),
        "words": words,
        "absent": [],
    }
