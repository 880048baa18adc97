"""The lips of a stream: pictures become slots, the policy decides which slots are used, and pictures are counted."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Crops, Present
from avsr.grid import CROP_PX, SLOT_S
from avsr.lips.choice import face_choice
from avsr.lips.slots import LipSlot, Slot
from avsr.lips.tracker import LipTracker
from avsr.media import VideoFrame
from avsr.streaming.policy import LipPolicy

MAX_EARLY_S = 10.0
"""Pictures further ahead of the sound than this are dropped."""

LOST_AFTER_S = 1.0
"""After this long without any picture, missing pictures count as lost, not as late."""

MAX_STEP_S = 0.2
"""The last picture of a stream lasts as long as the one before it, but at most this long."""

_NO_CROP = np.zeros((CROP_PX, CROP_PX), np.uint8)


class Taken(NamedTuple):
    """A slot on its way into the engine."""

    slot: int
    """Its number from the beginning of the stream."""
    used: bool
    """Whether the engine uses its lips."""
    reason: str
    """"ok" with lips, else the reason why the slot has no lips."""
    crop: NDArray[np.uint8]
    """uint8 [96, 96]; zeros if the slot is not used."""
    lips: LipSlot | None
    """The slot as the face finder or the caller gave it; None if no picture came in time."""


class LipBuffer:
    """Turns pictures into slots, keeps the slots until the engine takes them, and counts every picture.

    Slots and times, in seconds, count from the beginning of the stream. A picture goes through `register`, then `find`,
    then `add`; a lip crop goes through `register`, `give` and `add`. Only `find` is slow. It may
    run in one thread while another calls `register`, `add`, `take` and `commit`.

    face: the face to read, as `face_choice` takes it.
    max_lag_s: slots that come later than this are not in time.
    reads: False if the session does not use lips; all pictures then count as absent.
    """

    def __init__(self, face: str, max_lag_s: float, *, reads: bool) -> None:
        self.policy = LipPolicy()
        self.received = self.used = self.late = self.absent = self.duplicate = 0
        self.newest_s = -math.inf
        """Time of the newest picture."""
        self.final_slots = 0
        """Slots before this one are known, or will never be."""
        self.last: LipSlot | None = None
        """The newest slot that the engine took and that a picture came for."""
        self.recent: list[LipSlot] = []
        """The slots of the last `commit` that a picture came for."""
        self.last_reason = "lost"
        self.faces_seen: set[int] = set()
        """The numbers of all faces that were followed so far."""
        self._choice = face_choice(face)
        self._max_lag_s, self._reads = max_lag_s, reads
        self._tracker: LipTracker | None = None
        self._followed_s = -math.inf  # time of the newest picture for the tracker
        self._step_s = SLOT_S
        self._slots: dict[int, LipSlot] = {}  # known slots that the engine has not taken yet
        self._next = 0  # the first slot that the engine has not taken
        self._pictures: set[int] = set()  # slots with a picture that the engine has not taken yet

    @property
    def pending(self) -> int:
        """Number of pictures that are not counted yet, because the engine has not taken their slots."""
        return len(self._pictures)

    def register(self, time_s: float, sound_s: float, *, is_crop: bool) -> int | None:
        """Count a picture that comes while the sound is at `sound_s`. Returns its slot; None if it cannot be used."""
        self.received += 1
        index = round(time_s / SLOT_S)
        if time_s > self.newest_s:
            if self.newest_s > -math.inf:
                self._step_s = min(max(time_s - self.newest_s, 0.001), MAX_STEP_S)
            # A wrong time stamp far in the future must not be the newest: all sound before it would count as lost.
            if time_s <= sound_s + MAX_EARLY_S:
                self.newest_s = time_s
        if not self._reads or time_s > sound_s + MAX_EARLY_S:
            self.absent += 1
            return None
        # The engine has passed this slot, or the tracker this time; both go forward only.
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
        """The face finder; loads it at the first call."""
        if self._tracker is None:
            self._tracker = LipTracker()
        return self._tracker

    def find(self, picture: NDArray[np.uint8], time_s: float) -> list[LipSlot]:
        """Find faces in uint8 RGB [H, W, 3]. Returns the slots that are known now, for `add`."""
        return self._choose(self.open().push(VideoFrame(max(0.0, time_s), picture)))

    def find_last(self) -> list[LipSlot]:
        """The last slots, when no picture follows."""
        slots = [] if self._tracker is None else self._tracker.finish(self._followed_s + self._step_s)
        return self._choose(slots) + self._choice.finish()

    def _choose(self, slots: list[Slot]) -> list[LipSlot]:
        """The lips of the chosen face, in the slots that are decided now."""
        self.faces_seen.update(face for slot in slots for face in slot.lips)
        return [lips for slot in slots for lips in self._choice.push(slot)]

    def give(self, index: int, crop: NDArray[np.uint8] | None) -> list[LipSlot]:
        """The slot of a lip crop uint8 [96, 96], for `add`; crop None for a picture without lips."""
        if crop is None:
            return [LipSlot(index, _NO_CROP, False, "no_face", None)]
        self.faces_seen.add(0)
        return [LipSlot(index, crop, True, "ok", 0)]

    def add(self, slots: list[LipSlot], sound_s: float) -> None:
        """Keep slots that become known while the sound is at `sound_s`."""
        for slot in slots:
            self.final_slots = max(self.final_slots, slot.index + 1)
            if slot.present:
                # Only slots with lips are worth waiting for, so slots without lips say nothing about waiting.
                in_time = sound_s - (slot.index + 1) * SLOT_S <= self._max_lag_s
                self.policy = self.policy.came(in_time=in_time)
            if slot.index >= self._next:
                self._slots[slot.index] = slot

    def take(self, end: int) -> tuple[list[Taken], LipPolicy]:
        """The slots before `end` that the engine has not taken, and the policy after them. Changes nothing."""
        # With a look-ahead the same slots are taken first for show and then for good, so nothing is changed here.
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
        """Count the pictures of slots that the engine has taken for good, and drop the slots."""
        self.policy = policy
        self.recent = [lips for *_, lips in taken if lips is not None]
        for index, used, reason, _, lips in taken:
            if index in self._pictures:
                self._pictures.remove(index)
                if used:
                    self.used += 1
                elif lips is None:
                    # The picture came in time, but its slot was not known before the engine had to go on.
                    self.late += 1
                else:
                    self.absent += 1
            self._slots.pop(index, None)
            self._next = index + 1
            self.last_reason = reason
            self.last = lips or self.last

    def end(self) -> None:
        """The stream ends: pictures that are not counted yet came too late."""
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
