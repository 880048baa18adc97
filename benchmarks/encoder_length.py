"""Time and memory of the audio encoder by length of the recording, and of a plain Conformer for comparison.

    python benchmarks/encoder_length.py --seconds 5 30
    python benchmarks/encoder_length.py --rows work/encoder_length.jsonl --plot encoder_length.png

The second command takes half an hour, most of it for the hour of sound in full attention. Cases that are in the file
--rows are not measured again.

Random weights, float32, batch of one, weights packed as for recognition. Each case runs in a process of its own.
"tensors" is the peak memory of all tensors during a pass, "process" the growth of the process; both exclude the
weights. "rate" is the speed at which this machine multiplies packed matrices with as many rows as the pass has frames.
"floor" is the time that the matrix products alone would take at this rate, as a share of the measured time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from avsr.families.own.audio_encoder import AudioEncoder
from avsr.families.own.config import AudioEncoderConfig
from avsr.nn.conformer_shape import ConformerShape
from avsr.nn.context import AttentionContext
from avsr.nn.masks import Sight
from avsr.nn.packing import Linear, Packable, PackedWeight

N_MELS = 80
MAX_PLAIN_SECONDS = 120
ONE_RUN_SECONDS = 600


class Row(NamedTuple):
    """One case."""

    seconds: int
    """Duration of the sound."""

    kind: str
    """The encoder; see `build`."""

    taken_s: float

    tensors_mib: float
    """Peak memory of all tensors, without weights; NaN for a long case, which is run once."""

    process_mib: float
    """Growth of the process."""

    floor: float
    """Share of the time that the matrix products alone would take."""

    rate: float
    """Speed of the matrix products, FLOP/s."""


def build(kind: str, width: int, layers: int) -> AudioEncoder:
    """An encoder with random weights.

    kind: "fast" is a FastConformer with 8x subsampling and kernel 9. "fast-local" has attention over 128 frames to
    either side. "plain" is a Conformer with 4x subsampling by plain convolutions and kernel 31.
    """
    plain = kind == "plain"
    shape = ConformerShape(
        width=width, layers=layers, heads=8, kernel=31 if plain else 9, conv_norm="batch", dropout=0.0
    )
    context = AttentionContext(style="local", left=128, right=128) if kind == "fast-local" else AttentionContext()
    config = AudioEncoderConfig(
        conformer=shape,
        subsampling=4 if plain else 8,
        subsampling_channels=width if plain else 256,
        subsampling_kind="plain" if plain else "depthwise",
        attention=context,
    )
    return AudioEncoder(config, N_MELS).eval()


def product_flop(encoder: AudioEncoder, mel_frames: int, frames: int) -> float:
    """FLOP of all matrix products of one pass: linear layers, scores and sums of attention, subsampling."""
    subsampling, attention = encoder.subsampling, encoder.config.attention
    width, layers = encoder.config.conformer.width, encoder.config.conformer.layers
    total = 2.0 * subsampling.project.weight.numel() * frames
    time, bins = mel_frames, N_MELS
    for stage in subsampling.stages:
        time, bins = time // 2, (bins + 1) // 2
        convolutions = [conv for conv in stage.modules() if isinstance(conv, nn.Conv2d)]
        total += sum(2.0 * conv.weight.numel() * time * bins for conv in convolutions)
    sight = Sight(attention, frames)
    for block in encoder.conformer.blocks:
        for name, layer in block.named_modules():
            if isinstance(layer, Linear):
                rows = sight.newest - sight.oldest + 1 if name.endswith("to_position") else frames
                total += 2.0 * layer.weight.numel() * rows
    for piece in sight.blocks():
        queries = piece.queries.stop - piece.queries.start
        keys, rows = piece.keys.stop - piece.keys.start, piece.rows.stop - piece.rows.start
        total += 2.0 * layers * width * queries * (2 * keys + rows)
    return total


def resident_mib(field: str) -> float:
    """VmRSS or VmHWM of this process; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def most_held_mib(run: Callable[[], object]) -> float:
    """The peak memory that torch allocates during a call."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        run()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events = profile.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(itertools.accumulate(size for _, size in changes)) / 2**20


@torch.inference_mode()
def measure(kind: str, seconds: int, width: int, layers: int, threads: int, runs: int, queue: Queue[Row]) -> None:
    torch.set_num_threads(threads)
    encoder = build(kind, width, layers)
    mel, lengths = torch.randn(1, N_MELS, 100 * seconds), torch.tensor([100 * seconds])
    flop = product_flop(encoder, 100 * seconds, int(encoder.subsampling.output_lengths(lengths)))
    for module in encoder.modules():
        if isinstance(module, Packable):
            module.pack(torch.float32)
    encoder(mel[..., :100], torch.tensor([100]))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident_mib("VmRSS")
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        out, _, _ = encoder(mel, lengths)
        times.append(time.perf_counter() - started)
    peak = resident_mib("VmHWM")
    rows, weight = torch.randn(out.shape[1], width), PackedWeight(torch.randn(4 * width, width), None)
    weight(rows)
    started = time.perf_counter()
    for _ in range(20):
        weight(rows)
    rate = 20 * 2 * rows.numel() * 4 * width / (time.perf_counter() - started)
    held = most_held_mib(lambda: encoder(mel, lengths)) if seconds < ONE_RUN_SECONDS else math.nan
    taken = statistics.median(times)
    queue.put(Row(seconds, kind, taken, held, peak - before, flop / rate / taken, rate))


def draw(rows: list[Row], path: Path) -> None:
    """Plot time and memory against length, a line for each encoder."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    labels = {"plain": "Conformer, 4x", "fast": "FastConformer, full", "fast-local": "FastConformer, local"}
    for kind in dict.fromkeys(row.kind for row in rows):
        of_kind = [row for row in rows if row.kind == kind]
        for panel, values in zip(panels, ("taken_s", "process_mib"), strict=True):
            numbers = [getattr(row, values) for row in of_kind]
            panel.plot([row.seconds for row in of_kind], numbers, marker="o", label=labels[kind])
    for panel, title in zip(panels, ("time, s", "memory without the weights, MiB"), strict=True):
        panel.set(xscale="log", yscale="log", xlabel="seconds of sound", title=title)
        panel.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, nargs="+", default=[5, 30, 120, 600, 3600])
    parser.add_argument("--kinds", nargs="+", default=["plain", "fast", "fast-local"])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=17)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5, help=f"one from {ONE_RUN_SECONDS} s on")
    parser.add_argument("--rows", type=Path, help="JSON lines: cases in it are not measured again, others are added")
    parser.add_argument("--plot", type=Path, help="a picture to draw")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # else the profiler warns that there is no GPU
    print(
        f"width {arguments.width}, {arguments.layers} layers, {arguments.threads} threads, median of {arguments.runs}"
    )
    print("| seconds | encoder | time, s | of plain | tensors, MiB | of plain | process, MiB | floor | rate, GFLOP/s |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows: list[Row] = []
    if arguments.rows and arguments.rows.exists():
        rows = [Row(**json.loads(line)) for line in arguments.rows.read_text().splitlines()]
    for seconds in arguments.seconds:
        plain: Row | None = None
        for kind in arguments.kinds:
            if kind == "plain" and seconds > MAX_PLAIN_SECONDS:
                continue
            row = next((row for row in rows if (row.seconds, row.kind) == (seconds, kind)), None)
            if row is None:
                runs = arguments.runs if seconds < ONE_RUN_SECONDS else 1
                queue = context.Queue()
                case = (kind, seconds, arguments.width, arguments.layers, arguments.threads, runs, queue)
                process = context.Process(target=measure, args=case, daemon=True)
                process.start()
                row = queue.get()
                process.join()
                rows.append(row)
                if arguments.rows:
                    with arguments.rows.open("a") as file:
                        file.write(json.dumps(row._asdict()) + "\n")
            if kind == "plain":
                plain = row
            shares = ("", "")
            if plain is not None:
                shares = f"{row.taken_s / plain.taken_s:.2f}", f"{row.tensors_mib / plain.tensors_mib:.2f}"
            tensors = "" if math.isnan(row.tensors_mib) else f"{row.tensors_mib:.1f}"
            print(
                f"| {seconds} | {kind} | {row.taken_s:.3f} | {shares[0]} | {tensors} | {shares[1]} "
                f"| {row.process_mib:.0f} | {row.floor:.0%} | {row.rate / 1e9:.0f} |",
                flush=True,
            )
    if arguments.plot:
        draw(rows, arguments.plot)


if __name__ == "__main__":
    main()
