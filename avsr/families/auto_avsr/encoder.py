"""The encoders of auto_avsr and USR: layers of attention with relative positions over the frames of a front end.

Every layer norm adds 1e-12 to the variance. Shapes: B batch, T frames, D width, N heads, E width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsr.families.auto_avsr.config import EncoderShape
from avsr.nn.attention import AttentionState, RelativeAttention, relative_positions
from avsr.nn.conformer import normed
from avsr.nn.context import AttentionContext
from avsr.nn.convolution import ConvolutionModule
from avsr.nn.masks import Sight
from avsr.nn.packing import Linear

NORM_EPS = 1e-12
LEGACY_TABLE = 5000
"""Positions in the table of the legacy attention. It is longer only for a longer input."""


def layer_norm(width: int) -> nn.LayerNorm:
    """A layer norm as these models have it."""
    return nn.LayerNorm(width, eps=NORM_EPS)


class FeedForward(nn.Module):
    """Linear, ReLU, linear: [..., D] -> [..., D]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_1, self.w_2 = Linear(width, hidden), Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(self.w_1(x, "relu"))


class LegacyAttention(RelativeAttention):
    """Relative attention as older versions of ESPnet computed it, with the same weights.

    The positions are the first T rows of a table of 5000 in reverse, so row m is position 4999 - m. The shift of the
    rows moves a part of the scores of the next query into each query's future: the published weights were trained so.
    """

    def forward(
        self, x_BTD: Tensor, source_BTD: Tensor, sight: Sight, state: AttentionState | None = None
    ) -> tuple[Tensor, AttentionState | None]:
        """The output [B, T, D]; the sight must be unlimited."""
        B, T, D = x_BTD.shape
        query, key, value = (
            layer(x_BTD).unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)
            for layer in (self.to_query, self.to_key, self.to_value)
        )
        last = max(LEGACY_TABLE, T) - 1
        table_TD = relative_positions(last, last - T + 1, D, device=x_BTD.device, dtype=x_BTD.dtype)
        position_NTE = self.to_position(table_TD).unflatten(-1, (self.heads, self.head_width)).transpose(0, 1)
        distance_BNTT = (query + self.bias_v[:, None]) @ position_NTE.transpose(1, 2)
        # With a column of zeros in front, rows that are read as one element shorter are shifted by their number.
        distance_BNTT = F.pad(distance_BNTT, (1, 0)).flatten(2)[..., T:].unflatten(-1, (T, T))
        scores_BNTT = (query + self.bias_u[:, None]) @ key.transpose(2, 3) + distance_BNTT
        weights_BNTT = (scores_BNTT * self.scale).softmax(dim=-1)
        return self.to_output((weights_BNTT @ value).transpose(1, 2).flatten(2)), None


class EncoderLayer(nn.Module):
    """One layer, [1, T, D] -> [1, T, D]: feed-forward parts, attention and convolution, as the shape says."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        width = shape.width
        self.macaron = shape.macaron
        kind = LegacyAttention if shape.positions == "legacy" else RelativeAttention
        if shape.macaron:
            self.norm_ff_macaron = layer_norm(width)
            self.feed_forward_macaron = FeedForward(width, shape.hidden)
        self.norm_mha = layer_norm(width)
        self.self_attn = kind(width, shape.heads, self_attention=True)
        if shape.kernel:
            self.norm_conv = layer_norm(width)
            self.conv_module = ConvolutionModule(width, shape.kernel)
            self.norm_final = layer_norm(width)
        self.norm_ff = layer_norm(width)
        self.feed_forward = FeedForward(width, shape.hidden)
        self.has_convolution, self.has_scale = bool(shape.kernel), shape.layer_scale
        if shape.layer_scale:
            self.gamma_mha, self.gamma_ff = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))

    def forward(self, x_BTD: Tensor, sight: Sight) -> Tensor:
        half = 0.5 if self.macaron else 1.0
        if self.macaron:
            x_BTD = torch.add(x_BTD, self.feed_forward_macaron(normed(self.norm_ff_macaron, x_BTD)), alpha=half)
        normed_BTD = normed(self.norm_mha, x_BTD)
        attended_BTD, _ = self.self_attn(normed_BTD, normed_BTD, sight)
        x_BTD = x_BTD + (attended_BTD * self.gamma_mha if self.has_scale else attended_BTD)
        if self.has_convolution:
            x_BTD = x_BTD + self.conv_module(normed(self.norm_conv, x_BTD), None)[0]
        added_BTD = self.feed_forward(normed(self.norm_ff, x_BTD))
        x_BTD = torch.add(x_BTD, added_BTD * self.gamma_ff if self.has_scale else added_BTD, alpha=half)
        return normed(self.norm_final, x_BTD) if self.has_convolution else x_BTD


class Encoder(nn.Module):
    """Frames of one utterance, scaled by sqrt(D) and encoded: [1, T, D] -> [1, T, D]."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.scale = shape.width**0.5
        self.encoders = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.layers))
        self.after_norm = layer_norm(shape.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD * self.scale
        sight = Sight(AttentionContext(), x_BTD.shape[1])
        for layer in self.encoders:
            x_BTD = layer(x_BTD, sight)
        return normed(self.after_norm, x_BTD)
