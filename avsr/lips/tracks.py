"""The choice of the video track that shows faces: a lecture may hold slides and the lecturer as two tracks."""

from __future__ import annotations

from os import PathLike

from avsr.account import Account
from avsr.lips.faces import FaceFinder
from avsr.media import MediaInfo, Picture, Tracks, VideoFrame, probe, sample_pictures
from avsr.media.probe import count_tracks

NUM_SAMPLES = 6
"""In this many pictures of each track, spread over the file, faces are looked for."""


def probe_faces(
    path: str | PathLike[str], *, tracks: Tracks | None = None, account: Account | None = None
) -> MediaInfo:
    """The tracks of a file, as `probe` gives them. Of several video tracks, the one with most faces is read.

    tracks: the tracks that were asked for; their choice is not touched.
    account: says which track is read, and why.
    """
    asked = Tracks() if tracks is None else tracks
    info = probe(path, tracks=asked)
    default = "by its flags and quality"
    why = None if asked.video is not None else default
    usable = [track.number for track in info.video_tracks if track.is_decodable]
    if why is not None and len(usable) > 1:
        counts = _count_faces(path, usable, info.duration_s)
        best = max(usable, key=lambda number: (counts[number], number == info.tracks.video))
        if counts[best] > 0:
            why = f"faces in {counts[best]} of {NUM_SAMPLES} pictures"
            info = probe(path, tracks=asked._replace(video=best))
    if account is not None:
        because = None if asked.audio is not None else default
        count_tracks(info, account, sound_because=because, video_because=why)
    return info


def _count_faces(path: str | PathLike[str], numbers: list[int], duration_s: float | None) -> dict[int, int]:
    """By track: in how many of the sample pictures a face is found."""
    times_s = [(duration_s or 0.0) * (index + 0.5) / NUM_SAMPLES for index in range(NUM_SAMPLES)]
    with FaceFinder() as finder:
        return {
            number: sum(_shows_face(finder, picture) for picture in sample_pictures(path, number, times_s))
            for number in numbers
        }


def _shows_face(finder: FaceFinder, picture: Picture) -> bool:
    finder.reset()
    return bool(finder.follow(VideoFrame(0.0, picture)))
