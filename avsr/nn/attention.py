"""Multi-head attention with relative positions (Dai et al., arXiv 1901.02860, section 3.3; as in the Conformer).

Shapes: B batch, T queries, w queries of one block, S keys, s keys of one piece, K cached keys, G global tokens,
R distances from query to key, D width, N heads, E width of one head, C = 2 D (keys beside values), n heads times items,
m heads (or one head), v items times queries.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsr.nn.context import AttentionContext
from avsr.nn.masks import Sight
from avsr.nn.packing import Linear, Packable, PackedWeight, pack_as_one, product

MASKED_SCORE = -10000.0
"""Score of a key that a query must not see. Its exp() is exactly 0 beside any real score. It is finite, because a row
of -inf alone would give NaN."""

PIECE_FRAMES = 8
"""Frames in one piece of a state. New frames join the last piece while they fit."""

MANY_SCORES = 96 * 1024
"""From this number of scores in a block of one head on, a separate operation for each head is faster."""

LONGEST_ROW = 2048
"""A query with more keys than this gets no single softmax; the keys are worked through in pieces."""

KEYS_AT_ONCE = 1536
"""Keys in one such piece."""

MAX_KEPT_POSITIONS = 256
"""A packed module keeps its projected positions for the next pass if they are at most this many, as in a stream."""

_Multiply = Callable[..., Tensor]


class AttentionState(NamedTuple):
    """The past of one attention layer: its last K keys and values, in pieces.

    Two states in a row share most of their pieces, so that a step copies one piece and not the whole past. A layer
    joins the pieces only while it computes.
    """

    pieces_BKC: tuple[Tensor, ...]
    """Oldest first. Each frame holds its keys, head by head, and then its values."""

    def after(self, new_BTC: Tensor) -> AttentionState:
        """The state after T new frames: as long as this one, without its T oldest frames. This one is unchanged."""
        pieces, T = list(self.pieces_BKC), new_BTC.shape[1]
        # Very short pieces would make joining them slow.
        if pieces and pieces[-1].shape[1] + T <= PIECE_FRAMES:
            pieces[-1] = torch.cat((pieces[-1], new_BTC), dim=1)
        else:
            pieces.append(new_BTC.clone())  # a view would keep the layer's queries in memory too
        forgotten = T  # frames that still have to be dropped
        while forgotten and forgotten >= pieces[0].shape[1]:
            forgotten -= pieces.pop(0).shape[1]
        if forgotten:
            pieces[0] = pieces[0][:, forgotten:]
        return AttentionState(tuple(pieces))


class _Seen(NamedTuple):
    """The keys and values of one block of queries, its projected distances and its mask."""

    keys_nSE: Tensor
    values_nSE: Tensor
    positions_mRE: Tensor
    """Projected distances, the newest first."""
    allowed: Tensor | None
    """Which keys each query may see: bool [B or 1, w or 1, S]. None: all."""

    def of_head(self, head: int, item: int, items: int) -> _Seen:
        """The part that one head of one of `items` items needs."""
        n, allowed = head * items + item, self.allowed
        if allowed is not None and len(allowed) > 1:
            allowed = allowed[item : item + 1]
        return _Seen(self.keys_nSE[n : n + 1], self.values_nSE[n : n + 1], self.positions_mRE[head : head + 1], allowed)


class _GlobalColumns(NamedTuple):
    """The global tokens of a pass with attention of style "local"."""

    at: Tensor
    """Their frames, int64 [G]."""
    plain_nTE: Tensor
    """All queries, scaled, without the biases u and v."""
    keys_nGE: Tensor
    values_nGE: Tensor


def relative_positions(newest: int, oldest: int, width: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Sinusoids of the distances newest, newest - 1, ..., oldest: [newest - oldest + 1, width].

    The row of distance r holds sin(r w_i) in column 2i and cos(r w_i) in column 2i + 1, where w_i = 10000^(-2i /
    width). The result must not be written to: every layer gets the same tensor.
    """
    # The table of a long recording takes megabytes: too much to keep for a pass that may never come.
    if newest - oldest > 8192:
        return _sinusoids(newest, oldest, width, device, dtype)
    return _kept_sinusoids(newest, oldest, width, device, dtype)


def _sinusoids(newest: int, oldest: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # training may use the kept tensor later, and takes no inference tensors
        distance = torch.arange(newest, oldest - 1, -1, device=device, dtype=torch.float32)
        steps = torch.arange(0, width, 2, device=device, dtype=torch.float32)
        angle = distance[:, None] * torch.exp(steps * (-math.log(10000.0) / width))
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).to(dtype)


