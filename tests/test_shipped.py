"""Files that come with the package are found by name, in a clone and in an installed wheel."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from avsr import shipped
from avsr.cli.main import main
from avsr.config import build, read_yaml
from avsr.errors import ConfigError
from avsr.training.config import TrainConfig
from tests.corpus import make_corpus

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "model.audio_encoder.conformer.width=24",
    "model.audio_encoder.conformer.layers=1",
    "model.audio_encoder.subsampling_channels=8",
    "augment.noise_folder=null",
    "optimizer.batch_size=2",
    "workers=0",
)


@pytest.mark.parametrize("name", ["grid-tiny", "grid-tiny.yaml", "configs/grid-tiny.yaml"])
def test_a_shipped_configuration_is_found_in_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = shipped.find_configuration(name)
    assert found.samefile(ROOT / "configs" / "grid-tiny.yaml")
    assert build(TrainConfig, read_yaml(found), name).model.name == "grid-tiny"


def test_an_existing_file_wins_and_a_folder_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grid-tiny").mkdir()
    assert shipped.find_configuration("grid-tiny").parent == shipped.CONFIGURATIONS
    Path("grid-tiny-audio").write_text("output: mine\n")
    assert read_yaml(shipped.find_configuration("grid-tiny-audio")) == {"output": "mine"}


def test_an_unknown_configuration_names_the_nearest_and_lists_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ", ".join(sorted(path.stem for path in (ROOT / "configs").glob("*.yaml")))
    with pytest.raises(ConfigError) as error:
        shipped.find_configuration("configs/grid-tiny-audo.yaml")
    assert str(error.value) == (
        "configs/grid-tiny-audo.yaml: no such configuration: expected a YAML file, or one of "
        f"{names}; did you mean grid-tiny-audio?"
    )
    pytest.importorskip("lightning", reason="training needs the extra 'train'")
    assert main(["train", "lrs3-bas"]) == 1
    assert capsys.readouterr().err.endswith("did you mean lrs3-base?\n")


def test_files_of_a_configuration_are_found_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped.find_file("data/grid/vocabulary.txt").samefile(ROOT / "data/grid/vocabulary.txt")
    assert shipped.find_file("data/grid/none.txt") == Path("data/grid/none.txt")
    assert shipped.find_file(tmp_path / "none.txt") == tmp_path / "none.txt"
    Path("data/grid").mkdir(parents=True)
    Path("data/grid/vocabulary.txt").write_text("mine\n")
    assert shipped.find_file("data/grid/vocabulary.txt") == Path("data/grid/vocabulary.txt")


def test_configs_lists_every_configuration_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    for line in lines:
        assert re.fullmatch(r"\S+  +\S.{20,109}\.", line), line


def test_configs_prints_one_to_begin_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "grid-tiny-audio"]) == 0
    written = capsys.readouterr()
    assert written.out == (ROOT / "configs/grid-tiny-audio.yaml").read_text(encoding="utf-8")
    assert written.err.rstrip().endswith(str(shipped.RECIPES))
    assert (shipped.RECIPES / "train_grid_tiny.sh").is_file()
    assert main(["configs", "grid-tiny-audoi"]) == 1
    assert "did you mean grid-tiny-audio?" in capsys.readouterr().err


@pytest.mark.slow
def test_a_wheel_trains_without_a_clone(tmp_path: Path) -> None:
    """It has every configuration, vocabulary and recipe, nothing compiled, and resolves them from any folder."""
    pytest.importorskip("lightning", reason="training needs the extra 'train'")
    # Not imported: it fails if another test has imported distutils.
    if int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("setuptools 77 builds the wheel")
    source = tmp_path / "source"
    for name in ("avsr", "configs", "data", "recipes"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "recipes/__pycache__").mkdir()
    (source / "recipes/__pycache__/espeak.cpython-311.pyc").touch()
    # An sdist must carry the files themselves too, and make the same wheel.
    code = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"
    made = subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True, text=True)
    shutil.unpack_archive(source / "dist" / made.stdout.split()[-1], tmp_path / "sdist")
    (unpacked,) = (tmp_path / "sdist").iterdir()
    code = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    made = subprocess.run([sys.executable, "-c", code], cwd=unpacked, check=True, capture_output=True, text=True)
    site = tmp_path / "site"
    with zipfile.ZipFile(unpacked / "dist" / made.stdout.split()[-1]) as wheel:
        wheel.extractall(site)
    for folder in ("configs", "data", "recipes"):
        ours = {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts}
        theirs = {str(path.relative_to(site / "avsr/assets")) for path in (site / "avsr/assets" / folder).rglob("*")}
        assert theirs == ours
    assert {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")} == {"avsr"}

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    manifest = make_corpus(elsewhere)
    corpora = [f"train=[{{manifest: {manifest}}}]", f"dev={{manifest: {manifest}, split: dev}}"]
    ran = subprocess.run(
        [sys.executable, "-m", "avsr", "train", "grid-tiny-audio", "--dry-run", *corpora, *SMALL],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^data: .*: 4 utterances", ran.stdout, re.MULTILINE)


@pytest.mark.slow
def test_the_two_minute_recipe_reads_the_clips_that_it_is_given(tmp_path: Path) -> None:
    """In small, one epoch: every step works, and the last uses the model that the third trained."""
    pytest.importorskip("lightning", reason="training needs the extra 'train'")
    for name in ("avsr", "python"):
        module = "-m avsr " if name == "avsr" else ""
        (tmp_path / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n')
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    script = shipped.RECIPES / "two_minutes.sh"
    ran = subprocess.run(
        ["bash", script, "", "optimizer.epochs=1", "dev_every=1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"epoch 1/1: .*dev WER A .*AV .*V ", ran.stderr)
    words = (tmp_path / "work/two-minutes/words.txt").read_text().split()
    assert words == sorted((shipped.ASSETS / "demo.txt").read_text().split())
    assert (tmp_path / "runs/two-minutes/model/vocabulary.txt").read_text().split() == words
