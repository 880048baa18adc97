"""The transformer decoder of these models, and its scorer for one utterance.

Shapes: B hypotheses, U units of the past, T frames, D width, N heads, E width of a head, V units of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from avsr.families.auto_avsr.config import DecoderShape
from avsr.families.auto_avsr.encoder import FeedForward, layer_norm
from avsr.nn.attention import relative_positions
from avsr.nn.conformer import normed
from avsr.nn.packing import Linear


def position(at: int, width: int, like: Tensor) -> Tensor:
    """The sinusoids of the unit number `at`, [1, D]."""
    return relative_positions(at, at, width, device=like.device, dtype=like.dtype)


class Attention(nn.Module):
    """Plain attention of one new unit of each hypothesis."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q, self.linear_k = Linear(width, width), Linear(width, width)
        self.linear_v, self.linear_out = Linear(width, width), Linear(width, width)

    def to_past(self, x_BD: Tensor, past: Tensor, masked_BU: Tensor | None) -> tuple[Tensor, Tensor]:
        """The output [B, D] of the new units, and the past [2, B, N, U + 1, E] with them in it.

        past: keys and values, head by head: so each head reads its keys in a row. masked_BU: True on units of the past,
        the new one among them, that nobody sees.
        """
        B = len(x_BD)
        new = torch.stack((self.linear_k(x_BD), self.linear_v(x_BD))).view(2, B, self.heads, 1, -1)
        past = torch.cat((past, new), dim=3)
        query_BN1E = self.linear_q(x_BD).view(B, self.heads, 1, -1)
        seen = None if masked_BU is None else ~masked_BU[:, None, None]
        found_BN1E = F.scaled_dot_product_attention(query_BN1E, past[0], past[1], attn_mask=seen)
        return self.linear_out(found_BN1E.flatten(1)), past

    def causal(self, x_UD: Tensor) -> Tensor:
        """The output [U, D] of all units of a text at once; each sees itself and those before it."""
        query, key, value = (
            layer(x_UD).unflatten(-1, (self.heads, -1)).transpose(0, 1)[None]
            for layer in (self.linear_q, self.linear_k, self.linear_v)
        )
        found_1NUE = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.linear_out(found_1NUE[0].transpose(0, 1).flatten(1))

    def project(self, memory_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [1, N, T, E] of an encoded utterance, for all hypotheses of it."""
        keys, values = (
            layer(memory_TD).unflatten(-1, (self.heads, -1)).transpose(0, 1)[None].contiguous()
            for layer in (self.linear_k, self.linear_v)
        )
        return keys, values

    def to_memory(self, x_BD: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """The output [B, D] of the units for the utterance."""
        query_1NBE = self.linear_q(x_BD).unflatten(-1, (self.heads, -1)).transpose(0, 1)[None]
        # The hypotheses stand where the frames of a query stand: all read the same keys in one product.
        found_1NBE = F.scaled_dot_product_attention(query_1NBE, *memory)
        return self.linear_out(found_1NBE[0].transpose(0, 1).flatten(1))


class DecoderLayer(nn.Module):
    """Attention to the past units, attention to the utterance, feed-forward, each with a norm before it."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (layer_norm(shape.width) for _ in range(3))
        self.self_attn = Attention(shape.width, shape.heads)
        self.src_attn = Attention(shape.width, shape.heads)
        self.feed_forward = FeedForward(shape.width, shape.hidden)

    def forward(self, x_BD: Tensor, past: Tensor, memory: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        added_BD, past = self.self_attn.to_past(normed(self.norm1, x_BD), past, None)
        x_BD = x_BD + added_BD
        x_BD = x_BD + self.src_attn.to_memory(normed(self.norm2, x_BD), memory)
        return x_BD + self.feed_forward(normed(self.norm3, x_BD)), past

    def all_units(self, x_UD: Tensor, memory_TD: Tensor) -> Tensor:
        """All units of a text at once, [U, D]."""
        x_UD = x_UD + self.self_attn.causal(normed(self.norm1, x_UD))
        x_UD = x_UD + self.src_attn.to_memory(normed(self.norm2, x_UD), self.src_attn.project(memory_TD))
        return x_UD + self.feed_forward(normed(self.norm3, x_UD))


class Decoder(nn.Module):
    """Embedding, layers and output. outputs: names of the output layers, such as one for each modality."""

    def __init__(self, shape: DecoderShape, vocabulary: int, outputs: Sequence[str]) -> None:
        super().__init__()
        self.width = shape.width
        self.embed = nn.Embedding(vocabulary, shape.width)
        self.decoders = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        self.after_norm = layer_norm(shape.width)
        self.outputs = nn.ModuleDict({name: Linear(shape.width, vocabulary) for name in outputs})

    def scorer(self, memory_TD: Tensor, output: str) -> DecoderScorer:
        """The scorer of an encoded utterance. The frames are projected here, once for all hypotheses."""
        with torch.inference_mode():
            memory = [cast(DecoderLayer, layer).src_attn.project(memory_TD) for layer in self.decoders]
        return DecoderScorer(self, memory, output)

    def forward(self, units_U: Tensor, memory_TD: Tensor, output: str) -> Tensor:
        """Log-probabilities [U, V] of the unit after each of a text's units, the start unit first, for training."""
        x_UD = self.embed(units_U) * self.width**0.5
        newest_first_UD = relative_positions(len(x_UD) - 1, 0, self.width, device=x_UD.device, dtype=x_UD.dtype)
        x_UD = x_UD + newest_first_UD.flip(0)
        for layer in self.decoders:
            x_UD = cast(DecoderLayer, layer).all_units(x_UD, memory_TD)
        return self.outputs[output](normed(self.after_norm, x_UD)).float().log_softmax(dim=-1)

    def step(
        self, last_B: Tensor, past: Sequence[Tensor], memory: Sequence[tuple[Tensor, Tensor]], output: str
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Log-probabilities [B, V] of the next unit, and the past with the last unit in it."""
        x_BD = self.embed(last_B) * self.width**0.5
        x_BD = x_BD + position(past[0].shape[3], self.width, x_BD)
        after = []
        for layer, layer_past, keys_values in zip(self.decoders, past, memory, strict=True):
            x_BD, layer_past = layer(x_BD, layer_past, keys_values)
            after.append(layer_past)
        logits_BV = self.outputs[output](normed(self.after_norm, x_BD))
        return logits_BV.float().log_softmax(dim=-1), tuple(after)


Units = NDArray[np.int64]
Past = tuple[Tensor, ...]
"""Keys and values [2, B, N, U, E] of each layer."""


class DecoderScorer:
    """Scores the next unit of hypotheses of one utterance (`avsr.decoding.scorers.Scorer`)."""

    def __init__(self, decoder: Decoder, memory: Sequence[tuple[Tensor, Tensor]], output: str) -> None:
        self._decoder, self._memory, self._output = decoder, memory, output

    def initial_state(self, batch: int) -> Past:
        """The state of `batch` hypotheses without any unit."""
        _, heads, _, width = self._memory[0][0].shape
        empty = self._memory[0][0].new_zeros(2, batch, heads, 0, width)
        return (empty,) * len(self._memory)

    @torch.inference_mode()
    def score(self, last_B: Units, state: Past) -> tuple[NDArray[np.float32], Past]:
        """Log-probabilities [B, V] of every unit after `last_B`, and the state with `last_B` in it."""
        device = self._memory[0][0].device
        last = torch.from_numpy(np.ascontiguousarray(last_B)).to(device)
        log_probs_BV, past = self._decoder.step(last, state, self._memory, self._output)
        return log_probs_BV.cpu().numpy(), past

    @torch.inference_mode()
    def select(self, state: Past, kept_B: Units) -> Past:
        """The state of the hypotheses `kept_B`."""
        kept = torch.from_numpy(np.ascontiguousarray(kept_B)).to(self._memory[0][0].device)
        return tuple(past.index_select(1, kept) for past in state)
