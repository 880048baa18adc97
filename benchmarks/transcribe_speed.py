"""How long `transcribe` works on a file and how much memory it takes, beside the plain decoding of that file.

    python benchmarks/transcribe_speed.py talk.mp4 --seconds 60 --size 1280x720
    python benchmarks/transcribe_speed.py talk.mp4 --seconds 600

The input is repeated to the wanted length in a temporary file, so that any short clip will do. Times are wall-clock,
of the work after the model is loaded; the floor is the decoding of picture and sound alone, in the same process.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

import avsr
from avsr.media import iter_audio, iter_frames


def repeat(source: Path, target: Path, seconds: float, size: tuple[int, int] | None) -> None:
    """Write `source` over and over as H.264 at 25 frames a second and AAC, at most three seconds of it in memory."""
    sound = np.concatenate(list(iter_audio(source)))[:48_000]
    pictures = []
    for frame in iter_frames(source):
        if frame.time_s >= len(sound) / 16_000:
            break
        picture = av.VideoFrame.from_ndarray(frame.rgb, format="rgb24")
        width, height = size or (frame.rgb.shape[1] // 2 * 2, frame.rgb.shape[0] // 2 * 2)
        pictures.append(picture.reformat(width=width, height=height, format="yuv420p"))
    with av.open(str(target), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "23"})
        video.width, video.height, video.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
        audio = container.add_stream("aac", rate=16_000, layout="mono")
        written = 0
        for index in range(round(25 * seconds)):
            picture = pictures[index % len(pictures)]
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(video.encode(picture))
            while written < min(seconds, (index + 1) / 25) * 16_000:
                block = np.take(sound, range(written, written + 1024), mode="wrap")
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block[None]), format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16_000, written
                container.mux(audio.encode(frame))
                written += 1024
        container.mux(video.encode())
        container.mux(audio.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), help="WIDTHxHEIGHT")
    parser.add_argument("--model", default="grid-tiny")
    parser.add_argument("--modality", default="auto")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        repeat(arguments.input, clip, arguments.seconds, arguments.size)
        recognizer = avsr.load(arguments.model)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for run in range(arguments.runs):
            started, used = time.perf_counter(), time.process_time()
            for _ in iter_frames(clip):
                pass
            for _ in iter_audio(clip):
                pass
            floor_s = time.perf_counter() - started
            started, used = time.perf_counter(), time.process_time()
            transcript = recognizer.transcribe(clip, modality=arguments.modality)
            wall_s, cpu_s = time.perf_counter() - started, time.process_time() - used
            print(
                f"run {run + 1}: {arguments.seconds:.0f} s of media: real-time factor {wall_s / arguments.seconds:.3f} "
                f"({wall_s:.1f} s wall, {cpu_s:.1f} s CPU), decoding alone {floor_s / arguments.seconds:.3f}; "
                f"{len(transcript.words)} words, modality {transcript.modality}"
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"peak memory {peak / 1024:.0f} MiB ({before / 1024:.0f} MiB with the model loaded and nothing transcribed); "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads"
    )


if __name__ == "__main__":
    main()
