"""Renames the weights of a `.nemo` archive to ours, and checks that no weight is missing or left over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from avsr.errors import ModelError
from avsr.families.nemo.config import HEADS
from avsr.families.own.config import ModelConfig
from avsr.sound.mel_config import MelConfig
from avsr.untrusted.weights import fit_weights

if TYPE_CHECKING:
    import torch

    from avsr.families.own.network import Network

WEIGHTS_MEMBER = "model_weights.ckpt"
MAX_FILTER_ERROR = 1e-6
"""How far a filter may be from ours: rounding of float32."""

UNUSED_WEIGHTS = {
    "EncDecCTCModelBPE": ("preprocessor.",),
    "EncDecHybridRNNTCTCBPEModel": ("preprocessor.", "decoder.", "joint."),
}
"""Beginnings of the names of weights that we do not read, by class. `preprocessor` holds the feature filters, which we
compute ourselves; in a hybrid model `decoder` and `joint` belong to the transducer."""

# Parts of a Conformer block: our name, the archive's name.
_BLOCK_PARTS = {
    "norm_first": "norm_feed_forward1",
    "feed_forward_first.expand": "feed_forward1.linear1",
    "feed_forward_first.project": "feed_forward1.linear2",
    "norm_attention": "norm_self_att",
    "attention.to_query": "self_attn.linear_q",
    "attention.to_key": "self_attn.linear_k",
    "attention.to_value": "self_attn.linear_v",
    "attention.to_output": "self_attn.linear_out",
    "attention.to_position": "self_attn.linear_pos",
    "attention.to_global_query": "self_attn.global_q",
    "attention.to_global_key": "self_attn.global_k",
    "attention.to_global_value": "self_attn.global_v",
    "attention": "self_attn",
    "norm_convolution": "norm_conv",
    "convolution.expand": "conv.pointwise_conv1",
    "convolution.depthwise": "conv.depthwise_conv",
    "convolution.norm": "conv.batch_norm",  # the archive's name even for a layer norm
    "convolution.project": "conv.pointwise_conv2",
    "norm_second": "norm_feed_forward2",
    "feed_forward_second.expand": "feed_forward2.linear1",
    "feed_forward_second.project": "feed_forward2.linear2",
    "norm_output": "norm_out",
}
_ATTENTION_BIASES = {"bias_u": "pos_bias_u", "bias_v": "pos_bias_v"}


def check_filters(weights: Mapping[str, torch.Tensor], mel: MelConfig, path: Path) -> None:
    """Compare the archive's mel filters and window with ours. Raises ModelError if they differ.

    This is the surest sign that our features are those that the model was trained on. Some archives hold no filters.
    """
    from avsr.sound.mel import LogMel

    ours = LogMel(mel)
    for name, expected in (("fb", ours.filters_MF[None]), ("window", ours.window)):
        stored = weights.get(f"preprocessor.featurizer.{name}")
        if stored is None:
            continue
        if stored.shape != expected.shape or not float((stored.float() - expected).abs().max()) <= MAX_FILTER_ERROR:
            raise ModelError(f"{path}: preprocessor.featurizer.{name} is not supported", got="other values than ours")


def convert_weights(
    weights: Mapping[str, torch.Tensor], network: Network, kind: str, path: Path
) -> dict[str, torch.Tensor]:
    """Copies of the weights under the names of the network's state.

    weights: the archive's tensors by name.
    network: may be on the meta device; only names, shapes and dtypes are read.
    kind: the class of the model, a key of HEADS.
    path: for errors.

    Raises ModelError if a weight is missing, left over, of another shape or kind of number, or not finite.
    """
    return fit_weights(
        weights,
        network.state_dict(),
        path,
        source=lambda name: source_name(name, network.config, kind),
        # Any other weight that nobody reads means that the model has a part that would be left out.
        is_ignored=lambda name: name.startswith(UNUSED_WEIGHTS[kind]),
    )


def source_name(name: str, config: ModelConfig, kind: str) -> str:
    """The archive's name for our weight `name` in a model of class `kind`."""
    part, _, last = name.rpartition(".")
    if part == "audio_head.project":
        # In hybrid models "decoder" is the transducer's.
        head = "ctc_decoder" if len(HEADS[kind]) > 1 else "decoder"
        return f"{head}.decoder_layers.0.{last}"
    if part == "audio_encoder.subsampling.project":
        return f"encoder.pre_encode.out.{last}"
    words = part.split(".")
    if words[1] == "subsampling":
        stage = int(words[3])
        if config.audio_encoder.subsampling_kind == "plain":
            # The archive counts the ReLU after each convolution.
            index = 2 * stage
        else:  # the archive counts a convolution and a ReLU, then a depthwise, a pointwise and a ReLU in each stage
            index = 3 * stage - 1 + int(words[4]) if stage else 0
        return f"encoder.pre_encode.conv.{index}.{last}"
    block, inner = words[3], ".".join(words[4:])
    return f"encoder.layers.{block}.{_BLOCK_PARTS[inner]}.{_ATTENTION_BIASES.get(last, last)}"
