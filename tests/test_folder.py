"""From a folder of videos with transcripts, such as LRS2 and LRS3, to a manifest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pytest

from avsr.cli.main import argument_parser, command_actions
from avsr.datasets.folder import carve_dev, normalise_text, read_folder, read_transcript
from avsr.datasets.manifest import read_manifest
from avsr.datasets.prepare import CORPORA, prepare
from avsr.datasets.source import SourceClip
from avsr.errors import DataError
from tests.media import shared_clip
from tests.test_media import write_video

LRS3 = """Text:  WE DON'T KNOW
Conf:  3
Ref:   00j9bKdiOjk

FRAME \tX \tY \tW \tH
000072 \t0.392 \t0.197 \t0.249 \t0.442
000073 \t0.392 \t0.197 \t0.249 \t0.442

WORD START END ASDSCORE
WE 0.24 0.37 5.7
DON'T 0.37 0.60 4.1
KNOW 0.60 0.81 -0.2
"""


def put(folder: Path, *names: str, text: str | None = "Hello there.") -> None:
    """Write empty videos, each with a transcript beside it."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if text is not None:
            path.with_suffix(".txt").write_text(text, encoding="utf-8")


def splits(folder: Path, held_out: Collection[str] = ()) -> dict[str, str]:
    clips = list(read_folder(folder, held_out))
    assert [clip.id for clip in clips] == sorted(clip.id for clip in clips)
    return {clip.id: clip.split for clip in clips if clip.problem is None}


def problems(folder: Path) -> dict[str, str]:
    return {clip.id: clip.problem for clip in read_folder(folder) if clip.problem is not None}


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("WE DON'T KNOW", "we don't know"),
        ("  Well-known:\n\t3.5 %, they said \u2014 it\u2019s ''fine''.  ", "well known 3 5 they said it's ''fine''"),
        ("\u00dcBER GR\u00d6SSE, e\u0301", "\u00fcber gr\u00f6sse, \u00e9".replace(",", "")),
        ("' -- ...", ""),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0940"),
    ],
)
def test_text_is_lower_case_words(text: str, normalised: str) -> None:
    assert normalise_text(text) == normalised == normalise_text(normalised)


def test_transcripts_of_both_forms(tmp_path: Path) -> None:
    path = tmp_path / "00001.txt"
    path.write_text("Hello,\nTHERE!\n")
    assert read_transcript(path) == ("hello there", ())
    path.write_text("Text:  HELLO THERE\nConf:  4\n")
    assert read_transcript(path) == ("hello there", ())
    path.write_text(LRS3, newline="\r\n")
    text, words = read_transcript(path)
    assert text == "we don't know"
    assert words == (("we", 0.24, 0.37), ("don't", 0.37, 0.6), ("know", 0.6, 0.81))


@pytest.mark.parametrize(
    ("old", "new"),
    [("KNOW 0.60", "NO 0.60"), ("0.37 0.60", "0.60 0.37"), ("0.37 0.60", "x 0.60"), ("0.60 0.81 -0.2", "0.60")],
)
def test_word_times_that_cannot_be_right_are_left_out(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "00001.txt").write_text(LRS3.replace(old, new))
    assert read_transcript(tmp_path / "00001.txt") == ("we don't know", ())


def test_the_layout_of_lrs3(tmp_path: Path) -> None:
    speakers = [f"speaker{number}" for number in range(20)]
    put(tmp_path, *(f"trainval/{speaker}/50001.mp4" for speaker in speakers), text=LRS3)
    put(tmp_path, *(f"pretrain/{speaker}/00001.mp4" for speaker in speakers))
    put(tmp_path, "test/0Fi83BHQsMA/00002.mp4")
    found = splits(tmp_path)
    # One of twenty speakers is dev, and the pretrain clips of that speaker get another split.
    (dev,) = (name for name, split in found.items() if split == "dev")
    assert found[dev.replace("trainval", "pretrain").replace("50001", "00001")] == "dev_pretrain"
    assert Counter(found.values()) == {"trainval": 19, "pretrain": 19, "dev": 1, "dev_pretrain": 1, "test": 1}
    clip = next(clip for clip in read_folder(tmp_path) if clip.id == "trainval/speaker0/50001")
    assert clip.speaker == "speaker0" and len(clip.words) == 3
    assert splits(tmp_path) == found
    put(tmp_path, "val/speaker0/1.mp4", "extra/x/1.mp4", "loose.mp4")
    found = splits(tmp_path)  # val is dev
    assert Counter(found.values()) == {"trainval": 20, "pretrain": 20, "dev": 1, "test": 1, "extra": 1, "train": 1}
    with pytest.raises(DataError, match="has splits of its own: got held-out speakers"):
        read_folder(tmp_path, ["speaker0"])


