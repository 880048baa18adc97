"""Our own network as a stream engine: one chunk at a time, with everything it remembers in an explicit state.

Chunk after chunk equals one pass over the whole stream under the same attention mask.

Letters: S samples, F mel filters, T frames (T_lip slots), V units.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from avsr.arrays import LogProbs, Samples
from avsr.engine import Chunk, StreamPlan
from avsr.errors import ConfigError
from avsr.families.own.engine import OwnEngine
from avsr.families.own.network import NetworkState
from avsr.grid import HOP_SAMPLES
from avsr.nn.context import AttentionContext
from avsr.sound.mel import LOOK_AHEAD_SAMPLES, PAST_FRAMES


class OwnStreamState(NamedTuple):
    """What a stream remembers."""

    network: NetworkState
    """Caches of the encoders and the fusion."""
    frames: int
    """Frames encoded so far."""
    mel_frames: int
    """Log-mel frames encoded so far."""
    tail_S: Samples
    """The samples that the next log-mel frames read too."""
    tail_from: int
    """The log-mel frame at which the tail begins."""


class OwnStream:
    """One engine for many streams. Raises ConfigError if the model cannot stream in such chunks.

    chunk_ms: after which words are shown. look_ahead_ms: how much longer the chunks of the network are.
    """

    def __init__(self, engine: OwnEngine, chunk_ms: int, look_ahead_ms: int, *, lips: bool) -> None:
        config = engine.config
        attention = config.chunk_context(chunk_ms + look_ahead_ms)
        if config.mel.normalize == "per_feature":
            raise ConfigError(
                f"model {config.name} cannot stream: its features are normalised over the whole recording"
            )
        if chunk_ms < 1 or look_ahead_ms < 0 or chunk_ms % config.frame_ms or look_ahead_ms % chunk_ms:
            raise ConfigError(
                "wrong chunks",
                got=f"chunk_ms {chunk_ms}, look_ahead_ms {look_ahead_ms}",
                expected=f"a multiple of {config.frame_ms}, and a multiple of the chunk",
            )
        self._engine = engine
        self._attention: AttentionContext = attention
        per_frame = config.audio_encoder.subsampling
        self.plan = StreamPlan(
            frame_ms=config.frame_ms,
            chunk_frames=attention.right + 1,
            step_frames=chunk_ms // config.frame_ms,
            # Causal subsampling ends a frame with the first of its log-mel frames, others with the last.
            edge_samples=(1 - per_frame) * HOP_SAMPLES if config.audio_encoder.subsampling_causal else 0,
            look_ahead_samples=LOOK_AHEAD_SAMPLES,
            look_ahead_slots=engine.network.look_ahead_slots if lips else 0,
        )

    def initial_state(self) -> OwnStreamState:
        """See `avsr.engine.StreamEngine`."""
        with torch.inference_mode():
            network = self._engine.network.initial_state(1, attention=self._attention)
        return OwnStreamState(network, 0, 0, np.zeros(0, np.float32), 0)

    @torch.inference_mode()
    def step(self, chunk: Chunk, state: OwnStreamState) -> tuple[LogProbs, OwnStreamState]:
        """See `avsr.engine.StreamEngine`."""
        engine, network = self._engine, self._engine.network
        samples_S = np.concatenate((state.tail_S, chunk.samples))
        mel_end = self.plan.edge(state.frames + chunk.frames) // HOP_SAMPLES
        if chunk.is_last:  # the last frame is as short as its sound
            mel_end = min(mel_end, state.tail_from + len(samples_S) // HOP_SAMPLES)
        mel_1FT = engine.log_mel.piece(
            torch.from_numpy(samples_S)[None].to(engine.device),
            state.mel_frames - state.tail_from,
            mel_end - state.tail_from,
        )
        lips_1T1HW = present_1T = None
        # Without any lips the network runs without their tensors: the result is the same and costs less.
        if chunk.present.any():
            lips_1T1HW, present_1T = engine.lip_tensors([chunk.crops], [chunk.present])
        heard_1 = None
        # Only the fusion can replace lost sound; a model of sound alone reads the silence.
        if not chunk.heard and network.fusion is not None:
            heard_1 = torch.tensor([False], device=engine.device)
        lengths_1 = torch.tensor([mel_1FT.shape[-1]], device=engine.device)
        with engine.precision():
            output = network(
                mel_1FT, lengths_1, lips_1T1HW, present_1T, state.network, heard=heard_1, attention=self._attention
            )
        log_probs_1TV = output.log_probs
        if engine.config.decodes == "sides" and output.audio_log_probs is not None:
            log_probs_1TV = output.audio_log_probs
        assert output.state is not None
        # The transform of the next frame begins before its own 10 ms, so the end of this chunk is read twice.
        tail_from = max(state.tail_from, mel_end - PAST_FRAMES)
        tail_S = samples_S[(tail_from - state.tail_from) * HOP_SAMPLES :].copy()
        next_state = OwnStreamState(output.state, state.frames + chunk.frames, mel_end, tail_S, tail_from)
        # A copy: an inference tensor's memory must not be changed by those who get the array.
        return engine.checked(log_probs_1TV[0].float().cpu().numpy().copy()), next_state
