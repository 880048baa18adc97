"""How well models tell digits said by people they never heard: a measure to choose by, where test speakers are few.

    python experiments/spoken_digits.py work/corpora/digits runs/a/model runs/b/model

The folder holds recordings of single digits and digits.jsonl with `file`, `speaker`, `words` and `split` of each, as of
the Free Spoken Digit Dataset; the split `train` is used. Of the ten words, the one with the least CTC loss by the sound
alone is what the model says. It was made for six words in a row at 16 kHz, so single words over a telephone's band are
hard for it: the figures are for comparing models, and say nothing about sentences.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F

import avsr
from avsr.errors import AvsrError, DataError
from avsr.families.own.engine import OwnEngine
from avsr.media.audio import read_audio
from avsr.randomness import generator

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MARGIN = 8000  # half a second of near silence on both sides, at 16 kHz
RMS = 0.05
FLOOR_RMS = 1e-4


@torch.inference_mode()
def digit(engine: OwnEngine, path: Path) -> str:
    samples = np.pad(read_audio(path), MARGIN)
    samples *= RMS / np.sqrt(np.mean(samples**2) + 1e-9)
    samples += generator("spoken digits", path.name).normal(0, FLOOR_RMS, len(samples)).astype(np.float32)
    network = engine.network
    log_probs_BTV = network.audio_head(engine.encode_audio([samples]).frames_BTD).expand(len(DIGITS), -1, -1)
    units = [torch.tensor(engine.tokenizer.encode(word)) for word in DIGITS]
    losses = F.ctc_loss(
        log_probs_BTV.transpose(0, 1),
        torch.cat(units),
        torch.full((len(DIGITS),), log_probs_BTV.shape[1]),
        torch.tensor([len(of_word) for of_word in units]),
        blank=network.blank_id,
        reduction="none",
    )
    return DIGITS[int(losses.argmin())]


def right_by_speaker(engine: OwnEngine, folder: Path, rows: Sequence[Mapping[str, str]]) -> dict[str, list[bool]]:
    right: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        right[row["speaker"]].append(digit(engine, folder / row["file"]) == row["words"])
    return right


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of the split `train`. Raises DataError where there are none."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [{key: row[key] for key in ("file", "speaker", "words")} for row in rows if row["split"] == "train"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        got = f"no {error}" if isinstance(error, KeyError) else error
        expected = "one JSON object a line: file, speaker, words, split"
        raise DataError(f"{path}: the list of digits cannot be read", got=got, expected=expected) from None
    if not rows:
        raise DataError(f"{path}: no digits of the split train")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path)
    parser.add_argument("models", nargs="+", help="checkpoints or shipped models")
    arguments = parser.parse_args()
    rows = read_rows(arguments.digits / "digits.jsonl")
    print(f"{len(rows)} recordings, share of digits that are right")
    for model in arguments.models:
        right = right_by_speaker(cast(OwnEngine, avsr.load(model).model.engine), arguments.digits, rows)
        total = 100 * sum(map(sum, right.values())) / len(rows)
        speakers = ", ".join(f"{speaker} {100 * sum(r) / len(r):.0f}" for speaker, r in sorted(right.items()))
        print(f"{model}: {total:.1f} % ({speakers})", flush=True)


if __name__ == "__main__":
    try:
        main()
    except AvsrError as error:
        sys.exit(f"spoken_digits.py: {error}")