def test_the_layout_of_lrs2(tmp_path: Path) -> None:
    put(tmp_path, "main/a/00001.mp4", "main/a/00002.mp4", "main/b/00001.mp4", "pretrain/a/00001.mp4", "main/c/1.mp4")
    (tmp_path / "train.txt").write_text("a/00001\r\na/00001\n\n")
    (tmp_path / "val.txt").write_text("a/00002\n")
    (tmp_path / "test.txt").write_text("b/00001 NF\nb/00009 MV\n")
    (tmp_path / "pretrain.txt").write_text("a/00001.mp4\n")
    assert splits(tmp_path) == {
        "main/a/00001": "train",
        "main/a/00002": "dev",
        "main/b/00001": "test",
        "pretrain/a/00001": "pretrain",
    }
    assert problems(tmp_path) == {
        "b/00009": "is in a list, but there is no such video",
        "main/c/1": "is in none of the lists train.txt, pretrain.txt, test.txt, val.txt",
    }
    (tmp_path / "val.txt").write_text("a/00002\na/00001\n")
    with pytest.raises(DataError, match=r"val.txt:2: a clip is in two lists: got main/a/00001, also in train.txt:1"):
        read_folder(tmp_path)


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "own"
    put(own, *(f"{speaker}/{number}.MOV" for speaker in ("ann", "bob", "cem") for number in range(4)))
    put(own, "test.mkv")  # its transcript is not a list of the split "test"
    put(own, ".trash/1.mp4", "ann/._1.mp4")
    clips = list(read_folder(own))
    assert {clip.split for clip in clips} == {"train", "dev"}
    assert Counter(clip.speaker for clip in clips) == {"ann": 4, "bob": 4, "cem": 4, "own": 1}
    assert len({clip.speaker for clip in clips if clip.split == "dev"}) == 1
    assert len({(clip.speaker, clip.split) for clip in clips}) == 4  # nobody is in both
    held_out = splits(own, ["bob"])
    assert [name for name, split in held_out.items() if split == "test_unseen"] == [f"bob/{n}" for n in range(4)]
    with pytest.raises(DataError, match="no clips of a held-out speaker: got eve, expected ann, bob, cem, own"):
        read_folder(own, ["eve"])


def test_single_clips_become_dev_if_there_is_one_speaker() -> None:
    clips = [
        SourceClip(id=f"me/{number}", speaker="me", split="train", path=Path("x"), text="x") for number in range(40)
    ]
    carved = carve_dev(clips)
    assert Counter(clip.split for clip in carved) == {"train": 38, "dev": 2}
    assert {clip.id: clip.split for clip in carve_dev(clips[::-1])} == {clip.id: clip.split for clip in carved}
    assert carve_dev(clips[:1]) == clips[:1]


def test_unusable_clips_have_a_reason(tmp_path: Path) -> None:
    put(tmp_path, "a/1.mp4", text=None)
    put(tmp_path, "a/2.mp4", text="Text:  \nConf: 3\n")
    put(tmp_path, "a/3.mp4", "a/3.webm")
    put(tmp_path, "a/4.mp4")
    (tmp_path / "a/4.txt").write_bytes(b"\xff\xfe\x00")
    put(tmp_path, "a/5.mp4", text="word " * 300_000)
    found = problems(tmp_path)
    assert "5.txt: too large: got 1500000 bytes" in found["a/5"]
    assert found["a/1"] == "no transcript: expected 1.txt beside it"
    assert found["a/2"] == "transcript has no words"
    assert found["a/3.webm"] == "3.mp4 has the same name"
    assert "4.txt: transcript cannot be read" in found["a/4"]


