"""Everything that changes a model's numbers, in one frozen tree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from avsr.errors import ConfigError
from avsr.grid import HOP_MS, Modality
from avsr.nn.conformer import ConformerShape
from avsr.nn.masks import AttentionContext
from avsr.sound.mel import MelConfig

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class AudioEncoderConfig:
    """FastConformer over log-mel frames.

    subsampling: mel frames per encoder frame. subsampling_channels, subsampling_kind: of its convolutions.
    subsampling_causal: they look one frame further back and not ahead. conformer: the blocks. attention: how far a
    frame may look; attention_choices: other contexts that the model was trained for, chunked ones with the lips and the
    fusion too (`FusionConfig.contexts`). scale_input: multiply by sqrt(width) before the blocks, as published models
    do.
    """

    conformer: ConformerShape
    subsampling: int = 8
    subsampling_channels: int = 64
    subsampling_kind: Literal["depthwise", "plain"] = "depthwise"
    subsampling_causal: bool = False
    attention: AttentionContext = field(default_factory=AttentionContext)
    attention_choices: tuple[AttentionContext, ...] = ()
    scale_input: bool = False

    def __post_init__(self) -> None:
        if self.subsampling not in (2, 4, 8, 16):
            raise ValueError(f"subsampling: got {self.subsampling}, expected 2, 4, 8 or 16")
        if self.subsampling_channels < 1:
            raise ValueError(f"subsampling_channels: got {self.subsampling_channels}, expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class VisualEncoderConfig:
    """Convolutional trunk over lip crops, then Conformer blocks.

    trunk: "light", four convolutions for CPUs, or "resnet18", the front end of Auto-AVSR at 60 times the cost.
    channels: of the stages of the light one. The first layer reads `stem_slots` neighbouring crops at once, of which
    `stem_look_ahead` lie in the future. normalize: each crop by its own mean and deviation ("each"), or all by `mean`
    and `std` of the grey in [0, 1] ("fixed"; the published Auto-AVSR weights expect the defaults). conformer: the
    blocks over slots of 40 ms, whose outputs are joined two by two. attention: how far they look, in frames of 80 ms as
    everywhere else.
    """

    conformer: ConformerShape
    trunk: Literal["light", "resnet18"] = "light"
    channels: tuple[int, ...] = (24, 48, 96, 128)
    stem_slots: int = 5
    stem_look_ahead: int = 2
    normalize: Literal["each", "fixed"] = "each"
    mean: float = 0.421
    std: float = 0.165
    attention: AttentionContext = field(default_factory=AttentionContext)

    def __post_init__(self) -> None:
        if not 0 <= self.stem_look_ahead < self.stem_slots:
            raise ValueError(f"stem_look_ahead: got {self.stem_look_ahead}, expected 0 to {self.stem_slots - 1}")
        if len(self.channels) != 4 or min(self.channels) < 1:
            raise ValueError(f"channels: got {list(self.channels)}, expected 4 stages of 1 or more")
        if self.trunk == "resnet18" and self.channels != type(self).channels:
            raise ValueError("channels: expected none with trunk resnet18, whose sizes are fixed")
        if self.std <= 0:
            raise ValueError(f"std: got {self.std}, expected more than 0")


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Transformer over 80 ms frames that may look at the lips.

    layers, heads, expansion, dropout: of the transformer. attention: over the sound. lips: the window of lip frames
    around each frame; mouths lead the sound by 100 to 300 ms, so it reaches further back than ahead. gated: sound and
    lips each pass a gate, instead of one linear map that joins both; docs/experiments.md compares them.
    """

    layers: int = 2
    heads: int = 4
    expansion: int = 4
    dropout: float = 0.1
    attention: AttentionContext = field(default_factory=AttentionContext)
    lips: AttentionContext = field(default_factory=lambda: AttentionContext(left=5, right=3))
    gated: bool = False

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "expansion"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 1 or more")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: got {self.dropout}, expected 0 to 1")

    def contexts(self, attention: AttentionContext | None) -> tuple[AttentionContext, AttentionContext]:
        """What a frame sees of the sound and of the lips when the encoders run with `attention`, None for their own.

        In chunks both end with the chunk, and the window of the lips is rounded up to whole chunks.
        """
        if attention is None or attention.chunk is None:
            return self.attention, self.lips
        left = -1 if self.lips.left < 0 else -(-self.lips.left // attention.chunk) * attention.chunk
        return attention, AttentionContext(style="chunked", left=left, right=attention.right)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A whole audio-visual recogniser.

    name: what it is called in transcripts. vocabulary_size: output units without the CTC blank, which is the last
    index. visual_encoder and fusion may be absent together: a model that only hears. trained: what it was trained to
    recognise from, None for all that its parts allow. decodes: whose CTC heads give the result, that of the fusion, or
    of a model whose fusion is not trained yet those of the two sides.
    """

    name: str
    vocabulary_size: int
    audio_encoder: AudioEncoderConfig
    visual_encoder: VisualEncoderConfig | None = None
    fusion: FusionConfig | None = None
    mel: MelConfig = field(default_factory=MelConfig)
    trained: tuple[Modality, ...] | None = None
    decodes: Literal["fused", "sides"] = "fused"
    domain: str | None = None
    """What the model knows if not ordinary speech, as in "the 51 words of GRID": users are told on every run."""
    licence: str | None = None
    """SPDX identifier of the licence of the weights."""
    languages: tuple[str, ...] = ()
    """Codes such as "en"; empty: not said."""

    def __post_init__(self) -> None:
        if self.vocabulary_size < 1:
            raise ValueError(f"vocabulary_size: got {self.vocabulary_size}, expected 1 or more")
        if (self.visual_encoder is None) != (self.fusion is None):
            raise ValueError("visual_encoder and fusion: expected both or neither")
        if self.visual_encoder is not None:
            audio, visual = self.audio_encoder.conformer.width, self.visual_encoder.conformer.width
            if audio != visual:
                raise ValueError(f"visual_encoder width: got {visual}, expected {audio} as in audio_encoder")
            if self.audio_encoder.subsampling != 8:
                raise ValueError(f"subsampling: got {self.audio_encoder.subsampling}, expected 8 (80 ms) beside lips")
            if self.fusion is not None and audio % self.fusion.heads:
                raise ValueError(f"fusion heads: got {self.fusion.heads}, expected a divisor of the width {audio}")
        can = ("a",) if self.visual_encoder is None else ("a", "v", "av")
        if self.trained is not None and not (self.trained and set(self.trained) <= set(can)):
            raise ValueError(f"trained: got {', '.join(self.trained) or 'nothing'}, expected some of {', '.join(can)}")
        if self.decodes == "sides" and "av" in self.modalities:
            raise ValueError("decodes: got sides, expected fused for a model that is trained for av")

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What it can recognise from."""
        if self.trained is not None:
            return self.trained
        return ("a",) if self.visual_encoder is None else ("a", "v", "av")

    @property
    def chunk_contexts(self) -> dict[int, AttentionContext]:
        """The chunks that this model can stream in: frames -> attention context, the shortest first."""
        audio = self.audio_encoder
        known = {
            c.chunk: c for c in (audio.attention, *audio.attention_choices) if c.chunk is not None and c.streamable
        }
        return dict(sorted(known.items()))

    def chunk_context(self, chunk_ms: int) -> AttentionContext:
        """The attention context of chunks of so many ms. Raises ConfigError for those it was not trained for."""
        contexts = self.chunk_contexts
        if not contexts:
            raise ConfigError(
                f"model {self.name} cannot stream: it was trained on whole recordings",
                expected="a model with chunked attention",
                remedy="use transcribe, or a model that streams: avsr models says which",
            )
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
        """Duration of one output frame."""
        return HOP_MS * self.audio_encoder.subsampling
