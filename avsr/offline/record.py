"""The sound and the lips of a recording, slot by slot, small enough to keep for hours."""

from __future__ import annotations

from collections import Counter

import numpy as np

from avsr.grid import FRAME_MS, FRAME_SAMPLES, FRAME_SLOTS, SLOT_S
from avsr.lips.slots import Slot
from avsr.offline.tape import Window
from avsr.sound.silence import audible_frames, within_reach

FRAME_S = FRAME_MS / 1000

_REASONS = {
    "no_face": "no face found",
    "pose": "face turned away",
    "low_quality": "face too small",
    "occluded": "mouth covered",
    "late": "no picture",
}


class Record:
    """The sound and lips of a recording, slot by slot and frame by frame, small enough to keep for hours."""

    def __init__(self) -> None:
        self.spans: dict[int, tuple[int, int]] = {}
        """First and last slot of each face in the picture, whether its lips were used or not."""
        self.end_s = 0.0
        self.audible: list[bool] = []
        """Of each 80 ms frame: whether sound is within reach."""
        self._faces: list[int | None] = []
        self._reasons: Counter[str] = Counter()

    def note_faces(self, slot: Slot) -> None:
        """The next slot of the picture, with all faces."""
        for face in slot.lips:
            self.spans[face] = (self.spans.get(face, (slot.index, 0))[0], slot.index)

    def add(self, window: Window) -> None:
        """The next window."""
        start, end = (FRAME_SLOTS * (frame - window.first) for frame in window.keep)
        self._faces.extend(window.faces[start:end])
        self._reasons.update(window.reasons[start:end])
        self.audible.extend(_audible(window))
        self.end_s = window.keep[1] * FRAME_S

    @property
    def is_audible(self) -> bool:
        return any(self.audible)

    @property
    def num_lips(self) -> int:
        """Slots with lips that were used."""
        return self._reasons["ok"]

    @property
    def coverage(self) -> float:
        return self.num_lips / len(self._faces) if self._faces else 0.0

    def faces_between(self, start_s: float, end_s: float) -> list[int]:
        """The face of each slot with lips between two times, or of the one slot in which a short word lies."""
        first, end = (round(time_s / SLOT_S) for time_s in (start_s, end_s))
        return [face for face in self._faces[first : max(end, first + 1)] if face is not None]

    def audible_between(self, start_s: float, end_s: float) -> bool:
        # Rounding of times must not add a neighbouring frame.
        first, end = int(start_s / FRAME_S + 1e-6), int(np.ceil(end_s / FRAME_S - 1e-6))
        return any(self.audible[first:end])

    def who(self) -> str:
        """The faces and when each was in the picture, for messages."""
        spans = (
            f"{face} ({first * SLOT_S:.1f}-{(last + 1) * SLOT_S:.1f} s)" for face, (first, last) in self.spans.items()
        )
        return f"faces {', '.join(spans)}" if self.spans else "no faces"

    def why_no_lips(self) -> str:
        reason = self._reasons.most_common(1)[0][0] if self._reasons else "late"
        return _REASONS.get(reason, reason)


def _audible(window: Window) -> list[bool]:
    """Of each frame that the window decides on: whether there is sound within reach."""
    audible = np.zeros(window.keep[1] - window.first, bool)
    if window.samples is not None:
        frames = audible_frames(window.samples, FRAME_SAMPLES)
        audible = np.pad(frames, (0, max(0, len(audible) - len(frames))))
    start, end = (frame - window.first for frame in window.keep)
    return within_reach(audible)[start:end].tolist()
