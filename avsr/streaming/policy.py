"""Whether lips are used, slot by slot, and whether sound waits for them: the fallback to sound alone.

    mode    becomes     when
    av      a           LOSE_SLOTS slots in a row without lips (the reason is that of the last one)
    a       av          REGAIN_SLOTS slots in a row with lips; the last of them is the first that is used

    waits   becomes     when
    yes     no          a chunk had to go out before its lips came
    no      yes         IN_TIME_SLOTS slots in a row came early enough to be waited for

A slot is used if it has lips and the mode is "av". It begins with "av" and waiting, so that the first chunk has its
lips. Whether a slot is used depends on the slots before it alone, never on how they were cut into chunks.
"""

from __future__ import annotations

from typing import NamedTuple

LOSE_SLOTS = 5
"""200 ms: a blink of the face finder is no loss, only a few absent slots."""

REGAIN_SLOTS = 3
"""120 ms: a face that shows for a moment, or for one picture in three, is no help."""

IN_TIME_SLOTS = 8


class LipPolicy(NamedTuple):
    """The state: what is recognised from, why, whether sound waits for lips, and how long things have been so."""

    has_lips: bool = True
    reason: str = "ok"
    waits: bool = True
    absent: int = 0
    present: int = 0
    in_time: int = 0

    def decide(self, reason: str) -> tuple[bool, LipPolicy]:
        """The next slot, in order; reason: "ok" with lips, else why there are none. Returns whether it is used."""
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
        """A slot with lips came, early enough to be waited for or not."""
        count = self.in_time + 1 if in_time else 0
        return self._replace(in_time=count, waits=self.waits or count >= IN_TIME_SLOTS)

    def missed(self) -> LipPolicy:
        """A chunk went out before its lips came."""
        return self._replace(waits=False, in_time=0)
