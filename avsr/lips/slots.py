"""What the lips of each face are in one 40 ms slot of the media clock: the crop, and whether and why it can be read."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from avsr.grid import CROP_PX

Crop = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class LipSlot:
    """The lips of one face in the 40 ms from `index` x 40 ms.

    crop: uint8 [96, 96] grey, zeros where not present. reason: "ok" where present, else "no_face" (nobody, or out of
    sight for the moment), "pose" (turned away), "low_quality" (too few pixels), "occluded" (something before the mouth)
    or "late" (no picture near). face: its identity, None where there is no face.

    What was measured, NaN where the face is not seen itself (bridged slots among them): opening, of the inner lips, in
    eye distances; width_px, of the face; sharpness of the crop in every third slot, see `quality.sharpness`; yaw_deg,
    as in `Face`.
    """

    index: int
    crop: Crop
    present: bool
    reason: str
    face: int | None
    opening: float = math.nan
    width_px: float = math.nan
    sharpness: float = math.nan
    yaw_deg: float = math.nan


@dataclasses.dataclass(frozen=True)
class Slot:
    """Everybody's lips in the 40 ms from `index` x 40 ms.

    lips: by face, for all that are followed, also those out of sight for the moment (not present). reason: why a slot
    without faces has none, "no_face" or "late".
    """

    index: int
    lips: dict[int, LipSlot]
    reason: str = "no_face"

    def of(self, face: int | None) -> LipSlot:
        """The lips of that face, or an empty slot where it is not followed."""
        if face is not None and face in self.lips:
            return self.lips[face]
        return LipSlot(self.index, no_crop(), False, self.reason, None)


@dataclasses.dataclass(frozen=True)
class LipTrack:
    """The lip slots of one face at a time over a whole video: crops uint8 [T, 96, 96], present bool [T], reasons and
    faces of length T.

    fps: pictures per second of the source.
    """

    crops: npt.NDArray[np.uint8]
    present: npt.NDArray[np.bool_]
    reasons: list[str]
    faces: list[int | None]
    fps: float


def no_crop() -> Crop:
    return np.zeros((CROP_PX, CROP_PX), np.uint8)
