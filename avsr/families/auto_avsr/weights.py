"""Opens the files of published models: weights, the settings beside them, the list of units, the language model.

A target is a file of weights, or a folder with `model.pth` or `model.safetensors`. Beside the weights may lie
`model.json` or `config.json`, a list `*_units.txt`, and a folder `lm` or `lm_*` of the same form with a language model.
Nothing in a file is run, and the weights of a `.pth` file stay in the file until they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from avsr.decoding.tokenizer import MAX_VOCABULARY_BYTES
from avsr.errors import ModelError
from avsr.families.auto_avsr.config import Layout, PublishedConfig
from avsr.families.auto_avsr.layouts import (
    COUNTERS,
    IN_WORDS,
    PREFIXES,
    SIGNS,
    UNUSED,
    language_model_source,
    layout_of,
    look_of,
    source_name,
)
from avsr.families.auto_avsr.sizes import Settings, Shapes, read_config, read_language_model
from avsr.families.auto_avsr.tokens import UnitList, read_units, settings_units
from avsr.files import whole_folder
from avsr.untrusted.files import read_file
from avsr.untrusted.safetensors import read_safetensors
from avsr.untrusted.settings import parse_json
from avsr.untrusted.torch_file import plain_tensors, read_torch_file
from avsr.untrusted.values import shown
from avsr.untrusted.weights import check_numbers, enough_memory, fit_weights, without_memory

if TYPE_CHECKING:
    import torch
    from torch import nn

    from avsr.families.auto_avsr.language_model import LanguageModel
    from avsr.families.auto_avsr.network import PublishedNetwork

TORCH_SUFFIXES = (".pth", ".pt", ".ckpt")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")
WEIGHTS_NAMES = ("model.pth", "model.safetensors")
SETTINGS_NAMES = ("model.json", "config.json")
UNITS_PATTERN = "*_units.txt"
CARD_NAME = "README.md"
LANGUAGE_MODEL_FOLDERS = ("lm", "lm_*")
MAX_SETTINGS_BYTES = 4 << 20
NESTED = ("state_dict", "model_state_dict")
"""Keys under which the weights may be: in a checkpoint of Lightning, in one for single words."""


Value = TypeVar("Value")


class Opened(NamedTuple):
    """A published model in memory."""

    network: PublishedNetwork
    units: UnitList
    language_model: LanguageModel | None
    weights: Path
    """The file of weights."""


def weights_file(target: Path) -> Path | None:
    """The file of weights that a target stands for; None if there is none."""
    if target.is_file():
        return target if target.suffix in SUFFIXES else None
    if not target.is_dir():
        return None
    named = [target / name for name in WEIGHTS_NAMES if (target / name).is_file()]
    # A hub has one file under its own name, such as vsr_trlrs3_base.pth.
    others = sorted(path for path in target.iterdir() if path.suffix in TORCH_SUFFIXES and path.is_file())
    return next(iter(named), others[0] if len(others) == 1 else None)


class _Read(NamedTuple):
    """The files of a target, read and understood, before a network is made."""

    path: Path
    weights: dict[str, torch.Tensor]
    settings: Settings | None
    config: PublishedConfig


def _read(target: Path) -> _Read:
    if not target.exists():
        raise ModelError(f"{target}: no such file or model", remedy="check the path")
    path = weights_file(target)
    if path is None:
        raise ModelError(f"{target}: no weights", expected=" or ".join(WEIGHTS_NAMES))
    weights = read_tensors(path)
    layout = _layout(weights, path)
    settings = read_settings(path.parent)
    if layout == "avhubert":
        weights = _without_weight_norm(weights, path)
    return _Read(path, weights, settings, read_config(path, _shapes(weights), layout, settings))


def config_of(target: Path) -> PublishedConfig:
    """The configuration of a target, from the names and shapes of its weights. Raises ModelError."""
    return _read(target).config


def open_weights(target: Path, *, for_training: bool = False) -> Opened:
    """The model of a target on the CPU. Raises ModelError with what is wrong, in one line.

    for_training: with weights that can be trained, and without the language model; otherwise ready for inference.
    """
    from avsr.families.auto_avsr.network import PublishedNetwork, let_go

    with enough_memory(target):
        path, weights, settings, config = _read(target)
        units = find_units(path, config.vocabulary, settings)
        network = without_memory(lambda: PublishedNetwork(config))
        kind, unused = IN_WORDS[config.layout], UNUSED[config.layout]
        _fill(network, weights, f"{path} ({kind})", lambda name: source_name(name, config), unused)
        if for_training:
            for parameter in network.parameters():
                parameter.data = parameter.data.clone()  # what is mapped must not be written to
            let_go(network)
            network.requires_grad_(True)
            return Opened(network, units, None, path)
        language_model = _open_language_model(path.parent, config)
        network.for_inference()
    return Opened(network, units, language_model, path)


def save_weights(folder: Path, network: PublishedNetwork, beside: Path, card: str) -> Path:
    """Write a model in its published form, whole or not at all, and return its folder.

    beside: the file of weights that it was made from; its settings and list of units are copied. card: the text of
    README.md. Raises ModelError, and writes nothing, if a weight is not finite.
    """
    from safetensors.torch import save_file

    weights = published_weights(network)
    check_numbers(weights, folder, "nothing is written; train with a lower learning rate")
    with whole_folder(folder) as staging:
        save_file(weights, staging / WEIGHTS_NAMES[1], metadata={"format": "pt"})
        (staging / WEIGHTS_NAMES[1]).chmod(0o644)
        (staging / CARD_NAME).write_text(card, encoding="utf-8")
        settings = [beside.parent / name for name in SETTINGS_NAMES]
        for path in (*beside.parent.glob(UNITS_PATTERN), *(path for path in settings if path.is_file())):
            (staging / path.name).write_bytes(read_file(path, MAX_VOCABULARY_BYTES))
    return folder


def published_weights(network: PublishedNetwork) -> dict[str, torch.Tensor]:
    """The weights by the names and in the shapes of the published file."""
    weights = {}
    for name, tensor in network.state_dict().items():
        theirs = source_name(name, network.config)
        if theirs.endswith("frontend3D.0.weight"):
            tensor = tensor[:, None]
        if "pointwise_cov" in theirs and theirs.endswith("weight"):
            tensor = tensor[..., None]
        weights[theirs] = tensor.detach().cpu().contiguous()
    return weights


def weights_of(network: PublishedNetwork, folder: Path) -> dict[str, torch.Tensor]:
    """The weights in a folder that `save_weights` wrote, by the names of the network."""
    weights = read_tensors(folder / WEIGHTS_NAMES[1])
    own = network.state_dict()
    return {name: weights[source_name(name, network.config)].reshape(own[name].shape) for name in own}


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by the names of its layout. What training programs put in front of names is left out."""
    if path.suffix == ".safetensors":
        weights = read_safetensors(path)
    else:
        content = read_torch_file(path, str(path))
        if isinstance(content, dict):
            content = next((content[key] for key in NESTED if isinstance(content.get(key), dict)), content)
        weights = plain_tensors(content, str(path))
    return without_prefixes(weights)


