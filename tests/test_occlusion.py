"""Whether something is before a mouth: the head, the decision over time, and what a tracker makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import avsr
from avsr.augment.video import occlude
from avsr.errors import ModelError
from avsr.grid import CROP_PX
from avsr.lips import occlusion
from avsr.lips import tracker as lips
from avsr.lips.crops import LIPS
from avsr.lips.faces import FaceFinder
from avsr.lips.occlusion import CoverState, cover_log_odds, follow_cover
from avsr.lips.quality import QualityRecord
from avsr.lips.slots import LipSlot, Slot
from avsr.lips.tracker import LipTracker, extract_lips, slots_of
from avsr.media import VideoFrame, iter_frames
from avsr.shipped import shipped_weights
from avsr.training.occlusion import head_input, shipped_occlusion_head
from tests.test_faces_lips import PlacedFaces, make_face

DEMO = Path(avsr.__file__).parent / "assets" / "demo.mp4"


@torch.inference_mode()
def as_in_training(crops: np.ndarray) -> np.ndarray:
    """The log odds of the shipped weights, by torch and in a batch: the network as it is trained."""
    log_odds: np.ndarray = shipped_occlusion_head()(head_input(torch.from_numpy(crops))).numpy()
    return log_odds


def verdicts(log_odds: Sequence[float]) -> str:
    state, found = CoverState(), ""
    for value in log_odds:
        state = follow_cover(state, value)
        found += "x" if state.is_covered else "."
    return found


class TestDecision:
    def test_single_looks_cover_nothing_and_a_doubtful_one_frees_nothing(self) -> None:
        assert "x" not in verdicts([-6, -6, 90, -6, -6, 90, -6, -6])
        assert verdicts([90] * 8 + [-2] + [90] * 4).endswith("x" * 11)

    def test_a_cover_is_noticed_and_gone_within_a_few_looks(self) -> None:
        found = verdicts([-6] * 5 + [6] * 20 + [-6] * 10)
        assert "x" not in found[:5] and set(found[10:25]) == {"x"} and set(found[30:]) == {"."}

    def test_between_the_thresholds_the_verdict_stays(self) -> None:
        between = (occlusion.COVERED_FROM + occlusion.FREE_BELOW) / 2
        assert "x" not in verdicts([between] * 20)
        assert verdicts([6] * 10 + [between] * 20).endswith("x" * 20)

    def test_only_the_past_counts_and_the_state_is_a_value(self) -> None:
        values = list(np.random.default_rng(1).normal(0, 6, 50))
        assert verdicts(values)[:30] == verdicts(values[:30])
        state = CoverState(1.0, True)
        assert follow_cover(state, 3.0) == follow_cover(state, 3.0)
        assert state == CoverState(1.0, True)


class TestHead:
    def test_it_is_small(self) -> None:
        assert sum(weight.numel() for weight in shipped_occlusion_head().parameters()) <= 50_000

    def test_weights_that_are_not_there_are_one_error(self) -> None:
        with pytest.raises(ModelError, match=r"nothing.model.safetensors: cannot be read.*install avsr again"):
            shipped_weights("nothing")

    def test_a_batch_is_as_its_crops_one_by_one_whatever_the_contrast(self) -> None:
        crops = extract_lips(DEMO).crops[10:20]
        together = as_in_training(crops)
        assert together == pytest.approx([cover_log_odds(crop[None])[0] for crop in crops], abs=1e-3)
        assert cover_log_odds((crops * 0.5 + 60).astype(np.uint8)) == pytest.approx(together, abs=2.0)

    def test_a_hand_over_most_of_the_crop_is_told_from_the_bare_mouth(self) -> None:
        crops = extract_lips(DEMO).crops
        covered = [cover_log_odds(occlude(crops, np.random.default_rng(seed), 0.6)[::5]) for seed in range(8)]
        assert float(np.median(covered)) > 2 and float(cover_log_odds(crops).max()) < 0


class TestTracker:
    @pytest.fixture
    def white_is_a_cover(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def judge(crops: np.ndarray) -> np.ndarray:
            return np.where(crops.mean((1, 2)) > 150, 6.0, -6.0).astype(np.float32)

        monkeypatch.setattr(lips, "cover_log_odds", judge)

    def slots(self, covered: range, count: int, missing: range = range(0)) -> list[Slot]:
        """Two faces side by side; the left one's mouth is white in the slots `covered`, and gone in `missing`."""
        left, right = make_face(0, 1.0, 100 + 110j), make_face(1, 1.0, 300 + 110j)
        placed = PlacedFaces([[right] if t in missing else [left, right] for t in range(count)])
        slots: list[Slot] = []
        with LipTracker(finder=placed) as tracker:  # type: ignore[arg-type]
            for t in range(count):
                picture = np.full((200, 400, 3), 100, np.uint8)
                picture[:, :200] = 220 if t in covered else 100
                slots += tracker.push(VideoFrame(t * 0.04, picture))
            return slots + tracker.finish(count * 0.04)

    @pytest.mark.usefixtures("white_is_a_cover")
    def test_of_two_faces_the_covered_one_is_not_read(self) -> None:
        slots = self.slots(range(10, 30), 45)
        reasons = [slot.lips[0].reason for slot in slots]
        assert set(reasons[:10]) == {"ok"} == set(reasons[35:]) and set(reasons[15:30]) == {"occluded"}
        assert all(slot.lips[1].reason == "ok" for slot in slots)
        covered = slots[20].lips[0]
        assert not covered.present and not covered.crop.any() and covered.face == 0
        assert covered.width_px == slots[0].lips[0].width_px and covered.yaw_deg == slots[0].lips[0].yaw_deg
        assert covered.opening == slots[0].lips[0].opening and math.isnan(covered.sharpness)

    @pytest.mark.usefixtures("white_is_a_cover")
    def test_a_face_that_was_away_starts_afresh(self) -> None:
        slots = self.slots(range(30), 40, missing=range(20, 30))
        assert [slot.lips[0].reason for slot in slots[10:20]] == ["occluded"] * 10
        assert [slot.lips[0].reason for slot in slots[30:]] == ["ok"] * 10

    @pytest.mark.usefixtures("white_is_a_cover")
    def test_the_record_says_how_much_of_the_time(self) -> None:
        record = QualityRecord()
        for slot in self.slots(range(10, 30), 45):
            record.add(slot)
        left, right = record.faces()
        assert left.covered == pytest.approx(20 / 45, abs=0.06) and right.covered == 0.0
        assert left.coverage == pytest.approx(1 - left.covered) and left.spans_s == ((0.0, 1.8),)


