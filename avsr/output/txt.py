"""Plain text."""

from __future__ import annotations

from avsr.transcript import Transcript


def to_txt(transcript: Transcript) -> str:
    """The words, one line a segment."""
    return "".join(f"{segment.text}\n" for segment in transcript.segments)
