"""Tab-separated values: the columns, header and whole milliseconds that Whisper writes, so its users' scripts go on."""

from __future__ import annotations

from avsr.transcript import Transcript


def to_tsv(transcript: Transcript) -> str:
    """One line a segment: start and end in milliseconds, text."""
    lines = ["start\tend\ttext\n"]
    for segment in transcript.segments:
        text = " ".join(segment.text.split())  # a tab or line break in a word would make another column or row
        lines.append(f"{round(segment.start * 1000)}\t{round(segment.end * 1000)}\t{text}\n")
    return "".join(lines)
