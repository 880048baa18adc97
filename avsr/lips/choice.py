"""Whose lips are read, slot by slot, of all the faces in a video.

A choice takes the slots of `LipTracker` in order and gives, for each, the lips of one face. One that has to hear or see
more first may hold slots back: it gives them later, in order, and all of them at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from avsr.errors import ConfigError

if TYPE_CHECKING:
    from avsr.lips.slots import LipSlot, Slot

_LARGER = 1.25  # a face takes over only when it is so many times as wide as the one that is read,
_TAKE_OVER_SLOTS = 15  # or that one cannot be seen, and either for so long


class FaceChoice:
    """Base of the choices, and the simplest: one face by its number, nobody else's."""

    def __init__(self, face: int | None = None) -> None:
        self.face = face
        """Whose lips are read now."""

    def push(self, slot: Slot) -> list[LipSlot]:
        """The slots, in order, that the next one decides on."""
        return [slot.of(self.face)]

    def finish(self) -> list[LipSlot]:
        """All slots that are left. No other may follow."""
        return []

    def follow(self, slots: Iterable[Slot]) -> Iterator[LipSlot]:
        """The lips to read of a whole video."""
        for slot in slots:
            yield from self.push(slot)
        yield from self.finish()


class LargestFace(FaceChoice):
    """The largest face. It stays with a face until that ends, or another is clearly larger, or it alone is to be seen,
    for 0.6 s: lips that change hands from slot to slot are nobody's."""

    def __init__(self) -> None:
        super().__init__()
        self._rival_slots = 0

    def push(self, slot: Slot) -> list[LipSlot]:
        seen = {number: lips for number, lips in slot.lips.items() if lips.width_px > 0}  # not NaN
        if seen:
            largest = max(seen, key=lambda number: (seen[number].present, seen[number].width_px))
            if self.face not in slot.lips:
                self.face, self._rival_slots = largest, 0
            elif largest != self.face:
                ours = seen.get(self.face)
                is_better = ours is None or not ours.present or seen[largest].width_px > _LARGER * ours.width_px
                self._rival_slots = self._rival_slots + 1 if is_better and seen[largest].present else 0
                if self._rival_slots >= _TAKE_OVER_SLOTS:
                    self.face, self._rival_slots = largest, 0
            else:
                self._rival_slots = 0
        return super().push(slot)


def face_choice(face: str) -> FaceChoice:
    """The choice that "auto", "largest" or the number of a face stands for. Raises ConfigError for another `face`.

    "auto" is the largest face, too: with sound at hand, use `avsr.speakers.speaking_face.SpeakingFace` for it.
    """
    if face in ("auto", "largest"):
        return LargestFace()
    if face.isascii() and face.isdigit() and len(face) <= 9:
        return FaceChoice(int(face))
    raise ConfigError("unknown choice of face", got=face, expected="auto, largest or the number of a face")
