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
    converted: dict[str, torch.Tensor] = {}
    used = set()
    for name, ours in trunk.resnet.state_dict().items():
        source = prefix + _source_name(name)
        used.add(source)
        if source not in weights:
            raise ModelError(f"{path}: weight {source} is missing", remedy="give the weights of an Auto-AVSR model")
        tensor = weights[source]
        # The 3-D convolution has one input channel; ours has its slots as channels instead.
        shape = (ours.shape[0], 1, *ours.shape[1:]) if source.endswith(FIRST) else ours.shape
        if tensor.shape != shape:
            raise ModelError(
                f"{path}: weight {source} has another shape", got=tuple(tensor.shape), expected=tuple(shape)
            )
        if tensor.is_floating_point() != ours.is_floating_point():
            raise ModelError(f"{path}: weight {source} is of another kind", got=tensor.dtype, expected=ours.dtype)
        converted[name] = tensor.reshape(ours.shape).to(ours.dtype)
        # Weights that are not finite would make every result NaN, without any error.
        if not bool(converted[name].isfinite().all()):
            raise ModelError(f"{path}: weight {source} is not finite", remedy="download the model again")
    for source in weights:
        if source not in used and source.startswith((f"{prefix}{STEM}", f"{prefix}trunk.")):
            raise ModelError(
                f"{path}: weight {shown(source)} is not supported", expected="a ResNet-18 with SiLU and no more"
            )
    trunk.resnet.load_state_dict(converted)


def _source_name(name: str) -> str:
    """The file's name for the weight `name` of torchvision's ResNet-18, without the prefix."""
    for ours, theirs in (("conv1.", "0."), ("bn1.", "1.")):
        if name.startswith(ours):
            return STEM + theirs + name.removeprefix(ours)
    return f"trunk.{name}"
