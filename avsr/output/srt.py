"""SubRip subtitles."""

from __future__ import annotations

from avsr.output.subtitles import clock, cues
from avsr.transcript import Transcript


def to_srt(transcript: Transcript) -> str:
    """Numbered cues with a blank line between them. `-->` would be read as a time line, so in text it becomes `->`."""
    blocks = []
    for number, cue in enumerate(cues(transcript), start=1):
        text = "\n".join(cue.lines).replace("-->", "->")
        blocks.append(f"{number}\n{clock(cue.start_ms, ',')} --> {clock(cue.end_ms, ',')}\n{text}\n")
    return "\n".join(blocks)
