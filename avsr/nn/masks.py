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
    def streamable(self) -> bool:
        """True when chunk after chunk with a finite cache can equal the whole pass."""
        return self.left >= 0 and (self.style == "chunked" or (self.style == "regular" and self.right == 0))

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
