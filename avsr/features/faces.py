"""Finding the face in each picture and following it under a stable identity.

A cascade of MediaPipe graphs, each used for what it is good at: full-range face detection finds small faces and does
not fire on cartoons or upside-down heads, but its points are coarse; the face mesh has precise points, but misses faces
below a seventh of the picture and invents some. So detection looks at the whole picture now and then, and the mesh
tracks inside an enlarged crop of the found face. A face counts only where both agree.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from avsr.media import VideoFrame

NUM_POINTS = 468

Points = npt.NDArray[np.float32]
Rgb = npt.NDArray[np.uint8]

_CHECK_EVERY_FRAMES = 5
_MAX_FAILED_CHECKS = 3
_MAX_LOST_FRAMES = 5
_MAX_CANDIDATES = 3
_DETECTION_SIDE_PX = 640
# The detector overlooks some faces that fill the picture: with this margin around it finds all of them. More margin
# makes it see faces where there are none.
_MARGIN = 0.17
_MESH_SIDE_PX = 256
_CROP_PER_BOX = 2.0
# The mesh remembers where in its crop the face was, so the crop stays in place until the face has moved by this share
# of the crop or changed its size by that factor.
_MAX_CROP_SHIFT = 0.1
_MAX_CROP_SCALE = 1.25
_MIN_OVERLAP = 0.3
# Mean absolute difference of two 32x18 grey thumbnails above which the picture was cut.
_CUT_DIFFERENCE = 20.0


@dataclasses.dataclass(frozen=True)
class Box:
    """A rectangle in frame pixels; may reach beyond the frame."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)

    def overlap(self, other: Box) -> float:
        """Intersection over union, in [0, 1]."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        common = max(0.0, width) * max(0.0, height)
        union = self.area + other.area - common
        return common / union if union > 0 else 0.0

    def square(self, factor: float) -> Box:
        """The square around the same centre whose side is `factor` times the longer side of this box."""
        x, y = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        half = factor * max(self.right - self.left, self.bottom - self.top) / 2
        return Box(x - half, y - half, x + half, y + half)


@dataclasses.dataclass(frozen=True)
class Face:
    """A face in one picture.

    id: the same as long as the same face is followed. points_px: float32 [468, 2], MediaPipe's face mesh, in frame
    pixels. box: around these points.
    """

    id: int
    points_px: Points
    box: Box


@dataclasses.dataclass
class _Followed:
    """The face that is followed. box: where it was last seen. crop: where the mesh looks for it."""

    id: int
    box: Box
    crop: Box
    lost_frames: int = 0
    failed_checks: int = 0


def import_mediapipe() -> None:
    """Import what `FaceFinder` needs. To be called in the main thread before a finder is made in another one: a Ctrl-C
    that struck an earlier import can leave the import lock with the main thread, and the other would wait for ever."""
    import mediapipe.python.solutions.face_detection
    import mediapipe.python.solutions.face_mesh  # noqa: F401


class FaceFinder:
    """Follows the most prominent face through the pictures of one video. Use it as a context manager.

    The graphs inside must stay in one thread, and in a process that was not forked from one that ran such a graph.
    Making one takes 60 ms and a megabyte that is never given back: use one for many videos, with `reset` between them.
    """

    def __init__(self) -> None:
        from mediapipe.python.solutions.face_detection import FaceDetection
        from mediapipe.python.solutions.face_mesh import FaceMesh

        with _quiet_stderr():
            self._detector: Any = FaceDetection(model_selection=1, min_detection_confidence=0.5)
            self._mesh: Any = FaceMesh(static_image_mode=False, max_num_faces=1, refine_landmarks=False)
            # The graphs start in threads of their own, which write lines of no use: wait until they run.
            blank = np.zeros((_MESH_SIDE_PX, _MESH_SIDE_PX, 3), np.uint8)
            self._detector.process(blank)
            self._mesh.process(blank)
        self._mesh_is_clear = True
        self._seen_any = False
        self._num_frames = 0
        self._num_faces = 0
        self._search_frames = 0  # since nothing is followed
        self._thumbnail: npt.NDArray[np.float32] | None = None
        self._followed: _Followed | None = None

    def __enter__(self) -> FaceFinder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the graphs back."""
        self._detector.close()
        self._mesh.close()

    def reset(self) -> None:
        """Forget everything: what follows is another video. Its results are those of a new finder."""
        self._num_frames = 0
        self._num_faces = 0
        self._search_frames = 0
        self._thumbnail = None
        self._followed = None

    def follow(self, frame: VideoFrame) -> list[Face]:
        """The face in the next picture of the video, as a list of none or one."""
        rgb = frame.rgb
        if self._is_cut(rgb):
            self._followed = None
        points = None
        if self._followed is not None:
            points = self._track(rgb, self._followed)
        if self._followed is not None and points is not None and self._num_frames % _CHECK_EVERY_FRAMES == 0:
            if not self._is_confirmed(rgb, self._followed):
                self._followed = None
        if self._followed is None:
            points = self._find(rgb)
        self._num_frames += 1
        if self._followed is None or points is None:
            return []
        return [Face(self._followed.id, points, self._followed.box)]

    def _is_cut(self, rgb: Rgb) -> bool:
        small = _resize(rgb[:: max(1, rgb.shape[0] // 144)], (32, 18))
        thumbnail = small.astype(np.float32).mean(axis=2)
        last, self._thumbnail = self._thumbnail, thumbnail
        return last is not None and float(np.abs(thumbnail - last).mean()) > _CUT_DIFFERENCE

    def _find(self, rgb: Rgb) -> Points | None:
        """Start following the largest detected face that the mesh confirms. Returns its points."""
        small, scale = _at_most(rgb, _DETECTION_SIDE_PX)
        boxes = self._detect(small, scale)
        if not boxes and self._search_frames % _CHECK_EVERY_FRAMES == 0:
            boxes = self._detect(small, scale, _MARGIN)
        self._search_frames += 1
        for box in sorted(boxes, key=lambda box: box.area, reverse=True)[:_MAX_CANDIDATES]:
            self._clear_mesh()
            crop = box.square(_CROP_PER_BOX)
            points = self._mesh_points(rgb, crop)
            if points is not None and _box_of(points).overlap(box) >= _MIN_OVERLAP:
                self._followed = _Followed(self._num_faces, _box_of(points), crop)
                self._num_faces += 1
                self._search_frames = 0
                return points
        return None

    def _track(self, rgb: Rgb, face: _Followed) -> Points | None:
        """Points of the followed face in the next picture. One that is lost for too long is followed no more."""
        wanted = face.box.square(_CROP_PER_BOX)
        if not _still_fits(face.crop, wanted):
            face.crop = wanted
        for _ in range(2):  # a failed tracking step makes the mesh search the crop anew at the next call
            points = self._mesh_points(rgb, face.crop)
            if points is not None and _box_of(points).overlap(face.box) >= _MIN_OVERLAP:
                face.box = _box_of(points)
                face.lost_frames = 0
                return points
            self._clear_mesh()
        face.lost_frames += 1
        if face.lost_frames > _MAX_LOST_FRAMES:
            self._followed = None
        return None

    def _is_confirmed(self, rgb: Rgb, face: _Followed) -> bool:
        """False when the detector has not seen the followed face for some time."""
        small, scale = _at_most(rgb, _DETECTION_SIDE_PX)
        for margin in (0.0, _MARGIN):
            if any(box.overlap(face.box) >= _MIN_OVERLAP for box in self._detect(small, scale, margin)):
                face.failed_checks = 0
                return True
        face.failed_checks += 1
        return face.failed_checks < _MAX_FAILED_CHECKS

    def _detect(self, rgb: Rgb, scale: float, margin: float = 0.0) -> list[Box]:
        """Faces, in frame pixels, in a copy of the picture scaled by `scale`.

        margin: of black around the copy, in shares of its longer side.
        """
        border = round(margin * max(rgb.shape[:2]))
        if border:
            rgb = np.pad(rgb, ((border, border), (border, border), (0, 0)))
        height, width = rgb.shape[:2]
        boxes = []
        for detection in self._process(self._detector, rgb).detections or []:
            relative = detection.location_data.relative_bounding_box
            left, top = (relative.xmin * width - border) / scale, (relative.ymin * height - border) / scale
            boxes.append(Box(left, top, left + relative.width * width / scale, top + relative.height * height / scale))
        return boxes

    def _mesh_points(self, rgb: Rgb, crop: Box) -> Points | None:
        height, width = rgb.shape[:2]
        left, top = max(0, round(crop.left)), max(0, round(crop.top))
        right, bottom = min(width, round(crop.right)), min(height, round(crop.bottom))
        if right - left < 8 or bottom - top < 8:
            return None
        patch = rgb[top:bottom, left:right]
        scale = _MESH_SIDE_PX / max(right - left, bottom - top)
        size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
        result = self._process(self._mesh, _resize(patch, size))
        self._mesh_is_clear = not result.multi_face_landmarks
        if self._mesh_is_clear:
            return None
        landmarks = result.multi_face_landmarks[0].landmark
        relative = np.array([(point.x, point.y) for point in landmarks], np.float32)
        size_px, corner_px = np.array([right - left, bottom - top], np.float32), np.array([left, top], np.float32)
        return relative * size_px + corner_px

    def _clear_mesh(self) -> None:
        """Make the mesh forget the face it tracks: it finds none in a black picture."""
        if not self._mesh_is_clear:
            blank = np.zeros((_MESH_SIDE_PX, _MESH_SIDE_PX, 3), np.uint8)
            self._mesh_is_clear = not self._process(self._mesh, blank).multi_face_landmarks

    def _process(self, graph: Any, rgb: Rgb) -> Any:
        if self._seen_any:
            return graph.process(rgb)
        # One more line comes with the first face.
        with _quiet_stderr():
            result = graph.process(rgb)
        self._seen_any = bool(getattr(result, "multi_face_landmarks", None))
        return result


def _box_of(points: Points) -> Box:
    left, top = points.min(axis=0)
    right, bottom = points.max(axis=0)
    return Box(float(left), float(top), float(right), float(bottom))


def _at_most(rgb: Rgb, side_px: int) -> tuple[Rgb, float]:
    """The picture with no side above `side_px`, and by what it was scaled."""
    scale = min(1.0, side_px / max(rgb.shape[:2]))
    if scale == 1.0:
        return rgb, 1.0
    return _resize(rgb, (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))), scale


def _resize(rgb: Rgb, size: tuple[int, int]) -> Rgb:
    shrinks = size[0] < rgb.shape[1]
    resized = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def _still_fits(crop: Box, wanted: Box) -> bool:
    side, wanted_side = crop.right - crop.left, wanted.right - wanted.left
    shift_x = abs(crop.left + crop.right - wanted.left - wanted.right) / 2
    shift_y = abs(crop.top + crop.bottom - wanted.top - wanted.bottom) / 2
    has_moved = max(shift_x, shift_y) > _MAX_CROP_SHIFT * side
    return not has_moved and 1 / _MAX_CROP_SCALE <= wanted_side / side <= _MAX_CROP_SCALE


_stderr_lock = threading.Lock()
_NOISE = (
    b"TensorFlow Lite",
    b"inference_feedback_manager",
    b"absl::InitializeLog",
    b"gl_context",
    b"landmark_projection",
)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back what C++ code writes to stderr, and pass on afterwards what is not known noise of MediaPipe.

    No logging setting of the library has an effect, so the file descriptor itself is diverted for the moment.
    """
    with _stderr_lock, tempfile.TemporaryFile() as held_back:
        try:
            sys.stderr.flush()
            saved = os.dup(2)
        except (OSError, AttributeError, ValueError):  # no stderr at all
            yield
            return
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            held_back.seek(0)
            for line in held_back:
                if not any(noise in line for noise in _NOISE):
                    os.write(2, line)
