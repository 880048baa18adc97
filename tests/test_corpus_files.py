"""Readers of corpora account for every file: a clip, a rejected clip with a reason, or counted as left out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from avsr.account import Account
from avsr.cli.main import main
from avsr.datasets.grid import read_grid
from avsr.datasets.manifest import read_manifest
from avsr.datasets.prepare import CORPORA, prepare
from avsr.errors import DataError
from tests.test_media import tone, write_sound, write_video

OGG = b"OggS" + bytes(60)


def put(folder: Path, *names: str, content: bytes = b"Hello there.") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def rejections(corpus: str, src: Path, account: Account | None = None) -> dict[str, str | None]:
    """The problem of each clip, by its id."""
    return {clip.id: clip.problem for clip in CORPORA[corpus](src, account=account)}


def sound(path: Path, hz: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sound(path, [(0.0, tone(0.3, 16_000, hz)[None])], rate=16_000)


def fill(src: Path, media: str) -> None:
    """A corpus with what people's folders hold. media: the suffix of its clips."""
    put(src, f"a/1{media}", f"a/2{media.upper()}", f"a/no text{media}", content=OGG)
    put(
        src, "a/1.txt", "a/2.TXT", "a/text alone.txt", "a/Ep. 12 final.txt", "b/e\u0301.txt", "b/link.txt", "b/gone.txt"
    )
    put(src, "a/Ep. 12 final", f"b/é{media}", f"b/1.{media[1:]}", content=OGG)
    put(src, "a/notes.pdf", ".hidden/3.mp4", "a/._1.mp4", "table.csv")
    (src / f"b/link{media}").symlink_to(f"../a/1{media}")
    (src / f"b/gone{media}").symlink_to("nowhere")
    os.link(src / "a/1.txt", src / "b/1.txt")  # equal texts may be one file
    (src / "b/up").symlink_to("..")


@pytest.mark.parametrize(("corpus", "media"), [("folder", ".m2ts"), ("speech", ".wma")])
def test_every_file_is_a_clip_or_rejected_or_counted(
    corpus: str, media: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, media)
    put(tmp_path, "c/5.txt")
    scan = os.scandir

    def refuse(path: str) -> object:
        if os.path.basename(path) == "c":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    account = Account()
    found = rejections(corpus, tmp_path, account)
    assert {name for name, problem in found.items() if problem is None} == {
        "a/1", "a/2", "a/Ep. 12 final", "b/1", "b/é",
    }  # fmt: skip
    assert found["b/link"] == f"is another name of a file: got a/1{media}"
    assert found["b/gone"] == "broken link: got No such file or directory"
    assert found["c"] == "the folder cannot be read: got Permission denied"
    assert "no text.txt beside it" in str(found["a/no text"])
    assert str(found["a/text alone"]).startswith("transcript without a video" if corpus == "folder" else "text without")
    assert len(found) == 10
    assert account.document()["files"] == {
        "found": 19,
        "used": 14,
        "lost": {"hidden": 1, "broken link": 1, "second name of a file": 1, "no video or sound": 2},
    }
    assert account["folders"].missing == 0
    (line,) = account.lines()
    assert line == (
        f"left out of {tmp_path}: 2 files that are no video or sound (.csv, .pdf), 1 hidden file, "
        "1 second way into a folder, 1 hidden folder"
    )


def test_sound_in_a_folder_of_videos_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "a/1.flac", "a/1.txt")
    with pytest.raises(
        DataError, match="no videos found: got 1 files of sound.*prepare sound with: avsr prepare speech"
    ):
        rejections("folder", tmp_path)
    put(tmp_path, "a/2.mp4", "a/2.txt", "a/2.wav")
    account = Account()
    assert rejections("folder", tmp_path, account) == {
        "a/1.flac": "is sound without a picture; avsr prepare speech takes it",
        "a/2": None,
    }
    assert account.lines() == [f"left out of {tmp_path}: 1 file: sound beside a video of the same name"]


def test_a_name_that_is_too_long_costs_no_other(tmp_path: Path) -> None:
    long = "x" * 251  # with .wav it is 255 bytes long, with .json it is not possible
    sound(tmp_path / f"src/{long}.wav", 300)
    sound(tmp_path / "src/ok.wav", 400)
    put(tmp_path, f"src/{long}.txt", "src/ok.txt")
    result = prepare("speech", tmp_path / "src", tmp_path / "out")
    assert [utterance.id for utterance in read_manifest(result.manifest)] == ["ok"]
    assert result.rejections == {long: "its name would be too long: got 256 bytes with .json, expected at most 255"}


