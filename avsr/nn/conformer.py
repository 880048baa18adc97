"""Conformer blocks: feed-forward halves around relative attention and convolution (Gulati et al., arXiv 2005.08100).

Shapes: B batch, T frames, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from avsr.nn.attention import AttentionState, RelativeAttention
from avsr.nn.conformer_shape import ConformerShape
from avsr.nn.context import AttentionContext
from avsr.nn.convolution import ConvolutionModule, ConvolutionState
from avsr.nn.masks import History, Sight, initial_history, padding_mask
from avsr.nn.packing import Linear


class BlockState(NamedTuple):
    """The past of one Conformer block."""

    attention: AttentionState
    convolution: ConvolutionState


def dropped(dropout: nn.Dropout, x: Tensor) -> Tensor:
    """dropout(x). Outside of training it skips the call of the module: one step of a stream has a hundred of them."""
    return dropout(x) if dropout.training else x


def normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """norm(x), for a single frame in half the time: it skips the call of the module."""
    return torch.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


class FeedForward(nn.Module):
    """Linear, SiLU, linear: [B, T, D] -> [B, T, D]. The inner width is `expansion` times D."""

    def __init__(self, width: int, expansion: int, *, dropout: float, use_bias: bool) -> None:
        super().__init__()
        self.expand = Linear(width, width * expansion, bias=use_bias)
        self.project = Linear(width * expansion, width, bias=use_bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.project(dropped(self.dropout, self.expand(x_BTD, "swish")))


class ConformerBlock(nn.Module):
    """Feed-forward, self-attention, convolution, feed-forward: each with a norm before it, and added to its input.

    The feed-forward parts count half. A last norm follows. [B, T, D] -> [B, T, D].
    """

    def __init__(self, shape: ConformerShape) -> None:
        super().__init__()
        width, dropout, use_bias = shape.width, shape.dropout, shape.use_bias
        self.norm_first = nn.LayerNorm(shape.width)
        self.feed_forward_first = FeedForward(width, shape.expansion, dropout=dropout, use_bias=use_bias)
        self.norm_attention = nn.LayerNorm(shape.width)
        self.attention = RelativeAttention(
            width,
            shape.heads,
            dropout=dropout,
            use_bias=use_bias,
            global_projections=shape.global_projections,
            self_attention=True,
        )
        self.norm_convolution = nn.LayerNorm(shape.width)
        self.convolution = ConvolutionModule(
            width,
            shape.kernel,
            context=shape.conv_context,
            look_ahead=shape.conv_look_ahead,
            norm=shape.conv_norm,
            use_bias=use_bias,
        )
        self.norm_second = nn.LayerNorm(shape.width)
        self.feed_forward_second = FeedForward(width, shape.expansion, dropout=dropout, use_bias=use_bias)
        self.norm_output = nn.LayerNorm(shape.width)
        self.dropout = nn.Dropout(shape.dropout)

    def initial_state(
        self, batch_size: int, context: AttentionContext, device: torch.device, dtype: torch.dtype
    ) -> BlockState:
        """The state before a stream. Raises ValueError if attention or convolution needs the future."""
        return BlockState(
            self.attention.initial_state(batch_size, context, device, dtype),
            self.convolution.initial_state(batch_size, device, dtype),
        )

    def forward(
        self, x_BTD: Tensor, valid_BT: Tensor | None, sight: Sight, state: BlockState | None = None
    ) -> tuple[Tensor, BlockState | None]:
        """The output [B, T, D] and the next state (None if `state` is None).

        x_BTD: the input.
        valid_BT: which frames are real; None: all.
        sight: which frames attention may see.
        state: the past, for a stream.
        """
        dropout = self.dropout
        added_BTD = self.feed_forward_first(normed(self.norm_first, x_BTD))
        x_BTD = torch.add(x_BTD, dropped(dropout, added_BTD), alpha=0.5)
        normed_BTD = normed(self.norm_attention, x_BTD)
        attended_BTD, attention_state = self.attention(
            normed_BTD, normed_BTD, sight, None if state is None else state.attention
        )
        x_BTD = x_BTD + dropped(dropout, attended_BTD)
        convolved_BTD, convolution_state = self.convolution(
            normed(self.norm_convolution, x_BTD),
            valid_BT,
            None if state is None else state.convolution,
            sight.context.chunk,
        )
        x_BTD = x_BTD + dropped(dropout, convolved_BTD)
        added_BTD = self.feed_forward_second(normed(self.norm_second, x_BTD))
        x_BTD = torch.add(x_BTD, dropped(dropout, added_BTD), alpha=0.5)
        x_BTD = normed(self.norm_output, x_BTD)
        if attention_state is None or convolution_state is None:
            return x_BTD, None
        return x_BTD, BlockState(attention_state, convolution_state)


class ConformerState(NamedTuple):
    """The past of a stack of blocks."""

    blocks: tuple[BlockState, ...]
    """First block first."""
    history: History
    """Which past frames were real, for the attention of every block."""


class Conformer(nn.Module):
    """A stack of Conformer blocks at one frame rate."""

    def __init__(self, shape: ConformerShape) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ConformerBlock(shape) for _ in range(shape.layers))

    def initial_state(
        self, batch_size: int, context: AttentionContext, device: torch.device, dtype: torch.dtype
    ) -> ConformerState:
        """The state before a stream. Raises ValueError if attention or convolutions need the future."""
        states = []
        for block in self.blocks:
            assert isinstance(block, ConformerBlock)
            # Only the end of a chunk bounds what such a convolution reads of the future.
            if block.convolution.look_ahead and context.chunk is None:
                raise ValueError("a convolution that looks ahead cannot stream: expected chunked attention around it")
            states.append(block.initial_state(batch_size, context, device, dtype))
        return ConformerState(tuple(states), initial_history(batch_size, context, device))

    def forward(
        self,
        x_BTD: Tensor,
        lengths: Tensor,
        context: AttentionContext,
        state: ConformerState | None = None,
        *,
        present_BT: Tensor | None = None,
    ) -> tuple[Tensor, ConformerState | None]:
        """The output [B, T, D] and the next state (None if `state` is None).

        x_BTD: the input.
        lengths: int64 [B]; frames after the length are padding.
        context: how far attention reaches.
        state: the past, for a stream. T must then be a multiple of the attention chunk, except in the last chunk.
        present_BT: False on further frames that are treated as padding, because nothing was measured there. None: no
            further frames.
        """
        valid_BT = padding_mask(lengths, x_BTD.shape[1])
        if present_BT is not None:
            valid_BT = present_BT if valid_BT is None else valid_BT & present_BT
        # One sight for all blocks: masks and distances are the same in each.
        sight = Sight(context, x_BTD.shape[1], valid_BT, None if state is None else state.history)
        next_states = []
        for index, block in enumerate(self.blocks):
            x_BTD, next_state = block(x_BTD, valid_BT, sight, None if state is None else state.blocks[index])
            next_states.append(next_state)
        return x_BTD, None if state is None else ConformerState(tuple(next_states), sight.next_history())
