"""A contact sheet of what augmentation can do to the lips of one utterance: look at it before you train.

    python experiments/show_lip_effects.py work/grid/manifest.jsonl sheet.png --split dev

One row for each draw, eight pictures of the clip in order of time, black where presence is lost; what was drawn stands
on the left.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np

from avsr.augment.video import Crops, Effect, LipEffects, Present, apply_effects, vary_lips
from avsr.datasets.manifest import load_lips, read_manifest
from avsr.errors import AvsrError, DataError
from avsr.randomness import generator

SIDE_PX = 96
LABEL_PX = 230


def row(crops: Crops, presence: Present, shown: list[int], effects: list[Effect]) -> Crops:
    """One strip of pictures with its label."""
    margin = (SIDE_PX - crops.shape[1]) // 2
    padded = np.pad(np.where(presence[:, None, None], crops, 0), ((0, 0), (margin, margin), (margin, margin)))
    label = np.full((SIDE_PX, LABEL_PX), 255, np.uint8)
    lines = [f"{key}: {value}" for effect in effects for key, value in effect.items()] or ["as it is"]
    for index, line in enumerate(lines[:11]):
        text = line.removeprefix("effect: ")[:40]
        cv2.putText(label, text, (4, 10 + 8 * index), cv2.FONT_HERSHEY_SIMPLEX, 0.29, 0, 1, cv2.LINE_AA)
    return np.concatenate([label, *padded[shown]], axis=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("--split", default="train")
    parser.add_argument("--utterance", help="its id; default the first with lips")
    parser.add_argument("--draws", type=int, default=2, help="rows for each effect")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    found = [
        utterance
        for utterance in read_manifest(arguments.manifest)
        if utterance.video and (utterance.id == arguments.utterance or not arguments.utterance)
        if utterance.split == arguments.split or arguments.utterance
    ]
    if not found:
        raise DataError(f"{arguments.manifest}: no such utterance with lips", remedy="check --split and --utterance")
    crops, presence = load_lips(found[0], arguments.manifest.parent)
    shown = np.linspace(0.1 * len(crops), 0.9 * len(crops), 8).astype(int).tolist()
    names = [field.name for field in fields(LipEffects)]
    strips = [row(crops, presence, shown, [])]
    for draw in range(arguments.draws):
        viewed, view = vary_lips(crops, 1.0, generator(arguments.seed, draw, "view"))
        strips.append(row(viewed, presence, shown, [view]))
    for chosen in [[name] for name in names] + [names]:
        effects = LipEffects(**dict.fromkeys(chosen, 1.0))
        for draw in range(arguments.draws):
            random = generator(arguments.seed, draw, *chosen)
            changed, kept, done = apply_effects(crops, presence, effects, random)
            strips.append(row(changed, kept, shown, done))
    if not cv2.imwrite(str(arguments.out), np.concatenate(strips)):
        raise DataError(f"{arguments.out}: cannot be written", expected="a .png in a folder that is there")
    print(f"{arguments.out}: {found[0].id}, {len(strips)} rows")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except AvsrError as error:
        raise SystemExit(f"show_lip_effects.py: {error}") from None
