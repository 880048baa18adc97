"""The networks behind face finding: a detector of faces, and a mesh of 468 points for one face. Both are stateless.

There are two back ends with the same interface. One runs the models inside the wheel of MediaPipe 0.10.21. Later
releases carry no models, so the other runs a `face_landmarker.task` file of the user through the Tasks API. `faces.py`
decides which faces exist, who is who and what to trust, for both back ends alike.

Letters: H W pixels, N points.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from avsr.errors import ModelError
from avsr.media import Picture
from avsr.surroundings import quiet_matplotlib, start_computing

Points = npt.NDArray[np.float32]
Rgb = npt.NDArray[np.uint8]

NUM_POINTS = 468
TASK_FILE_VARIABLE = "AVSR_FACE_LANDMARKER"

# Points of the face mesh. Their means are the right eye, left eye, nose and mouth of the detector.
RIGHT_EYE = (33, 133)
LEFT_EYE = (263, 362)
MOUTH = (13, 14)
_MESH_OF_DETECTOR = (RIGHT_EYE, LEFT_EYE, (1,), MOUTH)

_MESH_SIDE_PX = 192  # side of the landmark model's input
_TASK_SIDE_PX = 256  # side of the picture of a face that goes to the Tasks API
_MESH_PER_BOX = 1.5  # side of a region, in sides of the box around the face: the model was trained with this


@dataclasses.dataclass(frozen=True)
class Box:
    """A rectangle in frame pixels. It may reach beyond the frame."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)

    @property
    def centre(self) -> complex:
        """As x + iy."""
        return complex(self.left + self.right, self.top + self.bottom) / 2

    @property
    def side(self) -> float:
        """The longer side."""
        return max(self.right - self.left, self.bottom - self.top)

    def overlap(self, other: Box) -> float:
        """Intersection over union, in [0, 1]."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        common = max(0.0, width) * max(0.0, height)
        union = self.area + other.area - common
        return common / union if union > 0 else 0.0

    def moved(self, shift: complex) -> Box:
        """The same box, moved by x + iy pixels."""
        x, y = shift.real, shift.imag
        return Box(self.left + x, self.top + y, self.right + x, self.bottom + y)

    def square(self, factor: float) -> Box:
        """A square around the same centre. Its side is `factor` times the longer side of this box."""
        x, y = self.centre.real, self.centre.imag
        half = factor * self.side / 2
        return Box(x - half, y - half, x + half, y + half)


@dataclasses.dataclass(frozen=True)
class Detection:
    """A face as the detector finds it."""

    box: Box
    points_px: Points
    """Float32 [4, 2]: right eye, left eye, nose and mouth, in frame pixels."""
    score: float
    """How sure the detector is, in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class Region:
    """A turned square of the picture that holds one face: the input of the mesh."""

    centre: complex
    """In frame pixels, as x + iy."""
    side_px: float
    turn_rad: float
    """How far the face leans clockwise."""

    @staticmethod
    def around(box: Box, right_eye: npt.ArrayLike, left_eye: npt.ArrayLike) -> Region:
        """The region for a face with this box and these eyes."""
        across = np.asarray(left_eye, np.float64) - np.asarray(right_eye, np.float64)
        return Region(box.centre, _MESH_PER_BOX * box.side, float(np.arctan2(across[1], across[0])))


class FaceModels(Protocol):
    """Both networks. They must stay in one thread, and in a process that was not forked after their first use."""

    def detect(self, rgb: Rgb) -> list[Detection]:
        """All faces in a picture uint8 [H, W, 3].

        Faces that stand upright and measure a twentieth to half of its longer side are found.
        """

    def mesh(self, picture: Picture, region: Region) -> tuple[Points, float] | None:
        """The mesh of the face in a region: points float32 [468, 2] in frame pixels, and yaw in degrees.

        Yaw is positive if the face looks to the right side of the picture. It rests on the depth that the model
        estimates. None if the region holds no face.
        """

    def close(self) -> None:
        """Free the networks and their threads."""


