"""The networks behind face finding. The Tasks API is stood in for by a fake: its model file is not distributed."""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from avsr.errors import ModelError
from avsr.lips.face_models import (
    TASK_FILE_VARIABLE,
    Box,
    BundledModels,
    Region,
    TaskModels,
    open_face_models,
)
from avsr.lips.faces import FaceFinder
from avsr.media import Picture, VideoFrame, iter_frames
from tests.media import shared_clip


def test_boxes() -> None:
    box = Box(0, 0, 10, 20)
    assert box.overlap(Box(0, 10, 10, 30)) == pytest.approx(1 / 3)
    assert box.overlap(Box(20, 0, 30, 20)) == 0
    assert box.square(2.0) == Box(-15, -10, 25, 30)
    assert box.moved(3 - 1j) == Box(3, -1, 13, 19)
    assert (box.centre, box.side) == (5 + 10j, 20)


def test_closing_gives_the_threads_back() -> None:
    if sys.platform != "linux":
        pytest.skip("threads are counted in /proc")

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    BundledModels().close()
    before = threads()
    for _ in range(3):
        models = BundledModels()
        assert threads() > before
        models.close()
        models.close()  # once more does no harm
    assert threads() == before


# --- the Tasks API, faked: a "face" is a white disc, whose mesh is 478 points on its edge ---


class FakePoint:
    def __init__(self, x: float, y: float, z: float) -> None:
        self.x, self.y, self.z = x, y, z


class FakeLandmarker:
    """What `mediapipe.tasks.python.vision.FaceLandmarker` does, for discs."""

    shown: list[Any]

    @classmethod
    def create_from_options(cls, options: Any) -> FakeLandmarker:
        if Path(options.base_options.model_asset_path).read_bytes() != b"model":
            raise RuntimeError("Unable to open zip archive.")
        return cls()

    def detect(self, image: Any) -> Any:
        assert image.data.dtype == np.uint8 and image.data.flags.c_contiguous
        height, width = image.data.shape[:2]
        _, _, stats, _ = cv2.connectedComponentsWithStats((image.data[:, :, 0] > 200).astype(np.uint8))
        faces = []
        for left, top, wide, high, _ in stats[1:]:
            angle = np.linspace(0, 2 * np.pi, 478, endpoint=False)
            x, y = left + wide / 2 * (1 + np.cos(angle)), top + high / 2 * (1 + np.sin(angle))
            faces.append([FakePoint(a / width, b / height, 0.0) for a, b in zip(x, y, strict=True)])
        return types.SimpleNamespace(face_landmarks=faces)

    def close(self) -> None:
        pass


