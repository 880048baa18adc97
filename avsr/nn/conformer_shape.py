"""The size of a stack of Conformer blocks.

This module does not import torch, so that a configuration can be read without building a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avsr.nn.sizes import MAX_EXPANSION, MAX_HEADS, MAX_KERNEL, MAX_LAYERS, MAX_WIDTH, check_size


@dataclass(frozen=True, kw_only=True)
class ConformerShape:
    """The numbers that define a stack of Conformer blocks. Raises ValueError if they contradict each other."""

    width: int
    """Channels; even, and a multiple of heads."""
    layers: int
    """Blocks."""
    heads: int
    """Attention heads."""
    expansion: int = 4
    """Inner width of the feed-forward parts, as a multiple of `width`."""
    kernel: int = 9
    """Frames that the depthwise convolution reads."""
    conv_context: Literal["symmetric", "causal", "chunked"] = "symmetric"
    """Which frames the convolution reads. "chunked": symmetric, but with chunked attention nothing behind the chunk."""
    conv_look_ahead: int | None = None
    """How many of the kernel's frames lie in the future. None: what conv_context says."""
    conv_norm: Literal["batch", "layer"] = "layer"
    """Norm of the depthwise convolution's output."""
    use_bias: bool = True
    """Whether the linear and convolution layers have biases."""
    global_projections: bool = False
    """Whether attention has projections of its own for global tokens."""
    dropout: float = 0.1
    """Share of values that training sets to zero."""

    def __post_init__(self) -> None:
        check_size("width", self.width, MAX_WIDTH)
        check_size("layers", self.layers, MAX_LAYERS)
        check_size("heads", self.heads, MAX_HEADS)
        check_size("expansion", self.expansion, MAX_EXPANSION)
        check_size("kernel", self.kernel, MAX_KERNEL)
        # Even, because sines and cosines of the positions take turns.
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width: got {self.width}, expected an even multiple of the {self.heads} heads")
        if self.conv_look_ahead is None and self.conv_context != "causal" and self.kernel % 2 == 0:
            raise ValueError(f"kernel: got {self.kernel}, expected an odd number unless causal")
        if self.conv_look_ahead is not None and not 0 <= self.conv_look_ahead < self.kernel:
            raise ValueError(f"conv_look_ahead: got {self.conv_look_ahead}, expected 0 to {self.kernel - 1}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: got {self.dropout}, expected 0 to 1")
