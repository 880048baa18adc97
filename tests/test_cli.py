"""The `avsr` command: what goes where, exit codes, files whole or absent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TextIO

import pytest

import avsr
from avsr import families
from avsr.account import Account
from avsr.cli import console as console_module
from avsr.cli import transcribe as transcribe_module
from avsr.cli.main import main
from avsr.engine import Card
from tests import fake_recognizer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, in which every model is the stand-in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(avsr, "load", fake_recognizer.load)
    monkeypatch.setenv("AVSR_MODEL", "stand-in")
    return tmp_path


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded for nothing")

    monkeypatch.setattr(avsr, "load", load)


def put(*names: str, text: str = "") -> None:
    """Write media files: each says `text`, or the words of its own path."""
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text or " ".join(path.with_suffix("").parts))


def files_below(folder: Path | str) -> dict[str, str]:
    """The content of all files but hidden ones."""
    files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file() and path.name[0] != "."]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


class TestStandardOutput:
    def test_one_file_gives_its_text_alone(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("talk.mp4", text="good morning")
        assert main(["transcribe", "talk.mp4"]) == 0
        assert capsys.readouterr() == ("good morning\n", "")

    def test_one_file_in_any_format(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("talk.mp4", text="good morning")
        assert main(["transcribe", "talk.mp4", "--format", "srt"]) == 0
        assert capsys.readouterr().out == "1\n00:00:00,000 --> 00:00:01,500\ngood morning\n"

    def test_options_of_the_search_reach_the_model(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("search.mp4")
        assert main("transcribe search.mp4 -l KO --task translate --beam 1 --temperature 0.4".split()) == 0
        assert main("transcribe search.mp4 -l auto".split()) == 0
        assert capsys.readouterr().out.splitlines() == [
            "kind=None beam=1 language=ko task=translate temperature=0.4",
            "kind=None beam=None language=None task=transcribe temperature=0.0",
        ]

    def test_several_files_give_path_tab_text_in_order(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("b.mp4", "a.mp4", "c.mp4")
        assert main(["transcribe", "b.mp4", "a.mp4", "--format", "txt", "./c.mp4"]) == 0
        assert capsys.readouterr().out == "b.mp4\tb\na.mp4\ta\n./c.mp4\tc\n"

    def test_several_files_give_json_lines(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("b.mp4", "a.mp4")
        assert main(["transcribe", "b.mp4", "a.mp4", "--format", "json"]) == 0
        results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(result["source"], result["text"]) for result in results] == [("b.mp4", "b"), ("a.mp4", "a")]

    def test_folder_of_one_file_is_not_one_file(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("in/a.mp4", "in/notes.txt", "in/._a.mp4", "in/deeper/b.MKV", "in/.hidden/c.mp4")
        assert main(["transcribe", "in"]) == 0
        assert main(["transcribe", "in", "--recursive"]) == 0
        assert capsys.readouterr().out == "in/a.mp4\tin a\n" * 2 + "in/deeper/b.MKV\tin deeper b\n"

    def test_file_named_twice_is_done_once(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("in/a.mp4")
        assert main(["transcribe", "in/a.mp4", "in", "./in/a.mp4", "in"]) == 0
        assert capsys.readouterr() == (
            "in/a.mp4\tin a\n",
            "avsr: in/a.mp4 is named twice: done once\n"
            "avsr: ./in/a.mp4 is named twice: done once\n"
            "avsr: in is named twice, by itself or in another folder: done once\n",
        )

    @pytest.mark.parametrize("make_link", [os.symlink, os.link])
    def test_second_name_of_a_file_is_done_once(
        self, make_link: Callable[[str, str], None], folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        put("in/a.mp4")
        make_link(os.path.abspath("in/a.mp4"), "b.mp4")
        for inputs, first, second in (
            (["in/a.mp4", "b.mp4"], "in/a.mp4", "b.mp4"),
            (["b.mp4", "in/a.mp4"], "b.mp4", "in/a.mp4"),
            (["in", "b.mp4"], "in/a.mp4", "b.mp4"),
            (["in/a.mp4", "b.mp4", "./b.mp4"], "in/a.mp4", "b.mp4"),
        ):
            assert main(["transcribe", *inputs, "-o", "out", "--overwrite"]) == 0
            lines = capsys.readouterr().err.splitlines()
            assert lines[0] == f"avsr: {second} is another name of {first}: done once"
            assert lines[-1] == "avsr: 1 transcribed, 0 kept, 0 failed, 1 left out"

    def test_empty_name_is_said(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("a.mp4")
        assert main(["transcribe", "", "a.mp4"]) == 1
        assert capsys.readouterr() == (
            "a.mp4\ta\n",
            "avsr: the name of a file is empty; check the variables and the quotes in the command\n",
        )

    def test_file_names_may_hold_anything(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        names = ["two\nlines\tand a tab.mp4", "\x1b[2Jclear.mp4", os.fsdecode(b"caf\xe9.mp4"), "-x.mp4"]
        put(*names, text="hm")
        assert main(["transcribe", "--", *names]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "two\\nlines\\tand a tab.mp4\thm",
            "\\x1b[2Jclear.mp4\thm",
            "caf\\xe9.mp4\thm",
            "./-x.mp4\thm",
        ]

    def test_full_disk_is_one_line(self, folder: Path) -> None:
        if not os.path.exists("/dev/full"):
            pytest.skip("this system has no /dev/full")
        put("talk.mp4")
        with open("/dev/full", "w") as full:
            with avsr_process("transcribe", "talk.mp4", stdout=full) as process:
                _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert errors == "avsr: standard output cannot be written: got No space left on device" + (
            "; free some space, then run the same command again\n"
        )

    @pytest.mark.parametrize("words", ["transcribe a.mp4 b.mp4", "--help", "transcribe --help", "--version"])
    def test_closed_pipe_is_silent(self, words: str, folder: Path) -> None:
        put("a.mp4", "b.mp4")
        with avsr_process(*words.split()) as process:
            assert process.stdout
            process.stdout.close()  # like `| head -0`
            assert process.stderr
            assert process.stderr.read() == ""
            process.wait(60)
        # argparse swallows the error when output is not buffered, as with PYTHONUNBUFFERED.
        assert process.returncode == 141 or (words != "transcribe a.mp4 b.mp4" and process.returncode == 0)


class TestOutputFolder:
    def test_one_file_per_input_and_format(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("talk.mp4", text="good morning")
        assert main(["transcribe", "talk.mp4", "--format", "txt, TSV", "--output-dir", "new/out"]) == 0
        assert files_below("new/out") == {
            "talk.tsv": "start\tend\ttext\n0\t1500\tgood morning\n",
            "talk.txt": "good morning\n",
        }
        assert capsys.readouterr() == ("", "avsr: wrote new/out/talk.txt\navsr: wrote new/out/talk.tsv\n")

    def test_folder_structure_is_kept(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("in/monday/talk.mp4", "in/tuesday/talk.mp4", "in/talk.mp4")
        assert main(["transcribe", "in", "--recursive", "--output-dir", "out", "--quiet"]) == 0
        assert files_below("out") == {
            "monday/talk.txt": "in monday talk\n",
            "talk.txt": "in talk\n",
            "tuesday/talk.txt": "in tuesday talk\n",
        }
        assert capsys.readouterr() == ("", "")

    def test_same_stem_keeps_the_suffix(self, folder: Path) -> None:
        put("in/talk.mp4", "in/talk.wav", "in/other.mp4")
        assert main(["transcribe", "in", "--output-dir", "out"]) == 0
        assert sorted(files_below("out")) == ["other.txt", "talk.mp4.txt", "talk.wav.txt"]

    @pytest.mark.usefixtures("no_model")
    def test_inputs_that_would_overwrite_each_other_are_refused(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put("monday/talk.mp4", "tuesday/talk.mp4")
        assert main(["transcribe", "monday/talk.mp4", "tuesday/talk.mp4", "--output-dir", "out"]) == 2
        error = capsys.readouterr().err
        assert "monday/talk.mp4 and tuesday/talk.mp4 would both be written to out/talk" in error
        assert "--recursive" in error
        assert not Path("out").exists()

    def test_existing_files_are_kept(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("talk.mp4", text="good morning")
        put("out/talk.txt", text="mine")
        assert main(["transcribe", "talk.mp4", "--format", "txt,ctm", "--output-dir", "out"]) == 0
        assert files_below("out")["talk.txt"] == "mine"
        assert files_below("out")["talk.ctm"].startswith("talk 1 0.000 0.500 good")
        assert "kept out/talk.txt, which was there already; --overwrite replaces it" in capsys.readouterr().err

    def test_files_made_from_another_input_are_not_taken_for_this_one(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        put("clip.mpg", text="good morning")
        put("clip.mp4", text="good evening")
        assert main(["transcribe", "clip.mpg", "--output-dir", "out"]) == 0
        assert main(["transcribe", "clip.mp4", "--output-dir", "out", "--format", "txt,srt"]) == 1
        assert files_below("out") == {"clip.txt": "good morning\n"}
        lines = capsys.readouterr().err.splitlines()
        assert lines[1:] == [
            "avsr: clip.mp4: out/clip.txt is there already, made from clip.mpg; give another --output-dir,"
            " --overwrite to replace it, or name both inputs in one command to keep them apart"
        ]
        assert main(["transcribe", "clip.mpg", "clip.mp4", "--output-dir", "out"]) == 0
        assert files_below("out").keys() == {"clip.txt", "clip.mp4.txt", "clip.mpg.txt"}
        assert main(["transcribe", "clip.mp4", "--output-dir", "out", "--overwrite"]) == 0
        assert files_below("out")["clip.txt"] == "good evening\n"
        assert main(["transcribe", "clip.mp4", "--output-dir", "out"]) == 0
        assert main(["transcribe", "clip.mpg", "--output-dir", "out"]) == 1

    @pytest.mark.usefixtures("folder")
    def test_inputs_may_move_and_records_be_damaged(self, capsys: pytest.CaptureFixture[str]) -> None:
        put("in/monday/talk.mp4", "in/tuesday/talk.mp4")
        assert main(["transcribe", "in/monday/talk.mp4", "--output-dir", "out"]) == 0
        assert main(["transcribe", "in/tuesday/talk.mp4", "--output-dir", "out"]) == 1
        Path("in").rename("moved")
        assert main(["transcribe", "moved/monday/talk.mp4", "--output-dir", "out"]) == 0
        assert "kept out/talk.txt" in capsys.readouterr().err
        with Path("out/.avsr-sources.jsonl").open("a") as record:
            record.write('[]\n{"output": "talk.txt", "sou')
        assert main(["transcribe", "moved/tuesday/talk.mp4", "--output-dir", "out"]) == 1

    @pytest.mark.parametrize("out", ["file/below", "/proc/avsr"])
    @pytest.mark.usefixtures("no_model")
    def test_folder_that_cannot_be_is_refused_before_the_work(
        self, out: str, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        put("talk.mp4", "file")
        assert main(["transcribe", "talk.mp4", "--output-dir", out]) == 1
        assert re.fullmatch(
            rf"avsr: --output-dir {out}: cannot be written: got .*; give another folder\n", capsys.readouterr().err
        )

    def test_overwrite_replaces(self, folder: Path) -> None:
        put("talk.mp4", text="good morning")
        put("out/talk.txt", text="mine")
        assert main(["transcribe", "talk.mp4", "--output-dir", "out", "--overwrite"]) == 0
        assert files_below("out") == {"talk.txt": "good morning\n"}

    @pytest.mark.usefixtures("no_model")
    def test_finished_inputs_cost_nothing(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("in/a.mp4", "in/b.mp4", "out/a.txt", "out/b.txt")
        assert main(["transcribe", "in", "--output-dir", "out"]) == 0
        assert capsys.readouterr().err.endswith("avsr: 0 transcribed, 2 kept, 0 failed\n")

    def test_output_that_cannot_be_written(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("in/a/talk.mp4", "in/b/talk.mp4")
        put("out/a", text="a file where a folder is needed")
        assert main(["transcribe", "in", "--recursive", "--output-dir", "out", "--quiet"]) == 1
        assert files_below("out")["b/talk.txt"] == "in b talk\n"
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("avsr: out/a/talk.txt: cannot be written: got out/a: ")


class TestFailures:
    def test_bad_file_is_one_line_and_costs_no_other(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("a.mp4", "bad.mp4", "c.mp4")
        assert main(["transcribe", "a.mp4", "bad.mp4", "c.mp4", "nowhere.mp4"]) == 1
        out, err = capsys.readouterr()
        assert out == "a.mp4\ta\nc.mp4\tc\n"
        assert err == (
            "avsr: nowhere.mp4: no such file or folder; check the path\n"
            "avsr: bad.mp4: cannot be opened as media: got text, expected a video; convert it\n"
        )

    def test_summary_counts(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("in/a.mp4", "in/bad.mp4", "in/c.mp4", "out/c.txt")
        assert main(["transcribe", "in", "nowhere.mp4", "--output-dir", "out"]) == 1
        assert capsys.readouterr().err.splitlines()[-1] == "avsr: 1 transcribed, 1 kept, 2 failed"

    def test_own_fault_is_one_line(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("bug.mp4", "a.mp4")
        assert main(["transcribe", "bug.mp4", "a.mp4"]) == 1
        out, err = capsys.readouterr()
        assert out == "a.mp4\ta\n"
        said = "unexpected RuntimeError: got two and two is five; --debug shows where it happened"
        assert err == f"avsr: bug.mp4: {said}\n"

    def test_debug_shows_the_traceback(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("bug.mp4")
        assert main(["transcribe", "bug.mp4", "--debug"]) == 1
        err = capsys.readouterr().err
        assert "Traceback (most recent call last)" in err
        assert "fake_recognizer.py" in err

    def test_model_that_is_not_there(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("a.mp4")
        assert main(["transcribe", "a.mp4", "--model", "missing"]) == 1
        assert capsys.readouterr() == ("", "avsr: no such model: got missing, expected grid-tiny\n")

    @pytest.mark.usefixtures("no_model")
    def test_nothing_to_do_loads_no_model(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("in/notes.txt")
        assert main(["transcribe", "in", "nowhere.mp4"]) == 1
        assert capsys.readouterr().err == (
            "avsr: in: no video or sound files in this folder; name the files, or add --recursive for subfolders\n"
            "avsr: nowhere.mp4: no such file or folder; check the path\n"
        )

    @pytest.mark.usefixtures("no_model")
    def test_what_is_no_file_is_named(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["transcribe", "https://host/talk.mp4", "-"]) == 1
        assert capsys.readouterr().err == (
            "avsr: https://host/talk.mp4: is an address, and only files on this machine are read;"
            " download it, and name the file\n"
            "avsr: -: standard input is not read; write it to a file, and name that\n"
        )

    @pytest.mark.usefixtures("no_model")
    def test_folder_that_cannot_be_read_is_one_line(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("in").mkdir()

        def refuse(_: object) -> None:
            raise PermissionError(13, "Permission denied", "in")

        monkeypatch.setattr(os, "scandir", refuse)
        assert main(["transcribe", "in"]) == 1
        assert capsys.readouterr().err == "avsr: in: Permission denied\n"

    @pytest.mark.usefixtures("no_model")
    def test_closed_standard_output_is_said_before_the_work(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put("a.mp4")
        monkeypatch.setattr(sys, "stdout", None)
        assert main(["transcribe", "a.mp4"]) == 1
        assert main(["models"]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "avsr: standard output is closed; open it, or write files with --output-dir"
        assert lines[1].startswith("avsr: standard output is closed: got the result ")

    def test_warnings_are_shown_unless_quiet(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("faint.mp4", text="hm")
        assert main(["transcribe", "faint.mp4"]) == 0
        assert main(["transcribe", "faint.mp4", "--quiet"]) == 0
        assert capsys.readouterr() == ("hm\nhm\n", "avsr: faint.mp4: warning: the sound is faint\n")

    def test_interrupt_leaves_whole_files(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("a.mp4", "interrupted.mp4", "c.mp4")
        assert main(["transcribe", "a.mp4", "interrupted.mp4", "c.mp4", "--output-dir", "out"]) == 130
        assert capsys.readouterr().err == "avsr: wrote out/a.txt\navsr: interrupted\n"
        assert files_below("out") == {"a.txt": "a\n"}


class TestUsage:
    @pytest.mark.parametrize(
        ("words", "line"),
        [
            ("transcibe a.mp4", "unknown command transcibe; did you mean transcribe?"),
            ("xyzzy", "unknown command xyzzy (avsr --help lists the commands)"),
            ("--versoin", "unknown option --versoin; did you mean --version? (avsr --help lists the options)"),
            ("transcribe", "the following arguments are required: INPUT (avsr transcribe --help explains)"),
            ("transcribe a.mp4 --output_dir o", "unknown option --output_dir; did you mean --output-dir?"),
            ("transcribe a.mp4 --worker=3", "unknown option --worker; did you mean --workers?"),
            ("transcribe a.mp4 --over", "unknown option --over; did you mean --overwrite?"),
            (
                "transcribe a.mp4 --format jsn",
                "argument -f/--format: got 'jsn', expected txt, srt, vtt, tsv, json, ctm",
            ),
            ("transcribe a.mp4 --format txt,srt", "several formats need --output-dir"),
            ("transcribe a.mp4 b.mp4 --format srt", "--format srt of several inputs needs --output-dir"),
            ("transcribe a.mp4 --workers 0", "argument --workers: got '0', expected a whole number from 1 on"),
            ("transcribe a.mp4 --device gpu", "argument --device: got 'gpu', expected auto, cpu, cuda or cuda:N"),
            (
                "transcribe a.mp4 --face left",
                "argument --face: got 'left', expected auto, largest or the number of a face",
            ),
            (
                "transcribe a.mp4 --language english",
                "argument -l/--language: got 'english', expected auto or a code such as en, ko or yue",
            ),
            ("transcribe a.mp4 --temperature 2", "argument --temperature: got '2', expected a number from 0 to 1"),
            ("transcribe a.mp4 --modality lips", "argument --modality: invalid choice: 'lips'"),
            ("transcribe a.mp4 --output-dir a.mp4", "--output-dir a.mp4 is a file, not a folder"),
            ("train", "the following arguments are required: CONFIG (avsr train --help explains)"),
        ],
    )
    @pytest.mark.usefixtures("no_model")
    def test_wrong_usage_is_one_line(
        self, words: str, line: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put("a.mp4", "b.mp4")
        assert main(words.split()) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"avsr: {line}")
        assert err.count("\n") == 1

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--version"]) == 0
        assert capsys.readouterr().out == f"avsr {avsr.__version__}\n"

    @pytest.mark.parametrize("command", ["", "transcribe", "prepare", "train", "models"])
    def test_help_has_an_example(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([*command.split(), "--help"]) == 0
        out = capsys.readouterr().out
        assert f"\n  avsr {command}" in out
        assert out.startswith(f"usage: avsr {command}")

    def test_help_and_import_load_nothing_heavy(self) -> None:
        code = "import sys, avsr; from avsr.cli.main import main; main(['transcribe', '--help']); print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        loaded = set(done.stdout.split())
        assert "argparse" in loaded
        assert not loaded & {"numpy", "torch", "cv2", "av", "yaml", "mediapipe", "importlib.metadata", "lightning"}


class Terminal(io.StringIO):
    """Keeps what a terminal would be sent."""

    def isatty(self) -> bool:
        return True


class TestProgress:
    @pytest.fixture(autouse=True)
    def settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm")
        # These files are not real ones; each counts as 4 media seconds.
        monkeypatch.setattr(
            transcribe_module, "_as_seconds", lambda path, on_fraction, _: lambda done_s: on_fraction(done_s / 4)
        )

    def test_bar_shows_share_and_time_left(self, folder: Path) -> None:
        put("one.mp4", "two.mp4", text="a b c d")
        with redirect_stderr(Terminal()) as terminal:
            assert main(["transcribe", "one.mp4", "two.mp4"]) == 0
        shown = [line.strip() for line in terminal.getvalue().split("\r") if line.strip()]
        shares = [line.split()[0] for line in shown]
        assert list(dict.fromkeys(shares)) == ["0%", "12%", "25%", "38%", "50%", "62%", "75%", "88%", "100%"]
        assert shown[0] == "0% |------------------------| 0/2 files"
        assert shown[4] == "50% |############------------| 0/2 files, 0:00 left"
        assert shown[-1] == "100% |########################| 2/2 files"
        assert terminal.getvalue().endswith("\r" + " " * (len(shown[-1])) + "\r")  # nothing stays behind

    def test_no_bar_when_quiet(self, folder: Path) -> None:
        put("one.mp4")
        with redirect_stderr(Terminal()) as terminal:
            assert main(["transcribe", "one.mp4", "--quiet"]) == 0
        assert terminal.getvalue() == ""

    def test_time_left_follows_the_pace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        times = iter([100.0, 110.0, 130.0])
        monkeypatch.setattr(time, "monotonic", lambda: next(times))
        with redirect_stderr(Terminal()) as terminal, console_module.Console() as console:
            console.progress(0.0, "")
            console.progress(0.2, "")  # what came before says nothing of the pace
            console.progress(0.3, "")  # 10 % in 10 s
            console.progress(0.5, "")
        assert re.findall("[0-9:]+ left", terminal.getvalue()) == ["1:10 left", "0:50 left"]

    def test_messages_and_results_pass_the_bar(self, capsys: pytest.CaptureFixture[str]) -> None:
        with redirect_stderr(Terminal()) as terminal, console_module.Console() as console:
            console.progress(0.5, "1/2 files")
            bar = terminal.getvalue().removeprefix("\r\r")
            console.error("talk.mp4: no")
            console.result("yes\n")
        blank = "\r" + " " * len(bar) + "\r"
        assert terminal.getvalue() == f"\r\r{bar}{blank}avsr: talk.mp4: no\n\r\r{bar}{blank}\r\r{bar}{blank}"
        assert capsys.readouterr().out == "yes\n"


class TestWorkers:
    def test_results_come_in_input_order(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put("slow.mp4", "b.mp4", "bad.mp4", "d.mp4")
        names = ["slow.mp4", "b.mp4", "bad.mp4", "d.mp4"]
        with avsr_process("transcribe", *names, "--workers", "2", "--format", "json") as process:
            out, err = process.communicate(timeout=60)
        results = [json.loads(line) for line in out.splitlines()]
        assert [result["source"] for result in results] == ["slow.mp4", "b.mp4", "d.mp4"]
        assert err == "avsr: bad.mp4: cannot be opened as media: got text, expected a video; convert it\n"
        assert process.returncode == 1
        models = {result["model"] for result in results}
        assert 1 <= len(models) <= 2
        assert f"fake in process {process.pid}" not in models

    def test_killed_worker_costs_one_file(self, folder: Path) -> None:
        put("a.mp4", "killed.mp4", "c.mp4", "d.mp4")
        with avsr_process("transcribe", "a.mp4", "killed.mp4", "c.mp4", "d.mp4", "--workers", "2") as process:
            out, err = process.communicate(timeout=60)
        assert out == "a.mp4\ta\nc.mp4\tc\nd.mp4\td\n"
        assert err == (
            "avsr: killed.mp4: its process died: got signal 9 (Killed), expected a result;"
            " if memory ran out, use fewer --workers\n"
        )
        assert process.returncode == 1

    @pytest.mark.parametrize(
        ("model", "line"),
        [("missing", "no such model: got missing, expected grid-tiny"), ("killed", "its process died: got signal 9")],
    )
    def test_model_that_cannot_be_opened_ends_it_all(self, model: str, line: str, folder: Path) -> None:
        put("a.mp4", "b.mp4")
        with avsr_process("transcribe", "a.mp4", "b.mp4", "--workers", "2", "--model", model) as process:
            out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"avsr: {line}")

    @pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_signal_stops_all_and_leaves_whole_files(self, signal_number: int, code: int, folder: Path) -> None:
        put("a.mp4", "forever.mp4", "forever2.mp4")
        words = "transcribe a.mp4 forever.mp4 forever2.mp4 --workers 2 --output-dir out --quiet".split()
        with avsr_process(*words) as process:
            wait_for(lambda: Path("forever.started").exists() and Path("forever2.started").exists())
            children = child_ids(process.pid)
            assert len(children) >= 2
            if signal_number == signal.SIGINT:
                os.killpg(process.pid, signal_number)  # a terminal sends it to every process of the command
            else:
                process.send_signal(signal_number)
            _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (code, "")
        assert files_below("out") == {"a.txt": "a\n"}
        wait_for(lambda: not any(is_running(child) for child in children))


class TestOtherCommands:
    """Each is a few lines over a public function, which has tests of its own."""

    def test_prepare(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        splits = {"dev": 1, "train": 4}

        def prepare(
            corpus: str,
            src: str,
            out: Path,
            *,
            held_out: tuple[str, ...],
            language: str,
            workers: int,
            on_progress: object,
        ) -> types.SimpleNamespace:
            assert (corpus, src, out, held_out) == ("grid", "from", Path("to"), ("s2", "s22"))
            assert (language, workers) == ("en", 3)
            assert callable(on_progress)
            on_progress(1, 2)
            reasons = {f"s1/{number}": "no such file" for number in range(7)}
            account = Account()
            account.note("left out", "left out of from: 2 hidden files")
            return types.SimpleNamespace(
                manifest=Path("to/manifest.jsonl"),
                splits=splits,
                utterances=sum(splits.values()),
                rejections=reasons,
                rejected=len(reasons),
                new=2,
                kept=3,
                account=account,
            )

        module = types.ModuleType("avsr.datasets.prepare")
        module.prepare = prepare  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "avsr.datasets.prepare", module)
        command = "prepare grid from -o to --workers 3 --held-out-speakers s2,s22 -l en".split()
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert out == "to/manifest.jsonl\n"
        lines = err.splitlines()
        assert lines[0] == "avsr: rejected s1/0: no such file" and len(lines) == 8
        assert lines[5] == "avsr: rejected 2 more, listed in to/rejected.jsonl"
        assert lines[6] == "avsr: left out of from: 2 hidden files"
        assert lines[7] == "avsr: 5 clips ready (dev 1, train 4), 7 rejected; 3 of them by an earlier run"
        splits.clear()
        assert main([*command, "--quiet"]) == 1
        assert capsys.readouterr() == (
            "",
            "avsr: from: no clip could be used; to/rejected.jsonl has the reasons\n",
        )

    def test_train(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        def train(config: str, overrides: list[str], *, on_message: object) -> Path:
            assert (config, overrides) == ("c.yaml", ["a=1", "b.c=x"])
            assert callable(on_message)
            on_message("epoch 1: dev WER 50 %")
            return Path("runs/mine/model")

        module = types.ModuleType("avsr.training.run")
        module.train = train  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "avsr.training.run", module)
        assert main(["train", "c.yaml", "a=1", "--quiet", "b.c=x"]) == 0
        assert main(["train", "c.yaml", "a=1", "b.c=x"]) == 0
        assert capsys.readouterr() == ("runs/mine/model\n" * 2, "avsr: epoch 1: dev WER 50 %\n")

    def test_one_argument_too_many(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "a.mp4", "b.mp4"]) == 2
        assert capsys.readouterr().err == "avsr: b.mp4 is one argument too many (avsr doctor --help explains)\n"

    def test_compare_with_an_unknown_modality(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["compare", f"{tmp_path}:q", f"{tmp_path}:av"]) == 2
        assert "got modality 'q', expected" in capsys.readouterr().err

    @pytest.mark.usefixtures("nothing_installed")
    def test_models(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        put(str(tmp_path / "tiny/model.safetensors"), text="x" * 2_340_000)
        put(str(tmp_path / "hears/model.safetensors"), text="x" * 400_000)
        cards = [
            Card("hears", "own", ("a",)),
            Card("tiny", "own", ("a", "v", "av"), ("en", "cy"), "three words", chunks_ms=(80, 320)),
        ]
        monkeypatch.setattr(families, "ASSETS", tmp_path)
        monkeypatch.setattr(families, "shipped", lambda: cards)
        assert main(["models"]) == 0
        table = capsys.readouterr().out
        rows = [re.split("  +", line) for line in table.splitlines()]
        assert rows[0] == ["NAME", "STATE", "MODALITIES", "LANGUAGES", "DOMAIN", "SIZE", "LICENCE", "LIVE, MS"]
        assert rows[1] == ["hears", "shipped", "a", "-", "open", "0.4 MB", "not stated", "-"]
        assert rows[2] == ["tiny", "shipped", "a v av", "en cy", "three words", "2.3 MB", "not stated", "80 320"]
        assert [
            "whisper-base",
            "available",
            "a",
            "99 languages",
            "open",
            "147.9 MB",
            "MIT",
            "400 800 1600 3200",
        ] in rows
        assert main(["models", "list"]) == 0
        assert capsys.readouterr().out == table

        assert main(["models", "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        hears, tiny, *_ = content["models"]
        assert (hears["name"], hears["chunks_ms"], hears["size_bytes"], tiny["domain"]) == (
            "hears",
            [],
            400_000,
            "three words",
        )
        assert hears["weights_sha256"] == hashlib.sha256(b"x" * 400_000).hexdigest()
        assert main(["models", "show", "tiny", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"schema": 1, **tiny}

        assert main(["models", "show", "tiny"]) == 0
        lines = [re.split("  +", line) for line in capsys.readouterr().out.splitlines()]
        assert ["modalities", "a v av"] in lines
        assert lines[-1] == ["model.safetensors", f"sha256 {tiny['weights_sha256']}"]
        assert main(["models", "show", "whisper-bass"]) == 1
        assert capsys.readouterr().err == (
            "avsr: no model 'whisper-bass' in the catalogue; did you mean whisper-base? (avsr models lists all)\n"
        )

    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (avsr.DataError("no corpus", got="x"), "no corpus: got x"),
            (FileNotFoundError(2, "No such file", "x"), "x: No such file"),
            (
                ImportError("libGL.so.1: cannot open it"),
                "a system library is missing: got libGL.so.1: cannot open it; inst",
            ),
            (
                ImportError("No module named 'yaml'"),
                "a package is missing: got No module named 'yaml'; install avsr again",
            ),
            (
                ZeroDivisionError("by\nzero"),
                "unexpected ZeroDivisionError: got by zero; --debug shows where it happened",
            ),
        ],
    )
    def test_errors_are_one_line(
        self, error: Exception, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        module = types.ModuleType("avsr.training.run")
        module.train = fail  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "avsr.training.run", module)
        assert main(["train", "c.yaml"]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"avsr: {line}")
        assert err.count("\n") == 1


@contextmanager
def avsr_process(*words: str, stdout: int | TextIO = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """The command in a process, and process group, of its own, with the stand-in for a model. Killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fake_avsr", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background makes them, and so all they start, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def child_ids(parent: int) -> list[int]:
    """Process ids of the children of a process."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if stat_fields(entry.name)[1:2] == [str(parent)]]


def is_running(process: int) -> bool:
    """Whether a process is there and has not ended; one that has may wait as a zombie for its parent to notice."""
    return stat_fields(str(process))[:1] not in ([], ["Z"])


def stat_fields(process: str) -> list[str]:
    """State, parent and so on from /proc; empty for a process that is gone."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
