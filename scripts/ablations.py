"""What each part of the recipe of grid-tiny is worth: short runs that differ in one thing, on the development split.

    python scripts/ablations.py --noise work/corpora/noise/noise_train
    python scripts/ablations.py --noise work/corpora/noise/noise_train --only gated concatenated --epochs 12

All steps of the recipe but the last must have been trained (README, "Train your own"). Each row trains --epochs epochs
from there, or a side from nothing, and is then evaluated with `avsr evaluate` in babble, white noise and recordings of
the training folder, one seed: test noise is not touched. Runs lie in runs/ablations; what is done is not done again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

LEVELS_DB = ("clean", "5", "0", "-5", "-10")
RUNS = Path("runs/ablations")


class Ablation(NamedTuple):
    """A configuration and what is changed in it; `epochs`: instead of as many as asked for."""

    config: str
    changes: Sequence[str] = ()
    epochs: int | None = None


FOUR_TIMES = (
    "model.audio_encoder.subsampling=4",
    "model.audio_encoder.attention={style: regular, left: 32, right: 32}",
)
SOUND_TOO = ("freeze=[]", "loss.audio=0.5", "modalities={a: 0.2, v: 0.2, av: 0.6}")
ABLATIONS = {
    "gated": Ablation("grid-tiny"),
    "concatenated": Ablation("grid-tiny", ["model.fusion.gated=false"]),
    "no-modality-dropout": Ablation("grid-tiny", ["modalities={a: 0, v: 0, av: 1}"]),
    "no-noise": Ablation("grid-tiny", ["augment.noise_share=0"]),
    "sound-trained-on": Ablation("grid-tiny", SOUND_TOO),
    "from-scratch": Ablation("grid-tiny", ["initialize={}", *SOUND_TOO]),
    "no-splicing": Ablation("grid-tiny", ["augment.spliced=0"]),
    "clear-lips": Ablation("grid-tiny", ["augment.lip_effects={}", "augment.wrong_lips=0"]),
    "audio-8x": Ablation("grid-tiny-audio", epochs=20),
    "audio-4x": Ablation("grid-tiny-audio", FOUR_TIMES, epochs=20),
    "trunk-light": Ablation("grid-tiny-visual", epochs=3),
    "trunk-resnet18": Ablation("grid-tiny-visual", ["model.visual_encoder.trunk=resnet18"], epochs=3),
}


def run(words: Sequence[str]) -> None:
    print("$ avsr " + " ".join(words), flush=True)
    subprocess.run([sys.executable, "-m", "avsr", *words], check=True)


def measure(name: str, epochs: int, noise: str) -> dict[str, list[str]]:
    """modality -> WER at each level, of one ablation; trained and evaluated first where that is not done."""
    ablation = ABLATIONS[name]
    epochs = ablation.epochs or epochs
    folder = RUNS / f"{name}-{epochs}"
    if not (folder / "model").exists():
        few = ["optimizer.epochs=" + str(epochs), "optimizer.average_last=2", f"loss.word_times_epochs={epochs // 2}"]
        run(["train", f"configs/{ablation.config}.yaml", f"output={folder}", *few, *ablation.changes])
    results = folder / "dev" / "results.json"
    if not results.exists():
        grid = [
            "--noises",
            "babble,white,environment",
            "--snr=" + ",".join(LEVELS_DB),
            "--video",
            "intact",
            "--seed",
            "1",
        ]
        given = ["--noise", f"environment={noise}", "--voices", "train", "--no-media", "--output", str(results.parent)]
        run(["evaluate", "work/grid/manifest.jsonl", "--split", "dev", "--model", str(folder / "model"), *grid, *given])
    rates: dict[str, list[str]] = {}
    for modality in ("a", "v", "av"):
        rates[modality] = []
        for level in LEVELS_DB:
            errors, words = 0.0, 0
            for row in table(results.parent / "results.csv"):
                same = row["modality"] == modality and row["video"] in ("intact", "unused")
                if same and (modality == "v" or row["noise" if level == "clean" else "snr_db"] == level):
                    errors += float(row["wer"]) * int(row["words"])
                    words += int(row["words"])
            rates[modality].append(f"{errors / words:.1f}" if words else "")
    return rates


def table(path: Path) -> list[dict[str, str]]:
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    return [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", required=True, help="folder of training noise")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=list(ABLATIONS), default=list(ABLATIONS), help="some of them")
    arguments = parser.parse_args()
    lines = [
        "| | " + " | ".join(f"A {x} | AV {x}" for x in LEVELS_DB) + " | V |",
        "|---" * (2 * len(LEVELS_DB) + 2) + "|",
    ]
    for name in arguments.only:
        rates = measure(name, arguments.epochs, arguments.noise)
        cells = [cell for pair in zip(rates["a"], rates["av"], strict=True) for cell in pair]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {rates['v'][0]} |")
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
