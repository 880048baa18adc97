"""A folder of forty odd files, and two runs into one folder: every file is named once, and no name stops the others."""

from __future__ import annotations

import json
import os
import re
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import avsr
from avsr.cli.main import main
from avsr.media import read_audio
from avsr.transcript import Segment, Transcript, Word
from tests import fake_recognizer
from tests.test_cli import avsr_process, files_below, put, wait_for
from tests.test_media import tone, write_any, write_sound, write_video

RARE = ".m2ts .wma .oga .mka .m4b .mp2 .vob .caf .ac3 .f4v .3g2".split()
LONG = "x" * 251 + ".mp4"
BYTES = os.fsdecode(b"caf\xe9.wav")


class Decoder:
    """A recogniser that decodes a file for real and says how long it is."""

    def transcribe(self, path: str, **_: object) -> Transcript:
        seconds = len(read_audio(path)) / 16_000
        words = (Word(word=f"{seconds:.1f}", start=0.0, end=0.1, confidence=1.0, modality="a"),)
        return Transcript(
            source=path, duration=seconds, model="decoder", modality="a", segments=(Segment(words=words),)
        )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, in which the model decodes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(avsr, "load", lambda *_, **__: Decoder())
    monkeypatch.setenv("AVSR_MODEL", "decoder")
    return tmp_path


