"""Error rates, word times, time and memory of a Whisper model here and in faster-whisper, with the same weights.

    python3 -m venv work/fw && work/fw/bin/pip install faster-whisper==1.2.1
    python benchmarks/beside_faster_whisper.py MODEL_FOLDER corpora/timit/timit.jsonl --beside work/fw/bin/python

The list has one JSON object a line: id, path (relative to the list), words, and word_times if known. Both sides
take turns file by file, so that other load slows both alike: 8 bit, beam of 5, temperature 0, the same number of
threads. Each runs in a process of its own that loads the model once; loading is not counted.

WER and CER are percent, after the named normaliser on both sides; CER leaves out spaces. "time" is the sum of our wall
times by the sum of theirs. "start" is the error of the beginnings of words in ms, median and 90th percentile, of the
words that both texts share. Memory is the peak of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jiwer
import numpy as np

from avsr.evaluation.normalizers import find_normalizer
from avsr.evaluation.statistics import count_errors, error_rate, word_error_rate

Normalize = Callable[[str], str]

OURS = """
import json, resource, sys, time
import avsr
model = avsr.load(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    started = time.perf_counter()
    result = model.transcribe(request["path"], modality="a", search=avsr.Search(language=request["language"]))
    print(json.dumps({
        "seconds": time.perf_counter() - started,
        "words": [[word.word, word.start] for word in result.words],
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }), flush=True)
"""

THEIRS = """
import json, os, resource, sys, time
from faster_whisper import WhisperModel
model = WhisperModel(sys.argv[1], device="cpu", compute_type="int8", cpu_threads=int(os.environ["OMP_NUM_THREADS"]))
for line in sys.stdin:
    request = json.loads(line)
    started = time.perf_counter()
    segments, _ = model.transcribe(
        request["path"], language=request["language"], beam_size=5, temperature=0, word_timestamps=True,
        vad_filter=request["vad"],
    )
    words = [[word.word.strip(), word.start] for segment in segments for word in segment.words]
    print(json.dumps({
        "seconds": time.perf_counter() - started,
        "words": words,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }), flush=True)
"""


class Side:
    """A recogniser in a process of its own, which takes one file at a time."""

    def __init__(self, python: str, program: str, model: str, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [python, "-c", program, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, **request: Any) -> dict[str, Any]:
        """The answer to one request."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a recogniser ended; its error is above")
        return dict(json.loads(line))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


class Row(NamedTuple):
    """The result of one file."""

    item: dict[str, Any]
    ours: dict[str, Any]
    theirs: dict[str, Any] | None


def main() -> None:
    """Run both sides over a list and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of the model")
    parser.add_argument("list", type=Path, help="JSON lines: id, path, words, word_times")
    parser.add_argument("--beside", metavar="PYTHON", help="a Python with faster-whisper; without it, our side alone")
    parser.add_argument("--language", default="en")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, help="the first N files only")
    parser.add_argument("--normalizer", default="english")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vad", action="store_true", help="faster-whisper with its filter of voice activity")
    parser.add_argument("-o", "--output", type=Path, help="write all texts and times here, as JSON")
    arguments = parser.parse_args()
    items = [json.loads(line) for line in arguments.list.read_text(encoding="utf-8").splitlines()]
    items = [item for item in items if item.get("split", "test") == arguments.split][: arguments.clips]
    rows = list(_run(arguments, items))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps([row._asdict() for row in rows], ensure_ascii=False, indent=1))
    _print(rows, arguments.normalizer)


def _run(arguments: argparse.Namespace, items: Sequence[dict[str, Any]]) -> Iterable[Row]:
    ours = Side(sys.executable, OURS, arguments.model, arguments.threads)
    theirs = None
    if arguments.beside:
        theirs = Side(arguments.beside, THEIRS, arguments.model, arguments.threads)
    for number, item in enumerate(items):
        request = {
            "path": str(arguments.list.parent / item["path"]),
            "language": arguments.language,
            "vad": arguments.vad,
        }
        # The first file is done twice: it loads libraries, which is not the model's work.
        for _ in range(2 if number == 0 else 1):
            row = Row(item, ours(**request), None if theirs is None else theirs(**request))
        yield row
        print(f"\r{number + 1}/{len(items)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for side in (ours, theirs):
        if side is not None:
            side.close()


def _print(rows: Sequence[Row], normalizer: str) -> None:
    normalize = find_normalizer(normalizer).apply
    print(f"{'':14}{'WER':>8}{'interval':>16}{'CER':>8}{'words':>8}{'start, ms':>14}{'MB':>8}{'time, s':>10}")
    for name in ("ours", "theirs"):
        answers = [getattr(row, name) for row in rows]
        if None in answers:
            continue
        known = [(row.item, answer) for row, answer in zip(rows, answers, strict=True) if row.item.get("words")]
        starts = [error for item, answer in known for error in _start_errors(item, answer, normalize)]
        times = f"{np.median(starts):.0f} {np.percentile(starts, 90):.0f}" if starts else "-"
        seconds, memory = sum(answer["seconds"] for answer in answers), max(a["memory_mb"] for a in answers)
        print(f"{name:14}{_rates(known, normalize)}{times:>14}{memory:8.0f}{seconds:10.1f}")
    if all(row.theirs is not None for row in rows):
        ours_s, theirs_s = (sum(getattr(row, name)["seconds"] for row in rows) for name in ("ours", "theirs"))
        print(f"time, ours by theirs: {ours_s / theirs_s:.2f}")


def _rates(known: Sequence[tuple[dict[str, Any], dict[str, Any]]], normalize: Normalize) -> str:
    """The columns of error rates, for the files whose words are known."""
    if not known:
        return f"{'-':>8}{'-':>16}{'-':>8}{0:8}"
    pairs = [
        (normalize(item["words"]), normalize(" ".join(word for word, _ in answer["words"]))) for item, answer in known
    ]
    rate = word_error_rate([reference for reference, _ in pairs], [hypothesis for _, hypothesis in pairs])
    counts = [count_errors(reference.replace(" ", ""), hypothesis.replace(" ", "")) for reference, hypothesis in pairs]
    cer = error_rate(sum(c.character_errors for c in counts), sum(c.characters for c in counts))
    return f"{rate.percent:8.1f}{f'[{rate.low:.1f}, {rate.high:.1f}]':>16}{cer:8.1f}{rate.words:8}"


def _start_errors(item: dict[str, Any], answer: dict[str, Any], normalize: Normalize) -> list[float]:
    """The distances in ms of the beginnings of words that both texts have at the same place."""
    known = [(normalize(word), start) for start, _, word in item.get("word_times") or ()]
    found = [(normalize(word), start) for word, start in answer["words"]]
    if not known or not found:
        return []
    # Words that become several or none after the normaliser stay one here, so that times keep their word.
    texts = [[word.replace(" ", "_") or "-" for word, _ in side] for side in (known, found)]
    alignment = jiwer.process_words(" ".join(texts[0]), " ".join(texts[1])).alignments[0]
    return [
        1000 * abs(found[chunk.hyp_start_idx + k][1] - known[chunk.ref_start_idx + k][1])
        for chunk in alignment
        if chunk.type == "equal"
        for k in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]


if __name__ == "__main__":
    main()
