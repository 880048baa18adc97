"""A picture that converts to RGB or grey only the parts that are needed.

Decoders give luma and chroma. To convert a whole picture to RGB takes as long as to decode it, but following a face
needs only a few hundred pixels square in colour, and reading its lips needs no colour at all.

Shapes: H W pixels, h w pixels of a smaller grid.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]

BT_601 = (0.299, 0.114)
"""Shares of red and blue in luma by ITU-R BT.601."""
BT_709 = (0.2126, 0.0722)
"""Shares of red and blue in luma by ITU-R BT.709."""


class Picture:
    """One upright picture with square pixels. Make it with `of_rgb` or `of_planes`.

    Positions are in pixels from the outer corner of the first pixel. The arrays that the picture was made from must not
    be written to afterwards.
    """

    def __init__(
        self,
        planes: tuple[Bytes, ...],
        to_rgb: npt.NDArray[np.float32] | None,
        *,
        is_common: bool = False,
        convert: Callable[[], Bytes] | None = None,
    ) -> None:
        self._planes = planes  # either RGB [H, W, 3], or luma [H, W] and blue and red chroma of half the size
        self._to_rgb = to_rgb  # [3, 4], maps (Y, Cb, Cr, 1) to RGB; None: the picture is RGB
        self._is_common = is_common  # BT.601 of limited range, which cv2 can convert itself
        self._convert = convert  # a faster way to the whole picture in RGB
        self._rgb = planes[0] if to_rgb is None else None
        self.height, self.width = planes[0].shape[:2]

    @staticmethod
    def of_rgb(rgb: Bytes) -> Picture:
        """A picture from RGB, uint8 [H, W, 3]."""
        return Picture((rgb,), None)

    @staticmethod
    def of_planes(
        luma: Bytes,
        blue: Bytes,
        red: Bytes,
        matrix: tuple[float, float],
        *,
        full_range: bool,
        convert: Callable[[], Bytes] | None = None,
    ) -> Picture:
        """A picture from the planes of 4:2:0 video with 8 bits.

        luma: uint8 [H, W].
        blue, red: chroma, uint8 [H / 2, W / 2], rounded up.
        matrix: BT_601 or BT_709.
        full_range: luma goes from 0 to 255; False: from 16 to 235.
        convert: a faster way to the whole picture in RGB, uint8 [H, W, 3].
        """
        to_rgb = _to_rgb(matrix, full_range=full_range)
        return Picture((luma, blue, red), to_rgb, is_common=matrix == BT_601 and not full_range, convert=convert)

    @property
    def rgb(self) -> Bytes:
        """The whole picture, uint8 [H, W, 3]. Converted once and kept."""
        if self._rgb is None:
            size = (self.width, self.height)
            self._rgb = self._convert() if self._convert is not None else self.rgb_part(0, 0, *size, size)
        return self._rgb

    def rgb_part(self, left: int, top: int, right: int, bottom: int, size: tuple[int, int]) -> Bytes:
        """A part of the picture in RGB, resized: uint8 [height, width, 3].

        left, top, right, bottom: the part, inside the picture.
        size: (width, height) of the result.
        """
        if self._to_rgb is None:
            part = self._planes[0][top:bottom, left:right]
            return part if size == (right - left, bottom - top) else _resize(part, size)
        luma, *chroma = self._planes
        whole = _resize(luma[top:bottom, left:right], size)
        half = (slice(top // 2, (bottom + 1) // 2), slice(left // 2, (right + 1) // 2))
        return self._coloured(whole, cv2.merge([_resize(plane[half], size) for plane in chroma]))

    def rgb_warp(self, to_picture: Matrix, side_px: int) -> Bytes:
        """A square in RGB, uint8 [side_px, side_px, 3], turned and scaled. Outside of the picture it is black.

        to_picture: [2, 3], maps positions in the square to positions in the picture.
        side_px: even.
        """
        if self._to_rgb is None:
            warped = _warp(self._planes, to_picture, side_px, border=(0, 0, 0))
        else:
            dark = -float(self._to_rgb[0, 3] + 128 * self._to_rgb[0, 1:3].sum()) / float(self._to_rgb[0, 0])
            warped = _warp(self._planes[:1], to_picture, side_px, border=(dark,))  # dark: the luma of black
            if warped is not None:
                chroma = self._chroma_warp(to_picture, side_px)
                if self._is_common:  # cv2 converts it in a third of the time
                    return np.asarray(cv2.cvtColorTwoPlane(warped, chroma, cv2.COLOR_YUV2RGB_NV12), np.uint8)
                warped = self._coloured(warped, _resize(chroma, (side_px, side_px)))
        return np.zeros((side_px, side_px, 3), np.uint8) if warped is None else warped

    def grey_warp(self, to_picture: Matrix, side_px: int) -> Bytes:
        """A square in grey, uint8 [side_px, side_px], turned and scaled as by `rgb_warp`.

        Outside of the picture the pixels of its edge are repeated. A square that lies wholly outside is zero.
        """
        warped = _warp(self._planes[:1], to_picture, side_px, border=None, is_grey=self._to_rgb is None)
        if warped is None:
            return np.zeros((side_px, side_px), np.uint8)
        if self._to_rgb is None:
            return warped
        # Grey as cv2 computes it from RGB, with the weights of BT.601. For pictures of BT.601 the chroma cancels out.
        of_luma, of_blue, of_red, offset = (float(weight) for weight in np.array([0.299, 0.587, 0.114]) @ self._to_rgb)
        # Most videos take this way: one table lookup and no warp of the chroma.
        if abs(of_blue) + abs(of_red) < 1e-3:
            table = np.clip(np.rint(of_luma * np.arange(256) + offset), 0, 255).astype(np.uint8)
            return np.asarray(cv2.LUT(warped, table), np.uint8)
        merged = cv2.merge([warped, _resize(self._chroma_warp(to_picture, side_px), (side_px, side_px))])
        return np.asarray(cv2.transform(merged, np.array([[of_luma, of_blue, of_red, offset]])), np.uint8)

    def grid(self, step_x: int, step_y: int) -> Bytes:
        """Every step_x-th pixel of every step_y-th row, uint8 [h, w]: luma, or of RGB the green, which is similar."""
        plane = self._planes[0] if self._to_rgb is not None else self._planes[0][:, :, 1]
        return np.ascontiguousarray(plane[::step_y, ::step_x])

    def _chroma_warp(self, to_picture: Matrix, side_px: int) -> Bytes:
        """The chroma of a square at half its size, [side_px / 2, side_px / 2, 2]. Outside of the picture it is grey."""
        half = to_picture.copy()
        # Chroma has half the size of luma: the shift halves, and the scale stays, because the square is halved too.
        half[:, 2] /= 2
        warped = _warp(self._planes[1:], half, side_px // 2, border=(128, 128))
        if warped is None:
            return np.full((side_px // 2, side_px // 2, 2), 128, np.uint8)
        return warped

    def _coloured(self, luma: Bytes, chroma: Bytes) -> Bytes:
        """RGB [H, W, 3] from luma [H, W] and chroma [H, W, 2] of the same size."""
        return np.asarray(cv2.transform(cv2.merge([luma, chroma]), self._to_rgb), np.uint8)


@functools.cache
def _to_rgb(matrix: tuple[float, float], *, full_range: bool) -> npt.NDArray[np.float32]:
    """The matrix [3, 4] that maps (Y, Cb, Cr, 1) to RGB, all from 0 to 255 (ITU-R BT.601 and BT.709)."""
    red, blue = matrix
    green = 1 - red - blue
    colour = np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
            [1, 2 * (1 - blue), 0],
        ]
    )
    if not full_range:
        colour *= np.array([255 / 219, 255 / 224, 255 / 224])
    dark = np.array([0 if full_range else 16, 128, 128])
    return np.column_stack([colour, -colour @ dark]).astype(np.float32)


def _resize(plane: Bytes, size: tuple[int, int]) -> Bytes:
    """The plane resized to (width, height)."""
    if size == (plane.shape[1], plane.shape[0]):
        return plane
    shrinks = size[0] < plane.shape[1]
    resized = cv2.resize(plane, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def _warp(
    planes: tuple[Bytes, ...],
    to_plane: Matrix,
    side_px: int,
    *,
    border: tuple[float, ...] | None,
    is_grey: bool = False,
) -> Bytes | None:
    """A square from planes of one size, merged to [side_px, side_px, planes]. None: it lies wholly outside of them.

    to_plane: [2, 3], maps positions in the square to positions in the planes.
    border: the value of each plane outside of it; None: repeat the pixels of the edge.
    is_grey: convert RGB to grey.
    """
    height, width = planes[0].shape[:2]
    (a, b, x), (c, d, y) = to_plane.tolist()  # for six numbers several times as fast as numpy
    # Only the pixels under the square are touched, with a margin of 2 for interpolation.
    left = max(0, math.floor(x + side_px * (min(a, 0.0) + min(b, 0.0))) - 2)
    top = max(0, math.floor(y + side_px * (min(c, 0.0) + min(d, 0.0))) - 2)
    right = min(width, math.ceil(x + side_px * (max(a, 0.0) + max(b, 0.0))) + 2)
    bottom = min(height, math.ceil(y + side_px * (max(c, 0.0) + max(d, 0.0))) + 2)
    if right - left < 2 or bottom - top < 2:
        return None
    parts = [plane[top:bottom, left:right] for plane in planes]
    block = max(1, int(math.hypot(a, c)))
    if block >= 2:  # average pixels, which the warp would skip; by a whole number this is ten times as fast
        size = (max(1, (right - left) // block), max(1, (bottom - top) // block))
        parts = [_resize(part[: size[1] * block, : size[0] * block], size) for part in parts]
    part = parts[0] if len(parts) == 1 else cv2.merge(parts)
    if is_grey:
        part = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
    # cv2 measures positions from the centre of the first pixel, we from its corner.
    x, y = (x + 0.5 * (a + b) - left) / block - 0.5, (y + 0.5 * (c + d) - top) / block - 0.5
    from_square = np.array([[a / block, b / block, x], [c / block, d / block, y]])
    square = cv2.warpAffine(
        part,
        from_square,
        (side_px, side_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT,
        borderValue=border or 0,
    )
    return np.asarray(square, np.uint8)
