"""Lip crops on the 40 ms grid of the media clock, each with whether and why it can be read.

Slot k covers [40 k, 40 (k + 1)) ms and shows the picture nearest to 40 k ms. The crop is a similarity transform of the
picture that puts the mouth at the centre, upright and at a fixed size relative to the head, so that what moves in the
crop is the mouth and not the head. Live and from a file it is the same code: `LipTracker`.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from os import PathLike
from types import TracebackType

import cv2
import numpy as np
import numpy.typing as npt

from avsr.errors import ConfigError
from avsr.features.faces import Face, FaceFinder
from avsr.media import VideoFrame, WarningSink, iter_frames, probe, read_ahead

SLOT_S = 0.04
CROP_PX = 96

MAX_BRIDGED_SLOTS = 3
"""A face that is away for so few slots is taken to have been there: a blink of the tracker, not of the speaker."""

LOOK_AHEAD_SLOTS = 1 + MAX_BRIDGED_SLOTS
"""How many slots at most are seen before a slot is final: 1 to smooth its place, more only while the face is away."""

_MAX_DISTANCE_S = 0.06  # a picture further away from a slot does not show what the lips did in it
_ROUNDING_S = 1e-6  # of times: must not decide which picture a slot shows
_ROTATION_SCALE_SLOTS = 13  # causal window for rotation and size: heads turn slowly, and jitter shows as a swaying crop
_MIN_MOUTH_PX = 10.0
_MAX_TURN = 0.5  # sideways shift of the nose from the middle between the eyes, in eye distances; profiles give 0.5-0.7

# Points of the face mesh.
_RIGHT_EYE = (33, 133)
_LEFT_EYE = (263, 362)
_NOSE = (1, 4, 5, 6, 168, 195, 197)
_OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
_LIPS = _OUTER_LIPS + _INNER_LIPS
_MOUTH_CORNERS = (61, 291)

# Where eyes, nose and lips of a mean face are in the crop, as x + iy in pixels from its centre. Proportions are means
# over 13 talkers; eyes 52 pixels apart make the mouth 42 pixels wide (44 %), with nose base and chin inside.
_EYE_DISTANCE_PX = 52.0
_TEMPLATE = _EYE_DISTANCE_PX * np.array([-0.5 - 1.174j, 0.5 - 1.174j, -0.887j, 0.0])
_TEMPLATE_SPREAD = _TEMPLATE - _TEMPLATE.mean()

Crop = npt.NDArray[np.uint8]
Anchors = npt.NDArray[np.complex128]  # right eye, left eye, nose, lips as x + iy in frame pixels


@dataclasses.dataclass(frozen=True)
class LipSlot:
    """The lips in the 40 ms from `index` x 40 ms.

    crop: uint8 [96, 96] grey, zeros where not present. reason: "ok" where present, else "no_face", "pose" (turned
    away), "low_quality" (too few pixels) or "late" (no picture near). face: its identity, None where there is none.
    """

    index: int
    crop: Crop
    present: bool
    reason: str
    face: int | None


@dataclasses.dataclass(frozen=True)
class LipTrack:
    """All lip slots of a video: crops uint8 [T, 96, 96], present bool [T], reasons and faces of length T.

    fps: pictures per second of the source.
    """

    crops: npt.NDArray[np.uint8]
    present: npt.NDArray[np.bool_]
    reasons: list[str]
    faces: list[int | None]
    fps: float


@dataclasses.dataclass
class _Pending:
    """A slot that is not final yet. resolved: nothing that may still come changes `anchors`."""

    index: int
    frame: VideoFrame | None
    reason: str
    face: int | None = None
    anchors: Anchors | None = None
    resolved: bool = False


class LipTracker:
    """Turns pictures, pushed in order of time, into lip slots. Use it as a context manager.

    face: "auto" or "largest", the most prominent face; or the number of one, whose lips alone are read. finder: one to
    use and leave open; by default one of its own. Raises ConfigError for another `face`.
    """

    def __init__(self, face: str = "auto", *, finder: FaceFinder | None = None) -> None:
        if face not in ("auto", "largest") and not (face.isascii() and face.isdigit()):
            raise ConfigError("unknown choice of face", got=face, expected="auto, largest or the number of a face")
        self._wanted = int(face) if face.isdigit() else None
        self._owns_finder = finder is None
        self._finder = finder or FaceFinder()
        self._finder.reset()
        self._next_slot = 0
        self._frame: VideoFrame | None = None  # the last one pushed
        self._seen: tuple[VideoFrame, Face | None] | None = None  # the last one looked at
        self._pending: collections.deque[_Pending] = collections.deque()
        self._previous: _Pending | None = None  # the last one made final
        self._transforms: collections.deque[complex] = collections.deque(maxlen=_ROTATION_SCALE_SLOTS)

    def __enter__(self) -> LipTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns_finder:
            self._finder.close()

    def push(self, frame: VideoFrame) -> list[LipSlot]:
        """The slots that the next picture makes final."""
        final: list[LipSlot] = []
        while (slot_s := self._next_slot * SLOT_S) <= frame.time_s:
            nearest = frame
            if self._frame is not None and slot_s - self._frame.time_s <= frame.time_s - slot_s + _ROUNDING_S:
                nearest = self._frame
            final += self._add_slot(nearest)
        self._frame = frame
        return final

    def finish(self, end_s: float) -> list[LipSlot]:
        """All slots that are left of those that begin before `end_s` of media time. No picture may follow."""
        final: list[LipSlot] = []
        while self._next_slot * SLOT_S < end_s - _ROUNDING_S:
            final += self._add_slot(self._frame)
        for slot in self._pending:
            slot.resolved = True
        while self._pending:
            final.append(self._pop())
        return final

    def _add_slot(self, frame: VideoFrame | None) -> list[LipSlot]:
        slot_s = self._next_slot * SLOT_S
        if frame is None or abs(frame.time_s - slot_s) > _MAX_DISTANCE_S + _ROUNDING_S:
            slot = _Pending(self._next_slot, None, "late")
        else:
            face = self._look(frame)
            if face is None:
                slot = _Pending(self._next_slot, frame, "no_face")
            else:
                anchors = _anchors(face)
                slot = _Pending(self._next_slot, frame, _judge(face, anchors, frame), face.id, anchors, resolved=True)
        self._next_slot += 1
        self._pending.append(slot)
        self._bridge()
        final = []
        while len(self._pending) >= 2 and self._pending[0].resolved and self._pending[1].resolved:
            final.append(self._pop())
        return final

    def _look(self, frame: VideoFrame) -> Face | None:
        """The face in `frame`, which may serve two slots."""
        if self._seen is None or self._seen[0] is not frame:
            faces = [face for face in self._finder.follow(frame) if self._wanted in (None, face.id)]
            self._seen = (frame, faces[0] if faces else None)
        return self._seen[1]

    def _bridge(self) -> None:
        """Decide on the slots without a face at the end of the queue: fill in its way, wait, or leave them empty."""
        slots = list(self._pending)
        newest = slots.pop() if slots[-1].anchors is not None else None
        gap: list[_Pending] = []
        while slots and not slots[-1].resolved:
            gap.insert(0, slots.pop())
        if not gap:
            return
        before = slots[-1] if slots else self._previous
        is_short = before is not None and before.anchors is not None and len(gap) <= MAX_BRIDGED_SLOTS
        if is_short and newest is None:
            return  # the face may come back
        for slot in gap:
            slot.resolved = True
        if is_short and before is not None and newest is not None and newest.face == before.face:
            for number, slot in enumerate(gap, start=1):
                weight = number / (len(gap) + 1)
                slot.anchors = (1 - weight) * _known(before.anchors) + weight * _known(newest.anchors)
                slot.face = newest.face
                if slot.frame is not None:
                    slot.reason = "ok"

    def _pop(self) -> LipSlot:
        """Make the first pending slot final."""
        slot = self._pending.popleft()
        before, self._previous = self._previous, slot
        if slot.anchors is None:
            self._transforms.clear()
            return LipSlot(slot.index, _no_crop(), False, slot.reason, None)
        centres = [slot.anchors[3]]
        if before is not None and before.anchors is not None and before.face == slot.face:
            centres.append(before.anchors[3])
        else:
            self._transforms.clear()
        if self._pending:
            after = self._pending[0]
            if after.anchors is not None and after.face == slot.face:
                centres.append(after.anchors[3])
        self._transforms.append(_rotation_and_scale(slot.anchors))
        if slot.reason != "ok" or slot.frame is None:
            return LipSlot(slot.index, _no_crop(), False, slot.reason, slot.face)
        transform = sum(self._transforms) / len(self._transforms)
        centre = sum(centres) / len(centres)
        return LipSlot(slot.index, _warp(slot.frame.rgb, complex(transform), complex(centre)), True, "ok", slot.face)


def extract_lips(
    path: str | PathLike[str],
    *,
    face: str = "auto",
    finder: FaceFinder | None = None,
    on_warning: WarningSink | None = None,
) -> LipTrack:
    """The lips of a whole file, up to the end of its last picture: 230 kB a second. Long files are for `LipTracker`.

    finder: one to use for many files. Raises MediaError where the file has no readable video.
    """
    info = probe(path)
    fps = info.video.average_fps if info.video is not None else 0.0
    slots: list[LipSlot] = []
    last_s = 0.0
    with LipTracker(face, finder=finder) as tracker:
        for frame in read_ahead(iter_frames(path, on_warning=on_warning)):
            slots += tracker.push(frame)
            last_s = frame.time_s
        slots += tracker.finish(last_s + 1.0 / fps)
    return LipTrack(
        crops=np.stack([slot.crop for slot in slots]),
        present=np.array([slot.present for slot in slots], dtype=bool),
        reasons=[slot.reason for slot in slots],
        faces=[slot.face for slot in slots],
        fps=fps,
    )


def _known(anchors: Anchors | None) -> Anchors:
    assert anchors is not None
    return anchors


def _no_crop() -> Crop:
    return np.zeros((CROP_PX, CROP_PX), np.uint8)


def _anchors(face: Face) -> Anchors:
    points = face.points_px[:, 0].astype(np.float64) + 1j * face.points_px[:, 1]
    return np.array([points[list(part)].mean() for part in (_RIGHT_EYE, _LEFT_EYE, _NOSE, _LIPS)])


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
    height, width = frame.rgb.shape[:2]
    if mouth_px < _MIN_MOUTH_PX or not (0 <= lips.real < width and 0 <= lips.imag < height):
        return "low_quality"
    return "ok"


def _rotation_and_scale(anchors: Anchors) -> complex:
    """The least-squares similarity from a face to the template, without its shift.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991: in the plane,
    with points as complex numbers and no reflection, the fit is one complex factor.
    """
    spread = anchors - anchors.mean()
    return complex(np.vdot(spread, _TEMPLATE_SPREAD) / np.vdot(spread, spread).real)


def _warp(rgb: npt.NDArray[np.uint8], transform: complex, centre: complex) -> Crop:
    """The grey crop around `centre` (frame pixels): crop = transform x (frame - centre) + the crop's centre.

    Beyond the edge of the picture its last pixels are repeated.
    """
    scale = abs(transform)
    # Points count from the corner of the first pixel, cv2 from its centre.
    x, y = centre.real - 0.5, centre.imag - 0.5
    reach = CROP_PX / math.sqrt(2) / scale + 2
    height, width = rgb.shape[:2]
    left, top = (max(0, math.floor(v - reach)) for v in (x, y))
    right, bottom = min(width, math.ceil(x + reach)), min(height, math.ceil(y + reach))
    if left >= right or top >= bottom:
        return _no_crop()
    grey = cv2.cvtColor(rgb[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    x, y = x - left, y - top
    shrink_x = shrink_y = 1.0
    if scale < 2 / 3:  # much larger than the crop: average pixels instead of skipping them
        size = (max(1, round(grey.shape[1] * 1.5 * scale)), max(1, round(grey.shape[0] * 1.5 * scale)))
        shrink_x, shrink_y = size[0] / grey.shape[1], size[1] / grey.shape[0]
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    # From crop to picture, as warpAffine wants it: divide by the transform, then move, then shrink.
    inverse = 1 / transform
    middle = (CROP_PX - 1) / 2
    to_frame = np.array([[inverse.real, -inverse.imag, x], [inverse.imag, inverse.real, y]])
    to_frame[:, 2] -= to_frame[:, :2] @ np.array([middle, middle])
    to_frame[0] *= shrink_x
    to_frame[1] *= shrink_y
    to_frame[:, 2] += 0.5 * np.array([shrink_x, shrink_y]) - 0.5
    crop = cv2.warpAffine(
        grey,
        to_frame,
        (CROP_PX, CROP_PX),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(crop, np.uint8)
