"""The choice of the face that speaks in a film without sound: the face with the mouth that moves."""

from __future__ import annotations

import collections

from avsr.lips.choice import LargestFace
from avsr.lips.movement import Movement, follow_strength, initial_movement
from avsr.lips.slots import LipSlot, Slot
from avsr.speakers.speaking_face import FILE_LOOK_AHEAD_SLOTS, SpeakerPath, sizes_of

MOVES_NATS = 0.1
"""Evidence of a slot by the strength of movement, for the largest face. A smaller face has less in proportion, so that
of several faces that move alike the largest is read."""
MOST_STRENGTH = 8.0
"""Stronger movement counts as this: a yawn says no more than a wide vowel. Chosen on pairs of GRID (`dev`)."""


class MovingFace(LargestFace):
    """The face whose lips move as in speech; the largest face where no lips have moved so far, or all do.

    Without a second face in sight the result is the one of `LargestFace`, to the bit.

    look_ahead_slots: a decision comes this much later, as in `SpeakerPath`.
    """

    def __init__(self, look_ahead_slots: int = FILE_LOOK_AHEAD_SLOTS) -> None:
        super().__init__()
        self._path = SpeakerPath(look_ahead_slots)
        self._movements: dict[int, Movement] = {}
        self._have_moved: set[int] = set()
        self._undecided: collections.deque[Slot] = collections.deque()

    def push(self, slot: Slot) -> list[LipSlot]:
        self._undecided.append(slot)
        sizes, strengths = sizes_of(slot), self._strengths(slot)
        moving = {face for face, strength in strengths.items() if strength >= 1.0}
        self._have_moved |= moving
        largest = max(sizes.values(), default=0.0) or 1.0
        evidence = {
            face: MOVES_NATS * min(MOST_STRENGTH, strength) * sizes[face] / largest
            for face, strength in strengths.items()
        }
        return self._choose(self._path.push(evidence, sizes, is_pause=not moving))

    def finish(self) -> list[LipSlot]:
        return self._choose(self._path.finish())

    def _strengths(self, slot: Slot) -> dict[int, float]:
        """By face: how much its lips move."""
        movements, strengths = {}, {}
        for face, lips in slot.lips.items():
            strength_T, movements[face] = follow_strength([lips], self._movements.get(face) or initial_movement())
            strengths[face] = float(strength_T[0])
        self._movements = movements
        return strengths

    def _choose(self, faces: list[int | None]) -> list[LipSlot]:
        """The lips to read in the first undecided slots. faces: whose lips move there."""
        chosen = []
        for face in faces:
            slot = self._undecided.popleft()
            num_seen = sum(size > 0 for size in sizes_of(slot).values())
            # Lips that never moved say nothing, and one face alone needs no choice.
            if face is not None and face in self._have_moved and face in slot.lips and num_seen > 1:
                slot = Slot(slot.index, {face: slot.lips[face]}, slot.reason)
            chosen += super().push(slot)
        return chosen
