"""How far attention reaches from one frame.

This module does not import torch, so that a configuration can be read without building a network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class AttentionContext:
    """How far attention reaches from one frame, in frames. Raises ValueError for limits that the style does not have.

    Style "regular": from `left` frames before the frame to `right` frames after it; -1 is without limit.

    Style "chunked": time is cut into chunks of `right + 1` frames. A frame sees its whole chunk and the `left` frames
    before the chunk, a multiple of the chunk; -1 is the whole past (Noroozi et al., arXiv 2312.17279, section 3).

    Style "local": as "regular", with a limit on both sides, and with global tokens, which see every frame and are seen
    by every frame (Rekesh et al., arXiv 2305.05084, section 2.3; Beltagy et al., arXiv 2004.05150).
    """

    style: Literal["regular", "chunked", "local"] = "regular"
    left: int = -1
    right: int = -1
    global_tokens: int = 0
    """Number of global tokens."""
    global_spacing: int = 1
    """Frames from one global token to the next. The first is frame 0."""

    def __post_init__(self) -> None:
        if self.left < -1 or self.right < -1:
            raise ValueError(f"attention context: got left {self.left}, right {self.right}, expected -1 or more")
        if self.style == "chunked":
            if self.right < 0:
                raise ValueError("chunked attention: got right -1, expected 0 or more (the chunk is right + 1 frames)")
            # Visible chunks are counted whole: with any other number a frame would see less than `left` says.
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
        """Whether every frame sees every other."""
        return self.style == "regular" and self.left < 0 and self.right < 0

    @property
    def back(self) -> int | None:
        """The most frames before itself that a frame sees; None: without limit."""
        if self.left < 0:
            return None
        # The last frame of a chunk also sees the frames of its own chunk.
        return self.left + self.right if self.style == "chunked" else self.left

    @property
    def ahead(self) -> int | None:
        """The most frames after itself that a frame sees; None: without limit."""
        return None if self.right < 0 else self.right

    @property
    def chunk(self) -> int | None:
        """Frames of a chunk; None if time is not cut into chunks."""
        return self.right + 1 if self.style == "chunked" else None

    @property
    def streamable(self) -> bool:
        """Whether a stream with a finite cache gives the results of one pass over the whole."""
        return self.left >= 0 and (self.style == "chunked" or (self.style == "regular" and self.right == 0))

    def finer(self, times: int) -> AttentionContext:
        """The same context in time for frames that are `times` shorter."""
        left, right = (side if side < 0 else side * times for side in (self.left, self.right))
        if self.style == "chunked":
            # The chunk has to become `times` as many frames, and it is one frame longer than `right`.
            right = (self.right + 1) * times - 1
        return replace(self, left=left, right=right, global_spacing=self.global_spacing * times)
