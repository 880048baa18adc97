"""The speed of two checkouts side by side, in one run: they take turns, so what slows the machine slows both.

    python tools/compare_speed.py OLD NEW --manifest PREPARED/manifest.jsonl
    python tools/compare_speed.py OLD NEW --parts

OLD and NEW are folders with a package `avsr`. Nothing else should run meanwhile. Whole processes:

    avsr --help
    import avsr
    transcribe, cold             `avsr transcribe` of the demo clip
    evaluate                     `avsr evaluate` of 8 clips, sound and both, clean and in white noise; with --manifest

In one process for each checkout, which has loaded the model:

    transcribe, warm             `Recognizer.transcribe` of the demo clip
    stream step                  mean time of a session's step on sound and lips; with --manifest

Each line has the median and the minimum of both in ms, and NEW divided by OLD, of the medians and of the minima. Every
measurement is done once before it counts. `--parts` says where the time of a cold transcription goes, measured by
transcription_parts.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import checkouts
import transcription_parts
from compare_versions import feed, load_clips, read_clips, save_clips

MODEL = "grid-tiny"
CHUNK_MS = 320
STREAM_CLIPS = 2
EVALUATION = "--split dev --clips 8 --modalities a,av --snr clean,0 --noises white --video intact --seed 1 --no-media"


class Measurement(NamedTuple):
    """Something to measure. measure: takes the number of a checkout, returns milliseconds."""

    name: str
    measure: Callable[[int], float]


class Process:
    """A process in a checkout that has loaded the model. It gets a command on a line and answers with milliseconds."""

    def __init__(self, folder: Path, threads: int, clip: Path, clips: Path | None) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            checkouts.script(__file__, folder, "--clip", clip, "--serve", clips or ""),
            cwd=folder,
            env=checkouts.environment(folder, threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def measure(self, command: str) -> float:
        """Milliseconds. Raises CheckoutError if the process has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(command, file=self._process.stdin, flush=True)
            return float(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise checkouts.CheckoutError(f"{self._folder}: the process for {command!r} ended; see above") from error


def serve(clip: Path, clips: Path | None) -> None:
    """Life of a `Process`: load the model, then measure each command until standard input ends."""
    import avsr

    recognizer: Any = avsr.load(MODEL, device="cpu")
    inputs = load_clips(clips) if clips is not None else []
    for line in sys.stdin:
        if line.strip() == "transcribe":
            start = time.perf_counter()
            recognizer.transcribe(clip)
            answer = 1000 * (time.perf_counter() - start)
        else:
            steps_ms: list[float] = []
            for each in inputs:
                on_chunk = _appender(steps_ms)
                feed(recognizer.stream(chunk_ms=CHUNK_MS, video=True, on_chunk=on_chunk), each, video=True)
            answer = statistics.mean(steps_ms)
        print(answer, flush=True)


def _appender(steps_ms: list[float]) -> Callable[[Any], None]:
    return lambda chunk: steps_ms.append(chunk.compute_ms)


class Programs:
    """Whole processes in the checkouts."""

    def __init__(self, folders: Sequence[Path], threads: int) -> None:
        self._folders, self._threads = folders, threads

    def run(self, number: int, words: Sequence[object]) -> tuple[float, str]:
        """Milliseconds of a Python process in a checkout, and its standard output. Raises CheckoutError if it fails."""
        folder = self._folders[number]
        command = [sys.executable, *map(str, words)]
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, env=checkouts.environment(folder, self._threads), capture_output=True, text=True
        )
        taken_ms = 1000 * (time.perf_counter() - start)
        if done.returncode:
            raise checkouts.CheckoutError(f"{folder}: {' '.join(command)} failed:\n{done.stderr.strip()}")
        return taken_ms, done.stdout

    def time(self, *words: object) -> Callable[[int], float]:
        """Measures the process of these words."""
        return lambda number: self.run(number, words)[0]

    def time_evaluation(self, manifest: Path) -> Callable[[int], float]:
        """Measures an evaluation that starts from nothing."""

        def measure(number: int) -> float:
            with tempfile.TemporaryDirectory() as output:
                words = ["-m", "avsr", "evaluate", manifest, *EVALUATION.split(), "--model", MODEL]
                return self.run(number, [*words, "--workers", 1, "--quiet", "--output", output])[0]

        return measure


