"""Time and memory of the audio encoder against the length of the recording, beside a plain Conformer.

    python benchmarks/encoder_length.py --seconds 5 30 120
    python benchmarks/encoder_length.py --seconds 600 3600 --kinds fast-local

Random weights, float32, batch of one. Each case runs in a process of its own, so that its peak of memory is its own:
"memory" is the peak above what the process held before the pass, weights not counted. "floor" is the share of the
time that the pass's matrix products alone would take at the speed this machine multiplies matrices of that shape.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time

import torch
from torch import nn

from avsr.models.audio_encoder import AudioEncoder
from avsr.models.config import AudioEncoderConfig
from avsr.nn.conformer import ConformerShape
from avsr.nn.masks import AttentionContext

N_MELS = 80


def build(kind: str, width: int, layers: int) -> AudioEncoder:
    """ "fast": FastConformer, 8x, kernel 9. "fast-local": the same looking 128 frames either way. "plain": Conformer,
    4x by plain convolutions, kernel 31."""
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


def linear_flop(encoder: AudioEncoder, frames: int) -> float:
    """Of the linear layers of the blocks for so many encoder frames; attention scores and convolutions are left out."""
    weights = sum(m.weight.numel() for m in encoder.conformer.modules() if isinstance(m, nn.Linear))
    return 2.0 * weights * frames


def measure(kind: str, seconds: int, width: int, layers: int, threads: int, runs: int, queue) -> None:
    torch.set_num_threads(threads)
    encoder = build(kind, width, layers)
    mel, lengths = torch.randn(1, N_MELS, 100 * seconds), torch.tensor([100 * seconds])
    with torch.inference_mode():
        encoder(mel[..., :100], torch.tensor([100]))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        times = []
        for _ in range(runs):
            started = time.perf_counter()
            out, _, _ = encoder(mel, lengths)
            times.append(time.perf_counter() - started)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rows, weight = torch.randn(out.shape[1], width), torch.randn(4 * width, width)
        nn.functional.linear(rows, weight)
        started = time.perf_counter()
        for _ in range(20):
            nn.functional.linear(rows, weight)
        rate = 20 * 2 * rows.numel() * 4 * width / (time.perf_counter() - started)
    floor = linear_flop(encoder, out.shape[1]) / rate
    queue.put((statistics.median(times), (peak - before) / 1024, floor, rate / 1e9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, nargs="+", default=[5, 30, 120])
    parser.add_argument("--kinds", nargs="+", default=["plain", "fast", "fast-local"])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=17)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print(
        f"width {arguments.width}, {arguments.layers} layers, {arguments.threads} threads, median of {arguments.runs}"
    )
    print("| seconds | encoder | time, s | of plain | memory, MiB | of plain | floor | GFLOP/s of the floor |")
    print("|---|---|---|---|---|---|---|---|")
    for seconds in arguments.seconds:
        plain: tuple[float, float] | None = None
        for kind in arguments.kinds:
            queue = context.Queue()
            case = (kind, seconds, arguments.width, arguments.layers, arguments.threads, arguments.runs, queue)
            process = context.Process(target=measure, args=case)
            process.start()
            taken, memory, floor, rate = queue.get()
            process.join()
            if kind == "plain":
                plain = taken, memory
            shares = (f"{taken / plain[0]:.2f}", f"{memory / plain[1]:.2f}") if plain else ("", "")
            print(
                f"| {seconds} | {kind} | {taken:.3f} | {shares[0]} | {memory:.0f} | {shares[1]} | {floor / taken:.0%} "
                f"| {rate:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
