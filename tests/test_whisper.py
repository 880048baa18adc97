"""Whisper models: features, tokens, checks of texts and files, and the engine on real weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchaudio

import avsr
from avsr import families
from avsr.catalogue.entries import find_entry
from avsr.decoding.search import Search, Spoken
from avsr.errors import ConfigError, ModelError
from avsr.families.whisper.checks import is_without_speech, without_crowds, without_loop
from avsr.families.whisper.features import log_mel
from avsr.families.whisper.model_file import check_model_file
from avsr.families.whisper.times import without_pauses
from avsr.grid import SAMPLE_RATE_HZ
from tests.media import installed_model, shared_corpus
from tests.whisper_files import TOKENS, model_file, network_file, shapes, tensor, write_tokenizer, write_vocabulary

pytest.importorskip("ctranslate2", reason="needs the extra whisper")

from avsr.families.whisper.tokens import Tokens  # noqa: E402 (needs the extra)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE_HZ)).astype(np.float32)


@pytest.mark.parametrize("filters", [80, 128])
def test_features_equal_those_of_torchaudio(filters: int) -> None:
    samples_S = noise(1.0)
    spectrum = torch.stft(
        torch.from_numpy(np.pad(samples_S, (0, SAMPLE_RATE_HZ))), 400, 160, window=torch.hann_window(400),
        return_complex=True,
    )  # fmt: skip
    power_KT = spectrum.abs()[:, :-1] ** 2
    filters_KF = torchaudio.functional.melscale_fbanks(201, 0.0, 8000.0, filters, 16000, "slaney", "slaney")
    log_FT = (filters_KF.T @ power_KT[:, :101]).clamp(min=1e-10).log10()
    expected_FT = (torch.maximum(log_FT, log_FT.max() - 8) + 4) / 4
    features_FT = log_mel(samples_S, filters, 150)
    np.testing.assert_allclose(features_FT[:, :101], expected_FT[:, :101].numpy(), atol=2e-4)
    assert not features_FT[:, 101:].any()


@pytest.mark.parametrize("samples", [0, 1, 100, 399, 16_000 * 31])
def test_features_of_sounds_of_any_length(samples: int) -> None:
    features_FT = log_mel(noise(31)[:samples], 80, 3000)
    assert features_FT.shape == (80, 3000) and features_FT.dtype == np.float32 and np.isfinite(features_FT).all()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    path = tmp_path_factory.mktemp("tokens") / "tokenizer.json"
    write_tokenizer(path)
    return Tokens(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" Don't ask - me, to-day.", ["Don't", "ask-", "me,", "to-day."]),
        (' "Yes," she said...', ['"Yes,"', "she", "said..."]),
        (" 제목은 DID로 세상을", ["제목은", "DID로", "세상을"]),
        ("今日は、", ["今", "日", "は、"]),
        (" - ♪", []),
        ("", []),
        ("我用GPU在2020年。", ["我", "用", "GPU", "在", "2020", "年。"]),
    ],
)
def test_words_of_tokens(tokens: Tokens, text: str, words: list[str]) -> None:
    assert [word.text for word in tokens.words(tokens.encode(text))] == words


def test_punctuation_has_no_part_in_the_times_of_a_word(tokens: Tokens) -> None:
    (word,) = tokens.words(tokens.encode(' "Oh,"'))
    assert tokens.decode(range(0)) == ""
    assert tokens.decode(tokens.encode(' "Oh,"')[word.start : word.end]) == "Oh"


def test_half_a_character_is_left_out(tokens: Tokens) -> None:
    assert [word.text for word in tokens.words(tokens.encode(" 가나")[:-1])] == ["가"]


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for content, message in [("{}", "cannot be read"), (json.dumps({"version": "1.0"}), "cannot be read")]:
        path.write_text(content)
        with pytest.raises(ModelError, match=message):
            Tokens(path)


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([5, 5, 5, 5], [5, 5, 5, 5]),
        ([9, 5, 5, 5, 5, 5, 8], [9, 5]),
        ([1, *[2, 3, 4] * 6, 7], [1, 2, 3, 4]),
        ([], []),
    ],
)
def test_loops_are_cut(tokens: list[int], kept: list[int]) -> None:
    assert without_loop(tokens) == kept


def test_words_without_any_time_are_inventions() -> None:
    def word(start: float, end: float) -> Spoken:
        return Spoken("a", start, end, 1.0)

    spoken = [word(0, 1), word(1, 1), word(1, 2)]
    assert without_crowds(spoken) == spoken
    assert without_crowds([*spoken, *[word(2, 2)] * 3]) == spoken
    assert without_crowds([*[word(0, 0)] * 4, word(0, 1)]) == [word(0, 1)]


@pytest.mark.parametrize(
    ("loud", "times"),
    [
        ([(0.0, 1.0)], (0.0, 1.0)),
        ([(0.6, 1.0)], (0.6, 1.0)),
        ([(0.0, 0.4)], (0.0, 0.4)),
        ([(0.0, 0.1), (0.5, 1.0)], (0.5, 1.0)),
        ([(0.0, 0.5), (0.6, 1.0)], (0.0, 1.0)),
        ([(0.1, 0.9)], (0.0, 1.0)),
        ([], (0.0, 1.0)),
    ],
)
def test_words_hold_no_pauses(loud: list[tuple[float, float]], times: tuple[float, float]) -> None:
    samples_S = np.full(SAMPLE_RATE_HZ, 1e-4, np.float32)
    for start_s, end_s in loud:
        samples_S[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)] = 0.1
    assert without_pauses(samples_S, 0.0, 1.0) == pytest.approx(times, abs=0.011)


def test_no_speech_needs_an_unlikely_text_too() -> None:
    assert is_without_speech(0.9, -1.5)
    assert not is_without_speech(0.9, -0.5) and not is_without_speech(0.1, -1.5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is cut off"),
        (model_file(version=99), "version 99"),
        (model_file(kind="TransformerSpec"), "'TransformerSpec'"),
        (model_file()[:-10], "ends after"),
        (model_file(shape=(1, 1, 1, 1, 1, 1)), "6 dimensions"),
        (model_file()[:30] + b"\xff" * 200, "cannot be read"),
    ],
)
def test_damaged_weights_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=message):
        check_model_file(path)


def network_folder(folder: Path, data: bytes, config: object = None) -> Path:
    """The folder of a Whisper model."""
    (folder / "model.bin").write_bytes(data)
    usual = {"suppress_ids": [1, 2], "suppress_ids_begin": [3], "lang_ids": [4, 5], "alignment_heads": [[0, 1]]}
    (folder / "config.json").write_text(json.dumps(usual if config is None else config))
    write_tokenizer(folder / "tokenizer.json")
    write_vocabulary(folder)
    return folder


def test_a_whole_network_computes(tmp_path: Path) -> None:
    _, sizes = check_model_file(network_folder(tmp_path, network_file()) / "model.bin")
    assert sizes == (8, 80, TOKENS, 1, 2)
    engine = families.open_model(tmp_path, device="cpu", dtype="float32").engine
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    assert len(engine.decode(engine.encode_audio([samples]), None, Search(language="en"))) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder/conv1/weight": (1, 8 * 80 * 3)}, "2 dimensions in the place of 3"),
        ({"encoder/conv1/weight": (8, 80, 9)}, "conv1/weight of shape"),
        ({"encoder/conv2/weight": (8, 4, 3)}, "conv2/weight of shape"),
        ({"decoder/embeddings/weight": (1, TOKENS * 8)}, "no tensor|of shape"),
        ({"decoder/position_encodings/encodings": (4, 8)}, "position_encodings"),
        ({"encoder/position_encodings/encodings": (1500, 2)}, "position_encodings"),
        ({"decoder/layer_0/attention/linear_1/weight": (8, 8)}, "linear_1/weight of shape"),
        ({"decoder/layer_0/attention/linear_1/bias": None}, "no tensor decoder/layer_0/attention/linear_1/bias"),
        ({"encoder/layer_norm/gamma": (9,)}, "layer_norm/gamma"),
        ({"decoder/num_heads": 0}, "0 heads"),
        ({"decoder/num_heads": -2}, "-2 heads"),
        ({"encoder/num_heads": 3}, "3 heads"),
        ({"encoder/num_heads": None}, "None heads"),
        ({"decoder/alignment_layer": 127}, "alignment_layer 127"),
        ({"decoder/alignment_layer": -300}, "alignment_layer -300"),
        ({"decoder/alignment_heads": 99}, "alignment_heads 99"),
    ],
)
def test_networks_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = network_folder(tmp_path, network_file(changes))
    with pytest.raises(ModelError, match=message):
        avsr.load(folder)


@pytest.mark.parametrize(
    "more",
    [
        tensor("encoder/layer_7/ffn/linear_0/weight", (32, 8), bytes(1024)),
        tensor("decoder/projection/weight", (2, 2), bytes(16)),
        tensor("encoder/num_heads", (), b"\x02\x00", kind=2),
        tensor("decoder/embeddings/weight_scale", (3,), bytes(12)),
    ],
    ids=["a layer beyond", "a small projection", "a second setting", "too few scales"],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, more: bytes) -> None:
    with pytest.raises(ModelError, match="model.bin: cannot be read"):
        avsr.load(network_folder(tmp_path, network_file(more=[more])))


@pytest.mark.parametrize(
    "config",
    [
        {"alignment_heads": [[-1, -1]]},
        {"alignment_heads": [[0, 2]]},
        {"alignment_heads": [[1, 0]]},
        {"alignment_heads": [[0]]},
        {"alignment_heads": [[0, 0]] * 20_000},
        {"alignment_heads": "x"},
        {"alignment_heads": None},
        {"alignment_heads": [[True, False]]},
        {"suppress_ids": [1_000_000_000, -5]},
        {"suppress_ids": [-1]},
        {"suppress_ids_begin": [TOKENS]},
        {"suppress_ids": [2**40]},
        {"suppress_ids": {"a": 1}},
        {"lang_ids": [1.5]},
        [],
    ],
)
def test_settings_that_are_places_in_memory_are_checked(tmp_path: Path, config: object) -> None:
    with pytest.raises(ModelError, match=r"config.json: wrong setting: got .*; download the model again") as caught:
        avsr.load(network_folder(tmp_path, network_file(), config))
    assert len(str(caught.value)) < 500


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    data = network_file({"decoder/embeddings/weight": (100, 8)})
    config: dict[str, object] = {}
    with pytest.raises(ModelError, match="are of different models: got 100 and 265 tokens"):
        avsr.load(network_folder(tmp_path, data, config))


@pytest.mark.parametrize("number", [0.0, 1.0])
def test_a_network_that_says_nothing_is_refused_when_it_is_used(tmp_path: Path, number: float) -> None:
    same = {name: np.full(shape, number, "<f4").tobytes() for name, shape in shapes().items()}
    engine = families.open_model(network_folder(tmp_path, network_file(same)), device="cpu", dtype="float32").engine
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    with pytest.raises(ModelError, match="the same probability for every token|gives no probabilities"):
        engine.decode(engine.encode_audio([samples]), None, Search(language="en"))


@pytest.fixture(scope="module")
def whisper() -> avsr.Recognizer:
    return avsr.load(installed_model("whisper-tiny.en"))


def test_the_card(whisper: avsr.Recognizer) -> None:
    card = whisper.card
    assert (card.family, card.modalities, card.domain, card.languages) == ("whisper", ("a",), "open", ("en",))
    entry = find_entry("whisper-tiny.en")
    assert (card.chunks_ms, card.languages, card.modalities) == (entry.chunks_ms, entry.languages, entry.modalities)
    assert card.window_s == 30 and card.cut_at_pauses and card.tasks == ("transcribe",)


def test_a_sentence(whisper: avsr.Recognizer) -> None:
    result = whisper.transcribe(shared_corpus("timit/dr1-fvmh0/sa2.flac"))
    assert "ask me to carry an oily rag" in result.text.lower()
    starts = [word.start for word in result.words]
    assert starts == sorted(starts) and result.words[-1].end <= result.duration
    assert all(0 <= (word.confidence or 0) <= 1 for word in result.words)


def test_a_batch_equals_its_items(whisper: avsr.Recognizer) -> None:
    engine = whisper.model.engine
    sounds = [avsr_samples("timit/dr1-fvmh0/sa2.flac"), avsr_samples("timit/dr1-fvmh0/si836.flac")]
    together = engine.decode(engine.encode_audio(sounds), None, Search())
    alone = [engine.decode(engine.encode_audio([sound]), None, Search())[0] for sound in sounds]
    assert [[word.word for word in words] for words in together] == [[word.word for word in words] for words in alone]


def avsr_samples(name: str) -> np.ndarray:
    from avsr.offline.source import open_source

    with open_source(shared_corpus(name)) as source:
        return np.concatenate(list(source.blocks(None)))


def test_digital_silence_has_no_words(whisper: avsr.Recognizer) -> None:
    assert whisper.transcribe(np.zeros(5 * SAMPLE_RATE_HZ, np.float32)).words == ()


def test_wrong_requests_are_refused(whisper: avsr.Recognizer) -> None:
    samples = noise(1.0)
    with pytest.raises(ConfigError, match="does not know the language: got ko"):
        whisper.transcribe(samples, search=Search(language="ko"))
    with pytest.raises(ConfigError, match="cannot translate"):
        whisper.transcribe(samples, search=Search(task="translate"))
    with pytest.raises(ValueError, match="expected at most 30 s"):
        whisper.model.engine.encode_audio([noise(31.0)])
