"""What can happen to lip crops: position, turn, size, mirror, sharpness, a covered mouth, frames without a face."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform

from avsr.models.config import LIP_INPUT_PX


def centre_crop(crops_THW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of each crop, [T, 96, 96] -> [T, 88, 88]: what the visual encoder reads outside training."""
    top, left = ((side - LIP_INPUT_PX) // 2 for side in crops_THW.shape[1:])
    return crops_THW[:, top : top + LIP_INPUT_PX, left : left + LIP_INPUT_PX]


def vary_lips(crops_THW: NDArray[np.uint8], strength: float, random: np.random.Generator) -> NDArray[np.uint8]:
    """One clip seen a little differently: [T, 96, 96] -> [T, 88, 88].

    The whole clip is shifted (to 5 px), turned (to 8 degrees), scaled (to 12 %) and mirrored or not, the same in each
    frame; one clip in five is blurred. strength in [0, 1] scales the ranges.
    """
    clip_TCHW = torch.from_numpy(crops_THW)[:, None]
    if random.random() < 0.5:
        clip_TCHW = transform.horizontal_flip(clip_TCHW)
    shift_px = [float(value) for value in random.uniform(-5, 5, 2) * strength]
    clip_TCHW = transform.affine(
        clip_TCHW,
        angle=float(random.uniform(-8, 8) * strength),
        translate=shift_px,
        scale=float(1 + random.uniform(-0.12, 0.12) * strength),
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
        fill=[float(crops_THW.mean())],
    )
    clip_TCHW = transform.center_crop(clip_TCHW, [LIP_INPUT_PX, LIP_INPUT_PX])
    if random.random() < 0.2 * strength:
        small = int(random.integers(24, 56))
        clip_TCHW = transform.resize(clip_TCHW, [small, small], antialias=True)
        clip_TCHW = transform.resize(clip_TCHW, [LIP_INPUT_PX, LIP_INPUT_PX], antialias=False)
    return clip_TCHW[:, 0].numpy()


def hide_slots(presence_T: NDArray[np.bool_], longest: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Presence with one random stretch of up to `longest` slots taken away."""
    presence_T = presence_T.copy()
    length = int(random.integers(0, longest + 1))
    start = int(random.integers(0, max(1, len(presence_T) - length + 1)))
    presence_T[start : start + length] = False
    return presence_T
