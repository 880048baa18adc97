"""Sound and lips together: a transformer over the audio frames that gathers from the lips."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from avsr.families.own.config import FusionConfig
from avsr.nn.attention import AttentionState, RelativeAttention
from avsr.nn.conformer import FeedForward
from avsr.nn.masks import AttentionContext, History, Sight, initial_history, padding_mask
from avsr.nn.packing import Linear

LIPS_BIAS = -2.0  # sigmoid(-2) = 0.12: lips start as a whisper ...
SOUND_BIAS = 4.0  # ... beside sound that stays as it is, sigmoid(4) = 0.98


class FusionLayerState(NamedTuple):
    """The past of one fusion layer."""

    lips: AttentionState
    sound: AttentionState


class FusionState(NamedTuple):
    """The past of the fusion transformer, first layer first, and which frames of lips and sound were real."""

    layers: tuple[FusionLayerState, ...]
    lips_history: History
    sound_history: History


class LipAttention(nn.Module):
    """An audio frame, and what it gathers from the lips around it, joined by one linear map.

    Lips that are only ever added could not silence a sound that noise has made sure of the wrong word; so nothing of
    the frame goes round the map. gated: the sum of both instead, each times a gate that sees both. A frame that sees
    no lips stays exactly as it is.
    """

    def __init__(self, width: int, heads: int, dropout: float, gated: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = RelativeAttention(width, heads, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        if gated:
            opening = Linear(width, 2 * width)
            nn.init.constant_(opening.bias[:width], LIPS_BIAS)
            nn.init.constant_(opening.bias[width:], SOUND_BIAS)
            self.gates = nn.Sequential(Linear(2 * width, width), nn.SiLU(), opening)
        else:
            self.join = Linear(2 * width, width)
        self.gated = gated

    def forward(
        self,
        x_BTD: Tensor,
        lips_BTD: Tensor,
        sight: Sight,
        state: AttentionState | None,
    ) -> tuple[Tensor, AttentionState | None]:
        normed_BTD = self.norm(x_BTD)
        gathered_BTD, next_state = self.attention(normed_BTD, lips_BTD, sight, state)
        both_BTE = torch.cat((normed_BTD, gathered_BTD), dim=-1)
        if self.gated:
            lips_BTD, sound_BTD = torch.sigmoid(self.gates(both_BTE)).chunk(2, dim=-1)
            mixed_BTD = sound_BTD * x_BTD + self.dropout(lips_BTD * gathered_BTD)
        else:
            mixed_BTD = self.dropout(self.join(both_BTE))
        any_BT = sight.seen()
        return mixed_BTD if any_BT is None else torch.where(any_BT[..., None], mixed_BTD, x_BTD), next_state


class FusionLayer(nn.Module):
    """A look at the lips, self-attention, feed-forward; each on its own norm, the latter two added."""

    def __init__(self, width: int, config: FusionConfig) -> None:
        super().__init__()
        self.lips = LipAttention(width, config.heads, config.dropout, config.gated)
        self.norm_sound = nn.LayerNorm(width)
        self.sound = RelativeAttention(width, config.heads, dropout=config.dropout)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, config.expansion, dropout=config.dropout, use_bias=True)
        self.dropout = nn.Dropout(config.dropout)
        # Start as the identity, so that how to join sound and lips is learnt first.
        for last in (self.sound.to_output, self.feed_forward.project):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self,
        x_BTD: Tensor,
        sound_sight: Sight,
        lips_BTD: Tensor | None,
        lips_sight: Sight | None,
        fused_BT: Tensor | None,
        state: FusionLayerState | None,
    ) -> tuple[Tensor, FusionLayerState | None]:
        """fused_BT: the frames that it works on; the others stay as they are. None for all."""
        given_BTD = x_BTD
        lips_state = None if state is None else state.lips
        if lips_BTD is not None and lips_sight is not None:
            x_BTD, lips_state = self.lips(x_BTD, lips_BTD, lips_sight, lips_state)
        normed_BTD = self.norm_sound(x_BTD)
        attended_BTD, sound_state = self.sound(
            normed_BTD, normed_BTD, sound_sight, None if state is None else state.sound
        )
        x_BTD = x_BTD + self.dropout(attended_BTD)
        x_BTD = x_BTD + self.dropout(self.feed_forward(self.norm_feed_forward(x_BTD)))
        if fused_BT is not None:
            x_BTD = torch.where(fused_BT[..., None], x_BTD, given_BTD)
        if lips_state is None or sound_state is None:
            return x_BTD, None
        return x_BTD, FusionLayerState(lips_state, sound_state)


class FusionTransformer(nn.Module):
    """Audio frames [B, T, D], lip frames [B, T, D] or None -> fused frames [B, T, D], next state.

    A frame that is heard and has no lips in its window comes out as it came in, so that without lips there is the audio
    encoder and nothing else: its head reads fused frames too. seen_BT says which lip frames were seen. `heard_BT`,
    where given, is False on frames without sound: they start from one learned vector instead of the audio encoder's
    output. attention: the context that the encoders ran with, None for their own. With a state, lips must be given
    (absent ones at need), since their caches move on with time.
    """

    def __init__(self, width: int, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(FusionLayer(width, config) for _ in range(config.layers))
        self.silence = nn.Parameter(torch.zeros(width))

    def initial_state(
        self, batch_size: int, device: torch.device, dtype: torch.dtype, attention: AttentionContext | None = None
    ) -> FusionState:
        """An empty past. Raises ValueError when either attention needs the future."""
        sound_context, lips_context = self.config.contexts(attention)
        states = []
        for layer in self.layers:
            assert isinstance(layer, FusionLayer)
            lips = layer.lips.attention.initial_state(batch_size, lips_context, device, dtype)
            sound = layer.sound.initial_state(batch_size, sound_context, device, dtype)
            states.append(FusionLayerState(lips, sound))
        return FusionState(
            tuple(states),
            initial_history(batch_size, lips_context, device),
            initial_history(batch_size, sound_context, device),
        )

    def forward(
        self,
        x_BTD: Tensor,
        lengths: Tensor,
        lips_BTD: Tensor | None = None,
        seen_BT: Tensor | None = None,
        heard_BT: Tensor | None = None,
        state: FusionState | None = None,
        attention: AttentionContext | None = None,
    ) -> tuple[Tensor, FusionState | None]:
        sound_context, lips_context = self.config.contexts(attention)
        if heard_BT is not None:
            x_BTD = torch.where(heard_BT[..., None], x_BTD, self.silence.to(x_BTD.dtype))
        T = x_BTD.shape[1]
        valid_BT = padding_mask(lengths, T)
        sound_sight = Sight(sound_context, T, valid_BT, None if state is None else state.sound_history)
        lips_sight = None
        if lips_BTD is not None:
            if seen_BT is not None and valid_BT is not None:
                seen_BT = seen_BT & valid_BT
            lips_sight = Sight(lips_context, T, seen_BT, None if state is None else state.lips_history)
        elif state is not None:
            raise ValueError("a stream needs its lips: give absent ones while none are seen")
        elif heard_BT is None:
            return x_BTD, None
        fused_BT = torch.zeros_like(x_BTD[..., 0], dtype=torch.bool) if lips_sight is None else lips_sight.seen()
        if fused_BT is not None and heard_BT is not None:
            fused_BT = fused_BT | ~heard_BT
        next_states = []
        for index, layer in enumerate(self.layers):
            x_BTD, next_state = layer(
                x_BTD, sound_sight, lips_BTD, lips_sight, fused_BT, None if state is None else state.layers[index]
            )
            next_states.append(next_state)
        if state is None or lips_sight is None:
            return x_BTD, None
        return x_BTD, FusionState(tuple(next_states), lips_sight.next_history(), sound_sight.next_history())
