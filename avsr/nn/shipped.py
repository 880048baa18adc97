"""Weights of the small networks that come with the package. Needs no torch."""

from __future__ import annotations

from typing import Any

import safetensors.numpy
from numpy.typing import NDArray

from avsr.errors import ModelError
from avsr.shipped import ASSETS


def shipped_weights(name: str) -> dict[str, NDArray[Any]]:
    """The arrays in `assets/NAME` by name, as stored: mostly 16 bit. Raises ModelError if they are unreadable."""
    path = ASSETS / name / "model.safetensors"
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read", got=error, remedy="install avsr again") from error
