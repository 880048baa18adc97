"""Reads the YAML of a `.nemo` archive into our `ModelConfig`, and refuses settings that this package cannot compute.

Every setting is taken by name. One that is left over is refused by its name, because an unknown setting may change the
model's results.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avsr.decoding.tokenizer import MAX_UNITS
from avsr.errors import ModelError
from avsr.families.own.config import AudioEncoderConfig, ModelConfig
from avsr.grid import HOP_SAMPLES, SAMPLE_RATE_HZ
from avsr.nn.conformer_shape import ConformerShape
from avsr.nn.context import AttentionContext
from avsr.nn.sizes import (
    MAX_CONTEXT_FRAMES,
    MAX_CONTEXTS,
    MAX_EXPANSION,
    MAX_GLOBAL_SPACING,
    MAX_GLOBAL_TOKENS,
    MAX_HEADS,
    MAX_KERNEL,
    MAX_LAYERS,
    MAX_MELS,
    MAX_WIDTH,
)
from avsr.sound.mel import FFT_SAMPLES, LOG_GUARD, PREEMPHASIS, WINDOW_SAMPLES
from avsr.sound.mel_config import MelConfig
from avsr.untrusted.settings import parse_yaml
from avsr.untrusted.values import shown

CONFIG_MEMBER = "model_config.yaml"
MAX_CONFIG_BYTES = 1 << 20
"""Multilingual models list their vocabulary up to three times, which takes half of this."""

HEADS = {
    "EncDecCTCModelBPE": ("decoder",),
    "EncDecHybridRNNTCTCBPEModel": ("aux_ctc", "decoder"),
}
"""The classes that have a CTC head on word pieces, and the path of the section with the head's settings."""


def read_settings(data: bytes, path: Path) -> Mapping[str, Any]:
    """The mapping in the YAML text. `path` is for errors. Raises ModelError if the text is not valid YAML."""
    content = parse_yaml(data, f"{path}: {CONFIG_MEMBER}", ModelError, most_bytes=MAX_CONFIG_BYTES)
    # Some archives hold the training configuration, with the model as one section of it.
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict):
        raise ModelError(f"{path}: {CONFIG_MEMBER}", got=type(content).__name__, expected="key: value lines")
    return content


def tokenizer_member(content: Mapping[str, Any], path: Path) -> str:
    """The name of the archive's member that holds the SentencePiece model. Raises ModelError for other tokenizers."""
    section = _Section(content, path).section("tokenizer")
    kind = section.take("type", None)
    if kind != "bpe":
        raise section.refuse("type", kind, "bpe (SentencePiece)")
    reference = section.take("model_path", None)
    if not isinstance(reference, str):
        raise section.refuse("model_path", reference, "a SentencePiece model")
    # Only the last part of the name counts, as for all members: it never becomes a path.
    return reference.removeprefix("nemo:").rpartition("/")[2]