def import_mediapipe() -> None:
    """Import what the models need. Call it in the main thread before another thread makes a `FaceFinder`.

    A Ctrl-C during an import in the main thread can leave the import lock there, and then the other thread would wait
    for ever.
    """
    # ImportError: the finder will raise an error with a remedy.
    with contextlib.suppress(ImportError), quiet_matplotlib():
        if os.environ.get(TASK_FILE_VARIABLE):
            import mediapipe.tasks.python.vision
        else:
            import mediapipe.python.solutions.face_detection  # noqa: F401


def open_face_models(task_file: str | PathLike[str] | None = None) -> FaceModels:
    """The models inside MediaPipe 0.10.21, or the models of a `face_landmarker.task` file.

    task_file: by default the file that the environment variable AVSR_FACE_LANDMARKER names, if it is set.

    Sets OpenCV to one thread, for the whole process. Raises ModelError if that file or the API of MediaPipe is missing,
    AvsrError in a process that was forked after its parent had used a model.
    """
    task_file = task_file or os.environ.get(TASK_FILE_VARIABLE) or None
    start_computing()
    # OpenCV shares even pictures of 256 pixels between threads, which costs a seventh of the whole pipeline's speed.
    cv2.setNumThreads(1)
    with quiet_matplotlib():
        return BundledModels() if task_file is None else TaskModels(task_file)


class BundledModels:
    """Full-range face detection and face mesh from the wheel of MediaPipe 0.10.21. Making it takes 40 ms.

    The mesh runs on a given region instead of inside MediaPipe's own tracking graph. It remembers no face, so one mesh
    serves any number of faces.
    """

    def __init__(self) -> None:
        try:
            from mediapipe.framework.formats import rect_pb2
            from mediapipe.python import CalculatorGraph, ImageFormat, packet_creator, packet_getter
            from mediapipe.python._framework_bindings import _packet_getter
            from mediapipe.python.solutions.face_detection import FaceDetection
        except ImportError as error:
            raise ModelError(
                "this MediaPipe carries no face models",
                got=error,
                expected="MediaPipe 0.10.21",
                remedy=f"install mediapipe==0.10.21, or set {TASK_FILE_VARIABLE} to a face_landmarker.task file",
            ) from error
        self._as_packet: Any = lambda patch: packet_creator.create_image_frame(patch, image_format=ImageFormat.SRGB)
        # The bytes of a message. The public call parses them into an object, and reading numbers from it is slow.
        self._as_bytes: Any = getattr(_packet_getter, "_get_serialized_proto", None) or (
            lambda packet: packet_getter.get_proto(packet).SerializeToString()
        )
        whole = rect_pb2.NormalizedRect(x_center=0.5, y_center=0.5, width=1.0, height=1.0)
        self._whole: Any = packet_creator.create_proto(whole)
        self._landmarks: Any = None  # the last packet
        self._time_us = 0
        with quiet_stderr():
            # Full range: the short-range model misses faces below a seventh of the picture, and sees faces in noise and
            # cartoons.
            self._detector: Any = FaceDetection(model_selection=1, min_detection_confidence=0.5)
            self._mesh: Any = CalculatorGraph(graph_config=_MESH_GRAPH)
            self._mesh.observe_output_stream("landmarks", self._receive, True)
            # Without attention: it steadies no lip, costs 1 ms more and takes more things for faces.
            self._mesh.start_run({"with_attention": packet_creator.create_bool(False)})
            # The graphs start in threads of their own, which write useless lines to stderr: wait until they run.
            blank = np.zeros((_MESH_SIDE_PX, _MESH_SIDE_PX, 3), np.uint8)
            self._detector.process(blank)
            self._run_mesh(blank)
        self._found_any = False

    def detect(self, rgb: Rgb) -> list[Detection]:
        height, width = rgb.shape[:2]
        size = np.array([width, height], np.float32)
        found = []
        for detection in self._detector.process(rgb).detections or []:
            location = detection.location_data
            relative = location.relative_bounding_box
            left, top = relative.xmin * width, relative.ymin * height
            box = Box(left, top, left + relative.width * width, top + relative.height * height)
            points = np.array([(point.x, point.y) for point in location.relative_keypoints[:4]], np.float32) * size
            found.append(Detection(box, points, float(detection.score[0])))
        return found

    def mesh(self, picture: Picture, region: Region) -> tuple[Points, float] | None:
        to_frame = _to_frame(region, _MESH_SIDE_PX)
        patch = picture.rgb_warp(to_frame, _MESH_SIDE_PX)
        # One more useless line comes with the first face.
        with contextlib.nullcontext() if self._found_any else quiet_stderr():
            self._run_mesh(patch)
        if self._landmarks is None or self._landmarks.is_empty():
            return None
        self._found_any = True
        relative = _as_array(self._as_bytes(self._landmarks))
        points = relative[:, :2] * _MESH_SIDE_PX @ to_frame[:, :2].T + to_frame[:, 2]
        return points.astype(np.float32), _yaw_deg(relative)

    def close(self) -> None:
        if self._mesh is None:
            return
        self._detector.close()
        self._mesh.close()
        # The graph holds the callback, the callback holds this object, and this object holds the graph. Python's
        # collector cannot see into that ring, and two threads would live on in it.
        self._mesh = None

    def _run_mesh(self, patch: Rgb) -> None:
        self._landmarks = None
        # A graph refuses a time stamp that does not rise, whatever the time of the picture is.
        self._time_us += 1
        self._mesh.add_packet_to_input_stream("roi", self._whole.at(self._time_us))
        self._mesh.add_packet_to_input_stream("image", self._as_packet(patch).at(self._time_us))
        self._mesh.wait_until_idle()

    def _receive(self, stream: str, packet: Any) -> None:
        self._landmarks = packet


