"""Subtitles, SubRip and WebVTT: segments cut into cues that fit on a screen and stay readable.

The limits follow what broadcasters publish: lines of 42 characters, at most two of them, and at least 5/6 s on the
screen (Netflix, Timed Text Style Guide: General Requirements). Characters are counted in columns
(`avsr.text.columns`): Netflix's Korean guide also counts a Latin letter, a space or a full stop as half a character.
"""

from __future__ import annotations

import dataclasses
import itertools
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from avsr.errors import ConfigError
from avsr.text import columns, is_spaced, may_break, one_line, unbreakable_parts

if TYPE_CHECKING:  # a transcript renders itself, so importing it here would close a circle
    from avsr.transcript import Transcript, Word


MAX_LINE_COLUMNS = 42
"""Broadcasters set about this limit: it is what a reader takes in with one sweep of the eyes."""

MAX_CUE_LINES = 2

MIN_CUE_MS = 833
"""A cue stays at least as long, if the next cue does not begin before."""

READ_COLUMNS_PER_S = 20
"""A cue stays long enough to be read at this speed, Netflix's limit for adults in English, if the next cue does not
begin before."""

MAX_DELAY_MS = 400
"""A cue begins at most this much after its first word, to leave the cue before it on the screen."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How subtitles look. The fields are named like the options of Whisper."""

    max_line_width: int = MAX_LINE_COLUMNS
    """Columns; a character of a full-width script has two. A word of narrow letters that is wider stays whole."""
    max_line_count: int = MAX_CUE_LINES
    """Lines of one cue."""
    highlight_words: bool = False
    """True: each word is underlined while it is spoken, which takes a cue for each word."""

    def __post_init__(self) -> None:
        for name in ("max_line_width", "max_line_count"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} cannot be so", got=repr(value), expected="a whole number from 1 on")


USUAL = Layout()


class Underlined(NamedTuple):
    """The letters of a cue that are underlined."""

    line: int
    start: int
    end: int
    """The letters are `lines[line][start:end]`."""


@dataclasses.dataclass(frozen=True)
class Cue:
    """Lines of text that are on the screen at one time."""

    start_ms: int
    """Media time."""
    end_ms: int
    """Media time; always after start_ms, and never after the start of the next cue."""
    lines: tuple[str, ...]
    underlined: Underlined | None = None

    def marked(self, escape_text: Callable[[str], str]) -> str:
        """The lines as one text, each part of it escaped by `escape_text`, with <u> around the underlined letters."""
        lines = list(map(escape_text, self.lines))
        if self.underlined is not None:
            number, start, end = self.underlined
            line = self.lines[number]
            before, inside, after = map(escape_text, (line[:start], line[start:end], line[end:]))
            lines[number] = f"{before}<u>{inside}</u>{after}"
        return "\n".join(lines)


