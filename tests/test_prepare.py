"""Preparation of a corpus: reading GRID, preparing, resuming, and the files of a prepared data set."""

from __future__ import annotations

import json
import os
import shutil
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from avsr.datasets import manifest
from avsr.datasets.grid import read_align, read_grid, sentence_of_name, split_clips
from avsr.datasets.manifest import Utterance, load_lips, load_samples, read_manifest, write_manifest
from avsr.datasets.prepare import Preparation, SourceClip, prepare
from avsr.errors import ConfigError, DataError
from tests.media import shared_corpus
from tests.test_media import tone, write_sound, write_video

ALIGN = """0 23750 sil
23750 29500 bin
29500 34000 blue
34000 35500 at
35500 41000 f
41000 42000 sp
42000 47250 two
47250 53000 now
53000 74500 sil
"""


def utterance(**changes: object) -> Utterance:
    values: dict[str, object] = {
        "id": "s1/bbaf2n",
        "speaker": "s1",
        "split": "train",
        "text": "bin blue at f two now",
        "audio": "audio/s1/bbaf2n.wav",
        "video": "lips/s1/bbaf2n.mp4",
        "duration": 3.0,
        "fps": 25.0,
        "coverage": 0.96,
        "sha256": "0" * 64,
        "words": (("bin", 0.95, 1.18), ("blue", 1.18, 1.36)),
        "absent": ((0, 3, "no_face"),),
    }
    return Utterance(**{**values, **changes})  # type: ignore[arg-type]


# --- manifest ---


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = [utterance(), utterance(id="s1/x", audio=None, words=(), text="größe"), utterance(id="s1/y", video=None)]
    write_manifest(tmp_path / "manifest.jsonl", written)
    assert read_manifest(tmp_path / "manifest.jsonl") == written
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.jsonl"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": None}, r"manifest.jsonl:2: wrong value of text: got null, expected a string"),
        ({"duration": "3"}, r"manifest.jsonl:2: wrong value of duration"),
        ({"coverage": -1}, r"manifest.jsonl:2: wrong value of coverage"),
        ({"audio": 3}, r"manifest.jsonl:2: wrong value of audio"),
        ({"words": [["bin", 1]]}, r"manifest.jsonl:2: wrong value of words"),
        ({"absent": [[0, "3", "x"]]}, r"manifest.jsonl:2: wrong value of absent"),
        ({"vidoe": "a"}, r"manifest.jsonl:2: unknown key: got vidoe; did you mean video\?"),
        ({"id": "s1/bbaf2n"}, r"manifest.jsonl:2: the id occurs twice: got s1/bbaf2n, also in line 1"),
    ],
)
def test_a_wrong_manifest_names_line_and_key(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, [utterance()])
    row = {**json.loads(path.read_text()), "id": "s1/other", **change}
    path.write_text(path.read_text() + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=message):
        read_manifest(path)


