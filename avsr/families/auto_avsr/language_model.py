"""The transformer language model of ESPnet beside these recognisers, and its scorer.

Shapes: B hypotheses, U units of the past, D width, N heads, E width of a head, V units of the vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from avsr.families.auto_avsr.config import LanguageModelShape
from avsr.families.auto_avsr.decoder import Attention, Units, position
from avsr.families.auto_avsr.encoder import FeedForward, layer_norm
from avsr.nn.conformer import normed
from avsr.nn.packing import Linear

EMBED_NORM_EPS = 1e-5
"""The norm after the embedding is a plain one of torch, unlike those of the layers."""
BLANK = 0
"""Nobody sees a unit of this number: the original takes it for padding."""


class LanguageModelLayer(nn.Module):
    """Attention to the past units, and feed-forward."""

    def __init__(self, shape: LanguageModelShape) -> None:
        super().__init__()
        self.norm_mha, self.norm_ff = layer_norm(shape.width), layer_norm(shape.width)
        self.self_attn = Attention(shape.width, shape.heads)
        self.feed_forward = FeedForward(shape.width, shape.hidden)

    def forward(self, x_BD: Tensor, past: Tensor, masked_BU: Tensor | None) -> tuple[Tensor, Tensor]:
        added_BD, past = self.self_attn.to_past(normed(self.norm_mha, x_BD), past, masked_BU)
        x_BD = x_BD + added_BD
        return x_BD + self.feed_forward(normed(self.norm_ff, x_BD)), past


class Past(NamedTuple):
    """The past units of hypotheses."""

    layers: tuple[Tensor, ...]
    """Keys and values [2, B, N, U, E] of each layer."""
    masked_BU: Tensor
    """The units that nobody sees, bool."""


class LanguageModel(nn.Module):
    """Embedding, layers and output. As a `Scorer` it needs no utterance."""

    def __init__(self, shape: LanguageModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocabulary, shape.embedding)
        self.project = Linear(shape.embedding, shape.width)
        self.project_norm = nn.LayerNorm(shape.width, eps=EMBED_NORM_EPS)
        self.encoders = nn.ModuleList(LanguageModelLayer(shape) for _ in range(shape.layers))
        self.after_norm = layer_norm(shape.width)
        self.decoder = Linear(shape.width, shape.vocabulary)

    def initial_state(self, batch: int) -> Past:
        """The state of `batch` hypotheses without any unit."""
        device = self.embed.weight.device
        empty = torch.zeros(2, batch, self.shape.heads, 0, self.shape.width // self.shape.heads, device=device)
        return Past((empty,) * self.shape.layers, torch.zeros(batch, 0, dtype=torch.bool, device=device))

    @torch.inference_mode()
    def score(self, last_B: Units, state: Past) -> tuple[NDArray[np.float32], Past]:
        """Log-probabilities [B, V] of every unit after `last_B`, and the state with `last_B` in it."""
        last = torch.from_numpy(np.ascontiguousarray(last_B)).to(self.embed.weight.device)
        masked_BU = torch.cat((state.masked_BU, (last == BLANK)[:, None]), dim=1)
        x_BD = self._embedded(last, state.masked_BU.shape[1])
        mask = masked_BU if bool(masked_BU.any()) else None
        after = []
        for layer, past in zip(self.encoders, state.layers, strict=True):
            x_BD, past = layer(x_BD, past, mask)
            after.append(past)
        log_probs_BV = self.decoder(normed(self.after_norm, x_BD)).float().log_softmax(dim=-1)
        return log_probs_BV.cpu().numpy(), Past(tuple(after), masked_BU)

    @torch.inference_mode()
    def select(self, state: Past, kept_B: Units) -> Past:
        """The state of the hypotheses `kept_B`."""
        kept = torch.from_numpy(np.ascontiguousarray(kept_B)).to(self.embed.weight.device)
        return Past(tuple(past.index_select(1, kept) for past in state.layers), state.masked_BU.index_select(0, kept))

    def _embedded(self, last_B: Tensor, at: int) -> Tensor:
        x_BD = F.relu(normed(self.project_norm, self.project(self.embed(last_B))))
        if not self.shape.sinusoidal:
            return x_BD
        return x_BD * self.shape.width**0.5 + position(at, self.shape.width, x_BD)