def without_prefixes(values: Mapping[str, Value]) -> dict[str, Value]:
    """The values by names without what training programs put in front of all of them."""
    values = dict(values)
    while values and (prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in values)), None)):
        values = {name.removeprefix(prefix): value for name, value in values.items()}
    return values


def read_settings(folder: Path) -> Settings | None:
    """The settings beside the weights; None if there are none. Raises ModelError if they are no mapping."""
    path = next((folder / name for name in SETTINGS_NAMES if (folder / name).is_file()), None)
    if path is None:
        return None
    content = parse_json(read_file(path, MAX_SETTINGS_BYTES), str(path), ModelError)
    if isinstance(content, list) and len(content) > 2:  # ESPnet writes the sizes of input and output in front
        content = content[2]
    if not isinstance(content, dict):
        raise ModelError(
            f"{path}: not the settings of a model", got=type(content).__name__, expected="names and values"
        )
    return content


def find_units(path: Path, expected: int, settings: Settings | None) -> UnitList:
    """The units of the model: the list beside the weights, else the one in the settings. Raises ModelError."""
    lists = sorted(path.parent.glob(UNITS_PATTERN))
    if len(lists) > 1:
        raise ModelError(f"{path.parent}: several lists of units", got=", ".join(found.name for found in lists[:3]))
    if lists:
        return read_units(lists[0], expected)
    if settings is not None and settings.get("char_list") is not None:
        return settings_units(settings["char_list"], str(path.parent), expected)
    raise ModelError(
        f"{path}: the list of its {expected} units is missing",
        expected=f"a file {UNITS_PATTERN} beside the weights",
        remedy="put the list of the authors' repository there, such as unigram5000_units.txt",
    )