def test_a_broken_manifest_says_where(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    with pytest.raises(DataError, match="cannot read the manifest.*avsr prepare"):
        read_manifest(path)
    path.write_text('{"id": ')
    with pytest.raises(DataError, match="manifest.jsonl:1: not JSON"):
        read_manifest(path)
    path.write_text("[]\n")
    with pytest.raises(DataError, match="manifest.jsonl:1: not a JSON object: got list"):
        read_manifest(path)
    path.write_text('\n{"id": "a"}\n')
    with pytest.raises(DataError, match="manifest.jsonl:2: a key is missing: expected speaker"):
        read_manifest(path)


def test_sound_comes_back_and_never_clips(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, 5000).astype(np.float32)
    manifest.save_samples(tmp_path / "audio/s1/bbaf2n.wav", samples)
    np.testing.assert_allclose(load_samples(utterance(), tmp_path), samples, atol=2e-5)
    manifest.save_samples(tmp_path / "audio/s1/bbaf2n.wav", samples * 1.5)
    loud = load_samples(utterance(), tmp_path)
    np.testing.assert_allclose(loud, samples * (0.99 / np.abs(samples).max()), atol=1e-4)
    assert load_samples(utterance(audio=None), tmp_path).shape == (0,)


def test_lips_come_back_nearly_as_they_were(tmp_path: Path) -> None:
    y, x = np.mgrid[:96, :96]
    crops = np.stack([128 + 60 * np.sin(x / 9 + t / 5) + 40 * np.cos(y / 6) for t in range(30)]).astype(np.uint8)
    crops[:3] = 0
    manifest.save_lips(tmp_path / "lips/s1/bbaf2n.mp4", crops)
    loaded, present = load_lips(utterance(), tmp_path)
    assert loaded.shape == (30, 96, 96) and loaded.dtype == np.uint8 and present.dtype == np.bool_
    assert np.abs(loaded.astype(int) - crops).mean() < 1.0
    assert not present[:3].any() and present[3:].all() and not loaded[:3].any()
    assert load_lips(utterance(video=None), tmp_path)[0].shape == (0, 96, 96)


def test_missing_and_wrong_files_are_named(tmp_path: Path) -> None:
    for load in (load_samples, load_lips):
        with pytest.raises(DataError, match="s1/bbaf2n.*prepare it again"):
            load(utterance(), tmp_path)
    path = tmp_path / "audio/s1/bbaf2n.wav"
    path.parent.mkdir(parents=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(400))
    with pytest.raises(DataError, match="got 2 channels, 16 bit, 8000 Hz"):
        load_samples(utterance(), tmp_path)


# --- GRID ---


def test_file_names_spell_sentences() -> None:
    assert sentence_of_name("bbaf2n") == "bin blue at f two now"
    assert sentence_of_name("swwxzp") == "set white with x zero please"
    assert sentence_of_name("bbaw2n") == ""  # the letter w is not used
    assert sentence_of_name("id2_x") == ""


def test_word_times(tmp_path: Path) -> None:
    path = tmp_path / "bbaf2n.align"
    path.write_text(ALIGN)
    words = read_align(path)
    assert [word for word, _, _ in words] == "bin blue at f two now".split()
    assert words[0] == ("bin", 0.95, 1.18)
    path.write_text("0 100 sil\n100 x bin\n")
    with pytest.raises(DataError, match="bbaf2n.align:2: wrong word time"):
        read_align(path)


def test_the_distributed_layout(tmp_path: Path) -> None:
    for name in ("s1/video/mpg_6000/bbaf2n.mpg", "s1/video/mpg_vcd/bbaf2n.mpg", "s2/lwbsza.mpg", "s2/holiday.mpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("s1/align/bbaf2n.align", "align/s2/lwbsza.align"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(ALIGN if "s1" in name else "not times\n")
    (tmp_path / "README").touch()
    first, unlabelled, broken = read_grid(tmp_path)
    assert (first.id, first.speaker, first.split, first.text) == ("s1/bbaf2n", "s1", "train", "bin blue at f two now")
    assert first.path.parent.name == "mpg_6000" and len(first.words) == 6 and first.problem is None
    assert unlabelled.problem is not None and "not known" in unlabelled.problem
    assert broken.problem is not None and "lwbsza.align:1: wrong word time" in broken.problem


def test_folders_without_grid_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_grid(tmp_path / "missing")
    with pytest.raises(DataError, match="no GRID clips found"):
        read_grid(tmp_path)
    with pytest.raises(DataError, match="is a file: expected the folder"):
        (tmp_path / "file").touch()
        read_grid(tmp_path / "file")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "s1/a"}', "clips.jsonl:1: a key is missing: expected speaker"),
        ('{"id": "s1/a", "speaker": 1, "path": "a.mpg"}', "clips.jsonl:1: wrong value of speaker: got 1"),
        ('{"id": "s1/a", "speaker": "s1", "path": null}', "clips.jsonl:1: wrong value of path: got null"),
        ("[]", "clips.jsonl:1: not a JSON object: got list"),
        ("{", "clips.jsonl:1: not JSON"),
    ],
)
def test_a_wrong_index_names_line_and_key(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "clips.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        read_grid(tmp_path)


def test_sentences_come_from_the_index(tmp_path: Path) -> None:
    (tmp_path / "bbaf2n.align").write_text(ALIGN)
    rows = [
        {"id": "a/1", "words": "Lay  white"},
        {"id": "a/2", "words": "lay white", "align": "bbaf2n.align"},
        {"id": "a/3", "align": "bbaf2n.align", "split": "dev", "frames": 75},
        {"id": "a/4", "align": "gone.align", "words": None},
    ]
    lines = [json.dumps({"speaker": "a", "path": "x.mpg", **row}) for row in rows]
    (tmp_path / "clips.jsonl").write_text("\n".join(lines))
    words, differing, align, gone = read_grid(tmp_path)
    assert (words.text, words.split, words.problem) == ("lay white", "train", None)
    assert differing.problem == "word times and words differ: got 'bin blue at f two now' and 'lay white'"
    assert (align.text, align.split, align.problem) == ("bin blue at f two now", "dev", None)
    assert gone.problem is not None and "gone.align: cannot read the word times" in gone.problem
    with pytest.raises(DataError, match=r"clips.jsonl says the splits: got held-out speakers"):
        read_grid(tmp_path, held_out=["a"])


def clips_of(speaker: str, letters: str) -> list[SourceClip]:
    """Ten clips for each letter, one for each digit."""
    names = [f"bba{letter}{digit}n" for letter in letters for digit in "z123456789"]
    return [
        SourceClip(
            id=f"{speaker}/{name}", speaker=speaker, split="", path=Path(f"{name}.mpg"), text=sentence_of_name(name)
        )
        for name in names
    ]


def test_splits_are_fixed_and_even() -> None:
    clips = clips_of("s1", "abcdefgh") + clips_of("s2", "ab") + clips_of("s3", "a")[:3]
    split = split_clips(clips, held_out=["s2"])
    assert sorted(clip.id for clip in split) == sorted(clip.id for clip in clips)
    assert split_clips(reversed(clips), held_out=["s2"]) != split  # another order
    assert sorted(split_clips(reversed(clips), ["s2"]), key=str) == sorted(split, key=str)  # with the same splits
    counts = Counter((clip.speaker, clip.split) for clip in split)
    assert counts == {
        ("s1", "train"): 64,
        ("s1", "test_seen"): 10,
        ("s1", "dev"): 6,
        ("s2", "test_unseen"): 20,
        ("s3", "train"): 1,
        ("s3", "test_seen"): 1,
        ("s3", "dev"): 1,
    }
    letters = Counter(clip.text.split()[3] for clip in split if clip.speaker == "s1" and clip.split == "test_seen")
    assert set(letters) == set("abcdefgh") and max(letters.values()) == 2
    with pytest.raises(DataError, match="no clips of a held-out speaker: got s9, expected s1, s2, s3"):
        split_clips(clips, held_out=["s9"])


def test_test_splits_keep_the_clips_that_the_shipped_model_was_not_trained_on() -> None:
    rows = [json.loads(line) for line in shared_corpus("grid/clips.jsonl").read_text().splitlines()]
    known = {row["id"]: row["split"] for row in rows if row["speaker"] == "s1" and row["split"] != "defective"}
    clips = [
        SourceClip(id=id_, speaker="s1", split="", path=Path("a"), text=sentence_of_name(id_[3:])) for id_ in known
    ]
    # A 20th of the clips is missing from this copy: the first two of each letter.
    moved = [known[clip.id] for clip in split_clips(clips) if clip.split != "train"]
    assert Counter(moved)["test_seen"] == 75 and Counter(moved)["dev"] == 75
    published = {clip.id for clip in split_clips(clips) if clip.split == "test_seen"}
    assert {id_ for id_, split in known.items() if split == "test_seen"} <= published


# --- preparing ---


def test_wrong_requests(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown corpus: got grit, expected grid, folder, speech; did you mean grid"):
        prepare("grit", tmp_path, tmp_path / "out")
    row = {"id": "../../bbaf2n", "speaker": "s1", "path": "a.mp4", "words": "bin blue at f two now"}
    (tmp_path / "clips.jsonl").write_text(json.dumps(row) + "\n")
    (reason,) = prepare("grid", tmp_path, tmp_path / "out").rejections.values()
    assert reason == "the id leads out of the folder: got ../../bbaf2n, expected speaker/name"
    (tmp_path / "file").write_text("mine")
    row["id"] = "s1/bbaf2n"
    (tmp_path / "clips.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="file: is a file: expected a folder"):
        prepare("grid", tmp_path, tmp_path / "file")
    with pytest.raises(DataError, match="below: cannot be written: got Not a directory; give another folder"):
        prepare("grid", tmp_path, tmp_path / "file/below")


def rejected(result: Preparation) -> dict[str, str]:
    rows = map(json.loads, (result.manifest.parent / "rejected.jsonl").read_text().splitlines())
    return {row["id"]: row["reason"] for row in rows}


def test_clips_of_every_kind_are_used_or_rejected_with_a_reason(tmp_path: Path) -> None:
    src = tmp_path / "src"
    (src / "s1").mkdir(parents=True)
    times_s = [0.04 * number for number in range(10)]
    write_video(src / "s1/bbaf1n.mkv", times_s, sound_s=(0.0, 0.4))
    write_video(src / "s1/bbaf2n.mkv", times_s)
    write_sound(src / "s1/bbaf3n.mkv", [(0.0, tone(0.5, 48_000)[None])])
    (src / "s1/bbaf4n.mpg").write_text("no video")
    (src / "s1/bbaf5n.mpg").touch()
    (src / "s1/who.mkv").touch()
    progress: list[tuple[int, int]] = []
    result = prepare("grid", src, tmp_path / "out", on_progress=lambda done, total: progress.append((done, total)))
    used = {utterance.id: utterance for utterance in read_manifest(result.manifest)}
    assert sorted(used) == ["s1/bbaf1n", "s1/bbaf3n"]  # the sound is used even if the video has no face
    assert used["s1/bbaf1n"].video is None and used["s1/bbaf1n"].coverage == 0
    assert used["s1/bbaf1n"].text == "bin blue at f one now"
    assert len(load_samples(used["s1/bbaf3n"], tmp_path / "out")) == 8000
    reasons = rejected(result)
    assert "neither sound nor readable lips" in reasons["s1/bbaf2n"]
    assert "cannot be opened as media" in reasons["s1/bbaf4n"]
    assert "empty" in reasons["s1/bbaf5n"]
    assert "not known" in reasons["s1/who"]
    assert result.rejections == reasons and sum(result.splits.values()) == 2
    assert progress[-1] == (6, 6) and (result.utterances, result.rejected, result.new) == (2, 4, 5)


def test_a_clip_without_a_sentence_is_kept_only_as_unlabelled(tmp_path: Path) -> None:
    for name in ("u1.mpg", "u2.mpg"):
        (tmp_path / name).touch()
    rows = [
        {"id": "a/u1", "speaker": "a", "path": "u1.mpg", "words": "", "split": "unlabelled"},
        {"id": "a/u2", "speaker": "a", "path": "u2.mpg", "words": "", "split": "train"},
    ]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept, refused = read_grid(tmp_path)
    assert (kept.text, kept.split, kept.problem) == ("", "unlabelled", None)
    assert refused.problem is not None and "not known" in refused.problem


def test_an_interrupted_preparation_goes_on_and_redoes_only_what_changed(tmp_path: Path) -> None:
    corpus = shared_corpus("grid")
    src, out = tmp_path / "src", tmp_path / "out"
    rows = [json.loads(line) for line in (corpus / "clips.jsonl").read_text().splitlines()]
    chosen = [row for row in rows if row["id"] in ("s1/bbaf2n", "s3/sbia1a", "s4/bbie7p")]
    for row in chosen:
        for key in ("path", "align"):
            (src / row[key]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(corpus / row[key], src / row[key])
        del row["words"]
    (src / "clips.jsonl").write_text("\n".join(map(json.dumps, chosen)))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("grid", src, out, workers=2, on_progress=interrupt)
    assert not (out / "manifest.jsonl").exists()
    assert not list(out.rglob(".*.partial"))  # the files that are there are whole

    killed, running = out / "lips/.0123456789ab.partial", out / "audio/s1/.ba9876543210.partial"
    for partial in (killed, running):  # as a killed run and another one leave them
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    os.utime(killed, (0, 0))
    result = prepare("grid", src, out, workers=2)
    assert (result.utterances, result.rejected) == (3, 0) and result.new < 3
    assert running.exists() and not killed.exists()
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in (".wav", ".mp4")}
    assert len(written) == 5
    first = read_manifest(result.manifest)
    assert [utterance.split for utterance in first] == ["train", "test_unseen", "video_only_other"]
    assert [utterance.coverage for utterance in first] == [1.0] * 3
    assert first[2].audio is None and first[0].words[0] == ("bin", 0.95, 1.18)
    crops, present = load_lips(first[0], out)
    assert crops.shape == (75, 96, 96) and present.all()
    assert np.abs(load_samples(first[0], out)).max() <= 0.9901

    assert prepare("grid", src, out).new == 0  # nothing to do: no process is started

    align = src / chosen[0]["align"]
    align.write_text(align.read_text().replace("now", "soon"))
    assert prepare("grid", src, out).new == 1
    assert read_manifest(out / "manifest.jsonl")[0].text == "bin blue at f two soon"
    unchanged = [path for path, time in written.items() if path.stat().st_mtime_ns == time]
    assert len(unchanged) == 3
