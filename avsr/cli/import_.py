"""avsr import: a published model to a checkpoint folder of ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from avsr.cli.console import Console
from avsr.errors import ModelError

SUMMARY = "a published .nemo model to a checkpoint folder"
DESCRIPTION = (
    "Turn a FastConformer or Conformer CTC model, MODEL.nemo, into the checkpoint folder OUT, which\n"
    "avsr transcribe takes as --model and which loads faster. A model with anything that would change\n"
    "its results and is not supported is refused, naming it. Prints the path of the folder."
)
EXAMPLE = "avsr import parakeet-ctc-0.6b.nemo models/parakeet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr import`."""
    add = parser.add_argument
    add("model", metavar="MODEL.nemo", help="archive to read")
    add("out", metavar="OUT", help="folder to write")
    add("--overwrite", action="store_true", help="replace OUT where it is a checkpoint already")


def run(arguments: argparse.Namespace) -> int:
    """Import the model; 0 when the folder is written."""
    from avsr.families.nemo import load_nemo, model_card
    from avsr.families.own.checkpoint import CONFIG_NAME, save_checkpoint

    out = Path(arguments.out)
    if out.exists() and not (arguments.overwrite and (out / CONFIG_NAME).is_file()):
        raise ModelError(
            f"{out} is there already",
            remedy="give another folder" + (", or --overwrite" if (out / CONFIG_NAME).is_file() else ""),
        )
    network, tokenizer = load_nemo(arguments.model)
    with Console() as console:
        console.result(f"{save_checkpoint(out, network, tokenizer, card=model_card(arguments.model, network))}\n")
    return 0
