"""Reads the visual front end of Auto-AVSR's published models, a 3-D convolution and a ResNet-18, from a `.pth` file.

Only the weights under `frontend3D.` and `trunk.` are read. Any prefix may stand before these names (`frontend.`,
`encoder.frontend.`, `model.encoder.frontend.`). The weights of the file's encoder and decoder are ignored. The pickle
in the file is not run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from avsr.errors import ModelError
from avsr.untrusted.torch_file import plain_tensors, read_torch_file
from avsr.untrusted.values import shown
from avsr.untrusted.weights import enough_memory, fit_weights

if TYPE_CHECKING:
    import torch

    from avsr.families.own.visual_encoder import ResNetTrunk

STEM = "frontend3D."
FIRST = STEM + "0.weight"
NESTED = ("state_dict", "model_state_dict")
"""Keys under which the weights may be: in a checkpoint of Lightning, in one of Auto-AVSR's models for single words."""


def load_visual_trunk(trunk: ResNetTrunk, path: str | os.PathLike[str]) -> None:
    """Copy the front end of the file into `trunk`. After an error `trunk` is unchanged.

    Raises ModelError if the file is damaged or holds no such front end, or if a weight is missing, unknown, not finite
    or of another shape. Older models with PReLU have unknown weights: this trunk computes SiLU.
    """
    path = Path(path)
    with enough_memory(path):
        trunk.resnet.load_state_dict(_fitted(trunk, path))


def _fitted(trunk: ResNetTrunk, path: Path) -> dict[str, torch.Tensor]:
    """The file's weights under the names of `trunk.resnet`."""
    content = read_torch_file(path, str(path))
    if isinstance(content, dict):
        content = next((content[key] for key in NESTED if isinstance(content.get(key), dict)), content)
    weights = plain_tensors(content, str(path))
    # The dot in front keeps "myfrontend3D.0.weight" from counting as a front end.
    prefixes = [name.removesuffix(FIRST) for name in weights if f".{name}".endswith(f".{FIRST}")]
    # With two front ends nothing says which one is meant.
    if len(prefixes) != 1:
        raise ModelError(
            f"{path}: weight {FIRST} is missing" if not prefixes else f"{path}: holds two visual front ends",
            got=shown([name + FIRST for name in prefixes] or list(weights)[:3]),
            expected=f"one, with a prefix or none, as in encoder.frontend.{FIRST}",
            remedy="give the weights of an Auto-AVSR model that reads lips, vsr_*.pth",
        )
    prefix = prefixes[0]
    expected = trunk.resnet.state_dict()
    # The file's 3-D convolution has one input channel; ours has its slots as channels instead.
    expected["conv1.weight"] = expected["conv1.weight"][:, None]
    fitted = fit_weights(
        weights,
        expected,
        path,
        source=lambda name: prefix + _source_name(name),
        # The encoder and decoder of the file are not read.
        is_ignored=lambda name: not name.startswith((f"{prefix}{STEM}", f"{prefix}trunk.")),
        network="a ResNet-18 with SiLU and no more",
    )
    fitted["conv1.weight"] = fitted["conv1.weight"][:, 0]
    return fitted


def _source_name(name: str) -> str:
    """The file's name for the weight `name` of torchvision's ResNet-18, without the prefix."""
    for ours, theirs in (("conv1.", "0."), ("bn1.", "1.")):
        if name.startswith(ours):
            return STEM + theirs + name.removeprefix(ours)
    return f"trunk.{name}"
