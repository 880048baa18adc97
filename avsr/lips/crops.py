"""The geometry of a lip crop: where a mouth is, how it is cut out of a picture, and whether it can be read.

A crop is a similarity transform of the picture. It puts the mouth at the centre, upright and at a fixed size relative
to the head, so that what moves in the crop is the mouth and not the head.

Places in a picture are complex numbers, x + iy in pixels from the corner of the first pixel. One complex factor is a
rotation and a scale.

Letters: T slots, H W pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Crops
from avsr.grid import CROP_PX, LIP_INPUT_PX
from avsr.lips.face_models import LEFT_EYE, NUM_POINTS, RIGHT_EYE, Points, mean_of
from avsr.lips.slots import Crop

if TYPE_CHECKING:
    from avsr.media import Picture

# Points of the face mesh.
NOSE = (1, 4, 5, 6, 168, 195, 197)
_OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
LIPS = _OUTER_LIPS + _INNER_LIPS
_MOUTH_CORNERS = (61, 291)
_INNER_UPPER, _INNER_LOWER = (82, 13, 312), (87, 14, 317)

# One product with this matrix takes all four means at once, in a quarter of the time.
_ANCHOR_WEIGHTS = np.zeros((4, NUM_POINTS))
for _row, _part in zip(_ANCHOR_WEIGHTS, (RIGHT_EYE, LEFT_EYE, NOSE, LIPS), strict=True):
    _row[list(_part)] = 1 / len(_part)

_EYE_DISTANCE_PX = 52.0
TEMPLATE = _EYE_DISTANCE_PX * np.array([-0.5 - 1.174j, 0.5 - 1.174j, -0.887j, 0.0])
"""Where the anchors of a mean face are in the crop, from its centre. Proportions are means over 13 talkers. Eyes 52
pixels apart make the mouth 42 pixels wide (44 % of the crop), with the base of the nose and the chin inside."""
_TEMPLATE_SPREAD = TEMPLATE - TEMPLATE.mean()

_MIN_MOUTH_PX = 10.0
_MAX_TURN = 0.5  # sideways shift of the nose from the middle between the eyes, in eye distances; profiles give 0.5-0.7

Anchors = NDArray[np.complex128]
"""[4]: right eye, left eye, nose and lips of a face, each the mean of its points."""


def anchors_of(points_px: Points) -> Anchors:
    """The anchors of a face from the points [468, 2] of its mesh."""
    x, y = (_ANCHOR_WEIGHTS @ points_px.astype(np.float64)).T
    return np.asarray(x + 1j * y)


def rotation_and_scale(anchors: Anchors) -> complex:
    """The least-squares similarity from a face to the template, without its shift.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991. In the plane,
    with places as complex numbers and no reflection, the fit is one complex factor.
    """
    spread = anchors - anchors.mean()
    return complex(np.vdot(spread, _TEMPLATE_SPREAD) / np.vdot(spread, spread).real)


def cut_crop(picture: Picture, transform: complex, centre: complex) -> Crop:
    """The grey crop, uint8 [96, 96], around `centre`: crop = transform x (picture - centre) + the crop's centre.

    Beyond the edge of the picture its last pixels are repeated.
    """
    inverse = 1 / transform
    corner = centre - inverse * complex(CROP_PX, CROP_PX) / 2
    to_frame = np.array([[inverse.real, -inverse.imag, corner.real], [inverse.imag, inverse.real, corner.imag]])
    return picture.grey_warp(to_frame, CROP_PX)


def centre_crop(crops_THW: Crops) -> Crops:
    """The middle of each crop, [T, 96, 96] -> [T, 88, 88]: what the visual encoder reads outside training."""
    top, left = ((side - LIP_INPUT_PX) // 2 for side in crops_THW.shape[1:])
    return crops_THW[:, top : top + LIP_INPUT_PX, left : left + LIP_INPUT_PX]


def lip_reason(points_px: Points, anchors: Anchors, picture: Picture) -> str:
    """ "ok" if the lips of a face can be read, else "pose" (turned away) or "low_quality" (too few pixels)."""
    right_eye, left_eye, nose, lips = anchors
    eyes = left_eye - right_eye
    # Eyes that fall together are a profile, and would divide by zero below.
    if abs(eyes) < 1.0:
        return "pose"
    if abs(((nose - (right_eye + left_eye) / 2) / eyes).real) > _MAX_TURN:
        return "pose"
    # The mouth is measured from eyes to lips too: a turned mouth is narrow, but no worse resolved.
    right_corner, left_corner = points_px[list(_MOUTH_CORNERS)]
    mouth_px = max(float(np.hypot(*(left_corner - right_corner))), 0.7 * abs(lips - (right_eye + left_eye) / 2))
    # The mesh puts lips beyond the edge of the picture too, where a crop would show repeated edge pixels.
    is_inside = 0 <= lips.real < picture.width and 0 <= lips.imag < picture.height
    if mouth_px < _MIN_MOUTH_PX or not is_inside:
        return "low_quality"
    return "ok"


def lip_opening(points_px: Points) -> float:
    """Distance between the inner edges of the lips, in eye distances. NaN if the eyes are not apart."""
    open_px = math.hypot(*(mean_of(points_px, _INNER_LOWER) - mean_of(points_px, _INNER_UPPER)))
    eyes_px = math.hypot(*(mean_of(points_px, LEFT_EYE) - mean_of(points_px, RIGHT_EYE)))
    return open_px / eyes_px if eyes_px >= 1.0 else math.nan
