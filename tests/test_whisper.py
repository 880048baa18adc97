"""Whisper models: features, tokens, checks of texts and files, and the engine on real weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio

import avsr
from avsr.catalogue.entries import find_entry
from avsr.decoding.search import Search, Spoken
from avsr.errors import ConfigError, ModelError
from avsr.families.whisper.checks import is_without_speech, without_crowds, without_loop
from avsr.families.whisper.features import log_mel
from avsr.families.whisper.model_file import check_model_file
from avsr.families.whisper.times import without_pauses
from avsr.grid import SAMPLE_RATE_HZ
from tests.media import installed_model, shared_corpus
from tests.whisper_files import model_file, write_tokenizer

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


def test_a_whole_file_passes(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(model_file())
    check_model_file(path)


def test_a_tensor_without_a_name_for_its_weights_is_refused_by_the_runtime(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(model_file())
    (tmp_path / "config.json").write_text("{}")
    write_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(ModelError, match="cannot be read"):
        avsr.load(tmp_path)


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
