"""Searching a part of a picture for faces. Small faces are found in a part, because a detector sees it larger."""

from __future__ import annotations

import numpy as np

from avsr.lips.face_models import Box, Detection, FaceModels
from avsr.media import Picture

PART_SIDE_PX = 400
"""Side of a part in which the detector still finds a face of 40 pixels."""

_PART_OVERLAP = 1 / 3
_QUARTER = 0.6  # of the width and the height of a picture: a face at a seam is whole in one quarter


def detect_in(
    models: FaceModels, picture: Picture, part: Box, side_px: int = PART_SIDE_PX, *, turned: bool = False
) -> list[Detection]:
    """Faces in a part of the picture.

    part: the part, in frame pixels. It is black beyond the picture.
    side_px: the part is scaled down to this, if its longer side is longer.
    turned: whether the detector gets the part turned by 180 degrees.
    """
    left, top, right, bottom = (round(edge) for edge in (part.left, part.top, part.right, part.bottom))
    inner_left, inner_top = max(0, left), max(0, top)
    inner_right, inner_bottom = min(picture.width, right), min(picture.height, bottom)
    if min(inner_right - inner_left, inner_bottom - inner_top) < 2:
        return []
    scale = min(1.0, side_px / max(right - left, bottom - top))
    size = [max(1, round(length * scale)) for length in (inner_right - inner_left, inner_bottom - inner_top)]
    shown = picture.rgb_part(inner_left, inner_top, inner_right, inner_bottom, (size[0], size[1]))
    before_x, before_y = round(max(0, -left) * scale), round(max(0, -top) * scale)
    after_x, after_y = (
        round(max(0, right - picture.width) * scale),
        round(max(0, bottom - picture.height) * scale),
    )
    if before_x or before_y or after_x or after_y:
        shown = np.pad(shown, ((before_y, after_y), (before_x, after_x), (0, 0)))
    found = models.detect(np.ascontiguousarray(shown[::-1, ::-1]) if turned else shown)
    return [_placed(detection, complex(left, top), scale, shown.shape if turned else None) for detection in found]


def parts_of(width: int, height: int) -> list[Box]:
    """Squares that overlap and cover a picture. None for a small picture: the search of the whole does as well."""
    if max(width, height) <= 1.5 * PART_SIDE_PX:
        return []

    def starts(length: int) -> list[float]:
        """Left or top edges of the squares."""
        count = 1 + int(np.ceil(max(0, length - PART_SIDE_PX) / (PART_SIDE_PX * (1 - _PART_OVERLAP))))
        return [index * (length - PART_SIDE_PX) / max(1, count - 1) for index in range(count)]

    return [Box(x, y, x + PART_SIDE_PX, y + PART_SIDE_PX) for y in starts(height) for x in starts(width)]


def quarters_of(width: int, height: int) -> list[Box]:
    """Four boxes that overlap and cover a picture. None for a small picture, as in `parts_of`."""
    if max(width, height) <= 1.5 * PART_SIDE_PX:
        return []
    wide, high = _QUARTER * width, _QUARTER * height
    return [Box(x, y, x + wide, y + high) for y in (0, height - high) for x in (0, width - wide)]


def _placed(detection: Detection, corner: complex, scale: float, turned_shape: tuple[int, ...] | None) -> Detection:
    """A detection in a part of the frame, in pixels of the frame.

    corner: left top corner of the part in the frame, as x + iy.
    scale: pixels of the part a pixel of the frame.
    turned_shape: [H, W, ...] of the part if it was turned by 180 degrees, else None.
    """
    box, points = detection.box, detection.points_px
    if turned_shape is not None:
        height, width = turned_shape[:2]
        box = Box(width - box.right, height - box.bottom, width - box.left, height - box.top)
        points = np.array([width, height], np.float32) - points
    x, y = corner.real, corner.imag
    return Detection(
        Box(box.left / scale + x, box.top / scale + y, box.right / scale + x, box.bottom / scale + y),
        points / scale + np.array([x, y], np.float32),
        detection.score,
    )
