"""Lip crops on the 40 ms grid of the media clock, each with whether and why it can be read.

Slot k covers [40 k, 40 (k + 1)) ms and shows the picture nearest to 40 k ms. The crop is a similarity transform of the
picture that puts the mouth at the centre, upright and at a fixed size relative to the head, so that what moves in the
crop is the mouth and not the head. Live and from a file it is the same code: `LipTracker`.

Every face that is followed gets its own lips in every slot. Whose are read is another question: `choice.py`.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator
from os import PathLike
from types import TracebackType

import numpy as np
import numpy.typing as npt

from avsr.grid import CROP_PX, SLOT_S
from avsr.lips.choice import face_choice
from avsr.lips.face_models import LEFT_EYE, NUM_POINTS, RIGHT_EYE, box_of, mean_of
from avsr.lips.faces import Face, FaceFinder
from avsr.lips.occlusion import LOOK_EVERY_SLOTS, CoverState, cover_log_odds, follow_cover
from avsr.lips.quality import sharpness
from avsr.lips.slots import Crop, LipSlot, LipTrack, Slot, no_crop
from avsr.media import Picture, VideoFrame, WarningSink, iter_frames, probe, read_ahead

MAX_BRIDGED_SLOTS = 3
"""A face that is away for so few slots is taken to have been there: a blink of the tracker, not of the speaker."""

LOOK_AHEAD_SLOTS = 1 + MAX_BRIDGED_SLOTS
"""How many slots at most are seen before a slot is final: 1 to smooth its place, more only while the face is away."""

_MAX_DISTANCE_S = 0.06  # a picture further away from a slot does not show what the lips did in it
# A face whose eyes, nose and lips have moved by less than this in two slots, in pixels of the crop, is half-way in the
# slot between: what is missed is less than the tremble of the mesh.
_STILL_PX = 2.0
_ROUNDING_S = 1e-6  # of times: must not decide which picture a slot shows
_ROTATION_SCALE_SLOTS = 13  # causal window for rotation and size: heads turn slowly, and jitter shows as a swaying crop
_SHARPNESS_SLOTS = 3  # a median needs no more, and each costs as much as half a crop
_MIN_MOUTH_PX = 10.0
_MAX_TURN = 0.5  # sideways shift of the nose from the middle between the eyes, in eye distances; profiles give 0.5-0.7

# Points of the face mesh.
_NOSE = (1, 4, 5, 6, 168, 195, 197)
_OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
_LIPS = _OUTER_LIPS + _INNER_LIPS
_MOUTH_CORNERS = (61, 291)
_INNER_UPPER, _INNER_LOWER = (82, 13, 312), (87, 14, 317)

# Eyes, nose and lips are means of points, all at once one product with a matrix: a quarter of the time.
_ANCHOR_WEIGHTS = np.zeros((4, NUM_POINTS))
for _row, _part in zip(_ANCHOR_WEIGHTS, (RIGHT_EYE, LEFT_EYE, _NOSE, _LIPS), strict=True):
    _row[list(_part)] = 1 / len(_part)

# Where eyes, nose and lips of a mean face are in the crop, as x + iy in pixels from its centre. Proportions are means
# over 13 talkers; eyes 52 pixels apart make the mouth 42 pixels wide (44 %), with nose base and chin inside.
_EYE_DISTANCE_PX = 52.0
_TEMPLATE = _EYE_DISTANCE_PX * np.array([-0.5 - 1.174j, 0.5 - 1.174j, -0.887j, 0.0])
_TEMPLATE_SPREAD = _TEMPLATE - _TEMPLATE.mean()

Anchors = npt.NDArray[np.complex128]  # right eye, left eye, nose, lips as x + iy in frame pixels


@dataclasses.dataclass
class _Seen:
    """A face in a slot that is not final yet. reason: whether its lips can be read. face: None where it is bridged."""

    anchors: Anchors
    reason: str
    face: Face | None


@dataclasses.dataclass
class _Pending:
    """A slot that is not final yet. seen: by face; followed: who is, seen or not. is_skipped: nobody was looked for."""

    index: int
    frame: VideoFrame | None
    seen: dict[int, _Seen]
    followed: frozenset[int]
    is_skipped: bool = False


class LipTracker:
    """Turns pictures, pushed in order of time, into slots with the lips of every face. Use it as a context manager.

    finder: one to use and leave open; by default one of its own. Whose lips are read is decided by a `FaceChoice`
    (`avsr.lips.choice`) that the slots are passed to. skips: as long as faces hardly move, look for them in every
    second slot alone, and take them to be half-way in the slots between. It saves a quarter of all work and makes slots
    final one slot later.
    """

    def __init__(self, *, finder: FaceFinder | None = None, skips: bool = False) -> None:
        self._skips = skips
        self._owns_finder = finder is None
        self._finder = finder or FaceFinder()
        self._finder.reset()
        self._next_slot = 0
        self._frame: VideoFrame | None = None  # the last one pushed
        self._looked: tuple[VideoFrame, list[Face], frozenset[int]] | None = None  # the last one looked at
        self._pending: collections.deque[_Pending] = collections.deque()
        self._last_seen: dict[int, tuple[int, _Seen]] = {}  # of faces that may be bridged
        self._previous: dict[int, _Seen] = {}  # faces in the slot that was made final last
        self._transforms: dict[int, collections.deque[complex]] = {}
        self._covers: dict[int, CoverState] = {}

    def __enter__(self) -> LipTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns_finder:
            self._finder.close()

    def push(self, frame: VideoFrame) -> list[Slot]:
        """The slots that the next picture makes final, in order; none is more than LOOK_AHEAD_SLOTS behind."""
        final: list[Slot] = []
        while (slot_s := self._next_slot * SLOT_S) <= frame.time_s:
            nearest = frame
            if self._frame is not None and slot_s - self._frame.time_s <= frame.time_s - slot_s + _ROUNDING_S:
                nearest = self._frame
            final += self._add_slot(nearest)
        self._frame = frame
        return final

    def finish(self, end_s: float) -> list[Slot]:
        """All slots that are left of those that begin before `end_s` of media time. No picture may follow."""
        final: list[Slot] = []
        while self._next_slot * SLOT_S < end_s - _ROUNDING_S:
            final += self._add_slot(self._frame)
        if self._pending and self._looked is not None:
            self._fill(self._looked[1], self._looked[0])
        while self._pending:
            final.append(self._pop())
        return final

    def _add_slot(self, frame: VideoFrame | None) -> list[Slot]:
        index = self._next_slot
        self._next_slot += 1
        if frame is None or abs(frame.time_s - index * SLOT_S) > _MAX_DISTANCE_S + _ROUNDING_S:
            followed = frozenset() if self._looked is None else self._looked[2]
            self._pending.append(_Pending(index, None, {}, followed))
        elif self._may_skip(frame):
            self._pending.append(_Pending(index, frame, {}, self._finder.followed, is_skipped=True))
        else:
            before = self._looked
            faces, followed = self._look(frame)
            if before is not None:
                self._fill(before[1], before[0], faces, frame)
            seen = {face.id: _seen(face, frame) for face in faces}
            self._pending.append(_Pending(index, frame, seen, followed))
            for number, here in seen.items():
                self._bridge(number, index, here)
        self._last_seen = {
            number: (last, there)
            for number, (last, there) in self._last_seen.items()
            if index - last <= MAX_BRIDGED_SLOTS
        }
        # The slot after a final one must be settled too, for the smoothing of its place: nobody who was seen before it
        # may still be bridged over it.
        settled = min((last for last, _ in self._last_seen.values()), default=index)
        final = []
        while len(self._pending) >= 2 and self._pending[1].index <= settled:
            final.append(self._pop())
        return final

    def _look(self, frame: VideoFrame) -> tuple[list[Face], frozenset[int]]:
        """The faces in `frame`, which may serve two slots, and who is followed."""
        if self._looked is None or self._looked[0] is not frame:
            self._looked = (frame, self._finder.follow(frame), self._finder.followed)
        return self._looked[1:]

    def _may_skip(self, frame: VideoFrame) -> bool:
        if not self._skips or self._looked is None or not self._pending or self._pending[-1].is_skipped:
            return False
        last = self._looked[0]
        is_next = last is self._pending[-1].frame and 0 < frame.time_s - last.time_s < _MAX_DISTANCE_S
        return is_next and self._finder.may_skip(frame)

    def _fill(
        self,
        faces_before: list[Face],
        frame_before: VideoFrame,
        faces_after: list[Face] | None = None,
        frame_after: VideoFrame | None = None,
    ) -> None:
        """Settle who is where in the last slot, if it was skipped: half-way where faces stay nearly at their places
        from before to after, and else by looking back."""
        slot = self._pending[-1] if self._pending else None
        if slot is None or slot.frame is None or not slot.is_skipped:
            return
        slot.is_skipped = False
        after = {face.id: face for face in faces_after or []}
        weight = 0.5
        if frame_after is not None:
            weight = (slot.frame.time_s - frame_before.time_s) / (frame_after.time_s - frame_before.time_s)
        is_near = frame_after is not None and frame_after.time_s - slot.frame.time_s < _MAX_DISTANCE_S
        for one in faces_before:
            other = after.get(one.id)
            face: Face | None
            if is_near and other is not None and _moved_px(one, other) < _STILL_PX:
                face = _between(one, other, weight)
            else:
                face = self._finder.look_back(slot.frame, one)
            if face is not None:
                slot.seen[one.id] = _seen(face, slot.frame)
                self._bridge(one.id, slot.index, slot.seen[one.id])

    def _bridge(self, number: int, index: int, here: _Seen) -> None:
        """A face is seen in slot `index`: fill in its way since it was seen last, where that is not long ago."""
        last, before = self._last_seen.get(number, (index, here))
        for slot in self._pending:
            if last < slot.index < index:
                weight = (slot.index - last) / (index - last)
                anchors = (1 - weight) * before.anchors + weight * here.anchors
                slot.seen[number] = _Seen(anchors, here.reason if before.reason == "ok" else before.reason, None)
        self._last_seen[number] = (index, here)

    def _pop(self) -> Slot:
        """Make the first pending slot final."""
        slot = self._pending.popleft()
        before, self._previous = self._previous, slot.seen
        after = self._pending[0].seen if self._pending else {}
        self._transforms = {
            number: transforms for number, transforms in self._transforms.items() if number in slot.seen
        }
        self._covers = {number: cover for number, cover in self._covers.items() if number in slot.seen}
        lips = {number: self._lips(slot, number, before.get(number), after.get(number)) for number in slot.seen}
        for number in slot.followed - lips.keys():
            reason = "late" if slot.frame is None else "no_face"
            lips[number] = LipSlot(slot.index, no_crop(), False, reason, number)
        return Slot(slot.index, dict(sorted(lips.items())), "late" if slot.frame is None else "no_face")

    def _lips(self, slot: _Pending, number: int, before: _Seen | None, after: _Seen | None) -> LipSlot:
        here = slot.seen[number]
        transforms = self._transforms.setdefault(number, collections.deque(maxlen=_ROTATION_SCALE_SLOTS))
        if before is None:
            transforms.clear()
        transforms.append(_rotation_and_scale(here.anchors))
        reason = here.reason if slot.frame is not None else "late"
        crop = no_crop()
        if slot.frame is not None and reason == "ok":
            transform = sum(transforms) / len(transforms)
            centres = [there.anchors[3] for there in (before, here, after) if there is not None]
            crop = _warp(slot.frame.picture, complex(transform), complex(sum(centres) / len(centres)))
            cover = self._covers.get(number)
            if cover is None or slot.index % LOOK_EVERY_SLOTS == 0:
                cover = follow_cover(cover or CoverState(), float(cover_log_odds(crop[None])[0]))
                self._covers[number] = cover
            if cover.is_covered:
                crop, reason = no_crop(), "occluded"
        if here.face is None:
            return LipSlot(slot.index, crop, reason == "ok", reason, number)
        return LipSlot(
            slot.index,
            crop,
            reason == "ok",
            reason,
            number,
            opening=_opening(here.face),
            width_px=here.face.box.right - here.face.box.left,
            sharpness=sharpness(crop) if reason == "ok" and slot.index % _SHARPNESS_SLOTS == 0 else math.nan,
            yaw_deg=here.face.yaw_deg,
        )


def slots_of(
    frames: Iterator[VideoFrame], *, finder: FaceFinder | None = None, end_s: float = math.inf
) -> Iterator[Slot]:
    """The slots of all pictures of a video, up to the end of the last one, or `end_s` if that is earlier.

    How long the last picture lasts is taken from the step before it. finder: one to use for many videos.
    """
    step_s = SLOT_S
    last_s: float | None = None
    with LipTracker(finder=finder, skips=True) as tracker:
        for frame in frames:
            if last_s is not None:
                step_s = min(max(frame.time_s - last_s, 0.001), 0.2)
            last_s = frame.time_s
            yield from tracker.push(frame)
        if last_s is not None:
            yield from tracker.finish(min(last_s + step_s, max(end_s, last_s + 0.001)))


def extract_lips(
    path: str | PathLike[str],
    *,
    face: str = "auto",
    finder: FaceFinder | None = None,
    on_warning: WarningSink | None = None,
) -> LipTrack:
    """The lips of a whole file, up to the end of its last picture: 230 kB a second. Long files are for `slots_of`.

    face: whose, as `face_choice` takes it. finder: one to use for many files. Raises MediaError where the file has no
    readable video, ConfigError for another `face`.
    """
    choice = face_choice(face)
    info = probe(path)
    frames = read_ahead(iter_frames(path, on_warning=on_warning))
    end_s = info.duration_s or math.inf
    lips = list(choice.follow(slots_of(frames, finder=finder, end_s=end_s)))
    return LipTrack(
        crops=np.stack([slot.crop for slot in lips]),
        present=np.array([slot.present for slot in lips], dtype=bool),
        reasons=[slot.reason for slot in lips],
        faces=[slot.face for slot in lips],
        fps=info.video.average_fps if info.video is not None else 0.0,
    )


def _seen(face: Face, frame: VideoFrame) -> _Seen:
    anchors = _anchors(face)
    return _Seen(anchors, _judge(face, anchors, frame), face)


def _moved_px(one: Face, other: Face) -> float:
    """How far the eyes, the nose or the lips of a face have moved, in pixels of the crop."""
    before, after = _anchors(one), _anchors(other)
    return float(np.abs(after - before).max() * abs(_rotation_and_scale(before)))


def _between(one: Face, other: Face, weight: float) -> Face:
    """The face on its way from one to the other."""
    points_px = one.points_px + np.float32(weight) * (other.points_px - one.points_px)
    yaw_deg = one.yaw_deg + weight * (other.yaw_deg - one.yaw_deg)
    return Face(one.id, points_px, box_of(points_px), yaw_deg)


def _opening(face: Face) -> float:
    """Distance between the inner edges of the lips, in eye distances."""
    points = face.points_px
    open_px = math.hypot(*(mean_of(points, _INNER_LOWER) - mean_of(points, _INNER_UPPER)))
    eyes_px = math.hypot(*(mean_of(points, LEFT_EYE) - mean_of(points, RIGHT_EYE)))
    return open_px / eyes_px if eyes_px >= 1.0 else math.nan


def _anchors(face: Face) -> Anchors:
    x, y = (_ANCHOR_WEIGHTS @ face.points_px.astype(np.float64)).T
    return np.asarray(x + 1j * y)


def _judge(face: Face, anchors: Anchors, frame: VideoFrame) -> str:
    """Whether lips with these points can be read: "ok", or why not."""
    right_eye, left_eye, nose, lips = anchors
    between = left_eye - right_eye
    if abs(between) < 1.0:
        return "pose"
    if abs(((nose - (right_eye + left_eye) / 2) / between).real) > _MAX_TURN:
        return "pose"
    # From eyes to mouth as well as across it: a turned mouth is narrow, but no worse resolved.
    right_corner, left_corner = face.points_px[list(_MOUTH_CORNERS)]
    mouth_px = max(float(np.hypot(*(left_corner - right_corner))), 0.7 * abs(lips - (right_eye + left_eye) / 2))
    is_inside = 0 <= lips.real < frame.picture.width and 0 <= lips.imag < frame.picture.height
    if mouth_px < _MIN_MOUTH_PX or not is_inside:
        return "low_quality"
    return "ok"


def _rotation_and_scale(anchors: Anchors) -> complex:
    """The least-squares similarity from a face to the template, without its shift.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991: in the plane,
    with points as complex numbers and no reflection, the fit is one complex factor.
    """
    spread = anchors - anchors.mean()
    return complex(np.vdot(spread, _TEMPLATE_SPREAD) / np.vdot(spread, spread).real)


def _warp(picture: Picture, transform: complex, centre: complex) -> Crop:
    """The grey crop around `centre` (frame pixels): crop = transform x (frame - centre) + the crop's centre.

    Beyond the edge of the picture its last pixels are repeated.
    """
    inverse = 1 / transform
    corner = centre - inverse * complex(CROP_PX, CROP_PX) / 2
    to_frame = np.array([[inverse.real, -inverse.imag, corner.real], [inverse.imag, inverse.real, corner.imag]])
    return picture.grey_warp(to_frame, CROP_PX)
