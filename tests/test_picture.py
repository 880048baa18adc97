"""Pictures that convert only parts: the results equal parts of the whole picture in RGB."""

from __future__ import annotations

from itertools import product

import av
import cv2
import numpy as np
import pytest

from avsr.media.picture import BT_601, BT_709, Picture
from avsr.media.video import _upright

SIZE = (120, 90)


def smooth_rgb(seed: int, width: int, height: int) -> np.ndarray:
    """A picture without details that half the chroma would lose, and with values that no conversion clips."""
    rgb = np.random.default_rng(seed).normal(0, 1, (height, width, 3)).astype(np.float32)
    rgb = cv2.GaussianBlur(rgb, (0, 0), 6.0)
    return (128 + 40 * rgb / np.abs(rgb).max() * [1, 0.8, 0.9]).astype(np.uint8)


def planes_of(rgb: np.ndarray, matrix: tuple[float, float], *, full_range: bool) -> Picture:
    red, blue = matrix
    R, G, B = np.moveaxis(rgb.astype(np.float64), 2, 0)
    luma = red * R + (1 - red - blue) * G + blue * B
    chroma = [(B - luma) / (2 * (1 - blue)), (R - luma) / (2 * (1 - red))]
    if not full_range:
        luma, chroma = 16 + luma * 219 / 255, [plane * 224 / 255 for plane in chroma]
    half = (rgb.shape[1] // 2, rgb.shape[0] // 2)
    blue_red = [cv2.resize(np.rint(128 + plane), half, interpolation=cv2.INTER_AREA) for plane in chroma]
    y, cb, cr = (np.rint(plane).astype(np.uint8) for plane in (luma, *blue_red))
    return Picture.of_planes(y, cb, cr, matrix, full_range=full_range)


ENCODINGS = list(product((BT_601, BT_709), (False, True)))


def apart(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape and one.dtype == other.dtype == np.uint8
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize(("matrix", "full_range"), ENCODINGS)
def test_parts_of_planes_are_those_of_rgb(matrix: tuple[float, float], full_range: bool) -> None:
    rgb = smooth_rgb(1, *SIZE)
    of_rgb, of_planes = Picture.of_rgb(rgb), planes_of(rgb, matrix, full_range=full_range)
    assert (of_planes.width, of_planes.height) == SIZE
    assert apart(of_planes.rgb, rgb) < 1.5
    for box, size in (((0, 0, 120, 90), (60, 45)), ((13, 7, 52, 60), (39, 53)), ((40, 30, 60, 50), (50, 50))):
        assert apart(of_planes.rgb_part(*box, size), of_rgb.rgb_part(*box, size)) < 2.0


@pytest.mark.parametrize(("matrix", "full_range"), ENCODINGS)
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.7])
def test_squares_cut_from_planes_are_those_cut_from_rgb(
    matrix: tuple[float, float], full_range: bool, scale: float
) -> None:
    rgb = smooth_rgb(2, *SIZE)
    of_rgb, of_planes = Picture.of_rgb(rgb), planes_of(rgb, matrix, full_range=full_range)
    turn = scale * np.exp(0.3j)
    for x, y in ((30.0, 20.0), (-20.0, 60.0)):  # the second square is partly outside of the picture
        to_picture = np.array([[turn.real, -turn.imag, x], [turn.imag, turn.real, y]])
        assert apart(of_planes.rgb_warp(to_picture, 32), of_rgb.rgb_warp(to_picture, 32)) < 3.0
        assert apart(of_planes.grey_warp(to_picture, 32), of_rgb.grey_warp(to_picture, 32)) < 2.5


@pytest.mark.parametrize("size", [(1, 1), (2, 600), (120, 90)])
def test_outside_of_the_picture_it_is_black(size: tuple[int, int]) -> None:
    away = np.array([[1.0, 0, 1000], [0, 1.0, 1000]])
    for picture in (
        Picture.of_rgb(smooth_rgb(3, *size)),
        Picture.of_planes(*[np.full(((size[1] + part) // (1 + part), (size[0] + part) // (1 + part)), 90, np.uint8)
                            for part in (0, 1, 1)], BT_709, full_range=False),
    ):  # fmt: skip
        assert not picture.rgb_warp(away, 16).any() and not picture.grey_warp(away, 16).any()
        assert picture.rgb.shape == (size[1], size[0], 3)


@pytest.mark.parametrize("colour_space", [1, 2, 5, 6, 9])
@pytest.mark.parametrize("colour_range", [0, 1, 2])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le", "yuv444p", "rgb24"])
def test_frames_are_converted_as_ffmpeg_does(colour_space: int, colour_range: int, pixels: str) -> None:
    frame = av.VideoFrame.from_ndarray(smooth_rgb(4, *SIZE), format="rgb24").reformat(format=pixels)
    if pixels != "rgb24":
        frame.colorspace, frame.color_range = colour_space, colour_range
    expected = frame.reformat(format="rgb24").to_ndarray()
    picture = _upright(frame, 1.0)
    size = (picture.width, picture.height)
    np.testing.assert_array_equal(picture.rgb, expected)
    assert apart(picture.rgb_part(0, 0, *size, size), expected) < 2.5  # FFmpeg's fast path rounds down
    wide = _upright(frame, 2.0)
    size = (wide.width, wide.height)
    assert wide.width == 2 * picture.width and apart(wide.rgb_part(0, 0, *size, size), wide.rgb) < 2.5
