"""The speed of each lip augmentation on one core, and of the data loading of a training run, in crops a second.

    python benchmarks/lip_effects.py
    python benchmarks/lip_effects.py --config configs/grid-lips-resnet18.yaml

The first table is for clips of three seconds of smooth random pictures. With --config, batches of that run are prepared
as a worker of training does (decoding, augmentation, batching), in turn with its lip effects and without any. All times
are CPU times of one process: other load on the machine hardly matters, and every worker with a core of its own adds the
same speed again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from avsr.augment.video import LipEffects, apply_effects, vary_lips
from avsr.config import build, read_yaml
from avsr.decoding.tokenizer import WordTokenizer
from avsr.lips.crops import centre_crop
from avsr.randomness import generator
from avsr.training.batches import collate
from avsr.training.config import TrainConfig
from avsr.training.data import Key, TrainingSet

SLOTS = 75


def effects_table(runs: int) -> None:
    random = generator("benchmark")
    clip = np.stack([cv2.GaussianBlur(random.random((96, 96)).astype(np.float32), (0, 0), 3) for _ in range(SLOTS)])
    crops = (255 * (clip - clip.min()) / np.ptp(clip)).astype(np.uint8)
    presence = np.ones(SLOTS, bool)
    names = [field.name for field in dataclasses.fields(LipEffects)]
    chances = {name: LipEffects(**{name: 1.0}) for name in names}
    chances["all of them"] = LipEffects(**dict.fromkeys(names, 1.0))
    cases: dict[str, Callable[[np.random.Generator], object]] = {
        name: functools.partial(apply_effects, crops, presence, effects) for name, effects in chances.items()
    }
    cases["view (lips: 1.0)"] = functools.partial(vary_lips, crops, 1.0)
    cases["centre crop"] = lambda random: centre_crop(crops).copy()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for run in range(runs + 1):
        for name, work in cases.items():
            draws = [generator(name, run, draw) for draw in range(8)]
            started = time.process_time()
            for draw in draws:
                work(draw)
            if run:
                times[name].append((time.process_time() - started) / len(draws))
    print("| effect | crops a second, one core | ms a second of video |")
    print("|---|---|---|")
    for name, taken in times.items():
        seconds = statistics.median(taken)
        print(f"| {name} | {SLOTS / seconds:.0f} | {1000 * seconds / (SLOTS / 25):.2f} |")


def feed(data: TrainingSet, batches: list[list[Key]]) -> tuple[float, float]:
    """Crops and batches that are prepared in a second of CPU time."""
    crops, started = 0, time.process_time()
    for keys in batches:
        batch = collate([data[key] for key in keys])
        crops += int(batch.crops.shape[0] * batch.crops.shape[1])
    taken = time.process_time() - started
    return crops / taken, len(batches) / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--config", help="training configuration whose feed is measured")
    parser.add_argument("--batches", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    effects_table(arguments.runs)
    if arguments.config:
        config = build(TrainConfig, read_yaml(arguments.config), arguments.config)
        without = dataclasses.replace(config, augment=dataclasses.replace(config.augment, lip_effects=LipEffects()))
        tokenizer = WordTokenizer.read(Path(config.vocabulary))
        sets = {"with its lip effects": TrainingSet(config, tokenizer), "without": TrainingSet(without, tokenizer)}
        order = next(iter(sets.values())).epoch(0)
        for run in range(arguments.runs + 1):
            for name, data in sets.items():
                crops, batches = feed(data, order[: arguments.batches])
                if run:  # the first run warms up
                    print(f"a worker {name}: {crops:.0f} crops/s, {batches:.2f} batches/s")


if __name__ == "__main__":
    main()
