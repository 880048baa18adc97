"""The choice of the face that speaks: the face with the mouth that goes with the sound."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from avsr.arrays import Samples
from avsr.grid import SLOT_SAMPLES
from avsr.lips.choice import FaceChoice
from avsr.lips.slots import LipSlot, Slot

if TYPE_CHECKING:
    from avsr.speakers.synchrony import SlotEvidence, SynchronyStream

SWITCH_NATS = 5.0
"""Evidence that a face must have more than the chosen one, before it takes over."""
LOOK_AHEAD_SLOTS = 25
"""A decision waits for this many slots (1 s)."""
KEEP_SLOTS = 25
"""A face stays chosen out of sight for at most this long (1 s)."""


class SpeakerPath:
    """Who speaks, slot by slot: the most likely path through the faces. Each change of face costs SWITCH_NATS.

    A face takes over if its evidence outweighs the evidence of the chosen face by that cost. The change is then placed
    where the evidence changed. The chosen face is kept through pauses, and a few slots of bad evidence within a word do
    not change it. Without any evidence the path starts with the largest face. A face out of sight loses SWITCH_NATS
    over KEEP_SLOTS: it may come back soon, or else it gives way to a face in sight.

    look_ahead_slots: a decision is final this much later (Viterbi search with a fixed lag).
    """

    def __init__(self, look_ahead_slots: int = LOOK_AHEAD_SLOTS) -> None:
        self.look_ahead_slots = look_ahead_slots
        self._scores: dict[int, float] = {}  # of the best path that ends with each face; the best of them is 0
        self._last_seen: dict[int, int] = {}
        # For each undecided slot: the face that the best path to each face comes from.
        self._origins: collections.deque[dict[int, int]] = collections.deque()
        self._num_slots = 0

    def push(self, evidence: Mapping[int, float], sizes: Mapping[int, float]) -> list[int | None]:
        """The choices that the next slot makes final, in order of slots: face ids, None without a face.

        evidence: nats by face id, for faces that show their lips.
        sizes: size by face id in any unit, for all faces that are followed.
        """
        self._last_seen.update(dict.fromkeys(sizes, self._num_slots))
        before = {
            # A face out of sight loses evidence step by step, not at once: it may only have turned away for a moment.
            face: score if face in sizes else score - SWITCH_NATS / KEEP_SLOTS
            for face, score in self._scores.items()
            if self._num_slots - self._last_seen[face] <= KEEP_SLOTS
        }
        decided: list[int | None] = []
        scores: dict[int, float] = {}
        origins: dict[int, int] = {}
        if before:
            best = max(before, key=lambda face: before[face])
            entry = before[best] - SWITCH_NATS
            for face in {**before, **sizes}:
                score = before.get(face, -math.inf)
                # All changes cost the same, so only the best face can be worth a change.
                scores[face], origins[face] = (score, face) if score >= entry else (entry, best)
        else:  # all earlier faces are gone: the path starts again
            decided = self.finish()
            largest = max(sizes.values(), default=0.0)
            # At most one nat apart, so that evidence soon outweighs size.
            scores = {face: size / largest - 1 if largest else 0.0 for face, size in sizes.items()}
        for face in scores:
            scores[face] += evidence.get(face, 0.0)
        top = max(scores.values(), default=0.0)
        # Only differences count. Sums over hours would lose the last bits.
        self._scores = {face: score - top for face, score in scores.items()}
        self._origins.append(origins)
        self._num_slots += 1
        if len(self._origins) > self.look_ahead_slots:
            decided.append(self._trace()[0])
            self._origins.popleft()
        return decided

    def finish(self) -> list[int | None]:
        """The choices of all remaining slots."""
        path = self._trace()
        self._origins.clear()
        self._scores = {}
        return path

    def _trace(self) -> list[int | None]:
        """The best path through the undecided slots."""
        face = max(self._scores, key=lambda face: self._scores[face], default=None)
        path: list[int | None] = []
        for origins in reversed(self._origins):
            path.append(face)
            face = origins.get(face, face) if face is not None else None
        return path[::-1]


class SpeakingFace(FaceChoice):
    """The lips of the face that speaks, by the sound of the same video. A decision comes at most 2.2 s later.

    sound: blocks of samples [S] from media time 0, read as slots need them. After their end there is silence. None for
        a live stream: the samples come through `push_sound`, and a slot waits for its own.
    look_ahead_slots: a decision waits for this many slots of evidence, as in `SpeakerPath`.
    stream: where the evidence comes from, by default the trained network, once a second.
    """

    def __init__(
        self,
        sound: Iterator[Samples] | None = None,
        *,
        look_ahead_slots: int = LOOK_AHEAD_SLOTS,
        stream: SynchronyStream | None = None,
    ) -> None:
        super().__init__()
        if stream is None:
            # Only here, because it needs torch, and other choices of a face do not.
            from avsr.speakers.synchrony import SynchronyStream

            stream = SynchronyStream(only_choices=True)
        self._sound = sound
        self._samples = np.zeros(0, np.float32)
        self._stream = stream
        self._path = SpeakerPath(look_ahead_slots)
        self._without_sound: collections.deque[Slot] = collections.deque()  # their samples have not come yet
        self._without_evidence: collections.deque[Slot] = collections.deque()
        self._undecided: collections.deque[Slot] = collections.deque()

    def push_sound(self, samples: Samples) -> None:
        """Take in the next samples [S]."""
        self._samples = np.concatenate((self._samples, samples))

    def push(self, slot: Slot) -> list[LipSlot]:
        self._without_sound.append(slot)
        decided = []
        while self._without_sound:
            self._read_sound(SLOT_SAMPLES)
            # A live stream: the slot waits, because a decision without its sound would be made by the picture alone.
            if len(self._samples) < SLOT_SAMPLES:
                break
            decided += self._embed(self._without_sound.popleft())
        return decided

    def finish(self) -> list[LipSlot]:
        decided = []
        while self._without_sound:
            # No more sound will come, but every slot that went in has to come out.
            self._samples = np.pad(self._samples, (0, max(0, SLOT_SAMPLES - len(self._samples))))
            decided += self._embed(self._without_sound.popleft())
        decided += self._decide(self._stream.finish())
        return decided + self._choose(self._path.finish())

    def _read_sound(self, count: int) -> None:
        """Read blocks of `sound`, if there is one, until `count` samples are there."""
        blocks = [self._samples]
        missing = count - len(self._samples)
        while self._sound is not None and missing > 0:
            block = next(self._sound, None)
            if block is None:
                # The picture may be longer than the sound.
                block = np.zeros(missing, np.float32)
            blocks.append(block)
            missing -= len(block)
        if len(blocks) > 1:
            self._samples = np.concatenate(blocks)

    def _embed(self, slot: Slot) -> list[LipSlot]:
        """Embed a slot and its samples. Returns the lips that this decides."""
        samples, self._samples = self._samples[:SLOT_SAMPLES], self._samples[SLOT_SAMPLES:]
        self._without_evidence.append(slot)
        crops = {number: lips.crop for number, lips in slot.lips.items() if lips.present}
        return self._decide(self._stream.push(crops, samples))

    def _decide(self, evidence: list[SlotEvidence]) -> list[LipSlot]:
        """Follow the path through the next slots with evidence. Returns the lips that this decides."""
        decided = []
        for of_slot in evidence:
            slot = self._without_evidence.popleft()
            self._undecided.append(slot)
            decided += self._choose(self._path.push(of_slot.nats, sizes_of(slot)))
        return decided

    def _choose(self, faces: list[int | None]) -> list[LipSlot]:
        """The lips of these faces in the first undecided slots."""
        chosen = []
        for face in faces:
            self.face = face
            chosen.append(self._undecided.popleft().of(face))
        return chosen


def sizes_of(slot: Slot) -> dict[int, float]:
    """Width by face id, for all faces that are followed; 0 for a face out of sight."""
    return {number: 0.0 if math.isnan(lips.width_px) else lips.width_px for number, lips in slot.lips.items()}
