"""The choice of the face that speaks in a film without sound: the largest of the faces whose lips move."""

from __future__ import annotations

import collections

from avsr.lips.choice import LargestFace
from avsr.lips.movement import Movement, follow_movement, initial_movement
from avsr.lips.slots import LipSlot, Slot

AROUND_SLOTS = 50
"""Lips are judged over this many slots before and after a slot: 2 s."""
LEAST_MOVING_SLOTS = 10
"""Lips that move for less than 0.4 s of that do not speak."""
LEAST_SHARE = 0.2
"""Lips that move for less than this share of the time of the most moving lips listen. Chosen on pairs of GRID (`dev`),
so that a larger face that speaks is never given up for a smaller one."""


class MovingFace(LargestFace):
    """The largest of the faces whose lips move in the seconds around a slot; the largest of all until any do.

    Photographs and some listeners are left out. Of people who speak at once the largest is read, because movement alone
    does not tell whom to hear. In a pause the last speaker stays. Without a second face the result is the one of
    `LargestFace`, to the bit.

    around_slots: how many slots before and after a slot count. A decision comes this much later.
    """

    def __init__(self, around_slots: int = AROUND_SLOTS) -> None:
        super().__init__()
        self._around_slots = around_slots
        self._movements: dict[int, Movement] = {}
        self._undecided: collections.deque[Slot] = collections.deque()
        self._moving: collections.deque[frozenset[int]] = collections.deque()  # in each slot around the next decision
        self._counts: collections.Counter[int] = collections.Counter()  # of the faces in `_moving`
        self._num_before = 0  # slots of `_moving` before the next decision
        self._have_spoken: set[int] = set()

    def push(self, slot: Slot) -> list[LipSlot]:
        self._undecided.append(slot)
        moving = self._moving_in(slot)
        self._moving.append(moving)
        self._counts.update(moving)
        return self._decide() if len(self._undecided) > self._around_slots else []

    def finish(self) -> list[LipSlot]:
        decided = []
        while self._undecided:
            decided += self._decide()
        return decided

    def _moving_in(self, slot: Slot) -> frozenset[int]:
        movements, moving = {}, set()
        for face, lips in slot.lips.items():
            moving_T, movements[face] = follow_movement([lips], self._movements.get(face) or initial_movement())
            if moving_T[0]:
                moving.add(face)
        self._movements = movements
        return frozenset(moving)

    def _decide(self) -> list[LipSlot]:
        """The lips to read in the first undecided slot."""
        slot = self._undecided.popleft()
        least = max(LEAST_MOVING_SLOTS, LEAST_SHARE * max(self._counts.values(), default=0))
        speaking = {face: lips for face, lips in slot.lips.items() if self._counts[face] >= least}
        self._have_spoken |= speaking.keys()
        if not speaking and self.face in self._have_spoken and self.face in slot.lips:
            speaking = {self.face: slot.lips[self.face]}
        self._num_before += 1
        if self._num_before > self._around_slots:
            self._counts.subtract(self._moving.popleft())
            self._num_before -= 1
        return super().push(Slot(slot.index, speaking, slot.reason) if speaking else slot)
