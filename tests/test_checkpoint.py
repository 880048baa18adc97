"""Checkpoints: loading gives what was saved, and a wrong checkpoint is refused with the name of its fault."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import avsr
from avsr.cli.main import main
from avsr.errors import AvsrError, ModelError
from avsr.families.own.checkpoint import load_checkpoint, save_checkpoint
from avsr.families.own.run_folder import epoch_checkpoint, epoch_checkpoints, finished_checkpoint
from tests.tiny import random_mel, tiny_network, tiny_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "model", tiny_network(), tiny_tokenizer(), card="# tiny\n")


def test_round_trip(folder: Path) -> None:
    network, tokenizer = load_checkpoint(folder)
    mel, lengths = random_mel(1, 80), torch.tensor([80])
    with torch.no_grad():
        assert torch.equal(network(mel, lengths).log_probs, tiny_network()(mel, lengths).log_probs)
    assert tokenizer.words == tiny_tokenizer().words
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.yaml",
        "model.safetensors",
        "vocabulary.txt",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]  # nothing temporary is left


def test_saving_again_replaces(folder: Path) -> None:
    save_checkpoint(folder, tiny_network(seed=1), tiny_tokenizer(), card="new", dtype=torch.float16)
    assert (folder / "README.md").read_text() == "new"
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} <= {torch.float16, torch.int64}
    network, _ = load_checkpoint(folder)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_run_folder_holds_a_finished_model_only_once_it_is_whole(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert finished_checkpoint(run) is None  # not there at all
    for epoch in (9, 10):
        save_checkpoint(epoch_checkpoint(run, epoch), tiny_network(), tiny_tokenizer(), card="")
    (run / "config.yaml").write_text("output: run\n")
    assert finished_checkpoint(run) is None  # epochs alone are no finished model
    assert [path.name for path in epoch_checkpoints(run)] == ["epoch-0009", "epoch-0010"]
    finished = save_checkpoint(run / "model", tiny_network(), tiny_tokenizer(), card="")
    assert finished_checkpoint(run) == finished
    (finished / "model.safetensors").unlink()
    assert finished_checkpoint(run) is None
    assert finished_checkpoint(folder) is None and finished_checkpoint(folder / "config.yaml") is None


def rewrite_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_damage_is_named(folder: Path) -> None:
    def check(message: str) -> None:
        with pytest.raises(AvsrError, match=message):
            load_checkpoint(folder)

    rewrite_weights(folder, lambda w: w.pop("visual_head.project.bias"))
    check("weight visual_head.project.bias is missing; download the model again")
    rewrite_weights(folder, lambda w: w.update({"visual_head.project.bias": torch.zeros(3)}))
    check(r"weight visual_head.project.bias has another shape: got \(3,\), expected \(7,\)")
    rewrite_weights(folder, lambda w: w.update({"visual_head.project.bias": torch.zeros(7), "extra": torch.zeros(1)}))
    check("unknown weight: got extra")
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    check("weights cannot be read")
    (folder / "model.safetensors").unlink()
    check("model.safetensors: no such file")
    (folder / "vocabulary.txt").write_text("a\nb\n")
    check("vocabulary: got 2 units, expected 6")
    (folder / "vocabulary.txt").write_text("a\na\n")
    check("vocabulary is wrong")


@pytest.mark.parametrize(
    ("version", "message"), [(2, "newer than this avsr.*upgrade"), ("x", "format version"), (0, "format version")]
)
def test_format_version(folder: Path, version: object, message: str) -> None:
    content = yaml.safe_load((folder / "config.yaml").read_text())
    content["format"] = version
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ModelError, match=message):
        load_checkpoint(folder)


def test_load_names_what_it_expected(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match="no model 'grid-tny'.*did you mean grid-tiny"):
        avsr.load("grid-tny")
    with pytest.raises(
        ModelError, match="'tiny'; avsr models lists the names; did you mean grid-tiny or whisper-tiny.en"
    ):
        avsr.load("tiny")
    with pytest.raises(ModelError, match="no model ''.*check the path"):
        avsr.load("")
    with pytest.raises(ModelError, match="no model 'xxx.*check the path"):
        avsr.load("x" * 500)
    with pytest.raises(ModelError, match="nope.nemo: no such file: expected a .nemo archive; check the path"):
        avsr.load("nope.nemo")
    with pytest.raises(
        ModelError, match="gone: no such checkpoint: expected a folder with config.yaml; check the path"
    ):
        load_checkpoint(tmp_path / "gone")
    with pytest.raises(ModelError, match=r"not a checkpoint: got a folder, expected a folder with config.yaml"):
        avsr.load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match="not a checkpoint: got a file"):
        avsr.load(tmp_path / "file")
    with pytest.raises(AvsrError, match="unknown device: got 'gpu'"):
        avsr.load(folder, device="gpu")
    assert avsr.load(folder).name == "tiny"


def test_a_pickle_is_never_opened(folder: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (shutil.rmtree, (str(folder),))

    torch.save({"x": Bomb()}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="weights cannot be read"):
        load_checkpoint(folder)
    assert folder.exists()


def test_the_mean_of_models(folder: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other", tiny_network(seed=1), tiny_tokenizer(), card="# other\n")
    assert main(["average", f"{folder}=0.25", f"{other}=0.75", "--output-dir", str(tmp_path / "mean")]) == 0
    mean = load_checkpoint(tmp_path / "mean")[0].state_dict()
    ours, theirs = (load_checkpoint(path)[0].state_dict() for path in (folder, other))
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.25 * ours[name] + 0.75 * theirs[name])
    assert "0.75 of" in (tmp_path / "mean" / "README.md").read_text(encoding="utf-8")


def test_what_has_no_mean(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = tiny_network()
    other = save_checkpoint(
        tmp_path / "other",
        type(network)(dataclasses.replace(network.config, name="other")),
        tiny_tokenizer(),
        card="# other\n",
    )
    for shares, message in (
        ([f"{folder}=0.5", f"{folder}=0.4"], "the shares do not add up to 1: got 0.9"),
        ([f"{folder}=nan", f"{folder}=0.4"], "share out of range: got nan, expected more than 0, at most 1"),
        ([f"{folder}=-1", f"{folder}=2"], "share out of range: got -1"),
        ([f"{folder}=0", f"{folder}=1"], "share out of range: got 0"),
        ([f"{folder}=0.5", f"{other}=0.5"], "other: another model than"),
        ([f"{folder}=0.5", "nowhere=0.5"], "nowhere"),
    ):
        assert main(["average", *shares, "--output-dir", str(tmp_path / "mean")]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "mean").exists()
    assert main(["average", str(folder), "--output-dir", "x"]) == 2
    assert "expected FOLDER=SHARE" in capsys.readouterr().err


def test_a_run_folder_is_a_model(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("output: run\n")
    shutil.copytree(folder, run / "checkpoints" / "epoch-0003")
    with pytest.raises(ModelError, match="has not finished: expected .*run/model; .* one epoch: .*epoch-0003"):
        avsr.load(run)
    shutil.copytree(folder, run / "model")
    assert avsr.load(run).name == "tiny"
