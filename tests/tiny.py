"""Small models with random weights, the same every time."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from avsr.decoding.tokenizer import Tokenizer, WordTokenizer
from avsr.families.own.config import AudioEncoderConfig, FusionConfig, ModelConfig, VisualEncoderConfig
from avsr.families.own.engine import OwnEngine
from avsr.families.own.family import make_model
from avsr.families.own.network import Network
from avsr.nn.conformer_shape import ConformerShape
from avsr.nn.context import AttentionContext
from avsr.recognizer import Recognizer
from avsr.sound.mel_config import MelConfig

WORDS = ("bin", "blue", "at", "f", "two", "now")
CHUNKED = AttentionContext(style="chunked", left=8, right=3)


LIVE_CHUNKS = tuple(AttentionContext(style="chunked", left=40, right=right) for right in (0, 1, 3, 7, 19))


def live_config(*, lips: bool = True) -> ModelConfig:
    """A model of a few thousand weights for whole recordings and for chunks of 80, 160, 320, 640 and 1600 ms."""
    config = tiny_config(lips=lips)
    shape = dataclasses.replace(config.audio_encoder.conformer, conv_context="chunked")
    audio = dataclasses.replace(config.audio_encoder, conformer=shape, attention_choices=LIVE_CHUNKS)
    config = dataclasses.replace(config, audio_encoder=audio)
    if config.visual_encoder is None:
        return config
    visual = dataclasses.replace(config.visual_encoder, conformer=shape)
    return dataclasses.replace(config, visual_encoder=visual)


def tiny_config(*, streaming: bool = False, lips: bool = True) -> ModelConfig:
    """A model of a few thousand weights; streaming: nothing in it needs the future."""
    context = CHUNKED if streaming else AttentionContext(left=16, right=16)
    shape = ConformerShape(
        width=32,
        layers=2,
        heads=4,
        kernel=5,
        conv_context="causal" if streaming else "symmetric",
        conv_norm="layer",
        dropout=0.1,
    )
    config = ModelConfig(
        name="tiny",
        vocabulary_size=len(WORDS),
        mel=MelConfig(normalize="fixed", mean=-10.0, std=4.0),
        audio_encoder=AudioEncoderConfig(conformer=shape, subsampling_channels=8, attention=context),
        domain="open",  # so that transcripts have no warnings but those that a test is about
    )
    if not lips:
        return config
    return dataclasses.replace(
        config,
        visual_encoder=VisualEncoderConfig(
            conformer=shape, channels=(8, 8, 8, 8), stem_look_ahead=0 if streaming else 2, attention=context
        ),
        fusion=FusionConfig(
            layers=2,
            attention=context,
            lips=AttentionContext(left=4, right=0) if streaming else AttentionContext(left=4, right=2),
        ),
    )


def tiny_network(*, streaming: bool = False, lips: bool = True, seed: int = 0) -> Network:
    """Random weights everywhere, also where training starts from zeros, so that every path matters."""
    return random_network(tiny_config(streaming=streaming, lips=lips), seed)


def live_network(*, lips: bool = True, seed: int = 0) -> Network:
    return random_network(live_config(lips=lips), seed)


def random_network(config: ModelConfig, seed: int = 0) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(config)
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1 or "bias" in name or "silence" in name:
                torch.nn.init.normal_(parameter, std=0.15)
    return network.eval()


def tiny_tokenizer() -> WordTokenizer:
    return WordTokenizer(WORDS)


def random_mel(batch: int, frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 80, frames, generator=torch.Generator().manual_seed(seed))


def random_lips(batch: int, slots: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, slots, 1, 88, 88, generator=torch.Generator().manual_seed(seed))


def random_samples(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(16_000 * seconds))).astype(np.float32)


def own_recognizer(network: Network, tokenizer: Tokenizer, *, dtype: torch.dtype | None = None) -> Recognizer:
    """A recogniser of a network that is in memory."""
    return Recognizer(make_model(network, tokenizer, dtype=dtype))


def engine_of(recognizer: Recognizer) -> OwnEngine:
    """The engine of one of our own models."""
    engine = recognizer.model.engine
    assert isinstance(engine, OwnEngine)
    return engine
