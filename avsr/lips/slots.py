"""The lips of each face in one 40 ms slot of the media clock: the crop, and whether and why it can be read.

Letters: T slots.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from avsr.arrays import Crops, Present
from avsr.grid import CROP_PX

Crop = npt.NDArray[np.uint8]
"""One lip crop, [96, 96] grey."""


@dataclasses.dataclass(frozen=True)
class LipSlot:
    """The lips of one face in one slot, with measures of the face.

    Measures are NaN if the face is not seen in the slot itself, as in a slot that is bridged.
    """

    index: int
    """The slot covers the 40 ms from `index` x 40 ms."""
    crop: Crop
    """Uint8 [96, 96] grey, zeros if not present."""
    present: bool
    """Whether the crop shows lips that can be read."""
    reason: str
    """"ok" if present, else why not: "no_face" (nobody, or out of sight for a moment), "pose" (turned away),
    "low_quality" (too few pixels), "occluded" (something covers the mouth) or "late" (no picture near)."""
    face: int | None
    """The id of the face, None without a face."""
    opening: float = math.nan
    """Distance between the inner lips, in eye distances."""
    width_px: float = math.nan
    """Width of the face."""
    sharpness: float = math.nan
    """Sharpness of the crop as `quality.sharpness` gives it, measured in every third slot."""
    yaw_deg: float = math.nan
    """Turn of the head, as in `Face`."""


@dataclasses.dataclass(frozen=True)
class Slot:
    """The lips of all faces in one slot."""

    index: int
    """The slot covers the 40 ms from `index` x 40 ms."""
    lips: dict[int, LipSlot]
    """By face id, for all faces that are followed. A face out of sight for a moment is not present."""
    reason: str = "no_face"
    """Why there are no faces, if `lips` is empty: "no_face" or "late"."""

    def of(self, face: int | None) -> LipSlot:
        """The lips of this face, or an empty slot if it is not followed."""
        if face is not None and face in self.lips:
            return self.lips[face]
        return LipSlot(self.index, no_crop(), False, self.reason, None)


@dataclasses.dataclass(frozen=True)
class LipTrack:
    """The lips that are read over a whole video, slot by slot."""

    crops: Crops
    """[T, 96, 96], zeros if not present."""
    present: Present
    """[T]"""
    reasons: list[str]
    """Why a slot is not present, as in `LipSlot`; T of them."""
    faces: list[int | None]
    """The face of each slot, None without a face."""
    fps: float
    """Pictures per second of the source."""


def no_crop() -> Crop:
    """The crop of a slot without lips: zeros."""
    return np.zeros((CROP_PX, CROP_PX), np.uint8)
