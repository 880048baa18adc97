"""Published FastConformer and Conformer CTC models: `.nemo` archives.

Such an archive is a tar of a YAML configuration, torch weights and tokenizer files. It comes from strangers:
`archive` bounds its sizes, `config` refuses settings that this package does not have, and `weights` reads the weights
without running their pickle.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from avsr.decoding.tokenizer import MAX_TOKENIZER_BYTES, SentencePieceTokenizer
from avsr.families.nemo.config import (
    CONFIG_MEMBER,
    MAX_CONFIG_BYTES,
    model_class,
    read_nemo_config,
    read_settings,
    tokenizer_member,
)
from avsr.families.nemo.weights import WEIGHTS_MEMBER, check_filters, convert_weights
from avsr.untrusted.archive import Archive
from avsr.untrusted.torch_file import MAX_WEIGHTS_BYTES, plain_tensors, read_torch_file
from avsr.untrusted.weights import enough_memory, without_memory

if TYPE_CHECKING:
    from avsr.families.own.network import Network

__all__ = ["SUFFIX", "load_nemo", "model_card", "read_nemo_config"]

SUFFIX = ".nemo"


def load_nemo(path: str | os.PathLike[str]) -> tuple[Network, SentencePieceTokenizer]:
    """The network and tokenizer of a `.nemo` archive. The network is float32, on the CPU, in evaluation mode.

    If the model has both a transducer and a CTC head, the CTC head is read. Raises ModelError if the archive is damaged
    or too large, or if the model has a part or setting that changes results and is not supported.
    """
    from avsr.families.own.network import Network

    path = Path(path)
    with enough_memory(path), Archive(path) as archive:
        content = read_settings(archive.read(CONFIG_MEMBER, MAX_CONFIG_BYTES), path)
        kind = model_class(content, path)
        tokenizer = SentencePieceTokenizer(archive.read(tokenizer_member(content, path), MAX_TOKENIZER_BYTES))
        config = read_nemo_config(content, path, len(tokenizer))
        # The sizes in the configuration may be lies: allocate nothing before the weights agree with them.
        network = without_memory(lambda: Network(config))
        with archive.as_file(WEIGHTS_MEMBER, MAX_WEIGHTS_BYTES) as weights_path:
            what = f"{path}: {WEIGHTS_MEMBER}"
            weights = plain_tensors(read_torch_file(weights_path, what), what)
            check_filters(weights, config.mel, path)
            converted = convert_weights(weights, network, kind, path)
    # Assigned, because the tensors of the meta device have no memory to copy into.
    network.load_state_dict(converted, assign=True)
    return network.eval(), tokenizer


def model_card(path: str | os.PathLike[str], network: Network) -> str:
    """The text of README.md for a checkpoint folder made from the archive at `path`."""
    config = network.config
    choices = ", ".join(str((context.left, context.right)) for context in config.audio_encoder.attention_choices)
    return (
        f"# {config.name}\n\n"
        f"Converted from `{Path(path).name}` (a NeMo checkpoint); its license and model card apply.\n\n"
        f"- sound only; {config.vocabulary_size} word pieces; one frame every {config.frame_ms} ms\n"
        f"- {sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters\n"
        + (f"- further attention contexts (left, right) in frames: {choices}\n" if choices else "")
    )
