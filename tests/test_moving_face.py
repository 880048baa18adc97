"""Without sound, the face whose lips move is read."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from avsr.lips.choice import LargestFace
from avsr.lips.slots import LipSlot, Slot, no_crop
from avsr.speakers.moving_face import MovingFace

Openings = list[float]


def still(slots: int) -> Openings:
    return [0.05] * slots


def talking(slots: int, seed: int = 0) -> Openings:
    return [*np.random.default_rng(seed).uniform(0.02, 0.3, slots)]


def shown(faces: dict[int, tuple[float, Openings]]) -> list[Slot]:
    """Slots with these faces: width and openings by id; NaN for a face that is out of sight."""
    slots: list[Slot] = []
    for index in range(max(len(openings) for _, openings in faces.values())):
        lips = {}
        for face, (width, openings) in faces.items():
            if index < len(openings):
                seen = openings[index] == openings[index]
                width_px = width if seen else np.nan
                reason = "ok" if seen else "no_face"
                lips[face] = LipSlot(index, no_crop(), seen, reason, face, openings[index], width_px)
        slots.append(Slot(index, lips))
    return slots


def read(slots: list[Slot]) -> list[int | None]:
    return [lips.face for lips in MovingFace().follow(slots)]


@pytest.mark.parametrize("width", [60.0, 100.0, 200.0])
def test_the_speaker_wins_over_a_photo_of_any_size(width: float) -> None:
    assert read(shown({0: (width, still(75)), 1: (100.0, talking(75))})) == [1] * 75


def test_the_first_words_are_read_too() -> None:
    """The decision waits for 2 s of pictures, so the speaker is known before the lips move."""
    faces = read(shown({0: (120.0, still(150)), 1: (100.0, still(50) + talking(100))}))
    assert faces[20:] == [1] * 130


def test_speakers_take_turns() -> None:
    """Of faces of one size the other one is read once the first has hardly moved for some seconds."""
    first = talking(150) + still(150)
    faces = read(shown({0: (100.0, first), 1: (100.0, still(150) + talking(150))}))
    assert faces[:150] == [0] * 150 and faces[200:] == [1] * 100


def test_in_a_pause_the_last_speaker_stays() -> None:
    faces = read(shown({0: (130.0, still(300)), 1: (100.0, talking(100) + still(100) + talking(100))}))
    assert faces == [1] * 300


def test_the_largest_face_is_read_where_nobody_moves_or_everybody_does() -> None:
    assert read(shown({0: (100.0, still(75)), 1: (130.0, still(75))})) == [1] * 75
    assert read(shown({0: (100.0, talking(75, 1)), 1: (130.0, talking(75, 2))})) == [1] * 75


def test_nobody_moves_and_another_face_becomes_larger() -> None:
    slots = shown({0: (100.0, still(40)), 1: (90.0, still(40))})
    grown = {1: dataclasses.replace(slots[0].lips[1], width_px=200.0)}
    slots += [Slot(index, {**slots[0].lips, **grown}) for index in range(40, 90)]
    assert read(slots) == [lips.face for lips in LargestFace().follow(slots)]
    assert read(slots)[-1] == 1


@pytest.mark.parametrize("gap", [0, 10, 30])
def test_one_face_at_a_time_is_read_as_by_the_largest_face(gap: int) -> None:
    """It moves, gets out of sight, comes back with another id, or ends at a cut shortly before the end."""
    hidden = [float("nan")] * gap
    one = {0: (100.0, talking(60) + hidden)}
    two = {1: (80.0, hidden + talking(12))}
    slots = shown(one) + [dataclasses.replace(slot, index=slot.index + 60 + gap) for slot in shown(two)]
    overlapping = shown({0: (100.0, talking(60) + hidden), 1: (80.0, [float("nan")] * 60 + talking(gap + 12))})
    for film in (slots, overlapping):
        expected = [(lips.index, lips.face, lips.present) for lips in LargestFace().follow(film)]
        assert [(lips.index, lips.face, lips.present) for lips in MovingFace().follow(film)] == expected
