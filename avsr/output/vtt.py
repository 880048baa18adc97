"""WebVTT subtitles."""

from __future__ import annotations

from html import escape

from avsr.output.subtitles import clock, cues
from avsr.transcript import Transcript


def to_vtt(transcript: Transcript) -> str:
    """A header and cues with a blank line between them. `&`, `<` and `>` are escaped, and so is `-->` with them."""
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript):
        text = escape("\n".join(cue.lines), quote=False)
        blocks.append(f"{clock(cue.start_ms, '.')} --> {clock(cue.end_ms, '.')}\n{text}\n")
    return "\n".join(blocks)