def test_a_transcript_without_a_video_is_rejected(tmp_path: Path) -> None:
    put(tmp_path, "a/1.mp4", "a/2.MPEG", "a/sound.wav", "a/test.mkv")
    (tmp_path / "a/alone.txt").write_text("hello")
    (tmp_path / "a/.hidden.txt").write_text("hello")
    found = {clip.id: clip.problem for clip in read_folder(tmp_path)}
    expected = "transcript without a video: expected {}.mp4, or another video format, beside it"
    assert found == {
        "a/1": None,
        "a/2": None,
        "a/alone": expected.format("alone"),
        "a/sound.wav": "is sound without a picture; avsr prepare speech takes it",
        "a/test": None,
    }
    (tmp_path / "train.txt").write_text("a/1\na/2\na/test\na/sound\n")
    assert problems(tmp_path) == {
        "a/alone": expected.format("alone"),
        "a/sound": "is in a list, but there is no such video",
        "a/sound.wav": "is sound without a picture; avsr prepare speech takes it",
    }
    assert all(clip.split != "dev" for clip in read_folder(tmp_path) if clip.problem is not None)


def test_folders_without_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing: no such folder"):
        read_folder(tmp_path / "missing")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="notes.txt: is a file"):
        read_folder(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="no videos found: expected NAME.txt beside NAME.mp4"):
        read_folder(tmp_path)


def test_preparing_a_folder_that_holds_its_own_output(tmp_path: Path) -> None:
    times_s = [0.04 * number for number in range(10)]
    (tmp_path / "a").mkdir()
    write_video(tmp_path / "a/1.mkv", times_s, sound_s=(0.0, 0.4))
    put(tmp_path, "a/2.mp4")
    (tmp_path / "a/3.txt").write_text("nobody")
    (tmp_path / "a/1.txt").write_text("Text:  HELLO\nWORD START END ASDSCORE\nHELLO 0.1 0.3 1\n")
    out = tmp_path / "prepared"
    result = prepare("folder", tmp_path, out)
    (utterance,) = read_manifest(result.manifest)
    assert (utterance.id, utterance.speaker, utterance.split) == ("a/1", "a", "train")
    assert (utterance.text, utterance.words) == ("hello", (("hello", 0.1, 0.3),))
    assert "empty" in result.rejections["a/2"]
    assert result.rejections["a/3"].startswith("transcript without a video")
    (out / "lips/a").mkdir(parents=True)
    (out / "lips/a/1.mp4").touch()
    again = prepare("folder", tmp_path, out)
    assert again.rejections == result.rejections and again.splits == {"train": 1}


def test_lips_of_a_real_talker_are_found(tmp_path: Path) -> None:
    clip = shared_clip("grid_bbaf2n.mpg")
    (tmp_path / "lrs3/test/s1").mkdir(parents=True)
    (tmp_path / "lrs3/test/s1/00001.mpg").write_bytes(clip.read_bytes())
    (tmp_path / "lrs3/test/s1/00001.txt").write_text("Text:  BIN BLUE AT F TWO NOW\n")
    (utterance,) = read_manifest(prepare("folder", tmp_path / "lrs3", tmp_path / "out").manifest)
    assert (utterance.id, utterance.split, utterance.text) == ("test/s1/00001", "test", "bin blue at f two now")
    assert utterance.video is not None and utterance.coverage > 0.9


def test_help_names_every_corpus() -> None:
    text = argument_parser("prepare").format_help()
    assert all(re.search(rf"^  {corpus} ", text, re.MULTILINE) for corpus in CORPORA)
    assert command_actions("prepare").keys() == CORPORA.keys()
