"""Finding and following faces, and turning them into lip crops on the 40 ms grid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from avsr.errors import ConfigError, MediaError
from avsr.features import lips
from avsr.features.faces import Box, Face, FaceFinder
from avsr.features.lips import CROP_PX, LOOK_AHEAD_SLOTS, LipSlot, LipTrack, LipTracker, extract_lips
from avsr.media import VideoFrame, iter_frames
from tests.media import shared_clip, shared_corpus


@pytest.fixture(scope="module")
def finder() -> Iterator[FaceFinder]:
    with FaceFinder() as finder:
        yield finder


# --- slots and geometry, with faces that are placed by hand ---


def make_face(number: int, transform: complex, centre: complex, skew: complex = 0) -> Face:
    """A face that `transform` x (z - centre) brings onto the template; skew moves its nose."""
    eyes_nose_lips = lips._TEMPLATE / transform + centre
    points = np.full(468, eyes_nose_lips[3])
    for part, anchor in zip((lips._RIGHT_EYE, lips._LEFT_EYE, lips._NOSE, lips._LIPS), eyes_nose_lips, strict=True):
        points[list(part)] = anchor
    points[list(lips._NOSE)] += skew
    points[61] -= 21 / transform
    points[291] += 21 / transform
    points_px = np.stack([points.real, points.imag], axis=1).astype(np.float32)
    return Face(number, points_px, Box(*points_px.min(axis=0), *points_px.max(axis=0)))


class PlacedFaces:
    """Stands in for a FaceFinder: gives the n-th picture it is shown the n-th face."""

    def __init__(self, faces: list[Face | None]) -> None:
        self.faces = faces
        self.shown: list[float] = []

    def reset(self) -> None:
        self.shown = []

    def follow(self, frame: VideoFrame) -> list[Face]:
        face = self.faces[len(self.shown)] if len(self.shown) < len(self.faces) else self.faces[-1]
        self.shown.append(frame.time_s)
        return [] if face is None else [face]


def grey_frame(time_s: float, value: int = 100) -> VideoFrame:
    return VideoFrame(time_s, np.full((200, 200, 3), value, np.uint8))


STILL = make_face(0, 1.0, 100 + 110j)


def track(
    times_s: list[float], faces: list[Face | None], end_s: float, values: list[int] | None = None
) -> tuple[list[LipSlot], PlacedFaces]:
    placed = PlacedFaces(faces)
    slots: list[LipSlot] = []
    with LipTracker(finder=placed) as tracker:  # type: ignore[arg-type]
        for number, time_s in enumerate(times_s):
            slots += tracker.push(grey_frame(time_s, values[number] if values else 100))
        slots += tracker.finish(end_s)
    assert [slot.index for slot in slots] == list(range(len(slots)))
    return slots, placed


def reasons_of(slots: list[LipSlot]) -> list[str]:
    return [slot.reason for slot in slots]


def test_each_slot_shows_the_nearest_picture_ties_to_the_earlier() -> None:
    times_s = [0.0, 0.02, 0.06, 0.1, 0.115, 0.13]  # slots at 0, 40 (tie of 20 and 60), 80 (tie of 60 and 100), 120
    slots, placed = track(times_s, [STILL], 0.16, values=[10, 20, 30, 40, 50, 60])
    assert [int(slot.crop[48, 48]) for slot in slots] == [10, 20, 30, 50]
    assert placed.shown == [0.0, 0.02, 0.06, 0.115]  # others are not even looked at


def test_a_picture_serves_two_slots_but_is_looked_at_once() -> None:
    slots, placed = track([0.0, 0.1, 0.2], [STILL], 0.24, values=[10, 20, 30])
    assert [int(slot.crop[48, 48]) for slot in slots] == [10, 10, 20, 20, 30, 30]
    assert placed.shown == [0.0, 0.1, 0.2]


def test_slots_without_a_picture_within_60_ms_are_late() -> None:
    slots, _ = track([0.2, 0.24, 0.52], [STILL], 0.6)
    assert reasons_of(slots) == ["late"] * 4 + ["ok"] * 4 + ["late"] * 4 + ["ok"] * 3
    assert all(not slot.present and not slot.crop.any() for slot in slots if slot.reason == "late")


@pytest.mark.parametrize(("end_s", "num_slots"), [(0.0, 0), (0.0401, 2), (0.08, 2), (0.3, 8)])
def test_finish_gives_all_slots_before_the_end(end_s: float, num_slots: int) -> None:
    slots, _ = track([], [None], end_s)
    assert reasons_of(slots) == ["late"] * num_slots


def test_a_face_that_is_away_for_a_blink_is_bridged_and_longer_is_not() -> None:
    times_s = [0.04 * number for number in range(16)]
    faces: list[Face | None] = [STILL] * 16
    faces[2:5] = [None] * 3
    faces[8:12] = [None] * 4
    slots, _ = track(times_s, faces, 0.64)
    assert reasons_of(slots) == ["ok"] * 8 + ["no_face"] * 4 + ["ok"] * 4
    assert [slot.face for slot in slots] == [0] * 8 + [None] * 4 + [0] * 4


def test_a_gap_between_two_faces_is_never_bridged() -> None:
    faces = [STILL, STILL, None, make_face(1, 1.0, 60 + 110j), make_face(1, 1.0, 60 + 110j)]
    slots, _ = track([0.04 * number for number in range(5)], faces, 0.2)
    assert [slot.face for slot in slots] == [0, 0, None, 1, 1]
    assert reasons_of(slots) == ["ok", "ok", "no_face", "ok", "ok"]


def test_nothing_is_bridged_before_the_first_and_after_the_last_face() -> None:
    slots, _ = track([0.04 * number for number in range(6)], [None, None, STILL, STILL, None, None], 0.24)
    assert reasons_of(slots) == ["no_face"] * 2 + ["ok"] * 2 + ["no_face"] * 2


def test_slots_are_final_within_the_declared_look_ahead() -> None:
    random = np.random.default_rng(3)
    faces: list[Face | None] = [
        None if random.random() < 0.4 else make_face(int(number > 50), 1.0, 100 + 110j) for number in range(100)
    ]
    with LipTracker(finder=PlacedFaces(faces)) as tracker:  # type: ignore[arg-type]
        num_final = 0
        for number in range(100):
            num_final += len(tracker.push(grey_frame(0.04 * number)))
            assert number + 1 - num_final <= LOOK_AHEAD_SLOTS
        assert num_final + len(tracker.finish(4.0)) == 100


def test_turned_and_tiny_faces_are_not_read() -> None:
    turned, tiny = make_face(0, 1.0, 100 + 110j, skew=40), make_face(0, 6.0, 100 + 110j)
    outside = make_face(0, 1.0, 100 + 260j)
    slots, _ = track([0.0, 0.04, 0.08, 0.12], [turned, tiny, outside, STILL], 0.16)
    assert reasons_of(slots) == ["pose", "low_quality", "low_quality", "ok"]
    assert [slot.face for slot in slots] == [0, 0, 0, 0]


def pattern(points: np.ndarray) -> np.ndarray:
    """A smooth picture, defined in crop coordinates (pixels from its centre, complex)."""
    return 128 + 60 * np.sin(points.real / 9) + 50 * np.cos(points.imag / 7 + points.real / 20)


@pytest.mark.parametrize("scale", [0.25, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("degrees", [0.0, -30.0, 100.0])
def test_the_crop_is_the_same_whatever_size_place_and_tilt(scale: float, degrees: float) -> None:
    transform = scale * np.exp(1j * np.deg2rad(degrees))
    centre = 310.3 + 290.8j
    x, y = np.meshgrid(np.arange(640) + 0.5, np.arange(600) + 0.5)
    picture = np.repeat(pattern(transform * (x + 1j * y - centre)).astype(np.uint8)[:, :, None], 3, axis=2)
    with LipTracker(finder=PlacedFaces([make_face(0, transform, centre)])) as tracker:  # type: ignore[arg-type]
        (slot,) = [*tracker.push(VideoFrame(0.0, picture)), *tracker.finish(0.04)]
    offset = np.arange(CROP_PX) - (CROP_PX - 1) / 2
    expected = pattern(offset[None, :] + 1j * offset[:, None])
    assert np.abs(slot.crop - expected).mean() < 2.0


def test_smoothing_takes_the_tremble_out_and_restarts_with_another_face() -> None:
    random = np.random.default_rng(4)
    picture = np.zeros((200, 400, 3), np.uint8)
    cv2.circle(picture, (100, 110), 3, (255, 255, 255), -1)
    cv2.circle(picture, (300, 110), 3, (255, 255, 255), -1)

    def trembling(number: int, centre: complex) -> Face:
        factor = np.exp(random.normal(0, 0.02) + 1j * random.normal(0, 0.03))
        return make_face(number, factor, centre)

    faces: list[Face | None] = [trembling(0, 100.5 + 110.5j) for _ in range(20)]
    faces += [trembling(1, 300.5 + 110.5j) for _ in range(20)]
    placed = PlacedFaces(faces)
    with LipTracker(finder=placed) as tracker:  # type: ignore[arg-type]
        slots = [slot for number in range(40) for slot in tracker.push(VideoFrame(0.04 * number, picture))]
        slots += tracker.finish(1.6)
    # The dot at the mouth stays at the centre, also where one face follows the other at another place.
    for slot in slots:
        y, x = np.argwhere(slot.crop > 128).mean(axis=0)
        assert abs(x - 47.5) < 0.6 and abs(y - 47.5) < 0.6
    assert [slot.face for slot in slots] == [0] * 20 + [1] * 20


def test_an_unknown_choice_of_face_is_refused() -> None:
    with pytest.raises(ConfigError, match="got middle, expected auto, largest or the number of a face"):
        LipTracker("middle", finder=PlacedFaces([None]))  # type: ignore[arg-type]


def test_boxes() -> None:
    box = Box(0, 0, 10, 20)
    assert box.overlap(Box(0, 10, 10, 30)) == pytest.approx(1 / 3)
    assert box.overlap(Box(20, 0, 30, 20)) == 0
    assert box.square(2.0) == Box(-15, -10, 25, 30)


# --- real faces ---


def coverage(track: LipTrack) -> float:
    return float(track.present.mean())


@pytest.mark.parametrize(
    ("name", "num_slots"),
    [
        ("grid_swiz3n.mpg", 75),
        ("grid_lbbc2a.mpg", 75),
        ("woman_glasses_524_25fps.mp4", 122),
        ("elderly_man_turned_dark_2997.mp4", 175),
        ("podium_720p_face_down.mp4", 150),
        ("rotated_minus90_metadata_30fps.mp4", 100),
        ("rotated_180_metadata.mp4", 75),
        ("grid_sbia1a_50fps.mp4", 74),
        ("man_700_odd_rate.mp4", 154),
        ("anamorphic_sar2.mp4", 75),
        ("hevc_10bit.mp4", 75),
        ("vp9_opus.webm", 76),
        ("truncated_faststart.mp4", 33),
    ],
)
def test_single_faces_are_followed_throughout(finder: FaceFinder, name: str, num_slots: int) -> None:
    result = extract_lips(shared_clip(name), finder=finder)
    assert result.crops.shape == (num_slots, CROP_PX, CROP_PX) and result.crops.dtype == np.uint8
    assert coverage(result) > 0.97
    assert set(result.faces) == {0}
    # Lips are darker or redder than skin: the middle rows of a crop have more contrast than a badly placed crop would.
    assert result.crops[result.present].std() > 10


def test_faces_that_fill_the_picture_are_found(finder: FaceFinder) -> None:
    path = shared_corpus("grid/video_only/s5/sbig3a.mp4")
    assert coverage(extract_lips(path, finder=finder)) == 1.0


@pytest.mark.parametrize(
    "name", ["upside_down_pixels.mp4", "no_face_animation_51ch.mp4", "no_face_brick_wall_no_audio.mp4"]
)
def test_no_face_is_invented(finder: FaceFinder, name: str) -> None:
    result = extract_lips(shared_clip(name), finder=finder)
    assert not result.present.any() and not result.crops.any()
    assert set(result.reasons) == {"no_face"} and set(result.faces) == {None}


def test_a_face_that_comes_and_goes(finder: FaceFinder) -> None:
    result = extract_lips(shared_clip("face_enters_leaves.mp4"), finder=finder)
    seen = np.flatnonzero(result.present)
    assert (seen[0], seen[-1], len(seen)) == (25, 99, 75)


def test_another_speaker_after_a_cut_has_another_identity(finder: FaceFinder) -> None:
    result = extract_lips(shared_clip("shot_cut_two_speakers.mp4"), finder=finder)
    assert result.faces == [0] * 40 + [1] * 60


def test_a_stage_with_cuts_keeps_shots_apart(finder: FaceFinder) -> None:
    result = extract_lips(shared_clip("stage_cuts_small_faces_2997.mp4"), finder=finder)
    assert result.reasons[:20] == ["late"] * 20  # the picture starts 0.84 s after the sound
    by_face = {face: [slot for slot, of in enumerate(result.faces) if of == face] for face in set(result.faces)}
    assert set(by_face) == {None, 0, 1, 2}
    assert by_face[0][-1] < by_face[1][0] and by_face[1][-1] < by_face[2][0]
    assert "pose" in [result.reasons[slot] for slot in by_face[2]]  # a man in profile, hand at his mouth


def test_variable_rate_with_gaps_is_late_only_where_pictures_lack(finder: FaceFinder) -> None:
    path = shared_clip("vfr_gaps.mp4")
    times_s = np.array([frame.time_s for frame in iter_frames(path)])
    result = extract_lips(path, finder=finder)
    for slot, reason in enumerate(result.reasons):
        assert (np.abs(times_s - 0.04 * slot).min() > 0.06 + 1e-6) == (reason == "late")
    assert set(result.reasons) == {"ok", "late"}


def test_crops_hold_the_mouth_steady(finder: FaceFinder) -> None:
    result = extract_lips(shared_clip("grid_swiz3n.mpg"), finder=finder)
    mean = result.crops.astype(np.float32).mean(axis=0)
    moving = result.crops.astype(np.float32).std(axis=0)
    # Speech moves the middle of the crop much more than its upper corners (cheeks).
    assert moving[38:62, 30:66].mean() > 2 * moving[:24, :24].mean()
    assert mean.min() > 0


def test_a_used_finder_gives_what_a_new_one_gives(finder: FaceFinder) -> None:
    path = shared_clip("grid_lbbc2a.mpg")
    extract_lips(shared_clip("grid_swiz3n.mpg"), finder=finder)
    again = extract_lips(path, finder=finder)
    with FaceFinder() as fresh:
        new = extract_lips(path, finder=fresh)
    np.testing.assert_array_equal(again.crops, new.crops)


def test_following_stops_and_starts_without_a_ghost(finder: FaceFinder) -> None:
    frames = [frame.rgb for frame, _ in zip(iter_frames(shared_clip("grid_bbaf2n.mpg")), range(10), strict=False)]
    black = np.zeros_like(frames[0])
    finder.reset()
    shown = [*frames[:5], *[black] * 12, *frames[5:]]
    found = [finder.follow(VideoFrame(0.04 * number, rgb)) for number, rgb in enumerate(shown)]
    assert [len(faces) for faces in found] == [1] * 5 + [0] * 12 + [1] * 5
    assert {faces[0].id for faces in found[:5]} == {0} and {faces[0].id for faces in found[-5:]} == {1}
    points_px = found[0][0].points_px
    assert points_px.shape == (468, 2) and points_px.dtype == np.float32


def test_silence_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    path = shared_clip("grid_bbaf2n.mpg")
    with FaceFinder() as fresh:
        for frame, _ in zip(iter_frames(path), range(3), strict=False):
            fresh.follow(frame)
    assert capfd.readouterr().err == ""


def test_a_file_without_picture_says_so(finder: FaceFinder, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="has no video"):
        extract_lips(shared_clip("audio_only.mp4"), finder=finder)
    with pytest.raises(MediaError, match="no such file"):
        extract_lips(tmp_path / "missing.mp4", finder=finder)
