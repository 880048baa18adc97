"""Segments as subtitle cues: what SubRip and WebVTT share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from avsr.transcript import Transcript, Word

MAX_LINE_CHARACTERS = 42  # the usual limit of broadcasters: about what is read in one sweep of the eyes
MAX_CUE_LINES = 2


@dataclasses.dataclass(frozen=True)
class Cue:
    """What is on the screen at one time. start_ms, end_ms: media milliseconds, end_ms > start_ms."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def cues(transcript: Transcript) -> list[Cue]:
    """The transcript as cues of at most 2 lines of 42 characters; a longer segment becomes several cues.

    Lines break between words only, so a single longer word makes a longer line.
    """
    result = []
    for segment in transcript.segments:
        lines = _balanced_lines(segment.words)
        for first in range(0, len(lines), MAX_CUE_LINES):
            shown = lines[first : first + MAX_CUE_LINES]
            start_ms = round(shown[0][0].start * 1000)
            end_ms = round(shown[-1][-1].end * 1000)
            # Players drop a cue that lasts no time at all.
            result.append(Cue(start_ms, max(end_ms, start_ms + 1), tuple(_text(line) for line in shown)))
    return result


def clock(time_ms: int, decimal_mark: str) -> str:
    """`HH:MM:SS` and milliseconds after the mark."""
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{decimal_mark}{milliseconds:03}"


def _balanced_lines(words: Sequence[Word]) -> list[list[Word]]:
    """As few lines as the limit allows, of about equal width, so that no lone last word flashes by."""
    best = _lines(words, MAX_LINE_CHARACTERS)
    for width in range(MAX_LINE_CHARACTERS - 1, 0, -1):
        narrower = _lines(words, width)
        if len(narrower) > len(best):
            break
        best = narrower
    return best


def _lines(words: Sequence[Word], width: int) -> list[list[Word]]:
    lines: list[list[Word]] = []
    for word in words:
        if lines and len(_text([*lines[-1], word])) <= width:
            lines[-1].append(word)
        else:
            lines.append([word])
    return lines


def _text(words: Sequence[Word]) -> str:
    # Blank lines and line breaks end a cue in both formats, so none may come from inside a word.
    return " ".join(" ".join(word.word for word in words).split())
