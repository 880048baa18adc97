"""Decodes JPEG files that may be hostile.

The cost of decoding is checked first: the size is read from the header, and a file of many scans is refused, because
each scan is a pass over all pixels.
"""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import numpy.typing as npt

MAX_LONG_SIDE_PX, MAX_SHORT_SIDE_PX, MIN_SIDE_PX = 1280, 720, 32
MAX_SCANS = 24
"""Progressive files have about 10."""

# Pillow warns about damaged notes in a file, such as the camera's. Clients must not write to our terminal.
warnings.filterwarnings("ignore", module=r"PIL\.")

_MAX_SEGMENTS = 64
"""Segments before the frame header. Cameras write less than 20."""


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG file, from its header. Raises ValueError if it is no JPEG file or out of bounds."""
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG file")
    position = 2
    for _ in range(_MAX_SEGMENTS):
        if data[position : position + 1] != b"\xff" or len(data) < position + 4:
            break
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in (0xC0, 0xC1, 0xC2):  # Huffman coded, sequential or progressive: the common kinds
            precision, components = data[position + 4 : position + 5], data[position + 9 : position + 10]
            height, width = (int.from_bytes(data[position + at : position + at + 2], "big") for at in (5, 7))
            if precision != b"\x08" or components not in (b"\x01", b"\x03"):
                raise ValueError("a JPEG file of an unusual kind")
            short, long = sorted((width, height))
            if short < MIN_SIDE_PX or short > MAX_SHORT_SIDE_PX or long > MAX_LONG_SIDE_PX:
                expected = f"{MIN_SIDE_PX} to {MAX_LONG_SIDE_PX}x{MAX_SHORT_SIDE_PX}"
                raise ValueError(f"a picture of {width}x{height}: expected {expected}")
            return width, height
        is_other_segment = marker == 0xC4 or 0xDB <= marker <= 0xFE  # tables, application data, comments
        if not is_other_segment or length < 2:
            break
        position += 2 + length
    raise ValueError("a JPEG file without a header")


def decode_jpeg(data: bytes) -> npt.NDArray[np.uint8]:
    """The picture: uint8 RGB [H, W, 3]. Raises ValueError if it is broken or out of bounds."""
    # Pillow and OpenCV have the same decoder and give the same picture. But OpenCV writes a line to the standard error
    # output for each damaged file.
    from PIL.JpegImagePlugin import JpegImageFile

    width, height = jpeg_size(data)
    if data.count(b"\xff\xda") > MAX_SCANS:
        raise ValueError("a JPEG file of very many scans")
    try:
        # The class itself, because `Image.open` would also take the kinds of file that are made of several JPEG files.
        # A copy, because the array that Pillow gives cannot be written to, which MediaPipe refuses.
        rgb = np.array(JpegImageFile(io.BytesIO(data)).convert("RGB"))
    # Damaged headers raise any of these.
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error):
        raise ValueError("a JPEG file that cannot be decoded") from None
    if rgb.shape != (height, width, 3):
        raise ValueError("a JPEG file that cannot be decoded")
    return rgb
