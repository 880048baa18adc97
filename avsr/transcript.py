"""A transcript: words with times and confidences, grouped into segments.

All times are media seconds (float), on the clock of the source file.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from avsr.grid import Modality
from avsr.text import join_words

if TYPE_CHECKING:
    from os import PathLike

    from avsr.output import Layout

_FIRST_WORDS = 8
"""How many words the repr of a segment or transcript shows."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Word:
    """One recognised word with its time."""

    word: str
    start: float
    """Media seconds."""
    end: float
    """Media seconds."""
    confidence: float | None
    """In [0, 1]. None: the recogniser gives no confidences."""
    modality: Modality
    """What the word was recognised from. "av" means that both sound and lips were there."""
    face: int | None = None
    """Number of the face that spoke the word. None: its lips could not be read."""

    def __repr__(self) -> str:
        confidence = "" if self.confidence is None else f", confidence {self.confidence:.2f}"
        face = "" if self.face is None else f", face {self.face}"
        return f"Word({self.word!r} {self.start:.2f}-{self.end:.2f} s{confidence}{face})"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Segment:
    """Consecutive words without a long pause between them: about one sentence or one subtitle."""

    words: tuple[Word, ...]
    """At least one word."""

    @property
    def start(self) -> float:
        """Start of the first word, media seconds."""
        return self.words[0].start

    @property
    def end(self) -> float:
        """End of the last word, media seconds."""
        return self.words[-1].end

    @property
    def text(self) -> str:
        """The words as one text, with spaces where their scripts have them (`avsr.text.join_words`)."""
        return join_words(word.word for word in self.words)

    def __repr__(self) -> str:
        return f"Segment({self.start:.2f}-{self.end:.2f} s, {_describe(self.words)})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoSummary:
    """What the pictures of a file offered for lip reading."""

    fps: float
    """Pictures per second."""
    faces: int
    """How many faces were followed."""
    coverage: float
    """Share of the 40 ms slots with readable lips, in [0, 1]."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Transcript:
    """The result of transcribing one file."""

    source: str
    """Path of the file, as the caller gave it."""
    duration: float
    """Media seconds."""
    model: str
    """Name of the checkpoint."""
    modality: Modality
    """Sound, lips or both: "av" as soon as lips were read anywhere in the file."""
    segments: tuple[Segment, ...]
    """In order of time."""
    video: VideoSummary | None = None
    """None: no pictures were read."""
    language: str | None = None
    """Code such as "en": the language of most words. None: the recogniser does not say."""
    warnings: tuple[str, ...] = ()
    """One line each."""
    foreign_words: int = 0
    """Words of speech or noise that the model does not know. They are left out, unless they were asked for."""
    unsure_words: int = 0
    """Words that were left out because their confidence was too low."""

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments, in order of time."""
        return tuple(word for segment in self.segments for word in segment.words)

    @property
    def text(self) -> str:
        """The words of all segments as one text, with spaces where their scripts have them."""
        return join_words(segment.text for segment in self.segments)

    def to(
        self,
        format_name: str,
        *,
        max_line_width: int | None = None,
        max_line_count: int | None = None,
        highlight_words: bool | None = None,
    ) -> str:
        """The text of one output file in the format txt, srt, vtt, tsv, json or ctm.

        max_line_width, max_line_count: limits of subtitles in columns and lines; None for 42 and 2.
        highlight_words: True underlines each word of subtitles while it is spoken.

        Raises ConfigError for an unknown format, and for these options with a format other than srt and vtt.
        """
        from avsr.output import render

        return render(self, format_name, _layout(max_line_width, max_line_count, highlight_words))

    def save(
        self,
        path: str | PathLike[str],
        *,
        overwrite: bool = False,
        max_line_width: int | None = None,
        max_line_count: int | None = None,
        highlight_words: bool | None = None,
    ) -> None:
        """Write to `path` in the format of its suffix, whole or not at all.

        max_line_width, max_line_count, highlight_words: as in `to`.

        Raises ConfigError for an unknown suffix and as `to`. Raises AvsrError if the file exists and `overwrite` is
        False, or if it cannot be written.
        """
        from avsr.output import write

        layout = _layout(max_line_width, max_line_count, highlight_words)
        write(self, path, overwrite=overwrite, layout=layout)

    def __repr__(self) -> str:
        return f"Transcript({self.source!r} {self.duration:.2f} s, model {self.model!r}, {_describe(self.words)})"


def _layout(max_line_width: int | None, max_line_count: int | None, highlight_words: bool | None) -> Layout | None:
    """The layout of subtitles with the options that are given; None if none is."""
    given = {
        "max_line_width": max_line_width,
        "max_line_count": max_line_count,
        "highlight_words": highlight_words,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if not options:
        return None
    from avsr.output import Layout

    return Layout(**options)


def _describe(words: tuple[Word, ...]) -> str:
    """The number of words and the first of them."""
    if not words:
        return "0 words"
    text = join_words(word.word for word in words[:_FIRST_WORDS])
    if len(words) > _FIRST_WORDS:
        text += " ..."
    return f"{len(words)} word{'s' if len(words) > 1 else ''}: {text!r}"
