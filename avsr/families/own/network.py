"""The torch module: log-mel and lip crops in, CTC log-probabilities out."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsr.families.own.audio_encoder import AudioEncoder, AudioEncoderState
from avsr.families.own.config import ModelConfig
from avsr.families.own.ctc import CTCHead
from avsr.families.own.fusion import FusionState, FusionTransformer
from avsr.families.own.visual_encoder import VisualEncoder, VisualEncoderState
from avsr.grid import LIP_INPUT_PX
from avsr.nn.masks import AttentionContext, valid_mask
from avsr.nn.packing import Packable, can_pack


class NetworkState(NamedTuple):
    """The past of a whole recogniser; the visual parts are None in a model that only hears."""

    audio: AudioEncoderState
    visual: VisualEncoderState | None
    fusion: FusionState | None


class NetworkOutput(NamedTuple):
    """What the network says.

    log_probs [B, T, V + 1]: of the fused path, what transcription decodes. lengths [B]: frames. audio_log_probs and
    visual_log_probs: of each side alone, None where that side did not run. state: None unless one was given.
    """

    log_probs: Tensor
    lengths: Tensor
    audio_log_probs: Tensor | None
    visual_log_probs: Tensor | None
    state: NetworkState | None


class LipFrames(NamedTuple):
    """Encoded lips: frames [B, T, D], and which of them saw lips, bool [B, T]."""

    frames_BTD: Tensor
    seen_BT: Tensor


class Network(nn.Module):
    """Audio encoder, visual encoder, fusion transformer, and two CTC heads: one for lips, one for sound and for both.

    `pack` lays its weights out for inference on the CPU. Whatever trains, saves, moves or lists the weights undoes that
    first, so that nobody needs to know; a recognizer packs anew when it is used again.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.audio_encoder.conformer.width
        self.audio_encoder = AudioEncoder(config.audio_encoder, config.mel.n_mels)
        self.audio_head = CTCHead(width, config.vocabulary_size)
        self.visual_encoder = VisualEncoder(config.visual_encoder) if config.visual_encoder else None
        self.visual_head = CTCHead(width, config.vocabulary_size) if config.visual_encoder else None
        self.fusion = FusionTransformer(width, config.fusion) if config.fusion else None
        self._packed = False

    def pack(self, dtype: torch.dtype = torch.float32) -> bool:
        """Make inference on the CPU faster; the results stay the same within rounding. dtype: in which weights are
        multiplied, float32 or bfloat16, whose weights stay rounded. Returns False where this machine cannot; may be
        repeated."""
        if not self._packed and can_pack(self.audio_head.project.bias.device, dtype):
            for module in self.modules():
                if isinstance(module, Packable):
                    module.pack(dtype)
            self._packed = True
        return self._packed

    def unpack(self) -> None:
        """Undo `pack`."""
        if self._packed:
            for module in self.modules():
                if isinstance(module, Packable):
                    module.unpack()
            self._packed = False

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
        return self.config.vocabulary_size

    @property
    def visual_trunk(self) -> nn.Module | None:
        """The part of the visual encoder that looks at one slot's crops."""
        return self.visual_encoder.trunk if self.visual_encoder else None

    @property
    def look_ahead_slots(self) -> int:
        """How many slots of 40 ms lips run ahead of the sound in a stream."""
        return self.visual_encoder.look_ahead_slots if self.visual_encoder else 0

    def initial_state(
        self,
        batch_size: int,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        *,
        attention: AttentionContext | None = None,
    ) -> NetworkState:
        """An empty past for streams. Raises ValueError when the configuration needs the future.

        attention: as in `forward`.
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
        """One pass over a batch, or over one chunk of a batch of streams.

        mel: [B, n_mels, T_mel], or None when there is no sound at all. lengths: [B] int64, mel frames (10 ms) of each
        item, with or without sound. lips: [B, T_lip, 1, 88, 88] in [0, 1], 40 ms a slot; longer or shorter than the
        sound as it may be. In a stream they run `visual_encoder.look_ahead_slots` ahead of the sound: the first chunk
        brings so many slots more, and the last one so many fewer. presence: [B, T_lip] bool, None for all present.
        heard: [B] bool, False for an item whose sound is to be ignored. attention: context of the encoders and the
        fusion where not the configured ones, as for a model with several look-aheads. With every slot absent the result
        is bit for bit that of lips=None.
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
            log_probs, _ = self.fuse(x_BTD, frame_lengths)
            return NetworkOutput(log_probs, frame_lengths, audio_log_probs, None, next_state)

        lip_frames: LipFrames | None = None
        visual_state = None if state is None else state.visual
        frames = int(frame_lengths.max()) if x_BTD is None else x_BTD.shape[1]
        if lips is None and state is not None:  # the caches of the lips move on with time, also while none are seen
            lips = self.fusion.silence.new_zeros(len(lengths), 0, 1, LIP_INPUT_PX, LIP_INPUT_PX)
        if lips is not None and self.visual_encoder is not None and self.visual_head is not None:
            lip_frames, visual_state = self.encode_lips(
                lips, presence, frame_lengths, frames, visual_state, attention=attention
            )
            visual_log_probs = self.visual_head(lip_frames.frames_BTD)
        log_probs, fusion_state = self.fuse(
            x_BTD,
            frame_lengths,
            lip_frames,
            heard=heard,
            state=None if state is None else state.fusion,
            attention=attention,
        )
        next_state = (
            None if state is None or audio_state is None else NetworkState(audio_state, visual_state, fusion_state)
        )
        return NetworkOutput(log_probs, frame_lengths, audio_log_probs, visual_log_probs, next_state)

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
        """The visual half of `forward`: lips and presence as there, frame_lengths [B] of a batch of `frames` frames."""
        assert self.visual_encoder is not None
        if presence is None:
            presence = torch.ones(lips.shape[:2], dtype=torch.bool, device=lips.device)
        wanted = self.visual_encoder.slots_wanted(frames, state)
        lips, presence = _fit_slots(lips, presence, wanted)
        # A slot past the end of its item is padding, whatever the caller put there. Where the chunk of a stream is
        # full, its item may go on, and the slots of the look-ahead are real.
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
    ) -> tuple[Tensor, FusionState | None]:
        """The last part of `forward`: log-probabilities of encoded sound (None: of the lips alone) and encoded lips.

        The same encoded sound may be fused with several lips and the other way round.
        """
        if self.fusion is None:
            if x_BTD is None:
                raise ValueError("this model only hears: mel must be given")
            return self.audio_head(x_BTD), None
        if x_BTD is None:
            x_BTD = self.fusion.silence.expand(len(frame_lengths), int(frame_lengths.max()), -1)
            heard = torch.zeros_like(frame_lengths, dtype=torch.bool)
        frames_BTD, seen_BT = (None, None) if lips is None else lips
        heard_BT = None if heard is None else heard[:, None].expand(x_BTD.shape[:2])
        fused_BTD, state = self.fusion(x_BTD, frame_lengths, frames_BTD, seen_BT, heard_BT, state, attention)
        return self.audio_head(fused_BTD), state

    def side_log_probs(self, x_BTD: Tensor | None, lips: LipFrames | None) -> Tensor:
        """Log-probabilities of encoded sound by itself, and without sound of encoded lips by themselves."""
        if x_BTD is not None:
            return self.audio_head(x_BTD)
        assert lips is not None and self.visual_head is not None
        return self.visual_head(lips.frames_BTD)


def _fit_slots(lips_BTCHW: Tensor, presence_BT: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Cut the lips to so many slots, or add absent ones."""
    missing = slots - presence_BT.shape[1]
    if missing <= 0:
        return lips_BTCHW[:, :slots], presence_BT[:, :slots]
    return F.pad(lips_BTCHW, (0, 0, 0, 0, 0, 0, 0, missing)), F.pad(presence_BT, (0, missing))
