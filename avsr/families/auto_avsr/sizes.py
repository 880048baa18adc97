"""Reads the sizes of a published model from the shapes of its weights, and the rest from the settings beside them.

The settings are those that the originals read (`model.json` of VSR-ML, `config.json` of a hub). What they say of a size
must agree with the weights. What they ask for and this package does not compute is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from avsr.errors import ModelError
from avsr.families.auto_avsr.config import (
    Activation,
    Code,
    DecoderShape,
    EncoderShape,
    LanguageModelShape,
    Layout,
    Positions,
    PublishedConfig,
)
from avsr.families.auto_avsr.layouts import IN_WORDS
from avsr.untrusted.values import shown
from avsr.untrusted.weights import AGAIN

Shapes = Mapping[str, tuple[int, ...]]
Settings = Mapping[str, Any]

HUBERT_HEADS = 16
"""Of encoder and decoder if the settings do not say: the default of the published class."""
LM_DEFAULTS = {"layer": 4, "unit": 1024, "att_unit": 256, "embed_unit": 128, "head": 2, "pos_enc": "sinusoidal"}
"""What ESPnet takes for settings of a language model that are missing."""

UNSUPPORTED = {
    "a_upsample_ratio": (1, None),
    "zero_triu": (False, None),
    "transformer_input_layer": ("conv3d", "conv1d", "only_pos", None),
    "transformer_encoder_attn_layer_type": ("rel_mha", "legacy_rel_mha", None),
    "rel_pos_type": ("latest", "legacy", None),
    "relu_type": ("swish", "relu", "prelu", None),
    "ff_bn_pre": (False, None),
    "post_norm": (False, None),
}
"""By setting: the values that are computed here. Other values would change every result."""


class Sizes:
    """The shapes of one file, with errors that name the file, its layout and the weight.

    file: for errors. shapes: by the file's names. layout: None for a language model.
    """

    def __init__(self, file: object, shapes: Shapes, layout: Layout | None) -> None:
        self.file, self.shapes = file, shapes
        self._kind = "a language model" if layout is None else IN_WORDS[layout]

    def of(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a weight. Raises ModelError if it is missing or has another number of dimensions."""
        if name not in self.shapes:
            raise ModelError(
                f"{self.file}: weight {name} is missing", got=f"a file that looks like {self._kind}", remedy=AGAIN
            )
        shape = self.shapes[name]
        if len(shape) != dimensions:
            raise ModelError(f"{self.file}: weight {name} has another shape", got=shown(shape), remedy=AGAIN)
        return shape

    def has(self, name: str) -> bool:
        return name in self.shapes

    def layers(self, prefix: str) -> int:
        """How many layers are numbered under `prefix`."""
        numbers = {
            int(match[1])
            for name in self.shapes
            if (match := re.match(re.escape(prefix) + r"([0-9]{1,4})\.", name)) is not None
        }
        return max(numbers, default=-1) + 1


def read_config(file: object, shapes: Shapes, layout: Layout, settings: Settings | None) -> PublishedConfig:
    """The configuration of a model. Raises ModelError that names the weight or the setting that is wrong.

    shapes: of the file's tensors, by name. settings: beside the weights; None if there are none.
    """
    sizes = Sizes(file, shapes, layout)
    _check_settings(file, settings or {})
    try:
        if layout == "avhubert":
            return _hubert(sizes, settings or {})
        if layout == "usr":
            return _usr(sizes, settings or {})
        return _auto_avsr(sizes, layout, settings)
    except ValueError as error:
        raise ModelError(f"{file}: wrong size", got=error, remedy=AGAIN) from None


def _check_settings(file: object, settings: Settings) -> None:
    for name, values in UNSUPPORTED.items():
        for key in (name, f"aux_{name}"):
            value = settings.get(key)
            if not any(value is known or (type(value) is type(known) and value == known) for known in values):
                expected = " or ".join(str(known) for known in values if known is not None)
                raise ModelError(f"{file}: setting {key} is not supported", got=shown(value), expected=expected)


