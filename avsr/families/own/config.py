"""The configuration of a model: everything that changes its numbers, in one frozen tree.

It is written to `config.yaml` of a checkpoint. Values that contradict each other raise ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from avsr.decoding.domain import Sentences
from avsr.decoding.tokenizer import MAX_UNITS
from avsr.errors import ConfigError
from avsr.grid import HOP_MS, Modality
from avsr.nn.conformer_shape import ConformerShape
from avsr.nn.context import AttentionContext
from avsr.nn.sizes import (
    LEAST_DEVIATION,
    MAX_CONTEXT_FRAMES,
    MAX_CONTEXTS,
    MAX_DEVIATION,
    MAX_EXPANSION,
    MAX_GLOBAL_SPACING,
    MAX_GLOBAL_TOKENS,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_MEAN,
    MAX_STEM_SLOTS,
    MAX_WIDTH,
    check_size,
)
from avsr.sound.mel_config import MelConfig

MAX_LABEL_LETTERS = 200
FORMAT_VERSION = 1
"""Version of the checkpoint layout. It rises when an older avsr would misread a new checkpoint."""


@dataclass(frozen=True, kw_only=True)
class AudioEncoderConfig:
    """FastConformer over log-mel frames."""

    conformer: ConformerShape
    """The blocks after the subsampling."""
    subsampling: int = 8
    """Mel frames (10 ms) per encoder frame: 2, 4, 8 or 16."""
    subsampling_channels: int = 64
    """Channels of the subsampling's convolutions."""
    subsampling_kind: Literal["depthwise", "plain"] = "depthwise"
    """Convolutions of the subsampling after the first."""
    subsampling_causal: bool = False
    """Whether the convolutions read one frame further back instead of one frame ahead."""
    attention: AttentionContext = field(default_factory=AttentionContext)
    """How far attention reaches, in encoder frames."""
    attention_choices: tuple[AttentionContext, ...] = ()
    """Other contexts that the model was trained for. A chunked one applies to lips and fusion as well."""
    scale_input: bool = False
    """Whether the frames are multiplied by sqrt(width) before the blocks, as in published models."""

    def __post_init__(self) -> None:
        if self.subsampling not in (2, 4, 8, 16):
            raise ValueError(f"subsampling: got {self.subsampling}, expected 2, 4, 8 or 16")
        check_size("subsampling_channels", self.subsampling_channels, MAX_WIDTH)
        _check_context("attention", self.attention)
        check_size("number of attention_choices", len(self.attention_choices), MAX_CONTEXTS, 0)
        for choice in self.attention_choices:
            _check_context("attention_choices", choice)


