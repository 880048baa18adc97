"""What a reader of a corpus gives: its clips as they were published, before anything is decoded.

One more kind of corpus is one more `CorpusReader` and its line in `CORPORA` of `avsr/datasets/prepare.py`: everything
after it is shared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Protocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceClip:
    """One clip of a corpus as its reader found it.

    id: unique, a path without suffix. text: what is said. words: (word, start, end) in seconds. problem: why the clip
    cannot be used, as far as its reader can tell, None where it can.
    """

    id: str
    speaker: str
    split: str
    path: Path
    text: str
    words: tuple[tuple[str, float, float], ...] = ()
    problem: str | None = None


class CorpusReader(Protocol):
    """Reads the copy of a corpus in the folder `src`: all its clips, those of no use with their `problem`.

    held_out: speakers whose clips are all kept for tests. The same copy gives the same clips and splits each time.
    Raises DataError where `src` is not such a copy, or has no such speaker or splits already.
    """

    def __call__(self, src: Path, held_out: Collection[str] = ...) -> Iterable[SourceClip]: ...
