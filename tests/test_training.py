"""Training: losses, a run that learns, and a run that is interrupted and resumed."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
from collections import Counter
from pathlib import Path

import jiwer
import pytest
import torch
from safetensors.torch import load_file

from avsr.config import build
from avsr.errors import ConfigError, DataError, ModelError
from avsr.families.own.checkpoint import load_checkpoint
from avsr.families.own.network import Network
from avsr.families.own.run_folder import epoch_checkpoints, finished_checkpoint
from avsr.training.config import AugmentConfig, CorpusConfig, LossConfig, ModalityConfig, TrainConfig
from tests.corpus import make_corpus
from tests.test_visual_encoder import auto_avsr_weights
from tests.tiny import LIVE_CHUNKS, live_config, tiny_tokenizer
from tests.trainings import ALL_AUGMENTATION, load_config, overridden, write_config

lightning = pytest.importorskip("lightning", reason="training needs the extra 'train'")

from avsr.training import run as training_run  # noqa: E402
from avsr.training.batches import collate  # noqa: E402
from avsr.training.data import TrainingSet  # noqa: E402
from avsr.training.module import (  # noqa: E402
    TrainingModule,
    ctc_loss,
    mask_mel,
    peak_first_loss,
    targets_of_frames,
    trust_loss,
    warp_mel,
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def config_file(manifest: Path, tmp_path: Path) -> Path:
    return write_config(manifest, tmp_path)


def quietly(_: str) -> None:
    pass


def test_ctc_loss_ignores_padding_and_counts_a_unit() -> None:
    log_probs = torch.randn(2, 9, 5).log_softmax(-1)
    tokens = torch.tensor([[0, 1, 2], [3, 0, 0]])
    lengths, counts = torch.tensor([9, 6]), torch.tensor([3, 1])
    whole = ctc_loss(log_probs, lengths, tokens, counts)
    one = ctc_loss(log_probs[:1], lengths[:1], tokens[:1], counts[:1])
    other = ctc_loss(log_probs[1:, :6], lengths[1:], tokens[1:, :1], counts[1:])
    torch.testing.assert_close(whole, (one + other) / 2)


def test_word_times_for_other_frames_than_80_ms(config_file: Path, tmp_path: Path) -> None:
    targets = torch.tensor([[3, 1, 2]])
    assert targets_of_frames(targets, 3, 8).tolist() == [[3, 1, 2]]
    assert targets_of_frames(targets, 5, 4).tolist() == [[3, 3, 1, 1, 2]]
    assert targets_of_frames(targets, 2, 16).tolist() == [[1, 2]]
    overrides = [
        f"output={tmp_path / 'short frames'}",
        "optimizer.epochs=1",
        "model.audio_encoder.subsampling=4",
        "model.visual_encoder=null",
        "model.fusion=null",
        "modalities={a: 1, v: 0, av: 0}",
        "loss={audio: 1, word_times: [0.5, 0.5]}",
    ]
    assert training_run.train(config_file, overrides, on_message=quietly).exists()


def test_masks_cover_at_most_what_is_configured() -> None:
    masked = mask_mel(torch.ones(4, 80, 100), torch.tensor([100, 100, 100, 60]), ALL_AUGMENTATION)
    assert (masked[3, :, 60:] == 0).all()
    hidden_bins = (masked[:, :, :60] == 0).all(-1).sum(-1)
    assert (hidden_bins <= ALL_AUGMENTATION.mel_mask_bins).all()


def test_trust_is_taught_by_whole_and_by_wrong_lips_only() -> None:
    from types import SimpleNamespace

    trust = torch.tensor([[0.0, 3.0, -50.0, 50.0], [0.0, 50.0, 50.0, 50.0], [1.0, 1.0, 1.0, 1.0], [9.0] * 4])
    present = torch.ones(4, 8, dtype=torch.bool)
    present[0] = torch.tensor([1, 0, 0, 1, 1, 1, 0, 0]).bool()  # the last frame shows no lips
    batch = SimpleNamespace(
        present=present,
        has_audio=torch.tensor([True, True, True, False]),
        lips_match=torch.tensor([False, True, True, False]),
        lips_whole=torch.tensor([False, True, False, False]),
    )
    lengths = torch.tensor([4, 3, 4, 4])  # the last frame of the second is padding
    wrong = (math.log(2) + math.log1p(math.exp(3)) + 0.0) / 3
    whole = (math.log(2) + 0.0 + 0.0) / 3
    assert float(trust_loss(trust, batch, lengths)) == pytest.approx(wrong + whole, rel=1e-4)  # type: ignore[arg-type]
    batch.has_audio[:] = False
    assert float(trust_loss(trust, batch, lengths)) == 0.0  # type: ignore[arg-type]


def test_another_vocal_tract_moves_the_frequencies() -> None:
    from avsr.sound.mel import mel_middles_hz

    torch.manual_seed(1)
    middles = mel_middles_hz(80)
    peak = int((middles - 2000).abs().argmin())
    mel = -((torch.arange(80) - peak).float() ** 2)[None, :, None].expand(64, 80, 7).contiguous()
    warped = warp_mel(mel, 0.15)
    assert warped.shape == mel.shape
    factors = middles[peak] / middles[warped[:, :, 0].argmax(1)]
    assert 0.82 < float(factors.min()) < 0.92 and 1.08 < float(factors.max()) < 1.2
    torch.testing.assert_close(warped[:, :, 0], warped[:, :, 6])
    torch.testing.assert_close(warp_mel(mel, 0.0), mel)
    # The highest frequency stays where it is.
    ramp = middles.float()[None, :, None].expand(8, 80, 2).contiguous()
    torch.testing.assert_close(warp_mel(ramp, 0.15)[:, -1], ramp[:, -1], atol=60, rtol=0)


def test_interrupted_equals_uninterrupted(config_file: Path, tmp_path: Path) -> None:
    whole = training_run.train(config_file, [f"output={tmp_path / 'whole'}"], on_message=quietly)

    class Interruption(RuntimeError):  # noqa: N818
        pass

    def stop_after_second_epoch(message: str) -> None:
        if message.startswith("epoch 2/3"):
            raise Interruption

    overrides = [f"output={tmp_path / 'halves'}"]
    with pytest.raises(Interruption):
        training_run.train(config_file, overrides, on_message=stop_after_second_epoch)
    assert finished_checkpoint(tmp_path / "halves") is None and epoch_checkpoints(tmp_path / "halves")
    messages: list[str] = []
    halves = training_run.train(config_file, overrides, on_message=messages.append)
    assert any(message.startswith("resuming from") for message in messages)
    assert sum(message.startswith("epoch ") for message in messages) == 1
    one, other = load_file(whole / "model.safetensors"), load_file(halves / "model.safetensors")
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
    lines = (tmp_path / "halves/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


def test_ctrl_c_stops_before_the_next_batch_and_can_be_resumed(config_file: Path, tmp_path: Path) -> None:
    def press_after_first_epoch(message: str) -> None:
        if message.startswith("epoch 1/3"):
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        training_run.train(config_file, on_message=press_after_first_epoch)
    assert signal.getsignal(signal.SIGINT) is before
    messages: list[str] = []
    training_run.train(config_file, on_message=messages.append)
    assert [m[:9] for m in messages if m.startswith("epoch ")] == ["epoch 2/3", "epoch 3/3"]


def test_a_run_says_what_will_happen_and_leaves_its_record(config_file: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    training_run.train(config_file, ["optimizer.epochs=1"], on_message=messages.append)
    text = "\n".join(messages)
    for expected in ("4 utterances, 0.00 h", "parameters: ", "schedule: 1 epochs", "dev WER A "):
        assert expected in text
    run = tmp_path / "run"
    assert {"config.yaml", "command.txt", "versions.json", "metrics.jsonl", "checkpoints", "tensorboard", "model"} <= {
        path.name for path in run.iterdir()
    }
    assert load_checkpoint(run / "model")[0].config.trained == ("a", "v", "av")
    assert finished_checkpoint(run) == run / "model"
    with pytest.raises(ConfigError, match="another configuration: got seed 2 instead of 1; give another output"):
        training_run.train(config_file, ["optimizer.epochs=1", "seed=2"], on_message=quietly)
    with pytest.raises(ConfigError, match="another length.*cannot be changed: got optimizer.epochs 2 instead of 1"):
        training_run.train(config_file, ["optimizer.epochs=2"], on_message=quietly)


def test_a_model_knows_what_it_was_trained_for(config_file: Path) -> None:
    config = load_config(config_file)
    assert config.trained_model().trained == ("a", "v", "av")

    def trained(loss: LossConfig, **odds: float) -> tuple[tuple[str, ...] | None, str]:
        changed = dataclasses.replace(config, loss=loss, modalities=ModalityConfig(**{"a": 0, "v": 0, "av": 0, **odds}))
        model = changed.trained_model()
        return model.trained, model.decodes

    assert trained(LossConfig(fused=0, audio=0), v=1) == (("v",), "sides")
    assert trained(LossConfig(fused=0), av=1) == (("a", "v"), "sides")
    assert trained(LossConfig(), a=1, av=1) == (("a", "av"), "fused")
    assert trained(LossConfig(audio=0), av=1) == (("av",), "fused")
    assert trained(LossConfig(), av=1) == (("a", "av"), "fused")
    config = dataclasses.replace(config, freeze=("audio_encoder", "audio_head"))
    assert trained(LossConfig(audio=0), av=1) == (("a", "av"), "fused")


def test_epochs_without_measurement_claim_none() -> None:
    assert training_run.describe({"train/loss": 1.0}) == ""
    assert training_run.describe({"dev/wer_a": 1.0, "dev/wer_a_noisy": 2.0}) == "dev WER A 1.0 %, A at 0 dB 2.0 %"


def test_a_batch_that_teaches_nothing_is_survived(config_file: Path) -> None:
    overrides = [
        "modalities={a: 0, v: 1, av: 0}",
        "augment={hidden_slots: 0, lip_effects: {dropped: 1.0}}",
        "loss={fused: 1.0}",
        "optimizer.epochs=1",
    ]
    config = build(TrainConfig, overridden(config_file, overrides), "here")
    data = TrainingSet(config, tiny_tokenizer())
    taught = {bool(data[epoch, (0,)].present.mean() > 0.5) for epoch in range(20)}
    assert taught == {True, False}
    module = TrainingModule(config, Network(config.model), tiny_tokenizer(), data)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    for epoch in range(20):
        batch = collate([data[epoch, (0,)]])
        loss = module.training_step(batch, 0)
        loss.backward()
        assert (loss > 0) == bool(batch.present.float().mean() > 0.5)


NO_LIPS = ("model.visual_encoder=null", "seed=4")


def test_wrong_runs_are_refused(config_file: Path, manifest: Path, tmp_path: Path) -> None:
    def check(error: type[Exception], message: str, *overrides: str) -> None:
        with pytest.raises(error, match=message):
            training_run.train(
                config_file, [f"output={tmp_path / 'refused'}{len(overrides)}", *overrides], on_message=quietly
            )

    check(ConfigError, "unknown key optimiser.*did you mean optimizer", "optimiser.epochs=1")
    check(ConfigError, "initialize: got visual_tronk, expected.*visual_trunk", "initialize={visual_tronk: x}")
    check(ConfigError, "freeze: got fusion, expected", "freeze=[fusion]", "model.fusion=null", *NO_LIPS)
    check(DataError, "no utterance of split 'tran': expected one of dev, train", "dev.split=tran", "seed=2", "seed=2")
    check(DataError, "no utterances to train on", "train.0.split=x", "train.0.optional=true")
    short = tmp_path / "short.txt"
    short.write_text("bin\n")
    check(ConfigError, "model.vocabulary_size: got 6, expected 1", f"vocabulary={short}", "seed=3")
    empty = tmp_path / "empty.txt"
    empty.write_text("bin\n\n")
    check(ModelError, "empty.txt: vocabulary is wrong", f"vocabulary={empty}")
    hears = ["model.visual_encoder=null", "model.fusion=null"]
    check(ConfigError, "modalities: got v 0.25 and av 0.5 for a model without a visual_encoder", *hears)
    hears.append("modalities={a: 1, v: 0, av: 0}")
    check(
        ConfigError,
        "freeze: got visual_encoder, expected parts of this model: audio_encoder, audio_head",
        *hears,
        "freeze=[visual_encoder]",
    )
    check(ConfigError, "freeze: got all parts", *hears, "freeze=[audio_encoder, audio_head]")
    check(ConfigError, "loss: got fused 1.0, audio 0.0, visual 0.3", *hears, "loss.audio=0")
    check(ConfigError, "loss: got fused 0.0, audio 0.0", "loss.fused=0", "loss.audio=0", "loss.visual=0")
    check(ConfigError, "heads: got 5, expected", "model.fusion.heads=5")
    check(ConfigError, "initialize: got config, expected parts of this model", "initialize={config: x}")
    gone = tmp_path / "gone"
    check(
        ConfigError, "initialize: fusion cannot be taken: .*gone: no such checkpoint", f"initialize={{fusion: {gone}}}"
    )
    check(ConfigError, "augment: speed: got 1.0, expected 0 to 0.5", "augment.speed=1")
    check(ConfigError, "dev_every: got 0", "dev_every=0")
    with pytest.raises(
        ConfigError, match="output .*short.txt/run: cannot be written: got Not a directory; give another"
    ):
        training_run.train(config_file, [f"output={short}/run"], on_message=quietly)
    assert not list(tmp_path.glob("refused*"))  # nothing is left behind


def test_parts_are_initialised_and_frozen(config_file: Path, tmp_path: Path) -> None:
    source = training_run.train(config_file, ["optimizer.epochs=1"], on_message=quietly)
    overrides = [
        f"output={tmp_path / 'second'}",
        "optimizer.epochs=1",
        "seed=2",
        f"initialize={{audio_encoder: {source}, visual_encoder: {source}}}",
        "freeze=[audio_encoder, visual_encoder]",
    ]
    second = training_run.train(config_file, overrides, on_message=quietly)
    before, after = load_file(source / "model.safetensors"), load_file(second / "model.safetensors")
    for name in before:
        if name.startswith(("audio_encoder", "visual_encoder")):
            assert torch.equal(before[name], after[name]), name
    assert not torch.equal(before["audio_head.project.weight"], after["audio_head.project.weight"])


def test_the_trunk_is_initialised_from_a_published_file_and_frozen(
    config_file: Path, manifest: Path, tmp_path: Path
) -> None:
    weights = auto_avsr_weights("encoder.frontend.")
    torch.save(weights, tmp_path / "vsr.pth")
    overrides = [
        f"initialize={{visual_trunk: {tmp_path / 'vsr.pth'}}}",
        "freeze=[visual_trunk]",
        f"train=[{{manifest: {manifest}, per_epoch: 1}}]",
        "modalities={a: 0, v: 1, av: 0}",
        "loss={fused: 0, audio: 0, visual: 1}",
        "optimizer.epochs=1",
        "dev_every=2",
    ]
    with pytest.raises(ConfigError, match="visual_trunk from a file: expected model.visual_encoder.trunk: resnet18"):
        training_run.train(config_file, overrides, on_message=quietly)
    shape = [
        "model.visual_encoder.channels=[24, 48, 96, 128]",
        "model.visual_encoder.trunk=resnet18",
        "model.visual_encoder.normalize=fixed",
    ]
    trained = load_file(training_run.train(config_file, overrides + shape, on_message=quietly) / "model.safetensors")
    stem = trained["visual_encoder.trunk.resnet.conv1.weight"]
    assert torch.equal(stem, weights["encoder.frontend.frontend3D.0.weight"][:, 0])
    variance = "layer4.1.bn2.running_var"
    assert torch.equal(
        trained[f"visual_encoder.trunk.resnet.{variance}"], weights[f"encoder.frontend.trunk.{variance}"]
    )


def test_a_small_model_learns_its_corpus(config_file: Path, manifest: Path) -> None:
    """Three modalities of one checkpoint, after a minute on artificial words."""
    overrides = [
        "augment={joined: 0.3}",
        "optimizer={epochs: 120, batch_size: 4, learning_rate: 3.0e-3, average_last: 2}",
        "loss={word_times: [1.0, 0.2], word_times_epochs: 60}",
        "dev.split=train",
        "dev_every=120",
    ]
    folder = training_run.train(config_file, overrides, on_message=quietly)
    config = load_config(config_file)
    from avsr.training.data import EvaluationSet
    from avsr.training.items import Corpus

    network, tokenizer = load_checkpoint(folder)
    data = TrainingSet(dataclasses.replace(config, augment=AugmentConfig()), tokenizer)
    module = TrainingModule(config, network, tokenizer, data).eval()
    examples = EvaluationSet(Corpus(CorpusConfig(manifest=str(manifest))), tokenizer)
    batch = collate([examples[index] for index in range(len(examples))])
    with torch.inference_mode():
        for modality, texts in module.transcribe(batch).items():
            assert jiwer.wer(batch.texts, texts) <= 0.1, modality


def test_peak_first_pulls_words_forward() -> None:
    logits = torch.zeros(1, 6, 3)
    logits[0, :, 2] = 4.0  # blank, but for a peak at frame 3 and another behind the end
    logits[0, 3, 0] = logits[0, 5, 1] = 8.0
    logits.requires_grad_()
    loss = peak_first_loss(logits.log_softmax(-1), torch.tensor([5]))
    loss.backward()
    assert logits.grad is not None
    assert loss > 0
    assert logits.grad[0, 2, 0] < 0  # frame 2 is to say what frame 3 says,
    assert logits.grad[0, 3, 0] > 0  # and frame 3 what frame 4 says
    torch.testing.assert_close(logits.grad[0, 4:], torch.zeros(2, 3))  # the last frame has no next


def test_every_context_is_trained(config_file: Path) -> None:
    config = dataclasses.replace(load_config(config_file), model=live_config())
    data = TrainingSet(config, tiny_tokenizer())
    module = TrainingModule(config, Network(config.model), tiny_tokenizer(), data)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
    drawn = Counter(module.draw_attention(index) for index in range(300))
    assert set(drawn) == {None, *LIVE_CHUNKS}
    assert min(drawn.values()) > 25
    for index, keys in enumerate(data.epoch(0)[:4]):
        assert torch.isfinite(module.training_step(collate([data[key] for key in keys]), index))


def test_error_rates_are_recorded_only_in_the_epochs_that_measured_them(config_file: Path) -> None:
    lines: list[str] = []
    overrides = ["optimizer.epochs=3", "dev_every=2"]
    training_run.train(config_file, overrides, on_message=lines.append)
    run = Path(overridden(config_file, [])["output"])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [any(key.startswith("dev/") for key in row) for row in rows] == [False, True, False]
    assert [("dev WER" in line) for line in lines if line.startswith("epoch ")] == [False, True, False]
