"""Configuration files: a wrong key or value is refused with its place and the most similar known name."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from avsr.config import apply_overrides, as_mapping, build, read_yaml
from avsr.errors import ConfigError
from avsr.families.own.config import ModelConfig
from avsr.shipped import find_configuration
from avsr.training.config import TrainConfig
from avsr.training.tuning_config import run_config
from experiments.ablations import ABLATIONS, RUNS
from tests.tiny import tiny_config

SHAPE = {"width": 32, "layers": 1, "heads": 4}
CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def test_round_trip() -> None:
    config = tiny_config(streaming=True)
    assert build(ModelConfig, as_mapping(config), "here") == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_training_configurations_are_valid(path: Path) -> None:
    config = run_config(read_yaml(path), str(path))
    assert run_config(as_mapping(config), "again") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocabulary_sise": 3}, "unknown key vocabulary_sise.*did you mean vocabulary_size"),
        ({"vocabulary_size": "many"}, "vocabulary_size: got 'many', expected int"),
        ({"vocabulary_size": True}, "vocabulary_size: got True, expected int"),
        ({"vocabulary_size": 0}, "got 0, expected 1 or more"),
        ({"mel": {"normalise": "fixed"}}, "unknown key mel.normalise.*did you mean mel.normalize"),
        ({"mel": {"normalize": "fixd"}}, "mel.normalize: got 'fixd', expected per_feature or fixed or none"),
        ({"mel": 3}, "mel: got 3"),
        ({"fusion": None}, "visual_encoder and fusion"),
        ({"trained": ["a", "x"]}, r"trained\[1\]: got 'x', expected a or v or av"),
        ({"trained": []}, "trained: got nothing, expected some of a, v, av"),
        ({"decodes": "sides"}, "decodes: got sides, expected fused"),
        ({"fusion": {"heads": 5}}, "fusion heads: got 5, expected a divisor of the width 32"),
        ({"audio_encoder": {"conformer": {**SHAPE, "heads": 5}}}, "width: got 32, expected an even multiple of the 5"),
        ({"audio_encoder": {"conformer": {**SHAPE, "heads": 0}}}, "heads: got 0, expected 1 or more"),
        ({"audio_encoder": {"conformer": {**SHAPE, "kernel": 4}}}, "kernel: got 4, expected an odd number"),
        ({"audio_encoder": {"conformer": SHAPE, "subsampling": 3}}, "subsampling: got 3, expected 2, 4, 8 or 16"),
        ({"visual_encoder": {"channels": [1, 2, 3, 4]}}, "visual_encoder.conformer is missing"),
    ],
)
def test_a_wrong_model_configuration_says_what_and_where(change: dict, message: str) -> None:
    content = as_mapping(tiny_config()) | change
    with pytest.raises(ConfigError, match=f"model.yaml.*{message}"):
        build(ModelConfig, content, "model.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lips": 2}, "augment: lips: got 2.0, expected 0 to 1"),
        ({"hidden_slots": -1}, "hidden_slots: got -1, expected 0 or more"),
        ({"speed": 1.0}, "speed: got 1.0"),
        ({"lip_effects": {"blur": 1.5}}, "augment.lip_effects: blur: got 1.5, expected 0 to 1"),
        ({"lip_effects": {"ocluder": 0.5}}, "unknown key augment.lip_effects.ocluder.*did you mean .*occluder"),
        ({"lip_effects": 0.5}, "augment.lip_effects: got 0.5, expected a section"),
        ({"wrong_lips_snr_db": float("nan")}, "augment.wrong_lips_snr_db: got nan, expected a finite number"),
        ({"gain_db": float("inf")}, "augment.gain_db: got inf, expected a finite number"),
        ({"gain_db": "loud"}, "augment.gain_db: got 'loud', expected a number"),
    ],
)
def test_wrong_augmentation_says_what_and_where(change: dict, message: str) -> None:
    path = CONFIGS[0]
    content = read_yaml(path) | {"augment": change}
    with pytest.raises(ConfigError, match=message):
        build(TrainConfig, content, "train.yaml")


def test_numbers_written_as_text_by_yaml(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: x\nvalue: 1e-3\n")

    @dataclasses.dataclass(frozen=True)
    class Sample:
        name: str
        value: float

    assert build(Sample, read_yaml(path), "c").value == 1e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "not a configuration"),
        ("a: [1\n", "not valid YAML"),
        ("a: !!python/object:os.system {}\n", "a tag is not read"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml: no such file; check the path"):
        read_yaml(tmp_path / "none.yaml")


def test_overrides() -> None:
    content = {"a": {"b": 1}}
    apply_overrides(content, ["a.b=2", "a.c=[1, 2]", "d=x=y"])
    assert content == {"a": {"b": 2, "c": [1, 2]}, "d": "x=y"}
    content = {"train": [{"split": "train"}, {"split": "other"}]}
    apply_overrides(content, ["train.1.split=dev", "train.0={split: x}"])
    assert content == {"train": [{"split": "x"}, {"split": "dev"}]}
    with pytest.raises(ConfigError, match="override 'train.2.split=x': got 2, expected a number from 0 to 1"):
        apply_overrides(content, ["train.2.split=x"])
    content = {"a": {"b": 2}}
    with pytest.raises(ConfigError, match="not understood"):
        apply_overrides(content, ["a.b"])
    with pytest.raises(ConfigError, match="is a value"):
        apply_overrides(content, ["a.b.c=1"])


@pytest.mark.parametrize("name", sorted(ABLATIONS))
def test_ablations_are_valid_and_differ_from_what_they_change(name: str) -> None:
    ablation = ABLATIONS[name]
    path = CONFIGS[0].with_name(f"{ablation.config}.yaml")
    content = read_yaml(path)
    apply_overrides(content, ablation.changes)
    config = build(TrainConfig, content, name)
    assert (config != build(TrainConfig, read_yaml(path), name)) == bool(ablation.changes)
    begins_with = {Path(model).parent for model in config.initialize.values()} & {
        RUNS / f"{other}-{row.epochs}" for other, row in ABLATIONS.items()
    }
    assert begins_with == {RUNS / f"{other}-{ABLATIONS[other].epochs}" for other in ablation.after}


def test_each_step_of_the_recipe_begins_with_what_one_before_made(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    (tmp_path / "avsr").write_text(f'#!/bin/sh\nprintf "%s\\t" "$@" >> {tmp_path}/log; echo >> {tmp_path}/log\n')
    (tmp_path / "avsr").chmod(0o755)
    script = root / "recipes" / "train_grid_tiny.sh"
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", script, "workers=0"], check=True, cwd=tmp_path, env={**os.environ, "PATH": path})
    made: set[str] = set()
    runs = 0
    for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines():
        words = line.rstrip("\t").split("\t")
        if words[0] == "train":
            content = read_yaml(find_configuration(words[1]))
            apply_overrides(content, words[2:])
            config = build(TrainConfig, content, words[1])
            assert set(config.initialize.values()) <= made, line
            assert config.workers == 0
            made.add(f"{config.output}/model")
            runs += 1
        else:
            assert words[0] == "average"
            assert {word.partition("=")[0] for word in words[1:] if "=" in word} <= made, line
            made.add(words[words.index("--output-dir") + 1])
    assert runs == 18 and {"runs/grid-tiny-final/model", "runs/grid-tiny-evidence-last/model"} <= made
