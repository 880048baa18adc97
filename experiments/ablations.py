"""What each part of the recipe of grid-tiny is worth: short runs that differ in one thing, on the development split.

    python experiments/ablations.py --noise work/corpora/noise/noise_train
    python experiments/ablations.py --noise work/corpora/noise/noise_train --only gated concatenated --epochs 12

The corpora must have been prepared (docs/training.md). Rows about the fusion train it anew for --epochs epochs
between the encoders of the shipped model, others train a side from nothing, "from-scratch" both together, and "staged"
the fusion between sides of so short runs. Each is then evaluated with `avsr evaluate` in
babble, white noise and recordings of the training folder, one seed: test noise is not touched. Runs lie in
runs/ablations; what is done is not done again.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from avsr.config import read_yaml
from avsr.datasets.manifest import read_manifest, write_manifest
from avsr.shipped import find_configuration

LEVELS_DB = ("clean", "5", "0", "-5", "-10")
RUNS = Path("runs/ablations")


class Ablation(NamedTuple):
    """A configuration and what is changed in it.

    epochs: instead of as many as asked for. share: of the training clips, with as many steps in all as with all.
    after: rows whose models it begins with.
    """

    config: str
    changes: Sequence[str] = ()
    epochs: int | None = None
    share: float = 1.0
    after: Sequence[str] = ()


FOUR_TIMES = (
    "model.audio_encoder.subsampling=4",
    "model.audio_encoder.attention={style: regular, left: 32, right: 32}",
)
ENCODERS = (
    "initialize={"
    + ", ".join(f"{part}: grid-tiny" for part in ("audio_encoder", "audio_head", "visual_encoder", "visual_head"))
    + "}"
)
SHORT_ENCODERS = (
    "initialize={"
    f"audio_encoder: {RUNS}/audio-12/model, audio_head: {RUNS}/audio-12/model, "
    f"visual_encoder: {RUNS}/visual-10/model, visual_head: {RUNS}/visual-10/model"
    "}"
)
SOUND_TOO = ("freeze=[]", "loss.audio=0.5", "modalities={a: 0.2, v: 0.2, av: 0.6}")
GATED = "model.fusion.gated=true"
AS_THE_SIDES = ("loss.word_times=[1.0, 0.1]", "optimizer.learning_rate=1.5e-3", "optimizer.warmup_epochs=2")
ABLATIONS = {
    "concatenated": Ablation("grid-tiny", [ENCODERS]),
    "gated": Ablation("grid-tiny", [ENCODERS, GATED]),
    "no-modality-dropout": Ablation("grid-tiny", [ENCODERS, GATED, "modalities={a: 0, v: 0, av: 1}"]),
    "no-noise": Ablation("grid-tiny", [ENCODERS, GATED, "augment.noise_share=0"]),
    "sound-trained-on": Ablation("grid-tiny", [ENCODERS, GATED, *SOUND_TOO]),
    "audio": Ablation("grid-tiny-audio", epochs=12),
    "audio-4x": Ablation("grid-tiny-audio", FOUR_TIMES, epochs=12),
    "audio-half": Ablation("grid-tiny-audio", epochs=12, share=0.5),
    "audio-quarter": Ablation("grid-tiny-audio", epochs=12, share=0.25),
    "visual": Ablation("grid-tiny-visual", epochs=10),
    "staged": Ablation("grid-tiny", [SHORT_ENCODERS], epochs=4, after=["audio", "visual"]),
    "from-scratch": Ablation("grid-tiny", ["initialize={}", *SOUND_TOO, *AS_THE_SIDES], epochs=8),
    "visual-half": Ablation("grid-tiny-visual", epochs=10, share=0.5),
    "visual-quarter": Ablation("grid-tiny-visual", epochs=10, share=0.25),
    "visual-resnet18": Ablation("grid-tiny-visual", ["model.visual_encoder.trunk=resnet18"], epochs=10),
}


def run(words: Sequence[str]) -> None:
    print("$ avsr " + shlex.join(words), flush=True)
    code = subprocess.run([sys.executable, "-m", "avsr", *words], check=False).returncode
    if code:  # what it was is said already
        sys.exit(code)


def fewer_clips(config: str, share: float) -> list[str]:
    """The settings that train with a share of the speaker's clips, and as much less of what is drawn each epoch."""
    corpora = read_yaml(find_configuration(config))["train"]
    manifest = Path(corpora[0]["manifest"])
    fewer = manifest.with_name(f"train-{share:g}.jsonl")
    utterances = [u for u in read_manifest(manifest) if u.split == corpora[0].get("split", "train")]
    write_manifest(fewer, utterances[:: round(1 / share)])
    settings = [f"train.0.manifest={fewer}"]
    for index, corpus in enumerate(corpora):
        if "per_epoch" in corpus:
            settings.append(f"train.{index}.per_epoch={round(corpus['per_epoch'] * share)}")
    return settings


def measure(name: str, epochs: int, noise: str) -> dict[str, list[str]]:
    """modality -> WER at each level, of one ablation; trained and evaluated first where that is not done."""
    ablation = ABLATIONS[name]
    epochs = ablation.epochs or epochs
    folder = RUNS / f"{name}-{epochs}"
    if not (folder / "model").exists():
        for other in ablation.after:
            measure(other, epochs, noise)
        passes = round(epochs / ablation.share)
        few = [f"optimizer.epochs={passes}", "optimizer.average_last=2", f"loss.word_times_epochs={passes // 2}"]
        if ablation.share < 1:
            few += fewer_clips(ablation.config, ablation.share)
        run(["train", ablation.config, f"output={folder}", *few, *ablation.changes])
    results = folder / "dev" / "results.json"
    if not results.exists():
        grid = [
            "--noise-kinds",
            "babble,white,environment",
            "--snr=" + ",".join(LEVELS_DB),
            "--video",
            "intact",
            "--seed",
            "1",
        ]
        given = [
            "--noise-folder",
            f"environment={noise}",
            "--voices",
            "train",
            "--no-media",
            "--output-dir",
            str(results.parent),
        ]
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
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=list(ABLATIONS), default=list(ABLATIONS), help="some of them")
    arguments = parser.parse_args()
    if not Path(arguments.noise).is_dir():
        parser.error(f"argument --noise: got {arguments.noise}, expected a folder of recordings")
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