def take_turns(measurement: Measurement, repeats: int) -> tuple[list[float], list[float]]:
    """The times of both checkouts, measured old, new, old, new, after one of each that does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(-1, repeats):
        for number in (0, 1):
            taken_ms = measurement.measure(number)
            if repeat >= 0:
                times[number].append(taken_ms)
    return times


def print_times(measurements: Sequence[Measurement], repeats: int) -> None:
    """Measure and print, line by line."""
    print(f"{'ms':20}{'old median':>12}{'new median':>12}{'ratio':>8}{'old min':>12}{'new min':>12}{'ratio':>8}")
    for measurement in measurements:
        old, new = take_turns(measurement, repeats)
        line = f"{measurement.name:20}"
        for figure in (statistics.median, min):
            line += f"{figure(old):12.1f}{figure(new):12.1f}{figure(new) / figure(old):8.3f}"
        print(line, flush=True)


def print_parts(programs: Programs, clip: Path, repeats: int) -> None:
    """The medians of where a cold transcription spends its time, in ms."""
    times: list[list[dict[str, float]]] = [[], []]
    for repeat in range(-1, repeats):
        for number in (0, 1):
            words = checkouts.script(transcription_parts.__file__, clip, "--model", MODEL)[1:]
            whole_ms, output = programs.run(number, words)
            if repeat >= 0:
                parts = {part: 1000 * s for part, s in json.loads(output.splitlines()[-1]).items()}
                parts[transcription_parts.START_AND_END] = whole_ms - sum(parts.values())
                times[number].append(parts | {"whole": whole_ms})
    print(f"{'ms, medians':20}{'old':>12}{'new':>12}{'ratio':>8}")
    for part in (transcription_parts.START_AND_END, *transcription_parts.PARTS, "whole"):
        old, new = (statistics.median(parts.get(part, 0.0) for parts in each) for each in times)
        print(f"{part:20}{old:12.1f}{new:12.1f}" + (f"{new / old:8.3f}" if old else ""))


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two checkouts, or be the process of one of them (--serve, started by this script itself)."""
    parser = argparse.ArgumentParser(description="Compare the speed of two checkouts in one run.")
    add = parser.add_argument
    add("checkouts", nargs="+", type=Path, metavar="OLD NEW", help="two folders with a package avsr")
    add("--manifest", type=Path, metavar="FILE", help="of a prepared data set with a split dev, to stream and evaluate")
    add("--clip", type=Path, metavar="FILE", help="to transcribe; default: the demo clip of OLD")
    add("--repeats", type=int, default=5, metavar="N", help="default %(default)s")
    add("--threads", type=int, default=1, metavar="N", help="OMP_NUM_THREADS; default %(default)s")
    add("--parts", action="store_true", help="where a cold transcription spends its time, and nothing else")
    add("--serve", metavar="CLIPS", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    try:
        if arguments.serve is not None:
            checkouts.require_package_of(arguments.checkouts[0])
            serve(arguments.clip, Path(arguments.serve) if arguments.serve else None)
            return 0
        if len(arguments.checkouts) != 2 or arguments.repeats < 1:
            parser.error("expected two checkouts and --repeats of 1 or more")
        _compare_checkouts(arguments)
    except checkouts.CheckoutError as error:
        print(f"compare_speed: {error}", file=sys.stderr)
        return 2
    return 0


def _compare_checkouts(arguments: argparse.Namespace) -> None:
    folders = [checkouts.checkout(path) for path in arguments.checkouts]
    clip = (arguments.clip or folders[0] / checkouts.DEMO_CLIP).resolve()
    programs = Programs(folders, arguments.threads)
    print(f"old {folders[0]}\nnew {folders[1]}\nOMP_NUM_THREADS={arguments.threads}, {arguments.repeats} repeats")
    transcribe = ("-m", "avsr", "transcribe", clip, "--model", MODEL)
    if arguments.parts:
        print_parts(programs, clip, arguments.repeats)
        return
    texts = [programs.run(number, transcribe)[1] for number in (0, 1)]
    if texts[0] != texts[1]:
        print(f"the texts differ: old {texts[0]!r}, new {texts[1]!r}")
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        clips = None
        if arguments.manifest is not None:
            clips = Path(temporary, "clips.npz")
            save_clips(clips, read_clips(arguments.manifest, "dev", STREAM_CLIPS))
        processes = [stack.enter_context(Process(folder, arguments.threads, clip, clips)) for folder in folders]
        measurements = [
            Measurement("transcribe, warm", lambda number: processes[number].measure("transcribe")),
            Measurement("avsr --help", programs.time("-m", "avsr", "--help")),
            Measurement("import avsr", programs.time("-c", "import avsr")),
            Measurement("transcribe, cold", programs.time(*transcribe)),
        ]
        if arguments.manifest is not None:
            step = Measurement("stream step", lambda number: processes[number].measure("stream"))
            evaluation = Measurement("evaluate", programs.time_evaluation(arguments.manifest.resolve()))
            measurements[1:1] = [step]
            measurements.append(evaluation)
        print_times(measurements, arguments.repeats)


if __name__ == "__main__":
    sys.exit(main())
