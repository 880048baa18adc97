"""The fallback to sound alone: whether the lips of each slot are used, and whether sound waits for lips.

    mode    becomes     when
    av      a           LOSE_SLOTS slots in a row without lips (the mode's reason is the last slot's reason)
    a       av          REGAIN_SLOTS slots in a row with lips; the last of them is the first that is used

    waits   becomes     when
    yes     no          a chunk had to go out before its lips came
    no      yes         IN_TIME_SLOTS slots in a row came early enough to be waited for

A slot is used if it has lips and the mode is "av". A stream begins with mode "av" and waits for lips, so that the first
chunk has lips. Whether a slot is used depends only on the slots before it, never on the length of the chunks.
"""

from __future__ import annotations

from typing import NamedTuple

LOSE_SLOTS = 5
"""200 ms: if the face finder misses a few pictures, the mode stays."""

REGAIN_SLOTS = 3
"""120 ms: a face that is found for a moment, or in one picture of three, does not help recognition."""

IN_TIME_SLOTS = 8
"""320 ms: sound waits again only for lips that keep coming in time."""


class LipPolicy(NamedTuple):
    """The state of the fallback. Methods return the next state and leave this one unchanged."""

    has_lips: bool = True
    """Whether the mode is "av"."""
    reason: str = "ok"
    """Why the mode is "a"; "ok" in mode "av"."""
    waits: bool = True
    """Whether sound waits for lips."""
    absent: int = 0
    """Slots in a row without lips, up to now."""
    present: int = 0
    """Slots in a row with lips, up to now."""
    in_time: int = 0
    """Slots in a row with lips that came in time."""

    def decide(self, reason: str) -> tuple[bool, LipPolicy]:
        """Decide on the next slot. reason: "ok" with lips, else why it has no lips. Returns whether it is used."""
        if reason == "ok":
            present = self.present + 1
            has_lips = self.has_lips or present >= REGAIN_SLOTS
            state = self._replace(
                has_lips=has_lips, present=present, absent=0, reason="ok" if has_lips else self.reason
            )
            return has_lips, state
        absent = self.absent + 1
        lost = absent >= LOSE_SLOTS
        return False, self._replace(
            has_lips=self.has_lips and not lost,
            absent=absent,
            present=0,
            reason=reason if lost else self.reason,
        )

    def came(self, *, in_time: bool) -> LipPolicy:
        """Note a slot with lips. in_time: whether it came early enough for the sound to wait for it."""
        count = self.in_time + 1 if in_time else 0
        return self._replace(in_time=count, waits=self.waits or count >= IN_TIME_SLOTS)

    def missed(self) -> LipPolicy:
        """Note a chunk that was recognised before its lips came."""
        return self._replace(waits=False, in_time=0)
