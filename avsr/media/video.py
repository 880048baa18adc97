"""Reads the pictures of a media file, upright and with square pixels, on the media clock."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from os import PathLike

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

from avsr.account import Account
from avsr.errors import MediaError
from avsr.grid import MAX_HOURS
from avsr.media.container import BEYOND_LIMIT, Damage, decode_video, open_media
from avsr.media.picture import BT_601, BT_709, Picture
from avsr.media.tracks import Tracks

MAX_SIDE_PX = 1920
"""Larger pictures are scaled down to this while they are decoded. Lip reading needs about 40 pixels of a face: at 1920
a face that fills a fiftieth of the width still has them."""

# The rate of the 40 ms slots, and of GRID.
_FALLBACK_FPS = 25.0

# Pictures by which each sample of a track lies further behind its key picture: half a second at 25 a second.
_SAMPLE_STEP = 12
SAMPLE_PIXELS = 500_000_000
"""Decoding for one sample ends after this many pixels, which are 60 pictures of 4K."""

_PLANAR = {"yuv420p", "yuvj420p", "yuv420p10le"}
"""Pixel formats that need no conversion of the whole picture to RGB: 4:2:0 with 8 bits, and with 10 bits after a
conversion to 8."""

_MATRICES = {1: BT_709, 2: BT_601, 5: BT_601, 6: BT_601}
"""By the matrix coefficients of ITU-T H.273. 2 means unknown, and all players take it for BT.601."""

_FULL_RANGE = 2
"""The value of `color_range` for luma from 0 to 255."""

_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


class VideoFrame:
    """One picture of a video, and its media time.

    The picture is upright, has square pixels, and is at most MAX_SIDE_PX wide and high.
    """

    def __init__(self, time_s: float, picture: Picture | npt.NDArray[np.uint8]) -> None:
        """picture: as `Picture`, or RGB, uint8 [H, W, 3]."""
        self.time_s = time_s
        self.picture = picture if isinstance(picture, Picture) else Picture.of_rgb(picture)

    @property
    def rgb(self) -> npt.NDArray[np.uint8]:
        """The whole picture, uint8 [H, W, 3]. The first call converts it, which takes as long as decoding it."""
        return self.picture.rgb


def iter_frames(
    path: str | PathLike[str],
    *,
    tracks: Tracks | None = None,
    account: Account | None = None,
    max_hours: float = MAX_HOURS,
) -> Iterator[VideoFrame]:
    """The pictures of a file at their own rate, which may vary. Media time strictly increases.

    tracks: which video track to read; None for the default of the file.
    account: counts the pictures that were decoded, used and left out.
    max_hours: pictures after this are not read, and neither are pictures beyond the limits of `budget.py`; the account
        says so.

    Everything else that can be decoded is read. Raises MediaError if that is nothing.
    """
    account = Account() if account is None else account
    with open_media(path, tracks, max_hours=max_hours) as media:
        if media.video is None:
            raise MediaError(f"{media.path}: has no video", expected="a video stream")
        # The rate only fills in missing times: real files vary it, and some state a rate that they do not have.
        step_s = 1.0 / average_fps(media.video)
        aspect = sample_aspect(media.video)
        last_s: float | None = None
        damage = Damage(media.path, "picture", account)
        for frame in decode_video(media, media.video, damage):
            account.found("pictures")
            if frame.time is not None:
                time_s = frame.time - media.origin_s
            else:  # bare elementary streams carry no times
                time_s = 0.0 if last_s is None else last_s + step_s
            if -0.001 < time_s < 0.0:  # rounding of the container's clock
                time_s = 0.0
            if time_s < 0.0:  # only later pictures need it
                account.lost("pictures", "before the beginning")
            elif last_s is not None and time_s <= last_s:  # a damaged clock can repeat or run back
                line = f"a picture at {time_s:.2f} s comes after one at {last_s:.2f} s, and is left out"
                account.lost("pictures", "repeated time", line=line)
            elif (why := media.budget.refuse_time(time_s)) is not None:
                account.lost("pictures", BEYOND_LIMIT)
                damage.stop(last_s or 0.0, why)
                break
            else:
                account.used("pictures")
                last_s = time_s
                yield VideoFrame(time_s, _upright(frame, aspect))
        if last_s is None:
            raise MediaError(f"{media.path}: no picture can be decoded", remedy="check the file")


def sample_pictures(path: str | PathLike[str], track: int, times_s: Sequence[float]) -> Iterator[Picture]:
    """Different pictures near some media times, as far as they can be read.

    track: number of the video track. times_s: rising.
    """
    for number, time_s in enumerate(times_s, start=1):
        # FFmpeg lands on the key picture before a time, which may be the same for all times: each goes further on.
        most = _SAMPLE_STEP * number
        # Without an index it may land behind the last key picture; the beginning of the film then stands for it.
        for start_s in (time_s, None):
            picture = _picture_at(path, track, start_s, most)
            if picture is not None:
                yield picture
                break


def _picture_at(path: str | PathLike[str], track: int, time_s: float | None, most: int) -> Picture | None:
    """The picture at a media time, or as far as `most` pictures lead to it; None: none can be read there.

    time_s: None to begin at the beginning.
    """
    with open_media(path, Tracks(video=track)) as media:
        if media.video is None:
            return None
        if time_s is not None:
            with contextlib.suppress(av.FFmpegError):
                media.container.seek(round((time_s + media.origin_s) * av.time_base))
        last: av.VideoFrame | None = None
        frames = decode_video(media, media.video, Damage(media.path, "picture", Account()))
        pixels = 0
        for last in itertools.islice(frames, most):
            pixels += last.width * last.height
            if pixels > SAMPLE_PIXELS:
                break
            if time_s is not None and last.time is not None and last.time - media.origin_s >= time_s:
                break
        return None if last is None else _upright(last, sample_aspect(media.video))


def average_fps(stream: av.VideoStream) -> float:
    """Pictures per second as the container states them; 25 if it states none or an absurd number."""
    rate = stream.average_rate or stream.guessed_rate
    fps = float(rate) if rate else 0.0
    return fps if 0.1 <= fps <= 1000.0 else _FALLBACK_FPS


def quarter_turns(frame: av.VideoFrame) -> int:
    """How many turns by 90 degrees counter-clockwise bring the stored picture upright: 0 to 3."""
    # PyAV gives the rotation in degrees counter-clockwise and does not apply it.
    return round(frame.rotation / 90) % 4


def square_pixel_size(width: int, height: int, sample_aspect_ratio: float) -> tuple[int, int]:
    """The width and height at which pixels are square and no side is longer than MAX_SIDE_PX.

    width, height: of the stored picture, before any turn.
    sample_aspect_ratio: width of a stored pixel over its height.
    """
    wide = width * sample_aspect_ratio
    scale = min(1.0, MAX_SIDE_PX / max(wide, height))
    return max(1, round(wide * scale)), max(1, round(height * scale))


def sample_aspect(stream: av.VideoStream) -> float:
    """Width of a stored pixel over its height; 1 if it is unknown or absurd."""
    # Decoders do not apply the aspect, and without it the faces of a 2:1 file are found in a third of the pictures.
    ratio = stream.sample_aspect_ratio
    value = float(ratio) if ratio else 1.0
    return value if 0.2 <= value <= 5.0 else 1.0


def _upright(frame: av.VideoFrame, sample_aspect_ratio: float) -> Picture:
    """The decoded picture, turned upright and with square pixels."""
    width, height = square_pixel_size(frame.width, frame.height, sample_aspect_ratio)
    # Bilinear scaling skips pixels of a picture that shrinks; area scaling averages them.
    shrinks = width < frame.width or height < frame.height
    interpolation = Interpolation.AREA if shrinks else Interpolation.BILINEAR
    turns = quarter_turns(frame)

    def convert() -> npt.NDArray[np.uint8]:
        rgb = frame.reformat(width=width, height=height, format="rgb24", interpolation=interpolation).to_ndarray()
        return np.ascontiguousarray(np.rot90(rgb, turns), dtype=np.uint8)  # copies only a turned picture

    name = frame.format.name
    matrix = _MATRICES.get(int(frame.colorspace))
    # After a turn, chroma of odd sides would lie half a pixel off.
    if name not in _PLANAR or matrix is None or (turns and (width % 2 or height % 2)):
        return Picture.of_rgb(convert())
    planar = frame
    if name == "yuv420p10le" or (width, height) != (frame.width, frame.height):
        eight_bit = "yuvj420p" if name == "yuvj420p" else "yuv420p"
        planar = frame.reformat(width=width, height=height, format=eight_bit, interpolation=interpolation)
    sizes = ((width, height), *[((width + 1) // 2, (height + 1) // 2)] * 2)
    planes = [_plane(plane, *size) for plane, size in zip(planar.planes, sizes, strict=True)]
    if turns:
        planes = [np.asarray(cv2.rotate(plane, _TURNS[turns]), np.uint8) for plane in planes]
    full_range = name == "yuvj420p" or int(frame.color_range) == _FULL_RANGE
    luma, blue, red = planes
    return Picture.of_planes(luma, blue, red, matrix, full_range=full_range, convert=convert)


def _plane(plane: av.video.plane.VideoPlane, width: int, height: int) -> npt.NDArray[np.uint8]:
    """The bytes [H, W] of a plane without copying them. The array keeps the plane alive."""
    # Each row is padded to `line_size` bytes. PyAV's own grey array would take as long as decoding.
    rows = np.frombuffer(memoryview(plane), np.uint8)[: height * plane.line_size]
    return rows.reshape(height, plane.line_size)[:, :width]
