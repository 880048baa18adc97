"""Make a trained checkpoint ready to ship: 16-bit weights and a model card.

python recipes/pack_model.py runs/grid-tiny-evidence-last/model avsr/assets/grid-tiny

A training knows neither the licence of the weights nor the sentences that the model is for: both stay as the target has
them. The limit `sentences.least_fit` belongs to the weights, so it has to be chosen again.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

from avsr.errors import AvsrError
from avsr.families.own.checkpoint import CONFIG_NAME, load_checkpoint, read_config, save_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--card", type=Path, help="model card in Markdown; default the one in the target")
    arguments = parser.parse_args()
    network, tokenizer = load_checkpoint(arguments.checkpoint)
    if (arguments.target / CONFIG_NAME).exists():
        packed = read_config(arguments.target)
        network.config = dataclasses.replace(network.config, sentences=packed.sentences, licence=packed.licence)
    card = (arguments.card or arguments.target / "README.md").read_text(encoding="utf-8")
    save_checkpoint(arguments.target, network, tokenizer, card=card, dtype=torch.float16)
    size = sum(path.stat().st_size for path in arguments.target.iterdir())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"{arguments.target}: {parameters / 1e6:.2f} M parameters, {size / 1e6:.1f} MB")
    if network.visual_encoder is not None:
        print(f"visual trunk: {network.visual_encoder.mflop_per_slot:.1f} MFLOP a frame")


if __name__ == "__main__":
    try:
        main()
    except AvsrError as error:
        sys.exit(f"pack_model.py: {error}")
