"""The lips of a stream: from pictures to slots, which of them are used, and what became of every picture."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Crops, Present
from avsr.grid import CROP_PX, SLOT_S
from avsr.lips.choice import face_choice
from avsr.lips.slots import LipSlot
from avsr.lips.tracker import LipTracker
from avsr.media import VideoFrame
from avsr.streaming.policy import LipPolicy

MAX_EARLY_S = 10.0  # ahead of the sound; pictures further away are not kept
LOST_AFTER_S = 1.0  # without a picture they are not late but lost
MAX_STEP_S = 0.2  # from a picture to the next: how long the last one lasts at most

_NO_CROP = np.zeros((CROP_PX, CROP_PX), np.uint8)


class Taken(NamedTuple):
    """A slot on its way into the network. reason: "ok" with lips, or why there are none. crop: zeros where not used.
    lips: what was seen, None where nothing came in time."""

    slot: int
    used: bool
    reason: str
    crop: NDArray[np.uint8]
    lips: LipSlot | None


class LipBuffer:
    """Slots counted from the beginning of the stream, as everything here; times in seconds from there.

    face: as `face_choice` takes it. reads: whether lips are wanted at all. Pictures pass `register`, then `find`, crops
    `give` instead; only `find` is slow, and may run beside everything else. policy: whether lips are used and waited
    for.
    """

    def __init__(self, face: str, max_lag_s: float, *, reads: bool) -> None:
        self.policy = LipPolicy()
        self.received = self.used = self.late = self.absent = self.duplicate = 0
        self.newest_s = -math.inf  # of all pictures
        self.final_slots = 0  # slots before this are known, or never will be
        self.last: LipSlot | None = None
        self.recent: list[LipSlot] = []  # of the last commit
        self.last_reason = "lost"
        self._choice = face_choice(face)
        self._max_lag_s, self._reads = max_lag_s, reads
        self._tracker: LipTracker | None = None
        self._followed_s = -math.inf  # newest picture that the tracker was given
        self._step_s = SLOT_S
        self._slots: dict[int, LipSlot] = {}  # known and not yet taken
        self._next = 0  # the first that the network has not had
        self._pictures: set[int] = set()  # slots that a picture came for and that are not taken yet

    @property
    def pending(self) -> int:
        """Pictures whose slots are not taken yet."""
        return len(self._pictures)

    def register(self, time_s: float, heard_s: float, *, is_crop: bool) -> int | None:
        """A picture came while the sound was at `heard_s`. Returns its slot, None where it is of no use."""
        self.received += 1
        index = round(time_s / SLOT_S)
        if time_s > self.newest_s:
            if self.newest_s > -math.inf:
                self._step_s = min(max(time_s - self.newest_s, 0.001), MAX_STEP_S)
            if time_s <= heard_s + MAX_EARLY_S:
                self.newest_s = time_s
        if not self._reads or time_s > heard_s + MAX_EARLY_S:
            self.absent += 1
            return None
        if index < self._next or (not is_crop and time_s < self._followed_s):
            self.late += 1
            return None
        if index in self._pictures:
            self.duplicate += 1
            if is_crop or time_s == self._followed_s:
                return None  # the tracker takes the picture that is nearest to the slot
        self._pictures.add(index)
        if not is_crop:
            self._followed_s = time_s
        return index

    def open(self) -> LipTracker:
        """The face finder, loaded where it is not yet."""
        if self._tracker is None:
            self._tracker = LipTracker()
        return self._tracker

    def find(self, picture: NDArray[np.uint8], time_s: float) -> list[LipSlot]:
        """The slots that a picture makes known, to be passed to `add`. Finds faces."""
        slots = self.open().push(VideoFrame(max(0.0, time_s), picture))
        return [lips for slot in slots for lips in self._choice.push(slot)]

    def find_last(self) -> list[LipSlot]:
        """The slots that are left, when no picture follows."""
        slots = [] if self._tracker is None else self._tracker.finish(self._followed_s + self._step_s)
        return [lips for slot in slots for lips in self._choice.push(slot)] + self._choice.finish()

    def give(self, index: int, crop: NDArray[np.uint8] | None) -> list[LipSlot]:
        """The slot of a crop that the caller cut, None where there were no lips to cut, to be passed to `add`."""
        if crop is None:
            return [LipSlot(index, _NO_CROP, False, "no_face", None)]
        return [LipSlot(index, crop, True, "ok", 0)]

    def add(self, slots: list[LipSlot], heard_s: float) -> None:
        """Slots become known while the sound is at `heard_s`."""
        for slot in slots:
            self.final_slots = max(self.final_slots, slot.index + 1)
            if slot.present:
                in_time = heard_s - (slot.index + 1) * SLOT_S <= self._max_lag_s
                self.policy = self.policy.came(in_time=in_time)
            if slot.index >= self._next:
                self._slots[slot.index] = slot

    def take(self, end: int) -> tuple[list[Taken], LipPolicy]:
        """The slots before `end` that the network has not had, and the policy after them. Changes nothing."""
        policy, taken = self.policy, []
        for index in range(self._next, end):
            lips = self._slots.get(index)
            if lips is not None:
                reason = lips.reason
            else:
                is_recent = (index + 1) * SLOT_S - self.newest_s <= LOST_AFTER_S
                reason = "late" if is_recent else "lost"
            used, policy = policy.decide(reason)
            taken.append(Taken(index, used, reason, lips.crop if lips is not None and used else _NO_CROP, lips))
        return taken, policy

    def commit(self, taken: list[Taken], policy: LipPolicy) -> None:
        """The network had these slots: their pictures are counted, and they are forgotten."""
        self.policy = policy
        self.recent = [lips for *_, lips in taken if lips is not None]
        for index, used, reason, _, lips in taken:
            if index in self._pictures:
                self._pictures.remove(index)
                if used:
                    self.used += 1
                elif lips is None:
                    self.late += 1
                else:
                    self.absent += 1
            self._slots.pop(index, None)
            self._next = index + 1
            self.last_reason = reason
            self.last = lips or self.last

    def end(self) -> None:
        """Nothing is taken any more: pictures that are left came after the end."""
        self.late += len(self._pictures)
        self._pictures.clear()

    def close(self) -> None:
        """Free the face finder."""
        if self._tracker is not None:
            self._tracker.__exit__(None, None, None)
            self._tracker = None


def arrays_of(slots: list[Taken]) -> tuple[Crops, Present]:
    """Crops [T, 96, 96] of the slots, and which of them are used."""
    crops = np.stack([taken.crop for taken in slots]) if slots else np.zeros((0, CROP_PX, CROP_PX), np.uint8)
    return crops, np.array([taken.used for taken in slots], bool)
