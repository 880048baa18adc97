"""Where a process starts and is forked: no user name, no home, no folder for temporary files, few descriptors."""

from __future__ import annotations

import io
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

import avsr
from avsr.cli.main import main
from avsr.errors import AvsrError, MediaError
from avsr.files import temporary_folder
from avsr.offline.source import open_source
from avsr.surroundings import USER_VARIABLES, name_user

ROOT = Path(avsr.__file__).parents[1]
DEMO = ROOT / "avsr" / "assets" / "demo.mp4"
WORDS = "place blue by r nine again\n"
NOTICE = (
    f"avsr: {DEMO}: warning: model grid-tiny knows only the 51 words of GRID:"
    " other speech gives no words, or wrong ones\n"
)
TRANSCRIBE = ("-m", "avsr", "transcribe", str(DEMO), "--model", "grid-tiny")
NOBODY = 54321
"""A user that has no entry in passwd."""


def nobody_prefix() -> list[str]:
    """The beginning of a command line that runs a program as NOBODY, who may still read all files; [] if impossible."""
    capability = "+dac_read_search"
    words = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    words += ["--inh-caps", capability, "--ambient-caps", capability]
    try:
        works = subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        works = False
    return words if works else []


def run(
    words: tuple[str, ...], folder: Path, *, prefix: list[str] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in a process with these variables and hardly any others."""
    known = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*(prefix or []), sys.executable, *words],
        env=known | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class TestUser:
    def test_a_user_without_a_name_and_home_gets_a_transcript_and_no_other_lines(self, tmp_path: Path) -> None:
        prefix, environment = nobody_prefix(), {}
        if not prefix:  # not root: the system is asked in the same way, and knows nobody
            refuse = "import pwd\ndef refuse(number):\n    raise KeyError('uid not found')\npwd.getpwuid = refuse\n"
            tmp_path.joinpath("sitecustomize.py").write_text(refuse)
            environment["PYTHONPATH"] = f"{tmp_path}:{ROOT}"
        done = run(TRANSCRIBE, Path("/"), prefix=prefix, **environment)
        assert (done.stdout, done.stderr, done.returncode) == (WORDS, NOTICE, 0)
        # What torch does when it compiles or trains.
        script = "import avsr.surroundings as here; here.start_computing(); import torch._dynamo; "
        script += "import getpass; print(getpass.getuser())"
        done = run(("-c", script), Path("/"), prefix=prefix, **environment)
        assert done.stdout == f"uid-{NOBODY if prefix else os.getuid()}\n", done.stderr

    def test_a_known_user_keeps_the_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(number: int) -> NoReturn:
            raise KeyError(number)

        for name in USER_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(pwd, "getpwuid", lambda number: "an entry")
        name_user()
        assert "LOGNAME" not in os.environ
        monkeypatch.setattr(pwd, "getpwuid", refuse)
        monkeypatch.setenv("USER", "ann")
        name_user()
        assert "LOGNAME" not in os.environ
        monkeypatch.delenv("USER")
        name_user()
        assert os.environ.pop("LOGNAME") == f"uid-{os.getuid()}"


@pytest.mark.slow
@pytest.mark.parametrize("home", ["/dev/null", "/proc/nowhere"])
def test_a_home_that_cannot_be_written_costs_nothing(tmp_path: Path, home: str) -> None:
    """In an ASCII locale, without assertions and docstrings, and with a TMPDIR that is not there."""
    surroundings = {"HOME": home, "LC_ALL": "C", "PYTHONOPTIMIZE": "2", "TMPDIR": str(tmp_path / "gone")}
    limited = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"]
    done = run(TRANSCRIBE, tmp_path, prefix=limited, **surroundings)
    assert (done.stdout, done.stderr, done.returncode) == (WORDS, NOTICE, 0)


def test_models_in_a_place_that_cannot_be_written_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AVSR_MODELS", "/proc/models")
    assert main(["models", "pull", "whisper-base", "--quiet"]) == 1
    assert capsys.readouterr().err == (
        "avsr: whisper-base cannot be written to /proc/models: got No such file or directory;"
        " set AVSR_MODELS to another folder\n"
    )


class TestFolders:
    def test_a_removed_folder_is_one_line(self, tmp_path: Path) -> None:
        for words in (TRANSCRIBE, ("-m", "avsr", "doctor", str(DEMO))):
            gone = tmp_path / "gone"
            gone.mkdir()
            leave = ["sh", "-c", f'rmdir "{gone}"; exec "$@"', "sh"]
            done = run(words, gone, prefix=leave)
            assert done.stderr == "avsr: the current folder was removed; change into another folder\n"
            assert (done.stdout, done.returncode) == ("", 1)

    def test_no_folder_for_temporary_files_is_one_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> NoReturn:
            raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

        monkeypatch.setattr(tempfile, "gettempdir", refuse)
        with pytest.raises(AvsrError, match=r"no folder for temporary files: got No usable .*; set TMPDIR"):
            with temporary_folder():
                pass
        with pytest.raises(AvsrError, match="set TMPDIR"), open_source(io.BytesIO(DEMO.read_bytes())):
            pass

    def test_no_room_for_a_copy_is_one_error(self) -> None:
        class Full(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                raise OSError(28, "No space left on device")

        with pytest.raises(MediaError, match="the open file cannot be copied: got No space left on device; set TMPDIR"):
            with open_source(Full()):
                pass

    def test_faces_are_found_without_a_temporary_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from avsr.lips.face_models import quiet_stderr

        def refuse(*_: object) -> NoReturn:
            raise FileNotFoundError(2, "No usable temporary directory found")

        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
        with quiet_stderr():
            ran = True
        assert ran


def test_messages_that_cannot_be_written_do_not_cost_the_results(tmp_path: Path) -> None:
    script = (
        "from avsr.cli.console import Console as C; C().note('a note'); C().result('the words\\n'); C().note('more')"
    )
    done = run(("-c", script), tmp_path, prefix=["sh", "-c", 'exec "$@" 2> /dev/full', "sh"])
    assert (done.stdout, done.stderr, done.returncode) == ("the words\n", "", 0)


FORKING = f"""
import io, multiprocessing, os, sys
import numpy as np
import avsr

def use(how):
    try:
        if how == "load":
            avsr.load("grid-tiny")
        elif how == "log_probs":
            model.log_probs([np.zeros(16000, np.float32)])
        elif how == "stream":
            model.stream()
        elif how == "push":
            session.push_audio(np.zeros(16000, np.float32))
        else:
            model.transcribe({str(DEMO)!r}, modality=how)
    except avsr.AvsrError as error:
        return f"{{how}}: {{error}}"

def in_child(how):
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        print(use(how), flush=True)
        os._exit(0)
    os.waitpid(child, 0)

model = avsr.load("grid-tiny")
session = model.stream()
in_child("load")
in_child("a")
print(model.transcribe({str(DEMO)!r}).text)
for how in ("a", "v", "av", "load", "log_probs", "stream", "push"):
    in_child(how)
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.apply(use, ["av"]))
print(model.transcribe({str(DEMO)!r}).text)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_forked_after_load_refuses_in_one_line(tmp_path: Path) -> None:
    done = run(("-c", FORKING), tmp_path, OMP_NUM_THREADS="2")
    refusal = (
        "this process was forked after its parent had used a model; fork before that, or start processes with"
        ' multiprocessing.get_context("spawn"), and load the model in each'
    )
    uses = ["load", "a", None, "a", "v", "av", "load", "log_probs", "stream", "push", "av", None]
    assert done.stdout.splitlines() == [WORDS.strip() if use is None else f"{use}: {refusal}" for use in uses]
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_forked_before_load_works(tmp_path: Path) -> None:
    script = f"import avsr, os\nif os.fork() == 0:\n    print(avsr.load('grid-tiny').transcribe({str(DEMO)!r}).text)\n"
    done = run(("-c", script + "else:\n    os.wait()\n"), tmp_path)
    assert (done.stdout, done.returncode) == (WORDS, 0), done.stderr
