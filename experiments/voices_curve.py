"""How the sound of unknown people depends on the voices of the training: a learning curve.

    python experiments/voices_curve.py work/curve --noise work/corpora/noise/noise_train --only 0 7 24

Trains the sound of a model on a little further for each number of voices, always for as many epochs, and measures each
result like `experiments/unknown_people.py`. All runs have GRID's one speaker; 7, 14 and 24 neural voices speak unmixed;
`mixed` has mixtures of voices too, and `an4` also the spelled letters and digits of 66 people. Needs the corpora of
`recipes/train_grid_tiny.sh`, steps 5 to 7, in the folder work. A run that is finished is not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any, cast

from unknown_people import Data, table_of_sound

import avsr
from avsr.datasets.manifest import Utterance, read_manifest, write_manifest
from avsr.errors import AvsrError
from avsr.families.own.engine import OwnEngine
from avsr.training.run import train

STEPS = ("0", "7", "14", "24", "mixed", "an4")
UTTERANCES = 800
"""Neural utterances an epoch, or all if there are fewer."""


def voices_of(utterance: Utterance) -> list[str]:
    """The voices of a neural utterance: "0.60af_sky+0.40bm_lewis" has two."""
    return [part[4:] for part in utterance.speaker.split("+")]


def chosen(utterances: list[Utterance], step: str) -> list[Utterance]:
    """The neural utterances of one step of the curve."""
    if step in ("mixed", "an4"):
        return utterances
    alone = [u for u in utterances if len(voices_of(u)) == 1]
    # Every n-th name, so that few voices too have both sexes and both accents.
    names = sorted({voices_of(u)[0] for u in alone})
    some = names[:: max(1, len(names) // int(step))][: int(step)] if step != "0" else []
    return [u for u in alone if voices_of(u)[0] in some]


def corpora(step: str, work: Path, folder: Path) -> list[dict[str, Any]]:
    """The setting `train` of one step."""
    result: list[dict[str, Any]] = [{"manifest": str(work / "grid" / "manifest.jsonl"), "split": "train"}]
    if step == "0":
        return result
    neural = work / "neural"
    utterances = chosen([u for u in read_manifest(neural / "manifest.jsonl") if u.split == "train"], step)
    link = folder / "audio"
    if not link.exists():
        link.symlink_to((neural / "audio").resolve())
    write_manifest(folder / "manifest.jsonl", [dataclasses.replace(u, split="train") for u in utterances])
    result.append({"manifest": str(folder / "manifest.jsonl"), "split": "train", "per_epoch": UTTERANCES})
    if step == "an4":
        result.append({"manifest": str(work / "an4-known" / "manifest.jsonl"), "split": "train"})
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--work", type=Path, default=Path("work"), help="folder of the prepared corpora")
    parser.add_argument("--noise", type=Path, required=True, help="folder of training noise")
    parser.add_argument("--start", default="grid-tiny", help="model whose sound is trained on (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="of each run (default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS, help="some steps of the curve")
    arguments = parser.parse_args()
    data = Data(arguments.work, arguments.noise)
    for step in arguments.only:
        folder = arguments.out / step
        folder.mkdir(parents=True, exist_ok=True)
        settings = [
            f"output={folder / 'run'}",
            f"train={corpora(step, arguments.work, folder)}",
            f"dev.manifest={arguments.work / 'neural' / 'manifest.jsonl'}",
            f"augment.noise_folder={arguments.noise}",
            f"optimizer.epochs={arguments.epochs}",
            f"initialize={{audio_encoder: {arguments.start}, audio_head: {arguments.start}}}",
        ]
        model = avsr.load(train("grid-tiny-audio-voices-gentle", settings, on_message=_say)).model
        assert model.in_chunks is not None
        print(f"\n{step}")
        table_of_sound(cast(OwnEngine, model.engine), cast(OwnEngine, model.in_chunks(320)), data)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except AvsrError as error:
        sys.exit(f"voices_curve.py: {error}")
