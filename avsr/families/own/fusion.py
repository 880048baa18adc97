"""Fusion of sound and lips: a transformer over the audio frames, which attends to the lip frames around each of them.

Shapes: B batch, T frames of 80 ms, D width, E = 2 D, V units of the vocabulary and the blank.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from avsr.families.own.config import FusionConfig
from avsr.nn.attention import AttentionState, RelativeAttention
from avsr.nn.conformer import FeedForward
from avsr.nn.context import AttentionContext
from avsr.nn.masks import History, Sight, initial_history, padding_mask
from avsr.nn.packing import Linear

# Training of a gated fusion starts with sound that passes nearly unchanged and with little of the lips.
LIPS_BIAS = -2.0
"""The gate of the lips starts at sigmoid(-2) = 0.12."""
SOUND_BIAS = 4.0
"""The gate of the sound starts at sigmoid(4) = 0.98."""
TRUST_BIAS = 3.0
"""Trust in the lips starts at sigmoid(3) = 0.95."""
SYNCHRONY_WIDTH = 32
"""Products of sound and lips that show whether they move together."""
STATISTICS_SHARE = 0.01
"""How fast the mean and the variance of encoded lips follow the batches of a training."""


class FusionLayerState(NamedTuple):
    """The past of one fusion layer in a stream."""

    lips: AttentionState
    sound: AttentionState


class FusionState(NamedTuple):
    """The past of the fusion transformer in a stream."""

    layers: tuple[FusionLayerState, ...]
    """First layer first."""
    lips_history: History
    """Which lip frames were seen."""
    sound_history: History
    """Which audio frames were real."""


class LipAttention(nn.Module):
    """Joins each audio frame with what attention reads from the lips around it. A frame without lips stays the same.

    One linear map joins them, and there is no residual connection around it: in noise the sound can be certain of a
    wrong word, and lips that are only added to it could not overrule it.

    width: D.
    heads: of the attention.
    dropout: share of values that training sets to zero.
    gated: instead of the map, sound and lips are each multiplied by a gate that reads both, and added.
    """

    def __init__(self, width: int, heads: int, dropout: float, gated: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = RelativeAttention(width, heads, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        # Kept for comparison: gates had more errors on development clips, and made the lips invent words in pauses.
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
        """The joined frames [B, T, D] and the next state (None if `state` is None).

        x_BTD: the audio frames.
        lips_BTD: the lip frames.
        sight: which lip frames each audio frame may see.
        state: the past of the lips, for a stream.
        """
        normed_BTD = self.norm(x_BTD)
        gathered_BTD, next_state = self.attention(normed_BTD, lips_BTD, sight, state)
        both_BTE = torch.cat((normed_BTD, gathered_BTD), dim=-1)
        if self.gated:
            lips_BTD, sound_BTD = torch.sigmoid(self.gates(both_BTE)).chunk(2, dim=-1)
            mixed_BTD = sound_BTD * x_BTD + self.dropout(lips_BTD * gathered_BTD)
        else:
            mixed_BTD = self.dropout(self.join(both_BTE))
        any_BT = sight.seen()  # the attention output of a frame that sees no lips is meaningless
        return mixed_BTD if any_BT is None else torch.where(any_BT[..., None], mixed_BTD, x_BTD), next_state


class FusionLayer(nn.Module):
    """Attention to the lips, self-attention, feed-forward. Each has a norm before it; the last two are residual."""

    def __init__(self, width: int, config: FusionConfig) -> None:
        super().__init__()
        self.lips = LipAttention(width, config.heads, config.dropout, config.gated)
        self.norm_sound = nn.LayerNorm(width)
        self.sound = RelativeAttention(width, config.heads, dropout=config.dropout)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, config.expansion, dropout=config.dropout, use_bias=True)
        self.dropout = nn.Dropout(config.dropout)
        # At first both add nothing, so that training begins with how to join sound and lips.
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
        """The frames [B, T, D] after this layer, and the next state (None if `state` is None).

        x_BTD: the frames before this layer.
        sound_sight: which frames each frame may see.
        lips_BTD, lips_sight: the lip frames, and which of them each frame may see; None: no lips.
        fused_BT: the frames that the layer changes; None: all.
        state: the past, for a stream.
        """
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
        # Self-attention and feed-forward would change frames without lips too, which must equal the sound alone to the
        # bit.
        if fused_BT is not None:
            x_BTD = torch.where(fused_BT[..., None], x_BTD, given_BTD)
        if lips_state is None or sound_state is None:
            return x_BTD, None
        return x_BTD, FusionLayerState(lips_state, sound_state)


class Sides(NamedTuple):
    """What sound and lips say by themselves."""

    sound_BTV: Tensor | None
    """Log-probabilities of the sound; None: no sound."""
    lips_BTV: Tensor
    """Log-probabilities of the lips."""


class Evidence(nn.Module):
    """Shows the fusion how far each frame's lips can be believed: a vector to be added to the frame.

    It is a linear map of what sound and lips say by themselves (the probabilities of both, and their geometric mean,
    whose sum is high where they agree), how sure each is (entropies), products of projected sound and lips, which show
    whether they move together, and how strange the lips are (mean squared distance of the encoded lips from the mean of
    the training, in units of its standard deviation, as a logarithm). The fusion's self-attention compares frames over
    time.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.norm_sound, self.norm_lips = nn.LayerNorm(width), nn.LayerNorm(width)
        self.sound = Linear(width, SYNCHRONY_WIDTH)
        self.lips = Linear(width, SYNCHRONY_WIDTH)
        self.project = Linear(3 * units + SYNCHRONY_WIDTH + 3, width)
        # A fusion that is trained on begins as it was.
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x_BTD: Tensor, lips_BTD: Tensor, sides: Sides, seen_BT: Tensor, heard_BT: Tensor) -> Tensor:
        """The vectors [B, T, D]. Those of frames whose lips were not seen mean nothing.

        x_BTD: encoded sound.
        lips_BTD: encoded lips.
        seen_BT: which frames saw lips.
        heard_BT: which frames have sound.
        """
        if self.training:
            self._learn_faces(lips_BTD[seen_BT])
        lips_BTV = sides.lips_BTV.detach().float().exp()
        heard_BT1 = heard_BT[..., None]
        sound_BTV = torch.zeros_like(lips_BTV)
        if sides.sound_BTV is not None:
            sound_BTV = torch.where(heard_BT1, sides.sound_BTV.detach().float().exp(), sound_BTV)
        together_BTS = self.sound(self.norm_sound(x_BTD)) * self.lips(self.norm_lips(lips_BTD))
        deviation_BTD = (lips_BTD.detach().float() - self.mean).square() / self.variance
        features = (
            *(sound_BTV, lips_BTV, (sound_BTV * lips_BTV).sqrt(), together_BTS * heard_BT1),
            *(_entropy(sound_BTV), _entropy(lips_BTV), deviation_BTD.mean(-1, keepdim=True).add(1e-3).log()),
        )
        return self.project(torch.cat([feature.to(x_BTD.dtype) for feature in features], dim=-1))

    @torch.no_grad()
    def _learn_faces(self, lips_ND: Tensor) -> None:
        if len(lips_ND) > 1:
            variance_D, mean_D = torch.var_mean(lips_ND.float(), dim=0)
            self.mean.lerp_(mean_D, STATISTICS_SHARE)
            self.variance.lerp_(variance_D.clamp(min=1e-6), STATISTICS_SHARE)


