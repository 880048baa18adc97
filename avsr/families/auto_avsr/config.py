"""The sizes of a published model, as its weights and its settings state them.

This module does not import torch. Each size is checked before anything of it is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avsr.grid import Modality
from avsr.nn.sizes import MAX_HEADS, MAX_KERNEL, MAX_LAYERS, MAX_WIDTH, check_size

Code = Literal["auto_avsr", "vsr_ml", "usr", "avhubert"]
"""The code that a model was published with. It decides how sound and pictures are normalised."""
Layout = Literal["main", "v1", "usr", "avhubert"]
"""How the weights are named."""
Positions = Literal["latest", "legacy", "none"]
"""How attention knows distances; none: the encoder has a convolution for it instead."""
Activation = Literal["swish", "relu", "prelu"]

USUAL_BEAM: dict[Code, int] = {"auto_avsr": 40, "vsr_ml": 40, "usr": 40, "avhubert": 3}
"""Hypotheses that the search keeps, by code, as the authors publish their results."""

MAX_VOCABULARY = 1 << 20
MAX_HIDDEN = 65536
"""Inner width of feed-forward layers and of the fusion. The largest published one is 8192."""
LEAST_VOCABULARY = 3
"""The blank, one unit and the end."""


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """A stack of layers over the frames of a front end. Raises ValueError for sizes that no such stack has."""

    width: int
    heads: int
    hidden: int
    """Inner width of the feed-forward layers."""
    layers: int
    kernel: int = 0
    """Of the convolution of a layer, or of the positions of AV-HuBERT; 0: without."""
    macaron: bool = False
    """Whether a layer has a second feed-forward part in front; both then count half."""
    layer_scale: bool = False
    """Whether each part of a layer has learned scales."""
    positions: Positions = "latest"
    activation: Activation = "swish"
    """In the front end."""
    stem_activation: Activation = "swish"
    """After the first convolution of the front end."""
    groups: int = 1
    """Of the convolution of the positions of AV-HuBERT."""

    def __post_init__(self) -> None:
        _check_stack("encoder", self.width, self.heads, self.hidden, self.layers)
        check_size("encoder kernel", self.kernel, MAX_KERNEL, 0)
        if self.kernel and self.positions != "none" and self.kernel % 2 == 0:
            raise ValueError(f"encoder kernel: got {self.kernel}, expected an odd number")


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """A transformer decoder, or a language model. Raises ValueError for sizes that none has."""

    width: int
    heads: int
    hidden: int
    layers: int

    def __post_init__(self) -> None:
        _check_stack("decoder", self.width, self.heads, self.hidden, self.layers)


@dataclass(frozen=True, kw_only=True)
class LanguageModelShape(DecoderShape):
    """A language model over the units of a recogniser."""

    vocabulary: int
    embedding: int
    """Width of the embedding, before it is projected to `width`."""
    sinusoidal: bool
    """Whether positions are added; without them the embedding is not scaled either."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size("vocabulary", self.vocabulary, MAX_VOCABULARY, LEAST_VOCABULARY)
        check_size("embedding", self.embedding, MAX_WIDTH)


@dataclass(frozen=True, kw_only=True)
class PublishedConfig:
    """A published model. Raises ValueError for sizes and parts that do not fit together."""

    code: Code
    layout: Layout
    vocabulary: int
    """Units of the output: the blank first, the end of a text last."""
    lips: EncoderShape | None
    """The encoder of lips; for USR and AV-HuBERT the one encoder of all."""
    sound: EncoderShape | None
    decoder: DecoderShape
    fusion: int = 0
    """Hidden channels of the layers that join two encoders; 0: there are none."""
    fusion_norm: bool = True
    """Whether these have a batch norm."""

    def __post_init__(self) -> None:
        check_size("vocabulary", self.vocabulary, MAX_VOCABULARY, LEAST_VOCABULARY)
        check_size("fusion", self.fusion, MAX_HIDDEN, 0)
        for shape in (self.lips, self.sound):
            if shape is not None and shape.width != self.decoder.width and not self.fusion:
                raise ValueError(f"decoder width: got {self.decoder.width}, expected {shape.width}, as the encoder")

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the model can recognise from, the best first."""
        if self.layout in ("usr", "avhubert"):
            return ("av", "a", "v")
        if self.fusion:
            return ("av",)
        return ("a",) if self.lips is None else ("v",)

    @property
    def end_id(self) -> int:
        """The unit that begins and ends a text."""
        return self.vocabulary - 1


def _check_stack(name: str, width: int, heads: int, hidden: int, layers: int) -> None:
    check_size(f"{name} width", width, MAX_WIDTH)
    check_size(f"{name} heads", heads, MAX_HEADS)
    check_size(f"{name} feed-forward width", hidden, MAX_HIDDEN)
    check_size(f"{name} layers", layers, MAX_LAYERS)
    if width % heads or width % 2:
        raise ValueError(f"{name} width: got {width}, expected an even multiple of the {heads} heads")
