"""NIST CTM, the word list that scoring tools such as sclite read."""

from __future__ import annotations

from pathlib import Path

from avsr.transcript import Transcript


def to_ctm(transcript: Transcript) -> str:
    """One line a word: `file channel begin duration word confidence`, times in seconds.

    The file is named by its stem. Blanks separate the fields, so blanks inside a name or word become underscores.
    """
    name = _field(Path(transcript.source).stem)
    return "".join(
        f"{name} 1 {word.start:.3f} {word.end - word.start:.3f} {_field(word.word)} {word.confidence:.3f}\n"
        for word in transcript.words
    )


def _field(text: str) -> str:
    return "_".join(text.split())