def _entropy(probabilities_BTV: Tensor) -> Tensor:
    """The entropy [B, T, 1] in nats."""
    return torch.special.entr(probabilities_BTV).sum(-1, keepdim=True)


class FusionTransformer(nn.Module):
    """Fuses audio frames and lip frames of 80 ms.

    A frame with sound and without lips in its window stays exactly the same. Without lips the model is then the audio
    encoder alone, and one CTC head serves both encoded and fused frames.

    With `config.evidence` it sees how well sound and lips go together. A frame with sound is then a mixture of the
    fused frame and the sound alone, by a share that follows from the fused frame: lips that it does not believe change
    nothing.

    units: size of the vocabulary, with the blank.
    """

    def __init__(self, width: int, config: FusionConfig, units: int) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(FusionLayer(width, config) for _ in range(config.layers))
        self.silence = nn.Parameter(torch.zeros(width))
        self.evidence: Evidence | None = None
        if config.evidence:
            self.evidence = Evidence(width, units)
            share = Linear(width, 1)
            nn.init.zeros_(share.weight)
            nn.init.constant_(share.bias, TRUST_BIAS)
            self.trust = nn.Sequential(nn.LayerNorm(width), share)

    def initial_state(
        self, batch_size: int, device: torch.device, dtype: torch.dtype, attention: AttentionContext | None = None
    ) -> FusionState:
        """The state before a stream, for the same `attention` as in `forward`.

        Raises ValueError if self-attention or attention to the lips needs the future.
        """
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
        sides: Sides | None = None,
    ) -> tuple[Tensor, Tensor | None, FusionState | None]:
        """The fused frames [B, T, D], the trust in the lips, and the next state (None if `state` is None).

        The trust [B, T] is given as a logit, and None without evidence or lips.

        x_BTD: encoded audio frames.
        lengths: int64 [B]; frames after the length are padding.
        lips_BTD: encoded lip frames; None: no lips.
        seen_BT: which lip frames saw lips; None: all.
        heard_BT: False on frames without sound, which start from a learned vector; None: all have sound.
        state: the past, for a stream.
        attention: the context that the encoders ran with; None: their configured one.
        sides: what sound and lips say by themselves, for a fusion with evidence.

        Raises ValueError for a state without lips. The caches of the lips move on with time, so a stream gives absent
        lips while no lips are seen.
        """
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
        elif heard_BT is None:  # sound alone: no frame would change
            return x_BTD, None, None
        fused_BT = torch.zeros_like(x_BTD[..., 0], dtype=torch.bool) if lips_sight is None else lips_sight.seen()
        # A frame without sound is fused even if it sees no lips: the frames around it may show the word.
        if fused_BT is not None and heard_BT is not None:
            fused_BT = fused_BT | ~heard_BT
        given_BTD = x_BTD
        if self.evidence is not None and lips_BTD is not None and sides is not None:
            all_BT = torch.ones_like(x_BTD[..., 0], dtype=torch.bool)
            own_BT = all_BT if seen_BT is None else seen_BT
            shown_BTD = self.evidence(x_BTD, lips_BTD, sides, own_BT, all_BT if heard_BT is None else heard_BT)
            x_BTD = torch.where(own_BT[..., None], x_BTD + shown_BTD, x_BTD)
        next_states = []
        for index, layer in enumerate(self.layers):
            x_BTD, next_state = layer(
                x_BTD, sound_sight, lips_BTD, lips_sight, fused_BT, None if state is None else state.layers[index]
            )
            next_states.append(next_state)
        trust_BT = None
        if self.evidence is not None and lips_sight is not None:
            trust_BT1 = self.trust(x_BTD)
            believed_BTD = torch.lerp(given_BTD, x_BTD, torch.sigmoid(trust_BT1).to(x_BTD.dtype))
            # Without sound there is nothing to fall back to.
            x_BTD = believed_BTD if heard_BT is None else torch.where(heard_BT[..., None], believed_BTD, x_BTD)
            if fused_BT is not None:
                x_BTD = torch.where(fused_BT[..., None], x_BTD, given_BTD)
            trust_BT = trust_BT1[..., 0]
        if state is None or lips_sight is None:
            return x_BTD, trust_BT, None
        return x_BTD, trust_BT, FusionState(tuple(next_states), lips_sight.next_history(), sound_sight.next_history())
