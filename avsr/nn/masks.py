"""Which frames are real, and which frames each frame may attend to.

Shapes: B batch, T queries, w queries of one block, S keys, K cached keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from avsr.nn.context import AttentionContext

BLOCK_SCORES = 384 * 1024
"""Scores (queries times keys) that one head computes at a time. They stay in the processor's cache from the product to
the softmax to the sum, and memory grows with the length of a recording and not with its square."""

MIN_BLOCK_QUERIES = 32
"""Products of fewer queries are slow."""

LONG_BLOCK_QUERIES = 256
"""Queries of a block if BLOCK_SCORES would allow fewer, as for very many keys. The keys then come in pieces."""

MAX_KEPT_MASK = 1 << 24
"""Elements of the masks of a pass, above which they are computed again for each layer and not kept."""


def valid_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """True on the frames before each length: lengths [B] -> bool [B, num_frames]."""
    return torch.arange(num_frames, device=lengths.device)[None, :] < lengths[:, None]


def padding_mask(lengths: Tensor, num_frames: int) -> Tensor | None:
    """`valid_mask`, or None if every frame is real. On a GPU always the mask: to look at it would wait for the GPU."""
    if lengths.device.type == "cpu" and bool((lengths >= num_frames).all()):
        return None
    return valid_mask(lengths, num_frames)


def visible(context: AttentionContext, query_T: Tensor, key_S: Tensor) -> Tensor:
    """Whether each query may see each key: bool [..., T, S]. Global tokens are not included.

    query_T, key_S: frame numbers, int64 [..., T] and [..., S].
    """
    query, key = query_T[..., :, None], key_S[..., None, :]
    if context.style == "chunked":
        chunk = context.right + 1
        # Rounded towards minus infinity: frames of a stream's past have negative numbers.
        behind = torch.div(query, chunk, rounding_mode="floor") - torch.div(key, chunk, rounding_mode="floor")
        seen = behind >= 0
        return seen & (behind <= context.left // chunk) if context.left >= 0 else seen
    ago = query - key
    seen = torch.ones_like(ago, dtype=torch.bool)
    if context.left >= 0:
        seen = seen & (ago <= context.left)
    if context.right >= 0:
        seen = seen & (ago >= -context.right)
    return seen


class History(NamedTuple):
    """Which frames of a stream's past were real. All layers that attend to the stream share one."""

    valid_BK: Tensor
    """bool, for the last K frames, oldest first."""
    position_B: Tensor
    """Frames since the beginning of the stream, int64."""


def initial_history(batch_size: int, context: AttentionContext, device: torch.device) -> History:
    """The history before a stream: `context.left` frames, none of them real.

    Raises ValueError if the context cannot stream.
    """
    if not context.streamable:
        raise ValueError(f"attention context {context} cannot stream: expected a bounded left and no open right side")
    return History(
        torch.zeros(batch_size, context.left, dtype=torch.bool, device=device),
        torch.zeros(batch_size, dtype=torch.int64, device=device),
    )


class Block(NamedTuple):
    """Consecutive queries, and the keys that at least one of them may see."""

    queries: slice
    keys: slice
    rows: slice
    """The distances from these queries to these keys, as rows of a table that starts at `Sight.newest` and falls."""
    allowed: Tensor | None
    """Which keys each query may see: bool [B or 1, w or 1, keys]. None: all."""


