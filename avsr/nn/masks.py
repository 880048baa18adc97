"""Which frames are real, and which frames may look at which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

# Scores of one head at a time, queries times keys: few enough to stay in the processor's cache between the product, the
# softmax and the sum, and to bound the memory by the length of a recording and not its square.
BLOCK_SCORES = 384 * 1024
MIN_BLOCK_QUERIES = 32  # fewer make slow products, ...
LONG_BLOCK_QUERIES = 256  # ... and where there are very many keys, so that they are worked through in pieces, these do
MAX_KEPT_MASK = 1 << 24  # elements


def valid_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """True on the frames before each length: lengths [B] -> bool [B, num_frames]."""
    return torch.arange(num_frames, device=lengths.device)[None, :] < lengths[:, None]


def padding_mask(lengths: Tensor, num_frames: int) -> Tensor | None:
    """As `valid_mask`, or None where every frame is real and there is nothing to mask; told on the CPU only, where
    looking costs no wait."""
    if lengths.device.type == "cpu" and bool((lengths >= num_frames).all()):
        return None
    return valid_mask(lengths, num_frames)


@dataclass(frozen=True, kw_only=True)
class AttentionContext:
    """How far one frame may look, in frames.

    style "regular": from `left` frames before to `right` frames after itself; -1 is without limit.
    style "chunked": time is cut into chunks of `right + 1` frames; a frame sees its whole chunk and the `left` frames
    (a multiple of the chunk) before it; left -1 is all of the past. (Noroozi et al., arXiv 2312.17279, section 3.)
    style "local": as "regular", both sides limited, computed in blocks so that cost and memory grow with time and not
    with its square. The first `global_tokens` of the frames 0, `global_spacing`, 2 `global_spacing`, ... see and are
    seen by all. (Rekesh et al., arXiv 2305.05084, section 2.3; Beltagy et al., arXiv 2004.05150.)
    """

    style: Literal["regular", "chunked", "local"] = "regular"
    left: int = -1
    right: int = -1
    global_tokens: int = 0
    global_spacing: int = 1

    def __post_init__(self) -> None:
        if self.left < -1 or self.right < -1:
            raise ValueError(f"attention context: got left {self.left}, right {self.right}, expected -1 or more")
        if self.style == "chunked":
            if self.right < 0:
                raise ValueError("chunked attention: got right -1, expected 0 or more (the chunk is right + 1 frames)")
            if self.left > 0 and self.left % (self.right + 1):
                raise ValueError(f"chunked attention: got left {self.left}, expected a multiple of {self.right + 1}")
        elif self.style == "local":
            if min(self.left, self.right) < 0 or max(self.left, self.right) < 1:
                raise ValueError(f"local attention: got left {self.left}, right {self.right}, expected a limit on both")
        elif self.style != "regular":
            raise ValueError(f"attention style: got {self.style!r}, expected 'regular', 'chunked' or 'local'")
        if self.global_tokens < 0 or self.global_spacing < 1 or (self.global_tokens and self.style != "local"):
            raise ValueError(
                f"global tokens: got {self.global_tokens} every {self.global_spacing} frames, style {self.style!r}, "
                "expected none, or some with style 'local'"
            )

    @property
    def unlimited(self) -> bool:
        return self.style == "regular" and self.left < 0 and self.right < 0

    @property
    def back(self) -> int | None:
        """How many frames before itself a frame sees at most; None is without limit."""
        if self.left < 0:
            return None
        return self.left + self.right if self.style == "chunked" else self.left

    @property
    def ahead(self) -> int | None:
        """How many frames after itself a frame sees at most; None is without limit."""
        return None if self.right < 0 else self.right

    @property
    def chunk(self) -> int | None:
        """Frames of a chunk; None where time is not cut into chunks."""
        return self.right + 1 if self.style == "chunked" else None

    @property
    def streamable(self) -> bool:
        """True when chunk after chunk with a finite cache can equal the whole pass."""
        return self.left >= 0 and (self.style == "chunked" or (self.style == "regular" and self.right == 0))

    def finer(self, times: int) -> AttentionContext:
        """The same stretches of time in frames that are `times` shorter."""
        left, right = (side if side < 0 else side * times for side in (self.left, self.right))
        if self.style == "chunked":
            right = (self.right + 1) * times - 1
        return replace(self, left=left, right=right, global_spacing=self.global_spacing * times)

    def visible(self, query_T: Tensor, key_S: Tensor) -> Tensor:
        """bool [..., T, S]: may the frame at position query (int64 [..., T]) see the one at key (int64 [..., S])?"""
        query, key = query_T[..., :, None], key_S[..., None, :]
        if self.style == "chunked":
            chunk = self.right + 1
            behind = torch.div(query, chunk, rounding_mode="floor") - torch.div(key, chunk, rounding_mode="floor")
            seen = behind >= 0
            return seen & (behind <= self.left // chunk) if self.left >= 0 else seen
        ago = query - key
        seen = torch.ones_like(ago, dtype=torch.bool)
        if self.left >= 0:
            seen = seen & (ago <= self.left)
        if self.right >= 0:
            seen = seen & (ago >= -self.right)
        return seen


class History(NamedTuple):
    """Which frames of a stream's past were real, for all layers that attend to it.

    valid_BK: of the last K frames, oldest first. position_B: frames seen so far (int64).
    """

    valid_BK: Tensor
    position_B: Tensor


def initial_history(batch_size: int, context: AttentionContext, device: torch.device) -> History:
    """An empty past of `context.left` frames. Raises ValueError when the context cannot stream."""
    if not context.streamable:
        raise ValueError(f"attention context {context} cannot stream: expected a bounded left and no open right side")
    return History(
        torch.zeros(batch_size, context.left, dtype=torch.bool, device=device),
        torch.zeros(batch_size, dtype=torch.int64, device=device),
    )


class Block(NamedTuple):
    """Some queries and the keys that they may see at most.

    queries, keys: slices of both time axes. rows: slice of the distances that occur, row r being `Sight.newest` - r.
    allowed: bool [B or 1, w or 1, keys], None where all may be seen.
    """

    queries: slice
    keys: slice
    rows: slice
    allowed: Tensor | None


class Sight:
    """What the queries of one pass may see, worked out once for all layers.

    The last of T queries is at the time of the last of S keys, S - T of which come from a past. valid_BS: which keys
    are real, None for all. The distances from query to key that occur lie between `newest` and `oldest`.
    """

    def __init__(
        self,
        context: AttentionContext,
        num_queries: int,
        valid_BT: Tensor | None = None,
        history: History | None = None,
    ) -> None:
        """valid_BT: of the frames that come with the queries. Raises ValueError for a past of another context."""
        past = 0
        self.context, self.valid_BS, self._position_B = context, valid_BT, None
        if history is not None:
            past = history.valid_BK.shape[1]
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
        if self.valid_BS is not None and self.valid_BS.device.type == "cpu" and bool(self.valid_BS.all()):
            self.valid_BS = None
        back, ahead = context.back, context.ahead
        if back is None or ahead is None:
            keys = max(1, self.num_keys)
            size = max(BLOCK_SCORES // keys, LONG_BLOCK_QUERIES)
        else:
            size = max(MIN_BLOCK_QUERIES, (back + ahead) // 2)
        self._block_size = max(1, min(size, num_queries))
        reach_back = self.num_keys - 1 if back is None else min(self.num_keys - 1, self._block_size - 1 + back)
        reach_ahead = num_queries - 1 if ahead is None else min(num_queries - 1, self._block_size - 1 + ahead)
        self.newest, self.oldest = reach_back, -reach_ahead
        self.one_block = self._block_size >= num_queries
        # Of one head in one block, at most.
        self.block_scores = self._block_size * min(self.num_keys, self._block_size + reach_back + reach_ahead)
        self._masks: dict[int, Tensor | None] = {}

    def next_history(self) -> History:
        """What to remember after this pass. Only where a history was given."""
        assert self._next is not None
        return self._next

    def blocks(self) -> Iterator[Block]:
        """The queries in order. Masks are kept for the next layer unless they are very large."""
        T, S = self.num_queries, self.num_keys
        back, ahead = self.context.back, self.context.ahead
        for first in range(0, T, self._block_size):
            last = min(first + self._block_size, T) - 1
            at_first, at_last = S - T + first, S - T + last
            start = 0 if back is None else max(0, at_first - back)
            stop = S if ahead is None else min(S, at_last + 1 + ahead)
            top = self.newest - (at_last - start)
            rows = slice(top, top + last - first + stop - start)
            queries, keys = slice(first, last + 1), slice(start, stop)
            if first not in self._masks:
                mask = self._mask(queries, keys)
                if mask is not None and S * T > MAX_KEPT_MASK and (back is None or ahead is None):
                    yield Block(queries, keys, rows, mask)
                    continue
                self._masks[first] = mask
            yield Block(queries, keys, rows, self._masks[first])

    def _mask(self, queries: slice, keys: slice) -> Tensor | None:
        allowed = None if self.valid_BS is None else self.valid_BS[:, None, keys]
        if not self.context.unlimited:
            device = None if self.valid_BS is None else self.valid_BS.device
            past = self.num_keys - self.num_queries
            query_T = torch.arange(queries.start, queries.stop, device=device)
            key_S = torch.arange(keys.start - past, keys.stop - past, device=device)
            if self._position_B is None:
                visible = self.context.visible(query_T, key_S)[None]
            else:
                position_B1 = self._position_B[:, None]
                visible = self.context.visible(position_B1 + query_T, position_B1 + key_S)
            allowed = visible if allowed is None else allowed & visible
        if allowed is not None and allowed.device.type == "cpu" and bool(allowed.all()):
            return None
        return allowed

    def seen(self) -> Tensor | None:
        """bool [B, T]: False where a query sees no key at all; None where none can be."""
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
