"""Pictures of a media file, upright and with square pixels, on the media clock."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

from avsr.errors import MediaError
from avsr.media.container import MAX_GAP_S, Damage, WarningSink, decode_video, open_media
from avsr.media.picture import BT_601, BT_709, Picture

# Larger pictures are scaled down to this while decoding. A face needs about 40 pixels to be read; 1920 keeps one that
# fills a fiftieth of the width of a 4K picture.
MAX_SIDE_PX = 1920

_FALLBACK_FPS = 25.0

# 4:2:0 of 8 bit, whose planes are used as they are, and of 10, which is brought there. All else becomes RGB.
_PLANAR = {"yuv420p", "yuvj420p", "yuv420p10le"}
_MATRICES = {1: BT_709, 2: BT_601, 5: BT_601, 6: BT_601}  # by H.273; 2 is unknown, which all players take for BT.601
_FULL_RANGE = 2
_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


class VideoFrame:
    """One picture. time_s: media time. picture: upright, square pixels, at most MAX_SIDE_PX a side; may be given as
    RGB, uint8 [H, W, 3]."""

    def __init__(self, time_s: float, picture: Picture | npt.NDArray[np.uint8]) -> None:
        self.time_s = time_s
        self.picture = picture if isinstance(picture, Picture) else Picture.of_rgb(picture)

    @property
    def rgb(self) -> npt.NDArray[np.uint8]:
        """All of it, uint8 [H, W, 3]: converted when it is asked for, which costs as much as decoding."""
        return self.picture.rgb


def iter_frames(path: str | PathLike[str], *, on_warning: WarningSink | None = None) -> Iterator[VideoFrame]:
    """The pictures of `path` in order of strictly increasing media time, whatever the rate.

    Damage is passed to `on_warning` once and what decodes is kept. Raises MediaError where there is no readable video.
    """
    with open_media(path) as media:
        if media.video is None:
            raise MediaError(f"{media.path}: has no video", expected="a video stream")
        damage = Damage(media.path, "the video", on_warning)
        step_s = 1.0 / average_fps(media.video)
        aspect = sample_aspect(media.video)
        last_s: float | None = None
        for frame in decode_video(media, media.video, damage):
            if frame.time is not None:
                time_s = frame.time - media.origin_s
            else:  # bare elementary streams carry no times
                time_s = 0.0 if last_s is None else last_s + step_s
            if -0.001 < time_s < 0.0:  # rounding of the container's clock
                time_s = 0.0
            if time_s < 0.0 or (last_s is not None and time_s <= last_s):
                continue
            if time_s - (last_s or 0.0) > MAX_GAP_S:
                damage.report(last_s or 0.0, f"the clock jumps to {time_s:.0f} s")
                break
            last_s = time_s
            yield VideoFrame(time_s, _upright(frame, aspect))
        if last_s is None:
            raise MediaError(f"{media.path}: no picture can be decoded", remedy="check the file")


def average_fps(stream: av.VideoStream) -> float:
    """Pictures per second as the container states them, 25 where it does not."""
    rate = stream.average_rate or stream.guessed_rate
    fps = float(rate) if rate else 0.0
    return fps if 0.1 <= fps <= 1000.0 else _FALLBACK_FPS


def quarter_turns(frame: av.VideoFrame) -> int:
    """How often the stored picture has to be turned by 90 degrees counter-clockwise to stand upright: 0-3."""
    return round(frame.rotation / 90) % 4


def square_pixel_size(width: int, height: int, sample_aspect_ratio: float) -> tuple[int, int]:
    """Width and height, in the stored orientation, at which pixels are square and no side is above MAX_SIDE_PX."""
    wide = width * sample_aspect_ratio
    scale = min(1.0, MAX_SIDE_PX / max(wide, height))
    return max(1, round(wide * scale)), max(1, round(height * scale))


def sample_aspect(stream: av.VideoStream) -> float:
    """Width of a stored pixel over its height; 1 where it is unknown or absurd."""
    ratio = stream.sample_aspect_ratio
    value = float(ratio) if ratio else 1.0
    return value if 0.2 <= value <= 5.0 else 1.0


def _upright(frame: av.VideoFrame, sample_aspect_ratio: float) -> Picture:
    width, height = square_pixel_size(frame.width, frame.height, sample_aspect_ratio)
    shrinks = width < frame.width or height < frame.height
    interpolation = Interpolation.AREA if shrinks else Interpolation.BILINEAR
    turns = quarter_turns(frame)

    def convert() -> npt.NDArray[np.uint8]:
        rgb = frame.reformat(width=width, height=height, format="rgb24", interpolation=interpolation).to_ndarray()
        return np.ascontiguousarray(np.rot90(rgb, turns), dtype=np.uint8)  # a copy only where it is turned

    name = frame.format.name
    matrix = _MATRICES.get(int(frame.colorspace))
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
    """The bytes [H, W] of a plane, not copied; they live as long as the array."""
    rows = np.frombuffer(memoryview(plane), np.uint8)[: height * plane.line_size]
    return rows.reshape(height, plane.line_size)[:, :width]
