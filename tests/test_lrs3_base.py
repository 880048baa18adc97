"""configs/lrs3-base.yaml: the commands of its comment work on a small folder like LRS3, at a reduced size."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import avsr
from avsr.cli.main import main
from avsr.config import build, read_yaml
from avsr.datasets.manifest import read_manifest
from avsr.errors import ConfigError
from avsr.families.own.network import Network

pytest.importorskip("lightning", reason="training needs the extra 'train'")

from avsr.training import dry_run as dry_run_module  # noqa: E402
from avsr.training import run as training_run  # noqa: E402
from avsr.training.config import TrainConfig  # noqa: E402
from avsr.training.dry_run import dry_run  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "lrs3-base.yaml"
TEXTS = ["PLACE BLUE BY R NINE AGAIN", "SET GREEN AT F TWO NOW", "LAY RED IN G ONE SOON", "BIN WHITE WITH T SIX PLEASE"]
PIECES = 30
SMALL = [
    f"model.vocabulary_size={PIECES}",
    "model.audio_encoder.subsampling_channels=8",
    *(f"model.audio_encoder.conformer.{setting}" for setting in ("width=24", "layers=1")),
    "optimizer.epochs=1",
    "optimizer.batch_size=2",
    "optimizer.accumulate=1",
    "dev_every=2",
    "workers=0",
]
SMALL_LIPS = [
    *(f"model.visual_encoder.conformer.{setting}" for setting in ("width=24", "layers=1")),
    "model.fusion.layers=1",
]


def commands() -> list[list[str]]:
    """What the comment says to type, word by word."""
    comment = "\n".join(line[2:] for line in CONFIG.read_text().splitlines() if line.startswith("# "))
    blocks = re.findall(r"^  avsr .*(?:\n      .*)*", comment, re.MULTILINE)
    return [shlex.split(block.replace("\\\n", " ")) for block in blocks]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the corpus is corpora/lrs3."""
    folder = tmp_path_factory.mktemp("workplace")
    for index, name in enumerate(["trainval/ann/50001", "trainval/bob/50001", "trainval/cem/50001", "pretrain/dan/1"]):
        clip = folder / "corpora/lrs3" / f"{name}.mp4"
        clip.parent.mkdir(parents=True)
        shutil.copy(ROOT / "avsr/assets/demo.mp4", clip)
        clip.with_suffix(".txt").write_text(f"Text:  {TEXTS[index]}\nConf:  3\n")
    return folder


