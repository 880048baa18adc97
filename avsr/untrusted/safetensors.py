"""Reads safetensors files of strangers. The header is checked, and compared with what is expected, before any data.

A file is: the length of the header (8 bytes), the header (JSON: dtype, shape and place of each tensor), the data. All
numbers are little-endian. https://github.com/huggingface/safetensors describes the format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from avsr.errors import ModelError
from avsr.untrusted.files import open_file
from avsr.untrusted.settings import parse_json
from avsr.untrusted.torch_file import MAX_WEIGHTS_BYTES
from avsr.untrusted.values import shown

if TYPE_CHECKING:
    import torch

MAX_HEADER_BYTES = 4 << 20
MAX_DIMENSIONS = 8
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4}
"""Bytes of an item, by the dtypes that weights have."""


class Stored(NamedTuple):
    """What the header says of one tensor."""

    dtype: str
    """A key of ITEM_BYTES."""
    shape: tuple[int, ...]
    begin: int
    """Place of its first byte, from the beginning of the data."""
    end: int


def read_safetensors(
    path: Path, check: Callable[[Mapping[str, Stored]], None] | None = None
) -> dict[str, torch.Tensor]:
    """The tensors of a file by name.

    check: called with the checked header before any data is read; it may refuse the file.

    Raises ModelError if the file is missing, damaged or too large, or if a tensor has a dtype that weights never have.
    """
    with open_file(path, MAX_WEIGHTS_BYTES) as file:
        start, header = _checked_header(file, path)
        if check is not None:
            check(header)
        tensors = {}
        file.seek(start)
        for name, stored in sorted(header.items(), key=lambda item: (item[1].begin, item[1].end)):
            tensors[name] = _read(file, stored, f"{path}: weight {shown(name)}")
    return tensors


def read_header(path: Path) -> dict[str, Stored]:
    """What a file says of its tensors, by name. Their numbers are not read. Raises ModelError as above."""
    with open_file(path, MAX_WEIGHTS_BYTES) as file:
        return _checked_header(file, path)[1]


def _checked_header(file: BinaryIO, path: Path) -> tuple[int, dict[str, Stored]]:
    """As `_header`. Raises ModelError."""
    try:
        return _header(file)
    except (_BadFileError, OSError) as error:
        raise ModelError(f"{path}: weights cannot be read", got=error, remedy="download the model again") from None


class _BadFileError(Exception):
    """What is wrong with the file."""


def _header(file: BinaryIO) -> tuple[int, dict[str, Stored]]:
    """Where the data begins, and the tensors by name."""
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise _BadFileError(f"a header of {length} bytes in a file of {size}")
    try:
        content = parse_json(file.read(length), "header", ModelError)
    except ModelError as error:
        raise _BadFileError(f"a header that is no JSON: {error.got}") from None
    if not isinstance(content, dict):
        raise _BadFileError("a header that is no mapping")
    content.pop("__metadata__", None)  # notes of the program that wrote the file
    header = {name: _stored(name, entry) for name, entry in content.items()}
    _check_places(header, size - 8 - length)
    return 8 + length, header


def _stored(name: str, entry: object) -> Stored:
    """One entry of the header. Raises _BadFileError if its dtype, shape and place do not fit together."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _BadFileError(f"no dtype, shape and data_offsets for {shown(name)}")
    dtype, shape, places = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise _BadFileError(f"the dtype {shown(dtype)} of {shown(name)}, which weights never have")
    if not _whole_numbers(shape) or len(shape) > MAX_DIMENSIONS or not _whole_numbers(places) or len(places) != 2:
        raise _BadFileError(f"shape {shown(shape)} and data_offsets {shown(places)} of {shown(name)}")
    if math.prod(shape) * ITEM_BYTES[dtype] != places[1] - places[0]:
        raise _BadFileError(f"{shown(name)} of shape {shown(shape)} in {places[1] - places[0]} bytes")
    return Stored(dtype, tuple(shape), *places)


def _whole_numbers(value: object) -> bool:
    # In Python True is an int. No number in a file of at most 8 GiB is larger than its size.
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= MAX_WEIGHTS_BYTES for item in value)


def _check_places(header: Mapping[str, Stored], data_bytes: int) -> None:
    """The tensors must fill the data: no overlaps, no holes, nothing after the last one."""
    at = 0
    for name, stored in sorted(header.items(), key=lambda item: (item[1].begin, item[1].end)):
        if stored.begin != at:
            raise _BadFileError(f"{shown(name)} at byte {stored.begin} of the data, where {at} is the next free one")
        at = stored.end
    if at != data_bytes:
        raise _BadFileError(f"{data_bytes} bytes of data, where the header describes {at}")


def _read(file: BinaryIO, stored: Stored, what: str) -> torch.Tensor:
    """The tensor that begins where the file stands. Raises ModelError if the file has been cut off since."""
    import torch

    dtypes = {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
    }
    tensor = torch.empty(stored.shape, dtype=dtypes[stored.dtype])
    # Read into the tensor itself. A mapping of the file would end the process if the file were cut off meanwhile.
    if tensor.numel() and file.readinto(tensor.view(-1).view(torch.uint8).numpy()) != stored.end - stored.begin:  # type: ignore[attr-defined]
        raise ModelError(f"{what} is cut off", remedy="download the model again")
    return tensor
