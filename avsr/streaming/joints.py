"""A live clock that steps back for good: a recorder or a connection that began again.

Single blocks of sound may come late, and are dropped then. If half a second of consecutive sound comes from the past,
the clock itself has stepped back, and all later sound would be dropped. From there on sound and pictures get a common
offset, so that the stream goes on without a pause.
"""

from __future__ import annotations

import numpy as np

from avsr.arrays import Samples
from avsr.grid import SAMPLE_RATE_HZ
from avsr.streaming.sound import JITTER_S

BACK_S = 1.0
"""Sound that is less behind may come late; more can also be a clock that stepped back."""
CONFIRM_S = 0.5
"""This much consecutive sound from the past shows that the clock stepped back."""

Placed = tuple[Samples, float]
"""Samples, and how many seconds they begin after the end of the stream; negative: before it."""


class ClockJoints:
    """Holds sound from the past until it shows whether it is late, or whether the clock stepped back."""

    def __init__(self) -> None:
        self.offset_s = 0.0
        """What to add to the times of sound and pictures now."""
        self.count = 0
        """How often the clock has stepped back."""
        self._held: list[Samples] = []
        self._ahead_s = 0.0  # of the first held block

    def place(self, samples: Samples, ahead_s: float) -> list[Placed]:
        """The sound to take now, in order: perhaps none, perhaps also blocks that were held.

        samples: [S]. ahead_s: how much they begin after the end of the stream, with the present offset.
        """
        if ahead_s >= -BACK_S:
            return [*self.late(), (samples, ahead_s)]
        held_s = sum(map(len, self._held)) / SAMPLE_RATE_HZ
        if not self._held or abs(ahead_s - self._ahead_s - held_s) > JITTER_S:
            late = self.late()
            self._held, self._ahead_s = [samples], ahead_s
            return late
        self._held.append(samples)
        if held_s + len(samples) / SAMPLE_RATE_HZ < CONFIRM_S:
            return []
        self.offset_s -= self._ahead_s
        self.count += 1
        joined, self._held = np.concatenate(self._held), []
        return [(joined, 0.0)]

    def late(self) -> list[Placed]:
        """The held sound, which came too late after all."""
        held, self._held = self._held, []
        return [(samples, self._ahead_s) for samples in held]
