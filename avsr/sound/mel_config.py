"""Which log-mel features a model reads. This module does not import torch; `avsr.sound.mel` computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avsr.nn.sizes import LEAST_DEVIATION, MAX_DEVIATION, MAX_MEAN, MAX_MELS, check_size


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """The kind of log-mel features that a model reads."""

    n_mels: int = 80
    """Number of filters."""
    normalize: Literal["per_feature", "fixed", "none"] = "per_feature"
    """"per_feature" gives each filter zero mean and unit deviation over the whole utterance. "fixed" subtracts `mean`
    and divides by `std`, and so suits a live stream. "none" leaves the logarithms."""
    mean: float = 0.0
    """Subtracted by "fixed"."""
    std: float = 1.0
    """Divisor of "fixed"."""

    def __post_init__(self) -> None:
        check_size("n_mels", self.n_mels, MAX_MELS)
        check_size("mean", self.mean, MAX_MEAN, -MAX_MEAN)
        check_size("std", self.std, MAX_DEVIATION, LEAST_DEVIATION)
