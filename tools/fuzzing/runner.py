"""The parent's side: starts children, gives them cases, watches time and memory, and judges their results."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fuzzing.cases import Case
from fuzzing.worker import memory_mb

MOST_MB = 2048.0
MOST_SECONDS = 60.0
MOST_GROWTH_MB = 500.0
"""A child that has grown by more is replaced, so that the memory of a run is its own."""
MOST_RUNS = 200
"""Runs of one child."""
POLL_S = 0.02
_FORBIDDEN = re.compile(r"Traceback|\bunexpected(?= \w+: got|:)")  # as avsr.cli.console.explain writes it
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NOT_A_NUMBER = re.compile(r"\bNaN\b|\bInfinity\b")


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    fault: str
    """In a few words; "" for a good end."""
    code: int | None
    """None if the child ended or was ended."""
    seconds: float
    peak_mb: float
    stderr: str


class Runner:
    """Runs cases in a child that is replaced when it ends, hangs or grows. A context manager.

    tool: `tools/fuzz.py`, which also starts the child.
    """

    def __init__(self, tool: Path, bases: Path, folder: Path, *, most_seconds: float = MOST_SECONDS) -> None:
        self._tool, self._bases, self._most_seconds = tool, bases, most_seconds
        # Names are short: the path of a socket may have 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="run-", dir=folder))
        self._child: subprocess.Popen[bytes] | None = None
        self._answers = -1
        self._runs, self._first_mb = 0, 0.0

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, case: Case) -> Outcome:
        """Run one case in an empty folder of its own."""
        place, temporary = self._folder / "w", self._folder / "t"
        for folder in (place, temporary):
            shutil.rmtree(folder, ignore_errors=True)
        temporary.mkdir()
        case.write(self._bases, place / "c")
        before = _listing(place / "c")
        self._start()
        outcome = self._watch({"folder": str(place / "c"), "words": case.words})
        if not outcome.fault:
            left = [str(path) for path in _listing(place / "c") - before if path.parts[0] != "out"]
            left += [f"TMPDIR/{path}" for path in _listing(temporary)]
            if left:
                outcome = Outcome(f"files left behind: {', '.join(sorted(left)[:3])}", *_rest(outcome))
        return outcome

    def _start(self) -> None:
        if self._child is not None and self._runs < MOST_RUNS:
            return
        self._stop()
        reading, writing = os.pipe()
        environment = os.environ | {"TMPDIR": str(self._folder / "t"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self._child = subprocess.Popen(
            [sys.executable, str(self._tool), "--child", str(writing)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(writing,),
            env=environment,
            start_new_session=True,  # so that its own children end with it
        )
        os.close(writing)
        self._answers, self._runs, self._first_mb = reading, 0, 0.0

    def _stop(self) -> None:
        if self._child is None:
            return
        try:
            os.killpg(self._child.pid, 9)
        except ProcessLookupError:
            pass
        self._child.communicate()
        os.close(self._answers)
        self._child = None

    def _watch(self, request: dict[str, object]) -> Outcome:
        assert self._child is not None and self._child.stdin is not None
        start_s, peak_mb = time.monotonic(), 0.0
        # The first run of a child also imports torch; a slow machine needs a while.
        most_seconds = self._most_seconds + (0 if self._runs else 30)
        self._runs += 1
        self._child.stdin.write(json.dumps(request).encode() + b"\n")
        self._child.stdin.flush()
        fault, code = "", None
        while not fault:
            ready, _, _ = select.select([self._answers], [], [], POLL_S)
            seconds = time.monotonic() - start_s
            if ready:
                line = os.read(self._answers, 1 << 16)
                if not line:
                    ended = self._child.wait()
                    fault = f"ended by signal {-ended}" if ended < 0 else f"ended the process with {ended}"
                    break
                answer = json.loads(line)
                code, peak_mb = answer["code"], max(peak_mb, answer["peak_mb"])
                self._first_mb = self._first_mb or answer["mb"]
                if answer["mb"] - self._first_mb > MOST_GROWTH_MB:
                    self._runs = MOST_RUNS
                break
            peak_mb = max(peak_mb, memory_mb("VmRSS", self._child.pid))
            if peak_mb > MOST_MB:
                fault = f"took more than {MOST_MB:.0f} MB"
            elif seconds > most_seconds:
                fault = f"took more than {most_seconds:.0f} s"
        if fault:
            self._stop()
        outputs = [_read(self._folder / "w" / name) for name in ("stdout", "stderr")]
        fault = fault or (f"took {peak_mb:.0f} MB" if peak_mb > MOST_MB else "") or judge(code, *outputs)
        return Outcome(fault, code, time.monotonic() - start_s, peak_mb, outputs[1])


def judge(code: int | None, stdout: str, stderr: str) -> str:
    """The fault in the result of a command, in a few words; "" for a good one."""
    if code not in (0, 1):
        return f"exit code {code}"
    found = _FORBIDDEN.search(stderr)
    if found:
        return f"stderr: {found[0]}"
    for line in stderr.splitlines():
        if line.strip() and not line.startswith("avsr: "):
            return "stderr: a line that is not ours"
    if code == 1 and not (stdout + stderr).strip():
        return "failed without a word"
    if _CONTROL.search(stdout):
        return "stdout: control characters"
    if _CONTROL.search(stderr):
        return "stderr: control characters"
    if _NOT_A_NUMBER.search(stdout):
        return "stdout: NaN"
    return ""


def _rest(outcome: Outcome) -> tuple[int | None, float, float, str]:
    return outcome.code, outcome.seconds, outcome.peak_mb, outcome.stderr


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _listing(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()}
