"""How good lips are: what is measured of a crop, and what is gathered of a face over a video."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from avsr.grid import CROP_PX
from avsr.lips.quality import QualityRecord, sharpness
from avsr.lips.slots import LipSlot, Slot
from avsr.lips.tracker import extract_lips
from tests.media import shared_clip


def test_sharpness_falls_with_blur_and_ignores_contrast() -> None:
    crop = np.random.default_rng(1).integers(0, 256, (CROP_PX, CROP_PX), np.uint8)
    crop = cv2.GaussianBlur(crop, (0, 0), 0.8)
    blurred = [sharpness(cv2.GaussianBlur(crop, (0, 0), sigma)) for sigma in (0.5, 1.0, 2.0, 4.0)]
    assert sharpness(crop) > blurred[0] and blurred == sorted(blurred, reverse=True) and blurred[-1] < 0.1
    assert sharpness((crop // 2 + 60).astype(np.uint8)) == pytest.approx(sharpness(crop), rel=0.03)
    assert sharpness(np.full((CROP_PX, CROP_PX), 77, np.uint8)) == 0.0


def test_real_lips_out_of_focus_are_told_apart() -> None:
    track = extract_lips(shared_clip("grid_swiz3n.mpg"))
    sharp = [sharpness(crop) for crop in track.crops]
    soft = [sharpness(cv2.GaussianBlur(crop, (0, 0), 2.0)) for crop in track.crops]
    assert min(sharp) > 2 * max(soft)


def lips(index: int, reason: str, **measured: float) -> LipSlot:
    return LipSlot(index, np.zeros((CROP_PX, CROP_PX), np.uint8), reason == "ok", reason, 4, **measured)


def test_a_record_gathers_spans_coverage_and_medians() -> None:
    record = QualityRecord()
    for index in range(20):
        if 2 <= index < 8:  # in slot 5 bridged: present and not measured
            measured = {} if index == 5 else {"width_px": 50.0 + index, "sharpness": 0.2, "yaw_deg": -10.0}
            record.add(Slot(index, {4: lips(index, "ok", **measured)}))
        elif 12 <= index < 16:
            record.add(Slot(index, {4: lips(index, "pose", width_px=40.0, yaw_deg=50.0)}))
        elif 16 <= index < 18:
            record.add(Slot(index, {4: lips(index, "no_face")}))
        else:
            record.add(Slot(index, {}))
    (face,) = record.faces()
    assert (face.id, face.spans_s) == (4, ((0.08, 0.32), (0.48, 0.64)))
    assert face.coverage == pytest.approx(6 / 20)
    assert (face.width_px, face.sharpness, face.yaw_deg) == pytest.approx((52.0, 0.2, 10.0))


def test_no_faces_no_quality() -> None:
    record = QualityRecord()
    record.add(Slot(0, {}, "late"))
    assert record.faces() == []
