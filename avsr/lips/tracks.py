"""The choice of the video track that shows faces: a lecture may hold slides and the lecturer as two tracks."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from avsr.account import Account
from avsr.grid import MAX_HOURS
from avsr.lips.faces import Box, FaceFinder
from avsr.media import MediaInfo, Picture, Tracks, VideoFrame, probe, sample_pictures
from avsr.media.probe import count_tracks

NUM_SAMPLES = 6
"""In this many pictures of each track, spread over the file, faces are looked for."""
MAX_TRACKS = 8
"""Faces are looked for in at most this many tracks. Each costs a tenth of a second and more."""
MOVES_FROM_LEVELS = 2.5
"""A face that differs by more grey levels on average, of 255, is no photograph. Compression changes one by less than 1,
and a head that moves by a few pixels by 5 or more."""


def probe_faces(
    path: str | PathLike[str],
    *,
    tracks: Tracks | None = None,
    account: Account | None = None,
    max_hours: float = MAX_HOURS,
) -> MediaInfo:
    """The tracks of a file, as `probe` gives them. Of several video tracks, the one with most moving faces is read.

    tracks: the tracks that were asked for; their choice is not touched.
    account: says which track is read, and why.
    max_hours: as in `probe`.

    Raises MediaError as `probe` does.
    """
    asked = Tracks() if tracks is None else tracks
    info = probe(path, tracks=asked, max_hours=max_hours)
    default = "by its flags and quality"
    why = None if asked.video is not None else default
    decodable = [track.number for track in info.video_tracks if track.is_decodable]
    usable = decodable[:MAX_TRACKS]
    if why is not None and len(usable) > 1:
        counts = _count_faces(path, usable, info.duration_s)
        best = max(usable, key=lambda number: (counts[number], number == info.tracks.video))
        if counts[best].faces > 0:
            why = f"faces in {counts[best].faces} of {NUM_SAMPLES} pictures"
            info = probe(path, tracks=asked._replace(video=best), max_hours=max_hours)
    if account is not None and why is not None and len(decodable) > len(usable):
        line = f"faces are looked for in the first {MAX_TRACKS} of {len(decodable)} video tracks"
        line += "; --video-track takes another"
        account.note("many video tracks", line)
    if account is not None:
        because = None if asked.audio is not None else default
        count_tracks(info, account, sound_because=because, video_because=why)
    return info


class _Faces(NamedTuple):
    """In how many of the sample pictures of a track there is a face. The first number decides."""

    changed: int
    """Faces that differ from the one in the sample before: slides may show a photograph of the speaker."""
    faces: int


def _count_faces(path: str | PathLike[str], numbers: list[int], duration_s: float | None) -> dict[int, _Faces]:
    times_s = [(duration_s or 0.0) * (index + 0.5) / NUM_SAMPLES for index in range(NUM_SAMPLES)]
    with FaceFinder() as finder:
        return {number: _faces_in(finder, sample_pictures(path, number, times_s)) for number in numbers}


def _faces_in(finder: FaceFinder, pictures: Iterator[Picture]) -> _Faces:
    counts = _Faces(0, 0)
    before: NDArray[np.uint8] | None = None
    for picture in pictures:
        finder.reset()
        faces = finder.follow(VideoFrame(0.0, picture))
        if not faces:
            continue
        grey = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2GRAY)
        has_changed = before is not None and any(_differs(face.box, grey, before) for face in faces)
        counts = _Faces(counts.changed + has_changed, counts.faces + 1)
        before = np.asarray(grey, np.uint8)
    return counts


def _differs(box: Box, picture: NDArray[Any], before: NDArray[Any]) -> bool:
    """Whether a face differs from the same place in another picture, both grey [H, W]."""
    place = slice(max(0, round(box.top)), round(box.bottom)), slice(max(0, round(box.left)), round(box.right))
    if picture.shape != before.shape or not picture[place].size:
        return False
    return float(np.abs(picture[place].astype(np.float32) - before[place]).mean()) > MOVES_FROM_LEVELS