def held(frames: Iterator[VideoFrame], mouth: tuple[int, int], first_s: float, last_s: float) -> Iterator[VideoFrame]:
    """A hand's back, drawn, before the mouth from `first_s` to `last_s`."""
    for frame in frames:
        picture = frame.rgb.copy()
        if first_s <= frame.time_s < last_s:
            x, y = mouth
            cv2.ellipse(picture, (x, y + 4), (46, 34), 0, 0, 360, (176, 132, 110), -1, cv2.LINE_AA)
            cv2.line(picture, (x, y + 10), (x + 30, y + 130), (176, 132, 110), 56, cv2.LINE_AA)
            for side in (-24, -8, 8, 24):
                cv2.line(picture, (x + side, y - 14), (x + side, y + 12), (140, 100, 84), 2, cv2.LINE_AA)
        yield VideoFrame(frame.time_s, picture)


def mouth_of(path: Path) -> tuple[int, int]:
    with FaceFinder() as finder:
        (face,) = finder.follow(next(iter(iter_frames(path))))
    x, y = face.points_px[list(LIPS)].mean(axis=0)
    return round(float(x)), round(float(y))


def test_a_hand_before_a_real_mouth_is_noticed_and_its_leaving_too() -> None:
    slots: list[LipSlot] = [
        slot.of(0) for slot in slots_of(held(iter_frames(DEMO), mouth_of(DEMO), 1.0, 2.0), end_s=3.0)
    ]
    reasons = [slot.reason for slot in slots]
    assert set(reasons[:25]) == {"ok"} == set(reasons[60:])
    assert reasons[30:50].count("occluded") >= 16
    assert all(slot.crop.shape == (CROP_PX, CROP_PX) for slot in slots)


def test_bare_mouths_are_free() -> None:
    assert "occluded" not in extract_lips(DEMO).reasons


def test_one_crop_at_a_time_gives_what_a_batch_gives_in_any_thread() -> None:
    random = np.random.default_rng(1)
    crops = random.integers(0, 256, (20, CROP_PX, CROP_PX), np.uint8)
    crops = np.stack([cv2.GaussianBlur(crop, (0, 0), random.uniform(0.5, 6.0)) for crop in crops])
    crops[0] = 77
    expected = as_in_training(crops)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            one_by_one = np.concatenate(list(pool.map(cover_log_odds, crops[:, None])))
            np.testing.assert_allclose(one_by_one, expected, rtol=1e-3, atol=1e-3)
