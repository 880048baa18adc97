"""Finding and following faces, and turning them into lip crops on the 40 ms grid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from avsr.errors import ConfigError, MediaError
from avsr.grid import CROP_PX
from avsr.lips import tracker as lips
from avsr.lips.choice import LargestFace, face_choice
from avsr.lips.crops import LIPS, NOSE, TEMPLATE
from avsr.lips.face_models import LEFT_EYE, RIGHT_EYE, Box
from avsr.lips.faces import Face, FaceFinder
from avsr.lips.slots import LipSlot, LipTrack, Slot
from avsr.lips.tracker import LOOK_AHEAD_SLOTS, LipTracker, extract_lips, slots_of
from avsr.media import VideoFrame, iter_frames
from tests.media import shared_clip, shared_corpus


@pytest.fixture(scope="module")
def finder() -> Iterator[FaceFinder]:
    with FaceFinder() as finder:
        yield finder


# --- slots and geometry, with faces that are placed by hand ---


def make_face(number: int, transform: complex, centre: complex, skew: complex = 0) -> Face:
    """A face that `transform` x (z - centre) brings onto the template; skew moves its nose."""
    eyes_nose_lips = TEMPLATE / transform + centre
    points = np.full(468, eyes_nose_lips[3])
    for part, anchor in zip((RIGHT_EYE, LEFT_EYE, NOSE, LIPS), eyes_nose_lips, strict=True):
        points[list(part)] = anchor
    points[list(NOSE)] += skew
    points[61] -= 21 / transform
    points[291] += 21 / transform
    points_px = np.stack([points.real, points.imag], axis=1).astype(np.float32)
    return Face(number, points_px, Box(*points_px.min(axis=0), *points_px.max(axis=0)))


Placed = Face | None | list[Face]


class PlacedFaces:
    """Stands in for a FaceFinder: gives the n-th picture it is shown the n-th face or faces, and follows all it showed
    so far if `keeps`, else those of the picture."""

    def __init__(self, faces: list[Placed], *, keeps: bool = False) -> None:
        self.faces = faces
        self.keeps = keeps
        self.shown: list[float] = []
        self.followed: frozenset[int] = frozenset()
        self.num_beyond = 0

    def reset(self) -> None:
        self.shown = []
        self.followed = frozenset()

    def follow(self, frame: VideoFrame) -> list[Face]:
        placed = self.faces[min(len(self.shown), len(self.faces) - 1)]
        self.shown.append(frame.time_s)
        found = [] if placed is None else placed if isinstance(placed, list) else [placed]
        self.followed = frozenset(face.id for face in found) | (self.followed if self.keeps else frozenset())
        return found


def grey_frame(time_s: float, value: int = 100) -> VideoFrame:
    return VideoFrame(time_s, np.full((200, 200, 3), value, np.uint8))


STILL = make_face(0, 1.0, 100 + 110j)


@pytest.fixture(autouse=True)
def nothing_before_placed_mouths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of one grey show no mouth: whether something is before it is not asked of them."""
    if "finder" not in request.fixturenames:
        monkeypatch.setattr(lips, "cover_log_odds", lambda crops: np.full(len(crops), -6.0, np.float32))


def track(
    times_s: list[float], faces: list[Placed], end_s: float, values: list[int] | None = None
) -> tuple[list[LipSlot], PlacedFaces]:
    """The slots of the largest face."""
    placed = PlacedFaces(faces)
    frames = [grey_frame(time_s, values[number] if values else 100) for number, time_s in enumerate(times_s)]
    slots = list(LargestFace().follow(slots_shown(frames, placed, end_s)))
    assert [slot.index for slot in slots] == list(range(len(slots)))
    return slots, placed