def _auto_avsr(sizes: Sizes, layout: Layout, settings: Settings | None) -> PublishedConfig:
    front = "frontend." if layout == "main" else "encoder.frontend."
    given = settings or {}
    first = _encoder(sizes, "encoder.", front, given, "", legacy=settings is not None)
    has_fusion = sizes.has("aux_encoder.embed.0.weight")
    is_lips = sizes.has(f"{front}frontend3D.0.weight")
    second, fusion = None, 0
    if has_fusion:
        second = _encoder(sizes, "aux_encoder.", "aux_encoder.frontend.", given, "aux_", legacy=settings is not None)
        fusion = sizes.of("fusion.fc1.weight", 2)[0]
    elif not is_lips:
        sizes.of(f"{front}trunk.conv1.weight", 3)  # a file with neither front end is refused by this name
    decoder = _decoder(sizes, "decoder.", given, first.heads)
    code: Code = "vsr_ml" if "char_list" in given or "labels_type" in given else "auto_avsr"
    return PublishedConfig(
        code=code,
        layout=layout,
        vocabulary=sizes.of("ctc.ctc_lo.weight", 2)[0],
        lips=first if is_lips or has_fusion else None,
        sound=second if has_fusion else (None if is_lips else first),
        decoder=decoder,
        fusion=fusion,
        fusion_norm=sizes.has("fusion.bn1.weight"),
    )


def _usr(sizes: Sizes, settings: Settings) -> PublishedConfig:
    encoder = _encoder(sizes, "encoder.", "encoder.frontend_v.", settings, "", legacy=bool(settings))
    sound = replace(encoder, activation=_activation(sizes, "encoder.frontend_a.", settings, ""))
    decoder = _decoder(sizes, "decoder.", settings, encoder.heads)
    return PublishedConfig(
        code="usr",
        layout="usr",
        vocabulary=sizes.of("ctc_v.ctc_lo.weight", 2)[0],
        lips=encoder,
        sound=sound,
        decoder=decoder,
    )


def _hubert(sizes: Sizes, settings: Settings) -> PublishedConfig:
    root = "avsr.encoder."
    width, _ = sizes.of(f"{root}post_extract_proj.weight", 2)
    _, per_group, kernel = sizes.of(f"{root}encoder.pos_conv_embed.conv.weight", 3)
    hidden, _ = sizes.of(f"{root}encoder.layers.0.feed_forward.intermediate_dense.weight", 2)
    front = f"{root}feature_extractor_video.resnet."
    if per_group < 1 or width % per_group:
        raise ValueError(f"positions: got {per_group} channels a group, expected a divisor of {width}")
    encoder = EncoderShape(
        width=_agrees(settings, "hidden_size", width),
        heads=_number(settings, "num_attention_heads", HUBERT_HEADS),
        hidden=_agrees(settings, "intermediate_size", hidden),
        layers=_agrees(settings, "num_hidden_layers", sizes.layers(f"{root}encoder.layers.")),
        kernel=kernel,
        groups=width // per_group,
        positions="none",
        activation=_activation(sizes, front, {}, ""),
        stem_activation=_stem_activation(sizes, front),
    )
    return PublishedConfig(
        code="avhubert",
        layout="avhubert",
        vocabulary=sizes.of("avsr.ctc.ctc_lo.weight", 2)[0],
        lips=encoder,
        sound=None,
        decoder=_decoder(sizes, "avsr.decoder.", settings, HUBERT_HEADS),
    )


