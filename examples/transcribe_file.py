"""Transcribes a video or sound file and prints its segments with their times.

    python examples/transcribe_file.py [FILE] [MODEL]

FILE: any file that FFmpeg can read; the demo clip of the package if it is left out.
MODEL: as `avsr transcribe --model` takes it; grid-tiny, which knows the 51 words of GRID only, if it is left out.
"""

import sys
from pathlib import Path

import avsr

DEMO = Path(avsr.__file__).parent / "assets/demo.mp4"


def main(path: str = str(DEMO), model: str = "grid-tiny") -> None:
    transcript = avsr.load(model).transcribe(path)
    for warning in transcript.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for segment in transcript.segments:
        print(f"{segment.start:6.2f} - {segment.end:6.2f} s  {segment.text}")
        for word in segment.words:
            confidence = "unknown" if word.confidence is None else f"{word.confidence:.2f}"
            print(f"    {word.word:12} confidence {confidence}, from {word.modality}")


if __name__ == "__main__":
    main(*sys.argv[1:])
