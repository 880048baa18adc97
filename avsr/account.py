"""The account of a source: what was found in it, what was used, and what became of the rest.

A source is a media file, a live stream, a folder or a corpus. Readers count in its account everything that they find,
use and leave out, and say in one line each what they chose or repaired. The account ends up in the warnings of a
transcript, in the report of `avsr doctor`, in the counters of a stream and in the rejected lines of a corpus.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, get_args

Kind = Literal["samples", "pictures", "sound packets", "picture packets", "tracks", "faces", "files", "folders"]
"""What is counted. Samples are counted once for all channels, at the rate of their track. Packets are only counted if
nothing could be decoded from them."""

LineSink = Callable[[str], None]
"""Called with one line."""


@dataclasses.dataclass
class Tally:
    """How many things of one kind a source holds."""

    found: int = 0
    used: int = 0
    lost: Counter[str] = dataclasses.field(default_factory=Counter)
    """By reason: how many were not used."""

    @property
    def missing(self) -> int:
        """Things that were found, and neither used nor lost for a stated reason: 0 when a reader has done its work."""
        return self.found - self.used - self.lost.total()


@dataclasses.dataclass
class _Note:
    """A line, and how often what it says happened."""

    line: str
    lost: Kind | None
    """What was left out; None if nothing was."""
    times: int = 0
    count: int = 0
    seconds: float = 0.0


class Account:
    """Counts by kind, and lines for people. Several threads may use one.

    on_line: called with each new line at once, without its total; None: the lines wait for `lines`.
    """

    def __init__(self, on_line: LineSink | None = None) -> None:
        self._on_line = on_line
        self._lock = threading.Lock()
        self._tallies: dict[Kind, Tally] = {}
        self._notes: dict[str, _Note] = {}
        self._causes: set[tuple[str, object]] = set()
        self._most: dict[str, int] = {}

    def __getitem__(self, kind: Kind) -> Tally:
        """The tally of a kind."""
        return self._tallies.setdefault(kind, Tally())

    def found(self, kind: Kind, count: int = 1) -> None:
        """Count what was decoded or listed."""
        with self._lock:
            self[kind].found += count

    def used(self, kind: Kind, count: int = 1) -> None:
        """Count what was passed on."""
        with self._lock:
            self[kind].used += count

    def lost(
        self,
        kind: Kind,
        reason: str,
        count: int = 1,
        *,
        line: str | None = None,
        seconds: float = 0.0,
        cause: object = None,
        is_found: bool = True,
    ) -> None:
        """Count what was left out.

        reason: a few words, the same each time, under which the losses are added up.
        line: what to tell people at the first such loss; None for a loss that is meant, such as the pictures before the
            beginning of a cut film.
        seconds: how much time it was, for the total in the line.
        cause: as in `note`.
        is_found: False to count it as found too.
        """
        key = f"{kind}: {reason}"
        if self._is_known(key, cause):
            return
        with self._lock:
            self[kind].lost[reason] += count
            self[kind].found += 0 if is_found else count
        if line is not None:
            self._add(key, line, count, seconds, kind)

    def note(self, key: str, line: str, *, count: int = 1, seconds: float = 0.0, cause: object = None) -> None:
        """Tell people what was chosen or repaired. Of the lines with one key, the first is kept, with a total.

        cause: what happens with one cause counts once: the readers of sound and picture pass the same joint.
        """
        if not self._is_known(key, cause):
            self._add(key, line, count, seconds, None)

    def _is_known(self, key: str, cause: object) -> bool:
        if cause is None:
            return False
        with self._lock:
            is_known = (key, cause) in self._causes
            self._causes.add((key, cause))
        return is_known

    def _add(self, key: str, line: str, count: int, seconds: float, kind: Kind | None) -> None:
        with self._lock:
            note = self._notes.get(key)
            is_new = note is None
            if note is None:
                note = self._notes[key] = _Note(line, kind)
            note.times += 1
            note.count += count
            note.seconds += seconds
        # Outside of the lock: the callback may use the account.
        if is_new and self._on_line is not None:
            self._on_line(line)

    def most(self, name: str, value: int) -> None:
        """Keep the largest value of a measure, such as `raised_db`, for the counters of a stream."""
        with self._lock:
            self._most[name] = max(value, self._most.get(name, value))

    def __contains__(self, key: str) -> bool:
        """Whether something was noted under this key."""
        return key in self._notes

    def lines(self) -> list[str]:
        """All lines in the order of their first cause, with totals of what happened more than once."""
        with self._lock:
            return [_with_total(note) for note in self._notes.values()]

    def losses(self, *kinds: Kind) -> list[str]:
        """The lines about what was left out of these kinds, or of any; not the lines about choices and repairs."""
        with self._lock:
            return [_with_total(note) for note in self._notes.values() if note.lost in (kinds or get_args(Kind))]

    def counters(self) -> dict[str, int]:
        """For the counters of a stream: the joints, the largest values of measures, and how many things of each kind
        were left out, such as `samples_left_out`."""
        with self._lock:
            left_out = {
                f"{kind.replace(' ', '_')}_left_out": tally.lost.total() for kind, tally in self._tallies.items()
            }
            joints = self._notes["joint"].times if "joint" in self._notes else 0
            return {"joints": joints, **self._most, **left_out}

    def totals(self) -> list[str]:
        """The lines about what happened more than once."""
        with self._lock:
            return [_with_total(note) for note in self._notes.values() if note.times > 1]

    def document(self) -> dict[str, Any]:
        """By kind: found, used, and lost by reason, as JSON takes it."""
        with self._lock:
            return {
                kind: {"found": tally.found, "used": tally.used, "lost": dict(tally.lost)}
                for kind in get_args(Kind)
                if (tally := self._tallies.get(kind)) is not None
            }


def _with_total(note: _Note) -> str:
    if note.times == 1:
        return note.line
    return f"{note.line}; {f'{note.seconds:.2f} s' if note.seconds else note.count} in all"
