"""Our own network as an engine: arrays in, log-probabilities and words out.

Letters: B batch, S samples, F mel filters, T frames (T_lip slots), D width, H W pixels, V units.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from avsr.arrays import Crops, LogProbs, Present, Samples, check_form
from avsr.decoding.checked import BROKEN
from avsr.decoding.greedy import GreedySearch
from avsr.decoding.search import Search, Spoken
from avsr.decoding.tokenizer import Tokenizer
from avsr.errors import ModelError
from avsr.families.own.config import ModelConfig
from avsr.families.own.network import LipFrames, Network
from avsr.grid import CROP_PX, HOP_MS, LIP_INPUT_PX, SLOT_MS
from avsr.lips.crops import centre_crop
from avsr.nn.context import AttentionContext
from avsr.sound.mel import LogMel

LEAST_LOG_PROB = -1000.0
"""A trained network stays above -100, even for units that it is sure are wrong. Broken weights go far below."""

EncodedT = TypeVar("EncodedT", "EncodedAudio", "EncodedLips")


class EncodedAudio(NamedTuple):
    """A batch of sounds after the audio encoder."""

    frames_BTD: Tensor
    lengths: Tensor
    """Frames of each item without padding, int64 [B]."""


class EncodedLips(NamedTuple):
    """A batch of lips after the visual encoder."""

    frames: LipFrames
    lengths: Tensor
    """Frames of each item without padding, int64 [B]: the same numbers as for the sound they were encoded for."""
    crops: Sequence[Crops]
    present: Sequence[Present]


class OwnEngine:
    """A loaded network and its units.

    dtype: torch.bfloat16 or torch.float16 computes in that precision where it pays; None or float32 in full. The
    weights stay float32.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.network = network.eval().to(self.device)
        self.tokenizer = tokenizer
        self.dtype = dtype or torch.float32
        self.log_mel = LogMel(network.config.mel).to(self.device)
        self._attention: AttentionContext | None = None
        self.network.pack(self.dtype)

    @property
    def config(self) -> ModelConfig:
        return self.network.config

    @property
    def frame_ms(self) -> int:
        return self.config.frame_ms

    def in_chunks(self, chunk_ms: int) -> OwnEngine:
        """The same engine under the attention mask of a stream: one pass gives what chunks of `chunk_ms` would.

        Raises ConfigError for chunks that the model was not trained for.
        """
        # A shallow copy: both engines share the weights.
        chunked = copy.copy(self)
        chunked._attention = self.config.chunk_context(chunk_ms)
        return chunked

    def features(self, samples: Sequence[Samples]) -> tuple[Tensor, Tensor]:
        """Log-mel features of utterances: float32 [B, n_mels, T], frame counts [B] (10 ms each).

        samples: arrays [S] at 16 kHz in [-1, 1], of any lengths. Raises ValueError for another shape or for values
        that are not finite.
        """
        padded_BS, counts = _pad(samples)
        return self.log_mel(padded_BS.to(self.device), counts.to(self.device))

    @torch.inference_mode()
    def encode_audio(self, samples: Sequence[Samples]) -> EncodedAudio:
        """See `avsr.engine.Engine`. Raises ValueError as `features` does."""
        mel_BFT, lengths = self.features(samples)
        if mel_BFT.shape[-1] == 0:  # less than 10 ms of sound
            width = self.config.audio_encoder.conformer.width
            return EncodedAudio(mel_BFT.new_zeros(len(mel_BFT), 0, width), lengths * 0)
        with self.precision():
            frames_BTD, frame_lengths, _ = self.network.audio_encoder(mel_BFT, lengths, attention=self._attention)
        return self._ready(EncodedAudio(frames_BTD, frame_lengths))

    @torch.inference_mode()
    def encode_lips(
        self, crops: Sequence[Crops], present: Sequence[Present], audio: EncodedAudio | None = None
    ) -> EncodedLips:
        """See `avsr.engine.Engine`.

        Raises ValueError for other arrays or numbers of them, ModelError if the model does not read lips.
        """
        if self.network.visual_encoder is None:
            raise ModelError(f"model {self.config.name} only hears", remedy="use a model that reads lips")
        expected = len(crops if audio is None else audio.lengths)
        if not len(crops) == len(present) == expected:
            raise ValueError(f"got {len(crops)} lips and {len(present)} presences, expected {expected} of each")
        lips_BT1HW, present_BT = self.lip_tensors(crops, present)
        if audio is None:
            lengths = self.lip_lengths(crops)
            frames = int(lengths.max())
        else:
            # Sound and lips of a recording end at different times. The sound counts, because the fusion joins frame by
            # frame.
            lengths, frames = audio.lengths, audio.frames_BTD.shape[1]
        if frames == 0:
            empty_BTD = lips_BT1HW.new_zeros(len(crops), 0, self.config.audio_encoder.conformer.width)
            return EncodedLips(LipFrames(empty_BTD, present_BT[:, :0]), lengths, crops, present)
        with self.precision():
            encoded, _ = self.network.encode_lips(lips_BT1HW, present_BT, lengths, frames, attention=self._attention)
        return self._ready(EncodedLips(encoded, lengths, crops, present))

    @torch.inference_mode()
    def log_probs(self, audio: EncodedAudio | None, lips: EncodedLips | None) -> list[LogProbs]:
        """Log-probabilities float32 [T, V + 1] of each item, the blank last.

        Lips that were encoded alone, or with other sound, go with this sound if their frames are as many. Lips that
        were encoded with sound can be decoded alone. Raises ValueError for neither, or for different lengths.
        """
        if audio is None and lips is not None and not torch.equal(lips.lengths, self.lip_lengths(lips.crops)):
            lips = self.encode_lips(lips.crops, lips.present)  # the sound they were encoded for is longer or shorter
        if audio is None and lips is None:
            raise ValueError("log_probs: got neither samples nor lips, expected at least one")
        if audio is not None and lips is not None and not torch.equal(audio.lengths, lips.lengths):
            raise ValueError(f"got sound of {audio.lengths.tolist()} frames, lips of {lips.lengths.tolist()}")
        lengths = audio.lengths if audio is not None else lips.lengths  # type: ignore[union-attr]
        if not int(lengths.max()):
            return [np.zeros((0, self.network.blank_id + 1), np.float32) for _ in lengths]
        with self.precision():
            # The fusion of such a model is not trained yet, so its output means nothing.
            if self.config.decodes == "sides":
                log_probs_BTV = self.network.side_log_probs(
                    None if audio is None else audio.frames_BTD, None if lips is None else lips.frames
                )
            else:
                log_probs_BTV = self.network.fuse(
                    None if audio is None else audio.frames_BTD,
                    lengths,
                    None if lips is None else lips.frames,
                    attention=self._attention,
                ).log_probs
        rows = log_probs_BTV.cpu().numpy()
        return [self.checked(item_TV[:length]) for item_TV, length in zip(rows, lengths.tolist(), strict=True)]

    def checked(self, rows_TV: LogProbs) -> LogProbs:
        """The same rows. Raises ModelError for NaN, and for values that only broken weights give."""
        if not rows_TV.min(initial=0.0) >= LEAST_LOG_PROB:
            raise ModelError(
                f"model {self.config.name} gives no log-probabilities",
                got=rows_TV.min(),
                expected=f"{LEAST_LOG_PROB:.0f} to 0",
                remedy=BROKEN,
            )
        return rows_TV

    def decode(self, audio: EncodedAudio | None, lips: EncodedLips | None, search: Search) -> list[list[Spoken]]:
        """See `avsr.engine.Engine`."""
        frame_search = self.frame_search(search)
        return [
            frame_search.words(frame_search.step(log_probs_TV, frame_search.initial_state()))
            for log_probs_TV in self.log_probs(audio, lips)
        ]

    def frame_search(self, search: Search) -> GreedySearch:
        """See `avsr.engine.FrameEngine`."""
        return GreedySearch(self.tokenizer, frame_s=self.frame_ms / 1000)

    def lip_lengths(self, crops: Sequence[Crops]) -> Tensor:
        """How many frames these lips are by themselves: int64 [B]."""
        counts = torch.tensor([len(item) * SLOT_MS // HOP_MS for item in crops], device=self.device)
        return self.network.audio_encoder.subsampling.output_lengths(counts)

    def lip_tensors(self, crops: Sequence[Crops], present: Sequence[Present]) -> tuple[Tensor, Tensor]:
        """Crops and presence as the network takes them: float32 [B, T_lip, 1, 88, 88] in [0, 1], bool [B, T_lip]."""
        slots = max(len(item) for item in crops)
        padded_BTHW = np.zeros((len(crops), slots, LIP_INPUT_PX, LIP_INPUT_PX), np.uint8)
        present_BT = np.zeros((len(crops), slots), bool)
        for index, (item_THW, there_T) in enumerate(zip(crops, present, strict=True)):
            if item_THW.dtype != np.uint8 or item_THW.shape[1:] != (CROP_PX, CROP_PX):
                raise ValueError(f"lips {index}: got {item_THW.dtype} {item_THW.shape}, expected uint8 [T, 96, 96]")
            if len(there_T) != len(item_THW):
                raise ValueError(
                    f"presence {index}: got {len(there_T)} slots, expected {len(item_THW)}, as many as crops"
                )
            padded_BTHW[index, : len(item_THW)] = centre_crop(item_THW)
            present_BT[index, : len(item_THW)] = there_T
        lips_BT1HW = torch.from_numpy(padded_BTHW).to(self.device)[:, :, None].float() / 255
        return lips_BT1HW, torch.from_numpy(present_BT).to(self.device)

    def precision(self) -> torch.autocast:
        """The context that the network runs under, after its weights are packed where they can be."""
        # Packed weights multiply in their dtype by themselves; autocast is for machines without the kernels.
        reduced = self.dtype != torch.float32 and not self.network.pack(self.dtype)
        if not reduced:
            self.network.pack()  # whatever trains, saves or moves the weights unpacks them
        return torch.autocast(self.device.type, dtype=self.dtype if reduced else None, enabled=reduced)

    def _ready(self, encoded: EncodedT) -> EncodedT:
        """`encoded`, when it is computed: a GPU works on after the call returns, and callers measure time."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return encoded


def _pad(samples: Sequence[Samples]) -> tuple[Tensor, Tensor]:
    arrays = [np.asarray(array) for array in samples]
    for index, array in enumerate(arrays):
        check_form(array, f"samples {index}")
    padded_BS = np.zeros((len(arrays), max((len(array) for array in arrays), default=0)), np.float32)
    for index, array in enumerate(arrays):
        padded_BS[index, : len(array)] = array
    return torch.from_numpy(padded_BS), torch.tensor([len(array) for array in arrays], dtype=torch.int64)
