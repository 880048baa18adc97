"""avsr bench: how fast words appear live, and how fast files are transcribed, on this machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsr.cli.arguments import (
    add_device,
    add_look_ahead,
    add_model,
    add_quiet,
    media_file,
    model_name,
    positive_integer,
)
from avsr.cli.command import Action
from avsr.cli.console import Console, UsageError
from avsr.errors import DataError
from avsr.files import not_written, write_bytes
from avsr.text import escape_controls

if TYPE_CHECKING:
    from avsr.bench.latency import Latency, LiveClip
    from avsr.bench.speed import StepTime
    from avsr.recognizer import Recognizer

DESCRIPTION = "Measure how fast this machine is. Nothing else should run at the same time."
EXAMPLE = "avsr bench latency work/grid/manifest.jsonl --split dev --clips 20 --plot latency.png"

LATENCY_DESCRIPTION = (
    "Measure the time from the end of a word to the moment at which it is shown live, and the time spent\n"
    "on computing, for each chunk size. Times are in milliseconds. Without INPUT the demo clip is used."
)
SPEED_DESCRIPTION = (
    "Measure how long decoding, face finding, the network and a whole transcription take, as a share of the\n"
    "file's length. FILE is repeated until it is --seconds long. Without FILE the demo clip is used."
)
SPEED_EXAMPLE = "avsr bench speed talk.mp4 --seconds 60 --size 1280x720"


def add_latency_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr bench latency`."""
    add = parser.add_argument
    add("inputs", nargs="*", metavar="INPUT", help="files, or manifests of prepared corpora")
    add("--beside", action="append", default=[], metavar="MODEL", help="another model for the same table; repeatable")
    _add_common(parser, threads="threads of the arithmetic; default 1, and all cores for Whisper")
    add("--split", default="dev", metavar="NAME", help="which utterances of a manifest; default %(default)s")
    add("--clips", type=positive_integer, metavar="N", help="only N of them, evenly spread")
    add("--chunk-ms", type=_chunks, metavar="LIST", help="chunk sizes, as in 160,320; default: all that the model has")
    add_look_ahead(parser)
    add("--max-video-lag-ms", type=positive_integer, metavar="MS", help="how long sound waits for late lips at most")
    add("--plot", type=Path, metavar="OUT.png", help="write histograms of word latencies; replaces OUT.png")


