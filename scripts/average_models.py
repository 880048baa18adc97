"""The weighted mean of models that were trained on from each other: between what each of them is good at.

    python scripts/average_models.py runs/tuned/model=0.6 runs/start/model=0.4 --output runs/mean/model

A model that was tuned further, and the one that it was tuned from, mostly lie in one valley of the loss; between them
it keeps most of what the tuning gave and of how well the start did elsewhere (Wortsman et al., Robust fine-tuning of
zero-shot models, arXiv 2109.01903, section 3).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from avsr.errors import AvsrError, ConfigError
from avsr.families.own.checkpoint import load_checkpoint, save_checkpoint


def average(shares: Sequence[tuple[Path, float]], output: Path) -> None:
    """Write the mean of checkpoints, with shares above 0 that add up to 1, as a checkpoint. Raises AvsrError."""
    for folder, share in shares:
        if not 0 < share <= 1:  # nor is nan
            raise ConfigError(f"{folder}: share out of range", got=f"{share:g}", expected="more than 0, at most 1")
    total = sum(share for _, share in shares)
    if abs(total - 1) > 1e-6:
        raise ConfigError("the shares do not add up to 1", got=f"{total:g}", remedy="change one of them")
    mean, tokenizer = load_checkpoint(shares[0][0])
    weights = {name: torch.zeros_like(t) if t.is_floating_point() else t for name, t in mean.state_dict().items()}
    for folder, share in shares:
        network, units = load_checkpoint(folder)
        if network.config != mean.config or units.data() != tokenizer.data():
            raise ConfigError(f"{folder}: another model than {shares[0][0]}", expected="the same configuration")
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():  # what counts batches is that of the first
                weights[name] += share * tensor
    mean.load_state_dict(weights)
    parts = "\n".join(f"- {share:g} of {folder}" for folder, share in shares)
    save_checkpoint(output, mean, tokenizer, card=f"# {mean.config.name}\n\nThe weighted mean of\n\n{parts}\n")


def parse_share(text: str) -> tuple[Path, float]:
    folder, _, share = text.rpartition("=")
    try:
        return Path(folder), float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text}, expected FOLDER=SHARE, as in runs/a/model=0.6") from None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shares", nargs="+", type=parse_share, metavar="FOLDER=SHARE")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        average(options.shares, options.output)
    except AvsrError as error:
        print(f"average_models.py: {error}", file=sys.stderr)
        return 1
    print(f"average_models.py: wrote {options.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
