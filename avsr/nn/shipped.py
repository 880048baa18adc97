"""Small trained heads that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import safetensors.torch
from torch import nn

from avsr.errors import ModelError

Head = TypeVar("Head", bound=nn.Module)


def with_shipped_weights(head: Head, name: str) -> Head:
    """`head` with the weights in `assets/NAME`, in float32, for evaluation. Raises ModelError for unreadable ones."""
    path = Path(__file__).parent.parent / "assets" / name / "model.safetensors"
    try:
        weights = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read", got=error, remedy="install avsr again") from error
    head.load_state_dict(weights)
    return head.eval()
