"""Whose lips are read when nobody is named: the face whose mouth goes with the sound."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from avsr.grid import SLOT_SAMPLES
from avsr.lips.choice import FaceChoice
from avsr.lips.slots import LipSlot, Slot
from avsr.speakers.synchrony import HOP_SLOTS, SlotEvidence, SynchronyHead, SynchronyStream

SWITCH_NATS = 5.0
LOOK_AHEAD_SLOTS = 25
KEEP_SLOTS = 25


class SpeakerPath:
    """Who speaks, slot by slot: the most likely path through the faces, on which each change costs SWITCH_NATS.

    So a face takes over when its evidence outweighs that of the one before by that much, and then from where it did; it
    is kept through pauses and does not change within a word for a few slots that fit badly. Before there is any
    evidence it is the largest face. A face out of sight loses a share of SWITCH_NATS a slot, all of it in KEEP_SLOTS:
    it may come back soon, and otherwise gives way to those who are there. A decision is final `look_ahead_slots` later
    (Viterbi search with a fixed lag).
    """

    def __init__(self, look_ahead_slots: int = LOOK_AHEAD_SLOTS) -> None:
        self.look_ahead_slots = look_ahead_slots
        self._scores: dict[int, float] = {}  # of the best path that ends with each face, the best of all being 0
        self._last_seen: dict[int, int] = {}
        self._origins: collections.deque[dict[int, int]] = collections.deque()  # of each undecided slot: who was before
        self._num_slots = 0

    def push(self, evidence: Mapping[int, float], sizes: Mapping[int, float]) -> list[int | None]:
        """The choices, in order of the slots, that the next slot makes final.

        evidence: nats of the faces whose lips are seen. sizes: of all faces that are followed, in any unit.
        """
        self._last_seen.update(dict.fromkeys(sizes, self._num_slots))
        before = {
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
                scores[face], origins[face] = (score, face) if score >= entry else (entry, best)
        else:  # nobody is left of those before
            decided = self.finish()
            largest = max(sizes.values(), default=0.0)
            scores = {face: size / largest - 1 if largest else 0.0 for face, size in sizes.items()}
        for face in scores:
            scores[face] += evidence.get(face, 0.0)
        top = max(scores.values(), default=0.0)
        self._scores = {face: score - top for face, score in scores.items()}
        self._origins.append(origins)
        self._num_slots += 1
        if len(self._origins) > self.look_ahead_slots:
            decided.append(self._trace()[0])
            self._origins.popleft()
        return decided

    def finish(self) -> list[int | None]:
        """The choices of all slots that are left."""
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
    """The lips of who speaks, by the sound of the same video. Decisions wait for what follows: 2.2 s at most, or what
    `look_ahead_slots` of `SpeakerPath` and `hop_slots` of `SynchronyStream` say.

    sound: blocks of samples [S] at 16 kHz from media time 0, drawn from as slots need them; after its end there is
    silence. Without it, as live, they are passed to `push_sound`, and slots wait for theirs.
    """

    def __init__(
        self,
        sound: Iterator[NDArray[np.float32]] | None = None,
        *,
        look_ahead_slots: int = LOOK_AHEAD_SLOTS,
        hop_slots: int = HOP_SLOTS,
        head: SynchronyHead | None = None,
    ) -> None:
        super().__init__()
        self._sound = sound
        self._samples = np.zeros(0, np.float32)
        self._stream = SynchronyStream(only_choices=True, hop_slots=hop_slots, head=head)
        self._path = SpeakerPath(look_ahead_slots)
        self._mute: collections.deque[Slot] = collections.deque()  # their sound has not come yet
        self._unheard: collections.deque[Slot] = collections.deque()  # not yet embedded
        self._undecided: collections.deque[Slot] = collections.deque()

    def push_sound(self, samples: NDArray[np.float32]) -> None:
        """The next samples [S] at 16 kHz."""
        self._samples = np.concatenate((self._samples, samples))

    def push(self, slot: Slot) -> list[LipSlot]:
        self._mute.append(slot)
        decided = []
        while self._mute:
            self._draw(SLOT_SAMPLES)
            if len(self._samples) < SLOT_SAMPLES:
                break
            decided += self._listen(self._mute.popleft())
        return decided

    def finish(self) -> list[LipSlot]:
        decided = []
        while self._mute:
            self._samples = np.pad(self._samples, (0, max(0, SLOT_SAMPLES - len(self._samples))))
            decided += self._listen(self._mute.popleft())
        decided += self._weigh(self._stream.finish())
        return decided + self._choose(self._path.finish())

    def _draw(self, count: int) -> None:
        blocks = [self._samples]
        missing = count - len(self._samples)
        while self._sound is not None and missing > 0:
            block = next(self._sound, None)
            if block is None:
                block = np.zeros(missing, np.float32)
            blocks.append(block)
            missing -= len(block)
        if len(blocks) > 1:
            self._samples = np.concatenate(blocks)

    def _listen(self, slot: Slot) -> list[LipSlot]:
        samples, self._samples = self._samples[:SLOT_SAMPLES], self._samples[SLOT_SAMPLES:]
        self._unheard.append(slot)
        crops = {number: lips.crop for number, lips in slot.lips.items() if lips.present}
        return self._weigh(self._stream.push(crops, samples))

    def _weigh(self, evidence: list[SlotEvidence]) -> list[LipSlot]:
        decided = []
        for seen in evidence:
            slot = self._unheard.popleft()
            self._undecided.append(slot)
            decided += self._choose(self._path.push(seen.nats, sizes_of(slot)))
        return decided

    def _choose(self, faces: list[int | None]) -> list[LipSlot]:
        chosen = []
        for face in faces:
            self.face = face
            chosen.append(self._undecided.popleft().of(face))
        return chosen


def sizes_of(slot: Slot) -> dict[int, float]:
    """Widths of the faces that are followed; 0 where it is not known at the moment."""
    return {number: 0.0 if math.isnan(lips.width_px) else lips.width_px for number, lips in slot.lips.items()}
