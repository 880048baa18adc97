"""A prepared corpus of a few artificial utterances: each word is a tone and a grey level, so that it can be learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avsr.datasets.manifest import Utterance, save_lips, save_samples, write_manifest
from tests.tiny import WORDS


def make_corpus(folder: Path, count: int = 6, seed: int = 0) -> Path:
    """A manifest of `count` utterances of 1.2 s and three words each; the last two are split "dev"."""
    random = np.random.default_rng(seed)
    utterances = []
    for index in range(count):
        words = [int(word) for word in random.choice(len(WORDS), 3, replace=False)]
        samples = 0.003 * random.standard_normal(19_200).astype(np.float32)
        crops = random.integers(90, 110, (30, 96, 96)).astype(np.uint8)
        times = []
        for position, word in enumerate(words):
            start = 0.16 + 0.32 * position
            seconds = np.arange(int(0.24 * 16_000)) / 16_000
            first = int(start * 16_000)
            samples[first : first + len(seconds)] += 0.3 * np.sin(2 * np.pi * 300 * (word + 1) * seconds).astype(
                np.float32
            )
            crops[round(start / 0.04) : round(start / 0.04) + 6, 30:70, 10 + 12 * word : 22 + 12 * word] = 250
            times.append((WORDS[word], start, start + 0.24))
        name = f"t1/u{index}"
        save_samples(folder / f"audio/{name}.wav", samples)
        save_lips(folder / f"lips/{name}.mp4", crops)
        utterances.append(
            Utterance(
                id=name,
                speaker="t1",
                split="dev" if index >= count - 2 else "train",
                text=" ".join(word for word, _, _ in times),
                audio=f"audio/{name}.wav",
                video=f"lips/{name}.mp4",
                duration=1.2,
                fps=25.0,
                coverage=1.0,
                sha256="",
                words=tuple(times),
            )
        )
    write_manifest(folder / "manifest.jsonl", utterances)
    return folder / "manifest.jsonl"
