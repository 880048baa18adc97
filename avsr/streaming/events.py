"""What a session says: one `Event` at a time, ready to be a line of JSON."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

from avsr.output.json import word_document
from avsr.transcript import Word

Kind = Literal["partial", "final", "mode", "counters"]

Mode = Literal["av", "a", "v", "none"]
"""What words are recognised from at present: both, sound, lips, or nothing because both are lost."""


class Chunk(NamedTuple):
    """One step of the network, whether anything was said after it or not.

    start, end: seconds from the beginning of the stream of the frames that it ran on. for_good: False for the beginning
    of a chunk whose look-ahead is not there yet. used: of each slot of 40 ms that it took, whether the network had its
    lips. compute_ms: network and decoding.
    """

    start: float
    end: float
    for_good: bool
    used: tuple[bool, ...]
    compute_ms: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened.

    event: "partial", the words of the present utterance so far; "final", all of them, after which another utterance
    begins; "mode", what is recognised from changes; "counters", once, at the end.
    start, end: media seconds, of the first and last word; of "mode", both the moment from which it holds.
    words: with times, confidences and what each was recognised from. text: the same as text; of "mode" the `Mode`.
    changed: how many words of the partial before this takes back or changes.
    emitted: media seconds that had been heard (or seen) when this was said. compute_ms: how long the step took that led
    to it. latency_ms: from the end of the last word to the moment this was said, the computing included; NaN of others.
    reason: of "mode" why ("ok", "late", "lost", "no_face", "pose", "low_quality", "occluded", "silent", "sound_lost"),
    of "final" what ended the utterance ("pause", "length", "end").
    counters: of "counters" only.
    """

    event: Kind
    start: float
    end: float
    emitted: float
    text: str = ""
    words: tuple[Word, ...] = ()
    changed: int = 0
    compute_ms: float = 0.0
    reason: str = ""
    counters: dict[str, int] | None = None

    @property
    def latency_ms(self) -> float:
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