_kept_sinusoids = lru_cache(maxsize=8)(_sinusoids)


class RelativeAttention(Packable):
    """Attention with scores that also depend on the distance between query and key.

    score(i, j) = ((q_i + u) . k_j + (q_i + v) . P(i - j)) / sqrt(E). The biases u and v (`bias_u`, `bias_v`) are
    learned, and P projects sinusoids of the distance. Queries and keys share one time axis: query T - 1 and key S - 1
    are at the same time. With source = x this is self-attention, otherwise cross-attention.

    The queries are computed in the blocks of a `Sight`, each block with the keys that it may see. Memory grows linearly
    with the length. Time grows linearly too if the context is limited on both sides.

    width: D, a multiple of heads.
    heads: N.
    dropout: share of the attention weights that training sets to zero.
    use_bias: whether queries, keys, values and output have biases.
    global_projections: the global tokens of attention of style "local" have projections of their own.
    self_attention: the source is always x. Packed weights then give queries, keys and values in one product.

    Raises ValueError if heads does not divide width.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        dropout: float = 0.0,
        use_bias: bool = True,
        global_projections: bool = False,
        self_attention: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"attention width: got {width}, expected a multiple of the {heads} heads")
        self.width, self.heads, self.head_width = width, heads, width // heads
        self.scale = 1.0 / math.sqrt(self.head_width)
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
        self.global_projections, self.self_attention = global_projections, self_attention
        self._packed = False
        self._to_all: PackedWeight | None = None
        self._kept_positions: tuple[tuple[int, int, AttentionContext], Tensor] | None = None
        self._kept_biases: tuple[Tensor, Tensor] | None = None

    def pack(self, dtype: torch.dtype) -> None:
        if self.self_attention and not self._packed:
            self._to_all = pack_as_one((self.to_query, self.to_key, self.to_value), dtype)
        # Training may follow after `unpack`, and takes no tensors made in inference mode.
        with torch.inference_mode(False), torch.no_grad():
            self._kept_biases = self._scaled_biases()
        self._packed = True

    def unpack(self) -> None:
        self._packed, self._to_all, self._kept_positions, self._kept_biases = False, None, None, None

    def initial_state(
        self, batch_size: int, context: AttentionContext, device: torch.device, dtype: torch.dtype
    ) -> AttentionState:
        """The state before a stream: a past of `context.left` frames of zeros.

        Raises ValueError if the context cannot stream.
        """
        if not context.streamable:
            raise ValueError(
                f"attention context {context} cannot stream: expected a bounded left and no open right side"
            )
        # All pieces may be the same tensor, because no state is ever written to.
        zeros_BKC = torch.zeros(batch_size, PIECE_FRAMES, 2 * self.width, device=device, dtype=dtype)
        whole, rest = divmod(context.left, PIECE_FRAMES)
        return AttentionState((zeros_BKC[:, :rest],) * (rest > 0) + (zeros_BKC,) * whole)

    def forward(
        self, x_BTD: Tensor, source_BTD: Tensor, sight: Sight, state: AttentionState | None = None
    ) -> tuple[Tensor, AttentionState | None]:
        """The attention output [B, T, D] of each frame of x, and the next state (None if `state` is None).

        The output of a frame that may see no key is finite but meaningless.

        x_BTD: gives the queries.
        source_BTD: gives the keys and values.
        sight: which keys each query may see.
        state: keys and values before the source, for a stream.

        Raises ValueError if the state is not as long as the sight says, and for global tokens in cross-attention or in
        a stream.
        """
        B, T, D = x_BTD.shape
        N, E = self.heads, self.head_width
        # One packed product gives queries, keys and values, which lie side by side as the state holds them.
        if self._to_all is not None and source_BTD is x_BTD:
            all_BTC = self._to_all(x_BTD)
            query_BTD, keys_values_BSC = all_BTC[..., :D], all_BTC[..., D:]
        else:
            query_BTD = self.to_query(x_BTD)
            keys_values_BSC = torch.cat((self.to_key(source_BTD), self.to_value(source_BTD)), dim=-1)
        next_state = None
        if state is not None:
            # Keys and values, not inputs: otherwise each step would project the whole past again.
            next_state = state.after(keys_values_BSC)
            keys_values_BSC = torch.cat((*state.pieces_BKC, keys_values_BSC), dim=1)
        S = keys_values_BSC.shape[1]
        if S != sight.num_keys:
            raise ValueError(f"attention: got {S} keys, expected {sight.num_keys}: the state is of another context")

        # Heads in front of items: then one product with the positions of a head serves all items.
        query_NBTE = query_BTD.view(B, T, N, E).permute(2, 0, 1, 3)
        keys_values_nSE = keys_values_BSC.view(B, S, 2 * N, E).permute(2, 0, 1, 3).flatten(0, 1)  # n: heads and items
        positions_NRE = self._positions(sight, x_BTD.dtype)
        columns = None
        if sight.context.global_tokens:
            if source_BTD is not x_BTD or state is not None:
                raise ValueError("global tokens: expected self-attention without a state")
            columns = self._global_columns(x_BTD, query_NBTE, keys_values_nSE, sight.context)
        # One head at a time, many scores stay in the processor's cache and take little memory.
        by_head = sight.block_scores >= MANY_SCORES and x_BTD.device.type == "cpu"
        by_head = by_head and columns is None and not torch.is_grad_enabled()
        if by_head or not sight.one_block:  # several blocks or heads read them, so one copy in order pays
            keys_values_nSE, positions_NRE = keys_values_nSE.contiguous(), positions_NRE.contiguous()
        keys_nSE, values_nSE = keys_values_nSE[: N * B], keys_values_nSE[N * B :]
        bias_u_N11E, bias_v_N11E = self._scaled_biases()
        pieces, gathered_NBTE = [], None
        for block in sight.blocks():
            w = block.queries.stop - block.queries.start
            query_NBwE, seen = query_NBTE, _Seen(keys_nSE, values_nSE, positions_NRE, block.allowed)
            if w < T:
                query_NBwE, keys, rows = query_NBTE[:, :, block.queries], block.keys, block.rows
                seen = _Seen(keys_nSE[:, keys], values_nSE[:, keys], positions_NRE[:, rows], block.allowed)
            content_nwE = torch.add(bias_u_N11E, query_NBwE, alpha=self.scale).flatten(0, 1)
            distance_NvE = torch.add(bias_v_N11E, query_NBwE, alpha=self.scale).flatten(1, 2)  # v: items and queries
            # Without gradients the blocks are written into one tensor, which spares joining them later.
            if gathered_NBTE is None and not torch.is_grad_enabled() and (w < T or by_head):
                gathered_NBTE = content_nwE.new_empty(B, T, N, E).permute(2, 0, 1, 3)
            if by_head and gathered_NBTE is not None:
                for n in range(N * B):
                    head, item = divmod(n, B)
                    distance_1wE = distance_NvE[head : head + 1, item * w : (item + 1) * w]
                    head_seen = seen.of_head(head, item, B)
                    piece_1wE = self._attend(content_nwE[n : n + 1], distance_1wE, head_seen, by_head)
                    gathered_NBTE[head, item, block.queries] = piece_1wE[0]
                continue
            part = None if columns is None else columns._replace(plain_nTE=columns.plain_nTE[:, block.queries])
            piece_NBwE = self._attend(content_nwE, distance_NvE, seen, by_head, part).view(N, B, w, E)
            if gathered_NBTE is None:
                pieces.append(piece_NBwE)
            else:
                gathered_NBTE[:, :, block.queries] = piece_NBwE
        if gathered_NBTE is None:
            gathered_NBTE = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)
        if columns is not None:
            gathered_NBTE = self._gather_globally(gathered_NBTE, x_BTD, keys_values_nSE, columns, sight)
        return self.to_output(gathered_NBTE.permute(1, 2, 0, 3).flatten(2)), next_state

    def _attend(
        self,
        content_nwE: Tensor,
        distance_mvE: Tensor,
        seen: _Seen,
        by_head: bool,
        columns: _GlobalColumns | None = None,
    ) -> Tensor:
        """The attention output [n, w, E] of one block of queries.

        content_nwE: the queries with the bias u, for the keys.
        distance_mvE: the same queries with the bias v, for the positions.
        seen: keys, values, positions and mask.
        by_head: whether these are the queries of one head of one item.
        columns: the global tokens, with the plain queries of this block.
        """
        # For the many scores of one head oneDNN's product is twice as fast as torch's batched one.
        multiply = product if by_head and self._packed else _products
        n, w, S = len(content_nwE), content_nwE.shape[1], seen.keys_nSE.shape[1]
        if by_head and S > LONGEST_ROW:
            return _attend_piecewise(content_nwE, distance_mvE, seen, multiply)
        distance_nwR = multiply(distance_mvE, seen.positions_mRE.transpose(1, 2)).view(n, w, -1)
        if w > 1:
            # Query i finds the distance to key j in column w - 1 - i + j. If the flattened rows are read as rows that
            # are one element shorter, row i is shifted by i: the re-indexing is a view and copies nothing.
            R = distance_nwR.shape[2]
            distance_nwR = distance_nwR.flatten(1)[:, w - 1 : w - 1 + w * (R - 1)].unflatten(1, (w, R - 1))[..., :S]
        scores_nwS = multiply(content_nwE, seen.keys_nSE.transpose(1, 2), distance_nwR)
        if seen.allowed is not None:
            # Heads vary slowest in n, so one mask of the items serves every head.
            items = max(1, n // self.heads)
            scores_nwS = scores_nwS.unflatten(0, (-1, items)).masked_fill(~seen.allowed, MASKED_SCORE).flatten(0, 1)
        values_nSE = seen.values_nSE
        if columns is not None:
            # One softmax for the global tokens and the nearby keys, as in the published models. A global token that is
            # also a nearby key counts twice.
            scores_nwS = torch.cat((columns.plain_nTE @ columns.keys_nGE.transpose(1, 2), scores_nwS), dim=-1)
            values_nSE = torch.cat((columns.values_nGE, values_nSE), dim=1)
        weights_nwS = scores_nwS.softmax(dim=-1).to(values_nSE.dtype)
        if self.training:  # else the call alone would cost time
            weights_nwS = F.dropout(weights_nwS, self.dropout)
        return multiply(weights_nwS, values_nSE)

    def _scaled_biases(self) -> tuple[Tensor, Tensor]:
        """The biases u and v divided by sqrt(E), each [N, 1, 1, E]."""
        if self._kept_biases is not None:
            return self._kept_biases
        return (self.bias_u * self.scale)[:, None, None], (self.bias_v * self.scale)[:, None, None]

    def _positions(self, sight: Sight, dtype: torch.dtype) -> Tensor:
        """The projected sinusoids of all distances in the sight, [N, R, E], the newest first."""
        key = (sight.newest, sight.oldest, sight.context)
        if self._kept_positions is not None and self._kept_positions[0] == key:
            return self._kept_positions[1]
        context, device = sight.context, self.bias_u.device
        if context.style == "local" and context.left != context.right:  # see _crooked_positions
            positions_RD = self._crooked_positions(sight, dtype)
        else:
            positions_RD = relative_positions(sight.newest, sight.oldest, self.width, device=device, dtype=dtype)
        positions_NRE = self.to_position(positions_RD).unflatten(-1, (self.heads, self.head_width)).transpose(0, 1)
        # The steps of a stream need the same positions every time. Packed weights cannot change in between.
        if self._packed and positions_NRE.shape[1] <= MAX_KEPT_POSITIONS:
            positions_NRE = positions_NRE.contiguous()
            self._kept_positions = (key, positions_NRE)
        return positions_NRE

    def _crooked_positions(self, sight: Sight, dtype: torch.dtype) -> Tensor:
        """Sinusoids [R, D] for a local context with unequal sides, in the order that the published models learned.

        Their training code misplaced the terms: between the far left and the near right columns of the band they are
        zero, and the terms to the right are shifted. The weights fit these sinusoids and no others.
        """
        left, right = sight.context.left, sight.context.right
        widest = max(left, right)
        table_CD = relative_positions(left, -right, self.width, device=self.bias_u.device, dtype=dtype)
        column_R = widest - torch.arange(sight.newest, sight.oldest - 1, -1, device=self.bias_u.device)
        is_far_left, is_right = (column_R >= 0) & (column_R < left), column_R >= 2 * widest - right
        row_R = torch.where(is_far_left, column_R, column_R - 2 * widest + right + left).clamp(0, left + right)
        is_known = is_far_left | (is_right & (column_R <= 2 * widest))
        return table_CD[row_R] * is_known[:, None]

    def _global_columns(
        self, x_BTD: Tensor, query_NBTE: Tensor, keys_values_nSE: Tensor, context: AttentionContext
    ) -> _GlobalColumns:
        """The global tokens of this pass.

        The published models pad time to a multiple of twice the wider side of the context. A global token may lie in
        that padding. Its keys and values are zero then, but it still takes its share of the softmax.
        """
        T, n = x_BTD.shape[1], len(keys_values_nSE) // 2
        filled = T + -T % (2 * max(context.left, context.right))
        at = torch.arange(context.global_tokens, device=x_BTD.device) * context.global_spacing
        at = at[at < filled]
        keys_nTE, values_nTE = keys_values_nSE[:n], keys_values_nSE[n:]
        if self.global_projections:
            query_NBTE, keys_nTE = (
                self._heads(self.to_global_query(x_BTD)),
                self._heads(self.to_global_key(x_BTD)).flatten(0, 1),
            )
        inside_G1 = (at < T)[:, None]
        keys_nGE, values_nGE = (source[:, at.clamp(max=T - 1)] * inside_G1 for source in (keys_nTE, values_nTE))
        return _GlobalColumns(at, query_NBTE.flatten(0, 1) * self.scale, keys_nGE, values_nGE)

    def _gather_globally(
        self, gathered_NBTE: Tensor, x_BTD: Tensor, keys_values_nSE: Tensor, columns: _GlobalColumns, sight: Sight
    ) -> Tensor:
        """`gathered_NBTE` with the outputs of the global tokens replaced: they see every real frame.

        With several global tokens the published models confuse tokens, heads and items here, so that results depend on
        the batch. Their weights were trained that way, so this does the same.
        """
        (N, B, T, E), at = gathered_NBTE.shape, columns.at
        keys_NBSE, values_NBSE = keys_values_nSE.unflatten(0, (2 * N, B)).split(N)
        if self.global_projections:
            keys_NBSE = self._heads(self.to_global_key(x_BTD))
            values_NBSE = self._heads(self.to_global_value(x_BTD))
        query_NBGE = columns.plain_nTE.unflatten(0, (N, B))[:, :, at.clamp(max=T - 1)] * (at < T)[:, None]
        query_BNGE = query_NBGE.permute(2, 1, 0, 3).reshape(B, N, len(at), E)
        scores_BNGT = query_BNGE @ keys_NBSE.permute(1, 0, 3, 2)
        if sight.valid_BS is not None:
            scores_BNGT = scores_BNGT.masked_fill(~sight.valid_BS[:, None, None], MASKED_SCORE)
        weights_BNGT = F.dropout(scores_BNGT.softmax(dim=-1), self.dropout, self.training)
        rows_NBGE = weights_BNGT.transpose(0, 1) @ values_NBSE
        return gathered_NBTE.index_copy(2, at[at < T], rows_NBGE[:, :, at < T])

    def _heads(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] -> [N, B, T, E]."""
        return x_BTD.unflatten(-1, (self.heads, self.head_width)).permute(2, 0, 1, 3)


