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
LOCAL_QUERIES = 2048  # of local attention at a time: bounds its memory


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

    global_projections: local attention projects for its global tokens with weights of their own.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        dropout: float = 0.0,
        use_bias: bool = True,
        global_projections: bool = False,
    ) -> None:
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
        if global_projections:
            self.to_global_query = nn.Linear(width, width, bias=use_bias)
            self.to_global_key = nn.Linear(width, width, bias=use_bias)
            self.to_global_value = nn.Linear(width, width, bias=use_bias)
        self.global_projections = global_projections

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
        Raises ValueError for a state of another context, and for local attention with a state or another source.
        """
        if context.style == "local":
            if state is not None or source_BTD is not x_BTD:
                raise ValueError("local attention: expected self-attention without a state")
            return self._locally(x_BTD, valid_BT, context), valid_BT, None
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
            if K != context.left:
                raise ValueError(f"attention state: got {K} frames of past, expected {context.left} as in {context}")
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
            if T > 1
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

    def _locally(self, x_BTD: Tensor, valid_BT: Tensor, context: AttentionContext) -> Tensor:
        """Self-attention of style "local": blocks of W queries, each against the 3 W keys around it.

        The published models were trained with two oddities, kept here: with left != right the position scores between
        the far left and the near right columns of the band are missing and the others shifted, and with several global
        tokens their rows swap places across tokens, heads and items, so that results depend on the batch.
        """
        T = x_BTD.shape[1]
        left, right, W = context.left, context.right, max(context.left, context.right)
        more = -T % (2 * W)
        query_BNTE, keys_BNTE, values_BNTE = (
            F.pad(self._heads(project(x_BTD)), (0, 0, 0, more))
            for project in (self.to_query, self.to_key, self.to_value)
        )
        valid_BT = F.pad(valid_BT, (0, more))
        positions_RD = relative_positions(left, -right, self.width, device=x_BTD.device, dtype=x_BTD.dtype)
        positions_NER = self.to_position(positions_RD).unflatten(-1, (self.heads, self.head_width)).permute(1, 2, 0)
        scale = 1.0 / math.sqrt(self.head_width)

        at = torch.arange(context.global_tokens, device=x_BTD.device) * context.global_spacing
        at = at[at < T + more]
        G = len(at)
        global_query_BNTE, global_keys_BNTE, global_values_BNTE = query_BNTE, keys_BNTE, values_BNTE
        if G and self.global_projections:
            global_query_BNTE, global_keys_BNTE, global_values_BNTE = (
                F.pad(self._heads(project(x_BTD)), (0, 0, 0, more))
                for project in (self.to_global_query, self.to_global_key, self.to_global_value)
            )

        # C blocks of W queries; the window of block c starts W keys before it.
        key_windows_BNCES = F.pad(keys_BNTE, (0, 0, W, W)).unfold(2, 3 * W, W)
        value_windows_BNCES = F.pad(values_BNTE, (0, 0, W, W)).unfold(2, 3 * W, W)
        valid_windows_BCS = F.pad(valid_BT, (W, W)).unfold(1, 3 * W, W)
        offset_WS = torch.arange(3 * W, device=x_BTD.device) - torch.arange(W, device=x_BTD.device)[:, None] - W
        near_WS = (offset_WS >= -left) & (offset_WS <= right)
        pieces = []
        step = max(1, LOCAL_QUERIES // W)
        for first in range(0, (T + more) // W, step):
            blocks = slice(first, first + step)
            frames = slice(first * W, (first + step) * W)
            query_BNCWE = query_BNTE[:, :, frames].unflatten(2, (-1, W))
            content_BNCWS = (query_BNCWE + self.bias_u[:, None, None]) @ key_windows_BNCES[:, :, blocks]
            position_BNCWR = (query_BNCWE + self.bias_v[:, None, None]) @ positions_NER[:, None]
            # To columns -W..W of the band and W more: cutting the flattened rows one column shorter shifts row i by i.
            band = (position_BNCWR[..., :left], F.pad(position_BNCWR[..., left:], (2 * W - left - right, W)))
            shifted_BNCWS = torch.cat(band, dim=-1).flatten(-2)[..., : 3 * W * W].unflatten(-1, (W, 3 * W))
            allowed_BCWS = near_WS & valid_windows_BCS[:, blocks, None]
            scores_BNCWS = ((content_BNCWS + shifted_BNCWS) * scale).masked_fill(~allowed_BCWS[:, None], MASKED_SCORE)
            if G:  # in one softmax with the band, where a near global token so counts twice
                to_global_BNTG = global_query_BNTE[:, :, frames] @ global_keys_BNTE[:, :, at].transpose(2, 3) * scale
                scores_BNCWS = torch.cat((to_global_BNTG.unflatten(2, (-1, W)), scores_BNCWS), dim=-1)
            weights_BNCWS = F.dropout(scores_BNCWS.softmax(dim=-1), self.dropout, self.training)
            gathered_BNCWE = weights_BNCWS[..., G:] @ value_windows_BNCES[:, :, blocks].transpose(3, 4)
            if G:
                gathered_BNCWE = gathered_BNCWE + weights_BNCWS[..., :G] @ values_BNTE[:, :, None, at]
            pieces.append(gathered_BNCWE.flatten(2, 3))
        gathered_BNTE = torch.cat(pieces, dim=2)
        if G:
            B, N = x_BTD.shape[0], self.heads
            query_BNGE = global_query_BNTE[:, :, at].permute(2, 0, 1, 3).reshape(B, N, G, self.head_width)
            scores_BNGT = (query_BNGE @ global_keys_BNTE.transpose(2, 3)) * scale
            weights_BNGT = scores_BNGT.masked_fill(~valid_BT[:, None, None], MASKED_SCORE).softmax(dim=-1)
            weights_BNGT = F.dropout(weights_BNGT, self.dropout, self.training)
            gathered_BNTE = gathered_BNTE.index_copy(2, at, weights_BNGT @ global_values_BNTE)
        return self.to_output(gathered_BNTE[:, :, :T].transpose(1, 2).flatten(2))

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)
