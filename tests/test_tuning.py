"""Training published lip readers on: every kind, resumed, frozen, saved in the published form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import avsr
from avsr.decoding.search import Search
from avsr.errors import ConfigError, DataError
from avsr.families.auto_avsr.config import PublishedConfig
from avsr.families.auto_avsr.weights import open_weights
from tests.corpus import make_corpus
from tests.published_models import tiny_config, tiny_weights, write_units

lightning = pytest.importorskip("lightning", reason="training needs the extra 'train'")

from avsr.training.batches import collate  # noqa: E402
from avsr.training.dry_run import dry_run  # noqa: E402
from avsr.training.run import Ready, set_up, train  # noqa: E402
from avsr.training.tuning import PublishedUnits, smoothed_loss  # noqa: E402

LETTERS = ["<blank>", "<unk>", "<space>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "<eos>"]
LIPS = replace(tiny_config(), vocabulary=len(LETTERS))
SHAPE = LIPS.lips
KINDS = {
    "v": LIPS,
    "a": replace(LIPS, lips=None, sound=SHAPE),
    "av": replace(LIPS, layout="v1", sound=SHAPE, fusion=12),
    "usr": replace(LIPS, code="usr", layout="usr", sound=SHAPE),
}
ODDS = {"v": (0, 1, 0), "a": (1, 0, 0), "av": (0, 0, 1), "usr": (1, 1, 1)}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def model_folder(folder: Path, config: PublishedConfig) -> Path:
    """A published model of random weights."""
    folder.mkdir(parents=True)
    torch.save(tiny_weights(config), folder / "model.pth")
    write_units(folder / "letters_units.txt", LETTERS)
    return folder


def write_config(manifest: Path, folder: Path, kind: str = "v") -> Path:
    """A configuration of three epochs."""
    a, v, av = ODDS[kind]
    content = {
        "output": str(folder / "run"),
        "published": str(model_folder(folder / kind, KINDS[kind])),
        "train": [{"manifest": str(manifest)}],
        "dev": {"manifest": str(manifest), "split": "dev"},
        "modalities": {"a": a, "v": v, "av": av},
        "optimizer": {"epochs": 3, "batch_size": 2, "average_last": 1, "learning_rate": 0.01, "warmup_epochs": 0.5},
        "workers": 0,
    }
    path = folder / "tune.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def ready_for(manifest: Path, folder: Path, kind: str, *overrides: str) -> Ready:
    return set_up(write_config(manifest, folder, kind), overrides)


def quietly(_: str) -> None:
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_learns_and_writes_the_published_form(kind: str, manifest: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    config = write_config(manifest, tmp_path, kind)
    (tmp_path / kind / "lm").mkdir()
    folder = train(config, on_message=lines.append)
    assert lines[-1].endswith("lm was not copied: put it into this folder to use it.")
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines if "loss " in line]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert any("dev WER" in line for line in lines)
    before, after = tiny_weights(KINDS[kind]), load_file(folder / "model.safetensors")
    assert {name: tensor.shape for name, tensor in after.items()} == {n: t.shape for n, t in before.items()}
    assert (folder / "letters_units.txt").is_file()
    assert "whose terms hold for it too" in (folder / "README.md").read_text()
    model = avsr.load(folder).model
    assert model.card.modalities == KINDS[kind].modalities
    crops, present = np.zeros((10, 96, 96), np.uint8), np.ones(10, bool)
    sound = None if kind == "v" else model.engine.encode_audio([np.zeros(6400, np.float32)])
    lips = None if kind == "a" else model.engine.encode_lips([crops], [present], sound)
    assert len(model.engine.decode(sound, lips, Search(beam=2))) == 1


def test_a_resumed_run_equals_an_uninterrupted_one(manifest: Path, tmp_path: Path) -> None:
    config = write_config(manifest, tmp_path)
    whole = load_file(train(config, on_message=quietly) / "model.safetensors")
    stopped: list[str] = []

    def stop(line: str) -> None:
        stopped.append(line)
        if line.startswith("epoch 2/3"):
            raise KeyboardInterrupt

    other = [f"output={tmp_path / 'other'}"]
    with pytest.raises(KeyboardInterrupt):
        train(config, other, on_message=stop)
    parted = load_file(train(config, other, on_message=stopped.append) / "model.safetensors")
    assert any(line.startswith("resuming") for line in stopped)
    assert all(torch.equal(parted[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("kind", "parts", "names"),
    [
        ("v", ("lips_front", "encoder"), ("frontend", "proj_encoder", "encoder.")),
        ("a", ("sound_front", "ctc"), ("frontend", "ctc")),
        ("av", ("encoder", "decoder"), ("encoder.encoders", "aux_encoder.encoders", "fusion", "decoder")),
        ("usr", ("lips_front", "sound_front", "decoder"), ("encoder.frontend", "decoder")),
    ],
)
def test_frozen_parts_stay_equal_to_the_bit(
    kind: str, parts: Sequence[str], names: tuple[str, ...], manifest: Path, tmp_path: Path
) -> None:
    config = write_config(manifest, tmp_path, kind)
    folder = train(config, [f"freeze={list(parts)}".replace("'", ""), "optimizer.epochs=1"], on_message=quietly)
    before, after = tiny_weights(KINDS[kind]), load_file(folder / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not [name for name in changed if name.startswith(names)]
    assert not [name for name in changed if "running_" in name]


def test_the_gradient_of_a_batch_is_the_mean_of_single_ones(manifest: Path, tmp_path: Path) -> None:
    ready = ready_for(manifest, tmp_path, "usr")
    keys = [key for batch in ready.data.epoch(0) for key in batch][:3]
    ready.module.on_train_epoch_start()

    def gradient(chosen: Sequence[object]) -> torch.Tensor:
        ready.network.zero_grad()
        ready.module.loss(collate([ready.data[key] for key in chosen]), 0)[0].backward()
        parameters = list(ready.network.parameters())
        return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])

    singles = torch.stack([gradient([key]) for key in keys]).mean(dim=0)
    torch.testing.assert_close(gradient(keys), singles, rtol=1e-3, atol=1e-5)


def test_the_decoder_at_once_equals_the_decoder_step_by_step(tmp_path: Path) -> None:
    network = open_weights(model_folder(tmp_path / "v", LIPS)).network
    memory_TD, units = torch.randn(7, 8), [LIPS.end_id, 4, 9, 4, 20]
    with torch.inference_mode():
        at_once = network.decoder(torch.tensor(units), memory_TD, "all")
    scorer = network.decoder.scorer(memory_TD, "all")
    state = scorer.initial_state(1)
    for place, unit in enumerate(units):
        row, state = scorer.score(np.array([unit]), state)
        torch.testing.assert_close(torch.from_numpy(row[0]), at_once[place], rtol=1e-4, atol=1e-5)


def test_smoothing_gives_all_units_a_share() -> None:
    log_probs = torch.randn(3, 5).log_softmax(-1)
    targets = torch.tensor([1, 4, 0])
    expected = torch.nn.functional.cross_entropy(log_probs, targets, label_smoothing=0.2)
    torch.testing.assert_close(smoothed_loss(log_probs, targets, 0.2), expected)


def test_a_dry_run_writes_nothing(manifest: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    dry_run(write_config(manifest, tmp_path), on_message=lines.append)
    assert any(line.startswith("memory:") for line in lines) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "override", "message"),
    [
        ("v", "modalities={a: 1, v: 1, av: 0}", "modalities: the model is not made for a: got 1.0, expected v only"),
        ("v", "freeze=[sound_front]", "freeze: this model has no sound_front"),
        ("v", "freeze=[lips]", "lips"),
        ("v", "freeze=[lips_front,encoder,decoder,ctc]", "freeze: got all parts, expected one at least to be trained"),
        ("a", "freeze=[sound_front,encoder,decoder,ctc]", "freeze: got all parts, expected one at least to be trained"),
        ("v", "augment.mel_masks=1", "augment.mel_masks: got 1 for a model without log-mel features"),
        ("v", "loss.ctc=2", "ctc: got 2.0, expected 0 to 1"),
        ("v", "loss.fused=1", "fused"),
        ("v", "vocabulary=words.txt", "vocabulary"),
        ("v", "published=nowhere.pth", "nowhere.pth: no such file or model; check the path"),
    ],
)
def test_a_wrong_configuration_is_named(kind: str, override: str, message: str, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(avsr.AvsrError) as caught:
        ready_for(manifest, tmp_path, kind, override)
    assert message in str(caught.value)


def test_a_text_that_the_units_cannot_write_is_named(tmp_path: Path) -> None:
    units = PublishedUnits(open_weights(model_folder(tmp_path / "v", LIPS)).units)
    assert units.decode(units.encode("bin blue")) == "BIN BLUE"
    with pytest.raises(DataError, match="no units of the model spell '2'; write it in letters"):
        units.encode("bin 2")


def test_a_run_of_another_kind_is_not_continued(manifest: Path, tmp_path: Path) -> None:
    config = write_config(manifest, tmp_path)
    train(config, ["optimizer.epochs=1"], on_message=quietly)
    with pytest.raises(ConfigError, match="holds a run of another"):
        train(config, ["optimizer.epochs=1", "loss.ctc=0.3"], on_message=quietly)
