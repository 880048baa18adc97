"""The errors a caller can expect.

    AvsrError
    ├── MediaError    a media file cannot be read, or lacks a stream that was asked for
    ├── ModelError    a checkpoint cannot be loaded, or lacks an ability that was asked for
    ├── ConfigError   a configuration file or value is wrong
    └── DataError     a corpus, manifest or prepared data set is wrong

Each error prints as one line: the fault, the value that was got, the values that were expected, and a remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_PART = 1000
"""Letters of a part of an error."""
MAX_WHAT = 6000
"""Letters of its first part, which may name a path of 4096 bytes."""


class AvsrError(Exception):
    """Base of every error that this package raises on purpose.

    `str()` gives one line, `what: got X, expected Y; remedy`, without the parts that are None.
    """

    def __init__(self, what: str, *, got: object = None, expected: object = None, remedy: str | None = None) -> None:
        if isinstance(got, OSError) and got.strerror:
            got = got.strerror  # str(got) would add a number, and the file that `what` names already
        self.what = _short(what, MAX_WHAT)
        self.got = None if got is None else _short(str(got))
        self.expected = None if expected is None else _short(str(expected))
        self.remedy = remedy
        super().__init__(self.what)

    def __str__(self) -> str:
        details = []
        if self.got is not None:
            details.append(f"got {self.got}")
        if self.expected is not None:
            details.append(f"expected {self.expected}")
        line = self.what
        if details:
            line += ": " + ", ".join(details)
        if self.remedy:
            line += f"; {self.remedy}"
        return " ".join(line.split())

    def __reduce__(self) -> tuple[object, ...]:  # errors are pickled when they come from another process
        return (_rebuild, (type(self), self.what, self.got, self.expected, self.remedy))


class MediaError(AvsrError):
    """A media file cannot be opened or decoded, or lacks a stream that was asked for."""


class ModelError(AvsrError):
    """A checkpoint cannot be loaded, or lacks an ability that was asked for."""


class ConfigError(AvsrError):
    """A configuration file, key or value is wrong."""


class DataError(AvsrError):
    """A corpus, manifest or prepared data set is wrong or incomplete."""


def _short(text: str, most: int = MAX_PART) -> str:
    """The text, or its beginning if it is absurdly long: it may come from a stranger's file."""
    return text if len(text) <= most else f"{text[:most]}..."


def _rebuild(kind: type[AvsrError], what: str, got: str | None, expected: str | None, remedy: str | None) -> AvsrError:
    return kind(what, got=got, expected=expected, remedy=remedy)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most similar to `name`; None if nothing is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
