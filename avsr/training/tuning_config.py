"""The configuration of a run that trains a published lip reader on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from avsr.config import build
from avsr.training.config import RunConfig, TrainConfig

PublishedPart = Literal["lips_front", "sound_front", "encoder", "decoder", "ctc"]


@dataclass(frozen=True, kw_only=True)
class HybridLoss:
    """CTC and decoder together (Watanabe et al. 2017, section III-A), with the shares of auto_avsr."""

    ctc: float = 0.1
    """Share of the CTC loss; the decoder has the rest of 1."""
    smoothing: float = 0.1
    """Share of each target of the decoder that all units get (Szegedy et al., CVPR 2016, section 7)."""

    def __post_init__(self) -> None:
        for name in ("ctc", "smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 to 1")


@dataclass(frozen=True, kw_only=True)
class TuneConfig(RunConfig):
    """A run that trains a published lip reader on. The result has the same form, and the terms of its weights."""

    published: str
    """The file or folder of weights, as `--model` takes it."""
    loss: HybridLoss = field(default_factory=HybridLoss)
    freeze: tuple[PublishedPart, ...] = ()
    """Parts that are not trained. Batch norms keep their statistics in every run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("vocal_tract", "mel_masks", "time_masks"):
            if getattr(self.augment, name):
                raise ValueError(
                    f"augment.{name}: got {getattr(self.augment, name)} for a model without log-mel features"
                )

    @property
    def name(self) -> str:
        return PurePath(self.published).stem


def run_config(content: Mapping[str, Any], where: str) -> RunConfig:
    """The configuration of a run of either kind: one with `published` trains published weights on.

    where: the file, for errors. Raises ConfigError.
    """
    return build(TuneConfig if "published" in content else TrainConfig, content, where)
