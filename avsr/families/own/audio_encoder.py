"""FastConformer (Rekesh et al., arXiv 2305.05084): subsampling of log-mel frames, then Conformer blocks.

Shapes: B batch, T frames, F frequency bins, D width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from avsr.families.own.config import AudioEncoderConfig
from avsr.nn.conformer import Conformer, ConformerState
from avsr.nn.context import AttentionContext
from avsr.nn.subsampling import Subsampling, SubsamplingState


class AudioEncoderState(NamedTuple):
    """The past of the audio encoder in a stream."""

    subsampling: SubsamplingState
    conformer: ConformerState


class AudioEncoder(nn.Module):
    """Encodes log-mel frames of 10 ms as frames of 10 ms times `config.subsampling`, which is 80 ms beside lips."""

    def __init__(self, config: AudioEncoderConfig, n_mels: int) -> None:
        super().__init__()
        self.config = config
        self.subsampling = Subsampling(
            n_mels,
            config.conformer.width,
            channels=config.subsampling_channels,
            factor=config.subsampling,
            kind=config.subsampling_kind,
            causal=config.subsampling_causal,
        )
        self.dropout = nn.Dropout(config.conformer.dropout)
        self.conformer = Conformer(config.conformer)
        self.input_scale = math.sqrt(config.conformer.width) if config.scale_input else 1.0

    def initial_state(
        self, batch_size: int, device: torch.device, dtype: torch.dtype, attention: AttentionContext | None = None
    ) -> AudioEncoderState:
        """The state before a stream, for the same `attention` as in `forward`.

        Raises ValueError if attention or convolutions need the future.
        """
        return AudioEncoderState(
            self.subsampling.initial_state(batch_size, device, dtype),
            self.conformer.initial_state(batch_size, attention or self.config.attention, device, dtype),
        )

    def forward(
        self,
        mel_BFT: Tensor,
        lengths: Tensor,
        state: AudioEncoderState | None = None,
        attention: AttentionContext | None = None,
    ) -> tuple[Tensor, Tensor, AudioEncoderState | None]:
        """The frames [B, T', width], their lengths [B], and the next state (None if `state` is None).

        mel_BFT: log-mel features.
        lengths: int64 [B]; mel frames after the length are padding.
        state: the past, for a stream. It must have been made for the same attention context.
        attention: a context other than the configured one, usually one of `config.attention_choices`.
        """
        x_BTD, lengths, subsampling_state = self.subsampling(
            mel_BFT, lengths, None if state is None else state.subsampling
        )
        x_BTD = self.dropout(x_BTD * self.input_scale)
        x_BTD, conformer_state = self.conformer(
            x_BTD, lengths, attention or self.config.attention, None if state is None else state.conformer
        )
        if subsampling_state is None or conformer_state is None:
            return x_BTD, lengths, None
        return x_BTD, lengths, AudioEncoderState(subsampling_state, conformer_state)
