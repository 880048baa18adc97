"""Finding the faces in the pictures of a video, and following each under an id of its own.

The detector is expensive and coarse. The face mesh is cheap and precise, but must know where the face is. So the
detector searches the whole picture now and then, and its parts one at a time for small faces. The mesh follows each
face from picture to picture. A face counts only if both agree, and only as long as the detector confirms it from time
to time. All intervals are media time, so the picture rate does not matter.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from avsr.lips.crops import lip_opening
from avsr.lips.face_models import (
    LEFT_EYE,
    MOUTH,
    NUM_POINTS,
    RIGHT_EYE,
    Box,
    Detection,
    FaceModels,
    Points,
    Region,
    box_of,
    import_mediapipe,
    mean_of,
    open_face_models,
)
from avsr.lips.holding import Patch, patch_of, shift_since
from avsr.lips.parts import detect_in, parts_of, quarters_of
from avsr.lips.turns import AT_ONCE, Waiting, whose_turn
from avsr.media import Picture, VideoFrame
from avsr.surroundings import require_own_process

__all__ = ["NUM_POINTS", "Box", "Face", "FaceFinder", "Points", "import_mediapipe"]

MAX_FACES = 49
"""At most this many faces are followed at a time, the largest ones: a gallery of 7 x 7. More than `turns.AT_ONCE` are
not searched in every picture, but take turns."""

MAX_LOST_S = 1.0
"""A face that is found again near its place within this time is the same face."""

_SEARCH_S = 1.0  # between searches of the whole picture while a face is followed; else every picture is searched
_PART_S = 1.5  # between searches of one part of the picture while a face is followed
_CROWD_PART_S = 0.2  # the same in a crowd, once all parts were searched
_PARTS_AT_ONCE = 4  # parts searched in a picture until then
_FEW_FACES = 3  # from here on a picture may be a gallery
_SMALL_FACE = 0.1  # of the longer side of the picture; the faces of a gallery of 4 x 4 are smaller
_SWEEP_S = 1.0  # at least, between searches of all parts of an empty picture at once
_CHECK_S = 1.2  # between confirmations of a followed face; a search that finds it counts as one
_MAX_FAILED_CHECKS = 3
# On a copy of 640 px the detector finds the same faces of a 720p picture as on the picture itself.
_WHOLE_SIDE_PX = 640
_NEAR_PER_BOX = 4.0  # side of a search around a face, in sizes of the face: here the detector is at its best
_NEAR_SIDE_PX = 256
# The detector misses some faces that fill the picture. With this margin of black it finds all of them. With more margin
# it finds faces that do not exist.
_MARGIN = 0.17
_MIN_OVERLAP = 0.3
_MAX_OVERLAP = 0.4  # of the faces of two people
_MIN_FACE_PX = 24.0
_CALM_SHIFT = 0.03  # movement of a calm face from picture to picture, in sides of the face
# The picture was cut if the mean absolute difference of two 32x18 thumbnails exceeds this. People who move before a
# fixed camera give up to 5. Cuts from one talker to another before the same wall give 15 and more.
_CUT_DIFFERENCE = 12.0


@dataclasses.dataclass(frozen=True)
class Face:
    """A face in one picture."""

    id: int
    """The same as long as the same face is followed, and never given to another face in the same video."""
    points_px: Points
    """Float32 [468, 2]: MediaPipe's face mesh, in frame pixels from the corner of the first pixel."""
    box: Box
    """The box around the points."""
    yaw_deg: float = 0.0
    """Turn of the head to the side, positive to the right of the picture; an estimate of the mesh."""


@dataclasses.dataclass
class _Followed:
    """A face that is followed."""

    face: Face
    """The face in the last picture that shows it."""
    before: Face
    """The face one picture earlier."""
    seen_s: float
    """When it was last seen."""
    check_s: float
    """When the next confirmation is due."""
    waiting: Waiting
    """For its next turn to be looked at."""
    shift: complex = 0j
    """How far it moved in the last step, as x + iy."""
    looked: tuple[Face, Patch] | None = None
    """The face at its last turn, and what it looked like; None if no face had to wait then."""
    failed_checks: int = 0
    is_lost: bool = False


