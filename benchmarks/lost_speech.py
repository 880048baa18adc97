"""Words that lie outside of the stretches of speech, in noise: a recogniser never hears them.

    python benchmarks/lost_speech.py corpora/timit/timit.jsonl --noise corpora/noise/noise_test

The list has one JSON object a line: id, path (relative to the list) and word_times, [start, end, word] in seconds. A
word is lost if less than half of it lies in a stretch. The noise of a clip is drawn by its id, the SNR and the seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from avsr.arrays import Samples
from avsr.errors import AvsrError, DataError
from avsr.grid import FRAME_MS
from avsr.media import SOUND_SUFFIXES, read_audio
from avsr.noise.mixing import mix
from avsr.randomness import generator
from avsr.sound.speech import Stretch, follow_speech, initial_speech
from avsr.sound.voice import WINDOW_SAMPLES, voice_network

FRAME_S = FRAME_MS / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("--noise", type=Path, required=True, help="folder of recordings without speech")
    parser.add_argument("--seeds", type=int, default=3, help="mixtures of each clip; default 3")
    arguments = parser.parse_args()
    noises = [read_audio(path) for path in sorted(arguments.noise.iterdir()) if path.suffix in SOUND_SUFFIXES]
    lines = [json.loads(line) for line in arguments.list.read_text(encoding="utf-8").splitlines()]
    clips = [line for line in lines if line.get("word_times")]
    if not (clips and noises):
        raise DataError(f"{arguments.list}: no clips with word_times, or no noise in {arguments.noise}")
    print("| SNR, dB | words | lost | lost, % |\n|---|---|---|---|")
    for snr_db in (None, 5.0, 0.0, -5.0):
        words = lost = 0
        for clip in clips:
            speech = read_audio(arguments.list.parent / clip["path"])
            for seed in range(1 if snr_db is None else arguments.seeds):
                noise = noise_for(len(speech), noises, f"{clip['id']} {snr_db} {seed}")
                stretches = stretches_of(np.asarray(mix(speech, noise, snr_db).samples, np.float32))
                words += len(clip["word_times"])
                lost += sum(is_lost(start_s, end_s, stretches) for start_s, end_s, _ in clip["word_times"])
        name = "clean" if snr_db is None else f"{snr_db:g}"
        print(f"| {name} | {words} | {lost} | {100 * lost / words:.2f} |", flush=True)


def noise_for(count: int, noises: list[Samples], key: str) -> Samples:
    """This many samples of a recording that the key draws, from a place that it draws, repeated as needed."""
    drawn = generator("lost_speech", key)
    noise = noises[drawn.integers(len(noises))]
    return np.resize(np.roll(noise, -int(drawn.integers(len(noise)))), count)


def stretches_of(samples: Samples) -> list[Stretch]:
    """The stretches of speech of a whole recording, by the voice alone."""
    samples = np.pad(samples, (0, -len(samples) % WINDOW_SAMPLES))
    network = voice_network()
    voice_B, _ = network.probabilities(samples, network.initial_state())
    stretches, _ = follow_speech(voice_B, np.zeros(len(voice_B), bool), initial_speech(), 1 << 40, is_last=True)
    return stretches


def is_lost(start_s: float, end_s: float, stretches: list[Stretch]) -> bool:
    """Whether less than half of a word lies in stretches."""
    inside = (min(end_s, end * FRAME_S) - max(start_s, start * FRAME_S) for start, end in stretches)
    return sum(max(0.0, part) for part in inside) < (end_s - start_s) / 2


if __name__ == "__main__":
    try:
        main()
    except AvsrError as error:
        sys.exit(f"lost_speech.py: {error}")