def _encoder(sizes: Sizes, prefix: str, front: str, settings: Settings, aux: str, *, legacy: bool) -> EncoderShape:
    """An encoder. aux: what its settings begin with. legacy: whether missing settings mean the old positions."""
    layer = f"{prefix}encoders.0."
    heads, head_width = sizes.of(f"{layer}self_attn.pos_bias_u", 2)
    hidden, width = sizes.of(f"{layer}feed_forward.w_1.weight", 2)
    if heads * head_width != width:
        raise ValueError(f"encoder heads: got {heads} of width {head_width}, expected {width} together")
    kernel_name = f"{layer}conv_module.depthwise_conv.weight"
    return EncoderShape(
        width=_agrees(settings, f"{aux}adim", width),
        heads=_agrees(settings, f"{aux}aheads", heads),
        hidden=_agrees(settings, f"{aux}eunits", hidden),
        layers=_agrees(settings, f"{aux}elayers", sizes.layers(f"{prefix}encoders.")),
        kernel=sizes.of(kernel_name, 3)[2] if sizes.has(kernel_name) else 0,
        macaron=sizes.has(f"{layer}norm_ff_macaron.weight"),
        layer_scale=sizes.has(f"{layer}gamma_mha"),
        positions=_positions(settings, aux, legacy=legacy),
        activation=_activation(sizes, front, settings, aux),
        stem_activation=_stem_activation(sizes, front),
    )


def _decoder(sizes: Sizes, prefix: str, settings: Settings, heads: int) -> DecoderShape:
    """A decoder. heads: if the settings do not say; no shape tells them."""
    _, width = sizes.of(f"{prefix}embed.0.weight", 2)
    hidden, _ = sizes.of(f"{prefix}decoders.0.feed_forward.w_1.weight", 2)
    return DecoderShape(
        width=_agrees(settings, "ddim", width),
        heads=_number(settings, "dheads", _number(settings, "aheads", heads)),
        hidden=_agrees(settings, "dunits", hidden),
        layers=_agrees(settings, "dlayers", sizes.layers(f"{prefix}decoders.")),
    )


def read_language_model(file: object, shapes: Shapes, settings: Settings) -> LanguageModelShape:
    """The configuration of a language model. Raises ModelError that names the weight or setting that is wrong."""
    sizes = Sizes(file, shapes, None)
    given = {**LM_DEFAULTS, **settings}
    if given["pos_enc"] not in ("none", "sinusoidal"):
        raise ModelError(
            f"{file}: setting pos_enc is not supported", got=shown(given["pos_enc"]), expected="none or sinusoidal"
        )
    vocabulary, embedding = sizes.of("embed.weight", 2)
    hidden, width = sizes.of("encoder.encoders.0.feed_forward.w_1.weight", 2)
    try:
        return LanguageModelShape(
            vocabulary=vocabulary,
            embedding=_agrees(given, "embed_unit", embedding),
            width=_agrees(given, "att_unit", width),
            hidden=_agrees(given, "unit", hidden),
            layers=_agrees(given, "layer", sizes.layers("encoder.encoders.")),
            heads=_number(given, "head", 2),
            sinusoidal=given["pos_enc"] == "sinusoidal",
        )
    except ValueError as error:
        raise ModelError(f"{file}: wrong size", got=error, remedy=AGAIN) from None


def _positions(settings: Settings, aux: str, *, legacy: bool) -> Positions:
    kind = settings.get(f"{aux}transformer_encoder_attn_layer_type")
    if kind == "legacy_rel_mha":
        return "legacy"
    # Settings from before there was a choice do not name it, and mean the only kind that there was.
    named = settings.get("rel_pos_type")
    return "legacy" if legacy and named != "latest" else "latest"


def _activation(sizes: Sizes, front: str, settings: Settings, aux: str) -> Activation:
    if sizes.has(f"{front}trunk.layer1.0.relu1.weight"):
        return "prelu"
    return "relu" if settings.get(f"{aux}relu_type") == "relu" else "swish"


def _stem_activation(sizes: Sizes, front: str) -> Activation:
    return "prelu" if sizes.has(f"{front}frontend3D.2.weight") else "swish"


def _number(settings: Settings, name: str, default: int) -> int:
    """A whole number of the settings. Raises ValueError if it is something else."""
    value = settings.get(name)
    if value is None:
        return default
    if type(value) is not int or value < 1:
        raise ValueError(f"setting {name}: got {shown(value)}, expected a whole number from 1 on")
    return value


def _agrees(settings: Settings, name: str, size: int) -> int:
    """`size`, which the weights have. Raises ValueError if the settings say something else."""
    if _number(settings, name, size) != size:
        raise ValueError(f"setting {name}: got {shown(settings[name])}, expected {size}, as the weights")
    return size
