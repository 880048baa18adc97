"""Multi-head attention with relative positions (Dai et al., arXiv 1901.02860, section 3.3; as in the Conformer)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsr.nn.masks import AttentionContext, Sight
from avsr.nn.packing import Linear, Packable

# Finite, so that a row without any visible key does not give NaN; exp() of it is exactly 0.
MASKED_SCORE = -10000.0
MAX_KEPT_POSITIONS = 256  # of a packed module: the projections of so few, as of streams, are kept for the next pass


class AttentionState(NamedTuple):
    """What one attention layer still remembers: the last K keys and values, heads side by side, oldest first."""

    keys_BKD: Tensor
    values_BKD: Tensor


def relative_positions(newest: int, oldest: int, width: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Sinusoids of the distances newest, newest - 1, ..., oldest: [newest - oldest + 1, width].

    Row r holds sin(r w_i) at column 2i and cos(r w_i) at 2i + 1 with w_i = 10000^(-2i / width). Not to be written to:
    every layer gets the same tensor.
    """
    if newest - oldest > 8192:
        return _sinusoids(newest, oldest, width, device, dtype)
    return _kept_sinusoids(newest, oldest, width, device, dtype)


def _sinusoids(newest: int, oldest: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # what is kept must serve training too
        distance = torch.arange(newest, oldest - 1, -1, device=device, dtype=torch.float32)
        steps = torch.arange(0, width, 2, device=device, dtype=torch.float32)
        angle = distance[:, None] * torch.exp(steps * (-math.log(10000.0) / width))
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).to(dtype)


_kept_sinusoids = lru_cache(maxsize=8)(_sinusoids)


