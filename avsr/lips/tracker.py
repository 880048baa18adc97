"""Lip crops on the 40 ms grid of the media clock, each with whether and why it can be read.

Slot k covers [40 k, 40 (k + 1)) ms and shows the picture nearest to 40 k ms. `LipTracker` serves live streams and
files alike. Every face that is followed gets its own lips in every slot; `choice.py` decides which of them are read.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator
from os import PathLike
from types import TracebackType

import numpy as np

from avsr.account import Account
from avsr.grid import SLOT_S
from avsr.lips.choice import face_choice
from avsr.lips.crops import Anchors, anchors_of, cut_crop, lip_opening, lip_reason, rotation_and_scale
from avsr.lips.face_models import box_of
from avsr.lips.faces import Face, FaceFinder
from avsr.lips.occlusion import LOOK_EVERY_SLOTS, CoverState, cover_log_odds, follow_cover
from avsr.lips.quality import sharpness
from avsr.lips.slots import LipSlot, LipTrack, Slot, no_crop
from avsr.lips.turns import Crowd
from avsr.media import Tracks, VideoFrame, iter_frames, probe, read_ahead

MAX_BRIDGED_SLOTS = 3
"""A face that is away for at most this long is taken to have been there: the tracker blinked, not the speaker."""

LOOK_AHEAD_SLOTS = 1 + MAX_BRIDGED_SLOTS
"""How many slots a slot waits at most before it is final: 1 to smooth its place, the others only while a face is away.
With `skips` it is one more."""

_MAX_DISTANCE_S = 0.06  # a picture further away from a slot does not show what the lips did in it
# If eyes, nose and lips of a face move by less than this over two slots, in pixels of the crop, the face is taken to be
# half-way in the slot between. The error is smaller than the tremble of the mesh.
_STILL_PX = 2.0
_ROUNDING_S = 1e-6  # rounding of times must not decide which picture a slot shows
_ROTATION_SCALE_SLOTS = 13  # causal window for rotation and size: heads turn slowly, and jitter shows as a swaying crop
_SHARPNESS_SLOTS = 3  # a median needs no more, and measuring costs half as much as cutting a crop


@dataclasses.dataclass
class _Observation:
    """A face in a slot that is not final yet."""

    anchors: Anchors
    reason: str
    """Whether its lips can be read, as in `LipSlot`."""
    face: Face | None
    """None in a slot that is bridged."""


@dataclasses.dataclass
class _Pending:
    """A slot that is not final yet."""

    index: int
    frame: VideoFrame | None
    """The picture it shows, None if no picture is near."""
    seen: dict[int, _Observation]
    """By face id."""
    followed: frozenset[int]
    """Ids of all faces that are followed, seen or not."""
    is_skipped: bool = False
    """Whether faces have not been searched in this picture."""


@dataclasses.dataclass(frozen=True)
class _Found:
    """What the finder gave for a picture, which may serve two slots."""

    frame: VideoFrame
    faces: list[Face]
    followed: frozenset[int]


class LipTracker:
    """Turns pictures, pushed in order of time, into slots with the lips of every face. Use it as a context manager.

    finder: the finder to use; it is reset, and stays open. None makes one, which is closed with the tracker.
    skips: as long as faces hardly move, search only every second slot and take faces to be half-way in the slots
        between. It saves a quarter of all work and makes slots final one slot later.
    account: counts the faces, and says if there are too many to search all of them in every picture.
    """

    def __init__(
        self, *, finder: FaceFinder | None = None, skips: bool = False, account: Account | None = None
    ) -> None:
        self._skips = skips
        self._owns_finder = finder is None
        self._finder = finder or FaceFinder()
        self._finder.reset()
        self._next_slot = 0
        self._frame: VideoFrame | None = None  # the last picture pushed
        self._found: _Found | None = None  # in the last picture that was searched
        self._pending: collections.deque[_Pending] = collections.deque()
        self._last_seen: dict[int, tuple[int, _Observation]] = {}  # slot and place of faces that may be bridged
        self._previous: dict[int, _Observation] = {}  # faces in the last final slot
        self._transforms: dict[int, collections.deque[complex]] = {}
        self._covers: dict[int, CoverState] = {}
        self._crowd = Crowd(account)

    def __enter__(self) -> LipTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns_finder:
            self._finder.close()

    def push(self, frame: VideoFrame) -> list[Slot]:
        """The slots that the next picture makes final, in order. They are at most LOOK_AHEAD_SLOTS behind it."""
        final: list[Slot] = []
        # A slot can be opened once a picture at or after its time is there: only then its nearest picture is known.
        while (slot_s := self._next_slot * SLOT_S) <= frame.time_s:
            nearest = frame
            if self._frame is not None and slot_s - self._frame.time_s <= frame.time_s - slot_s + _ROUNDING_S:
                nearest = self._frame
            final += self._add_slot(nearest)
        self._frame = frame
        return final

    def finish(self, end_s: float) -> list[Slot]:
        """All remaining slots that begin before `end_s` of media time. No picture may follow."""
        final: list[Slot] = []
        while self._next_slot * SLOT_S < end_s - _ROUNDING_S:
            final += self._add_slot(self._frame)
        if self._found is not None:
            self._fill_skipped(self._found, None)
        while self._pending:
            final.append(self._pop())
        self._crowd.finish()
        return final

    def _add_slot(self, frame: VideoFrame | None) -> list[Slot]:
        """Open the next slot with its nearest picture, and return the slots that become final."""
        index = self._next_slot
        self._next_slot += 1
        if frame is None or abs(frame.time_s - index * SLOT_S) > _MAX_DISTANCE_S + _ROUNDING_S:
            # No picture shows this slot. Its faces stay listed, or the choice of a face would take them for gone and
            # change.
            followed = frozenset() if self._found is None else self._found.followed
            self._pending.append(_Pending(index, None, {}, followed))
        elif self._may_skip(frame):
            self._pending.append(_Pending(index, frame, {}, self._finder.followed, is_skipped=True))
        else:
            before, found = self._found, self._detect(frame)
            if before is not None:
                self._fill_skipped(before, found)
            seen = {face.id: _observe(face, frame) for face in found.faces}
            self._pending.append(_Pending(index, frame, seen, found.followed))
            for number, here in seen.items():
                self._bridge(number, index, here)
        self._last_seen = {
            number: (last, there)
            for number, (last, there) in self._last_seen.items()
            if index - last <= MAX_BRIDGED_SLOTS
        }
        # The place of a slot is smoothed with the slot after it. So that one must be settled too: no face that was seen
        # before it may still be bridged over it.
        settled = min((last for last, _ in self._last_seen.values()), default=index)
        final = []
        while len(self._pending) >= 2 and self._pending[1].index <= settled:
            final.append(self._pop())
        return final

    def _detect(self, frame: VideoFrame) -> _Found:
        """The faces in `frame`, and the ids of all followed faces. A picture that serves two slots is searched once."""
        if self._found is None or self._found.frame is not frame:
            faces = self._finder.follow(frame)
            self._found = _Found(frame, faces, self._finder.followed)
            self._crowd.see(self._finder.followed, len(faces), self._finder.num_beyond, frame.time_s)
        return self._found

    def _may_skip(self, frame: VideoFrame) -> bool:
        if not self._skips or self._found is None or not self._pending or self._pending[-1].is_skipped:
            return False
        last = self._found.frame
        # A gap before the picture would make "half-way" a guess over a longer time.
        is_next = last is self._pending[-1].frame and 0 < frame.time_s - last.time_s < _MAX_DISTANCE_S
        return is_next and self._finder.may_skip(frame)

    def _fill_skipped(self, before: _Found, after: _Found | None) -> None:
        """Place the faces in the last slot, if it was skipped.

        A face that stays nearly at its place from `before` to `after` is half-way. Any other is searched after all.
        """
        slot = self._pending[-1] if self._pending else None
        if slot is None or slot.frame is None or not slot.is_skipped:
            return
        slot.is_skipped = False
        faces_after = {face.id: face for face in after.faces} if after is not None else {}
        weight = 0.5
        if after is not None:
            weight = (slot.frame.time_s - before.frame.time_s) / (after.frame.time_s - before.frame.time_s)
        is_near = after is not None and after.frame.time_s - slot.frame.time_s < _MAX_DISTANCE_S
        for one in before.faces:
            other = faces_after.get(one.id)
            face: Face | None
            if is_near and other is not None and _moved_px(one, other) < _STILL_PX:
                face = _between(one, other, weight)
            else:
                # It moved too far, or was not found again: half-way would show another part of the face.
                face = self._finder.locate(slot.frame, one)
            if face is not None:
                slot.seen[one.id] = _observe(face, slot.frame)
                self._bridge(one.id, slot.index, slot.seen[one.id])

    def _bridge(self, number: int, index: int, here: _Observation) -> None:
        """Record that a face is seen in slot `index`, and fill the slots since it was last seen, if that is recent."""
        last, before = self._last_seen.get(number, (index, here))
        for slot in self._pending:
            if last < slot.index < index:
                weight = (slot.index - last) / (index - last)
                anchors = (1 - weight) * before.anchors + weight * here.anchors
                # A bridged slot is readable only if the lips were readable on both sides of it.
                slot.seen[number] = _Observation(anchors, here.reason if before.reason == "ok" else before.reason, None)
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

    def _lips(self, slot: _Pending, number: int, before: _Observation | None, after: _Observation | None) -> LipSlot:
        """The lips of one face in a slot. before, after: the same face in the slots beside it."""
        here = slot.seen[number]
        transforms = self._transforms.setdefault(number, collections.deque(maxlen=_ROTATION_SCALE_SLOTS))
        if before is None:
            transforms.clear()
        transforms.append(rotation_and_scale(here.anchors))
        reason = here.reason if slot.frame is not None else "late"
        crop = no_crop()
        if slot.frame is not None and reason == "ok":
            transform = sum(transforms) / len(transforms)
            # Three slots only: over 13 slots the crop of a moving head would miss the mouth by up to 2 pixels.
            centres = [there.anchors[3] for there in (before, here, after) if there is not None]
            crop = cut_crop(slot.frame.picture, complex(transform), complex(sum(centres) / len(centres)))
            cover = self._covers.get(number)
            if cover is None or slot.index % LOOK_EVERY_SLOTS == 0:
                cover = follow_cover(cover or CoverState(), float(cover_log_odds(crop[None])[0]))
                self._covers[number] = cover
            if cover.is_covered:
                # The pixels are dropped too, so that no later part can read a hand as a mouth.
                crop, reason = no_crop(), "occluded"
        if here.face is None:  # bridged: nothing was measured
            return LipSlot(slot.index, crop, reason == "ok", reason, number)
        return LipSlot(
            slot.index,
            crop,
            reason == "ok",
            reason,
            number,
            opening=lip_opening(here.face.points_px),
            width_px=here.face.box.right - here.face.box.left,
            sharpness=sharpness(crop) if reason == "ok" and slot.index % _SHARPNESS_SLOTS == 0 else math.nan,
            yaw_deg=here.face.yaw_deg,
        )


def slots_of(
    frames: Iterator[VideoFrame],
    *,
    finder: FaceFinder | None = None,
    end_s: float = math.inf,
    account: Account | None = None,
) -> Iterator[Slot]:
    """The slots of all pictures of a video.

    frames: the pictures in order of time.
    finder: the finder to use for many videos, as in `LipTracker`.
    end_s: media time at which the video ends. The last picture is taken to last as long as the one before it, but not
        beyond this.
    account: as in `LipTracker`.
    """
    step_s = SLOT_S
    last_s: float | None = None
    with LipTracker(finder=finder, skips=True, account=account) as tracker:
        for frame in frames:
            if last_s is not None:
                # A pause before the last picture must not be taken for the time that it is shown.
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
    tracks: Tracks | None = None,
    account: Account | None = None,
) -> LipTrack:
    """The lips of a whole file, up to the end of its last picture. It takes 230 kB a second; use `slots_of` for hours.

    path: a video file.
    face: which face is read, as in `face_choice`.
    finder: the finder to use for many files, as in `LipTracker`.
    tracks: the video track to read; None for the default of the file.
    account: counts the pictures and faces, and says what is wrong with the file.

    Raises MediaError if the file has no readable video, ConfigError for an unknown `face`.
    """
    choice = face_choice(face)
    info = probe(path, tracks=tracks)
    frames = read_ahead(iter_frames(path, tracks=tracks, account=account))
    end_s = info.duration_s or math.inf
    lips = list(choice.follow(slots_of(frames, finder=finder, end_s=end_s, account=account)))
    return LipTrack(
        crops=np.stack([slot.crop for slot in lips]),
        present=np.array([slot.present for slot in lips], dtype=bool),
        reasons=[slot.reason for slot in lips],
        faces=[slot.face for slot in lips],
        fps=info.video.average_fps if info.video is not None else 0.0,
    )


def _observe(face: Face, frame: VideoFrame) -> _Observation:
    anchors = anchors_of(face.points_px)
    return _Observation(anchors, lip_reason(face.points_px, anchors, frame.picture), face)


def _moved_px(one: Face, other: Face) -> float:
    """The longest way that an eye, the nose or the lips of a face have moved, in pixels of the crop."""
    before, after = anchors_of(one.points_px), anchors_of(other.points_px)
    return float(np.abs(after - before).max() * abs(rotation_and_scale(before)))


def _between(one: Face, other: Face, weight: float) -> Face:
    """The face on its way from `one` (weight 0) to `other` (weight 1)."""
    points_px = one.points_px + np.float32(weight) * (other.points_px - one.points_px)
    yaw_deg = one.yaw_deg + weight * (other.yaw_deg - one.yaw_deg)
    return Face(one.id, points_px, box_of(points_px), yaw_deg)
