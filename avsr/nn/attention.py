"""Multi-head attention with relative positions (Dai et al., arXiv 1901.02860, section 3.3; as in the Conformer)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsr.nn.masks import AttentionContext

MASKED_SCORE = (
    -10000.0
)  # finite, so that a row without any visible key gives zeros and not NaN; exp() of it is exactly 0


class AttentionState(NamedTuple):
    """What one attention layer still remembers: the last K keys and values, oldest first.

    keys_BNKE, values_BNKE: projected frames. valid_BK: which of them are real. position_B: frames seen so far (int64).
    """

    keys_BNKE: Tensor
    values_BNKE: Tensor
    valid_BK: Tensor
    position_B: Tensor


def relative_positions(newest: int, oldest: int, width: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Sinusoids of the distances newest, newest - 1, ..., oldest: [newest - oldest + 1, width].

    Row r holds sin(r w_i) at column 2i and cos(r w_i) at 2i + 1 with w_i = 10000^(-2i / width).
    """
    distance = torch.arange(newest, oldest - 1, -1, device=device, dtype=torch.float32)
    frequency = torch.exp(torch.arange(0, width, 2, device=device, dtype=torch.float32) * (-math.log(10000.0) / width))
    angle = distance[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).to(dtype)


class RelativeAttention(nn.Module):
    """Attention whose scores add a learned view of the distance between query and key.

    score(i, j) = ((q_i + u) . k_j + (q_i + v) . P(i - j)) / sqrt(E), with learned u and v (`bias_u`, `bias_v`) and
    P a projection of sinusoids of the distance. Queries and keys share one time axis: query T - 1 and key S - 1 are
    at the same time. Serves as self-attention (source = x) and as cross-attention to another stream.
    """

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0, use_bias: bool = True) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"attention width: got {width}, expected a multiple of the {heads} heads")
        self.width, self.heads, self.head_width = width, heads, width // heads
        self.dropout = dropout
        self.to_query = nn.Linear(width, width, bias=use_bias)
        self.to_key = nn.Linear(width, width, bias=use_bias)
        self.to_value = nn.Linear(width, width, bias=use_bias)
        self.to_position = nn.Linear(width, width, bias=False)
        self.to_output = nn.Linear(width, width, bias=use_bias)
        self.bias_u = nn.Parameter(torch.zeros(heads, self.head_width))
        self.bias_v = nn.Parameter(torch.zeros(heads, self.head_width))

    def initial_state(
        self, batch_size: int, context: AttentionContext, device: torch.device, dtype: torch.dtype
    ) -> AttentionState:
        """An empty past of `context.left` frames. Raises ValueError when the context cannot stream."""
        if not context.streamable:
            raise ValueError(
                f"attention context {context} cannot stream: expected a bounded left and no open right side"
            )
        cache = torch.zeros(batch_size, self.heads, context.left, self.head_width, device=device, dtype=dtype)
        return AttentionState(
            cache,
            cache.clone(),
            torch.zeros(batch_size, context.left, dtype=torch.bool, device=device),
            torch.zeros(batch_size, dtype=torch.int64, device=device),
        )

    def forward(
        self,
        x_BTD: Tensor,
        source_BTD: Tensor,
        valid_BT: Tensor,
        context: AttentionContext,
        state: AttentionState | None = None,
    ) -> tuple[Tensor, Tensor, AttentionState | None]:
        """What each frame of x gathers from the source.

        valid_BT says which source frames may be looked at. Returns the gathered [B, T, D], a bool [B, T] that is False
        where a frame saw no key at all (its output there is `to_output`'s bias and means nothing), and the next state.
        """
        B, T, _ = x_BTD.shape
        query_BNTE = self._heads(self.to_query(x_BTD))
        keys_BNSE = self._heads(self.to_key(source_BTD))
        values_BNSE = self._heads(self.to_value(source_BTD))
        valid_BS = valid_BT
        next_state = None
        if state is None:
            position_BT = torch.arange(T, device=x_BTD.device).expand(B, T)
        else:
            keys_BNSE = torch.cat((state.keys_BNKE, keys_BNSE), dim=2)
            values_BNSE = torch.cat((state.values_BNKE, values_BNSE), dim=2)
            valid_BS = torch.cat((state.valid_BK, valid_BT), dim=1)
            position_BT = state.position_B[:, None] + torch.arange(T, device=x_BTD.device)
            K = state.keys_BNKE.shape[2]
            S = keys_BNSE.shape[2]
            next_state = AttentionState(
                keys_BNSE[:, :, S - K :], values_BNSE[:, :, S - K :], valid_BS[:, S - K :], state.position_B + T
            )
        S = keys_BNSE.shape[2]
        allowed_BTS = valid_BS[:, None, :]
        if not context.unlimited:
            key_position_BS = position_BT[:, :1] + torch.arange(T - S, T, device=x_BTD.device)
            allowed_BTS = allowed_BTS & context.visible(position_BT, key_position_BS)

        positions_RD = relative_positions(S - 1, 1 - T, self.width, device=x_BTD.device, dtype=x_BTD.dtype)
        positions_NRE = self.to_position(positions_RD).unflatten(-1, (self.heads, self.head_width)).transpose(0, 1)
        distance_BNTR = torch.matmul(query_BNTE + self.bias_v[:, None], positions_NRE.transpose(1, 2))
        # The column of key j for query i is T - 1 - i + j: reading the flattened rows one element short each shifts
        # row i by i, so the whole re-indexing is a view.
        R = S + T - 1
        shifted_BNTS = (
            distance_BNTR.flatten(2)[..., T - 1 : T - 1 + T * (R - 1)].unflatten(-1, (T, R - 1))[..., :S]
            if R > 1
            else distance_BNTR
        )
        scale = 1.0 / math.sqrt(self.head_width)
        bias_BNTS = (shifted_BNTS * scale).masked_fill(~allowed_BTS[:, None], MASKED_SCORE)
        gathered_BNTE = F.scaled_dot_product_attention(
            query_BNTE + self.bias_u[:, None],
            keys_BNSE,
            values_BNSE,
            attn_mask=bias_BNTS,
            dropout_p=self.dropout if self.training else 0.0,
            scale=scale,
        )
        output_BTD = self.to_output(gathered_BNTE.transpose(1, 2).flatten(2))
        return output_BTD, allowed_BTS.any(dim=-1).expand(B, T), next_state

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)
