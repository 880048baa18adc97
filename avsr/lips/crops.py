"""Lip crops as a visual encoder reads them."""

from __future__ import annotations

from avsr.arrays import Crops
from avsr.grid import LIP_INPUT_PX


def centre_crop(crops_THW: Crops) -> Crops:
    """The middle of each crop, [T, 96, 96] -> [T, 88, 88]: what the visual encoder reads outside training."""
    top, left = ((side - LIP_INPUT_PX) // 2 for side in crops_THW.shape[1:])
    return crops_THW[:, top : top + LIP_INPUT_PX, left : left + LIP_INPUT_PX]
