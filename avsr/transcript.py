"""What a transcription is: words with times and confidences, grouped into segments.

All times are media seconds (float), on the clock of the source file.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from avsr.grid import Modality

if TYPE_CHECKING:
    from os import PathLike


@dataclasses.dataclass(frozen=True, kw_only=True)
class Word:
    """One recognised word.

    start, end: media seconds. confidence: in [0, 1]. modality: what was there to recognise it from.
    face: identity of the face whose lips were read, None where no lips were.
    """

    word: str
    start: float
    end: float
    confidence: float | None
    modality: Modality
    face: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """Consecutive words without a long pause: one subtitle."""

    words: tuple[Word, ...]

    @property
    def start(self) -> float:
        return self.words[0].start

    @property
    def end(self) -> float:
        return self.words[-1].end

    @property
    def text(self) -> str:
        return " ".join(word.word for word in self.words)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoSummary:
    """What the picture offered: frames per second, faces followed, share of 40 ms slots with readable lips."""

    fps: float
    faces: int
    coverage: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transcript:
    """The result of transcribing one file.

    source: the file as it was named. duration: media seconds. model: name of the checkpoint. modality: what was used
    ("av" as soon as lips were read anywhere). video: None when no picture was looked at. warnings: one line each.
    """

    source: str
    duration: float
    model: str
    modality: Modality
    segments: tuple[Segment, ...]
    video: VideoSummary | None = None
    warnings: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for segment in self.segments for word in segment.words)

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments)

    def to(self, format_name: str) -> str:
        """This transcript as the text of one output file: txt, srt, vtt, tsv, json or ctm.

        Raises ConfigError for an unknown format.
        """
        from avsr.output import render

        return render(self, format_name)

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write to `path` in the format its suffix names; whole or not at all.

        Raises ConfigError for an unknown suffix, AvsrError when the file is there and `overwrite` is False, or when it
        cannot be written.
        """
        from avsr.output import write

        write(self, path, overwrite=overwrite)
