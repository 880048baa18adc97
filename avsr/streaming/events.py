"""What a session says: one `Event` at a time, ready to be a line of JSON."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

from avsr.output.formats import word_document
from avsr.transcript import Word

Kind = Literal["partial", "final", "mode", "counters"]

Mode = Literal["av", "a", "v", "none"]
"""What words are recognised from at present: both, sound, lips, or nothing because both are lost."""


class Step(NamedTuple):
    """One step of the engine, whether anything was said after it or not."""

    start: float
    """Seconds from the beginning of the stream of its first frame."""
    end: float
    for_good: bool
    """False for the beginning of a chunk whose look-ahead is not there yet."""
    used: tuple[bool, ...]
    """Of each 40 ms slot that it took: whether the engine had its lips."""
    compute_ms: float
    """Time of the engine and the search."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened in a stream. Times are media seconds."""

    event: Kind
    """"partial": the words of the present utterance so far. "final": all of them, after which another utterance begins.
    "mode": words are recognised from something else from now on. "counters": once, at the end."""
    start: float
    """Of the first word; of "mode", the moment from which it holds."""
    end: float
    """Of the last word; of "mode", the same as `start`."""
    emitted: float
    """How much of the stream had come when this was emitted."""
    text: str = ""
    """The words as text; of "mode" the `Mode`."""
    words: tuple[Word, ...] = ()
    changed: int = 0
    """How many words of the partial before this are taken back or changed."""
    compute_ms: float = 0.0
    """How long the step took that led to this."""
    reason: str = ""
    """Of "mode", why: "ok", "late", "lost", "no_face", "pose", "low_quality", "occluded", "silent" or "sound_lost". Of
    "final", what ended the utterance: "pause", "length" or "end"."""
    counters: dict[str, int] | None = None
    """Of "counters" only: `Session.counters`."""

    @property
    def latency_ms(self) -> float:
        """From the end of the last word to the moment this was emitted, computing included."""
        return 1000 * (self.emitted - self.end) + self.compute_ms

    def document(self) -> dict[str, Any]:
        """This event as JSON, times rounded to milliseconds."""
        known: dict[str, Any] = {"event": self.event, "text": self.text}
        known |= {name: round(getattr(self, name), 3) for name in ("start", "end", "emitted")}
        if self.event == "counters":
            return known | {"counters": self.counters}
        if self.event in ("partial", "final"):
            known["latency_ms"] = round(self.latency_ms, 1)
            known["compute_ms"] = round(self.compute_ms, 1)
            known["changed"] = self.changed
            known["words"] = [word_document(word) for word in self.words]
        return known | {"reason": self.reason}
