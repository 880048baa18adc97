"""avsr bench: how fast words come live, and how fast files are worked on, on this machine."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsr.cli.arguments import add_quiet, device, positive_integer
from avsr.cli.console import Console, UsageError, describe
from avsr.errors import AvsrError, DataError

if TYPE_CHECKING:
    from avsr.bench.latency import Latency, LiveClip
    from avsr.bench.speed import StepTime
    from avsr.recognizer import Recognizer

SUMMARY = "figures of this machine: latency live, speed on files"
DESCRIPTION = (
    "latency [INPUT ...]   from the end of a word to the moment it is shown live, at each chunk size,\n"
    "                      and what computing takes; INPUT: files, or the manifest of a prepared corpus\n"
    "speed [FILE]          how long decoding, face finding, the network and all of it take, as a share\n"
    "                      of the file's length, which is repeated to --seconds\n"
    "\n"
    "Without INPUT the demo clip is taken. Nothing else should run meanwhile. Times are milliseconds."
)
EXAMPLE = "avsr bench latency work/grid/manifest.jsonl --split dev --clips 20 --plot latency.png"

LATENCY_ONLY = ("split", "clips", "chunk_ms", "look_ahead_ms", "max_video_lag_ms", "plot")
SPEED_ONLY = ("seconds", "size", "runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr bench`."""
    add = parser.add_argument
    add("action", metavar="latency|speed", choices=("latency", "speed"), help="what to measure")
    add("inputs", nargs="*", metavar="INPUT", help="files; for latency also manifests of prepared corpora")
    add("--model", default="grid-tiny", metavar="NAME|PATH", help="default %(default)s")
    add("--modality", choices=("auto", "av", "a"), default="auto", help="sound and lips, or sound; default auto")
    add("--device", type=device, default="auto", metavar="auto|cpu|cuda[:N]", help="where to compute; default auto")
    add("--threads", type=positive_integer, metavar="N", help="of the arithmetic; default: 1 for latency, else all")
    add("--json", action="store_true", help="one JSON object in place of the table")
    add("--split", metavar="NAME", help="latency: utterances of this split of a manifest; default dev")
    add("--clips", type=positive_integer, metavar="N", help="latency: only so many of them, evenly spread")
    add("--chunk-ms", type=_chunks, metavar="LIST", help="latency: as in 160,320; default: all that the model knows")
    add("--look-ahead-ms", type=positive_integer, metavar="MS", help="latency: how much later words are final")
    add("--max-video-lag-ms", type=positive_integer, metavar="MS", help="latency: sound waits so long for lips")
    add("--plot", type=Path, metavar="OUT.png", help="latency: histograms of word latencies; replaces OUT.png")
    add("--seconds", type=positive_integer, metavar="N", help="speed: length of the file; default 60")
    add("--size", type=_size, metavar="WxH", help="speed: of its pictures; default: as they are")
    add("--runs", type=positive_integer, metavar="N", help="speed: measure so often, the fastest counts; default 3")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    others = SPEED_ONLY if arguments.action == "latency" else LATENCY_ONLY
    for name in others:
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is not for avsr bench {arguments.action}")
    if arguments.action == "speed" and len(arguments.inputs) > 1:
        raise UsageError(f"one file at a time: got {len(arguments.inputs)}")
    if arguments.plot is not None:
        if arguments.plot.suffix.lower() != ".png":
            raise UsageError(f"--plot {arguments.plot}: expected the name of a PNG file, such as latency.png")
        if not arguments.plot.parent.is_dir():
            raise UsageError(f"--plot {arguments.plot}: no such folder; make it first")
        from avsr.evaluation.figures import check_matplotlib

        check_matplotlib()
    with Console(quiet=arguments.quiet) as console:
        import torch

        import avsr
        from avsr.families import ASSETS

        recognizer = avsr.load(arguments.model, device=arguments.device)
        inputs = arguments.inputs or [str(ASSETS / "demo.mp4")]
        threads_before = torch.get_num_threads()
        threads = arguments.threads or (1 if arguments.action == "latency" else None)
        try:
            if threads is not None:
                torch.set_num_threads(threads)
            measure = _latency if arguments.action == "latency" else _speed
            measure(arguments, recognizer, inputs, console)
        finally:
            torch.set_num_threads(threads_before)
    return 0


def _latency(arguments: argparse.Namespace, recognizer: Recognizer, inputs: Sequence[str], console: Console) -> None:
    from avsr.bench.latency import latency_figure, measure
    from avsr.grid import HOP_MS

    look_ahead_ms = arguments.look_ahead_ms or 0
    known = recognizer.card.chunks_ms
    sizes = arguments.chunk_ms or [size - look_ahead_ms for size in known if size > look_ahead_ms] or [HOP_MS]
    options = {} if arguments.max_video_lag_ms is None else {"max_video_lag_ms": float(arguments.max_video_lag_ms)}
    for size in sizes:  # before any clip is read: raises for what the model cannot do
        recognizer.stream(chunk_ms=size, look_ahead_ms=look_ahead_ms, video=False).close()
    lips = arguments.modality == "av" or (arguments.modality == "auto" and "av" in recognizer.card.modalities)
    clips = _clips(inputs, arguments.split or "dev", arguments.clips, lips=lips)
    # Once for what only the first session pays.
    measure(recognizer, clips[:1], chunk_ms=sizes[0], look_ahead_ms=look_ahead_ms, **options)
    results = []
    for number, size in enumerate(sizes):
        console.progress(number / len(sizes), f"{size} ms")
        results.append(measure(recognizer, clips, chunk_ms=size, look_ahead_ms=look_ahead_ms, **options))
    if arguments.plot is not None:
        from avsr.evaluation.figures import render

        _write(arguments.plot, render(latency_figure(results), "png"))
        console.note(f"wrote {arguments.plot}")
    if arguments.json:
        _print_json(console, recognizer, {"clips": len(clips), "latency": [result.document() for result in results]})
    else:
        console.result(_latency_table(results))


