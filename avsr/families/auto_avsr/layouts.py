"""The names of weights in published files, and ours for them.

Three ways of naming are in use for auto_avsr and its relatives, and AV-HuBERT has its own. This module does not import
torch: it reads names and shapes only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from avsr.families.auto_avsr.config import Layout, PublishedConfig

SIGNS: dict[Layout, str] = {
    "avhubert": "avsr.encoder.post_extract_proj.weight",
    "usr": "encoder.linear_av.weight",
    "main": "proj_encoder.weight",
    "v1": "encoder.embed.0.weight",
}
"""By layout: a weight that no other layout has."""

IN_WORDS: dict[Layout, str] = {
    "avhubert": "AV-HuBERT with a decoder, in Hugging Face form",
    "usr": "USR",
    "main": "auto_avsr",
    "v1": "auto_avsr v1 or VSR-ML",
}

OTHERS = {
    "decoder.embed.0.weight": "an auto_avsr model whose first weights are missing",
    "encoder.pre_encode.": "a NeMo model",
    "encoder.conv1.": "a Whisper model",
    "model.encoder.conv1.": "a Whisper model",
    "encoder.video_model.": "Whisper-Flamingo",
    "encoder.w2v_model.": "AV-HuBERT of fairseq",
    "frontend3D.": "a front end alone",
    "trunk.": "a front end alone",
    "encoder.embed.1.": "a language model",
    "rnn": "a language model",
}
"""Beginnings of names in files of other kinds, for errors."""

PREFIXES = ("_orig_mod.", "model.", "module.")
"""What training programs put in front of every name: torch.compile, Lightning, several GPUs."""

UNUSED = {
    "main": ("ctc.loss", "criterion."),
    "v1": ("ctc.loss", "criterion."),
    "usr": ("encoder.mask", "att_unl_", "ctc_unl_", "decoder.att_unl_", "decoder.ctc_unl_"),
    "avhubert": ("avsr.encoder.mask_emb", "avsr.encoder.label_embs_concat", "avsr.encoder.final_proj."),
}
"""Beginnings of names that recognition does not need, by layout."""
COUNTERS = ".num_batches_tracked"

_BRANCHES: dict[Layout, dict[str, str]] = {
    "main": {
        "encoder.BRANCH.front.": "frontend.",
        "encoder.BRANCH.embed.": "proj_encoder.",
        "encoder.BRANCH.encoder.": "encoder.",
    },
    "v1": {
        "encoder.BRANCH.front.": "PLACE.frontend.",
        "encoder.BRANCH.embed.": "PLACE.embed.0.",
        "encoder.BRANCH.encoder.": "PLACE.",
        "encoder.fusion.": "fusion.",
    },
    "usr": {
        "encoder.lips_front.": "encoder.frontend_v.",
        "encoder.sound_front.": "encoder.frontend_a.",
        "encoder.embed.": "encoder.linear_",
        "encoder.encoder.": "encoder.",
        "decoder.outputs.": "decoder.out_layer_",
    },
    "avhubert": {
        "encoder.lips_front.": "avsr.encoder.feature_extractor_video.resnet.",
        "encoder.lips_project.": "avsr.encoder.feature_extractor_video.proj.",
        "encoder.sound_project.": "avsr.encoder.feature_extractor_audio.proj.",
        "encoder.norm.": "avsr.encoder.layer_norm.",
        "encoder.project.": "avsr.encoder.post_extract_proj.",
        "encoder.encoder.positions.": "avsr.encoder.encoder.pos_conv_embed.conv.",
        "encoder.encoder.": "avsr.encoder.encoder.",
        "decoder.embed.": "avsr.decoder.embed.0.",
        "decoder.outputs.all.": "avsr.decoder.output_layer.",
        "decoder.": "avsr.decoder.",
        "ctc.all.": "avsr.ctc.ctc_lo.",
    },
}
_COMMON = {
    "decoder.embed.": "decoder.embed.0.",
    "decoder.outputs.all.": "decoder.output_layer.",
    "ctc.all.": "ctc.ctc_lo.",
}
_LANGUAGE_MODEL = {
    "project.": "encoder.embed.0.",
    "project_norm.": "encoder.embed.1.",
    "encoders.": "encoder.encoders.",
    "after_norm.": "encoder.after_norm.",
}
_INNER = {
    ".to_query.": ".linear_q.",
    ".to_key.": ".linear_k.",
    ".to_value.": ".linear_v.",
    ".to_output.": ".linear_out.",
    ".to_position.": ".linear_pos.",
    ".bias_u": ".pos_bias_u",
    ".bias_v": ".pos_bias_v",
    ".conv_module.expand.": ".conv_module.pointwise_cov1.",  # "cov" is their spelling
    ".conv_module.depthwise.": ".conv_module.depthwise_conv.",
    ".conv_module.project.": ".conv_module.pointwise_cov2.",
}
_STEM = {"conv1.": "frontend3D.0.", "bn1.": "frontend3D.1.", "relu.": "frontend3D.2."}


def layout_of(names: Iterable[str]) -> Layout | None:
    """The layout of a file with these names; None if it is none of ours."""
    names = set(names)
    return next((layout for layout, sign in SIGNS.items() if sign in names), None)


def look_of(names: Iterable[str]) -> str:
    """What a file with these names looks like, in words."""
    for sign, kind in OTHERS.items():
        if any(name.startswith(sign) for name in names):
            return kind
    return "none of these"


def source_name(name: str, config: PublishedConfig) -> str:
    """The file's name for our weight `name`."""
    for ours, theirs in {**_COMMON, **_BRANCHES[config.layout]}.items():
        branch = re.match(ours.replace("BRANCH", "(lips|sound)_branch").replace(".", r"\."), name)
        if branch is None:
            continue
        rest = name[branch.end() :]
        place = "aux_encoder" if config.fusion and "sound_branch" in name else "encoder"
        if "front" in ours:
            rest = _front_name(rest, is_lips="lips" in name)
        return _renamed(theirs.replace("PLACE", place) + rest)
    if config.layout == "usr" and name.startswith("ctc."):
        _, head, last = name.split(".")
        return f"ctc_{head}.ctc_lo.{last}"
    return name


def language_model_source(name: str) -> str:
    """The file's name for our weight `name` of a language model."""
    for ours, theirs in _LANGUAGE_MODEL.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _front_name(name: str, *, is_lips: bool) -> str:
    name = name.removeprefix("resnet.")
    for ours, theirs in _STEM.items():
        if is_lips and name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return f"trunk.{name}"


def _renamed(name: str) -> str:
    for ours, theirs in _INNER.items():
        name = name.replace(ours, theirs)
    return name