# MediaPipe's landmark model by itself, on a given region. (Its solution classes only offer the whole chain of
# detection, landmarks and memory of the last place.) It runs in the thread that waits for it: in another one it takes a
# tenth longer.
_MESH_GRAPH = """
executor { name: "" type: "ApplicationThreadExecutor" }
input_stream: "image"
input_stream: "roi"
input_side_packet: "with_attention"
output_stream: "landmarks"
node {
  calculator: "FaceLandmarkCpu"
  input_stream: "IMAGE:image"
  input_stream: "ROI:roi"
  input_side_packet: "WITH_ATTENTION:with_attention"
  output_stream: "LANDMARKS:landmarks"
}
"""


class TaskModels:
    """MediaPipe's Tasks API with a `face_landmarker.task` file, which the user must provide.

    Its detector is the short-range one: a face smaller than a seventh of the input is found only by the search in parts
    of the picture. The API takes no region, so `mesh` gives it a turned square twice as wide as the face.
    """

    def __init__(self, task_file: str | PathLike[str]) -> None:
        path = Path(task_file)
        if not path.is_file():
            raise ModelError(
                f"{path}: no such file",
                expected="a face_landmarker.task file",
                remedy=f"download it from MediaPipe's page on face landmarks, or unset {TASK_FILE_VARIABLE}",
            )
        try:
            import mediapipe as mp
            from mediapipe.tasks.python import BaseOptions, vision

            landmarker, options = vision.FaceLandmarker, vision.FaceLandmarkerOptions
            self._image = mp.Image
            self._srgb = mp.ImageFormat.SRGB
        except (ImportError, AttributeError) as error:
            raise ModelError(
                "this MediaPipe has no Tasks API for face landmarks",
                got=error,
                expected="MediaPipe 0.10.21 or later",
                remedy=f"install mediapipe==0.10.21, or unset {TASK_FILE_VARIABLE}",
            ) from error
        try:
            with quiet_stderr():
                self._landmarker: Any = landmarker.create_from_options(
                    options(base_options=BaseOptions(model_asset_path=str(path)), num_faces=8)
                )
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"{path}: cannot be used",
                got=str(error).splitlines()[0] if str(error) else type(error).__name__,
                expected="a face_landmarker.task file",
                remedy="download it again",
            ) from error

    def detect(self, rgb: Rgb) -> list[Detection]:
        found = []
        for points in self._landmarks(rgb):
            parts = np.stack([mean_of(points, part)[:2] for part in _MESH_OF_DETECTOR])
            found.append(Detection(box_of(points[:, :2]), parts, 1.0))  # the API gives no score
        return found

    def mesh(self, picture: Picture, region: Region) -> tuple[Points, float] | None:
        wider = dataclasses.replace(region, side_px=region.side_px * 2.0 / _MESH_PER_BOX)
        to_frame = _to_frame(wider, _TASK_SIDE_PX)
        faces = self._landmarks(picture.rgb_warp(to_frame, _TASK_SIDE_PX))
        if not faces:
            return None
        # The square may show a neighbour too: the face nearest to its middle is the one that was asked for.
        points = min(faces, key=lambda face: float(np.abs(face[:, :2].mean(axis=0) - _TASK_SIDE_PX / 2).sum()))
        in_frame = points[:, :2] @ to_frame[:, :2].T + to_frame[:, 2]
        return in_frame.astype(np.float32), _yaw_deg(points)

    def close(self) -> None:
        self._landmarker.close()

    def _landmarks(self, rgb: Rgb) -> list[Points]:
        """Points [468, 3] of each face, in pixels of this picture. Further points, of the irises, are left out."""
        height, width = rgb.shape[:2]
        result = self._landmarker.detect(self._image(image_format=self._srgb, data=np.ascontiguousarray(rgb)))
        size = np.array([width, height, width], np.float32)
        return [
            np.array([(point.x, point.y, point.z) for point in face[:NUM_POINTS]], np.float32) * size
            for face in result.face_landmarks
        ]


