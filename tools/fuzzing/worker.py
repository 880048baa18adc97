"""The child process: runs one command after the other and reports how each ended.

A line of JSON on standard input is one run: {"folder": ..., "words": [...]}. The answer on the descriptor ANSWERS_FD is
a line too: {"code": ..., "peak_mb": ...}. What the run writes to the standard outputs goes to the files `stdout` and
`stderr` beside the folder, also if a C library writes it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_FILE_BYTES = 1 << 30
MOST_ADDRESS_BYTES = 16 << 30
"""torch alone reserves 4 GB. The parent watches the memory that is really used."""


def work(answers_fd: int) -> None:
    """Run what standard input asks for until it ends."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_FILE_BYTES, MOST_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESS_BYTES, MOST_ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        asked = json.loads(line)
        folder = Path(asked["folder"])
        Path("/proc/self/clear_refs").write_text("5")  # the peak of the memory begins at the present value
        with _outputs(folder.parent), _inside(folder), _environment(asked["words"]) as words:
            code = run(words)
        gc.collect()
        answer = json.dumps({"code": code, "peak_mb": memory_mb("VmHWM", "self"), "mb": memory_mb("VmRSS", "self")})
        os.write(answers_fd, answer.encode() + b"\n")


def run(words: list[str]) -> int:
    """Run one command line and return its exit code. Two commands are ours: `front-end FILE` and `clients SCRIPT`."""
    from avsr.cli.main import main

    match words:
        case ["front-end", path]:
            return _front_end(path)
        case ["clients", path]:
            return _clients(path)
    return main(words)


def _front_end(path: str) -> int:
    """Read the visual front end of a `.pth` file, as a training does."""
    from avsr.cli.console import Console, explain, messages_on_stderr
    from avsr.families.own.auto_avsr_front_end import load_visual_trunk
    from avsr.families.own.visual_encoder import ResNetTrunk

    try:
        with messages_on_stderr():
            load_visual_trunk(ResNetTrunk(5), path)
    except Exception as error:
        Console().error(str(explain(error)))
        return 1
    return 0


def _clients(path: str) -> int:
    from avsr.cli.console import messages_on_stderr
    from fuzzing.frames import play, running_server

    with messages_on_stderr(), running_server() as port:
        wrong = play(Path(path).read_bytes(), port)
    if wrong:
        print(f"unexpected: {wrong}", file=sys.stderr)
    return int(bool(wrong))


def memory_mb(name: str, process: int | str) -> float:
    """A number of /proc/PROCESS/status in MB; 0 if the process has ended."""
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


@contextmanager
def _outputs(folder: Path) -> Iterator[None]:
    """Standard output and error go to files, for Python and for C."""
    kept = [os.dup(1), os.dup(2)]
    try:
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            target = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
            os.dup2(target, descriptor)
            os.close(target)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        ctypes.CDLL(None).fflush(None)
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    here = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


@contextmanager
def _environment(words: list[str]) -> Iterator[list[str]]:
    """The words of the command. Words such as AVSR_MODELS=x before it are set in the environment."""
    before = dict(os.environ)
    words = list(words)
    while words and words[0].startswith("AVSR_"):
        name, _, value = words.pop(0).partition("=")
        os.environ[name] = value
    try:
        yield words
    finally:
        os.environ.clear()
        os.environ.update(before)