def slots_shown(frames: list[VideoFrame], placed: PlacedFaces, end_s: float) -> list[Slot]:
    slots: list[Slot] = []
    with LipTracker(finder=placed) as tracker:  # type: ignore[arg-type]
        for frame in frames:
            slots += tracker.push(frame)
        slots += tracker.finish(end_s)
    return slots


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
    faces: list[Placed] = [STILL] * 16
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
    faces: list[Placed] = [
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


def placed_pair(number: int) -> list[Face]:
    """Face 3 at the left, and face 8, larger, at the right, which is turned away from picture 10 on."""
    return [make_face(3, 1.0, 60 + 110j), make_face(8, 0.8, 150 + 110j, skew=40 if number >= 10 else 0)]


def test_every_face_has_its_own_lips_in_every_slot() -> None:
    faces: list[Placed] = [placed_pair(number) for number in range(20)]
    faces[4:6] = [[pair[1]] for pair in map(placed_pair, (4, 5))]  # face 3 is away for a blink
    faces[14:] = [[placed_pair(14)[1]]] * 6  # and for good
    frames = [grey_frame(0.04 * number) for number in range(20)]
    slots = slots_shown(frames, PlacedFaces(faces, keeps=True), 0.8)
    assert [slot.lips[8].reason for slot in slots] == ["ok"] * 10 + ["pose"] * 10
    assert [slot.lips[3].reason for slot in slots] == ["ok"] * 14 + ["no_face"] * 6
    assert slots[0].of(3) is slots[0].lips[3] and slots[0].of(5).reason == "no_face" and slots[0].of(5).face is None
    # What is measured is measured on pictures: not in bridged slots.
    assert [np.isnan(slot.lips[3].width_px) for slot in slots[:8]] == [False] * 4 + [True] * 2 + [False] * 2
    assert slots[0].lips[8].width_px == pytest.approx(slots[0].lips[3].width_px / 0.8)


def test_a_slot_bridged_between_turned_faces_is_no_lips() -> None:
    turned = make_face(0, 1.0, 100 + 110j, skew=40)
    slots, _ = track([0.04 * number for number in range(3)], [turned, None, turned], 0.12)
    assert reasons_of(slots) == ["pose"] * 3


def test_the_opening_is_that_of_the_inner_lips_in_eye_distances() -> None:
    face = make_face(0, 0.5, 100 + 110j)  # eyes 104 pixels apart
    for point in (82, 13, 312):
        face.points_px[point, 1] -= 13
    for point in (87, 14, 317):
        face.points_px[point, 1] += 13
    (slot,) = slots_shown([grey_frame(0.0)], PlacedFaces([face]), 0.04)
    assert slot.lips[0].opening == pytest.approx(0.25, abs=0.01)


def by_width(*widths: dict[int, float]) -> Iterator[Slot]:
    """Slots with faces of these widths; 0 for one that is followed but cannot be seen."""
    crop = np.zeros((CROP_PX, CROP_PX), np.uint8)
    for index, slot in enumerate(widths):
        lips = {
            face: LipSlot(index, crop, width > 0, "ok" if width else "no_face", face, width_px=width or np.nan)
            for face, width in slot.items()
        }
        yield Slot(index, lips)


def test_the_largest_face_is_read_without_flicker() -> None:
    nearly = [{0: 100.0, 1: 90.0 + 20 * (number % 2)} for number in range(40)]
    assert {slot.face for slot in LargestFace().follow(by_width(*nearly))} == {0}
    larger: dict[int, float] = {0: 100.0, 1: 150.0}
    faces = [slot.face for slot in LargestFace().follow(by_width({0: 100.0}, *[larger] * 40))]
    assert faces == [0] * 15 + [1] * 26
    blink: list[dict[int, float]] = [{0: 100.0, 1: 50.0}, *[{0: 0.0, 1: 50.0}] * 10, {0: 100.0, 1: 50.0}]
    assert {slot.face for slot in LargestFace().follow(by_width(*blink))} == {0}
    gone: list[dict[int, float]] = [{0: 100.0, 1: 50.0}, {1: 50.0}]  # face 0 is followed no more
    assert [slot.face for slot in LargestFace().follow(by_width(*gone))] == [0, 1]


def test_a_face_by_its_number_and_nobody_else() -> None:
    slots = [{0: 100.0, 1: 50.0}, {0: 100.0}, {0: 100.0, 1: 50.0}]
    assert [slot.face for slot in face_choice("1").follow(by_width(*slots))] == [1, None, 1]


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
    (slots,) = slots_shown([VideoFrame(0.0, picture)], PlacedFaces([make_face(5, transform, centre)]), 0.04)
    slot = slots.lips[5]
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

    faces: list[Placed] = [trembling(0, 100.5 + 110.5j) for _ in range(20)]
    faces += [trembling(1, 300.5 + 110.5j) for _ in range(20)]
    frames = [VideoFrame(0.04 * number, picture) for number in range(40)]
    slots = [slot.lips[number // 20] for number, slot in enumerate(slots_shown(frames, PlacedFaces(faces), 1.6))]
    # The dot at the mouth stays at the centre, also where one face follows the other at another place.
    for slot in slots:
        y, x = np.argwhere(slot.crop > 128).mean(axis=0)
        assert abs(x - 47.5) < 0.6 and abs(y - 47.5) < 0.6


def test_an_unknown_choice_of_face_is_refused() -> None:
    with pytest.raises(ConfigError, match="got middle, expected auto, largest or the number of a face"):
        face_choice("middle")


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
    path = shared_clip("stage_cuts_small_faces_2997.mp4")
    slots = list(slots_of(iter_frames(path), finder=finder))
    assert [slot.reason for slot in slots[:20]] == ["late"] * 20  # the picture starts 0.84 s after the sound
    result = extract_lips(path, finder=finder)
    by_face = {face: [slot for slot, of in enumerate(result.faces) if of == face] for face in set(result.faces)}
    first, second, *others = sorted(face for face in by_face if face is not None)
    assert by_face[first][-1] < by_face[second][0] and all(by_face[second][-1] < by_face[face][0] for face in others)
    # A microphone before the mouth, and in the last shot a man in profile, hand at his.
    assert "occluded" in [result.reasons[slot] for slot in by_face[first]]
    last = {lips.reason for slot in slots[by_face[second][-1] + 1 :] for lips in slot.lips.values()}
    assert {"pose", "occluded"} <= last


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


def test_two_people_keep_their_numbers(finder: FaceFinder) -> None:
    finder.reset()
    for frame in iter_frames(shared_clip("two_people_interview_720p.mp4")):
        faces = finder.follow(frame)
        assert [face.id for face in faces] == [0, 1]
        left = min(faces, key=lambda face: face.box.left).id
        if frame.time_s == 0.0:
            first_left = left
        assert left == first_left
