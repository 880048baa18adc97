"""The encoder of AV-HuBERT: transformer layers without relative positions, after a convolution that gives them.

Shi et al. 2022, "Learning Audio-Visual Speech Representation by Masked Multimodal Cluster Prediction". Shapes: B batch,
T frames, D width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from avsr.families.auto_avsr.config import EncoderShape
from avsr.nn.conformer import normed
from avsr.nn.packing import Linear


class HubertAttention(nn.Module):
    """Plain attention of all frames to all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = Linear(width, width), Linear(width, width)
        self.v_proj, self.out_proj = Linear(width, width), Linear(width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        query, key, value = (
            layer(x_BTD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class HubertFeedForward(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.intermediate_dense, self.output_dense = Linear(width, hidden), Linear(hidden, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.output_dense(F.gelu(self.intermediate_dense(x_BTD)))


class HubertLayer(nn.Module):
    """Attention and feed-forward, each with a norm before it."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(shape.width)
        self.attention = HubertAttention(shape.width, shape.heads)
        self.final_layer_norm = nn.LayerNorm(shape.width)
        self.feed_forward = HubertFeedForward(shape.width, shape.hidden)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(normed(self.layer_norm, x_BTD))
        return x_BTD + self.feed_forward(normed(self.final_layer_norm, x_BTD))


class HubertEncoder(nn.Module):
    """[1, T, D] -> [1, T, D]. The weight norm of its convolution is a part of the weights already."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.positions = nn.Conv1d(
            shape.width, shape.width, shape.kernel, padding=shape.kernel // 2, groups=shape.groups
        )
        self.layers = nn.ModuleList(HubertLayer(shape) for _ in range(shape.layers))
        self.layer_norm = nn.LayerNorm(shape.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        T = x_BTD.shape[1]
        # An even kernel gives one frame more than it was given.
        x_BTD = x_BTD + F.gelu(self.positions(x_BTD.transpose(1, 2))[..., :T]).transpose(1, 2)
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        return normed(self.layer_norm, x_BTD)
