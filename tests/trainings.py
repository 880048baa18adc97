"""Small training configurations for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from avsr.augment.video import LipEffects
from avsr.config import apply_overrides, as_mapping, build, read_yaml
from avsr.training.config import AugmentConfig, TrainConfig
from tests.tiny import WORDS, tiny_config

ALL_AUGMENTATION = AugmentConfig(
    noise_share=0.7,
    speed=0.1,
    channel_db=6.0,
    gain_db=6.0,
    mel_masks=1,
    time_masks=1,
    lips=1.0,
    lip_effects=LipEffects(occluder=0.3, light=0.3, blur=0.3, time_mask=0.3, dropped=0.3),
    hidden_slots=5,
    offset_slots=1,
    wrong_lips=0.5,
    joined=0.5,
)


def write_config(manifest: Path, folder: Path) -> Path:
    """The file of a configuration for a corpus of `make_corpus`: an epoch takes a second."""
    (folder / "vocabulary.txt").write_text("".join(f"{word}\n" for word in WORDS))
    content = {
        "output": str(folder / "run"),
        "vocabulary": str(folder / "vocabulary.txt"),
        "model": as_mapping(tiny_config()),
        "train": [{"manifest": str(manifest)}],
        "dev": {"manifest": str(manifest), "split": "dev"},
        "augment": as_mapping(ALL_AUGMENTATION),
        "loss": {"word_times": [1.0, 0.0], "word_times_epochs": 2},
        "optimizer": {"epochs": 3, "batch_size": 2, "accumulate": 2, "average_last": 2},
        "workers": 0,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def load_config(path: Path) -> TrainConfig:
    """The configuration in a file."""
    return build(TrainConfig, yaml.safe_load(path.read_text()), str(path))


def overridden(path: Path, overrides: list[str]) -> dict[str, Any]:
    """The mapping in a file with `key=value` overrides applied."""
    content = read_yaml(path)
    apply_overrides(content, overrides)
    return content