@pytest.fixture
def fake_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a fake of MediaPipe 0.10.30, which has the Tasks API and no solutions, in the place of MediaPipe."""

    def options(**given: Any) -> Any:
        return types.SimpleNamespace(**given)

    mediapipe: Any = types.ModuleType("mediapipe")
    mediapipe.Image = lambda image_format, data: types.SimpleNamespace(data=data)
    mediapipe.ImageFormat = types.SimpleNamespace(SRGB=1)
    tasks, python, vision = (types.ModuleType(f"mediapipe.tasks{name}") for name in ("", ".python", ".python.vision"))
    vision.FaceLandmarker, vision.FaceLandmarkerOptions = FakeLandmarker, options  # type: ignore[attr-defined]
    python.BaseOptions, python.vision = options, vision  # type: ignore[attr-defined]
    for name in [name for name in sys.modules if name.split(".")[0] == "mediapipe"]:
        monkeypatch.delitem(sys.modules, name)
    for module in (mediapipe, tasks, python, vision):
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    path = tmp_path / "face_landmarker.task"
    path.write_bytes(b"model")
    return path


def discs(*circles: tuple[int, int, int]) -> np.ndarray:
    picture = np.zeros((240, 320, 3), np.uint8)
    for x, y, radius in circles:
        cv2.circle(picture, (x, y), radius, (255, 255, 255), -1)
    return picture


@pytest.mark.usefixtures("fake_tasks")
def test_the_tasks_api_gives_the_same_answers_in_the_same_units(
    task_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TASK_FILE_VARIABLE, str(task_file))
    models = open_face_models()
    assert isinstance(models, TaskModels)
    picture = discs((80, 100, 30), (250, 150, 20))
    boxes = sorted((found.box for found in models.detect(picture)), key=lambda box: box.left)
    assert [(round(box.left), round(box.right), round(box.top)) for box in boxes] == [(50, 111, 70), (230, 271, 130)]
    found = models.mesh(Picture.of_rgb(picture), Region.around(boxes[1], (240, 150), (260, 150)))
    assert found is not None and found[0].shape == (468, 2) and found[0].dtype == np.float32
    assert found[0].mean(axis=0) == pytest.approx([250.5, 150.5], abs=1.0)
    assert np.ptp(found[0], axis=0) == pytest.approx([40, 40], abs=2.0)
    assert models.mesh(Picture.of_rgb(picture), Region(160 + 40j, 20.0, 0.0)) is None
    models.close()


@pytest.mark.usefixtures("fake_tasks")
def test_a_region_leans_with_the_face(task_file: Path) -> None:
    models = TaskModels(task_file)
    picture = discs((80, 100, 30))
    for eyes in (((70, 100), (90, 100)), ((80, 90), (80, 110)), ((90, 105), (70, 95))):
        found = models.mesh(Picture.of_rgb(picture), Region.around(Box(50, 70, 110, 130), *eyes))
        assert found is not None and found[0].mean(axis=0) == pytest.approx([80.5, 100.5], abs=1.0)


@pytest.mark.usefixtures("fake_tasks")
def test_without_solutions_the_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TASK_FILE_VARIABLE, raising=False)
    with pytest.raises(ModelError, match=f"carries no face models.*mediapipe==0.10.21, or set {TASK_FILE_VARIABLE}"):
        FaceFinder()


@pytest.mark.usefixtures("fake_tasks")
def test_a_file_that_is_no_model_is_refused(task_file: Path) -> None:
    task_file.write_bytes(b"text")
    with pytest.raises(ModelError, match=r"face_landmarker.task: cannot be used: got Unable to open zip archive"):
        TaskModels(task_file)


def test_a_task_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TASK_FILE_VARIABLE, str(tmp_path / "gone.task"))
    with pytest.raises(ModelError, match="gone.task: no such file: expected a face_landmarker.task file"):
        open_face_models()


def test_the_real_tasks_api_refuses_a_file_that_is_no_model(task_file: Path) -> None:
    with pytest.raises(ModelError, match="cannot be used"):
        TaskModels(task_file)


def without(module: str) -> Callable[..., Any]:
    original = builtins.__import__

    def importing(name: str, *arguments: Any) -> Any:
        if name.startswith(module):
            raise ImportError(f"No module named {name!r}")
        return original(name, *arguments)

    return importing


def test_a_mediapipe_without_the_tasks_api(task_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "__import__", without("mediapipe.tasks"))
    with pytest.raises(ModelError, match="has no Tasks API for face landmarks"):
        TaskModels(task_file)


# --- the models inside the wheel ---


def test_the_mesh_is_where_the_detector_sees_the_face_however_it_is_cut() -> None:
    rgb = next(iter_frames(shared_clip("grid_swiz3n.mpg"))).rgb
    models = BundledModels()
    (detection,) = models.detect(rgb)
    region = Region.around(detection.box, *detection.points_px[:2])
    found = models.mesh(Picture.of_rgb(rgb), region)
    assert found is not None
    points, yaw_deg = found
    # The same face in a larger picture, elsewhere, has the same points there.
    larger = cv2.copyMakeBorder(cv2.resize(rgb, None, fx=3.0, fy=3.0), 50, 0, 70, 0, cv2.BORDER_CONSTANT)
    moved = models.mesh(
        Picture.of_rgb(larger), Region(region.centre * 3 + 70 + 50j, region.side_px * 3, region.turn_rad)
    )
    assert moved is not None
    assert np.abs(moved[0] - (points * 3 + [70, 50])).mean() < 1.0
    # A face in the mirror looks to the other side.
    there = Region(complex(360 - region.centre.real, region.centre.imag), region.side_px, -region.turn_rad)
    mirrored = models.mesh(Picture.of_rgb(np.ascontiguousarray(rgb[:, ::-1])), there)
    assert mirrored is not None and abs(mirrored[1] + yaw_deg) < 6.0
    assert models.mesh(Picture.of_rgb(np.zeros_like(rgb)), region) is None
    models.close()


def test_bytes_of_landmarks_are_read_as_numbers_are() -> None:
    from mediapipe.framework.formats import landmark_pb2

    from avsr.lips.face_models import _as_array

    random = np.random.default_rng(1).normal(size=(468, 3)).astype(np.float32)
    plain = landmark_pb2.NormalizedLandmarkList(
        landmark=[landmark_pb2.NormalizedLandmark(x=x, y=y, z=z) for x, y, z in random]
    )
    np.testing.assert_array_equal(_as_array(plain.SerializeToString()), random)
    with_more = landmark_pb2.NormalizedLandmarkList(
        landmark=[landmark_pb2.NormalizedLandmark(x=x, y=y, z=z, visibility=0.5) for x, y, z in random]
    )
    np.testing.assert_array_equal(_as_array(with_more.SerializeToString()), random)


# --- following, on composed pictures ---


@pytest.fixture(scope="module")
def talker() -> list[np.ndarray]:
    return [frame.rgb for frame, _ in zip(iter_frames(shared_clip("grid_bbaf2n.mpg")), range(40), strict=False)]


@pytest.fixture(scope="module")
def finder() -> Any:
    with FaceFinder() as finder:
        yield finder


def follow(finder: FaceFinder, shown: list[np.ndarray], step_s: float = 0.04) -> list[list[int]]:
    finder.reset()
    return [[face.id for face in finder.follow(VideoFrame(number * step_s, rgb))] for number, rgb in enumerate(shown)]


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1920, 1080)])
def test_a_face_of_60_px_is_found_from_the_first_picture_on(
    finder: FaceFinder, talker: list[np.ndarray], width: int, height: int
) -> None:
    wall = next(iter_frames(shared_clip("no_face_brick_wall_no_audio.mp4"))).rgb
    scene = cv2.resize(wall, (width, height))
    finder.reset()
    for number, rgb in enumerate(talker[:20]):
        picture = scene.copy()
        picture[height - 180 : height - 14, width - 220 : width - 12] = cv2.resize(rgb, (208, 166))
        (face,) = finder.follow(VideoFrame(number * 0.04, picture))
        assert face.id == 0 and 55 < face.box.right - face.box.left < 65
        assert width - 220 < face.box.left and height - 180 < face.box.top


def test_upside_down_faces_are_none(finder: FaceFinder, talker: list[np.ndarray]) -> None:
    assert follow(finder, [np.ascontiguousarray(rgb[::-1, ::-1]) for rgb in talker]) == [[]] * 40


def test_a_face_behind_something_for_a_moment_is_the_same_and_for_long_another(
    finder: FaceFinder, talker: list[np.ndarray]
) -> None:
    hidden = talker[0].copy()
    hidden[90:240, 120:230] = (120, 90, 60)
    found = follow(finder, [*talker[:10], *[hidden] * 15, *talker[10:20], *[hidden] * 40, *talker[20:30]])
    assert found == [[0]] * 10 + [[]] * 15 + [[0]] * 10 + [[]] * 40 + [[1]] * 10
    # It is time that counts, not pictures: at 10 pictures a second 15 are already too long.
    found = follow(finder, [*talker[:10], *[hidden] * 15, *talker[10:20]], step_s=0.1)
    assert found == [[0]] * 10 + [[]] * 15 + [[1]] * 10


def test_one_who_steps_before_another_keeps_the_number(finder: FaceFinder, talker: list[np.ndarray]) -> None:
    behind = [frame.rgb for frame, _ in zip(iter_frames(shared_clip("grid_lbbc2a.mpg")), range(50), strict=False)]
    finder.reset()
    found = []
    for number, rgb in enumerate(behind):
        front = talker[min(number, 39)]
        picture = np.repeat(front[:, 4:5], 600, axis=1)
        left, right = 60 + 3 * number, 360 - 3 * number
        picture[:, right : right + 180] = rgb[:, 90:270]
        picture[:, left : left + 180] = front[:, 90:270]  # the woman's face is half behind the man's cut-out at last
        faces = finder.follow(VideoFrame(number * 0.04, picture))
        found.append([face.id for face in sorted(faces, key=lambda face: face.box.left)])
    assert found[:36] == [[1, 0]] * 36  # the larger face is number 0
    assert found[-5:] == [[1]] * 5


@pytest.mark.parametrize("size", [(1, 1), (9, 16), (2, 600), (700, 3)])
def test_absurd_pictures_have_no_faces(finder: FaceFinder, size: tuple[int, int]) -> None:
    assert follow(finder, [np.full((*size, 3), 90, np.uint8)] * 3) == [[]] * 3
