"""Subtitles, SubRip and WebVTT: segments cut into cues that fit on a screen and stay readable.

The limits follow what broadcasters publish: lines of 42 characters, at most two of them, and at least 5/6 s on the
screen (Netflix, Timed Text Style Guide: General Requirements); a text stays no longer than 1.5 s after the speech (BBC,
Subtitle Guidelines, section 5.2). Characters are counted in columns (`avsr.text.columns`): in Netflix's Korean guide,
too, a Latin letter, a space or a full stop counts as half a character.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from avsr.text import columns, is_spaced, may_break, one_line, unbreakable_parts

if TYPE_CHECKING:  # a transcript renders itself, so importing it here would close a circle
    from avsr.transcript import Transcript, Word


MAX_LINE_COLUMNS = 42
"""Broadcasters set about this limit: it is what a reader takes in with one sweep of the eyes."""

MAX_CUE_LINES = 2

MIN_CUE_MS = 833
"""A cue stays at least as long, if the next cue does not begin before."""

READ_COLUMNS_PER_S = 20
"""A cue stays long enough to be read at this speed, Netflix's limit for adults in English."""

MAX_REST_MS = 1500
"""A cue never stays longer than this after its last word."""


@dataclasses.dataclass(frozen=True)
class Cue:
    """Lines of text that are on the screen at one time."""

    start_ms: int
    """Media time."""
    end_ms: int
    """Media time; always after start_ms, and never after the start of the next cue."""
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
    """The transcript as cues of at most 2 lines of 42 columns, which never overlap.

    A segment begins a cue, and so does a word of another face; a longer text becomes several cues. Lines break between
    words. A word of more than 42 columns also breaks between characters that are wide or of a script without spaces;
    otherwise it makes a longer line.

    A cue begins with its first word. It ends with its last word, or later if it could not be read until then: after
    `MIN_CUE_MS` and at `READ_COLUMNS_PER_S`, but not after `MAX_REST_MS` or the start of the next cue. The last cue
    may therefore end after the file.
    """
    shown: list[list[list[_Piece]]] = []
    for segment in transcript.segments:
        for words in _turns(segment.words):
            lines = _balanced_lines(_pieces(words))
            shown += [lines[first : first + MAX_CUE_LINES] for first in range(0, len(lines), MAX_CUE_LINES)]
    starts_ms: list[int] = []
    for lines in shown:
        # Words of two faces may begin at one time; each cue needs a time of its own.
        earliest_ms = starts_ms[-1] + 1 if starts_ms else 0
        starts_ms.append(max(earliest_ms, round(lines[0][0].start_s * 1000)))
    return [
        Cue(start_ms, _end_ms(lines, start_ms, next_ms), tuple(map(_text, lines)))
        for lines, start_ms, next_ms in zip(shown, starts_ms, [*starts_ms, None][1:], strict=True)
    ]


def _end_ms(lines: Sequence[Sequence[_Piece]], start_ms: int, next_ms: int | None) -> int:
    """When a cue leaves the screen."""
    spoken_ms = max(start_ms + 1, round(max(piece.end_s for line in lines for piece in line) * 1000))
    read_ms = max(MIN_CUE_MS, sum(columns(_text(line)) for line in lines) * 1000 // READ_COLUMNS_PER_S)
    end_ms = max(spoken_ms, min(start_ms + read_ms, spoken_ms + MAX_REST_MS))
    return end_ms if next_ms is None else min(end_ms, next_ms)


def _clock(time_ms: int, decimal_mark: str) -> str:
    """`HH:MM:SS`, the mark, then milliseconds."""
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{decimal_mark}{milliseconds:03}"


def _turns(words: Sequence[Word]) -> Iterator[list[Word]]:
    """The words of one face after another. A word without a face belongs to the words before it."""
    turn: list[Word] = []
    face = None
    for word in words:
        if None not in (face, word.face) and word.face != face:
            yield turn
            turn = []
        turn.append(word)
        face = face if word.face is None else word.face
    yield turn


class _Piece(NamedTuple):
    """A text that stays on one line: a word, or a part of a very long one."""

    text: str
    start_s: float
    end_s: float
    spaced: bool
    """Whether a space comes before it, unless it begins a line."""


def _pieces(words: Sequence[Word]) -> list[_Piece]:
    pieces: list[_Piece] = []
    for word in words:
        text = one_line(word.word)  # a line break or blank line in a word would end the cue in both formats
        if not text:
            continue
        parts = [text] if columns(text) <= MAX_LINE_COLUMNS else unbreakable_parts(text)
        step_s = (word.end - word.start) / len(parts)
        for number, part in enumerate(parts):
            last = pieces[-1] if pieces else _Piece("", 0.0, 0.0, False)
            spaced = number == 0 and is_spaced(last.text, part)
            piece = _Piece(part, word.start + number * step_s, word.start + (number + 1) * step_s, spaced)
            if spaced or may_break(last.text, part) or columns(last.text + part) > MAX_LINE_COLUMNS or not last.text:
                pieces.append(piece)
            else:  # a Japanese full stop that came as a word of its own stays with the word before it
                pieces[-1] = last._replace(text=last.text + part, end_s=piece.end_s)
    return pieces


def _balanced_lines(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """The pieces in as few lines as the limit allows, the lines of about equal width.

    Full lines would often leave a single word for the last line, which then flashes by as a cue of its own.
    """
    best = _break_lines(pieces, MAX_LINE_COLUMNS)
    # The narrowest width that needs no more lines gives the most even ones.
    for width in range(MAX_LINE_COLUMNS - 1, 0, -1):
        narrower = _break_lines(pieces, width)
        if len(narrower) > len(best):
            break
        best = narrower
    return best


def _break_lines(pieces: Sequence[_Piece], width: int) -> list[list[_Piece]]:
    """The pieces in lines of at most `width` columns; a longer piece gets a line of its own."""
    lines: list[list[_Piece]] = []
    for piece in pieces:
        if lines and columns(_text([*lines[-1], piece])) <= width:
            lines[-1].append(piece)
        else:
            lines.append([piece])
    return lines


def _text(line: Sequence[_Piece]) -> str:
    first, *others = line
    return first.text + "".join(f" {piece.text}" if piece.spaced else piece.text for piece in others)
