"""A picture with some lip crops of each face, to check at a glance what a model gets to see."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from avsr.grid import CROP_PX, SLOT_S
from avsr.lips.slots import Slot

COLUMNS = 12
MAX_FACES = 16

_LABEL_PX = 18
_GAP_PX = 4
_INK = 230
_PAPER = 32
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class SheetRecord:
    """Keeps crops of each face, evenly over its time: at most 24 a face and 16 faces, however long the video is."""

    def __init__(self) -> None:
        self._crops: dict[int, list[tuple[int, NDArray[np.uint8]]]] = {}
        self._num_seen: dict[int, int] = {}
        self._step: dict[int, int] = {}

    def add(self, slot: Slot) -> None:
        """Take in the next slot."""
        for number, lips in slot.lips.items():
            if not lips.present:
                continue
            count = self._num_seen[number] = self._num_seen.get(number, 0) + 1
            step = self._step.setdefault(number, 1)
            # The length of the video is not known yet, so crops are thinned out as it goes on.
            if (count - 1) % step:
                continue
            kept = self._crops.setdefault(number, [])
            kept.append((slot.index, lips.crop))
            if len(kept) >= 2 * COLUMNS:  # drop every second crop, and take half as many from now on
                self._crops[number], self._step[number] = kept[::2], 2 * step
            if len(self._crops) > MAX_FACES:  # drop the face that was seen least, but none of this slot
                del self._crops[min(self._crops, key=lambda face: (face in slot.lips, self._num_seen[face]))]

    def draw(self, labels: dict[int, str]) -> NDArray[np.uint8]:
        """The sheet, uint8 [H, W] grey: one row a face with the time below each crop.

        labels: the text above each row, by face id. Rows come in this order; faces without a label are left out.
        """
        rows = [number for number in labels if number in self._crops]
        row_px = CROP_PX + 2 * _LABEL_PX + _GAP_PX
        width = COLUMNS * (CROP_PX + _GAP_PX) + _GAP_PX
        sheet = np.full((max(1, len(rows)) * row_px + _GAP_PX, width), _PAPER, np.uint8)
        if not rows:
            cv2.putText(sheet, "no lips were seen", (_GAP_PX, 2 * _LABEL_PX), _FONT, 0.5, _INK, 1, cv2.LINE_AA)
        for row, number in enumerate(rows):
            top = _GAP_PX + row * row_px
            cv2.putText(sheet, labels[number], (_GAP_PX, top + 13), _FONT, 0.45, _INK, 1, cv2.LINE_AA)
            kept = self._crops[number]
            # `np.unique`, because a face with few crops would show some of them twice.
            chosen = np.unique(np.linspace(0, len(kept) - 1, COLUMNS).round().astype(int))
            for column, index in enumerate(chosen):
                slot, crop = kept[index]
                left = _GAP_PX + column * (CROP_PX + _GAP_PX)
                sheet[top + _LABEL_PX : top + _LABEL_PX + CROP_PX, left : left + CROP_PX] = crop
                time = f"{slot * SLOT_S:.2f} s"
                bottom = top + _LABEL_PX + CROP_PX + 13
                cv2.putText(sheet, time, (left, bottom), _FONT, 0.4, _INK, 1, cv2.LINE_AA)
        return sheet
