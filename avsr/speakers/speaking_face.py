"""The choice of the face that speaks: the face with the mouth that goes with the sound."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Samples
from avsr.grid import SLOT_SAMPLES
from avsr.lips.choice import FaceChoice
from avsr.lips.slots import LipSlot, Slot

if TYPE_CHECKING:
    from avsr.speakers.synchrony import SlotEvidence, SynchronyStream

SWITCH_NATS = 5.0
"""Evidence that a face must have more than the chosen one, before it takes over while somebody speaks."""
PAUSE_SWITCH_NATS = 2.0
"""The same in a pause. Speakers take turns in pauses, so a change is placed there rather than within a word."""
LAG_NATS = 0.5
"""Evidence that a lag of the sound must have more for each slot that it is longer."""
LAG_MEMORY_SLOTS = 1500
"""Evidence for a lag fades over this many slots (1 min), because a cut in a film may change the lag."""
LOOK_AHEAD_SLOTS = 25
"""Live, a decision waits for this many slots (1 s)."""
FILE_LOOK_AHEAD_SLOTS = 250
"""In a file, a decision waits for this many slots (10 s)."""
KEEP_SLOTS = 25
"""A face stays chosen out of sight for at most this long (1 s)."""

Nats = float | NDArray[np.floating]
"""Evidence in nats: one number, or [G] for G lags of the sound."""


class SpeakerPath:
    """Who speaks, slot by slot: the most likely path through the faces. Each change of face costs SWITCH_NATS, or
    PAUSE_SWITCH_NATS in a pause.

    A face takes over if its evidence outweighs the evidence of the chosen face by that cost. The change is then placed
    where the evidence changed. The chosen face is kept through pauses, and a few slots of bad evidence within a word do
    not change it. Without any evidence the path starts with the largest face. A face out of sight loses
    PAUSE_SWITCH_NATS over KEEP_SLOTS: it may come back soon, or else it gives way to a face in sight.

    Sound and lips may be out of time, always by the same lag. There is one path for each lag, and the path with the
    most evidence so far decides.

    look_ahead_slots: a decision is final this much later (Viterbi search with a fixed lag).
    lag_costs: nats [G] against each lag of the sound; one lag by default.

    Letters: N faces, G lags.
    """

    def __init__(self, look_ahead_slots: int = LOOK_AHEAD_SLOTS, lag_costs: Sequence[float] = (0.0,)) -> None:
        self.look_ahead_slots = look_ahead_slots
        self._lag_costs_G = np.array(lag_costs)
        self._lag_nats_G = np.zeros(len(lag_costs))  # evidence of the best path at each lag, as far as it is remembered
        # By face: the score [G] of the best path that ends with it, less the score of the best of all paths.
        self._scores: dict[int, NDArray[np.float64]] = {}
        self._last_seen: dict[int, int] = {}
        # For each undecided slot, by face: the face [G] that the best path to it comes from.
        self._origins: collections.deque[dict[int, NDArray[np.intp]]] = collections.deque()
        self._num_slots = 0

    def push(
        self, evidence: Mapping[int, Nats], sizes: Mapping[int, float], *, is_pause: bool = False
    ) -> list[int | None]:
        """The choices that the next slot makes final, in order of slots: face ids, None without a face.

        evidence: by face id, for faces that show their lips.
        sizes: size by face id in any unit, for all faces that are followed.
        is_pause: whether nobody speaks around the slot.
        """
        self._last_seen.update(dict.fromkeys(sizes, self._num_slots))
        before = {
            # A face out of sight loses evidence step by step, not at once: it may only have turned away for a moment.
            face: score_G if face in sizes else score_G - PAUSE_SWITCH_NATS / KEEP_SLOTS
            for face, score_G in self._scores.items()
            if self._num_slots - self._last_seen[face] <= KEEP_SLOTS
        }
        decided: list[int | None] = []
        if before:
            scores, origins = self._step(before, sizes, PAUSE_SWITCH_NATS if is_pause else SWITCH_NATS)
        else:  # all earlier faces are gone: the path starts again
            decided = self.finish()
            scores, origins = self._start(sizes), {}
        for face in scores:
            scores[face] = scores[face] + evidence.get(face, 0.0)
        self._remember(scores)
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

    def _start(self, sizes: Mapping[int, float]) -> dict[int, NDArray[np.float64]]:
        largest = max(sizes.values(), default=0.0)
        # At most one nat apart, so that evidence soon outweighs size.
        return {
            face: np.full(len(self._lag_costs_G), size / largest - 1 if largest else 0.0)
            for face, size in sizes.items()
        }

    def _step(
        self, before: Mapping[int, NDArray[np.float64]], sizes: Mapping[int, float], cost: float
    ) -> tuple[dict[int, NDArray[np.float64]], dict[int, NDArray[np.intp]]]:
        """Scores and origins of the best path to each face, without the evidence of the slot. cost: of a change."""
        faces = [*before, *(face for face in sizes if face not in before)]
        before_NG = np.array([before.get(face, np.full(len(self._lag_costs_G), -np.inf)) for face in faces])
        # All changes cost the same, so only the best face can be worth a change.
        entry_G = before_NG.max(0) - cost
        ids_N = np.array(faces)
        origins_NG = np.where(before_NG >= entry_G, ids_N[:, None], ids_N[before_NG.argmax(0)])
        scores_NG = np.maximum(before_NG, entry_G)
        return dict(zip(faces, scores_NG, strict=True)), dict(zip(faces, origins_NG, strict=True))

    def _remember(self, scores: Mapping[int, NDArray[np.float64]]) -> None:
        """Replace the present scores by the scores of a slot, and add its evidence to the evidence for each lag."""
        top_G = np.max(list(scores.values()), axis=0) if scores else np.zeros(len(self._lag_costs_G))
        # Only differences count. Sums over hours would lose the last bits.
        self._scores = {face: score_G - top_G for face, score_G in scores.items()}
        self._lag_nats_G = self._lag_nats_G * (1 - 1 / LAG_MEMORY_SLOTS) + top_G

    def _trace(self) -> list[int | None]:
        """The best path through the undecided slots, at the lag with the most evidence."""
        lag = int((self._lag_nats_G - self._lag_costs_G).argmax())
        face = max(self._scores, key=lambda face: self._scores[face][lag], default=None)
        path: list[int | None] = []
        for origins in reversed(self._origins):
            path.append(face)
            face = int(origins[face][lag]) if face in origins else face
        return path[::-1]


class SpeakingFace(FaceChoice):
    """The lips of the face that speaks, by the sound of the same video.

    A decision comes at most 2.2 s later in a live stream, 11.2 s in a file.

    sound: blocks of samples [S] from media time 0, read as slots need them. After their end there is silence. None for
        a live stream: the samples come through `push_sound`, and a slot waits for its own.
    look_ahead_slots: a decision waits for this many slots of evidence, as in `SpeakerPath`; by default
        LOOK_AHEAD_SLOTS for a live stream, FILE_LOOK_AHEAD_SLOTS for a file.
    stream: where the evidence comes from, by default the trained network, once a second.
    """

    def __init__(
        self,
        sound: Iterator[Samples] | None = None,
        *,
        look_ahead_slots: int | None = None,
        stream: SynchronyStream | None = None,
    ) -> None:
        super().__init__()
        # Only here, because it needs torch, and other choices of a face do not.
        from avsr.speakers.synchrony import CHOICE_LAG_SLOTS, SynchronyStream

        if stream is None:
            stream = SynchronyStream(only_choices=True)
        if look_ahead_slots is None:
            look_ahead_slots = LOOK_AHEAD_SLOTS if sound is None else FILE_LOOK_AHEAD_SLOTS
        lag_costs = [LAG_NATS * abs(lag) for lag in range(-CHOICE_LAG_SLOTS, CHOICE_LAG_SLOTS + 1)]
        self._sound = sound
        self._samples = np.zeros(0, np.float32)
        self._stream = stream
        self._path = SpeakerPath(look_ahead_slots, lag_costs)
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
            decided += self._choose(self._path.push(of_slot.nats, sizes_of(slot), is_pause=of_slot.is_pause))
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