@dataclass(frozen=True, kw_only=True)
class VisualEncoderConfig:
    """Convolutional trunk over lip crops, then Conformer blocks over slots of 40 ms, then pairs of slots."""

    conformer: ConformerShape
    """The blocks after the trunk. Their width equals the width of the audio encoder."""
    trunk: Literal["light", "resnet18"] = "light"
    """"light": four convolutions for CPUs. "resnet18": the front end of Auto-AVSR, at 60 times the cost."""
    channels: tuple[int, ...] = (24, 48, 96, 128)
    """Channels of the four stages of the light trunk."""
    stem_slots: int = 5
    """Neighbouring crops that the first layer of the trunk reads."""
    stem_look_ahead: int = 2
    """How many of the stem_slots crops lie in the future."""
    normalize: Literal["each", "fixed"] = "each"
    """"each": every crop by its own mean and deviation. "fixed": all crops by `mean` and `std`."""
    mean: float = 0.421
    """Grey in [0, 1]. The published Auto-AVSR weights expect the defaults of mean and std."""
    std: float = 0.165
    attention: AttentionContext = field(default_factory=AttentionContext)
    """How far attention of the blocks reaches, in frames of 80 ms as in the other parts."""

    def __post_init__(self) -> None:
        check_size("stem_slots", self.stem_slots, MAX_STEM_SLOTS)
        if not 0 <= self.stem_look_ahead < self.stem_slots:
            raise ValueError(f"stem_look_ahead: got {self.stem_look_ahead}, expected 0 to {self.stem_slots - 1}")
        if len(self.channels) != 4 or min(self.channels) < 1:
            raise ValueError(f"channels: got {list(self.channels)}, expected 4 stages of 1 or more")
        if self.trunk == "resnet18" and self.channels != type(self).channels:
            raise ValueError("channels: expected none with trunk resnet18, which has fixed sizes")
        for channels in self.channels:
            check_size("channels", channels, MAX_WIDTH)
        check_size("mean", self.mean, MAX_MEAN, -MAX_MEAN)
        check_size("std", self.std, MAX_DEVIATION, LEAST_DEVIATION)
        _check_context("attention", self.attention)


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Transformer over audio frames of 80 ms, which attends to the lip frames around each of them."""

    layers: int = 2
    heads: int = 4
    """A divisor of the audio encoder's width."""
    expansion: int = 4
    """Inner width of the feed-forward parts, as a multiple of the width."""
    dropout: float = 0.1
    """Share of values that training sets to zero."""
    attention: AttentionContext = field(default_factory=AttentionContext)
    """How far self-attention reaches."""
    lips: AttentionContext = field(default_factory=lambda: AttentionContext(left=5, right=3))
    """The lip frames that a frame attends to. Lips move 100 to 300 ms before the sound, hence more past than future."""
    gated: bool = False
    """Whether sound and lips each pass a gate. False: one linear map joins them. docs/experiments.md compares both."""
    evidence: bool = False
    """Whether the fusion sees how well sound and lips go together, and trusts the lips by degrees (`Evidence`)."""

    def __post_init__(self) -> None:
        check_size("layers", self.layers, MAX_LAYERS)
        check_size("heads", self.heads, MAX_HEADS)
        check_size("expansion", self.expansion, MAX_EXPANSION)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: got {self.dropout}, expected 0 to 1")
        _check_context("attention", self.attention)
        _check_context("lips", self.lips)

    def contexts(self, attention: AttentionContext | None) -> tuple[AttentionContext, AttentionContext]:
        """The contexts of self-attention and of attention to the lips, if the encoders run with `attention`.

        None: the encoders run with their configured context. If `attention` is chunked, both contexts end with the
        chunk, and the window over the lips is rounded up to whole chunks.
        """
        if attention is None or attention.chunk is None:  # only chunks end what a frame may see ahead
            return self.attention, self.lips
        # Rounded up, because a chunked context counts whole chunks: rounded down, a frame would lose lips it was
        # trained with.
        left = -1 if self.lips.left < 0 else -(-self.lips.left // attention.chunk) * attention.chunk
        return attention, AttentionContext(style="chunked", left=left, right=attention.right)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A whole recogniser: of sound alone, or of sound and lips."""

    name: str
    """Shown in transcripts."""
    vocabulary_size: int
    """Number of output units without the CTC blank. The blank has this number as its index."""
    audio_encoder: AudioEncoderConfig
    visual_encoder: VisualEncoderConfig | None = None
    """None: the model reads no lips, and has no fusion either."""
    fusion: FusionConfig | None = None
    mel: MelConfig = field(default_factory=MelConfig)
    trained: tuple[Modality, ...] | None = None
    """What the model was trained to recognise speech from. None: everything its parts allow."""
    decodes: Literal["fused", "sides"] = "fused"
    """Which CTC head gives the result. "fused": the one after the fusion. "sides": the head of the sound, or of the
    lips without sound, in a model with a fusion that is not trained yet."""
    domain: str | None = None
    """The only speech that the model knows, such as "the 51 words of GRID"; shown on every run. None: not stated."""
    sentences: Sentences | None = None
    """The only sentences that the model knows. Words that do not fit them are not shown. None: all words are shown."""
    licence: str | None = None
    """SPDX identifier of the licence of the weights. None: not stated."""
    languages: tuple[str, ...] = ()
    """Codes such as "en". Empty: not stated."""

    def __post_init__(self) -> None:
        for key in ("name", "domain", "licence"):  # shown on every run
            if len(getattr(self, key) or "") > MAX_LABEL_LETTERS:
                raise ValueError(f"{key}: expected {MAX_LABEL_LETTERS} letters at most")
        check_size("vocabulary_size", self.vocabulary_size, MAX_UNITS)
        if (self.visual_encoder is None) != (self.fusion is None):
            raise ValueError("visual_encoder and fusion: expected both or neither")
        if self.visual_encoder is not None:
            audio, visual = self.audio_encoder.conformer.width, self.visual_encoder.conformer.width
            # Both sides meet in the fusion, which joins frames of one width.
            if audio != visual:
                raise ValueError(f"visual_encoder width: got {visual}, expected {audio} as in audio_encoder")
            if self.audio_encoder.subsampling != 8:  # two lip slots make one frame of 80 ms
                raise ValueError(f"subsampling: got {self.audio_encoder.subsampling}, expected 8 (80 ms) beside lips")
            if self.fusion is not None and audio % self.fusion.heads:
                raise ValueError(f"fusion heads: got {self.fusion.heads}, expected a divisor of the width {audio}")
        can = ("a",) if self.visual_encoder is None else ("a", "v", "av")
        if self.trained is not None and not (self.trained and set(self.trained) <= set(can)):
            raise ValueError(f"trained: got {', '.join(self.trained) or 'nothing'}, expected some of {', '.join(can)}")
        # The heads of the two sides cannot give one result for both together.
        if self.decodes == "sides" and "av" in self.modalities:
            raise ValueError("decodes: got sides, expected fused for a model that is trained for av")

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the model can recognise speech from."""
        if self.trained is not None:
            return self.trained
        return ("a",) if self.visual_encoder is None else ("a", "v", "av")

    @property
    def chunk_contexts(self) -> dict[int, AttentionContext]:
        """The attention contexts for streaming by the number of frames in a chunk, the shortest chunk first."""
        audio = self.audio_encoder
        known = {
            c.chunk: c for c in (audio.attention, *audio.attention_choices) if c.chunk is not None and c.streamable
        }
        return dict(sorted(known.items()))

    def chunk_context(self, chunk_ms: int) -> AttentionContext:
        """The attention context for chunks of `chunk_ms`. Raises ConfigError if the model was not trained for it."""
        contexts = self.chunk_contexts
        if not contexts:
            raise ConfigError(
                f"model {self.name} cannot stream: it was trained on whole recordings",
                expected="a model with chunked attention",
                remedy="use transcribe, or a model that streams: avsr models says which",
            )
        # Other chunks could be computed, but the network was never trained with their look-ahead.
        if chunk_ms % self.frame_ms or chunk_ms // self.frame_ms not in contexts:
            known = ", ".join(str(frames * self.frame_ms) for frames in contexts)
            raise ConfigError(
                f"model {self.name} was not trained for such chunks",
                got=f"{chunk_ms} ms",
                expected=f"one of {known} ms",
            )
        return contexts[chunk_ms // self.frame_ms]

    @property
    def frame_ms(self) -> int:
        """Duration of one output frame: 80 for all models with lips."""
        return HOP_MS * self.audio_encoder.subsampling


def _check_context(name: str, context: AttentionContext) -> None:
    """Raises ValueError for a larger context. Contexts of finer frames are larger, so they do not check themselves."""
    check_size(f"{name} left", context.left, MAX_CONTEXT_FRAMES, -1)
    check_size(f"{name} right", context.right, MAX_CONTEXT_FRAMES, -1)
    check_size(f"{name} global_tokens", context.global_tokens, MAX_GLOBAL_TOKENS, 0)
    check_size(f"{name} global_spacing", context.global_spacing, MAX_GLOBAL_SPACING)