def add_speed_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr bench speed`."""
    add = parser.add_argument
    add("inputs", nargs="*", type=media_file, metavar="FILE", help="video or sound file")
    _add_common(parser, threads="threads of the arithmetic; default: all cores")
    add("--seconds", type=positive_integer, default=60, metavar="N", help="length of the file; default %(default)s")
    add("--size", type=_size, metavar="WxH", help="size of the pictures; default: the file's own")
    add(
        "--runs",
        type=positive_integer,
        default=3,
        metavar="N",
        help="measurements; the fastest counts; default %(default)s",
    )


def _add_common(parser: argparse.ArgumentParser, *, threads: str) -> None:
    add_model(parser)
    parser.add_argument(
        "--modality", choices=("auto", "av", "a"), default="auto", help="use sound and lips, or sound; default auto"
    )
    add_device(parser)
    parser.add_argument("--threads", type=positive_integer, metavar="N", help=threads)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    add_quiet(parser)


def latency(arguments: argparse.Namespace) -> int:
    """Measure the delay of words and print it."""
    if arguments.plot is not None:
        if arguments.plot.suffix.lower() != ".png":
            raise UsageError(f"--plot {arguments.plot}: expected the name of a PNG file, such as latency.png")
        if not arguments.plot.parent.is_dir():
            raise UsageError(f"--plot {arguments.plot}: no such folder; make it first")
        from avsr.evaluation.figures import check_matplotlib

        # A missing package fails now, and not after the measurement.
        check_matplotlib()
    results: list[Latency] = []
    with Console(quiet=arguments.quiet) as console:
        for name in [model_name(arguments, console.note), *arguments.beside]:
            # One thread, as in avsr stream: with a small model, more threads only wait for each other.
            with _opened(name, arguments, threads=arguments.threads or 1) as recognizer:
                measured = _latency(arguments, recognizer, console)
                results += measured
                if arguments.json:
                    documents = [result.document() for result in measured]
                    _print_json(console, recognizer, {"clips": len(_inputs(arguments)), "latency": documents})
        if arguments.plot is not None:
            from avsr.bench.latency import latency_figure
            from avsr.evaluation.figures import render

            _write(arguments.plot, render(latency_figure(results), "png"))
            console.note(f"wrote {arguments.plot}")
        if not arguments.json:
            console.result(_latency_table(results))
    return 0


def speed(arguments: argparse.Namespace) -> int:
    """Measure the speed on a file and print it."""
    if len(arguments.inputs) > 1:
        raise UsageError(f"one file at a time: got {len(arguments.inputs)}")
    with Console(quiet=arguments.quiet) as console:
        with _opened(model_name(arguments, console.note), arguments, threads=arguments.threads) as recognizer:
            _speed(arguments, recognizer, _inputs(arguments), console)
    return 0


def _inputs(arguments: argparse.Namespace) -> list[str]:
    from avsr.shipped import ASSETS

    return arguments.inputs or [str(ASSETS / "demo.mp4")]


@contextlib.contextmanager
def _opened(name: str, arguments: argparse.Namespace, *, threads: int | None) -> Iterator[Recognizer]:
    """The model, with this number of threads of torch inside the block; None keeps the number."""
    import avsr
    from avsr.processes import limit_threads

    if arguments.threads is not None:
        limit_threads(arguments.threads)  # before the model opens: other runtimes take their threads then
    import torch

    threads_before = torch.get_num_threads()
    recognizer = avsr.load(name, device=arguments.device)
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield recognizer
    finally:
        torch.set_num_threads(threads_before)  # for a Python program that runs several commands


def _latency(arguments: argparse.Namespace, recognizer: Recognizer, console: Console) -> list[Latency]:
    from avsr.bench.latency import measure
    from avsr.grid import HOP_MS

    look_ahead_ms = arguments.look_ahead_ms
    known = recognizer.card.chunks_ms
    # A model without chunks gets any size, so that opening its stream says that it cannot stream.
    sizes = arguments.chunk_ms or [size - look_ahead_ms for size in known if size > look_ahead_ms] or [HOP_MS]
    options = {} if arguments.max_video_lag_ms is None else {"max_video_lag_ms": float(arguments.max_video_lag_ms)}
    for size in sizes:  # a chunk size that the model does not have fails here, before any clip is read
        recognizer.stream(chunk_ms=size, look_ahead_ms=look_ahead_ms, video=False).close()
    lips = arguments.modality == "av" or (arguments.modality == "auto" and "av" in recognizer.card.modalities)
    clips = _clips(_inputs(arguments), arguments.split, arguments.clips, lips=lips)
    # One measurement that is thrown away: the first session is slower than all later ones.
    measure(recognizer, clips[:1], chunk_ms=sizes[0], look_ahead_ms=look_ahead_ms, **options)
    results = []
    for number, size in enumerate(sizes):
        console.progress(number / len(sizes), f"{recognizer.name}, {size} ms")
        results.append(measure(recognizer, clips, chunk_ms=size, look_ahead_ms=look_ahead_ms, **options))
    return results


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

    def cells(values: Sequence[float], *wanted: int) -> list[str]:
        return ["-" if (value := percentiles(values)[p]) is None else f"{value:.0f}" for p in wanted]

    heads = [
        ("chunk", ""), ("ahead", ""), ("algorithm", ""), ("compute", "p50"), ("", "p90"), ("", "p99"),
        ("word", "p50"), ("", "p90"), ("", "p99"),
        ("committed", "p50"), ("", "p90"), ("", "p99"), ("first", "p50"), ("final", "p50"), ("last word", "p50"),
        ("", "p90"), ("real-time", "factor"), ("with", "faces"), ("CPU", "%"), ("changed", "words %"),
        ("steps", "skipped"),
    ]  # fmt: skip
    rows = [[head for head, _ in heads], [below for _, below in heads]]
    for result in results:
        rows.append(
            [
                str(result.chunk_ms),
                str(result.look_ahead_ms),
                f"{result.algorithm_ms:.0f}",
                *(f"{percentiles(result.compute_ms)[p]:.1f}" for p in (50, 90, 99)),
                *cells(result.word_ms, 50, 90, 99),
                *cells(result.commit_ms, 50, 90, 99),
                *cells(result.first_partial_ms, 50),
                *cells(result.final_ms, 50),
                *cells(result.last_word_ms, 50, 90),
                f"{result.real_time_factor:.3f}",
                "-" if result.with_faces is None else f"{result.with_faces:.3f}",
                f"{100 * result.cpu_share:.1f}",
                f"{100 * result.changed / max(1, result.words):.1f}",
                str(result.steps_skipped),
            ]
        )
    models = list(dict.fromkeys(result.model for result in results))
    if len(models) > 1:
        rows = [[name, *row] for name, row in zip(["model", "", *(r.model for r in results)], rows, strict=True)]
    firsts = [next(result for result in results if result.model == name) for name in models]
    return _table(rows) + "".join(f"{_amount(result, len(models) > 1)}\n" for result in firsts)


def _amount(result: Latency, named: bool) -> str:
    model = f"{result.model}: " if named else ""
    return f"{model}{result.modality}, {result.media_s:.1f} s of sound, {result.words} words"


def _speed(arguments: argparse.Namespace, recognizer: Recognizer, inputs: Sequence[str], console: Console) -> None:
    from avsr.bench.speed import peak_memory_mib, repeat, time_steps

    seconds, runs = arguments.seconds, arguments.runs
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
        "decode": "decoding of pictures and sound alone",
        "faces": "pictures to lip crops, with decoding",
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
    console.result(escape_controls(json.dumps(about | figures, ensure_ascii=False, allow_nan=False)) + "\n")


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
        write_bytes(target, data)
    except OSError as error:
        raise not_written(target, error) from error


def _chunks(text: str) -> list[int]:
    sizes = [word.strip() for word in text.split(",")]
    if not all(size.isascii() and size.isdigit() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected milliseconds, as in 160,320")
    return [int(size) for size in sizes]


def _size(text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    # H.264 video in yuv420p has even sides.
    if sides is None or int(sides[1]) % 2 or int(sides[2]) % 2:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected even WIDTHxHEIGHT, as in 1280x720")
    return int(sides[1]), int(sides[2])


ACTIONS = {
    "latency": Action(
        "how long after its end a word is shown live", LATENCY_DESCRIPTION, EXAMPLE, add_latency_arguments, latency
    ),
    "speed": Action("how long each step takes on a file", SPEED_DESCRIPTION, SPEED_EXAMPLE, add_speed_arguments, speed),
}
