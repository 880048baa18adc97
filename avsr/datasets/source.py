"""The contract of a corpus reader: it returns the published clips of a corpus, before any of them is decoded.

A new kind of corpus needs a `CorpusReader` and a line for it in `CORPORA` of `avsr/datasets/prepare.py`. All readers
share the rest of the preparation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Protocol

from avsr.account import Account
from avsr.datasets.manifest import WordTimes

UNLABELLED = "unlabelled"
"""The split of clips without a known text. They are prepared, and no test or training split has them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceClip:
    """One clip of a corpus, as its reader found it."""

    id: str
    """Unique; a path without suffix."""
    speaker: str
    """Name of the speaker."""
    split: str
    """Name of the split."""
    path: Path
    """The media file."""
    text: str
    """Transcript of the clip; empty if it is not known, in the split `UNLABELLED`."""
    words: WordTimes = ()
    """The words of the text with their times."""
    language: str | None = None
    """Code of the language, such as "ko"; None if the corpus does not say."""
    problem: str | None = None
    """Why the clip cannot be used, as far as the reader can tell; None if it can be used."""


class CorpusReader(Protocol):
    """Reads all clips of the copy of a corpus in the folder `src`; an unusable clip has a `problem`.

    held_out: speakers for tests; all of their clips get a test split.
    account: gets every file and folder of `src` that was found, used or left out, with a line about the latter.
    without: a folder below `src` that is not part of the corpus.

    The same copy always gives the same clips and splits. Raises DataError if `src` is not a copy of the corpus, if a
    held-out speaker is unknown, or if the corpus has its own splits and speakers are held out.
    """

    def __call__(
        self,
        src: Path,
        held_out: Collection[str] = ...,
        *,
        account: Account | None = ...,
        without: Path | None = ...,
    ) -> Iterable[SourceClip]: ...
