"""Words that a model inserts in pauses: a still face and a quiet room before and after the speech.

    python benchmarks/pauses.py work/grid/manifest.jsonl --split dev --pause-s 1
    python benchmarks/pauses.py work/grid/manifest.jsonl --split dev --pause-s 3 --chunk-ms 320

Word error rates and inserted words by audio only, lips only and audio-visual, without and with pauses. A pause has
noise at -80 dB of full scale, and repeats the first or the last lip crop of the clip.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import jiwer
import numpy as np

import avsr
from avsr.datasets.manifest import load_lips, load_samples, read_manifest
from avsr.decoding.search import Search
from avsr.errors import AvsrError, ConfigError, DataError
from avsr.grid import SLOT_S, SLOT_SAMPLES
from avsr.randomness import generator

ROOM_RMS = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--model", default="grid-tiny")
    parser.add_argument("--pause-s", type=float, default=1.0)
    parser.add_argument("--chunk-ms", type=int, help="live, in such chunks; default whole recordings")
    arguments = parser.parse_args()
    recognizer = avsr.load(arguments.model)
    if recognizer.model.frames is None:
        raise ConfigError(f"model {recognizer.name} gives words alone", remedy="use a model with log-probabilities")
    search = recognizer.model.frames.frame_search(Search())
    utterances = [u for u in read_manifest(arguments.manifest) if u.split == arguments.split and u.audio and u.video]
    if not utterances:
        raise DataError("--split", got=arguments.split, expected="a split with clips that have sound and lips")
    references = [utterance.text for utterance in utterances]
    print(f"{arguments.split}, {len(utterances)} clips: word error rate, and words inserted")
    print("| pause, s | sound | lips | both |\n|---|---|---|---|")
    for pause_s in (0.0, arguments.pause_s):
        slots = round(pause_s / SLOT_S)
        texts: dict[str, list[str]] = {"a": [], "v": [], "av": []}
        for utterance in utterances:
            root = arguments.manifest.parent
            heard, (lips, presence) = load_samples(utterance, root), load_lips(utterance, root)
            room = generator("pauses", utterance.id).normal(0, ROOM_RMS, (2, slots * SLOT_SAMPLES)).astype(np.float32)
            sound = [np.concatenate((room[0], heard, room[1]))]
            seen = [np.pad(lips, ((slots, slots), (0, 0), (0, 0)), mode="edge")], [np.pad(presence, slots, mode="edge")]
            given: dict[str, Any] = {"a": (sound,), "v": (None, *seen), "av": (sound, *seen)}
            for modality, inputs in given.items():
                log_probs_TV = recognizer.log_probs(*inputs, chunk_ms=arguments.chunk_ms)[0]
                words = search.words(search.step(log_probs_TV, search.initial_state()))
                texts[modality].append(" ".join(word.word for word in words))
        cells = []
        for said in texts.values():
            counts = jiwer.process_words(references, said)
            cells.append(f"{100 * counts.wer:.1f}, {counts.insertions}")
        print(f"| {pause_s:g} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except AvsrError as error:
        sys.exit(f"pauses.py: {error}")