class Sight:
    """Which keys the queries of one pass may see. It is computed once and used by every layer.

    The last of T queries is at the time of the last of S keys. The first S - T keys come from a stream's past. In
    `valid_BS` real keys are True; None: all are real. The distances from a query to a key lie between `newest` (the
    key is that far in the past) and `oldest` (negative: in the future).
    """

    def __init__(
        self,
        context: AttentionContext,
        num_queries: int,
        valid_BT: Tensor | None = None,
        history: History | None = None,
    ) -> None:
        """The sight of `num_queries` frames.

        context: how far attention reaches.
        num_queries: T.
        valid_BT: which of the T frames are real; None: all.
        history: the past of a stream. Raises ValueError if it belongs to another context.
        """
        past = 0
        self.context, self.valid_BS, self._position_B = context, valid_BT, None
        if history is not None:
            past = history.valid_BK.shape[1]
            # Caches of another length would shift every distance without any error.
            if past != context.left or not context.streamable:
                raise ValueError(f"attention state: got {past} frames of past, which is not what {context} needs")
            if valid_BT is None:
                valid_BT = history.valid_BK.new_ones(len(history.valid_BK), num_queries)
            self.valid_BS = torch.cat((history.valid_BK, valid_BT), dim=1)
            self._position_B = history.position_B
        self.num_queries, self.num_keys = num_queries, past + num_queries
        self._next = None
        if history is not None:
            assert self.valid_BS is not None
            self._next = History(self.valid_BS[:, num_queries:], history.position_B + num_queries)
        # No mask costs less than a mask that is True everywhere. On a GPU, looking at it would wait for the GPU.
        if self.valid_BS is not None and self.valid_BS.device.type == "cpu" and bool(self.valid_BS.all()):
            self.valid_BS = None
        back, ahead = context.back, context.ahead
        if back is None or ahead is None:  # each block reads almost all keys: bound its number of scores
            keys = max(1, self.num_keys)
            size = max(BLOCK_SCORES // keys, LONG_BLOCK_QUERIES)
        else:  # each block reads back + ahead keys more than it has queries; about half as many queries waste little
            size = max(MIN_BLOCK_QUERIES, (back + ahead) // 2)
        self._block_size = max(1, min(size, num_queries))
        reach_back = self.num_keys - 1 if back is None else min(self.num_keys - 1, self._block_size - 1 + back)
        reach_ahead = num_queries - 1 if ahead is None else min(num_queries - 1, self._block_size - 1 + ahead)
        self.newest, self.oldest = reach_back, -reach_ahead
        self.one_block = self._block_size >= num_queries
        # The most scores of one head in one block.
        self.block_scores = self._block_size * min(self.num_keys, self._block_size + reach_back + reach_ahead)
        self._masks: dict[int, Tensor | None] = {}

    def next_history(self) -> History:
        """The history after this pass. May be called only if a history was given."""
        assert self._next is not None
        return self._next

    def blocks(self) -> Iterator[Block]:
        """The queries, block after block. Masks are kept for the next layer unless they are very large."""
        T, S = self.num_queries, self.num_keys
        back, ahead = self.context.back, self.context.ahead
        for first in range(0, T, self._block_size):
            last = min(first + self._block_size, T) - 1
            # Numbers of the block's first and last query on the axis of the keys.
            at_first, at_last = S - T + first, S - T + last
            start = 0 if back is None else max(0, at_first - back)
            stop = S if ahead is None else min(S, at_last + 1 + ahead)
            # The last query is furthest from the first key: its distance is the newest row that the block needs.
            top = self.newest - (at_last - start)
            rows = slice(top, top + last - first + stop - start)
            queries, keys = slice(first, last + 1), slice(start, stop)
            if first not in self._masks:
                mask = self._mask(queries, keys)
                # The mask of a limited context grows with the length only, so it is always kept.
                if mask is not None and S * T > MAX_KEPT_MASK and (back is None or ahead is None):
                    yield Block(queries, keys, rows, mask)
                    continue
                self._masks[first] = mask
            yield Block(queries, keys, rows, self._masks[first])

    def _mask(self, queries: slice, keys: slice) -> Tensor | None:
        """`Block.allowed` of these queries and keys."""
        allowed = None if self.valid_BS is None else self.valid_BS[:, None, keys]
        if not self.context.unlimited:
            device = None if self.valid_BS is None else self.valid_BS.device
            past = self.num_keys - self.num_queries
            query_T = torch.arange(queries.start, queries.stop, device=device)
            key_S = torch.arange(keys.start - past, keys.stop - past, device=device)
            if self._position_B is None:  # one pass: every item starts at frame 0
                seen = visible(self.context, query_T, key_S)[None]
            else:  # the borders of the chunks depend on how far each stream is
                position_B1 = self._position_B[:, None]
                seen = visible(self.context, position_B1 + query_T, position_B1 + key_S)
            allowed = seen if allowed is None else allowed & seen
        if allowed is not None and allowed.device.type == "cpu" and bool(allowed.all()):
            return None
        return allowed

    def seen(self) -> Tensor | None:
        """Whether each query sees a real key at all: bool [B, T]. None: every query does."""
        blocks = list(self.blocks())
        if all(block.allowed is None for block in blocks):
            return None
        batch = max(len(block.allowed) for block in blocks if block.allowed is not None)
        parts = []
        for block in blocks:
            w = block.queries.stop - block.queries.start
            if block.allowed is None:
                device = next(other.allowed.device for other in blocks if other.allowed is not None)
                parts.append(torch.ones(batch, w, dtype=torch.bool, device=device))
            else:
                parts.append(block.allowed.any(dim=-1).expand(batch, w))
        return torch.cat(parts, dim=1)
