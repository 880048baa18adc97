"""avsr import: a published model to a checkpoint folder of ours."""

from __future__ import annotations

import argparse
import os

from avsr.cli.arguments import add_old_place, add_output_dir
from avsr.cli.console import Console
from avsr.errors import ModelError

DESCRIPTION = (
    "Convert a FastConformer or Conformer CTC model, MODEL.nemo, to a checkpoint folder, which\n"
    "avsr transcribe takes as --model and which loads faster. If a model has a part that is not supported\n"
    "and would change its results, it is refused with the name of that part. Prints the path of the folder."
)
EXAMPLE = "avsr import parakeet-ctc-0.6b.nemo --output-dir models/parakeet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr import`."""
    parser.add_argument("model", metavar="MODEL.nemo", help="archive to read")
    output = add_output_dir(parser, "checkpoint folder to write", required=True)
    add_old_place(parser, output)
    parser.add_argument("--overwrite", action="store_true", help="replace DIR if it is a checkpoint already")


def run(arguments: argparse.Namespace) -> int:
    """Import the model; 0 when the folder is written."""
    from avsr.families.nemo import load_nemo, model_card
    from avsr.families.own.checkpoint import CONFIG_NAME, save_checkpoint
    from avsr.families.own.family import check_reacts

    _check_model(arguments.model)
    out = arguments.output_dir
    # Only a checkpoint may be replaced: any other folder may hold what somebody still needs.
    if out.exists() and not (arguments.overwrite and (out / CONFIG_NAME).is_file()):
        raise ModelError(
            f"{out} is there already",
            remedy="give another folder" + (", or --overwrite" if (out / CONFIG_NAME).is_file() else ""),
        )
    network, tokenizer = load_nemo(arguments.model)
    check_reacts(network, tokenizer)
    with Console() as console:
        console.result(f"{save_checkpoint(out, network, tokenizer, card=model_card(arguments.model, network))}\n")
    return 0


def _check_model(name: str) -> None:
    """Raises ModelError for a model that needs no import."""
    from avsr.families.hub import PREFIX

    if name[: len(PREFIX)].lower() == PREFIX:
        what, target = "a model of the hub needs no import", PREFIX + name[len(PREFIX) :]
    elif os.path.isdir(name):
        what, target = "a folder needs no import", name
    else:
        return
    raise ModelError(f"{name}: {what}", expected="a .nemo file", remedy=f"name it with --model {target}")
