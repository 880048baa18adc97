"""From recordings of speech with lists or files of texts to a manifest."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avsr.cli.main import main
from avsr.datasets.manifest import load_samples, read_manifest, write_wav
from avsr.datasets.prepare import prepare
from avsr.datasets.source import SourceClip
from avsr.datasets.speech import read_speech
from avsr.errors import DataError
from tests.media import shared_corpus
from tests.test_media import write_video


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def put_list(folder: Path, *rows: object, name: str = "list.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def read(src: Path) -> dict[str, SourceClip]:
    clips = list(read_speech(src))
    assert [clip.id for clip in clips] == sorted(clip.id for clip in clips)
    return {clip.id: clip for clip in clips}


def problems(src: Path) -> dict[str, str]:
    return {clip.id: clip.problem for clip in read_speech(src) if clip.problem is not None}


def test_a_list_gives_its_clips(tmp_path: Path) -> None:
    touch(tmp_path, "ann/1.flac", "bob/2.mp4")
    put_list(
        tmp_path,
        {
            "id": "one",
            "speaker": "Ann",
            "path": "ann/1.flac",
            "words": "  Don't \tstop. ",
            "split": "dev",
            "word_times": [[0.1, 0.5, "don't"], [0.5, 1, "stop"]],
            "language": "en",
            "seconds": 1.5,
        },
        {"path": "bob/2.mp4", "words": "go"},
    )
    clips = read(tmp_path)
    assert clips == read(tmp_path / "list.jsonl")
    one = clips["one"]
    assert (one.speaker, one.split, one.text, one.language) == ("Ann", "dev", "Don't stop.", "en")
    assert one.words == (("don't", 0.1, 0.5), ("stop", 0.5, 1.0)) and one.problem is None
    two = clips["bob/2"]
    assert (two.speaker, two.split, two.text, two.language) == ("bob", "test", "go", None)


def test_mixed_and_unknown_texts_get_splits_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}.wav" for number in range(4)))
    put_list(
        tmp_path,
        {"path": "0.wav", "words": "네 OK", "mixed": True},
        {"path": "1.wav", "words": "네", "mixed": False},
        {"path": "2.wav", "words": None, "mixed": True, "split": "dev"},
        {"path": "3.wav", "words": "yes", "mixed": True, "split": "dev"},
    )
    assert {name: clip.split for name, clip in read(tmp_path).items()} == {
        "0": "test_mixed",
        "1": "test",
        "2": "unlabelled",
        "3": "dev_mixed",
    }


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"path": "../a.wav"}, r"the path leads out of the folder of the list: got \.\./a\.wav"),
        ({"path": "/etc/hostname"}, "the path leads out of the folder of the list"),
        ({"path": "missing.wav"}, r"no such file: got missing\.wav"),
        ({"path": "a.wav", "words": "b", "word_times": [[0, 1, "a"]]}, "word times and words differ: got 'a' and 'b'"),
    ],
)
def test_a_clip_that_cannot_be_used_has_a_reason(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    folder = tmp_path / "corpus"
    touch(tmp_path, "a.wav", "corpus/a.wav", "corpus/ok.wav")
    put_list(folder, {"id": "bad", "words": "a", **row}, {"path": "ok.wav", "words": "fine"})
    found = problems(folder)
    assert found.keys() == {"bad"} and re.search(problem, found["bad"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"list\.jsonl:2: not JSON"),
        ("[" * 100_000, r"list\.jsonl:2: not JSON"),
        ('{"path": "' + "a" * (4 << 20), r"list\.jsonl:2: line too long"),
        ("[]", r"list\.jsonl:2: not a JSON object: got list"),
        ({"words": "a"}, r"list\.jsonl:2: a key is missing: expected path"),
        ({"path": 3}, r"list\.jsonl:2: wrong value of path: got 3"),
        ({"path": "a\0.wav"}, r"list\.jsonl:2: wrong value of path"),
        ({"path": "a.wav", "id": "a\nb"}, r"list\.jsonl:2: wrong value of id"),
        ({"path": "a.wav", "words": "\ud800"}, r"list\.jsonl:2: wrong value of words"),
        ({"path": "a.wav", "words": ["a"]}, r"list\.jsonl:2: wrong value of words"),
        ({"path": "a.wav", "mixed": "yes"}, r"list\.jsonl:2: wrong value of mixed"),
        ({"path": "a.wav", "word_times": {"a": 1}}, r"list\.jsonl:2: wrong value of word_times"),
        ({"path": "a.wav", "word_times": [[1, 0.5, "a"]]}, r"list\.jsonl:2: wrong value of word_times"),
        ({"path": "a.wav", "word_times": [[0, 10**400, "a"]]}, r"list\.jsonl:2: not JSON: got a number of 401 digits"),
        ('{"path": "a.wav", "word_times": [[0, NaN, "a"]]}', r"list\.jsonl:2: not JSON: got the number NaN"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, message: str) -> None:
    touch(tmp_path, "a.wav")
    put_list(tmp_path, {"path": "a.wav", "words": "a"}, line)
    with pytest.raises(DataError, match=message) as error:
        read_speech(tmp_path)
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)


def test_the_same_id_twice_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    put_list(tmp_path, {"path": "a.wav", "words": "a"}, {"path": "b.wav", "id": "a", "words": "b"})
    with pytest.raises(DataError, match="clips have the same id: got a, 2 times"):
        prepare("speech", tmp_path, tmp_path / "out")


def test_lines_that_lead_out_of_the_folder_cost_no_other_line(tmp_path: Path) -> None:
    write_wav(tmp_path / "snd/q.wav", np.full(8000, 3000, np.int16))
    write_wav(tmp_path / "src/a.wav", np.full(8000, 3000, np.int16))
    index = put_list(
        tmp_path / "src",
        {"path": "../snd/q.wav", "words": "y"},
        {"path": "a.wav", "words": "y"},
        {"path": "a.wav", "id": "../b", "words": "y"},
        {"path": "/a.wav", "id": "a", "words": "y"},
    )
    assert prepare("speech", tmp_path / "src", tmp_path / "out").rejections == {
        "../snd/q": f"{index}:1: the path leads out of the folder of the list: got ../snd/q.wav",
        "../b": f"{index}:3: the id leads out of the folder: got ../b, expected speaker/name",
        "a~": f"{index}:4: the path leads out of the folder of the list: got /a.wav",
    }
    assert [utterance.id for utterance in read_manifest(tmp_path / "out/manifest.jsonl")] == ["a"]


def test_folders_with_nothing_to_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing: no such folder: expected SRC/NAME.jsonl"):
        read_speech(tmp_path / "missing")
    with pytest.raises(DataError, match="no speech found: expected SRC/NAME.jsonl, or media files"):
        read_speech(tmp_path)
    (tmp_path / "a.txt").write_text("a text without a file")
    with pytest.raises(DataError, match="no speech found"):
        read_speech(tmp_path)
    with pytest.raises(DataError, match=r"a\.txt: is a file"):
        read_speech(tmp_path / "a.txt")
    put_list(tmp_path, name="x.jsonl")
    with pytest.raises(DataError, match=r"x\.jsonl: no speech found"):
        read_speech(tmp_path)
    put_list(tmp_path, name="y.jsonl")
    with pytest.raises(DataError, match=r"several lists: got x\.jsonl, y\.jsonl, expected one"):
        read_speech(tmp_path)
    with pytest.raises(DataError, match="split as the corpus says: got held-out speakers"):
        read_speech(tmp_path, ["ann"])


def test_texts_beside_the_files(tmp_path: Path) -> None:
    touch(tmp_path, "train/ann/1.flac", "val/bob/2.opus", "cem/3.mp4", "cem/4.wav", "cem/5.wav", "cem/5.mp3")
    decomposed = unicodedata.normalize("NFD", "안녕하세요")
    for name, text in (("train/ann/1", "One,\ntwo."), ("val/bob/2", decomposed), ("cem/3", " "), ("cem/alone", "a")):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "cem/5.txt").write_bytes(b"\xff\xfe")
    clips = read(tmp_path)
    one, two = clips["train/ann/1"], clips["val/bob/2"]
    assert (one.speaker, one.split, one.text) == ("ann", "train", "One, two.")
    assert (two.speaker, two.split, two.text) == ("bob", "dev", "안녕하세요")
    found = problems(tmp_path)
    assert found.keys() == {"cem/3", "cem/4", "cem/5", "cem/5.wav", "cem/alone"}
    assert found["cem/3"] == "transcript has no words"
    assert found["cem/4"] == "no text: expected 4.txt beside it, or a line in a list of texts"
    assert "transcript cannot be read" in found["cem/5"]
    assert found["cem/5.wav"] == "5.mp3 has the same name"
    assert found["cem/alone"] == "text without a media file"


def test_the_layout_of_librispeech(tmp_path: Path) -> None:
    root = tmp_path / "LibriSpeech"
    touch(root, "dev-clean/84/121/84-121-0000.flac", "dev-clean/84/121/84-121-0001.flac", "test-other/9/7/9-7-0.flac")
    (root / "dev-clean/84/121/84-121.trans.txt").write_text("84-121-0000 GO ON\n84-121-0001 STOP\n84-121-0002 LOST\n")
    (root / "test-other/9/7/9-7.trans.txt").write_text("9-7-0 HERE\n")
    clips = read(tmp_path)
    assert {name.rpartition("/")[2]: (clip.speaker, clip.split, clip.text) for name, clip in clips.items()} == {
        "84-121-0000": ("84", "dev-clean", "GO ON"),
        "84-121-0001": ("84", "dev-clean", "STOP"),
        "84-121-0002": ("84", "dev-clean", "LOST"),
        "9-7-0": ("9", "test-other", "HERE"),
    }
    assert problems(tmp_path) == {"LibriSpeech/dev-clean/84/121/84-121-0002": "text without a media file"}


def test_lists_of_kaldi(tmp_path: Path) -> None:
    touch(tmp_path, "wav/a/u1.wav", "wav/a/u2.wav", "wav/b/u2.wav", "wav/b/u3.wav", "wav/b/u4.wav")
    (tmp_path / "text").write_text("u1 네  그래요\nu2 which one\nu3\n", encoding="utf-8")
    (tmp_path / "utt2spk").write_text("u1 Kim\nu3 Lee\n")
    (tmp_path / "wav/b/u4.txt").write_text("beside")
    clips = read(tmp_path)
    assert (clips["wav/a/u1"].speaker, clips["wav/a/u1"].text) == ("Kim", "네 그래요")
    assert (clips["wav/b/u4"].speaker, clips["wav/b/u4"].text) == ("b", "beside")
    assert problems(tmp_path) == {
        "wav/a/u2": f"{tmp_path / 'text'}:2 names several files",
        "wav/b/u2": f"{tmp_path / 'text'}:2 names several files",
        "wav/b/u3": "transcript has no words",
    }
    (tmp_path / "wav/a/u1.txt").write_text("again")
    with pytest.raises(DataError, match=r"u1\.txt: the clip has two texts: got wav/a/u1, also in .*text:1"):
        read_speech(tmp_path)


def test_prepared_speech_keeps_its_sound_text_and_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = (np.random.default_rng(1).standard_normal(8000) * 3000).astype(np.int16)
    write_wav(tmp_path / "src/kim/1.wav", sound)
    write_video(tmp_path / "src/kim/2.mkv", [0.04 * number for number in range(10)], sound_s=(0.0, 0.4))
    (tmp_path / "src/kim/3.wav").write_bytes(b"no sound")
    put_list(
        tmp_path / "src",
        {"path": "kim/1.wav", "words": "네."},
        {"path": "kim/2.mkv", "words": None, "language": "en"},
        {"path": "kim/3.wav", "words": "네"},
    )
    out = tmp_path / "out"
    command = ["prepare", "speech", str(tmp_path / "src"), "-o", str(out), "--language", "ko", "--workers", "1"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{out / 'manifest.jsonl'}\n"
    assert shown.err.splitlines()[-1] == "avsr: 2 clips ready (test 1, unlabelled 1), 1 rejected"
    one, two = read_manifest(out / "manifest.jsonl")
    assert (one.text, one.language, one.video) == ("네.", "ko", None)
    np.testing.assert_array_equal(load_samples(one, out) * 32768, sound)
    assert (two.text, two.language, two.split) == ("", "en", "unlabelled")
    (rejected,) = (json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines())
    assert rejected["id"] == "kim/3"


def test_a_split_without_texts_is_not_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(tmp_path / "src/1.wav", np.full(4000, 1000, np.int16))
    put_list(tmp_path / "src", {"path": "1.wav"})
    manifest = prepare("speech", tmp_path / "src", tmp_path / "out").manifest
    assert '"language"' not in manifest.read_text()  # manifests without languages keep their bytes
    assert (
        main(["evaluate", str(manifest), "-m", "grid-tiny", "--split", "unlabelled", "-o", str(tmp_path / "result")])
        == 1
    )
    assert "no text is known in split 'unlabelled'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("corpus", "splits"),
    [
        ("an4", {"train": 850, "dev": 98, "test": 65}),
        ("timit", {"test": 75}),
        ("korean", {"test": 111, "test_mixed": 18}),
        ("talking", {"test": 6, "unlabelled": 16}),
    ],
)
def test_published_corpora_are_read_whole(corpus: str, splits: dict[str, int]) -> None:
    clips = list(read_speech(shared_corpus(corpus)))
    assert Counter(clip.split for clip in clips) == splits
    assert [clip.id for clip in clips if clip.problem is not None] == []
    trained = {clip.speaker for clip in clips if clip.split == "train"}
    assert not trained & {clip.speaker for clip in clips if clip.split != "train"}