def test_names_of_any_bytes_are_prepared(tmp_path: Path) -> None:
    names = ["Ep. 12 final.wav", "two\nlines.wav", os.fsdecode(b"caf\xe9.wav"), "-dash.wav", "é.wav", "dot..wav"]
    for number, name in enumerate(names):
        sound(tmp_path / "src" / name, 300 + 50 * number)
        put(tmp_path, f"src/{name.removesuffix('.wav')}.txt")
    result = prepare("speech", tmp_path / "src", tmp_path / "out")
    assert {utterance.id for utterance in read_manifest(result.manifest)} == {name[:-4] for name in names}
    assert result.rejections == {}
    assert prepare("speech", tmp_path / "src", tmp_path / "out").new == 0


def test_a_reason_never_takes_the_place_of_another(tmp_path: Path) -> None:
    put(tmp_path, "src/3.mkv", "src/3.webm", "src/3.webm.mp4", "src/3.txt")
    write_video(tmp_path / "src/1.mkv", [0.0, 0.04, 0.08], sound_s=(0.0, 0.3))
    put(tmp_path, "src/1.txt")
    result = prepare("folder", tmp_path / "src", tmp_path / "out")
    assert result.rejections.keys() == {"3", "3.webm", "3.webm~"}
    assert result.utterances == 1


@pytest.mark.parametrize("corpus", ["grid", "speech"])
def test_files_that_a_list_does_not_name_are_counted(corpus: str, tmp_path: Path) -> None:
    put(tmp_path, "a/bbaf1n.mpg", "a/bbaf2n.mpg", "a/bbaf3n.mpg", "README.md", content=OGG)
    (tmp_path / "link.mpg").symlink_to("a/bbaf2n.mpg")
    rows = [{"id": "a/1", "speaker": "a", "path": "a/bbaf1n.mpg", "words": "bin"}]
    rows += [{"id": "a/2", "speaker": "a", "path": "link.mpg", "words": "bin"}]
    rows += [{"id": "a/3", "speaker": "a", "path": "a/lost.mpg", "words": "bin"}]
    content = "\r\n".join(map(json.dumps, rows)).encode("utf-8-sig")  # as editors on Windows write it
    put(tmp_path, "clips.jsonl", content=content)
    account = Account()
    found = rejections(corpus, tmp_path, account)
    assert found.keys() == {"a/1", "a/2", "a/3"}
    assert account["files"].missing == 0
    (line,) = account.lines()
    assert line.startswith(f"left out of {tmp_path}: 1 file that is no video or sound (.md), ")
    assert line.endswith("1 file: in no line of clips.jsonl")


def test_grid_as_distributed(tmp_path: Path) -> None:
    put(
        tmp_path,
        "s1/mpg_6000/bbaf2n.mpg",
        "s1/mpg_vcd/bbaf2n.mpg",
        "s2/lwbsza.M2TS",
        "s2/sound/lwbsza.wav",
        content=OGG,
    )
    put(tmp_path, "s2/sound/bbaf1n.wav", "audio/s1/bbaf2n.wav", content=OGG)
    put(tmp_path, "alignments/s2/lwbsza.align", "s1/align/bbaf9n.align", content=b"\xef\xbb\xbf0 25000 bin\r\n")
    put(tmp_path, "README", "s1.zip")
    account = Account()
    clips = {clip.id: clip for clip in read_grid(tmp_path, account=account)}
    assert {name for name, clip in clips.items() if clip.problem is None} == {"s1/bbaf2n", "s2/lwbsza", "s2/bbaf1n"}
    assert clips["s2/lwbsza"].path.suffix == ".M2TS" and clips["s2/lwbsza"].text == "bin"
    (rejected,) = (clip for clip in clips.values() if clip.problem is not None)
    assert rejected.id == "s1/align/bbaf9n.align"
    assert rejected.problem == "word times without a video: expected bbaf9n.mpg, or another video format"
    assert account["files"].missing == 0
    assert account["files"].lost == {
        "no video or sound": 2,
        "outside of the folders of speakers": 1,
        "the same clip in another quality": 2,
    }


def test_an_earlier_preparation_is_no_part_of_the_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound(tmp_path / "1.wav", 300)
    put(tmp_path, "1.txt", "notes.pdf")
    words = ["prepare", "speech", str(tmp_path), "-o", str(tmp_path / "out"), "--workers", "1"]
    assert main(words) == 0
    assert main(words) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2:] == [
        f"avsr: left out of {tmp_path}: 1 file that is no video or sound (.pdf), 1 folder of results",
        "avsr: 1 clips ready (test 1), 0 rejected; 1 of them by an earlier run",
    ]
    with pytest.raises(DataError, match="no clips found: expected a copy of the corpus outside of"):
        prepare("speech", tmp_path, tmp_path)


def test_manifests_of_windows_are_read(tmp_path: Path) -> None:
    sound(tmp_path / "src/1.wav", 300)
    put(tmp_path, "src/1.txt")
    manifest = prepare("speech", tmp_path / "src", tmp_path / "out").manifest
    expected = read_manifest(manifest)
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes().replace(b"\n", b"\r\n"))
    assert read_manifest(manifest) == expected
