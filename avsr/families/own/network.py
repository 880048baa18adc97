"""The torch module of our family: log-mel features and lip crops in, CTC log-probabilities out.

Shapes: B batch, T frames of 80 ms or slots of 40 ms, C = 1 channel, H W pixels, D width, V units of the vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsr.families.own.audio_encoder import AudioEncoder, AudioEncoderState
from avsr.families.own.config import ModelConfig
from avsr.families.own.ctc import CTCHead
from avsr.families.own.fusion import FusionState, FusionTransformer, Sides
from avsr.families.own.visual_encoder import VisualEncoder, VisualEncoderState
from avsr.grid import LIP_INPUT_PX
from avsr.nn.context import AttentionContext
from avsr.nn.masks import valid_mask
from avsr.nn.packing import Packable, can_pack


class NetworkState(NamedTuple):
    """The past of the whole network in a stream."""

    audio: AudioEncoderState
    visual: VisualEncoderState | None
    """None: the model reads no lips."""
    fusion: FusionState | None
    """None: the model reads no lips."""


class NetworkOutput(NamedTuple):
    """The results of one pass."""

    log_probs: Tensor
    """[B, T, V + 1] after the fusion. Transcription decodes these."""
    lengths: Tensor
    """Frames of each item, int64 [B]."""
    audio_log_probs: Tensor | None
    """[B, T, V + 1] of the sound alone; None: no sound was given."""
    visual_log_probs: Tensor | None
    """[B, T, V + 1] of the lips alone; None: no lips were given."""
    state: NetworkState | None
    """The state after the pass; None: no state was given."""
    trust: Tensor | None = None
    """[B, T]: the logit of the share by which each frame follows the lips; None: no evidence or no lips.

    At frames without sound, or without lips around them, it means nothing.
    """


class FusedFrames(NamedTuple):
    """The results of the fusion."""

    log_probs: Tensor
    """[B, T, V + 1]."""
    state: FusionState | None
    """The state after the pass; None: no state was given."""
    trust: Tensor | None
    """As in `NetworkOutput`."""


class LipFrames(NamedTuple):
    """Encoded lips in frames of 80 ms."""

    frames_BTD: Tensor
    seen_BT: Tensor
    """Which frames saw lips, bool."""


class Network(nn.Module):
    """Audio encoder, visual encoder, fusion transformer and two CTC heads.

    One head reads encoded lips. The other reads encoded sound, and the fused frames.

    `pack` prepares the weights for fast inference on the CPU. Training, saving, moving or listing the weights unpacks
    them first, so callers need not know that they are packed.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.audio_encoder.conformer.width
        self.audio_encoder = AudioEncoder(config.audio_encoder, config.mel.n_mels)
        # One head for encoded sound and fused frames: without lips the result equals the sound alone to the bit.
        self.audio_head = CTCHead(width, config.vocabulary_size)
        self.visual_encoder = VisualEncoder(config.visual_encoder) if config.visual_encoder else None
        self.visual_head = CTCHead(width, config.vocabulary_size) if config.visual_encoder else None
        self.fusion = FusionTransformer(width, config.fusion, config.vocabulary_size + 1) if config.fusion else None
        self._packed = False

    def pack(self, dtype: torch.dtype = torch.float32) -> bool:
        """Make inference on the CPU faster. The results stay the same within rounding. May be called again.

        dtype: in which the weights are multiplied, float32 or bfloat16. After bfloat16 the weights stay rounded.

        Returns False if this machine has no kernels for it; nothing has changed then.
        """
        if not self._packed and can_pack(self.audio_head.project.bias.device, dtype):
            for module in self.modules():
                if isinstance(module, Packable):
                    module.pack(dtype)
            self._packed = True
        return self._packed

    def unpack(self) -> None:
        """Undo `pack`. Does nothing if the network is not packed."""
        if self._packed:
            for module in self.modules():
                if isinstance(module, Packable):
                    module.unpack()
            self._packed = False

    # The overrides below unpack the weights before anything reads or changes them.

    def train(self, mode: bool = True) -> Network:
        if mode:
            self.unpack()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:  # behind .to(), .cuda(), .half() and the like
        self.unpack()
        return super()._apply(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self.unpack()
        return super().state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self.unpack()
        return super().load_state_dict(*args, **kwargs)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:  # behind .parameters() too
        self.unpack()
        return super().named_parameters(*args, **kwargs)

    @property
    def blank_id(self) -> int:
        """The index of the CTC blank in the log-probabilities: the last."""
        return self.config.vocabulary_size

    @property
    def visual_trunk(self) -> nn.Module | None:
        """The convolutional part of the visual encoder; None: the model reads no lips."""
        return self.visual_encoder.trunk if self.visual_encoder else None

    @property
    def look_ahead_slots(self) -> int:
        """How many slots of 40 ms the lips must run ahead of the sound in a stream."""
        return self.visual_encoder.look_ahead_slots if self.visual_encoder else 0

    def initial_state(
        self,
        batch_size: int,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        *,
        attention: AttentionContext | None = None,
    ) -> NetworkState:
        """The state before a batch of streams.

        batch_size: number of streams.
        device, dtype: of the state; None: as the weights.
        attention: as in `forward`.

        Raises ValueError if attention or convolutions need the future.
        """
        bias = self.audio_head.project.bias
        device, dtype = device or bias.device, dtype or bias.dtype
        return NetworkState(
            self.audio_encoder.initial_state(batch_size, device, dtype, attention),
            self.visual_encoder.initial_state(batch_size, device, dtype, attention) if self.visual_encoder else None,
            self.fusion.initial_state(batch_size, device, dtype, attention) if self.fusion else None,
        )

    def forward(
        self,
        mel: Tensor | None,
        lengths: Tensor,
        lips: Tensor | None = None,
        presence: Tensor | None = None,
        state: NetworkState | None = None,
        *,
        heard: Tensor | None = None,
        attention: AttentionContext | None = None,
    ) -> NetworkOutput:
        """One pass over a batch of recordings, or over one chunk of a batch of streams.

        mel: log-mel features [B, n_mels, T_mel]; None: no item has sound.
        lengths: mel frames (10 ms) of each item, int64 [B], also if there is no sound.
        lips: crops [B, T_lip, 1, 88, 88] in [0, 1], 40 ms a slot. They may be longer or shorter than the sound. In a
            stream they run `look_ahead_slots` ahead of the sound: the first chunk has that many slots more than the
            sound, and the last chunk that many fewer.
        presence: bool [B, T_lip]: which crops show lips; None: all. If none does, the result equals the result of
            lips=None to the bit.
        state: the past, for a stream.
        heard: bool [B]: False for an item with sound that must be ignored; None: all sound is used.
        attention: a context for encoders and fusion other than the configured one.

        Raises ValueError if there is a state but no sound, or if there is no sound and the model reads no lips.
        """
        frame_lengths = self.audio_encoder.subsampling.output_lengths(lengths)
        x_BTD = audio_log_probs = visual_log_probs = None
        audio_state: AudioEncoderState | None = None
        if mel is not None:
            x_BTD, frame_lengths, audio_state = self.audio_encoder(
                mel, lengths, None if state is None else state.audio, attention
            )
            audio_log_probs = self.audio_head(x_BTD)
        elif state is not None:
            raise ValueError("a stream needs its sound: give zeros and heard=False while it is lost")
        if self.fusion is None:
            next_state = None if state is None or audio_state is None else NetworkState(audio_state, None, None)
            log_probs = self.fuse(x_BTD, frame_lengths).log_probs
            return NetworkOutput(log_probs, frame_lengths, audio_log_probs, None, next_state)

        lip_frames: LipFrames | None = None
        visual_state = None if state is None else state.visual
        frames = int(frame_lengths.max()) if x_BTD is None else x_BTD.shape[1]
        if lips is None and state is not None:  # the caches of the lips move on with time even without lips
            lips = self.fusion.silence.new_zeros(len(lengths), 0, 1, LIP_INPUT_PX, LIP_INPUT_PX)
        if lips is not None and self.visual_encoder is not None and self.visual_head is not None:
            lip_frames, visual_state = self.encode_lips(
                lips, presence, frame_lengths, frames, visual_state, attention=attention
            )
            visual_log_probs = self.visual_head(lip_frames.frames_BTD)
        fused = self.fuse(
            x_BTD,
            frame_lengths,
            lip_frames,
            heard=heard,
            state=None if state is None else state.fusion,
            attention=attention,
            sides=None if visual_log_probs is None else Sides(audio_log_probs, visual_log_probs),
        )
        next_state = (
            None if state is None or audio_state is None else NetworkState(audio_state, visual_state, fused.state)
        )
        return NetworkOutput(fused.log_probs, frame_lengths, audio_log_probs, visual_log_probs, next_state, fused.trust)

    def encode_lips(
        self,
        lips: Tensor,
        presence: Tensor | None,
        frame_lengths: Tensor,
        frames: int,
        state: VisualEncoderState | None = None,
        *,
        attention: AttentionContext | None = None,
    ) -> tuple[LipFrames, VisualEncoderState | None]:
        """The visual part of `forward`: the encoded lips and the next state (None if `state` is None).

        lips, presence, attention: as in `forward`.
        frame_lengths: frames (80 ms) of each item, int64 [B].
        frames: frames of the batch, at least the longest item's.
        state: the past, for a stream.
        """
        assert self.visual_encoder is not None
        if presence is None:
            presence = torch.ones(lips.shape[:2], dtype=torch.bool, device=lips.device)
        wanted = self.visual_encoder.slots_wanted(frames, state)
        lips, presence = _fit_slots(lips, presence, wanted)
        # A slot after the end of its item is padding, whatever the caller put there. An item that fills the chunk of a
        # stream may go on after it, so its look-ahead slots are real.
        before = 0 if state is None else state.ahead_BL.shape[1]
        ends = torch.where(frame_lengths < frames, 2 * frame_lengths - before, wanted)
        presence = presence & valid_mask(ends, wanted)
        frames_BTD, seen_BT, state = self.visual_encoder(lips, presence, frame_lengths, state, attention)
        return LipFrames(frames_BTD, seen_BT), state

    def fuse(
        self,
        x_BTD: Tensor | None,
        frame_lengths: Tensor,
        lips: LipFrames | None = None,
        *,
        heard: Tensor | None = None,
        state: FusionState | None = None,
        attention: AttentionContext | None = None,
        sides: Sides | None = None,
    ) -> FusedFrames:
        """The last part of `forward`.

        The same encoded sound may be fused with several encoded lips, and the other way round.

        x_BTD: encoded sound; None: the lips alone.
        frame_lengths: frames (80 ms) of each item, int64 [B].
        lips: encoded lips; None: the sound alone.
        heard, attention: as in `forward`.
        state: the past, for a stream.
        sides: what sound and lips say by themselves, if that is known already.

        Raises ValueError if x_BTD is None and the model reads no lips.
        """
        if self.fusion is None:
            if x_BTD is None:
                raise ValueError("this model reads no lips: mel must be given")
            return FusedFrames(self.audio_head(x_BTD), None, None)
        if sides is None and lips is not None and self.config.fusion is not None and self.config.fusion.evidence:
            assert self.visual_head is not None
            sound_BTV = None if x_BTD is None else self.audio_head(x_BTD)
            sides = Sides(sound_BTV, self.visual_head(lips.frames_BTD))
        if x_BTD is None:  # every frame starts from the learned vector for frames without sound
            x_BTD = self.fusion.silence.expand(len(frame_lengths), int(frame_lengths.max()), -1)
            heard = torch.zeros_like(frame_lengths, dtype=torch.bool)
        frames_BTD, seen_BT = (None, None) if lips is None else lips
        heard_BT = None if heard is None else heard[:, None].expand(x_BTD.shape[:2])
        fused_BTD, trust_BT, state = self.fusion(
            x_BTD, frame_lengths, frames_BTD, seen_BT, heard_BT, state, attention, sides
        )
        return FusedFrames(self.audio_head(fused_BTD), state, trust_BT)

    def side_log_probs(self, x_BTD: Tensor | None, lips: LipFrames | None) -> Tensor:
        """Log-probabilities [B, T, V + 1] without fusion, of the encoded sound if there is any, else of the lips."""
        if x_BTD is not None:
            return self.audio_head(x_BTD)
        assert lips is not None and self.visual_head is not None
        return self.visual_head(lips.frames_BTD)


def _fit_slots(lips_BTCHW: Tensor, presence_BT: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """The lips cut to `slots` slots, or with absent slots added."""
    missing = slots - presence_BT.shape[1]
    if missing <= 0:
        return lips_BTCHW[:, :slots], presence_BT[:, :slots]
    return F.pad(lips_BTCHW, (0, 0, 0, 0, 0, 0, 0, missing)), F.pad(presence_BT, (0, missing))
