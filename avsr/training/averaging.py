"""The weighted mean of models that were trained on from each other.

A tuned model and the model that it was tuned from mostly lie in one valley of the loss. Their mean keeps most of what
the tuning taught and most of what the first model could do elsewhere (Wortsman et al., Robust fine-tuning of zero-shot
models, arXiv 2109.01903, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from avsr.errors import ConfigError
from avsr.families.own.checkpoint import load_checkpoint, save_checkpoint


def average_checkpoints(shares: Sequence[tuple[Path, float]], output: Path) -> Path:
    """Write the weighted mean of checkpoints as a checkpoint to the folder `output`, and return that folder.

    shares: checkpoint folders, each with its weight, above 0. The weights add up to 1. Buffers that are no floating
        point numbers, such as counts of batches, come from the first checkpoint.

    Raises ConfigError for wrong weights and for checkpoints of different configurations or vocabularies, ModelError for
    a folder that is no checkpoint.
    """
    _check_shares(shares)
    mean, tokenizer = load_checkpoint(shares[0][0])
    weights = {name: torch.zeros_like(t) if t.is_floating_point() else t for name, t in mean.state_dict().items()}
    for folder, share in shares:
        network, units = load_checkpoint(folder)
        if network.config != mean.config or units.data() != tokenizer.data():
            raise ConfigError(f"{folder}: another model than {shares[0][0]}", expected="the same configuration")
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                weights[name] += share * tensor
    mean.load_state_dict(weights)
    parts = "\n".join(f"- {share:g} of {folder}" for folder, share in shares)
    return save_checkpoint(output, mean, tokenizer, card=f"# {mean.config.name}\n\nThe weighted mean of\n\n{parts}\n")


def _check_shares(shares: Sequence[tuple[Path, float]]) -> None:
    for folder, share in shares:
        if not 0 < share <= 1:  # false for nan too
            raise ConfigError(f"{folder}: share out of range", got=f"{share:g}", expected="more than 0, at most 1")
    total = sum(share for _, share in shares)
    if abs(total - 1) > 1e-6:
        raise ConfigError("the shares do not add up to 1", got=f"{total:g}", remedy="change one of them")
