"""Where the time of one `avsr transcribe` goes: imports, loading, media, faces, network.

    PYTHONPATH=CHECKOUT python tools/transcription_parts.py FILE

Prints the text, then one line of JSON: the seconds of each part. A thread looks at the stacks of all others every 2 ms,
so the figures know nothing of how `avsr` is written but the names of its folders; see `part_of`.
Imports nothing but the standard library, so that all imports of `avsr` are seen.
"""

from __future__ import annotations

import argparse
import json
import re
import runpy
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SAMPLE_EVERY_S = 0.002

START_AND_END = "start and end"
PARTS = ("imports", "load the model", "decode media", "faces and lips", "network", "rest")
# Folders and files of the package, in the old and the new layout; the first that fits counts.
_PART_OF_FILE = (
    ("decode media", r"/media/"),
    ("network", r"/features/(mel|silence)\.py"),
    ("faces and lips", r"/(features|lips|speakers)/|/(models|offline)/windows\.py"),
    ("network", r"/(nn|models|decoding|sound|families|offline)/|/(engine|recognizer)\.py"),
)
_WAITING = re.compile(r"/(threading|queue|concurrent/futures/\w+)\.py$")


def part_of(stacks: Sequence[Sequence[tuple[str, str]]]) -> str:
    """What a process works on, one of PARTS.

    stacks: of each thread the (file, function) of its frames, innermost first; the main thread first. A thread that
    waits does not count: if the main thread waits for others, the first of them that works does.
    An import counts as "imports" wherever it happens, the rest of `avsr.load` as "load the model". For the rest, the
    innermost file of `avsr` decides.
    """
    for stack in stacks:
        if not stack or _WAITING.search(stack[0][0]):
            continue
        if any(file.startswith("<frozen importlib") for file, _ in stack):
            return "imports"
        if any(function == "load" and file.endswith("/avsr/__init__.py") for file, function in stack):
            return "load the model"
        own = (file for file, _ in stack if "/avsr/" in file)
        inner = next(own, "")
        part = next((part for part, pattern in _PART_OF_FILE if re.search(r"/avsr" + pattern, inner)), "rest")
        if part != "rest" or stack is stacks[0]:
            return part
    return "rest"


@contextmanager
def sampled() -> Iterator[dict[str, float]]:
    """Seconds of each part of what the body does, filled in while it runs. A sample stands for the time since the last.

    A library that holds the interpreter lock delays the sample, which then counts for longer.
    """
    seconds = dict.fromkeys(PARTS, 0.0)
    main_id, own_id = threading.get_ident(), 0
    ended = threading.Event()

    def sample() -> None:
        last = time.perf_counter()
        while not ended.wait(SAMPLE_EVERY_S):
            frames = sys._current_frames()
            order = [main_id, *(key for key in frames if key not in (main_id, own_id))]
            part = part_of([_stack(frames.get(key)) for key in order])
            now = time.perf_counter()
            seconds[part] += now - last
            last = now

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    own_id = sampler.ident or 0
    try:
        yield seconds
    finally:
        ended.set()
        sampler.join()


def _stack(frame: FrameType | None) -> list[tuple[str, str]]:
    stack = []
    while frame is not None:
        stack.append((frame.f_code.co_filename, frame.f_code.co_name))
        frame = frame.f_back
    return stack


def run_sampled(clip: Path, model: str) -> None:
    """Transcribe as `avsr transcribe` does, and print the seconds of each part as the last line, in JSON."""
    sys.argv = ["avsr", "transcribe", str(clip), "--model", model]
    with sampled() as seconds:
        try:
            runpy.run_module("avsr", run_name="__main__")
        except SystemExit as stop:
            if stop.code:
                raise
    print(json.dumps(seconds))


def main(argv: Sequence[str] | None = None) -> int:
    """Transcribe one file and print the seconds of each part."""
    parser = argparse.ArgumentParser(description="Where the time of one avsr transcribe goes.")
    parser.add_argument("file", type=Path, metavar="FILE", help="to transcribe")
    parser.add_argument("--model", default="grid-tiny", help="default %(default)s")
    arguments = parser.parse_args(argv)
    run_sampled(arguments.file, arguments.model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