def _attend_piecewise(content_1wE: Tensor, distance_1wE: Tensor, seen: _Seen, multiply: _Multiply) -> Tensor:
    """The attention output [1, w, E] of one head's block of queries, a piece of the keys at a time.

    The scores of very many keys would not stay in the processor's cache. The greatest score and the sum of the weights
    so far are carried from piece to piece; the result equals one softmax over all keys, within rounding (Milakov and
    Gimelshein, arXiv 1805.02867, section 3.1).
    """
    w, S = content_1wE.shape[1], seen.keys_nSE.shape[1]
    greatest_1w1 = content_1wE.new_full((1, w, 1), -math.inf)
    total_1w1 = content_1wE.new_zeros(1, w, 1)
    gathered_1wE = torch.zeros_like(content_1wE)
    for first in range(0, S, KEYS_AT_ONCE):
        s = min(KEYS_AT_ONCE, S - first)
        positions_1RE = seen.positions_mRE[:, first : first + w - 1 + s]  # the distances to these keys
        scores_1ws = multiply(distance_1wE, positions_1RE.transpose(1, 2))
        if w > 1:  # shift row i by i, as in `_attend`
            R = scores_1ws.shape[2]
            scores_1ws = scores_1ws.flatten(1)[:, w - 1 : w - 1 + w * (R - 1)].unflatten(1, (w, R - 1))[..., :s]
        scores_1ws = multiply(content_1wE, seen.keys_nSE[:, first : first + s].transpose(1, 2), scores_1ws)
        if seen.allowed is not None:
            scores_1ws = scores_1ws.masked_fill(~seen.allowed[..., first : first + s], MASKED_SCORE)
        before_1w1 = greatest_1w1
        greatest_1w1 = torch.maximum(before_1w1, scores_1ws.amax(dim=-1, keepdim=True))
        weights_1ws = scores_1ws.sub_(greatest_1w1).exp_()
        # Earlier weights were relative to a smaller maximum.
        fading_1w1 = (before_1w1 - greatest_1w1).exp_()
        total_1w1 = total_1w1 * fading_1w1 + weights_1ws.sum(dim=-1, keepdim=True)
        gathered_1wE = multiply(weights_1ws, seen.values_nSE[:, first : first + s], gathered_1wE * fading_1w1)
    return gathered_1wE / total_1w1


def _products(a_nXY: Tensor, b_nYZ: Tensor, plus_nXZ: Tensor | None = None) -> Tensor:
    """a @ b + plus for batches of matrices."""
    return torch.bmm(a_nXY, b_nYZ) if plus_nXZ is None else torch.baddbmm(plus_nXZ, a_nXY, b_nYZ)
