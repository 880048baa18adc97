"""How well the lips of each face can be read: size, sharpness, pose, and how much of the time they are seen."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import numpy.typing as npt

from avsr.grid import SLOT_S
from avsr.lips.slots import LipSlot, Slot


@dataclasses.dataclass(frozen=True)
class FaceQuality:
    """One face over a whole video."""

    id: int
    spans_s: tuple[tuple[float, float], ...]
    """When it was seen, as (start, end) in media seconds."""
    coverage: float
    """Share of all slots of the video in which its lips can be read."""
    width_px: float
    """Median width of the face, over the slots in which it was seen."""
    sharpness: float
    """Median of `sharpness`, over the slots in which it was measured. NaN if it never was."""
    yaw_deg: float
    """Median turn of the head to either side, over the slots in which it was seen."""
    covered: float = 0.0
    """Share of the slots in which it was seen that have something before its mouth."""


class QualityRecord:
    """Gathers the measures of each face over a video: a few numbers a slot, and no crops."""

    def __init__(self) -> None:
        self._num_slots = 0
        self._measures: dict[int, list[tuple[int, bool, bool, float, float, float]]] = {}

    def add(self, slot: Slot) -> None:
        """Take in the next slot."""
        self._num_slots += 1
        for number, lips in slot.lips.items():
            if _is_seen(lips):
                is_covered = lips.reason == "occluded"
                row = (lips.index, lips.present, is_covered, lips.width_px, lips.sharpness, abs(lips.yaw_deg))
                self._measures.setdefault(number, []).append(row)

    def faces(self) -> list[FaceQuality]:
        """The faces so far, by rising id."""
        found = []
        for number, rows in sorted(self._measures.items()):
            index, present, covered, width, sharp, yaw = (np.array(column) for column in zip(*rows, strict=True))
            breaks = np.flatnonzero(np.diff(index) > 1)
            starts, ends = index[np.r_[0, breaks + 1]], index[np.r_[breaks, len(index) - 1]] + 1
            found.append(
                FaceQuality(
                    id=number,
                    spans_s=tuple(
                        (round(float(start) * SLOT_S, 3), round(float(end) * SLOT_S, 3))
                        for start, end in zip(starts, ends, strict=True)
                    ),
                    coverage=float(present.sum()) / self._num_slots,
                    width_px=_median(width),
                    sharpness=_median(sharp),
                    yaw_deg=_median(yaw),
                    covered=float(covered.mean()),
                )
            )
        return found


def sharpness(crop: npt.NDArray[np.uint8]) -> float:
    """The fine detail of a crop uint8 [H, W] in relation to its coarse shape, from 0; 0.0 for a flat crop.

    A Gaussian of 1 pixel splits the crop into a coarse part and detail. The result is the ratio of their deviations,
    so contrast and brightness do not matter.
    """
    picture = crop.astype(np.float32)
    coarse = cv2.GaussianBlur(picture, (0, 0), 1.0)
    spread, detail = (float(cv2.meanStdDev(part)[1].item()) for part in (coarse, picture - coarse))
    # A nearly flat crop holds rounding errors only, and their ratio would be any number.
    return detail / spread if spread > 0.5 else 0.0


def _is_seen(lips: LipSlot) -> bool:
    # A bridged slot has no measures, but its lips are read: the face counts as seen in it.
    return lips.reason != "late" and (lips.present or not math.isnan(lips.width_px))


def _median(values: npt.NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else math.nan
