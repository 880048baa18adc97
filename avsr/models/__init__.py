"""The recogniser: configuration, encoders, fusion, output layer, and the path from a file to a transcript."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avsr.families.own.config import ModelConfig


def shipped() -> list[tuple[str, ModelConfig]]:
    """The models that come with the package: name and configuration."""
    from avsr.recognizer import shipped as find

    return find()