def to_srt(transcript: Transcript, layout: Layout = USUAL) -> str:
    """SubRip: numbered cues with a blank line between them."""
    blocks = []
    for number, cue in enumerate(cues(transcript, layout), start=1):
        # Players take a line with "-->" for the times of a cue, and SubRip has no way to escape it.
        text = cue.marked(lambda part: part.replace("-->", "->"))
        blocks.append(f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(transcript: Transcript, layout: Layout = USUAL) -> str:
    """WebVTT: a header, then cues with a blank line between them. `&`, `<` and `>` are escaped."""
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript, layout):
        # Escaping ">" also keeps "-->" in the text from being read as times.
        text = cue.marked(lambda part: escape(part, quote=False))
        blocks.append(f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{text}\n")
    return "\n".join(blocks)


def cues(transcript: Transcript, layout: Layout = USUAL) -> list[Cue]:
    """The transcript as cues within the limits of the layout, which never overlap. Words keep their order.

    A segment begins a cue, and so does a word of another face; a longer text becomes several cues. If that would leave
    a cue on the screen for less than `MIN_CUE_MS`, the next segment goes on in it. Lines break between words. A word
    wider than a line also breaks between characters that are wide or of a script without spaces; otherwise it makes a
    longer line.

    A cue begins with its first word, or up to `MAX_DELAY_MS` later if the cue before it would flash by. It ends with
    its last word, or later if it could not be read until then: after `MIN_CUE_MS` and at `READ_COLUMNS_PER_S`, but not
    after the start of the next cue. The last cue may therefore end after the file.
    """
    shown = [cue.lines for cue in _shown(transcript, layout)]
    starts_ms: list[int] = []
    for lines in shown:
        start_ms = max(0, round(lines[0][0].start_s * 1000))
        if starts_ms:
            # Words of two faces may begin at one time; each cue needs a time of its own.
            start_ms = max(start_ms, min(starts_ms[-1] + MIN_CUE_MS, start_ms + MAX_DELAY_MS), starts_ms[-1] + 1)
        starts_ms.append(start_ms)
    result: list[Cue] = []
    for lines, start_ms, next_ms in zip(shown, starts_ms, [*starts_ms, None][1:], strict=True):
        cue = Cue(start_ms, _end_ms(lines, start_ms, next_ms), tuple(map(_text, lines)))
        result += _highlighted(cue, lines) if layout.highlight_words else [cue]
    return result


def _end_ms(lines: Sequence[Sequence[_Piece]], start_ms: int, next_ms: int | None) -> int:
    """When a cue leaves the screen."""
    spoken_ms = max(round(piece.end_s * 1000) for line in lines for piece in line)
    end_ms = max(spoken_ms, start_ms + _needed_ms(lines))
    return end_ms if next_ms is None else min(end_ms, next_ms)


def _needed_ms(lines: Sequence[Sequence[_Piece]]) -> int:
    """How long lines must stay to be read."""
    # A line break counts as the space that it stands for.
    num_columns = sum(columns(_text(line)) + 1 for line in lines) - 1
    return max(MIN_CUE_MS, -(-num_columns * 1000 // READ_COLUMNS_PER_S))


def _highlighted(cue: Cue, lines: Sequence[Sequence[_Piece]]) -> Iterator[Cue]:
    """The cue again for each of its words, with the word underlined from its start to its end.

    The whole text stays on the screen all the time, without an underline while no word is spoken.
    """
    places = [(piece, place) for number, line in enumerate(lines) for piece, place in _places(number, line)]
    starts_ms = [round(piece.start_s * 1000) for piece, _ in places] + [cue.end_ms]
    now_ms = cue.start_ms
    for index, (piece, place) in enumerate(places):
        # Each word has 1 ms at least: recognisers also give words of no length, and words at one time.
        latest_ms = cue.end_ms - len(places) + index
        start_ms = max(now_ms, min(starts_ms[index], latest_ms))
        next_ms = max(start_ms + 1, min(starts_ms[index + 1], latest_ms + 1))
        end_ms = min(max(start_ms + 1, round(piece.end_s * 1000)), next_ms, cue.end_ms)
        if end_ms <= start_ms:
            continue  # the cue has fewer milliseconds than words
        if start_ms > now_ms:
            yield dataclasses.replace(cue, start_ms=now_ms, end_ms=start_ms)
        yield dataclasses.replace(cue, start_ms=start_ms, end_ms=end_ms, underlined=place)
        now_ms = end_ms
    if now_ms < cue.end_ms:
        yield dataclasses.replace(cue, start_ms=now_ms)


def _places(number: int, line: Sequence[_Piece]) -> Iterator[tuple[_Piece, Underlined]]:
    """Each piece of a line, and where it stands."""
    for count, piece in enumerate(line, start=1):
        end = len(_text(line[:count]))
        yield piece, Underlined(number, end - len(piece.text), end)


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
        if not _is_one_face(face, word.face):
            yield turn
            turn = []
        turn.append(word)
        face = face if word.face is None else word.face
    yield turn


class _Shown(NamedTuple):
    """What one cue shows."""

    paragraphs: list[list[_Piece]]
    """The words of one face after another; each face begins a line."""
    lines: list[list[_Piece]]
    face: int | None
    """Of the last words; None if their lips were not read."""


def _shown(transcript: Transcript, layout: Layout) -> list[_Shown]:
    """What each cue shows: the words of a turn, or of several if one would flash by alone."""
    shown: list[_Shown] = []
    for segment in transcript.segments:
        for turn in _turns(segment.words):
            pieces, face = _pieces(turn, layout.max_line_width), _face(turn)
            if not pieces:
                continue
            longer = _longer(shown[-1], pieces, face, layout) if shown else None
            if longer is not None:
                shown[-1:] = longer
            else:
                shown += _laid_out([pieces], face, layout)
    return shown


def _laid_out(paragraphs: list[list[_Piece]], face: int | None, layout: Layout) -> list[_Shown]:
    """Paragraphs in one cue if they fit; otherwise in several."""
    lines = [line for pieces in paragraphs for line in _balanced_lines(pieces, layout.max_line_width)]
    count = layout.max_line_count
    if len(lines) <= count:
        return [_Shown(paragraphs, lines, face)]
    parts = [lines[first : first + count] for first in range(0, len(lines), count)]
    return [_Shown([list(itertools.chain(*part))], part, face) for part in parts]


def _longer(last: _Shown, pieces: list[_Piece], face: int | None, layout: Layout) -> list[_Shown] | None:
    """A cue with the next turn in it, if that leaves more time to read it; None if the turn begins another cue."""
    time_ms = (pieces[0].start_s - last.lines[0][0].start_s) * 1000
    if time_ms >= _needed_ms(last.lines):
        return None
    *others, before = last.paragraphs
    is_same_face = _is_one_face(last.face, face)
    if is_same_face:
        first = pieces[0]._replace(spaced=is_spaced(before[-1].text, pieces[0].text))
        paragraphs = [*others, [*before, first, *pieces[1:]]]
    else:
        paragraphs = [*last.paragraphs, pieces]
    longer = _laid_out(paragraphs, last.face if face is None else face, layout)
    # Only a cue that flashes by takes words from a turn that does not fit into it: a break between two sentences helps
    # more than a little time, and the words of two faces must not be mixed over several cues.
    flashes = time_ms < MIN_CUE_MS and len(paragraphs) == 1
    return longer if len(longer) == 1 or flashes else None


def _face(words: Sequence[Word]) -> int | None:
    return next((word.face for word in reversed(words) if word.face is not None), None)


def _is_one_face(before: int | None, after: int | None) -> bool:
    return None in (before, after) or before == after


def _clean(text: str) -> str:
    """A text without line breaks, which would end a cue, and without control characters, which WebVTT forbids."""
    return one_line("".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text))


class _Piece(NamedTuple):
    """A text that stays on one line: a word, or a part of a very long one."""

    text: str
    start_s: float
    end_s: float
    spaced: bool
    """Whether a space comes before it, unless it begins a line."""


def _pieces(words: Sequence[Word], width: int) -> list[_Piece]:
    pieces: list[_Piece] = []
    for word in words:
        text = _clean(word.word)
        if not text:
            continue
        parts = [text] if columns(text) <= width else unbreakable_parts(text)
        step_s = (word.end - word.start) / len(parts)
        for number, part in enumerate(parts):
            last = pieces[-1] if pieces else _Piece("", 0.0, 0.0, False)
            spaced = number == 0 and is_spaced(last.text, part)
            piece = _Piece(part, word.start + number * step_s, word.start + (number + 1) * step_s, spaced)
            if spaced or may_break(last.text, part) or columns(last.text + part) > width or not last.text:
                pieces.append(piece)
            else:  # a Japanese full stop that came as a word of its own stays with the word before it
                pieces[-1] = last._replace(text=last.text + part, end_s=piece.end_s)
    return pieces


def _balanced_lines(pieces: Sequence[_Piece], max_width: int) -> list[list[_Piece]]:
    """The pieces in as few lines as the limit allows, the lines of about equal width.

    Full lines would often leave a single word for the last line, which then flashes by as a cue of its own.
    """
    best = _break_lines(pieces, max_width)
    # The narrowest width that needs no more lines gives the most even ones.
    for width in range(min(max_width, max(columns(_text(line)) for line in best)) - 1, 0, -1):
        narrower = _break_lines(pieces, width)
        if len(narrower) > len(best):
            break
        best = narrower
    return best


def _break_lines(pieces: Sequence[_Piece], width: int) -> list[list[_Piece]]:
    """The pieces in lines of at most `width` columns; a longer piece gets a line of its own."""
    lines: list[list[_Piece]] = []
    room = 0
    for piece in pieces:
        needed = columns(piece.text) + piece.spaced
        if lines and needed <= room:
            lines[-1].append(piece)
            room -= needed
        else:
            lines.append([piece])
            room = width - columns(piece.text)
    return lines


def _text(line: Sequence[_Piece]) -> str:
    first, *others = line
    return first.text + "".join(f" {piece.text}" if piece.spaced else piece.text for piece in others)
