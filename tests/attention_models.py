"""A Transformer decoder and a language model written from their formulas, for tests of searches.

They read the published names of the weights, compute every hypothesis from its beginning in each step, and keep no keys
or values: short, slow, and independent of the package's own decoder.

Letters: B hypotheses, U units so far, D width, V units of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


class WholePrefix:
    """A `Scorer` whose state is all units so far; `forward` gives the logits [B, V] after units [B, U]."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        self._forward = forward

    def initial_state(self, batch: int) -> Any:
        return np.zeros((batch, 0), np.int64)

    def score(self, last_B: Any, state: Any) -> tuple[Any, Any]:
        units_BU = np.concatenate((state, last_B[:, None]), axis=1)
        with torch.inference_mode():
            return self._forward(torch.from_numpy(units_BU)).log_softmax(dim=-1).numpy(), units_BU

    def select(self, state: Any, kept_B: Any) -> Any:
        return state[kept_B]


def decoder(weights: Weights, encoder_TD: Tensor, heads: int, output: str = "output_layer") -> WholePrefix:
    """The decoder of one utterance. weights: names without their first part, such as "embed.0.weight"."""

    def forward(units_BU: Tensor) -> Tensor:
        embedded = weights["embed.0.weight"][units_BU]
        x = embedded * math.sqrt(embedded.shape[-1]) + positions(*embedded.shape[1:])
        memory = encoder_TD[None].expand(len(x), -1, -1)
        for name in blocks(weights, "decoders"):
            normed = norm(x, weights, f"{name}.norm1")
            x = x + attention(normed, normed, weights, f"{name}.self_attn", heads, causal(units_BU))
            x = x + attention(norm(x, weights, f"{name}.norm2"), memory, weights, f"{name}.src_attn", heads)
            x = x + feed_forward(norm(x, weights, f"{name}.norm3"), weights, f"{name}.feed_forward")
        return linear(norm(x[:, -1], weights, "after_norm"), weights, output)

    return WholePrefix(forward)


def language_model(weights: Weights, heads: int, *, has_positions: bool) -> WholePrefix:
    """The language model of ESPnet, with the names of its file."""

    def forward(units_BU: Tensor) -> Tensor:
        x = linear(weights["embed.weight"][units_BU], weights, "encoder.embed.0")
        x = norm(x, weights, "encoder.embed.1", eps=1e-5).relu()
        if has_positions:
            x = x * math.sqrt(x.shape[-1]) + positions(*x.shape[1:])
        mask = causal(units_BU) & (units_BU != 0)[:, None, None]
        for name in blocks(weights, "encoder.encoders"):
            normed = norm(x, weights, f"{name}.norm_mha")
            x = x + attention(normed, normed, weights, f"{name}.self_attn", heads, mask)
            x = x + feed_forward(norm(x, weights, f"{name}.norm_ff"), weights, f"{name}.feed_forward")
        return linear(norm(x[:, -1], weights, "encoder.after_norm"), weights, "decoder")

    return WholePrefix(forward)


def blocks(weights: Weights, prefix: str) -> list[str]:
    """The names of all blocks of a stack, in order."""
    depth = len(prefix.split("."))
    numbers = {int(name.split(".")[depth]) for name in weights if name.startswith(f"{prefix}.")}
    return [f"{prefix}.{number}" for number in sorted(numbers)]


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def norm(x: Tensor, weights: Weights, name: str, eps: float = 1e-12) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def feed_forward(x: Tensor, weights: Weights, name: str) -> Tensor:
    return linear(linear(x, weights, f"{name}.w_1").relu(), weights, f"{name}.w_2")


def attention(x: Tensor, memory: Tensor, weights: Weights, name: str, heads: int, mask: Tensor | None = None) -> Tensor:
    query, key, value = (
        linear(source, weights, f"{name}.linear_{letter}").unflatten(-1, (heads, -1)).transpose(1, 2)
        for source, letter in ((x, "q"), (memory, "k"), (memory, "v"))
    )
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return linear(mixed.transpose(1, 2).flatten(2), weights, f"{name}.linear_out")


def causal(units_BU: Tensor) -> Tensor:
    return torch.ones(units_BU.shape[1], units_BU.shape[1], dtype=torch.bool).tril()[None, None]


def positions(length: int, width: int) -> Tensor:
    angles = torch.arange(length)[:, None] * torch.exp(-math.log(10000) * torch.arange(0, width, 2) / width)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