def _as_array(message: bytes) -> Points:
    """Points [N, 3] from a message of landmarks in its serialized form."""
    # The usual layout has two bytes before each point and one before each number. Reading it directly takes a tenth of
    # the time of parsing the message.
    if len(message) == 17 * NUM_POINTS:
        rows = np.frombuffer(message, np.uint8).reshape(NUM_POINTS, 17)
        if (rows[:, [0, 1, 2, 7, 12]] == (0x0A, 15, 0x0D, 0x15, 0x1D)).all():
            return rows[:, [3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15, 16]].copy().view("<f4")
    # Another release may write another layout; then the slow way is still right.
    from mediapipe.framework.formats import landmark_pb2

    landmarks = landmark_pb2.NormalizedLandmarkList.FromString(message)
    return np.array([(point.x, point.y, point.z) for point in landmarks.landmark], np.float32)


def mean_of(points: npt.NDArray[Any], part: tuple[int, ...]) -> npt.NDArray[Any]:
    """The mean [...] of some of the points [N, ...]. For few points it is several times as fast as `numpy.mean`."""
    return np.add.reduce(points[list(part)]) / len(part)


def box_of(points: Points) -> Box:
    """The box around points [N, 2]."""
    left, top = np.minimum.reduce(points)
    right, bottom = np.maximum.reduce(points)
    return Box(float(left), float(top), float(right), float(bottom))


def _to_frame(region: Region, side_px: int) -> npt.NDArray[np.float64]:
    """The matrix [2, 3] from places in an upright picture of the region, `side_px` wide, to places in the frame.

    Both count from the corner of the first pixel.
    """
    turn = np.exp(1j * region.turn_rad)
    scale = region.side_px / side_px
    corner = region.centre - turn * complex(1, 1) * region.side_px / 2
    return np.array(
        [[turn.real * scale, -turn.imag * scale, corner.real], [turn.imag * scale, turn.real * scale, corner.imag]]
    )


def _yaw_deg(points: Points) -> float:
    """How far the line between the outer eye corners is turned out of the picture plane, from points [N, 3]."""
    across = points[LEFT_EYE[0]] - points[RIGHT_EYE[0]]
    return float(np.degrees(np.arctan2(across[2], np.hypot(across[0], across[1]))))


# Descriptor 2 belongs to the whole process: two threads that divert it would restore it in the wrong order.
_stderr_lock = threading.Lock()
_NOISE = (
    b"TensorFlow Lite",
    b"inference_feedback_manager",
    b"absl::InitializeLog",
    b"gl_context",
    b"landmark_projection",
)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what C++ code writes to stderr, and pass it on afterwards without the known noise of MediaPipe.

    No logging setting of MediaPipe has an effect, so the file descriptor itself is diverted.
    """
    with _stderr_lock, contextlib.ExitStack() as stack:
        try:
            held_back = stack.enter_context(tempfile.TemporaryFile())
            sys.stderr.flush()
            saved = os.dup(2)
        # The process has no stderr, or no place for a temporary file. Faces are found all the same.
        except (OSError, AttributeError, ValueError):
            yield
            return
        # The C++ code writes to descriptor 2 itself, past `sys.stderr`.
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
