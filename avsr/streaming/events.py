"""The results of a session: one `Event` at a time, ready to be a line of JSON."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

from avsr.output.formats import word_document
from avsr.transcript import Word

Kind = Literal["partial", "final", "mode", "counters"]

Mode = Literal["av", "a", "v", "none"]
"""The inputs that words are recognised from: sound and lips, sound, lips, or none because both are lost."""


class Step(NamedTuple):
    """One step of the engine, with or without words."""

    start: float
    """Beginning of its first frame, in seconds from the beginning of the stream."""
    end: float
    """End of its last frame, in seconds from the beginning of the stream."""
    for_good: bool
    """False if this is the beginning of a chunk that will be computed again when its look-ahead is there."""
    used: tuple[bool, ...]
    """For each 40 ms slot of the step: whether the engine used its lips."""
    compute_ms: float
    """Computing time of the engine and the search."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """One result of a stream. Times are seconds on the clock of the time stamps that the session was given."""

    event: Kind
    """"partial": the words of the current utterance so far; those after `committed` may still change. "final": the
    words of a finished utterance. "mode": the `Mode` changes. "counters": once, at the end of the stream."""
    start: float
    """Beginning of the first word, also of words that a "foreign" final takes back. For "mode": when the mode begins.
    For an event without words: how far the sound is recognised."""
    end: float
    """End of the last word, never after `emitted`. Without words, and for "mode": the same as `start`."""
    emitted: float
    """End of the sound that the session had received when it emitted this event."""
    text: str = ""
    """The words, separated by spaces. For "mode": the `Mode`."""
    words: tuple[Word, ...] = ()
    """The words with their own times and confidences."""
    committed: int = 0
    """How many of the first words can never change; all words of a "final". A partial may come again with the same
    words and more of them committed. Only a "final" with the reason "foreign" takes committed words back."""
    changed: int = 0
    """How many words of the previous partial are changed or removed."""
    compute_ms: float = 0.0
    """Computing time of the step that led to this event."""
    reason: str = ""
    """For "mode", its reason: "ok", "late", "lost", "no_face", "pose", "low_quality", "occluded", "silent" or
    "sound_lost". For "final", what ended the utterance: "pause", "length" or "end"; or "foreign", without words: it was
    speech or noise that the model does not know, and the words of its partials are taken back."""
    counters: dict[str, int] | None = None
    """`Session.counters`. Only for "counters"."""

    @property
    def latency_ms(self) -> float:
        """Time from the end of the last word to the event, computing included."""
        return 1000 * (self.emitted - self.end) + self.compute_ms

    def document(self) -> dict[str, Any]:
        """The event as a JSON object, times rounded to milliseconds."""
        known: dict[str, Any] = {"event": self.event, "text": self.text}
        known |= {name: round(getattr(self, name), 3) for name in ("start", "end", "emitted")}
        if self.event == "counters":
            return known | {"counters": self.counters}
        if self.event in ("partial", "final"):
            known["latency_ms"] = round(self.latency_ms, 1)
            known["compute_ms"] = round(self.compute_ms, 1)
            known["committed"] = self.committed
            known["changed"] = self.changed
            known["words"] = [word_document(word) for word in self.words]
        return known | {"reason": self.reason}