class FaceFinder:
    """Follows the faces in the pictures of one video. Use it as a context manager.

    models: the networks to use, by default from `open_face_models`. They are closed with the finder. They must stay in
        one thread, and in a process that was not forked from one that ran them.

    Making the networks takes 40 ms: use one finder for many videos, with `reset` between them.
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
        """Close the networks."""
        self._models.close()

    def reset(self) -> None:
        """Forget everything, for another video. The finder then works like a new one."""
        self._next_id = itertools.count()
        self._followed: dict[int, _Followed] = {}
        self._thumbnail: npt.NDArray[Any] | None = None
        self._size: tuple[int, int] | None = None
        self._parts: Iterator[Box] = iter(())
        self._sweep: collections.deque[Box] = collections.deque()  # parts to be searched without a wait
        self._is_quartered = self._is_swept = False  # what has been in the sweep in this shot
        self._search_s = self._part_s = self._sweep_s = -np.inf  # when each search is due
        self._num_empty = 0  # pictures since a face was last seen
        self.num_beyond = 0  # the most faces of this video that one search found beyond MAX_FACES

    @property
    def followed(self) -> frozenset[int]:
        """Ids of the faces that are followed now, including faces out of sight for a moment."""
        return frozenset(self._followed)

    @property
    def num_seen(self) -> int:
        """How many of them are in sight."""
        return sum(not followed.is_lost for followed in self._followed.values())

    def follow(self, frame: VideoFrame) -> list[Face]:
        """The faces seen in the next picture of the video, by rising id.

        A face keeps its id if it is out of sight for up to MAX_LOST_S and comes back near its place. A cut ends all
        faces. The times of the pictures must rise.

        Raises AvsrError in a process that was forked after its parent had used a model.
        """
        require_own_process()
        picture, time_s = frame.picture, frame.time_s
        if self._is_cut(picture):
            self._followed.clear()
            # After a cut the next search must not wait for its turn: the faces of the new shot are unknown.
            self._search_s, self._num_empty = -np.inf, 0
            self._parts = itertools.cycle(parts_of(picture.width, picture.height))
            self._sweep.clear()
            self._is_quartered = self._is_swept = False
        waiting = {number: one.waiting for number, one in self._followed.items()}
        is_crowd = self.num_seen > AT_ONCE
        turn = set(whose_turn(waiting, time_s) if is_crowd else waiting)
        for number, followed in list(self._followed.items()):
            if number not in turn:
                _hold(picture, followed)
                continue
            self._follow_one(picture, time_s, followed)
            followed.looked = (followed.face, patch_of(picture, followed.face.points_px)) if is_crowd else None
            if self._is_over(followed, time_s):
                del self._followed[number]
        self._lose_doubles()
        self._search(picture, time_s)
        seen = [followed.face for followed in self._followed.values() if not followed.is_lost]
        return sorted(seen, key=lambda face: face.id)

    def may_skip(self, frame: VideoFrame) -> bool:
        """Whether the next picture need not be searched.

        It need not if it goes on from the last picture and all faces were in sight there and hardly moved. Its faces
        are then between their places in the pictures before and after, or `locate` finds them.
        """
        calm = [
            not followed.is_lost and abs(followed.shift) < _CALM_SHIFT * followed.face.box.side
            for followed in self._followed.values()
        ]
        if not calm or not all(calm) or (len(calm) > AT_ONCE and self._sweep):
            return False
        if self._is_cut(frame.picture):
            self._thumbnail = None  # so that `follow` takes it for a cut too
            return False
        return True

    def locate(self, frame: VideoFrame, face: Face) -> Face | None:
        """A followed face in a picture that was skipped, None if it is not found. face: the same, a picture before."""
        return self._mesh_at(frame.picture, face, 0j)

    def _is_cut(self, picture: Picture) -> bool:
        """Whether this picture does not go on from the last one: another shot, another size, or the first."""
        grid = picture.grid(max(1, picture.width // 96), max(1, picture.height // 54))
        last, self._thumbnail = self._thumbnail, cv2.resize(grid, (32, 18), interpolation=cv2.INTER_AREA)
        size, self._size = self._size, (picture.width, picture.height)
        return (
            last is None
            or size != self._size
            or cv2.norm(self._thumbnail, last, cv2.NORM_L1) > _CUT_DIFFERENCE * last.size
        )

    # --- following ---

    def _follow_one(self, picture: Picture, time_s: float, followed: _Followed) -> None:
        """Find a followed face in the next picture, and have the detector confirm it if that is due."""
        last = followed.face
        face = None if followed.is_lost else self._mesh_at(picture, last, followed.shift)
        followed.shift = face.box.centre - last.box.centre if face is not None else 0j
        if face is None:  # the mesh lost it: the detector may find it near its place
            near = self._detect_near(picture, last.box)
            near = [there for there in near if _may_be_same(there.box, last.box) and self._is_free(there.box, last.id)]
            face = self._face_at(picture, max(near, key=lambda d: d.box.overlap(last.box)), last.id) if near else None
        followed.is_lost = face is None
        followed.waiting.look(time_s, math.nan if face is None else lip_opening(face.points_px))
        if face is None:
            return
        followed.before, followed.face, followed.seen_s = last, face, time_s
        # The mesh alone can go on seeing a face after it has left, so the detector is asked now and then.
        if time_s >= followed.check_s:
            near = [
                there for there in self._detect_near(picture, face.box) if there.box.overlap(face.box) >= _MIN_OVERLAP
            ]
            followed.failed_checks = 0 if near else followed.failed_checks + 1
            followed.check_s = time_s + (self._check_s() if near else _CHECK_S)

    def _check_s(self) -> float:
        """Time between confirmations of a face. In a crowd it grows, so that their number does not."""
        return _CHECK_S * max(1.0, len(self._followed) / AT_ONCE)

    def _mesh_at(self, picture: Picture, last: Face, shift: complex) -> Face | None:
        """The face as the mesh finds it, or None.

        The mesh looks where the movement `shift` takes the face from its place `last`, and then at that place.
        """
        region = _region_of(last.points_px)
        # A slow face lies within the region of its last place, so a second look would only cost time.
        moves = abs(shift) > 0.1 * last.box.side
        for moved in (shift, 0j) if moves else (0j,):
            found = self._models.mesh(picture, dataclasses.replace(region, centre=region.centre + moved))
            if found is not None and _is_plausible(found[0]):
                face = Face(last.id, found[0], box_of(found[0]), found[1])
                # The mesh can slide to another face in its region; it would then carry on the id of this one.
                if face.box.overlap(last.box.moved(moved)) >= _MIN_OVERLAP:
                    return face
        return None

    def _is_over(self, followed: _Followed, time_s: float) -> bool:
        return followed.failed_checks >= _MAX_FAILED_CHECKS or time_s - followed.seen_s > MAX_LOST_S

    def _lose_doubles(self) -> None:
        """Count one of two followed faces at the same place as lost: the mesh of one has jumped to the other."""
        seen = [followed for followed in self._followed.values() if not followed.is_lost]
        for one, other in itertools.combinations(seen, 2):
            if one.face.box.overlap(other.face.box) > _MAX_OVERLAP:
                # The face that jumped has moved further than the face that stayed.
                jumped = max(one, other, key=lambda followed: abs(followed.shift) / followed.face.box.side)
                jumped.face, jumped.is_lost, jumped.shift = jumped.before, True, 0j

    def _is_free(self, box: Box, number: int = -1) -> bool:
        """Whether no face is followed at a place. The face with this number does not count."""
        others = (followed.face for followed in self._followed.values() if followed.face.id != number)
        return all(face.box.overlap(box) < _MIN_OVERLAP for face in others)

    # --- finding ---

    def _search(self, picture: Picture, time_s: float) -> None:
        """Search for faces that are not followed yet, if a search is due."""
        self._num_empty += 1
        if self._is_anyone_there():
            self._num_empty = 0
        if time_s >= self._search_s:
            self._follow_new(picture, time_s, self._detect_whole(picture))
            # A picture that seems empty is searched once more: by turns the whole with a margin, and a part of it.
            if not self._is_anyone_there() and self._num_empty % 2:
                self._follow_new(picture, time_s, self._detect_whole(picture, _MARGIN))
            self._search_s = time_s + (_SEARCH_S if self._is_anyone_there() else 0.0)
        is_empty = not self._is_anyone_there()
        if is_empty and time_s >= self._sweep_s:  # finds small faces at the start and after a cut
            self._sweep_s = time_s + _SWEEP_S
            self._is_quartered = self._is_swept = True
            for part in parts_of(picture.width, picture.height):
                self._follow_new(picture, time_s, detect_in(self._models, picture, part))
        elif self._num_empty % 2 == 0 and (is_empty or time_s >= self._part_s):
            self._search_parts(picture, time_s)

    def _search_parts(self, picture: Picture, time_s: float) -> None:
        """Search the next part of the picture, or the next ones of a sweep.

        The search of the whole picture misses a third of the faces in a gallery, and one of them may speak. So a shot
        that may be a gallery is searched in quarters, and a shot with more faces than these in all its parts, without a
        wait. Shots of one or two people do not pay for it.
        """
        before = frozenset(self._followed)
        count = min(_PARTS_AT_ONCE, len(self._sweep))
        for part in [self._sweep.popleft() for _ in range(count)] or itertools.islice(self._parts, 1):
            self._follow_new(picture, time_s, detect_in(self._models, picture, part))
        is_more = self.num_seen > AT_ONCE or not before.issuperset(self._followed)
        if is_more and not self._is_swept:
            self._is_swept = True
            self._sweep.extend(parts_of(picture.width, picture.height))
        elif not self._is_quartered and self._may_be_gallery(picture):
            self._is_quartered = True
            self._sweep.extend(quarters_of(picture.width, picture.height))
        if not self._sweep:
            self._part_s = time_s + (_CROWD_PART_S if self.num_seen > AT_ONCE else _PART_S)

    def _may_be_gallery(self, picture: Picture) -> bool:
        """Whether several faces are in sight, or one or two small ones."""
        sides_px = [followed.face.box.side for followed in self._followed.values() if not followed.is_lost]
        is_small = max(sides_px, default=math.inf) < _SMALL_FACE * max(picture.width, picture.height)
        return len(sides_px) >= _FEW_FACES or is_small

    def _is_anyone_there(self) -> bool:
        return self.num_seen > 0

    def _follow_new(self, picture: Picture, time_s: float, detections: list[Detection]) -> None:
        """Follow the detected faces that are new and that the mesh confirms.

        If MAX_FACES are followed already, a new face takes the place of the smallest, if it has twice its area.
        """
        num_beyond = 0
        # Large faces first: with MAX_FACES followed, small ones give way to them.
        for detection in sorted(detections, key=lambda detection: detection.box.area, reverse=True):
            known = [one for one in self._followed.values() if one.face.box.overlap(detection.box) >= _MIN_OVERLAP]
            for followed in known:
                if not followed.is_lost:  # this search is as good as a check of its own
                    followed.check_s, followed.failed_checks = time_s + self._check_s(), 0
            if known:
                continue
            smallest = min(
                (followed.face for followed in self._followed.values()), key=lambda face: face.box.area, default=None
            )
            is_full = len(self._followed) >= MAX_FACES
            # Twice the area, so that two faces of about the same size do not take turns.
            if is_full and smallest is not None and detection.box.area < 2 * smallest.box.area:
                num_beyond += 1
                continue
            face = self._face_at(picture, detection, -1)
            if face is None or not self._is_free(face.box):
                continue
            if is_full and smallest is not None:
                del self._followed[smallest.id]
            face = dataclasses.replace(face, id=next(self._next_id))
            waiting = Waiting(time_s, lip_opening(face.points_px))
            self._followed[face.id] = _Followed(face, face, time_s, time_s + _CHECK_S, waiting)
        self.num_beyond = max(self.num_beyond, num_beyond)

    def _face_at(self, picture: Picture, detection: Detection, number: int) -> Face | None:
        """The face at a detection. None unless the mesh agrees, and the detector agrees when it is shown the face
        large."""
        if detection.box.side < _MIN_FACE_PX:
            return None
        found = self._models.mesh(picture, Region.around(detection.box, *detection.points_px[:2]))
        if found is None:
            return None
        found = self._models.mesh(picture, _region_of(found[0]))  # again, on the region that the mesh itself gives
        if found is None or not _is_plausible(found[0]) or not _agree(found[0], detection):
            return None
        box = box_of(found[0])
        near = [there for there in self._detect_near(picture, box) if _agree(found[0], there)]
        if not near or self._is_upside_down(picture, box, max(there.score for there in near)):
            return None
        return Face(number, found[0], box, found[1])

    def _detect_whole(self, picture: Picture, margin: float = 0.0) -> list[Detection]:
        """Faces in the whole picture. margin: width of black around it, in shares of its longer side."""
        width, height = picture.width, picture.height
        border = margin * max(width, height)
        return detect_in(self._models, picture, Box(-border, -border, width + border, height + border), _WHOLE_SIDE_PX)

    def _detect_near(self, picture: Picture, box: Box) -> list[Detection]:
        """Faces at and beside the place where a face should be."""
        return detect_in(self._models, picture, box.square(_NEAR_PER_BOX), _NEAR_SIDE_PX)

    def _is_upside_down(self, picture: Picture, box: Box, score: float) -> bool:
        """Whether the detector is surer of this face if the picture is turned by 180 degrees.

        Both networks often take an upside-down face for an upright one with its mouth on the forehead.
        """
        near = detect_in(self._models, picture, box.square(_NEAR_PER_BOX), _NEAR_SIDE_PX, turned=True)
        return any(there.box.overlap(box) >= _MIN_OVERLAP and there.score > score for there in near)


def _hold(picture: Picture, followed: _Followed) -> None:
    """Move a face along in a picture in which it is not its turn."""
    followed.shift = 0j
    if followed.looked is None or followed.is_lost:
        return
    face, patch = followed.looked
    shift = shift_since(patch, picture)
    if shift is None:
        return
    points_px = face.points_px + np.array([shift.real, shift.imag], np.float32)
    moved = dataclasses.replace(face, points_px=points_px, box=face.box.moved(shift))
    followed.shift, followed.face = moved.box.centre - followed.face.box.centre, moved


def _region_of(points: Points) -> Region:
    return Region.around(box_of(points), points[RIGHT_EYE[0]], points[LEFT_EYE[0]])


def _may_be_same(box: Box, last: Box) -> bool:
    """Whether a detected face may be the lost face `last`: near its place, and of about its size."""
    return abs(box.centre - last.centre) < last.side and 1 / 1.6 < box.side / max(last.side, 1.0) < 1.6


def _is_plausible(points: Points) -> bool:
    """Whether a mesh [468, 2] has the proportions of a face and stands upright."""
    chin, brow = points[152], points[10]
    down = mean_of(points, MOUTH) - mean_of(points, RIGHT_EYE + LEFT_EYE)
    height = float(np.hypot(*(chin - brow)))
    if height < 1.0 or down[1] < 0.25 * float(np.hypot(*down)):  # leans by more than 75 degrees
        return False
    return 0.15 < float(np.hypot(*down)) / height < 0.7


def _agree(points: Points, detection: Detection) -> bool:
    """Whether the mesh and the detector mean the same face: their boxes overlap, and their eyes and mouths are within a
    sixth of the face."""
    if box_of(points).overlap(detection.box) < _MIN_OVERLAP:
        return False
    parts = np.stack([mean_of(points, part) for part in (RIGHT_EYE, LEFT_EYE, MOUTH)])
    apart = np.hypot(*(parts - detection.points_px[[0, 1, 3]]).T)
    return float(apart.max()) < detection.box.side / 6