@pytest.fixture(scope="module")
def run_command(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    def run(words: list[str], *more: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(workplace)
            patch.setenv("HOME", str(workplace))
            words = [str(CONFIG) if word == "configs/lrs3-base.yaml" else word for word in words]
            words = [word.replace("~", str(workplace)) for word in words[1:]]
            assert main([*words, *more]) == 0

    return run


@pytest.fixture(scope="module")
def prepared(workplace: Path, run_command: Callable[..., None]) -> Path:
    prepare, vocabulary, *_ = commands()
    run_command(prepare, "--workers", "1", "--quiet")
    run_command(vocabulary, "--pieces", str(PIECES))
    return workplace


def test_the_size_is_base_and_it_streams() -> None:
    config = build(TrainConfig, read_yaml(CONFIG), str(CONFIG))
    with torch.device("meta"):
        network = Network(config.trained_model())
    sizes = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in network.named_children()}
    assert 30 < sizes["audio_encoder"] < 45
    assert 80 < sum(sizes.values()) < 100
    assert [frames * 80 for frames in config.model.chunk_contexts] == [80, 160, 320, 640, 1600]
    assert config.trained_model().trained == ("a", "v", "av")


def test_it_says_that_it_was_not_measured() -> None:
    assert "# Not measured: nobody has run this to the end." in CONFIG.read_text()


def test_a_dry_run_tells_and_writes_nothing(
    prepared: Path, run_command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(prepared.rglob("*"))
    run_command(commands()[2], "--dry-run", *SMALL, *SMALL_LIPS)
    assert sorted(prepared.rglob("*")) == before
    output = capsys.readouterr().out
    for expected in (
        r"^data: work/lrs3/manifest.jsonl trainval: 2 utterances, 0.00 h, 2 an epoch$",
        r"^data: work/lrs3/manifest.jsonl pretrain: 1 utterances",
        r"^parameters: 11\.\d\d M \(audio_encoder 0\.\d\d M",
        r"^schedule: 1 epochs of 2 batches, 1 a weight update$",
        r"^largest batch: 2 examples of up to 3.5 s: \d+\.\d\d s to load in one process, \d+\.\d\d s to learn from",
        r"^memory: 0\.1\d GB for weights, gradients and optimiser; \d+\.\d\d GB ",
        r"^estimate: [\d.]+ s an epoch, [\d.]+ s in all, without the development set$",
    ):
        assert re.search(expected, output, re.MULTILINE), (expected, output)


def test_a_dry_run_finds_what_training_would_refuse(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared)
    with pytest.raises(ConfigError, match=f"model.vocabulary_size: got 1000, expected {PIECES}, the units of"):
        dry_run(CONFIG, on_message=print)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/config.yaml").write_text(CONFIG.read_text())
    with pytest.raises(ConfigError, match="taken holds a run of another configuration"):
        dry_run(CONFIG, [f"output={tmp_path / 'taken'}", *SMALL, *SMALL_LIPS], on_message=print)


def test_the_largest_batch_is_the_one_that_takes_most(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the longest example, and was computed last."""
    monkeypatch.chdir(prepared)
    steps: list[list] = []
    monkeypatch.setattr(
        dry_run_module,
        "_step",
        lambda ready, optimizer, keys, index, device: steps.append(keys) or dry_run_module.Step(3.0, 2.0, 1.0),
    )
    messages: list[str] = []
    overrides = [*SMALL, *SMALL_LIPS, "optimizer.batch_size=1", "augment.joined=1.0"]
    dry_run(CONFIG, [*overrides, "workers=2", "optimizer.epochs=100"], on_message=messages.append)
    assert [sum(len(indices) for _, indices in keys) for keys in steps] == [1, 2]
    # Two thirds of the sound are in the joined batch: 1.5 times its 2 s to learn, and less to load in two processes.
    assert messages[-1].startswith("estimate: 3.0 s an epoch, 5 min in all")
    dry_run(CONFIG, [*overrides, "workers=1"], on_message=messages.append)
    assert messages[-1] == (
        "estimate: 4.5 s an epoch, 4.5 s in all, without the development set; loading is the limit: raise workers"
    )


@pytest.mark.slow
def test_the_stages_train_one_after_the_other(prepared: Path, run_command: Callable[..., None]) -> None:
    sound, lips, both = commands()[3:]
    run_command(sound, *SMALL, "--quiet")
    run_command(lips, *SMALL, *SMALL_LIPS, "--quiet")
    run_command(both, *SMALL, *SMALL_LIPS, "--quiet")
    models = {path.name: avsr.load(path / "model") for path in (prepared / "runs").iterdir()}
    assert models["lrs3-base-audio"].model.network.config.trained == ("a",)
    assert models["lrs3-base-visual"].model.network.config.trained == ("v",)
    assert models["lrs3-base-staged"].model.network.config.trained == ("a", "v", "av")
    utterance = next(u for u in read_manifest(prepared / "work/lrs3/manifest.jsonl") if u.split == "dev")
    assert utterance.coverage > 0.9
    assert models["lrs3-base-staged"].transcribe(ROOT / "avsr/assets/demo.mp4").modality == "av"


def test_the_last_stage_needs_the_ones_before(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(prepared / "work", tmp_path / "work")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="initialize: audio_encoder cannot be taken: runs/lrs3-base-audio/model"):
        training_run.train(CONFIG, [*commands()[-1][3:], *SMALL, *SMALL_LIPS], on_message=print)


def test_missing_pieces_name_the_command_that_makes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"got work/lrs3/pieces\.model, .*: avsr vocabulary MANIFEST -o work/lrs3/pieces",
    ):
        training_run.train(CONFIG, [], on_message=print)
