"""A transcript as plain text, a table, a NIST CTM word list, or JSON. Subtitles are in `subtitles`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsr.text import escape_controls

if TYPE_CHECKING:  # a transcript renders itself, so importing it here would close a circle
    from avsr.transcript import Segment, Transcript, Word


SCHEMA = 2
"""Version of the JSON layout. It rises when a reader of the old layout would misread the new one; a new key alone
does not raise it.

Schema 2 has `language`, and its texts have no spaces between words of Japanese, Chinese, Thai and other scripts that
are written without; schema 1 put a space between all words. All other keys are as in schema 1."""


def to_txt(transcript: Transcript) -> str:
    """Plain text: the words, one line a segment."""
    return "".join(f"{segment.text}\n" for segment in transcript.segments)


def to_tsv(transcript: Transcript) -> str:
    """Tab-separated values with a header: one line a segment, with start and end in milliseconds and the text.

    Whisper writes the same columns, header and whole milliseconds, so scripts that read its files read these too.
    """
    lines = ["start\tend\ttext\n"]
    for segment in transcript.segments:
        text = " ".join(segment.text.split())  # a tab or line break in a word would start another column or row
        lines.append(f"{round(segment.start * 1000)}\t{round(segment.end * 1000)}\t{text}\n")
    return "".join(lines)


def to_ctm(transcript: Transcript) -> str:
    """NIST CTM, as scoring tools such as sclite read it: one line a word, times in seconds.

    The fields are `file channel begin duration word confidence`. The file is the stem of the source's name. An unknown
    confidence is written as NA.
    """
    name = _ctm_field(Path(transcript.source).stem)
    lines = []
    for word in transcript.words:
        confidence = "NA" if word.confidence is None else f"{word.confidence:.3f}"
        duration = word.end - word.start
        lines.append(f"{name} 1 {word.start:.3f} {duration:.3f} {_ctm_field(word.word)} {confidence}\n")
    return "".join(lines)


def to_json(transcript: Transcript) -> str:
    """One indented JSON object with everything a transcript holds, for a file. Times in seconds with 3 decimals."""
    return escape_controls(json.dumps(_document(transcript), ensure_ascii=False, allow_nan=False, indent=2)) + "\n"


def to_json_line(transcript: Transcript) -> str:
    """The object of `to_json` on one line, for output that lists one transcript a line."""
    return escape_controls(json.dumps(_document(transcript), ensure_ascii=False, allow_nan=False)) + "\n"


def word_document(word: Word) -> dict[str, Any]:
    """One word as a JSON object, for transcripts and for the events of a stream.

    An unknown confidence is null, and so is the face of a word without lips.
    """
    return {
        "word": word.word,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": None if word.confidence is None else round(word.confidence, 3),
        "modality": word.modality,
        "face": word.face,
    }


def _document(transcript: Transcript) -> dict[str, Any]:
    video = transcript.video
    return {
        "schema": SCHEMA,
        "source": transcript.source,
        "duration": round(transcript.duration, 3),
        "model": transcript.model,
        "language": transcript.language,
        "modality": transcript.modality,
        "text": transcript.text,
        "segments": [_segment_document(segment) for segment in transcript.segments],
        "video": None
        if video is None
        else {"fps": round(video.fps, 3), "faces": video.faces, "coverage": round(video.coverage, 3)},
        "warnings": list(transcript.warnings),
        "foreign_words": transcript.foreign_words,
        "unsure_words": transcript.unsure_words,
    }


def _segment_document(segment: Segment) -> dict[str, Any]:
    return {
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "words": [word_document(word) for word in segment.words],
    }


def _ctm_field(text: str) -> str:
    # Blanks separate the fields, so a blank inside a name or a word becomes an underscore.
    # A word without letters would leave a field out.
    return "_".join(text.split()) or "_"