def fill(root: Path) -> dict[str, str]:
    """Make the folder. Returns what is right for each file: "done", "failed" or "left out"."""
    (root / "sub/deeper").mkdir(parents=True)
    sound = write_sound(root / "talk.wav", [(0.0, tone(0.2, 48_000)[None])]).read_bytes()
    video = write_video(root / "sub/VIDEO.MKV", [0.0, 0.04], sound_s=(0.0, 0.2)).read_bytes()
    done = [f"rare{suffix}" for suffix in RARE]
    for name in done:
        write_any(root / name)
    # A name says nothing of these; a name with another form of the same letters is another file.
    odd = ["Ep. 12 final", "recording", "-dash.wav", "two\nlines.wav", BYTES, LONG, "é.wav", "e\u0301.wav", "dot.wav. "]
    for number, name in enumerate(odd):
        (root / name).write_bytes(video if name == LONG else sound + bytes(2 * number))
    part = write_any(root / "joined.ts").read_bytes()
    (root / "joined.ts").write_bytes(part * 3)
    (root / "chained.ogg").write_bytes((root / "rare.oga").read_bytes() * 2)
    (root / "sub/deeper/cut.wav").write_bytes(sound[: len(sound) // 2])
    done += [*odd, "talk.wav", "sub/VIDEO.MKV", "joined.ts", "chained.ogg", "sub/deeper/cut.wav"]

    failed = ["noise.mp4", "empty.wav", "text.mov", "sub/no_index.mp4"]
    (root / "noise.mp4").write_bytes(np.random.default_rng(1).bytes(2000))
    (root / "empty.wav").touch()
    (root / "text.mov").write_text("not a film")
    write_any(root / "sub/no_index.mp4")
    os.truncate(root / "sub/no_index.mp4", 400)

    left_out = ["notes.pdf", "README", "sub/talk.srt", "list.m3u8", ".hidden.mp4", "sub/._talk.mp4"]
    for name in left_out:
        (root / name).write_text("x")
    (root / "gone.mp4").symlink_to("nowhere.mp4")
    (root / "sub/again.wav").symlink_to("../talk.wav")
    os.link(root / "joined.ts", root / "sub/joined.ts")
    os.mkfifo(root / "sub/pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "socket.mp4"))
    (root / "sub/up").symlink_to("..")
    (root / "0_sub").symlink_to("sub")
    left_out += ["gone.mp4", "sub/again.wav", "sub/joined.ts", "sub/pipe.mp4", "socket.mp4"]
    return dict.fromkeys(done, "done") | dict.fromkeys(failed, "failed") | dict.fromkeys(left_out, "left out")


def summary(lines: str) -> dict[str, int]:
    """The counts of the last line."""
    return {name: int(count) for count, name in re.findall("([0-9]+) ([a-z ]+)", lines.splitlines()[-1])}


def test_every_file_of_a_folder_is_named_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in").mkdir()
    fates = fill(Path("in"))
    real = {
        os.path.relpath(os.path.join(parent, name), "in")
        for parent, folders, names in os.walk("in")
        for name in names + [name for name in folders if os.path.islink(os.path.join(parent, name))]
    }
    assert real - fates.keys() == {"sub/up", "0_sub"} and len(fates) == 40

    assert main(["transcribe", "in", "--recursive", "-o", "out", "-f", "txt,json", "--debug"]) == 1
    error = capsys.readouterr().err
    expected = Counter(fates.values())
    assert summary(error) == {
        "transcribed": expected["done"],
        "kept": 0,
        "failed": expected["failed"],
        "left out": expected["left out"],
    }
    for name, fate in fates.items():
        path = os.path.join("in", name)
        assert error.count(f"left out {path!r}: ") == (fate == "left out"), name
        lines = re.findall(rf"(?m)^avsr: {re.escape(path)}: .*(?:cannot be|empty)", error)
        assert len(lines) == (fate == "failed"), name
    sources = Counter(json.loads(line)["source"] for line in Path("out/.avsr-sources.jsonl").read_text().splitlines())
    assert sources == {os.path.join("in", name): 2 for name, fate in fates.items() if fate == "done"}
    (total,) = re.findall("(?m)^avsr: left out of in: (.*)$", error)
    assert total == (
        "4 files that are no video or sound (.m3u8, .pdf, .srt, without suffix), 2 second names of files, "
        "1 broken link, 2 pipes, sockets or devices, 2 hidden files, 2 second ways into folders; --debug names each"
    )

    assert main(["transcribe", "in", "--recursive", "-o", "out", "-f", "txt,json"]) == 1
    assert summary(capsys.readouterr().err)["kept"] == expected["done"]


def test_names_of_results(folder: Path) -> None:
    Path("in").mkdir()
    fates = fill(Path("in"))
    main(["transcribe", "in", "--recursive", "-o", "out", "-f", "txt,json", "--quiet"])
    written = {
        os.path.relpath(os.path.join(parent, name), "out") for parent, _, names in os.walk("out") for name in names
    }
    assert {
        "Ep. 12 final.txt",
        "recording.txt",
        "-dash.txt",
        "two\nlines.txt",
        "dot.txt",
        "sub/deeper/cut.txt",
    } <= written
    assert {"é.txt", "e\u0301.txt", os.fsdecode(b"caf\xe9.txt")} <= written
    # The text fits into 255 bytes; the JSON does not.
    assert "x" * 251 + ".txt" in written
    (shortened,) = (name for name in written if name.startswith("xxx") and name.endswith(".json"))
    assert re.fullmatch("x{241}~[0-9a-f]{8}.json", shortened)
    assert len(written) == 1 + 2 * Counter(fates.values())["done"]


def test_a_long_name_in_a_resumed_folder_costs_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letters = "ü" * 125 + ".wav"  # of two bytes each: 254 bytes
    write_sound(Path("talk.wav"), [(0.0, tone(0.2, 48_000)[None])])
    for name in (letters, "a.wav"):
        put(f"in/{name}")
        Path("in", name).write_bytes(Path("talk.wav").read_bytes() + name.encode())
    words = ["transcribe", "in", "-o", "out", "-f", "json,txt"]
    assert main(words) == 0
    assert summary(capsys.readouterr().err) == {"transcribed": 2, "kept": 0, "failed": 0}
    assert main(words) == 0
    assert summary(capsys.readouterr().err) == {"transcribed": 0, "kept": 2, "failed": 0}
    assert {name.encode()[-5:] for name in files_below("out")} == {b".json", b"a.txt", "ü.txt".encode()[-5:]} | {
        b"a.txt"
    }


@pytest.mark.parametrize("names", [["talk.mp4", "talk.wav", "talk.mp4.mp4"], ["a.mp4", "a", "a.wav"]])
def test_no_two_files_of_a_folder_get_one_result(
    names: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(avsr, "load", fake_recognizer.load)
    for name in names:
        put(f"in/{name}", text=f"OggS {name}")
    assert main(["transcribe", "in", "-o", "out", "--quiet"]) == 0
    assert sorted(files_below("out").values()) == sorted(f"OggS {name}\n" for name in names)


@pytest.mark.parametrize(
    "address", ["file://{}/a%20b.wav", "file://localhost{}/a%20b.wav", "FILE://LocalHost{}/a b.wav", "file:{}/a b.wav"]
)
def test_addresses_of_local_files_are_opened(address: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sound(Path("a b.wav"), [(0.0, tone(0.2, 48_000)[None])])
    assert main(["transcribe", address.format(folder), "-o", "out"]) == 0
    assert files_below("out") == {"a b.txt": "0.2\n"}
    assert main(["doctor", address.format(folder), "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["source"] == f"{folder}/a b.wav"
    assert main(["transcribe", f"file://{folder}", "-o", "out"]) == 0
    assert summary(capsys.readouterr().err) == {"transcribed": 0, "kept": 1, "failed": 0}


@pytest.mark.parametrize(
    "address", ["HTTPS://host/a.mp4", "rtsp://host/a", "file://other/a.mp4", "s3+x://bucket/a.mp4"]
)
def test_other_addresses_are_refused(address: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    why = "is an address, and only files on this machine are read; download it, and name the file"
    assert main(["transcribe", address]) == 1
    assert capsys.readouterr().err == f"avsr: {address}: {why}\n"
    for command in ("doctor", "stream"):
        assert main([command, address]) == 2
        assert capsys.readouterr().err.startswith(f"avsr: argument FILE: {address} {why}")


def test_two_runs_into_one_folder_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVSR_MODEL", "stand-in")
    names = [f"in/slow{number}.mp4" for number in range(4)]
    put(*names)
    words = ["transcribe", "in", "-o", "out", "-f", "txt,json"]
    with avsr_process(*words) as first:
        wait_for(Path("out/.avsr-sources.jsonl").exists)  # it has begun with a file
        with avsr_process(*words) as second:
            errors = [process.communicate(timeout=60)[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    counts = [summary(error) for error in errors]
    assert [sum(count.values()) for count in counts] == [4, 4]
    assert sum(count["transcribed"] for count in counts) == 4
    assert sum(error.count("wrote") for error in errors) == 8
    assert len(files_below("out")) == 8


def test_a_run_waits_for_what_another_run_claimed_and_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVSR_MODEL", "stand-in")
    put("in/forever.mp4", "in/talk.mp4")
    with avsr_process("transcribe", "in/forever.mp4", "-o", "out") as first:
        wait_for(Path("in/forever.started").exists)
        with avsr_process("transcribe", "in/forever.mp4", "in/talk.mp4", "-o", "out") as second:
            wait_for(Path("out/talk.txt").exists)
            first.kill()
            Path("in/forever.started").unlink()
            wait_for(Path("in/forever.started").exists)  # the second run does what the killed one had claimed
            second.kill()
            assert "in/forever.mp4: waiting for another run, which is working on it" in second.communicate()[1]


def test_results_that_another_run_has_written_count_as_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where locks do not work, as on some network file systems."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVSR_MODEL", "stand-in")
    put("in/a.mp4", "in/b.mp4")

    class Slow(fake_recognizer.FakeRecognizer):
        def transcribe(self, path: str, **options: object) -> Transcript:
            put("out/a.txt", text="by the other")  # while this run works on it
            return super().transcribe(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(avsr, "load", lambda *_, **__: Slow())
    assert main(["transcribe", "in", "-o", "out"]) == 0
    assert files_below("out") == {"a.txt": "by the other", "b.txt": "in b\n"}
    assert summary(capsys.readouterr().err) == {"transcribed": 1, "kept": 1, "failed": 0}