class RelativeAttention(Packable):
    """Attention whose scores add a learned view of the distance between query and key.

    score(i, j) = ((q_i + u) . k_j + (q_i + v) . P(i - j)) / sqrt(E), with learned u and v (`bias_u`, `bias_v`) and
    P a projection of sinusoids of the distance. Queries and keys share one time axis: query T - 1 and key S - 1 are
    at the same time. Serves as self-attention (source = x) and as cross-attention to another stream.

    Works through the queries in the blocks of a `Sight`, each against the keys that it may see: where the context is
    limited on both sides, time grows linearly with the length; memory does always.

    global_projections: attention of style "local" projects for its global tokens with weights of their own.
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
        self.to_query = Linear(width, width, bias=use_bias)
        self.to_key = Linear(width, width, bias=use_bias)
        self.to_value = Linear(width, width, bias=use_bias)
        self.to_position = Linear(width, width, bias=False)
        self.to_output = Linear(width, width, bias=use_bias)
        self.bias_u = nn.Parameter(torch.zeros(heads, self.head_width))
        self.bias_v = nn.Parameter(torch.zeros(heads, self.head_width))
        if global_projections:
            self.to_global_query = Linear(width, width, bias=use_bias)
            self.to_global_key = Linear(width, width, bias=use_bias)
            self.to_global_value = Linear(width, width, bias=use_bias)
        self.global_projections = global_projections
        self._packed = False
        self._kept_positions: tuple[tuple[int, int, AttentionContext], Tensor] | None = None

    def pack(self, dtype: torch.dtype) -> None:
        self._packed = True

    def unpack(self) -> None:
        self._packed, self._kept_positions = False, None

    def initial_state(
        self, batch_size: int, context: AttentionContext, device: torch.device, dtype: torch.dtype
    ) -> AttentionState:
        """An empty past of `context.left` frames. Raises ValueError when the context cannot stream."""
        if not context.streamable:
            raise ValueError(
                f"attention context {context} cannot stream: expected a bounded left and no open right side"
            )
        cache = torch.zeros(batch_size, context.left, self.width, device=device, dtype=dtype)
        return AttentionState(cache, cache.clone())

    def forward(
        self, x_BTD: Tensor, source_BTD: Tensor, sight: Sight, state: AttentionState | None = None
    ) -> tuple[Tensor, AttentionState | None]:
        """What each frame of x gathers from the source, [B, T, D], and the next state.

        The output of a frame that sees nothing means nothing. Raises ValueError for a state of another length than the
        sight's, and for global tokens in cross-attention.
        """
        query_BTNE = self.to_query(x_BTD).unflatten(-1, (self.heads, self.head_width))
        keys_BSD, values_BSD = self.to_key(source_BTD), self.to_value(source_BTD)
        next_state = None
        if state is not None:
            T = source_BTD.shape[1]
            keys_BSD = torch.cat((state.keys_BKD, keys_BSD), dim=1)
            values_BSD = torch.cat((state.values_BKD, values_BSD), dim=1)
            next_state = AttentionState(keys_BSD[:, T:], values_BSD[:, T:])
        if keys_BSD.shape[1] != sight.num_keys:
            raise ValueError(
                f"attention: got {keys_BSD.shape[1]} keys, expected {sight.num_keys}: the state is of another context"
            )
        keys_BNSE, values_BNSE = self._heads(keys_BSD), self._heads(values_BSD)

        # Heads in front of items: then one product with the positions of a head serves all items.
        B, T, N, E = query_BTNE.shape
        scale = 1.0 / math.sqrt(E)
        content_NBTE = torch.add(self.bias_u * scale, query_BTNE, alpha=scale).permute(2, 0, 1, 3)
        distance_NBTE = torch.add(self.bias_v * scale, query_BTNE, alpha=scale).permute(2, 0, 1, 3)
        keys_nES = keys_BNSE.permute(1, 0, 3, 2).flatten(0, 1)  # n: heads and items
        values_nSE = values_BNSE.transpose(0, 1).flatten(0, 1)
        positions_NER = self._positions(sight, x_BTD.dtype)
        at = globals_nEG = values_nGE = None
        plain_BTNE = query_BTNE  # without u and v: for global tokens
        if sight.context.global_tokens:
            if source_BTD is not x_BTD or state is not None:
                raise ValueError("global tokens: expected self-attention without a state")
            if self.global_projections:
                plain_BTNE = self.to_global_query(x_BTD).unflatten(-1, (N, E))
            at, globals_nEG, values_nGE = self._global_columns(x_BTD, keys_BNSE, values_BNSE, sight.context)
        gathered_NBTE = content_NBTE.new_empty(N, B, T, E) if not torch.is_grad_enabled() else None
        pieces = []
        for block in sight.blocks():
            w = block.queries.stop - block.queries.start
            distance_NvR = distance_NBTE[:, :, block.queries].reshape(N, B * w, E) @ positions_NER[..., block.rows]
            distance_nwR = distance_NvR.view(N * B, w, -1)
            # The column of key j for query i is w - 1 - i + j: reading the flattened rows one element short each shifts
            # row i by i, so the whole re-indexing is a view.
            R = distance_nwR.shape[2]
            if w > 1:
                distance_nwR = distance_nwR.flatten(1)[:, w - 1 : w - 1 + w * (R - 1)].unflatten(1, (w, R - 1))
            query_nwE = content_NBTE[:, :, block.queries].flatten(0, 1)
            scores_nwS = torch.baddbmm(distance_nwR[..., : R - w + 1], query_nwE, keys_nES[..., block.keys])
            if block.allowed is not None:
                scores_nwS = scores_nwS.unflatten(0, (N, B)).masked_fill(~block.allowed, MASKED_SCORE).flatten(0, 1)
            seen_values_nSE = values_nSE[:, block.keys]
            if globals_nEG is not None and values_nGE is not None:
                # In one softmax with the band, where a near global token so counts twice.
                plain_nwE = plain_BTNE[:, block.queries].permute(2, 0, 1, 3).flatten(0, 1) * scale
                scores_nwS = torch.cat((plain_nwE @ globals_nEG, scores_nwS), dim=-1)
                seen_values_nSE = torch.cat((values_nGE, seen_values_nSE), dim=1)
            weights_nwS = F.dropout(scores_nwS.softmax(dim=-1), self.dropout, self.training).to(values_nSE.dtype)
            piece_NBwE = torch.bmm(weights_nwS, seen_values_nSE).view(N, B, w, E)
            if gathered_NBTE is None:
                pieces.append(piece_NBwE)
            else:
                gathered_NBTE[:, :, block.queries] = piece_NBwE
        if gathered_NBTE is None:
            gathered_NBTE = torch.cat(pieces, dim=2)
        if at is not None:
            gathered_NBTE = self._gather_globally(gathered_NBTE, x_BTD, keys_BNSE, values_BNSE, plain_BTNE, at, sight)
        return self.to_output(gathered_NBTE.permute(1, 2, 0, 3).flatten(2)), next_state

    def _positions(self, sight: Sight, dtype: torch.dtype) -> Tensor:
        """Projected distances of the sight, a head at a time: [N, E, R]."""
        key = (sight.newest, sight.oldest, sight.context)
        if self._kept_positions is not None and self._kept_positions[0] == key:
            return self._kept_positions[1]
        context, device = sight.context, self.bias_u.device
        if context.style == "local" and context.left != context.right:
            positions_RD = self._crooked_positions(sight, dtype)
        else:
            positions_RD = relative_positions(sight.newest, sight.oldest, self.width, device=device, dtype=dtype)
        positions_NER = self.to_position(positions_RD).unflatten(-1, (self.heads, self.head_width)).permute(1, 2, 0)
        if self._packed and positions_NER.shape[2] <= MAX_KEPT_POSITIONS:
            self._kept_positions = (key, positions_NER)
        return positions_NER

    def _crooked_positions(self, sight: Sight, dtype: torch.dtype) -> Tensor:
        """Sinusoids as the published models with unequal sides of a local context were trained: the terms between the
        far left and the near right columns of the band are missing, and the others shifted."""
        left, right = sight.context.left, sight.context.right
        widest = max(left, right)
        table_CD = relative_positions(left, -right, self.width, device=self.bias_u.device, dtype=dtype)
        column_R = widest - torch.arange(sight.newest, sight.oldest - 1, -1, device=self.bias_u.device)
        is_far_left, is_right = (column_R >= 0) & (column_R < left), column_R >= 2 * widest - right
        row_R = torch.where(is_far_left, column_R, column_R - 2 * widest + right + left).clamp(0, left + right)
        is_known = is_far_left | (is_right & (column_R <= 2 * widest))
        return table_CD[row_R] * is_known[:, None]

    def _global_columns(
        self, x_BTD: Tensor, keys_BNSE: Tensor, values_BNSE: Tensor, context: AttentionContext
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Where the global tokens are [G], and their keys [n, E, G] and values [n, G, E].

        The published models fill time up to a multiple of twice the wider side, and a token may lie in that filling: it
        is zero there, and takes its share of the softmax.
        """
        T = x_BTD.shape[1]
        filled = T + -T % (2 * max(context.left, context.right))
        at = torch.arange(context.global_tokens, device=x_BTD.device) * context.global_spacing
        at = at[at < filled]
        if self.global_projections:
            keys_BNSE = self._heads(self.to_global_key(x_BTD))
        columns = []
        for source_BNSE in (keys_BNSE, values_BNSE):
            inside_BNGE = source_BNSE[:, :, at.clamp(max=T - 1)] * (at < T)[:, None]
            columns.append(inside_BNGE.transpose(0, 1).flatten(0, 1))
        return at, columns[0].transpose(1, 2), columns[1]

    def _gather_globally(
        self,
        gathered_NBTE: Tensor,
        x_BTD: Tensor,
        keys_BNSE: Tensor,
        values_BNSE: Tensor,
        plain_BTNE: Tensor,
        at: Tensor,
        sight: Sight,
    ) -> Tensor:
        """Replace the rows of the global tokens, which see everything.

        With several of them the published models mix up their rows across tokens, heads and items, so that results
        depend on the batch; kept.
        """
        N, B, T, E = gathered_NBTE.shape
        query_BNTE = plain_BTNE.transpose(1, 2)
        if self.global_projections:
            keys_BNSE = self._heads(self.to_global_key(x_BTD))
            values_BNSE = self._heads(self.to_global_value(x_BTD))
        query_BNGE = query_BNTE[:, :, at.clamp(max=T - 1)] * (at < T)[:, None]
        query_BNGE = query_BNGE.permute(2, 0, 1, 3).reshape(B, N, len(at), E)
        scores_BNGT = (query_BNGE @ keys_BNSE.transpose(2, 3)) / math.sqrt(E)
        if sight.valid_BS is not None:
            scores_BNGT = scores_BNGT.masked_fill(~sight.valid_BS[:, None, None], MASKED_SCORE)
        weights_BNGT = F.dropout(scores_BNGT.softmax(dim=-1), self.dropout, self.training)
        rows_NBGE = (weights_BNGT @ values_BNSE).transpose(0, 1)
        return gathered_NBTE.index_copy(2, at[at < T], rows_NBGE[:, :, at < T])

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)
