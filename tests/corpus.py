"""A small prepared corpus that a model can learn: each word is a tone in the sound and a bright block in the crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avsr.datasets.manifest import Utterance, save_lips, save_samples, write_manifest
from avsr.grid import CROP_PX, SAMPLE_RATE_HZ, SLOT_S, SLOT_SAMPLES
from tests.tiny import WORDS

WORD_S = 0.24
"""Duration of a word: 6 slots."""


def make_corpus(folder: Path, count: int = 6, seed: int = 0) -> Path:
    """The manifest of `count` utterances of 1.2 s with three words each; the last two are "dev", the others "train".

    The files of the corpus are written to `folder`.
    """
    random = np.random.default_rng(seed)
    slots = 30  # of 40 ms
    utterances = []
    for index in range(count):
        words = [int(word) for word in random.choice(len(WORDS), 3, replace=False)]
        samples = 0.003 * random.standard_normal(slots * SLOT_SAMPLES).astype(np.float32)
        crops = random.integers(90, 110, (slots, CROP_PX, CROP_PX)).astype(np.uint8)
        times = []
        for position, word in enumerate(words):
            start_s = 0.16 + 0.32 * position
            tone_s = np.arange(int(WORD_S * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
            first = int(start_s * SAMPLE_RATE_HZ)
            tone = np.sin(2 * np.pi * 300 * (word + 1) * tone_s).astype(np.float32)
            samples[first : first + len(tone)] += 0.3 * tone
            slot = round(start_s / SLOT_S)
            crops[slot : slot + 6, 30:70, 10 + 12 * word : 22 + 12 * word] = 250
            times.append((WORDS[word], start_s, start_s + WORD_S))
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
