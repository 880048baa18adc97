"""Whether floating-point numbers in a file are finite, by their bits: as fast as the memory, without conversion."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from numpy.typing import DTypeLike

BLOCK_BYTES = 1 << 18
"""A block stays in the cache of the processor between the two looks at it."""

FORMS: dict[str, tuple[DTypeLike, DTypeLike, int]] = {
    "float32": (np.int32, np.uint32, 0x7F800000),
    "float16": (np.int16, np.uint16, 0x7C00),
    "bfloat16": (np.int16, np.uint16, 0x7F80),
}
"""By type of number: whole numbers of the same size, with a sign and without, and the bits of infinity."""


def next_are_finite(file: BinaryIO, size: int, form: str) -> bool:
    """Whether the next `size` bytes of the file are finite numbers. The file stands behind them, or after the first
    block with one that is not.

    form: a key of FORMS; the numbers are little-endian. Raises EOFError if the file ends before.
    """
    signed, unsigned, infinity = FORMS[form]
    # Without the sign bit, infinity and NaN are the largest whole numbers. With it, they are the largest of all.
    negative = infinity | (1 << (8 * np.dtype(unsigned).itemsize - 1))
    buffer = np.empty(BLOCK_BYTES, np.uint8)
    while size:
        block = buffer[: min(size, BLOCK_BYTES)]
        if file.readinto(block.data) != len(block):  # type: ignore[attr-defined]
            raise EOFError
        if block.view(signed).max() >= infinity or block.view(unsigned).max() >= negative:
            return False
        size -= len(block)
    return True
