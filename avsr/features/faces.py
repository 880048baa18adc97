"""Finding the faces in the pictures of a video and following each under an identity of its own.

Detection is dear and coarse, the face mesh cheap and precise once it knows where to look. So the detector looks at the
whole picture now and then, and at parts of it, one at a time, for faces that are too small to be seen in the whole;
the mesh follows each face from picture to picture. A face counts only where both agree, and goes on counting only as
long as the detector confirms it from time to time. All intervals are media time: the picture rate does not matter.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from types import TracebackType

import numpy as np
import numpy.typing as npt

from avsr.features.face_models import (
    LEFT_EYE,
    MOUTH,
    NUM_POINTS,
    RIGHT_EYE,
    Box,
    Detection,
    FaceModels,
    Points,
    Region,
    Rgb,
    box_of,
    import_mediapipe,
    mean_of,
    open_face_models,
    resize,
)
from avsr.media import VideoFrame

__all__ = ["NUM_POINTS", "Box", "Face", "FaceFinder", "Points", "import_mediapipe"]

MAX_FACES = 6
"""So many faces are followed at the same time, the largest ones: each costs 1 to 7 ms a picture."""

MAX_LOST_S = 1.0
"""A face that is found again at its place within this time is the same face."""

_SEARCH_S = 0.8  # between searches of the whole picture while a face is followed; without one it is every picture
_PART_S = 0.8  # between searches of one part of it while a face is followed
_SWEEP_S = 1.0  # at least, between searches of all parts at once, as done at the start and after a cut
_CHECK_S = 1.0  # between confirmations of a followed face
_MAX_FAILED_CHECKS = 3
_WHOLE_SIDE_PX = 640
_PART_SIDE_PX = 400  # where a face of 40 px is still large enough for the detector
_PART_OVERLAP = 1 / 3
_NEAR_PER_BOX = 4.0  # in a square of so many face sizes around the face the detector is at its best
_NEAR_SIDE_PX = 256
# The detector overlooks some faces that fill the picture: with this margin around it finds all of them. More margin
# makes it see faces where there are none.
_MARGIN = 0.17
_MIN_OVERLAP = 0.3
_MAX_OVERLAP = 0.4  # of two people's faces
_MIN_FACE_PX = 24.0
# Mean absolute difference of two 32x18 thumbnails of the green channel above which the picture was cut. People who move
# in front of a camera at rest give up to 5, cuts from one talker to another before the same wall 15 and more.
_CUT_DIFFERENCE = 12.0


@dataclasses.dataclass(frozen=True)
class Face:
    """A face in one picture.

    id: the same as long as the same face is followed, never given to another one in the same video. points_px: float32
    [468, 2], MediaPipe's face mesh, in frame pixels from the corner of the first pixel. box: around these points.
    yaw_deg: turn of the head to the side, positive to the right of the picture; an estimate of the mesh.
    """

    id: int
    points_px: Points
    box: Box
    yaw_deg: float = 0.0


@dataclasses.dataclass
class _Followed:
    """A face that is followed. face: as it was last seen, and before: a picture earlier. shift: how far it moved in the
    last step, as x + iy."""

    face: Face
    before: Face
    seen_s: float
    check_s: float  # when it is due for confirmation
    shift: complex = 0j
    failed_checks: int = 0
    is_lost: bool = False


class FaceFinder:
    """Follows the faces in the pictures of one video. Use it as a context manager.

    models: the networks to use, closed with the finder; by default those of `open_face_models`. They must stay in one
    thread, and in a process that was not forked from one that ran them. Making them takes 40 ms:
    use one finder for many videos, with `reset` between them.
    """

    def __init__(self, models: FaceModels | None = None) -> None:
        self._models = models or open_face_models()
        self.reset()

    def __enter__(self) -> FaceFinder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the models back."""
        self._models.close()

    def reset(self) -> None:
        """Forget everything: what follows is another video. Its results are those of a new finder."""
        self._next_id = itertools.count()
        self._followed: dict[int, _Followed] = {}
        self._thumbnail: npt.NDArray[np.float32] | None = None
        self._size: tuple[int, int] | None = None
        self._parts: Iterator[Box] = iter(())
        self._search_s = self._part_s = self._sweep_s = -np.inf  # when each is due
        self._num_empty = 0  # pictures since somebody was seen

    @property
    def followed(self) -> frozenset[int]:
        """Ids of the faces that are followed now, also those out of sight for a moment."""
        return frozenset(self._followed)

    def follow(self, frame: VideoFrame) -> list[Face]:
        """The faces seen in the next picture of the video, by rising id.

        A face keeps its id through losses of up to MAX_LOST_S near its place; a cut ends all of them. Times of
        pictures must rise.
        """
        rgb, time_s = frame.rgb, frame.time_s
        if self._is_cut(rgb):
            self._followed.clear()
            self._search_s, self._num_empty = -np.inf, 0
            height, width = rgb.shape[:2]
            self._parts = itertools.cycle(_parts(width, height))
        for number, followed in list(self._followed.items()):
            self._step(rgb, time_s, followed)
            if self._is_over(followed, time_s):
                del self._followed[number]
        self._separate()
        self._search(rgb, time_s)
        seen = [followed.face for followed in self._followed.values() if not followed.is_lost]
        return sorted(seen, key=lambda face: face.id)

    def _is_cut(self, rgb: Rgb) -> bool:
        """Whether this picture does not go on from the last one: another shot, another size, or the first."""
        green = np.ascontiguousarray(rgb[:: max(1, rgb.shape[0] // 72), :: max(1, rgb.shape[1] // 128), 1])
        last, self._thumbnail = self._thumbnail, resize(green, (32, 18)).astype(np.float32)
        size, self._size = self._size, (rgb.shape[1], rgb.shape[0])
        return last is None or size != self._size or float(np.abs(self._thumbnail - last).mean()) > _CUT_DIFFERENCE

    # --- following ---

    def _step(self, rgb: Rgb, time_s: float, followed: _Followed) -> None:
        """Look where a followed face is now."""
        last = followed.face
        face = None if followed.is_lost else self._mesh_at(rgb, last, followed.shift)
        followed.shift = face.box.centre - last.box.centre if face is not None else 0j
        if face is None:
            near = self._detect_near(rgb, last.box)
            near = [there for there in near if _may_be_same(there.box, last.box) and self._is_free(there.box, last.id)]
            face = self._face_at(rgb, max(near, key=lambda d: d.box.overlap(last.box)), last.id) if near else None
        followed.is_lost = face is None
        if face is None:
            return
        followed.before, followed.face, followed.seen_s = last, face, time_s
        if time_s >= followed.check_s:
            followed.check_s = time_s + _CHECK_S
            near = [there for there in self._detect_near(rgb, face.box) if there.box.overlap(face.box) >= _MIN_OVERLAP]
            followed.failed_checks = 0 if near else followed.failed_checks + 1

    def _mesh_at(self, rgb: Rgb, last: Face, shift: complex) -> Face | None:
        """The face that was `last` a picture ago, at its old place, or where it would be had it moved on."""
        region = _region_of(last.points_px)
        moves = abs(shift) > 0.1 * last.box.side
        for moved in (shift, 0j) if moves else (0j,):
            found = self._models.mesh(rgb, dataclasses.replace(region, centre=region.centre + moved))
            if found is not None and _is_plausible(found[0]):
                face = Face(last.id, found[0], box_of(found[0]), found[1])
                if face.box.overlap(last.box.moved(moved)) >= _MIN_OVERLAP:
                    return face
        return None

    def _is_over(self, followed: _Followed, time_s: float) -> bool:
        return followed.failed_checks >= _MAX_FAILED_CHECKS or time_s - followed.seen_s > MAX_LOST_S

    def _separate(self) -> None:
        """Of two followed faces at the same place one has jumped to the other: that one is lost."""
        seen = [followed for followed in self._followed.values() if not followed.is_lost]
        for one, other in itertools.combinations(seen, 2):
            if one.face.box.overlap(other.face.box) > _MAX_OVERLAP:
                jumped = max(one, other, key=lambda followed: abs(followed.shift) / followed.face.box.side)
                jumped.face, jumped.is_lost, jumped.shift = jumped.before, True, 0j

    def _is_free(self, box: Box, number: int = -1) -> bool:
        """Whether no other face is followed at a place; the one with this number does not count."""
        others = (followed.face for followed in self._followed.values() if followed.face.id != number)
        return all(face.box.overlap(box) < _MIN_OVERLAP for face in others)

    # --- finding ---

    def _search(self, rgb: Rgb, time_s: float) -> None:
        """Look for faces that are not followed, as far as it is due."""
        self._num_empty += 1
        if self._is_anyone_there():
            self._num_empty = 0
        if time_s >= self._search_s:
            self._welcome(rgb, time_s, self._detect_whole(rgb))
            # A second search of a picture that seems empty: of the whole with a margin and of its parts, in turns.
            if not self._is_anyone_there() and self._num_empty % 2:
                self._welcome(rgb, time_s, self._detect_whole(rgb, _MARGIN))
            self._search_s = time_s + (_SEARCH_S if self._is_anyone_there() else 0.0)
        is_empty = not self._is_anyone_there()
        if is_empty and time_s >= self._sweep_s:
            self._sweep_s = time_s + _SWEEP_S
            height, width = rgb.shape[:2]
            for part in _parts(width, height):
                self._welcome(rgb, time_s, self._detect_in(rgb, part))
        elif self._num_empty % 2 == 0 and (is_empty or time_s >= self._part_s):
            self._part_s = time_s + _PART_S
            for part in itertools.islice(self._parts, 1):
                self._welcome(rgb, time_s, self._detect_in(rgb, part))

    def _is_anyone_there(self) -> bool:
        return any(not followed.is_lost for followed in self._followed.values())

    def _welcome(self, rgb: Rgb, time_s: float, detections: list[Detection]) -> None:
        """Follow those of the detected faces that are new and real."""
        for detection in sorted(detections, key=lambda detection: detection.box.area, reverse=True):
            if not self._is_free(detection.box):
                continue
            smallest = min((followed.face for followed in self._followed.values()), key=_area, default=None)
            is_full = len(self._followed) >= MAX_FACES
            if is_full and smallest is not None and detection.box.area < 2 * smallest.box.area:
                continue
            face = self._face_at(rgb, detection, -1)
            if face is None or not self._is_free(face.box):
                continue
            if is_full and smallest is not None:
                del self._followed[smallest.id]
            face = dataclasses.replace(face, id=next(self._next_id))
            self._followed[face.id] = _Followed(face, face, time_s, check_s=time_s + _CHECK_S)

    def _face_at(self, rgb: Rgb, detection: Detection, number: int) -> Face | None:
        """The face at a detection, if the mesh sees the same one and the detector sees it from near by too."""
        if detection.box.side < _MIN_FACE_PX:
            return None
        found = self._models.mesh(rgb, Region.around(detection.box, *detection.points_px[:2]))
        if found is None:
            return None
        found = self._models.mesh(rgb, _region_of(found[0]))  # again, from the better place
        if found is None or not _is_plausible(found[0]) or not _agree(found[0], detection):
            return None
        box = box_of(found[0])
        near = [there for there in self._detect_near(rgb, box) if _agree(found[0], there)]
        if not near or self._is_upside_down(rgb, box, max(there.score for there in near)):
            return None
        return Face(number, found[0], box, found[1])

    def _detect_whole(self, rgb: Rgb, margin: float = 0.0) -> list[Detection]:
        """Faces in the whole picture. margin: of black around it, in shares of its longer side."""
        height, width = rgb.shape[:2]
        border = margin * max(width, height)
        return self._detect_in(rgb, Box(-border, -border, width + border, height + border), _WHOLE_SIDE_PX)

    def _detect_near(self, rgb: Rgb, box: Box) -> list[Detection]:
        """Faces at and beside a place where one is supposed to be."""
        return self._detect_in(rgb, box.square(_NEAR_PER_BOX), _NEAR_SIDE_PX)

    def _is_upside_down(self, rgb: Rgb, box: Box, score: float) -> bool:
        """Whether the detector is surer of this face when it sees the picture turned by 180 degrees: both networks
        often take an upside-down face for an upright one, with its mouth on the forehead."""
        height, width = rgb.shape[:2]
        turned = Box(width - box.right, height - box.bottom, width - box.left, height - box.top)
        near = self._detect_near(rgb[::-1, ::-1], turned)
        return any(there.box.overlap(turned) >= _MIN_OVERLAP and there.score > score for there in near)

    def _detect_in(self, rgb: Rgb, part: Box, side_px: int = _PART_SIDE_PX) -> list[Detection]:
        """Faces in a part of the picture, shown to the detector with no side above `side_px`; black where it reaches
        beyond the picture."""
        height, width = rgb.shape[:2]
        left, top, right, bottom = (round(edge) for edge in (part.left, part.top, part.right, part.bottom))
        inner = rgb[max(0, top) : min(height, bottom), max(0, left) : min(width, right)]
        if min(inner.shape[:2]) < 2:
            return []
        scale = min(1.0, side_px / max(right - left, bottom - top))
        if scale < 1.0:
            inner = resize(inner, (max(1, round(inner.shape[1] * scale)), max(1, round(inner.shape[0] * scale))))
        before_x, before_y = round(max(0, -left) * scale), round(max(0, -top) * scale)
        after_x, after_y = round(max(0, right - width) * scale), round(max(0, bottom - height) * scale)
        if before_x or before_y or after_x or after_y:
            inner = np.pad(inner, ((before_y, after_y), (before_x, after_x), (0, 0)))
        corner = np.array([left, top], np.float32)
        found = []
        for detection in self._models.detect(inner):
            box = detection.box
            found.append(
                Detection(
                    Box(
                        box.left / scale + left,
                        box.top / scale + top,
                        box.right / scale + left,
                        box.bottom / scale + top,
                    ),
                    detection.points_px / scale + corner,
                    detection.score,
                )
            )
        return found


def _area(face: Face) -> float:
    return face.box.area


def _region_of(points: Points) -> Region:
    return Region.around(box_of(points), points[RIGHT_EYE[0]], points[LEFT_EYE[0]])


def _parts(width: int, height: int) -> list[Box]:
    """Squares that overlap and cover a picture; none for one that the search of the whole does as well."""
    if max(width, height) <= 1.5 * _PART_SIDE_PX:
        return []

    def starts(length: int) -> list[float]:
        count = 1 + int(np.ceil(max(0, length - _PART_SIDE_PX) / (_PART_SIDE_PX * (1 - _PART_OVERLAP))))
        return [index * (length - _PART_SIDE_PX) / max(1, count - 1) for index in range(count)]

    return [Box(x, y, x + _PART_SIDE_PX, y + _PART_SIDE_PX) for y in starts(height) for x in starts(width)]


def _may_be_same(box: Box, last: Box) -> bool:
    """Whether a face found again may be the one that was lost there."""
    return abs(box.centre - last.centre) < last.side and 1 / 1.6 < box.side / max(last.side, 1.0) < 1.6


def _is_plausible(points: Points) -> bool:
    """Whether points can be those of a face a person holds up: of a face's proportions, and not upside down."""
    chin, brow = points[152], points[10]
    down = mean_of(points, MOUTH) - mean_of(points, RIGHT_EYE + LEFT_EYE)
    height = float(np.hypot(*(chin - brow)))
    if height < 1.0 or down[1] < 0.25 * float(np.hypot(*down)):  # leans by more than 75 degrees
        return False
    return 0.15 < float(np.hypot(*down)) / height < 0.7


def _agree(points: Points, detection: Detection) -> bool:
    """Whether the mesh and the detector mean the same face: their boxes overlap, and eyes and mouth are where the other
    has them, within a sixth of the face."""
    if box_of(points).overlap(detection.box) < _MIN_OVERLAP:
        return False
    parts = np.stack([mean_of(points, part) for part in (RIGHT_EYE, LEFT_EYE, MOUTH)])
    apart = np.hypot(*(parts - detection.points_px[[0, 1, 3]]).T)
    return float(apart.max()) < detection.box.side / 6
