"""Transcribes sound that is already in memory: samples, or the bytes of a file.

    python examples/transcribe_array.py [FILE]

Samples are a float32 array [S] in [-1, 1], mono, 16 kHz. Any library that gives such an array will do.
"""

import io
import sys
from pathlib import Path

import avsr
from avsr.media import read_audio

DEMO = Path(avsr.__file__).parent / "assets/demo.mp4"


def main(path: str = str(DEMO)) -> None:
    model = avsr.load("grid-tiny")
    samples = read_audio(path)  # mixes down to mono and resamples to 16 kHz
    print(f"{len(samples) / 16_000:.1f} s of samples:", model.transcribe(samples).text)

    # An open binary file works too, and brings its video: an upload, a part of an archive, or bytes as here.
    transcript = model.transcribe(io.BytesIO(Path(path).read_bytes()))
    print(f"bytes of a file, from {transcript.modality}:", transcript.text)


if __name__ == "__main__":
    main(*sys.argv[1:])