def _layout(weights: Mapping[str, torch.Tensor], path: Path) -> Layout:
    layout = layout_of(weights)
    if layout is None:
        raise ModelError(
            f"{path}: weight {SIGNS['main']} or {SIGNS['v1']} is missing",
            got=f"a file that looks like {look_of(weights)} ({shown(sorted(weights)[:2])})",
            expected="weights of auto_avsr, VSR-ML, USR or AV-HuBERT in Hugging Face form",
        )
    return layout


def language_model_folders(folder: Path) -> list[Path]:
    """The folders beside the weights that hold a language model."""
    return [found for pattern in LANGUAGE_MODEL_FOLDERS for found in sorted(folder.glob(pattern)) if found.is_dir()]


def _open_language_model(folder: Path, config: PublishedConfig) -> LanguageModel | None:
    """The language model in a folder beside the weights; None if there is none. Raises ModelError."""
    from avsr.families.auto_avsr.language_model import LanguageModel
    from avsr.families.auto_avsr.network import pack

    folders = language_model_folders(folder)
    if not folders:
        return None
    if len(folders) > 1:
        raise ModelError(f"{folder}: several language models", got=", ".join(found.name for found in folders[:3]))
    path, settings = weights_file(folders[0]), read_settings(folders[0])
    if path is None or settings is None:
        raise ModelError(f"{folders[0]}: no language model", expected="model.pth and model.json")
    weights = read_tensors(path)
    shape = read_language_model(path, _shapes(weights), settings)
    if shape.vocabulary != config.vocabulary:
        raise ModelError(
            f"{path}: a language model for other units",
            got=f"{shape.vocabulary} units",
            expected=str(config.vocabulary),
            remedy="use the one that belongs to the weights, or none",
        )
    model = without_memory(lambda: LanguageModel(shape))
    _fill(model, weights, f"{path} (a language model)", language_model_source, ())
    pack(model)
    return model


def _fill(
    network: nn.Module,
    weights: Mapping[str, torch.Tensor],
    file: str,
    source: Callable[[str], str],
    unused: tuple[str, ...],
) -> None:
    """Put the weights into a network on the meta device. Raises ModelError for one that is missing or wrong."""
    import torch

    expected = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(COUNTERS)}
    fitted: dict[str, Any] = dict(
        fit_weights(
            weights,
            expected,
            file,
            source=source,
            is_ignored=lambda name: name.endswith(COUNTERS) or name.startswith(unused or COUNTERS),
            copy=False,
        )
    )
    # The counters of batch norms are for training.
    fitted |= {name: torch.tensor(0) for name in network.state_dict() if name.endswith(COUNTERS)}
    network.load_state_dict(fitted, assign=True)
    network.eval().requires_grad_(False)


_POSITIONS = "avsr.encoder.encoder.pos_conv_embed.conv"
_SCALES = (f"{_POSITIONS}.parametrizations.weight.original0", f"{_POSITIONS}.weight_g")
_DIRECTIONS = (f"{_POSITIONS}.parametrizations.weight.original1", f"{_POSITIONS}.weight_v")


def _without_weight_norm(weights: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """The weights with the weight norm of the positions computed: weight = g v / |v|, the norm over the channels."""
    scale = next((weights[name] for name in _SCALES if name in weights), None)
    direction = next((weights[name] for name in _DIRECTIONS if name in weights), None)
    if scale is None or direction is None:
        missing = _SCALES[0] if scale is None else _DIRECTIONS[0]
        raise ModelError(f"{path}: weight {missing} is missing", got=f"a file that looks like {IN_WORDS['avhubert']}")
    if direction.ndim != 3 or scale.shape != (1, 1, direction.shape[2]):
        raise ModelError(f"{path}: weight {_SCALES[0]} has another shape", got=shown(tuple(scale.shape)))
    direction = direction.float()
    rest = {name: tensor for name, tensor in weights.items() if name not in (*_SCALES, *_DIRECTIONS)}
    norm = direction.square().sum(dim=(0, 1), keepdim=True).sqrt()
    return {**rest, f"{_POSITIONS}.weight": scale.float() * direction / norm}


def _shapes(weights: Mapping[str, torch.Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
