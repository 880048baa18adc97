"""Makes files of published lip-reading models for tests, out of fixtures that leave out the large random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from avsr.families.auto_avsr.config import DecoderShape, EncoderShape, PublishedConfig
from avsr.families.auto_avsr.layouts import source_name
from avsr.families.auto_avsr.network import PublishedNetwork

KINDS = ("v", "a", "av", "v_lm", "v_legacy", "usr", "avhubert")


def generated(key: str, shape: list[int], bound: float, seed: int) -> Tensor:
    """The numbers of a weight that a fixture names but does not hold: the same on every machine."""
    h = 0xCBF29CE484222325
    for byte in key.encode():
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    count = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = np.uint64((h + seed) % 2**64) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    numbers = ((z >> np.uint64(40)).astype(np.float64) / 2**23 - 1).astype(np.float32) * np.float32(bound)
    return torch.from_numpy(numbers.reshape(shape))


def whole_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of the fixture in a folder, by the names of the published file."""
    info = read_info(folder)["generated"]
    made = {key: generated(key, entry["shape"], entry["bound"], info["seed"]) for key, entry in info["tensors"].items()}
    return {**load_file(folder / "model.safetensors"), **made}


def read_info(folder: Path) -> dict[str, Any]:
    """What the fixture says of itself."""
    content: dict[str, Any] = json.loads((folder / "info.json").read_text())
    return content


def reference(folder: Path) -> dict[str, NDArray[Any]]:
    """The inputs and outputs of the original code."""
    with np.load(folder / "reference.npz") as file:
        return {name: file[name] for name in file.files}


def write_units(path: Path, units: list[str]) -> None:
    """A list of units as the authors publish it, without blank and end."""
    path.write_text("".join(f"{unit} {number}\n" for number, unit in enumerate(units[1:-1], start=1)))


def build_model(folder: Path, target: Path) -> Path:
    """The fixture as a folder that a user would have: weights, settings, units, language model."""
    target.mkdir(parents=True)
    info = read_info(folder)
    torch.save(whole_weights(folder), target / "model.pth")
    settings = info.get("model_json") or info.get("config")
    if settings is not None:
        (target / "model.json").write_text(json.dumps([1, 2, settings]))
    write_units(target / "unigram5000_units.txt", info["tokens"])
    if info.get("lm"):
        (target / "lm").mkdir()
        torch.save(load_file(folder / "lm.safetensors"), target / "lm" / "model.pth")
        (target / "lm" / "model.json").write_text(json.dumps([1, 2, info["lm"]]))
    return target


def tiny_config() -> PublishedConfig:
    """A model that reads lips, small enough to be made in a test."""
    shape = EncoderShape(width=8, heads=2, hidden=16, layers=2, kernel=5, macaron=True)
    decoder = DecoderShape(width=8, heads=2, hidden=16, layers=1)
    return PublishedConfig(code="auto_avsr", layout="main", vocabulary=6, lips=shape, sound=None, decoder=decoder)


def tiny_weights(config: PublishedConfig) -> dict[str, Tensor]:
    """Random weights of a model by the published names."""
    torch.manual_seed(0)
    network = PublishedNetwork(config)
    weights = {}
    for name, tensor in network.state_dict().items():
        theirs = source_name(name, config)
        value = (
            tensor
            if name.endswith(("running_var", "num_batches_tracked"))
            else tensor + 0.05 * torch.randn_like(tensor)
        )
        if theirs.endswith("frontend3D.0.weight"):
            value = value[:, None]
        if "pointwise_cov" in theirs and theirs.endswith("weight"):
            value = value[..., None]
        weights[theirs] = value.clone()
    return weights


TINY_UNITS = ["<blank>", "<unk>", "\u2581HE", "LLO", "\u2581YOU", "<eos>"]


def tiny_folder(target: Path) -> Path:
    """A folder with the tiny model."""
    target.mkdir(parents=True)
    torch.save(tiny_weights(tiny_config()), target / "model.pth")
    write_units(target / "unigram5000_units.txt", TINY_UNITS)
    return target
