"""JSON, schema 1: everything a transcript holds."""

from __future__ import annotations

import json
from typing import Any

from avsr.transcript import Segment, Transcript, Word

SCHEMA = 1
"""Goes up when a reader of the older layout would misread the newer one; new keys alone do not raise it."""


def to_json(transcript: Transcript) -> str:
    """One JSON object over several lines, for a file. Times in seconds with 3 decimals."""
    return json.dumps(_document(transcript), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def to_json_line(transcript: Transcript) -> str:
    """The same object on one line, for a stream of them."""
    return json.dumps(_document(transcript), ensure_ascii=False, allow_nan=False) + "\n"


def _document(transcript: Transcript) -> dict[str, Any]:
    video = transcript.video
    return {
        "schema": SCHEMA,
        "source": transcript.source,
        "duration": round(transcript.duration, 3),
        "model": transcript.model,
        "modality": transcript.modality,
        "text": transcript.text,
        "segments": [_segment(segment) for segment in transcript.segments],
        "video": None
        if video is None
        else {"fps": round(video.fps, 3), "faces": video.faces, "coverage": round(video.coverage, 3)},
        "warnings": list(transcript.warnings),
    }


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "words": [word_document(word) for word in segment.words],
    }


def word_document(word: Word) -> dict[str, Any]:
    """One word as JSON, here and in the events of a stream."""
    return {
        "word": word.word,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": None if word.confidence is None else round(word.confidence, 3),
        "modality": word.modality,
        "face": word.face,
    }
