"""Late fusion with a fixed weight: what the fusion transformer has to beat.

    python experiments/late_fusion.py --noise work/corpora/noise/noise_train
    LATE_FUSION_WEIGHT=0.4 avsr evaluate MANIFEST --recognizer experiments/late_fusion.py:late_fusion ...

The log-probabilities of the model's two sides, each by its own CTC head, are added: those of the sound times the
weight, those of the lips times the rest (decision fusion, Potamianos et al., Proc. IEEE 91(9), 2003). The first
command finds the best weight on the development split, over clean sound and noise of the training folder; the second
evaluates it like any recogniser.
LATE_FUSION_MODEL names another model than the one that comes with avsr.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from pathlib import Path
from typing import cast

import jiwer
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import avsr
from avsr.augment.audio import mix_at_snr
from avsr.datasets.manifest import load_lips, load_samples, read_manifest
from avsr.decoding.greedy import greedy
from avsr.decoding.search import Search
from avsr.errors import AvsrError
from avsr.families.own.engine import OwnEngine
from avsr.randomness import generator
from avsr.training.config import AugmentConfig, CorpusConfig
from avsr.training.items import Corpus
from avsr.training.noise import noise_bank

LEVELS_DB = (None, 10.0, 5.0, 0.0, -5.0, -10.0)
WEIGHTS = tuple(round(0.1 * step, 1) for step in range(11))


@functools.cache
def _engine() -> OwnEngine:
    return cast(OwnEngine, avsr.load(os.environ.get("LATE_FUSION_MODEL", "grid-tiny")).model.engine)


@torch.inference_mode()
def sides(
    samples: NDArray[np.float32] | None, lips: NDArray[np.uint8] | None, presence: NDArray[np.bool_] | None
) -> tuple[Tensor | None, Tensor | None]:
    """Log-probabilities [T, V + 1] of the sound and of the lips, None for a side that there is nothing of."""
    engine = _engine()
    network = engine.network
    sound = None if samples is None else engine.encode_audio([samples])
    heard = None if sound is None else network.audio_head(sound.frames_BTD)[0]
    if lips is None or presence is None or not presence.any():
        return heard, None
    frames = engine.encode_lips([lips], [presence], sound).frames
    assert network.visual_head is not None
    # A frame without lips says nothing: as likely to be anything, so that only the sound counts there.
    seen = network.visual_head(frames.frames_BTD)[0].masked_fill(~frames.seen_BT[0][:, None], 0.0)
    return heard, seen


def text(heard: Tensor | None, seen: Tensor | None, weight: float) -> str:
    parts = [share * side for share, side in ((weight, heard), (1 - weight, seen)) if side is not None]
    if len(parts) == 1:  # one side alone decides, whatever its weight
        parts = [side for side in (heard, seen) if side is not None]
    if not parts:
        return ""
    joined = sum(parts[1:], parts[0]).numpy()
    return _engine().tokenizer.decode(greedy(joined, _engine().network.blank_id))


def late_fusion(
    samples: NDArray[np.float32] | None, lips: NDArray[np.uint8] | None, presence: NDArray[np.bool_] | None
) -> str:
    """For `avsr evaluate --recognizer`."""
    return text(*sides(samples, lips, presence), float(os.environ.get("LATE_FUSION_WEIGHT", "0.5")))


late_fusion.modalities = ("a", "v", "av")  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", default="work/grid/manifest.jsonl")
    parser.add_argument("--noise", required=True, help="folder of training noise")
    arguments = parser.parse_args()
    root = Path(arguments.manifest).parent
    voices = Corpus(CorpusConfig(manifest=arguments.manifest, split="train"))
    noise = noise_bank(AugmentConfig(noise_folder=arguments.noise), [voices], 1)
    utterances = [u for u in read_manifest(Path(arguments.manifest)) if u.split == "dev" and u.audio and u.video]
    references = [utterance.text for utterance in utterances]
    print(f"dev, {len(utterances)} clips, WER by the weight of the sound")
    print("| SNR, dB | " + " | ".join(f"{weight:g}" for weight in WEIGHTS) + " | fusion |")
    print("|---" * (len(WEIGHTS) + 2) + "|")
    totals = np.zeros(len(WEIGHTS) + 1)
    for level_db in LEVELS_DB:
        texts: list[list[str]] = [[] for _ in range(len(WEIGHTS) + 1)]
        for utterance in utterances:
            samples, lips, presence = load_samples(utterance, root), None, None
            if _engine().network.visual_encoder is not None:  # else every column is that of the sound
                lips, presence = load_lips(utterance, root)
            if level_db is not None:
                drawn, _ = noise.draw(len(samples), generator("late fusion", utterance.id, level_db))
                samples = mix_at_snr(samples, drawn, level_db)
            heard, seen = sides(samples, lips, presence)
            for index, weight in enumerate(WEIGHTS):
                texts[index].append(text(heard, seen, weight))
            engine = _engine()
            audio = engine.encode_audio([samples])
            encoded = None if lips is None or presence is None else engine.encode_lips([lips], [presence], audio)
            (words,) = engine.decode(audio, encoded, Search())
            texts[-1].append(" ".join(word.word for word in words))
        rates = np.array([100 * jiwer.wer(references, of_weight) for of_weight in texts])
        totals += rates
        print(f"| {'clean' if level_db is None else f'{level_db:g}'} | " + " | ".join(f"{r:.1f}" for r in rates) + " |")
    print("| mean | " + " | ".join(f"{total:.1f}" for total in totals / len(LEVELS_DB)) + " |")
    print(f"LATE_FUSION_WEIGHT={WEIGHTS[int(totals[:-1].argmin())]:g}")


if __name__ == "__main__":
    try:
        main()
    except AvsrError as error:
        sys.exit(f"late_fusion.py: {error}")
