"""Our checkpoint: a folder of safetensors weights, configuration, tokenizer and model card. It holds no pickle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from avsr.config import as_mapping, build, read_yaml
from avsr.decoding.tokenizer import Tokenizer, read_tokenizer
from avsr.errors import ModelError
from avsr.families.own.config import FORMAT_VERSION, ModelConfig
from avsr.files import whole_folder
from avsr.untrusted.safetensors import read_safetensors
from avsr.untrusted.weights import check_header, check_numbers, enough_memory, fit_weights, without_memory

if TYPE_CHECKING:
    import torch

    from avsr.families.own.network import Network

CONFIG_NAME = "config.yaml"
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"


def save_checkpoint(
    folder: str | os.PathLike[str],
    network: Network,
    tokenizer: Tokenizer,
    *,
    card: str,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a checkpoint folder, whole or not at all, and return its path. An existing folder is replaced.

    folder: its parents are made.
    network: gives the weights and the configuration.
    tokenizer: written beside them.
    card: the text of README.md.
    dtype: of the floating-point weights in the file; None: their own.

    Raises ModelError, and writes nothing, if a weight is not finite.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    weights = {}
    for name, tensor in network.state_dict().items():
        tensor = tensor.detach().cpu()  # a checkpoint must load on a machine without a GPU
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        weights[name] = tensor.contiguous()
    check_numbers(weights, folder, "nothing is written; train with a lower learning rate")
    content = {"format": FORMAT_VERSION, "model": as_mapping(network.config)}
    with whole_folder(folder) as staging:
        save_file(weights, staging / WEIGHTS_NAME, metadata={"format": "pt"})
        (staging / WEIGHTS_NAME).chmod(0o644)
        (staging / CONFIG_NAME).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        (staging / tokenizer.FILE_NAME).write_bytes(tokenizer.data())
        (staging / CARD_NAME).write_text(card, encoding="utf-8")
    return folder


def read_config(folder: Path) -> ModelConfig:
    """The configuration of a checkpoint folder.

    Raises ModelError if the folder is no checkpoint, or was written by a newer version. Raises ConfigError if a key or
    value is wrong.
    """
    path = folder / CONFIG_NAME
    if not folder.exists():
        raise ModelError(
            f"{folder}: no such checkpoint", expected=f"a folder with {CONFIG_NAME}", remedy="check the path"
        )
    if not path.is_file():
        raise ModelError(
            f"{folder}: not a checkpoint",
            got="a folder" if folder.is_dir() else "a file",
            expected=f"a folder with {CONFIG_NAME} and {WEIGHTS_NAME}",
        )
    content = read_yaml(path)
    version = content.get("format")
    # In Python True is an int.
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ModelError(f"{path}: format version", got=repr(version), expected=f"1 to {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path}: checkpoint is newer than this avsr",
            got=f"format {version}",
            expected=f"at most {FORMAT_VERSION}",
            remedy="upgrade avsr",
        )
    return build(ModelConfig, content.get("model"), f"{path}: model")


def load_checkpoint(folder: str | os.PathLike[str]) -> tuple[Network, Tokenizer]:
    """The network and tokenizer of a checkpoint folder. The network is float32, on the CPU, in evaluation mode.

    Raises ModelError or ConfigError if a file is missing, is damaged, or does not fit the configuration.
    """
    from avsr.families.own.network import Network

    folder = Path(folder)
    config = read_config(folder)
    tokenizer = read_tokenizer(folder)
    # A tokenizer of another model would give other words without any error.
    if len(tokenizer) != config.vocabulary_size:
        raise ModelError(f"{folder}: vocabulary", got=f"{len(tokenizer)} units", expected=str(config.vocabulary_size))
    path = folder / WEIGHTS_NAME
    with enough_memory(path):
        # The sizes in the configuration may be lies: no memory is taken before the file's header agrees with them.
        network = without_memory(lambda: Network(config))
        expected = network.state_dict()
        weights = read_safetensors(path, lambda header: check_header(header, expected, path))
        # Assigned, because the tensors of the meta device have no memory to copy into.
        network.load_state_dict(fit_weights(weights, expected, path), assign=True)
    return network.eval(), tokenizer


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name. Raises ModelError if it is missing, damaged or larger than 8 GiB."""
    return read_safetensors(path)
