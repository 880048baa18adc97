"""Which frames are real, and which frames may look at which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


def valid_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """True on the frames before each length: lengths [B] -> bool [B, num_frames]."""
    return torch.arange(num_frames, device=lengths.device)[None, :] < lengths[:, None]


@dataclass(frozen=True, kw_only=True)
class AttentionContext:
    """How far one frame may look, in frames.

    style "regular": from `left` frames before to `right` frames after itself; -1 is without limit.
    style "chunked": time is cut into chunks of `right + 1` frames; a frame sees its whole chunk and the `left` frames
    (a multiple of the chunk) before it; left -1 is all of the past. (Noroozi et al., arXiv 2312.17279, section 3.)
    """

    style: Literal["regular", "chunked"] = "regular"
    left: int = -1
    right: int = -1

    def __post_init__(self) -> None:
        if self.left < -1 or self.right < -1:
            raise ValueError(f"attention context: got left {self.left}, right {self.right}, expected -1 or more")
        if self.style == "chunked":
            if self.right < 0:
                raise ValueError("chunked attention: got right -1, expected 0 or more (the chunk is right + 1 frames)")
            if self.left > 0 and self.left % (self.right + 1):
                raise ValueError(f"chunked attention: got left {self.left}, expected a multiple of {self.right + 1}")
        elif self.style != "regular":
            raise ValueError(f"attention style: got {self.style!r}, expected 'regular' or 'chunked'")

    @property
    def unlimited(self) -> bool:
        return self.style == "regular" and self.left < 0 and self.right < 0

    @property
    def streamable(self) -> bool:
        """True when chunk after chunk with a finite cache can equal the whole pass."""
        return self.left >= 0 and (self.style == "chunked" or self.right == 0)

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
