"""The cost of a lip crop in both trunks of the visual encoder, offline and in chunks of a stream.

    python benchmarks/visual_encoder.py
    python benchmarks/visual_encoder.py --threads 2 --device cuda

Random weights, float32. "files" is the trunk on many slots at once, as for a recording. "stream" is the whole visual
encoder (trunk, pairs, 4 causal Conformer blocks of width 144) with its state, 80 ms a step. Cases take turns within
each run, and the median of the runs counts, so that other load on the machine affects all alike. "NCHW" is the trunk
with the other memory layout, for comparison. Times are the process's CPU time with one thread, else wall-clock.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import torch

from avsr.families.own.config import VisualEncoderConfig
from avsr.families.own.visual_encoder import TRUNK_SLOTS, VisualEncoder
from avsr.grid import LIP_INPUT_PX, SLOT_MS
from avsr.nn.conformer_shape import ConformerShape
from avsr.nn.context import AttentionContext

TRUNKS = ("light", "resnet18")


def build(trunk: str, device: torch.device) -> VisualEncoder:
    torch.manual_seed(0)
    shape = ConformerShape(width=144, layers=4, heads=4, kernel=9, conv_context="causal", dropout=0.0)
    attention = AttentionContext(style="chunked", left=16, right=0)
    config = VisualEncoderConfig(conformer=shape, trunk=trunk, attention=attention)  # type: ignore[arg-type]
    return VisualEncoder(config).eval().to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--slots", type=int, default=2 * TRUNK_SLOTS, help="in one pass of files")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"

    def milliseconds(work: Callable[[], object]) -> float:
        clock = time.perf_counter if on_gpu or arguments.threads > 1 else time.process_time
        started = clock()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        return 1000 * (clock() - started)

    encoders = {trunk: build(trunk, device) for trunk in TRUNKS}
    plain = {trunk: build(trunk, device) for trunk in TRUNKS}
    cases: dict[tuple[str, str], Callable[[], object]] = {}
    chunk = torch.rand(1, 2, 1, LIP_INPUT_PX, LIP_INPUT_PX, device=device)
    first = torch.rand(1, 4, 1, LIP_INPUT_PX, LIP_INPUT_PX, device=device)
    presence, one = torch.ones(1, 4, dtype=torch.bool, device=device), torch.tensor([1], device=device)
    steps = 16
    with torch.inference_mode():
        for trunk in TRUNKS:
            encoder = encoders[trunk]
            windows = torch.rand(arguments.slots, encoder.config.stem_slots, LIP_INPUT_PX, LIP_INPUT_PX, device=device)
            last = windows.contiguous(memory_format=torch.channels_last)
            plain[trunk].trunk.to(memory_format=torch.contiguous_format)

            def files(model: VisualEncoder, inputs: torch.Tensor) -> None:
                for piece in inputs.split(TRUNK_SLOTS):
                    model.trunk(piece)

            def stream(model: VisualEncoder) -> None:
                state = model.initial_state(1, device, torch.float32)
                _, _, state = model(first, presence, one, state)
                for _ in range(steps - 1):
                    _, _, state = model(chunk, presence[:, :2], one, state)

            cases[trunk, "files"] = functools.partial(files, encoder, last)
            cases[trunk, "files, NCHW"] = functools.partial(files, plain[trunk], windows)
            cases[trunk, "stream"] = functools.partial(stream, encoder)
        times: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
        for run in range(arguments.runs + 1):
            for case, work in cases.items():
                taken = milliseconds(work)
                if run:  # the first is for warming up
                    times[case].append(taken)
    kind = "wall-clock" if on_gpu or arguments.threads > 1 else "CPU"
    print(f"torch {torch.__version__}, {device}, {arguments.threads} threads, {kind} ms, median of {arguments.runs}")
    print("| trunk | M weights | MFLOP a slot | files: ms a slot | NCHW | x real time | stream: ms an 80 ms chunk |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for trunk, encoder in encoders.items():
        weights = sum(parameter.numel() for parameter in encoder.trunk.parameters()) / 1e6
        files_ms, plain_ms = (
            statistics.median(times[trunk, case]) / arguments.slots for case in ("files", "files, NCHW")
        )
        stream_ms = statistics.median(times[trunk, "stream"]) / steps
        rows.append((encoder.mflop_per_slot, files_ms, stream_ms))
        print(
            f"| {trunk} | {weights:.2f} | {rows[-1][0]:.1f} | {files_ms:.3f} | {plain_ms:.3f} | "
            f"{SLOT_MS / files_ms:.0f} | {stream_ms:.2f} |"
        )
    ratios = [large / small for small, large in zip(*rows, strict=True)]
    print(f"resnet18 / light: operations {ratios[0]:.1f}, files {ratios[1]:.1f}, stream {ratios[2]:.1f}")
    print(f"both look {encoders['light'].look_ahead_slots * SLOT_MS} ms ahead")


if __name__ == "__main__":
    main()
