"""A full disk, a folder that cannot be written, two writers at once: one line, nothing half, and a repeat works."""

from __future__ import annotations

import csv
import errno
import functools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import avsr
from avsr.cli.main import main
from avsr.errors import AvsrError
from avsr.families.own.checkpoint import load_checkpoint, save_checkpoint
from avsr.files import (
    LOCK_NAME,
    append_line,
    file_error,
    naming,
    only_writer,
    take_lock,
    temporary_folder,
    write_bytes,
    write_text,
)
from tests import fake_recognizer
from tests.corpus import make_corpus
from tests.evaluations import FUNCTIONS
from tests.fake_sources import FILES, FakeHub, toy, write_catalogue
from tests.full_disk import files_up_to, hidden, until_it_fits
from tests.test_doctor import tone
from tests.tiny import tiny_network, tiny_tokenizer
from tests.trainings import write_config

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "avsr/assets/demo.mp4"
ALL_FORMATS = "txt,srt,vtt,tsv,json,ctm"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def content(folder: Path) -> dict[str, bytes]:
    """All files by their path, but for locks and records."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class TestTranscripts:
    @pytest.fixture(autouse=True)
    def stand_in(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(avsr, "load", fake_recognizer.load)
        monkeypatch.setenv("AVSR_MODEL", "stand-in")

    def transcribe(self, *more: str, name: str = "talk.mp4") -> int:
        return main(["transcribe", name, "--output-dir", str(Path("out").absolute()), *more])

    def test_every_format(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Path("talk.mp4").write_text("good morning to all of you")
        until_it_fits(functools.partial(self.transcribe, "-f", ALL_FORMATS), tmp_path / "out", capsys)
        found = content(tmp_path / "out")
        assert self.transcribe("-f", ALL_FORMATS, "--overwrite") == 0
        assert content(tmp_path / "out") == found and len(found) == 6

    def test_a_file_and_its_record_are_there_together(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("talk.mp4").write_text("good morning")
        # The text is small and the record is longer, so that only the record does not fit.
        with files_up_to(40):
            assert self.transcribe() == 1
        error = capsys.readouterr().err
        assert "talk.txt: cannot be written: got " in error and ".avsr-sources.jsonl: File too large; raise" in error
        assert not Path("out/talk.txt").exists()
        assert self.transcribe() == 0
        assert "wrote" in capsys.readouterr().err
        # The record is whole although half a line stands before it: another input of the same name is told apart.
        Path("other").mkdir()
        Path("other/talk.mp4").write_text("good evening")
        assert self.transcribe(name="other/talk.mp4") == 1
        assert "is there already, made from talk.mp4" in capsys.readouterr().err

    def test_a_file_that_cannot_be_replaced_keeps_its_record(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("talk.mp4").write_text("good morning")
        assert self.transcribe() == 0
        Path("other").mkdir()
        Path("other/talk.mp4").write_text("good evening, and a longer text than the record of one line is " * 20)
        with files_up_to(400):
            assert self.transcribe("--overwrite", name="other/talk.mp4") == 1
        assert Path("out/talk.txt").read_text() == "good morning\n"
        capsys.readouterr()
        assert self.transcribe(name="other/talk.mp4") == 1
        assert "is there already, made from talk.mp4" in capsys.readouterr().err
        assert self.transcribe() == 0
        assert "kept" in capsys.readouterr().err

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
    def test_other_errors_of_the_disk(
        self, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("talk.mp4").write_text("good morning")

        def refuse(source: object, target: object) -> None:
            raise OSError(number, os.strerror(number), str(source))

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", refuse)
            assert self.transcribe() == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "cannot be written" in line]
        assert f"out/talk.txt: cannot be written: got {os.strerror(number)}" in line and ".partial" not in line
        assert ("; free some space" in line) == (number in (errno.ENOSPC, errno.EDQUOT))
        assert hidden(Path("out")) == [] and self.transcribe() == 0

        Path("other").mkdir()
        Path("other/talk.mp4").write_text("good evening")
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", refuse)
            assert self.transcribe("--overwrite", name="other/talk.mp4") == 1
        assert self.transcribe(name="other/talk.mp4") == 1
        assert "is there already, made from talk.mp4" in capsys.readouterr().err


class TestModels:
    def test_a_checkpoint(self, tmp_path: Path) -> None:
        first, second = tiny_network(seed=1), tiny_network(seed=2)
        folder = save_checkpoint(tmp_path / "model", first, tiny_tokenizer(), card="# one\n")
        weights = (folder / "model.safetensors").read_bytes()
        for size in (0, 100, 2000, 20_000):
            with files_up_to(size), pytest.raises(OSError, match="File too large") as caught:
                save_checkpoint(folder, second, tiny_tokenizer(), card="# two\n")
            assert str(file_error(caught.value)).startswith(f"{folder}: File too large; raise the limit")
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        assert (folder / "model.safetensors").read_bytes() == weights
        load_checkpoint(save_checkpoint(folder, second, tiny_tokenizer(), card="# two\n"))
        assert (folder / "model.safetensors").read_bytes() != weights

    def test_an_old_checkpoint_stays_if_the_new_one_cannot_take_its_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = save_checkpoint(tmp_path / "model", tiny_network(seed=1), tiny_tokenizer(), card="# one\n")
        replace, steps = os.replace, []

        def second_fails(source: Path, target: Path) -> None:
            steps.append(source)
            if len(steps) == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", second_fails)
            with pytest.raises(OSError, match="No space left") as caught:
                save_checkpoint(folder, tiny_network(seed=2), tiny_tokenizer(), card="# two\n")
        assert caught.value.filename == str(folder)
        assert (folder / "README.md").read_text() == "# one\n"
        assert [path.name for path in tmp_path.iterdir()] == ["model"]

    def test_a_pull(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("AVSR_MODELS", str(tmp_path / "models"))
        FakeHub(monkeypatch)
        listed = write_catalogue(tmp_path / "list.yaml", toy=toy(hub={"id": "some/toy"}))
        for size in (0, 10, 100, 3000):
            with files_up_to(size), pytest.raises(AvsrError, match="make room, and run the same command again"):
                avsr.models.pull("toy", catalogue=listed)
            assert avsr.models.show("toy", catalogue=listed).state == "available"
        assert avsr.models.pull("toy", catalogue=listed).state == "installed"
        assert {
            path.name: path.read_bytes() for path in (tmp_path / "models/toy").iterdir() if path.name in FILES
        } == FILES


class TestTraining:
    def test_it_goes_on_when_there_is_room(
        self, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = write_config(manifest, tmp_path)
        sizes = (0, 100, 1500, 5000, 50_000, 150_000, 400_000, 1_000_000, 10_000_000)

        def train(output: Path) -> int:
            return main(["train", str(config), "--output-dir", str(output), "optimizer.epochs=2"])

        until_it_fits(functools.partial(train, tmp_path / "run"), tmp_path / "run", capsys, sizes)
        assert train(tmp_path / "whole") == 0
        one, other = (load_file(tmp_path / name / "model/model.safetensors") for name in ("run", "whole"))
        assert all((one[name] == other[name]).all() for name in one)
        rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows] == [1, 2]

    def test_the_state_of_a_run_is_read_as_a_file_of_a_stranger(
        self, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config, run = write_config(manifest, tmp_path), tmp_path / "run"
        assert main(["train", str(config), "--output-dir", str(run), "optimizer.epochs=1"]) == 0
        last = run / "checkpoints/last.ckpt"
        whole = last.read_bytes()
        state = torch.load(last, weights_only=True)
        other = {name: torch.zeros(3) for name in state["state_dict"]}
        hostile: list[Callable[[], object]] = [
            lambda: torch.save({**state, "callbacks": Hostile(tmp_path / "ran")}, last),
            lambda: last.write_bytes(pickle.dumps(Hostile(tmp_path / "ran"))),
            lambda: last.write_bytes(whole[:-1000]),
            lambda: last.write_bytes(b""),
            lambda: torch.save([1, 2], last),
            lambda: torch.save({}, last),
            lambda: torch.save({**state, "state_dict": other}, last),
            lambda: torch.save({**state, "optimizer_states": [{}]}, last),
            lambda: torch.save({**state, "loops": 3}, last),
        ]
        for write in hostile:
            write()
            capsys.readouterr()
            assert main(["train", str(config), "--output-dir", str(run), "optimizer.epochs=1"]) == 1
            (line,) = [line for line in capsys.readouterr().err.splitlines() if "cannot go on" in line]
            assert line.startswith(f"avsr: {last}: the run cannot go on from this file: got ")
            assert line.endswith("expected the state of this run; delete it to begin the run again")
        assert not (tmp_path / "ran").exists()
        last.write_bytes(whole)
        assert main(["train", str(config), "--output-dir", str(run), "optimizer.epochs=1"]) == 0


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


class TestCorpora:
    def test_prepare(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("a", "b"):
            tone(tmp_path / f"speech/{name}.wav")
            (tmp_path / f"speech/{name}.txt").write_text("one two")

        def prepare(out: Path) -> int:
            return main(["prepare", "speech", str(tmp_path / "speech"), "--output-dir", str(out), "--workers", "1"])

        sizes = (0, 300, 10_000, 1_000_000)  # each attempt starts a process
        until_it_fits(functools.partial(prepare, tmp_path / "out"), tmp_path / "out", capsys, sizes)
        assert prepare(tmp_path / "whole") == 0
        assert content(tmp_path / "out") == content(tmp_path / "whole")

    def test_noise(self, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out, mixtures = tmp_path / "plan.jsonl", tmp_path / "mixtures"

        def plan() -> int:
            words = ["--split", "train", "--noise-kinds", "white", "--snr", "0", "--seed", "1", "--output", str(out)]
            return main(["noise", "plan", str(manifest), *words])

        def render(folder: Path = mixtures) -> int:
            return main(["noise", "render", str(out), "--output-dir", str(folder)])

        until_it_fits(plan, tmp_path, capsys, (0, 300, 1_000_000))
        until_it_fits(render, mixtures, capsys, (0, 10_000, 1_000_000))
        assert render(tmp_path / "whole") == 0
        found, expected = content(mixtures), content(tmp_path / "whole")
        assert found == expected

    def test_evaluate(self, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        def evaluate(out: Path) -> int:
            words = ["--split", "train", "--model", f"function:{FUNCTIONS}:loudest", "--output-dir", str(out)]
            more = ["--modalities", "a", "--noise-kinds", "white", "--snr", "0", "--seed", "1", "--workers", "1"]
            return main(["evaluate", str(manifest), *words, *more])

        until_it_fits(functools.partial(evaluate, tmp_path / "out"), tmp_path / "out", capsys)
        assert evaluate(tmp_path / "whole") == 0
        one, other = (
            list(csv.DictReader((tmp_path / name / "results.csv").read_text().splitlines()))
            for name in ("out", "whole")
        )
        assert [{**row, "latency_ms": ""} for row in one] == [{**row, "latency_ms": ""} for row in other]

    def test_small_files(self, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words, sheet = tmp_path / "words.txt", tmp_path / "sheet.png"
        until_it_fits(lambda: main(["vocabulary", str(manifest), "-o", str(words)]), tmp_path, capsys)
        until_it_fits(lambda: main(["doctor", str(DEMO), "--sheet", str(sheet)]), tmp_path, capsys, (0, 3000, 10**7))


class TestTwoWriters:
    HOLD = (
        "import sys, pathlib; from avsr.files import only_writer\n"
        "with only_writer(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )

    def held(self, folder: Path) -> subprocess.Popen[str]:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-c", self.HOLD, str(folder)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    def test_the_second_one_is_told(
        self, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config, out = write_config(manifest, tmp_path), tmp_path / "out"
        plan = tmp_path / "plan.jsonl"
        assert (
            main(
                [
                    "noise",
                    "plan",
                    str(manifest),
                    "--split",
                    "dev",
                    "--noise-kinds",
                    "white",
                    "--snr",
                    "0",
                    "-o",
                    str(plan),
                ]
            )
            == 0
        )
        tone(tmp_path / "speech/a.wav")
        (tmp_path / "speech/a.txt").write_text("one two")
        commands = [
            ["train", str(config), "--output-dir", str(out), "optimizer.epochs=1"],
            ["noise", "render", str(plan), "--output-dir", str(out)],
            ["prepare", "speech", str(tmp_path / "speech"), "--output-dir", str(out)],
        ]
        process = self.held(out)
        for command in commands:
            capsys.readouterr()
            assert main(command) == 1
            line = capsys.readouterr().err.splitlines()[-1]
            remedy = "wait for it, or give another folder"
            assert line == f"avsr: {out}: another process is writing to this folder; {remedy}"
        assert [path.name for path in out.iterdir() if path.name not in (LOCK_NAME, "records")] == []
        # Another GPU of the run that holds the lock.
        with monkeypatch.context() as patch:
            patch.setattr("lightning.pytorch.utilities.rank_zero_only.rank", 1)
            assert main(commands[0]) == 0
        process.kill()  # as by a full memory: nothing is left that blocks the next run
        process.communicate()
        with only_writer(out):
            pass
        assert main(commands[2]) == 0

    def test_a_file_system_without_locks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_locks(*_: object) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr("fcntl.lockf", no_locks)
        monkeypatch.setattr("fcntl.flock", no_locks)
        with (tmp_path / "units").open("w") as file:
            assert take_lock(file.fileno())
        with only_writer(tmp_path):
            write_text(tmp_path / "file", "text")
        assert (tmp_path / "file").read_text() == "text"

    def test_a_link_in_place_of_the_lock_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / LOCK_NAME).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError) as caught, only_writer(tmp_path):
            pass
        assert caught.value.filename == str(tmp_path) and not (tmp_path / "elsewhere").exists()


class TestFiles:
    def test_a_cut_line_is_not_joined_to_the_next(self, tmp_path: Path) -> None:
        path = tmp_path / "lines"
        append_line(path, "one")
        with files_up_to(6), pytest.raises(OSError, match="File too large") as caught:
            append_line(path, "two and more")
        assert caught.value.filename == str(path)
        append_line(path, "three")
        append_line(path, "four")
        assert path.read_text().splitlines()[0] == "one" and path.read_text().endswith("\nthree\nfour\n")

    def test_a_name_that_is_too_long(self, tmp_path: Path) -> None:
        with pytest.raises(OSError) as caught:
            write_bytes(tmp_path / ("x" * 300), b"")
        assert str(file_error(caught.value)).endswith("File name too long; give a shorter name")

    def test_numbers_of_the_system_in_other_errors(self, tmp_path: Path) -> None:
        with pytest.raises(OSError) as caught, naming(tmp_path):
            raise RuntimeError("I/O error: no room (os error 28)")
        remedy = "free some space, then run the same command again"
        assert str(file_error(caught.value)) == f"{tmp_path}: No space left on device; {remedy}"
        with pytest.raises(ValueError, match="another"), naming(tmp_path):
            raise ValueError("another")
        with pytest.raises(OSError) as caught, naming(tmp_path):
            raise FileNotFoundError(errno.ENOENT, "No such file", "/other")
        assert caught.value.filename == "/other"

    def test_no_room_for_temporary_files(self) -> None:
        with pytest.raises(
            AvsrError, match="no room for temporary files in .*File too large; free some space, or set T"
        ):
            with temporary_folder() as folder, files_up_to(10):
                (folder / "sound.wav").write_bytes(bytes(100))

    def test_a_real_small_disk(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
        if mounted.returncode:
            pytest.skip("no disk can be mounted here")
        try:
            with pytest.raises(OSError) as caught:
                save_checkpoint(disk / "model", tiny_network(seed=1), tiny_tokenizer(), card="# one\n")
            remedy = "free some space, then run the same command again"
            assert str(file_error(caught.value)) == f"{disk / 'model'}: No space left on device; {remedy}"
            assert list(disk.iterdir()) == []
            (disk / "full").write_bytes(bytes(60_000))
            assert main(["doctor", str(DEMO), "--sheet", str(disk / "sheet.png")]) == 1
            assert f"{disk / 'sheet.png'}: cannot be written: got No space left on device; free some" in (
                capsys.readouterr().err
            )
            assert [path.name for path in disk.iterdir()] == ["full"]
        finally:
            subprocess.run(["umount", str(disk)], check=True)