class _Section:
    """One section of the configuration. Each setting is taken out; `finish` refuses those that are left.

    Every method raises ModelError that names the setting if its value is not supported.
    """

    def __init__(self, content: Mapping[str, Any], path: Path, name: str = "") -> None:
        # A copy, because settings are taken out.
        self._content, self._path, self._name = dict(content), path, name

    def refuse(self, key: str, got: object, expected: object = None) -> ModelError:
        """The error for a setting that is not supported."""
        return ModelError(f"{self._path}: {self._name}{key} is not supported", got=shown(got), expected=expected)

    def take(self, key: str, default: Any) -> Any:
        """The value, unchecked, or the default of the format."""
        return self._content.pop(key, default)

    def section(self, key: str) -> _Section:
        value = self.take(key, None)
        if not isinstance(value, Mapping):
            raise self.refuse(key, value, "a section")
        return _Section(value, self._path, f"{self._name}{key}.")

    def integer(self, key: str, default: int | None, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self.take(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.refuse(key, value, f"{low} to {high}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, value, "true or false")
        return value

    def choice(self, key: str, default: Any, choices: Mapping[Any, Any]) -> Any:
        """What the value means: `choices` maps each supported value to its meaning."""
        value = self.take(key, default)
        for known, meaning in choices.items():
            # In Python True == 1, but as settings they are different.
            if value == known and isinstance(value, bool) == isinstance(known, bool):
                return meaning
        raise self.refuse(key, value, " or ".join(str(known) for known in choices))

    def class_name(self, expected: str) -> None:
        """Check the class that the section configures, whatever module it is in."""
        value = self.take("_target_", expected)
        if not isinstance(value, str) or value.rpartition(".")[2] != expected:
            raise self.refuse("_target_", value, expected)

    def ignore(self, *keys: str) -> None:
        """Take out settings that do not change results."""
        for key in keys:
            self._content.pop(key, None)

    def finish(self) -> None:
        """Refuse the settings that are left: an unknown setting may change results."""
        for key, value in self._content.items():
            raise self.refuse(str(key), value)


def model_class(content: Mapping[str, Any], path: Path) -> str:
    """The class of the model, a key of HEADS. Raises ModelError for other classes."""
    target = content.get("target")
    kind = target.rpartition(".")[2] if isinstance(target, str) else ""
    if re.search("RNNT|TDT|Transducer", kind) and kind not in HEADS:
        what = f"{path}: this is a transducer model without a CTC head, which cannot be read yet"
        raise ModelError(what, got=shown(kind), remedy="choose a CTC model or a hybrid one")
    if kind not in HEADS:
        raise _Section(content, path).refuse("target", target, " or ".join(HEADS))
    return kind


def read_nemo_config(content: Mapping[str, Any], path: Path, vocabulary_size: int) -> ModelConfig:
    """Our configuration of the archive's model.

    Raises ModelError that names the setting if one is not supported or if they contradict each other.
    """
    root = _Section(content, path)
    if root.take("sample_rate", SAMPLE_RATE_HZ) != SAMPLE_RATE_HZ:
        raise root.refuse("sample_rate", content["sample_rate"], SAMPLE_RATE_HZ)
    mel = _mel_config(root.section("preprocessor"))
    encoder = _encoder_config(root.section("encoder"), mel)
    head = root
    for name in HEADS[model_class(content, path)]:
        head = head.section(name)
    units = head.integer("num_classes", None, 1, MAX_UNITS)
    if units != vocabulary_size:
        raise head.refuse("num_classes", units, f"{vocabulary_size}, the size of the tokenizer")
    if head.take("feat_in", None) not in (None, encoder.conformer.width):
        raise head.refuse("feat_in", "another width", encoder.conformer.width)
    head.class_name("ConvASRDecoder")
    head.ignore("vocabulary", "init_mode")
    head.finish()
    try:
        return ModelConfig(name=path.stem, vocabulary_size=vocabulary_size, mel=mel, audio_encoder=encoder)
    except ValueError as error:
        raise ModelError(f"{path}: not supported", got=error) from None


def _mel_config(section: _Section) -> MelConfig:
    section.class_name("AudioToMelSpectrogramPreprocessor")
    # Each default is the format's own: it holds if the archive leaves the setting out.
    for key, default, expected in (
        ("sample_rate", SAMPLE_RATE_HZ, (SAMPLE_RATE_HZ,)),
        ("window_size", 0.02, (WINDOW_SAMPLES / SAMPLE_RATE_HZ,)),
        ("window_stride", 0.01, (HOP_SAMPLES / SAMPLE_RATE_HZ,)),
        ("n_window_size", None, (None, WINDOW_SAMPLES)),
        ("n_window_stride", None, (None, HOP_SAMPLES)),
        ("window", "hann", ("hann",)),
        ("n_fft", None, (FFT_SAMPLES, None)),
        ("preemph", PREEMPHASIS, (PREEMPHASIS,)),
        ("lowfreq", 0, (0,)),
        ("highfreq", None, (None, SAMPLE_RATE_HZ / 2)),
        ("log", True, (True,)),
        ("log_zero_guard_type", "add", ("add",)),
        ("log_zero_guard_value", LOG_GUARD, (LOG_GUARD,)),
        ("mag_power", 2.0, (2.0,)),
        ("mel_norm", "slaney", ("slaney",)),
        ("frame_splicing", 1, (1,)),
        ("exact_pad", False, (False,)),
        ("stft_exact_pad", False, (False,)),
        ("use_torchaudio", False, (False,)),
    ):
        section.choice(key, default, {value: value for value in expected})
    # Dither and augmentation are for training. Padding has no influence: frames past the end are masked everywhere.
    section.ignore("dither", "pad_to", "pad_value", "nb_augmentation_prob", "nb_max_freq", "rng", "stft_conv")
    mel = MelConfig(
        n_mels=section.integer("features", 64, 1, MAX_MELS),
        normalize=section.choice(
            "normalize", "per_feature", {"per_feature": "per_feature", "NA": "none", None: "none"}
        ),
    )
    section.finish()
    return mel


def _encoder_config(section: _Section, mel: MelConfig) -> AudioEncoderConfig:
    section.class_name("ConformerEncoder")
    if section.integer("feat_in", mel.n_mels, 1, MAX_MELS) != mel.n_mels:
        raise section.refuse("feat_in", "another number than features", mel.n_mels)
    width = section.integer("d_model", None, 1, MAX_WIDTH)
    section.choice("feat_out", -1, {-1: None, 0: None, None: None, width: None})
    heads = section.integer("n_heads", 4, 1, MAX_HEADS)
    if width % heads or width % 2:
        raise section.refuse("n_heads", heads, f"a divisor of {width}")
    kernel = section.integer("conv_kernel_size", 31, 1, MAX_KERNEL)
    channels = section.take("subsampling_conv_channels", -1)
    if (
        not isinstance(channels, int)
        or isinstance(channels, bool)
        or not (channels == -1 or 1 <= channels <= MAX_WIDTH)
    ):
        raise section.refuse("subsampling_conv_channels", channels, f"-1 or 1 to {MAX_WIDTH}")
    contexts = _contexts(section)
    shape = ConformerShape(
        width=width,
        layers=section.integer("n_layers", None, 1, MAX_LAYERS),
        heads=heads,
        expansion=section.integer("ff_expansion_factor", 4, 1, MAX_EXPANSION),
        kernel=kernel,
        **_convolution_context(section, kernel),
        conv_norm=section.choice("conv_norm_type", "batch_norm", {"batch_norm": "batch", "layer_norm": "layer"}),
        use_bias=section.flag("use_bias", True),
        # Without global tokens the archive holds no weights for them.
        global_projections=section.flag("global_attn_separate", False) and contexts[0].global_tokens > 0,
    )
    config = AudioEncoderConfig(
        conformer=shape,
        subsampling=section.choice("subsampling_factor", 4, {2: 2, 4: 4, 8: 8}),
        subsampling_channels=width if channels == -1 else channels,
        subsampling_kind=section.choice("subsampling", "striding", {"dw_striding": "depthwise", "striding": "plain"}),
        subsampling_causal=section.flag("causal_downsampling", False),
        attention=contexts[0],
        attention_choices=contexts[1:],
        scale_input=section.flag("xscaling", True),
    )
    section.choice("reduction", None, {None: None})
    section.choice("conv_dual_mode", False, {False: False})
    section.ignore(
        "att_context_probs",  # how often each context was trained
        "untie_biases",  # the biases are stored in each layer either way
        "pos_emb_max_len",  # positions are computed up to the length of the input
        "reduction_position",
        "reduction_factor",
        "subsampling_conv_chunking_factor",
        "use_pytorch_sdpa",
        "use_pytorch_sdpa_backends",
        "sync_max_audio_length",
        "dropout",
        "dropout_pre_encoder",
        "dropout_emb",
        "dropout_att",
        "stochastic_depth_drop_prob",
        "stochastic_depth_mode",
        "stochastic_depth_start_layer",
    )
    section.finish()
    return config


def _contexts(section: _Section) -> tuple[AttentionContext, ...]:
    """The attention contexts that the model was trained for, the default first."""
    model = section.take("self_attention_model", "rel_pos")
    if model not in ("rel_pos", "rel_pos_local_attn"):
        raise section.refuse("self_attention_model", model, "rel_pos or rel_pos_local_attn")
    style = section.choice("att_context_style", "regular", {"regular": "regular", "chunked_limited": "chunked"})
    tokens = section.integer("global_tokens", 0, 0, MAX_GLOBAL_TOKENS)
    spacing = section.integer("global_tokens_spacing", 1, 1, MAX_GLOBAL_SPACING)
    extra = {}
    if model == "rel_pos_local_attn":
        if style != "regular":
            raise section.refuse("att_context_style", "chunked_limited", "regular with rel_pos_local_attn")
        style = "local"
        extra = {"global_tokens": tokens, "global_spacing": spacing if tokens else 1}
    value = section.take("att_context_size", None)
    sizes = [-1, -1] if value is None else value  # without limit on either side
    if not isinstance(sizes, list) or not 1 <= len(sizes) <= MAX_CONTEXTS:
        raise section.refuse("att_context_size", value, "[left, right], or a list of such")
    contexts = []
    for size in sizes if isinstance(sizes[0], list) else [sizes]:
        limits_are_whole = isinstance(size, list) and len(size) == 2 and {type(limit) for limit in size} == {int}
        if not limits_are_whole or not -1 <= min(size) <= max(size) <= MAX_CONTEXT_FRAMES:
            raise section.refuse("att_context_size", size, f"[left, right], each -1 to {MAX_CONTEXT_FRAMES}")
        try:
            contexts.append(AttentionContext(style=style, left=size[0], right=size[1], **extra))
        except ValueError as error:
            raise section.refuse("att_context_size", size, error) from None
    return tuple(contexts)


def _convolution_context(section: _Section, kernel: int) -> dict[str, Any]:
    """The arguments of ConformerShape that say how far the depthwise convolutions reach."""
    value = section.take("conv_context_size", None)
    if isinstance(value, list) and len(value) == 2 and {type(limit) for limit in value} == {int}:
        left, right = value
        if left >= 0 <= right and left + right + 1 == kernel:
            if right == 0:
                return {"conv_context": "causal"}
            return {"conv_look_ahead": None if left == right else right}
    elif value == "causal":
        return {"conv_context": "causal"}
    elif value is None and kernel % 2:
        return {}  # symmetric, our default
    raise section.refuse("conv_context_size", value, f"null, causal, or [left, right] that fit a kernel of {kernel}")
