"""Archives of published models: results equal the reference, and wrong or hostile archives are refused."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import avsr
from avsr.cli.main import main
from avsr.decoding.greedy import greedy
from avsr.errors import ModelError
from avsr.families import hub
from avsr.families.nemo import load_nemo
from avsr.families.own.checkpoint import load_checkpoint, save_checkpoint
from avsr.nn.context import AttentionContext
from avsr.recognizer import Recognizer
from avsr.untrusted import archive as nemo_archive
from tests.media import shared_nemo
from tests.nemo_archive import TOKENIZER_MEMBER, content, saved, tokenizer_model, weights, write_archive
from tests.test_recognizer import write_wav
from tests.tiny import engine_of, random_samples

PUBLISHED = [
    "conformer",
    "ctc_large_like",
    "hybrid",
    "local_attention",
    "local_attention_global",
    "local_attention_global_sep",
    "nobias_mel128",
    "streaming",
    "streaming_hybrid",
    "xxl_like",
]


def context_of(recognizer: Recognizer, case: str) -> AttentionContext:
    """The attention context in the name of a case, as in `short.ctx28_13`; the default context if it names none."""
    config = recognizer.model.network.config.audio_encoder
    _, _, name = case.partition(".ctx")
    contexts = (config.attention, *config.attention_choices)
    return next(c for c in contexts if not name or f"{c.left}_{c.right}" == name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_say_what_the_reference_says(name: str) -> None:
    recognizer = avsr.load(shared_nemo(f"{name}.nemo"), device="cpu")
    expected = np.load(shared_nemo(f"{name}.npz"))
    cases = json.loads(shared_nemo(f"{name}.json").read_text())["cases"]
    for case, said in cases.items():
        clip = case.partition(".")[0]
        context = context_of(recognizer, case)
        counts = expected[f"{clip}.audio_len"].tolist()
        audio = expected[f"{clip}.audio"].astype(np.float32) / 32768
        utterances = [audio[index, :count] for index, count in enumerate(counts)]
        mel, lengths = engine_of(recognizer).features(utterances)
        assert lengths.tolist() == expected[f"{clip}.feat_len"].tolist()
        with torch.inference_mode():
            heard, frames = recognizer.model.network(mel, lengths, attention=context)[:2]
        assert frames.tolist() == expected[f"{case}.enc_len"].tolist()
        for index, frame_count in enumerate(frames.tolist()):
            units = greedy(heard[index, :frame_count].numpy(), recognizer.model.network.blank_id)
            assert units == said["token_ids"][index]
            assert engine_of(recognizer).tokenizer.decode(units) == said["text"][index]
        if f"{clip}.features" not in expected:
            continue
        # The reference computes its features in float32, which moves a weak filter beside strong ones by up to 1e-4. So
        # the network gets the features of the reference.
        theirs = torch.from_numpy(expected[f"{clip}.features"])
        with torch.inference_mode():
            log_probs, _ = recognizer.model.network(theirs, lengths, attention=context)[:2]
        for index, (mel_count, frame_count) in enumerate(zip(lengths.tolist(), frames.tolist(), strict=True)):
            torch.testing.assert_close(mel[index, :, :mel_count], theirs[index, :, :mel_count], atol=2e-4, rtol=0)
            wanted = torch.from_numpy(expected[f"{case}.log_probs"])[index, :frame_count]
            torch.testing.assert_close(log_probs[index, :frame_count], wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n != "local_attention_global_sep"])
def test_published_models_alone_and_in_a_batch(name: str) -> None:
    """Several global tokens are excepted: the reference confuses their rows across a batch, and so do we."""
    recognizer = avsr.load(shared_nemo(f"{name}.nemo"), device="cpu")
    utterances = [random_samples(seconds) for seconds in (2.7, 1.0, 0.31)]
    batch = recognizer.log_probs(utterances)
    for index, samples in enumerate(utterances):
        alone = recognizer.log_probs([samples])
        np.testing.assert_allclose(alone[0], batch[index], atol=5e-5, rtol=0)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("nemo") / "tiny.nemo")


def test_words_with_times(archive: Path, tmp_path: Path) -> None:
    recognizer = avsr.load(archive, device="cpu")
    transcript = recognizer.transcribe(write_wav(tmp_path / "a.wav", random_samples(2.5)))
    assert (transcript.model, transcript.modality) == ("tiny", "a")
    log_probs = recognizer.log_probs([(random_samples(2.5) * 32767).astype("<i2").astype(np.float32) / 32768])
    units = greedy(log_probs[0], recognizer.model.network.blank_id)
    assert transcript.text.split() == engine_of(recognizer).tokenizer.decode(units).split()
    assert len(transcript.words) > 1
    for word, after in zip(transcript.words, transcript.words[1:], strict=False):
        assert 0 <= word.start < word.end <= after.start + 1e-9
        assert 0 < word.confidence <= 1


def test_frames_of_forty_ms(tmp_path: Path) -> None:
    def four_times(settings: dict[str, Any]) -> None:
        settings["encoder"] |= {"subsampling_factor": 4}

    state = weights()
    del state["encoder.pre_encode.conv.5.weight"], state["encoder.pre_encode.conv.5.bias"]
    del state["encoder.pre_encode.conv.6.weight"], state["encoder.pre_encode.conv.6.bias"]
    state["encoder.pre_encode.out.weight"] = torch.randn(16, 8 * 21)
    path = write_archive(tmp_path / "four.nemo", four_times, members={"./model_weights.ckpt": saved(state)})
    recognizer = avsr.load(path, device="cpu")
    assert recognizer.model.network.config.frame_ms == 40
    transcript = recognizer.transcribe(write_wav(tmp_path / "a.wav", random_samples(18.5)))  # two windows
    assert transcript.words[-1].end > 17.0


def test_round_trip_through_a_folder(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    assert main(["import", str(archive), "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "config.yaml",
        "model.safetensors",
        "tokenizer.model",
    ]
    samples = [random_samples(1.0)]
    imported, direct = avsr.load(out, device="cpu"), avsr.load(archive, device="cpu")
    assert np.array_equal(imported.log_probs(samples)[0], direct.log_probs(samples)[0])
    assert imported.model.network.config == direct.model.network.config
    assert engine_of(imported).tokenizer.data() == engine_of(direct).tokenizer.data()

    assert main(["import", str(archive), "-o", str(out)]) == 1
    assert "is there already; give another folder, or --overwrite" in capsys.readouterr().err
    assert main(["import", str(archive), "-o", str(out), "--overwrite"]) == 0
    assert main(["import", str(archive), "-o", str(tmp_path), "--overwrite"]) == 1  # never replaces another folder
    assert archive.exists()


def test_tokenizer_of_another_size_is_refused(archive: Path, tmp_path: Path) -> None:
    network, tokenizer = load_nemo(archive)
    folder = save_checkpoint(tmp_path / "model", network, tokenizer, card="")
    (folder / "tokenizer.model").write_bytes(tokenizer_model(36))
    with pytest.raises(ModelError, match="vocabulary: got 36 units, expected 40"):
        load_checkpoint(folder)
    (folder / "tokenizer.model").write_bytes(b"\xff" * 50)
    with pytest.raises(ModelError, match="tokenizer cannot be read"):
        load_checkpoint(folder)


def test_compressed_archives_and_an_outer_section(archive: Path, tmp_path: Path) -> None:
    def outer(settings: dict[str, Any]) -> None:
        inner = dict(settings)
        settings.clear()
        settings["model"] = inner

    packed = write_archive(tmp_path / "tiny.nemo", outer, compressed=True)
    samples = [random_samples(0.5)]
    assert np.array_equal(*(avsr.load(path, device="cpu").log_probs(samples)[0] for path in (archive, packed)))


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("encoder", "self_attention_model", "abs_pos", "encoder.self_attention_model is not supported: got 'abs_pos'"),
        ("encoder", "subsampling", "vggnet", "encoder.subsampling is not supported"),
        ("encoder", "subsampling_factor", 16, "encoder.subsampling_factor is not supported: got 16"),
        ("encoder", "subsampling_factor", True, "encoder.subsampling_factor is not supported: got True"),
        ("encoder", "att_context_style", "chunked_limited_with_rc", "encoder.att_context_style is not supported"),
        ("encoder", "att_context_size", [[8, 2]], r"encoder.att_context_size is not supported: got \[8, 2\]"),
        ("encoder", "att_context_size", "all", "encoder.att_context_size is not supported"),
        ("encoder", "subsampling_conv_channels", 0, "encoder.subsampling_conv_channels is not supported: got 0"),
        ("encoder", "conv_norm_type", "group_norm8", "encoder.conv_norm_type is not supported: got 'group_norm8'"),
        ("encoder", "conv_context_size", [3, 3], "encoder.conv_context_size is not supported"),
        ("encoder", "reduction", "pooling", "encoder.reduction is not supported"),
        ("encoder", "feat_out", 32, "encoder.feat_out is not supported: got 32"),
        ("encoder", "d_model", 10**9, "encoder.d_model is not supported: got 1000000000, expected 1 to 8192"),
        ("encoder", "n_layers", 10**6, "encoder.n_layers is not supported"),
        ("encoder", "n_heads", 3, "encoder.n_heads is not supported"),
        ("encoder", "novelty", 1, "encoder.novelty is not supported: got 1"),
        ("preprocessor", "normalize", "all_features", "preprocessor.normalize is not supported: got 'all_features'"),
        ("preprocessor", "window_size", 0.02, "preprocessor.window_size is not supported: got 0.02, expected 0.025"),
        ("preprocessor", "n_fft", 1024, "preprocessor.n_fft is not supported"),
        ("preprocessor", "novelty", 1, "preprocessor.novelty is not supported"),
        ("preprocessor", "_target_", "x.Mfcc", "preprocessor._target_ is not supported: got 'x.Mfcc'"),
        ("tokenizer", "type", "wpe", "tokenizer.type is not supported: got 'wpe'"),
        ("tokenizer", "model_path", "nemo:../../passwd", "passwd is missing"),
        ("decoder", "num_classes", 41, "decoder.num_classes is not supported: got 41, expected 40"),
        ("decoder", "novelty", 1, "decoder.novelty is not supported"),
    ],
)
def test_unsupported_settings_are_named(tmp_path: Path, section: str, key: str, value: object, message: str) -> None:
    path = write_archive(tmp_path / "tiny.nemo", lambda settings: settings[section].update({key: value}))
    with pytest.raises(ModelError, match=message):
        load_nemo(path)


def test_other_models_are_named(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.nemo", lambda settings: settings.update(target="x.EncDecRNNTBPEModel"))
    with pytest.raises(
        ModelError, match="transducer model without a CTC head, which cannot be read yet: got 'EncDecRNNT"
    ):
        load_nemo(path)
    path = write_archive(tmp_path / "b.nemo", lambda settings: settings.update(target="x.EncDecSpeaker"))
    with pytest.raises(ModelError, match="target is not supported: got 'x.EncDecSpeaker', expected EncDecCTC"):
        load_nemo(path)


@pytest.mark.parametrize("name", ["hf:some/model", "HF:some/model", "."])
def test_what_needs_no_import_is_not_imported(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", name, "-o", str(tmp_path / "made")]) == 1
    err = capsys.readouterr().err
    assert "needs no import: expected a .nemo file; name it with --model " + name.replace("HF", "hf") in err
    path = write_archive(tmp_path / "b.nemo", lambda settings: settings.update(sample_rate=8000))
    with pytest.raises(ModelError, match="sample_rate is not supported: got 8000, expected 16000"):
        load_nemo(path)


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    def check(state: object, message: str) -> None:
        path = write_archive(tmp_path / "tiny.nemo", members={"./model_weights.ckpt": saved(state)})
        with pytest.raises(ModelError, match=message):
            load_nemo(path)

    name = "encoder.layers.1.conv.pointwise_conv1.weight"
    check({k: v for k, v in weights().items() if k != name}, f"weight {name} is missing")
    check(
        {**weights(), name: torch.zeros(3, 3)}, rf"weight {name} has another shape: got \(3, 3\), expected \(32, 16\)"
    )
    check({**weights(), "encoder.extra": torch.zeros(1)}, "weight 'encoder.extra' is not supported")
    check({**weights(), name: "text"}, "got str, expected a plain tensor")
    check([1, 2], "model_weights.ckpt cannot be read: got list")
    # A few bytes that claim to be terabytes.
    check({**weights(), name: torch.zeros(1).expand(1 << 42)}, "more numbers than the file holds")
    check({**weights(), "preprocessor.featurizer.fb": torch.zeros(1, 80, 257)}, "featurizer.fb is not supported")


TOKENIZER_YAML = f"tokenizer: {{type: bpe, model_path: {TOKENIZER_MEMBER}}}\n"


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('the pickle ran')",))


def test_hostile_archives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.nemo"

    def check(message: str) -> None:
        with pytest.raises(ModelError, match=message):
            load_nemo(path)

    write_archive(path, members={"./model_weights.ckpt": saved({"x": Bomb()})})
    check("model_weights.ckpt cannot be read")
    write_archive(path, members={"./model_weights.ckpt": b"PK not a zip"})
    check("model_weights.ckpt cannot be read")
    write_archive(path, members={"../model_config.yaml": b"a: 1"})
    check("two members are called 'model_config.yaml'")
    write_archive(path, members={"./model_config.yaml": b"!!python/object/apply:os.system [ls]"})
    check("a tag is not read")
    write_archive(path, members={"./model_config.yaml": b"[" * 100_000})
    check("nested too deep")
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 200))
    for key in ("target", "encoder", "preprocessor"):
        write_archive(path, members={"./model_config.yaml": (bomb + TOKENIZER_YAML + f"{key}: *a199\n").encode()})
        check("too many values")
    large = yaml.safe_dump(content()).replace("n_layers: 2", "n_layers: 0x" + "f" * 20_000)
    write_archive(path, members={"./model_config.yaml": large.encode()})
    check("a number is too long")
    write_archive(path, members={"./model_config.yaml": b"\xff\xfe"})
    check("not valid YAML")
    write_archive(path, members={f"./{TOKENIZER_MEMBER}": b"\x08\x01" * 30})
    check("tokenizer")
    write_archive(path, members={f"./{number}": b"" for number in range(1100)})
    check("1000 members at most")

    whole = write_archive(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    check("cut off|not a model archive")
    for damaged in (b"", b"\x1f\x8b", b"text", b"\x1f\x8b" + whole[2:], gzip.compress(whole)[:-500]):
        path.write_bytes(damaged)
        check("not a model archive|cannot be decompressed|is missing")

    with tarfile.open(path, "w") as tar:  # a header that states a length of 5 GB
        member = tarfile.TarInfo("pax")
        member.type, member.size = tarfile.XHDTYPE, 5 << 30
        assert tar.fileobj is not None
        tar.fileobj.write(member.tobuf())
        tar.addfile(tarfile.TarInfo("x"), io.BytesIO())
    check("tar headers of more than")
    with tarfile.open(path, "w") as tar:  # links are no members
        member = tarfile.TarInfo("model_config.yaml")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    check("model_config.yaml is missing")

    monkeypatch.setattr(nemo_archive, "FREE_GZIP_BYTES", 5_000_000)
    path.write_bytes(gzip.compress(bytes(10_000_000)))
    check("too large when decompressed")
    with pytest.raises(ModelError, match="no such file"):
        load_nemo(tmp_path / "none.nemo")


def test_hub_ids(monkeypatch: pytest.MonkeyPatch, archive: Path, tmp_path: Path) -> None:
    assert hub.is_hub_id("nvidia/parakeet-ctc-0.6b")
    assert not any(
        hub.is_hub_id(name) for name in ("grid-tiny", "../model", "/tmp/x", "a/b/c", "models/x.nemo", "a/..")
    )
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match="no model 'some/model' here.*pip install '.\\[hub\\]', or download"):
        avsr.load("hf:some/model")

    def offline(*args: object, **kwargs: object) -> str:
        raise OSError("no connection")

    def module(name: str, **attributes: object) -> None:
        fake = types.ModuleType(name)
        fake.__dict__.update(attributes)
        monkeypatch.setitem(__import__("sys").modules, name, fake)

    module("huggingface_hub", snapshot_download=offline)
    module("huggingface_hub.errors", HfHubHTTPError=OSError)
    with pytest.raises(ModelError, match="'some/model' cannot be fetched.*no connection; check the name and the conn"):
        avsr.load("hf:some/model")
    module("huggingface_hub", snapshot_download=lambda *args, **kwargs: str(archive.parent))
    assert avsr.load("hf:some/model", device="cpu").name == "tiny"
    module("huggingface_hub", snapshot_download=lambda *args, **kwargs: str(tmp_path))
    with pytest.raises(ModelError, match="some/model: not a checkpoint: got 0 .nemo files"):
        avsr.load("hf:some/model")


def test_the_configuration_of_the_helper_is_what_is_read(archive: Path) -> None:
    config = avsr.load(archive, device="cpu").model.network.config.audio_encoder
    assert content()["encoder"]["att_context_size"] == [[8, 3], [8, 0]]
    assert config.attention == AttentionContext(style="chunked", left=8, right=3)
    assert config.attention_choices == (AttentionContext(style="chunked", left=8, right=0),)
    assert config.subsampling_causal and config.scale_input and config.conformer.use_bias
