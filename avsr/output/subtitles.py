"""Subtitles, SubRip and WebVTT: segments cut into cues that fit on a screen and stay readable."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a transcript renders itself, so importing it here would close a circle
    from avsr.transcript import Transcript, Word


MAX_LINE_CHARACTERS = 42
"""Broadcasters set about this limit: it is what a reader takes in with one sweep of the eyes."""

MAX_CUE_LINES = 2


@dataclasses.dataclass(frozen=True)
class Cue:
    """Lines of text that are on the screen at one time."""

    start_ms: int
    """Media time."""
    end_ms: int
    """Media time; always after start_ms."""
    lines: tuple[str, ...]


def to_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues with a blank line between them."""
    blocks = []
    for number, cue in enumerate(cues(transcript), start=1):
        # Players take a line with "-->" for the times of a cue, and SubRip has no way to escape it.
        text = "\n".join(cue.lines).replace("-->", "->")
        blocks.append(f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(transcript: Transcript) -> str:
    """WebVTT: a header, then cues with a blank line between them. `&`, `<` and `>` are escaped."""
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript):
        # Escaping ">" also keeps "-->" in the text from being read as times.
        text = escape("\n".join(cue.lines), quote=False)
        blocks.append(f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{text}\n")
    return "\n".join(blocks)


def cues(transcript: Transcript) -> list[Cue]:
    """The transcript as cues of at most 2 lines of 42 characters. A longer segment becomes several cues.

    Lines break only between words, so a word of more than 42 characters makes a longer line.
    """
    result = []
    for segment in transcript.segments:
        lines = _balanced_lines(segment.words)
        for first in range(0, len(lines), MAX_CUE_LINES):
            shown = lines[first : first + MAX_CUE_LINES]
            start_ms = round(shown[0][0].start * 1000)
            end_ms = round(shown[-1][-1].end * 1000)
            # Players skip a cue that ends when it starts.
            result.append(Cue(start_ms, max(end_ms, start_ms + 1), tuple(_text(line) for line in shown)))
    return result


def _clock(time_ms: int, decimal_mark: str) -> str:
    """`HH:MM:SS`, the mark, then milliseconds."""
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{decimal_mark}{milliseconds:03}"


def _balanced_lines(words: Sequence[Word]) -> list[list[Word]]:
    """The words in as few lines as the limit allows, the lines of about equal width.

    Full lines would often leave a single word for the last line, which then flashes by as a cue of its own.
    """
    best = _break_lines(words, MAX_LINE_CHARACTERS)
    # The narrowest width that needs no more lines gives the most even ones.
    for width in range(MAX_LINE_CHARACTERS - 1, 0, -1):
        narrower = _break_lines(words, width)
        if len(narrower) > len(best):
            break
        best = narrower
    return best


def _break_lines(words: Sequence[Word], width: int) -> list[list[Word]]:
    """The words in lines of at most `width` characters; a longer word gets a line of its own."""
    lines: list[list[Word]] = []
    for word in words:
        if lines and len(_text([*lines[-1], word])) <= width:
            lines[-1].append(word)
        else:
            lines.append([word])
    return lines


def _text(words: Sequence[Word]) -> str:
    # A blank line or line break ends a cue in both formats, so a word must not bring one along.
    return " ".join(" ".join(word.word for word in words).split())