def _clips(inputs: Sequence[str], split: str, count: int | None, *, lips: bool) -> list[LiveClip]:
    from avsr.bench.latency import clip_of_file, clip_of_utterance
    from avsr.datasets.manifest import read_manifest

    clips: list[LiveClip] = []
    for name in inputs:
        if Path(name).suffix != ".jsonl":
            clips.append(clip_of_file(name, lips=lips))
            continue
        chosen = [u for u in read_manifest(name) if u.split == split and u.audio is not None]
        if not chosen:
            raise DataError(f"{name}: no utterance of split {split!r} with sound", remedy="name another with --split")
        if count is not None and count < len(chosen):
            chosen = [chosen[index * len(chosen) // count] for index in range(count)]
        clips += [clip_of_utterance(utterance, Path(name).parent, lips=lips) for utterance in chosen]
    return clips


def _latency_table(results: Sequence[Latency]) -> str:
    from avsr.bench.latency import percentiles

    def of(values: Sequence[float], *wanted: int) -> list[str]:
        return ["-" if (value := percentiles(values)[p]) is None else f"{value:.0f}" for p in wanted]

    heads = [
        ("chunk", ""), ("ahead", ""), ("algorithm", ""), ("compute", "p50"), ("", "p90"), ("", "p99"),
        ("word", "p50"), ("", "p90"), ("", "p99"), ("first", "p50"), ("final", "p50"), ("last word", "p50"),
        ("", "p90"), ("real-time", "factor"), ("with", "faces"), ("CPU", "%"), ("changed", "words %"),
    ]  # fmt: skip
    rows = [[head for head, _ in heads], [below for _, below in heads]]
    for result in results:
        rows.append(
            [
                str(result.chunk_ms),
                str(result.look_ahead_ms),
                f"{result.algorithm_ms:.0f}",
                *(f"{percentiles(result.compute_ms)[p]:.1f}" for p in (50, 90, 99)),
                *of(result.word_ms, 50, 90, 99),
                *of(result.first_partial_ms, 50),
                *of(result.final_ms, 50),
                *of(result.last_word_ms, 50, 90),
                f"{result.real_time_factor:.3f}",
                "-" if result.with_faces is None else f"{result.with_faces:.3f}",
                f"{100 * result.cpu_share:.1f}",
                f"{100 * result.changed / max(1, result.words):.1f}",
            ]
        )
    first = results[0]
    return _table(rows) + f"{first.modality}, {first.media_s:.1f} s of sound, {first.words} words\n"


def _speed(arguments: argparse.Namespace, recognizer: Recognizer, inputs: Sequence[str], console: Console) -> None:
    from avsr.bench.speed import peak_memory_mib, repeat, time_steps

    seconds = arguments.seconds or 60
    runs = arguments.runs or 3
    best: dict[str, StepTime] = {}
    before_mib = peak_memory_mib()
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        repeat(inputs[0], clip, seconds, arguments.size)
        for number in range(runs):
            console.progress(number / runs, f"run {number + 1} of {runs}")
            for step in time_steps(recognizer, clip, modality=arguments.modality):
                if step.name not in best or step.wall_s < best[step.name].wall_s:
                    best[step.name] = step
    peak_mib = peak_memory_mib()
    if arguments.json:
        steps = {
            step.name: {
                "real_time_factor": round(step.wall_s / seconds, 4),
                "cpu_share": round(step.cpu_s / seconds, 4),
            }
            for step in best.values()
        }
        memory = {"peak_mib": round(peak_mib), "before_mib": round(before_mib)}
        _print_json(console, recognizer, {"seconds": seconds, "runs": runs, "steps": steps, "memory": memory})
        return
    explained = {
        "decode": "picture and sound, decoded alone",
        "faces": "pictures to lip crops, decoding included",
        "network": "features, network, words",
        "whole": "a transcription: faces beside the network",
    }
    rows = [["step", "real-time factor", "CPU", ""]] + [
        [step.name, f"{step.wall_s / seconds:.3f}", f"{step.cpu_s / seconds:.3f}", explained[step.name]]
        for step in best.values()
    ]
    console.result(
        _table(rows)
        + f"{seconds} s of media, the fastest of {runs} runs; peak memory {peak_mib:.0f} MiB, {before_mib:.0f} before\n"
    )


def _print_json(console: Console, recognizer: Recognizer, figures: dict[str, Any]) -> None:
    import torch

    from avsr.evaluation.machine import cores, processor

    about = {
        "schema": 1,
        "model": recognizer.name,
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "device": recognizer.model.device,
    }
    console.result(json.dumps(about | figures, ensure_ascii=False, allow_nan=False) + "\n")


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if re.fullmatch(r"[\d.-]*|p\d+|[a-zA-Z %-]+", cell) and column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def _write(target: Path, data: bytes) -> None:
    try:
        target.write_bytes(data)
    except OSError as error:
        raise AvsrError(f"{target}: cannot be written", got=describe(error)) from error


def _chunks(text: str) -> list[int]:
    sizes = [word.strip() for word in text.split(",")]
    if not all(size.isascii() and size.isdigit() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected milliseconds, as in 160,320")
    return [int(size) for size in sizes]


def _size(text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    if sides is None or int(sides[1]) % 2 or int(sides[2]) % 2:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected even WIDTHxHEIGHT, as in 1280x720")
    return int(sides[1]), int(sides[2])
