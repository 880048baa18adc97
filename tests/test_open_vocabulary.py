"""An open vocabulary: word pieces are made from text, used in training, and stored in the checkpoint."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jiwer
import numpy as np
import pytest
import yaml

import avsr
from avsr.cli.main import main
from avsr.config import as_mapping, build
from avsr.datasets.manifest import read_manifest, write_manifest
from avsr.decoding.tokenizer import SentencePieceTokenizer, WordTokenizer, read_vocabulary
from avsr.errors import DataError, ModelError
from tests.corpus import make_corpus
from tests.tiny import tiny_config

pytest.importorskip("lightning", reason="training needs the extra 'train'")

from avsr.training import run as training_run  # noqa: E402
from avsr.training.batches import IGNORED_FRAME  # noqa: E402
from avsr.training.config import CorpusConfig, TrainConfig  # noqa: E402
from avsr.training.data import EvaluationSet, TrainingSet  # noqa: E402
from avsr.training.items import Corpus  # noqa: E402

PIECES = 16


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), count=8)


@pytest.fixture(scope="module")
def vocabulary(manifest: Path) -> Path:
    path = manifest.parent / "pieces.model"
    assert main(["vocabulary", str(manifest), "-o", str(path), "--pieces", str(PIECES)]) == 0
    return path


@pytest.fixture
def config_file(manifest: Path, vocabulary: Path, tmp_path: Path) -> Path:
    model = dataclasses.replace(tiny_config(), vocabulary_size=PIECES)
    content = {
        "output": str(tmp_path / "run"),
        "vocabulary": str(vocabulary),
        "model": as_mapping(model),
        "train": [{"manifest": str(manifest)}],
        "dev": {"manifest": str(manifest), "split": "dev"},
        "optimizer": {"epochs": 1, "batch_size": 3},
        "workers": 0,
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def quietly(_: str) -> None:
    pass


# --- making one ---


def test_a_vocabulary_is_made_of_training_text_alone_and_repeats(
    manifest: Path, vocabulary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = [
        dataclasses.replace(utterance, text="xylophone quiz") if utterance.split == "dev" else utterance
        for utterance in read_manifest(manifest)
    ]
    write_manifest(tmp_path / "manifest.jsonl", changed[::-1])
    again = tmp_path / "below" / "pieces.model"
    assert main(["vocabulary", str(tmp_path / "manifest.jsonl"), "-o", str(again), "--pieces", str(PIECES)]) == 0
    assert again.read_bytes() == vocabulary.read_bytes()
    assert [path.name for path in again.parent.iterdir()] == ["pieces.model"]
    written = capsys.readouterr()
    assert written.out == f"{again}\n"
    assert f"{PIECES} pieces of 6 texts: " in written.err
    tokenizer = SentencePieceTokenizer.read(again)
    assert len(tokenizer) == PIECES
    for utterance in read_manifest(manifest):
        if utterance.split == "train":
            assert tokenizer.decode(tokenizer.encode(utterance.text)) == utterance.text
    assert tokenizer.word_groups(tokenizer.encode("blue at two"))[1][0] == "at"


def test_texts_that_do_not_fit_in_their_time_are_counted(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = [dataclasses.replace(utterance, duration=0.2) for utterance in read_manifest(manifest)]
    write_manifest(tmp_path / "manifest.jsonl", short)
    files = [str(tmp_path / "manifest.jsonl"), "-o", str(tmp_path / "p.model")]
    assert main(["vocabulary", *files, "--pieces", str(PIECES)]) == 0
    assert "6 texts have more units than frames of 80 ms" in capsys.readouterr().err


def test_a_list_of_words_is_those_of_the_training_text(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = [
        dataclasses.replace(utterance, text="xylophone quiz") if utterance.split == "dev" else utterance
        for utterance in read_manifest(manifest)
    ]
    write_manifest(tmp_path / "manifest.jsonl", changed)
    out = tmp_path / "words.txt"
    assert main(["vocabulary", str(tmp_path / "manifest.jsonl"), "-o", str(out)]) == 0
    spoken = {word for utterance in changed if utterance.split == "train" for word in utterance.text.split()}
    assert out.read_text().splitlines() == sorted(spoken)
    assert f"{len(spoken)} words of 6 texts: 1.00 a word" in capsys.readouterr().err
    assert main(["vocabulary", str(manifest), "-o", str(tmp_path / "again.txt"), "--pieces", "9"]) == 1
    assert "again.txt: a list of words has no pieces" in capsys.readouterr().err
    assert main(["vocabulary", str(manifest), "-o", str(tmp_path / "pieces.bin")]) == 1
    assert "pieces.bin: wrong name: expected NAME.model" in capsys.readouterr().err
    assert not (tmp_path / "again.txt").exists() and not (tmp_path / "pieces.bin").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "dev"], "dev: a vocabulary is made from training text; name training splits alone"),
        (["--split", "train,trainval"], "no utterance of split 'trainval': expected some of dev, train"),
        (["--pieces", "5000"], "vocabulary does not fit the text: got 5000 pieces, expected "),
        (["--pieces", "3"], "vocabulary does not fit the text: got 3 pieces, expected "),
        (["--split", ","], "no text to make a vocabulary of"),
    ],
)
def test_wrong_requests_say_what_would_be_right(
    manifest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    out = tmp_path / "pieces.model"
    assert main(["vocabulary", str(manifest), "-o", str(out), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_the_bound_that_is_named_is_the_right_one() -> None:
    texts = ["the quiet teacher follows the river", "and paints a boat"]
    for size in (2, 2000):
        with pytest.raises(DataError) as error:
            SentencePieceTokenizer.train(texts, size)
        bound = int(str(error.value).partition("expected ")[2].split()[0])
        assert len(SentencePieceTokenizer.train(texts, bound)) == bound


def test_the_name_says_what_a_vocabulary_is(vocabulary: Path, tmp_path: Path) -> None:
    assert isinstance(read_vocabulary(vocabulary), SentencePieceTokenizer)
    words = tmp_path / "words.txt"
    words.write_text("bin\nblue\n")
    assert isinstance(read_vocabulary(words), WordTokenizer)
    (tmp_path / "words.model").write_text("bin\nblue\n")
    with pytest.raises(ModelError, match="words.model: tokenizer cannot be read: .*expected a SentencePiece model"):
        read_vocabulary(tmp_path / "words.model")


# --- training with one ---


def test_pieces_share_the_frames_of_their_word(manifest: Path, vocabulary: Path) -> None:
    tokenizer = SentencePieceTokenizer.read(vocabulary)
    examples = EvaluationSet(Corpus(CorpusConfig(manifest=str(manifest))), tokenizer)
    several = 0
    for index, utterance in enumerate(examples.corpus.utterances):
        targets = examples[index].frame_targets
        assert not (targets == IGNORED_FRAME).any()
        for word, start_s, end_s in utterance.words:
            middle_s = (np.arange(len(targets)) + 0.5) * 0.08
            inside = targets[(middle_s >= start_s) & (middle_s < end_s)].tolist()
            units = tokenizer.encode(word)
            assert len(inside) == 3
            if len(units) <= 3:
                assert list(dict.fromkeys(inside)) == list(dict.fromkeys(units))
                several += len(units) > 1
            else:  # not every word lasts a frame
                assert inside[0] == units[0] and set(inside) <= set(units)
    assert several > 0


def test_a_model_of_pieces_is_trained_stored_and_transcribes(config_file: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    folder = training_run.train(config_file, on_message=messages.append)
    assert any("dev WER A " in message for message in messages)
    assert "dev/wer_av" in json.loads((tmp_path / "run/metrics.jsonl").read_text())
    assert (folder / "tokenizer.model").is_file() and not (folder / "vocabulary.txt").exists()
    model = avsr.load(folder)
    assert model.transcribe(Path(avsr.__file__).parent / "assets/demo.mp4").modality == "av"


def test_pieces_of_words_are_learnt(config_file: Path, manifest: Path) -> None:
    """A short training with sound alone: the recognised words are joined from their pieces."""
    overrides = [
        "model.visual_encoder=null",
        "model.fusion=null",
        "modalities={a: 1, v: 0, av: 0}",
        "loss={audio: 1.0, word_times: [1.0, 0.2], word_times_epochs: 60}",
        "optimizer={epochs: 150, batch_size: 6, learning_rate: 3.0e-3, average_last: 2}",
        "dev.split=train",
        "dev_every=150",
    ]
    model = avsr.load(training_run.train(config_file, overrides, on_message=quietly))
    utterances = [utterance for utterance in read_manifest(manifest) if utterance.split == "train"]
    texts = [model.transcribe(manifest.parent / utterance.audio).text for utterance in utterances if utterance.audio]
    assert jiwer.wer([utterance.text for utterance in utterances], texts) <= 0.1


def test_long_utterances_can_be_left_out(config_file: Path, manifest: Path, tmp_path: Path) -> None:
    utterances = [
        dataclasses.replace(utterance, duration=1.2 if index % 2 else 30.0)
        for index, utterance in enumerate(read_manifest(manifest))
    ]
    mixed = manifest.parent / "mixed.jsonl"
    write_manifest(mixed, utterances)
    corpus = Corpus(CorpusConfig(manifest=str(mixed), max_duration_s=16.0))
    assert (len(corpus.utterances), corpus.too_long) == (3, 3)
    with pytest.raises(
        DataError, match="all utterances of split 'train' are too long: got 1.2 s at least, expected .* 1"
    ):
        Corpus(CorpusConfig(manifest=str(mixed), max_duration_s=1.0))
    content = yaml.safe_load(config_file.read_text())
    content["train"] = [{"manifest": str(mixed), "max_duration_s": 16.0}]
    config = build(TrainConfig, content, "here")
    assert len(TrainingSet(config, read_vocabulary(Path(config.vocabulary))).entries) == 3
