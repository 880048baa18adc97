"""The choice of the face that is read, slot by slot.

A choice takes the slots of `LipTracker` in order and gives the lips of one face for each. It may hold slots back until
it has more evidence. Then it gives them later, in order, and the last ones at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from avsr.errors import ConfigError
from avsr.lips.slots import LipSlot, Slot

_LARGER = 1.25  # another face is clearly larger if it is this many times as wide as the face that is read
_TAKE_OVER_SLOTS = 15  # it takes over after this many slots in a row


class FaceChoice:
    """One face by its id, and no other. Base of the other choices."""

    def __init__(self, face: int | None = None) -> None:
        self.face = face
        """The id of the face that is read now."""

    def push(self, slot: Slot) -> list[LipSlot]:
        """The lips of the slots that the next slot decides, in order."""
        return [slot.of(self.face)]

    def finish(self) -> list[LipSlot]:
        """The lips of all remaining slots. No slot may follow."""
        return []

    def follow(self, slots: Iterable[Slot]) -> Iterator[LipSlot]:
        """The lips to read of a whole video."""
        for slot in slots:
            yield from self.push(slot)
        yield from self.finish()


class LargestFace(FaceChoice):
    """The largest face, without flicker: lips that change from face to face belong to nobody.

    The choice stays with a face until the finder drops it. Another face takes over earlier if, for 0.6 s, it is clearly
    larger or the chosen face cannot be read.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rival_slots = 0

    def push(self, slot: Slot) -> list[LipSlot]:
        # A face out of sight for a moment has no width. It stays followed and must not be chosen.
        seen = {number: lips for number, lips in slot.lips.items() if lips.width_px > 0}  # False for NaN
        if seen:
            largest = max(seen, key=lambda number: (seen[number].present, seen[number].width_px))
            # The finder has dropped the face that was read, so nobody has to wait.
            if self.face not in slot.lips:
                self.face, self._rival_slots = largest, 0
            elif largest != self.face:
                ours = seen.get(self.face)
                is_better = ours is None or not ours.present or seen[largest].width_px > _LARGER * ours.width_px
                # A rival without readable lips would be no gain, however large it is.
                self._rival_slots = self._rival_slots + 1 if is_better and seen[largest].present else 0
                if self._rival_slots >= _TAKE_OVER_SLOTS:
                    self.face, self._rival_slots = largest, 0
            else:
                self._rival_slots = 0
        return super().push(slot)


def face_choice(face: str) -> FaceChoice:
    """The choice for "auto", "largest" or the id of a face. Raises ConfigError for any other `face`.

    "auto" gives the largest face here. For files, use `avsr.speakers.speaking_face.SpeakingFace` for it instead, or
    without sound `avsr.speakers.moving_face.MovingFace`.
    """
    if face in ("auto", "largest"):
        return LargestFace()
    # `isdigit` alone accepts digits of other scripts and numbers of any length.
    if face.isascii() and face.isdigit() and len(face) <= 9:
        return FaceChoice(int(face))
    raise ConfigError("unknown choice of face", got=face, expected="auto, largest or the number of a face")
