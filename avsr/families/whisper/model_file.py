"""Checks the file of a CTranslate2 model before the runtime reads it, so that a damaged file is named in one line.

The file is a list of tensors: name, shape, type, bytes. The names and sizes are compared with the length of
the file, and all floating-point numbers must be finite. All numbers are little-endian.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from avsr.errors import ModelError
from avsr.families.whisper.network import Found, Sizes, WrongNetworkError, check_network
from avsr.untrusted.files import open_file
from avsr.untrusted.finite import next_are_finite
from avsr.untrusted.torch_file import MAX_WEIGHTS_BYTES

VERSIONS = range(4, 7)
"""Versions of the file format that name each tensor's bytes as read here."""
KIND = "WhisperSpec"
MOST_TENSORS = 10_000
MOST_DIMENSIONS = 5
ITEM_BYTES = {0: 4, 1: 1, 2: 2, 3: 4, 4: 2, 5: 2}
"""Bytes of an item by type: float32, int8, int16, int32, float16, bfloat16."""
FLOATS = {0: "float32", 4: "float16", 5: "bfloat16"}
"""The types with numbers that may be not finite. Whole numbers have their scales in a tensor of their own."""


class Numbers(NamedTuple):
    """A tensor of floating-point numbers in the file."""

    name: str
    form: str
    """A key of `avsr.untrusted.finite.FORMS`."""
    begin: int
    """Place of its first byte."""
    size: int
    """Bytes."""


def check_model_file(path: Path) -> tuple[list[Numbers], Sizes]:
    """The floating-point tensors, and the sizes of the network.

    Raises ModelError unless the file holds a whole Whisper model of CTranslate2.
    """
    try:
        with open_file(path, MAX_WEIGHTS_BYTES) as file:
            return _check(file, os.fstat(file.fileno()).st_size)
    except (OSError, _BadFileError, WrongNetworkError) as error:
        raise _cannot_be_read(path, error) from error


def check_numbers(path: Path, tensors: list[Numbers]) -> None:
    """Raises ModelError if a number in one of the tensors is not finite."""
    try:
        with open_file(path, MAX_WEIGHTS_BYTES) as file:
            for tensor in tensors:
                file.seek(tensor.begin)
                if not next_are_finite(file, tensor.size, tensor.form):
                    raise _BadFileError(f"numbers that are not finite in the tensor {tensor.name[:80]!r}")
    except (OSError, EOFError, _BadFileError) as error:
        raise _cannot_be_read(path, error) from error


def _cannot_be_read(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{path}: cannot be read", got=error, expected="a Whisper model of CTranslate2", remedy="download it again"
    )


class _BadFileError(Exception):
    """What is wrong with the file."""


def _check(file: BinaryIO, size: int) -> tuple[list[Numbers], Sizes]:
    version = _number(file, "<I")
    if version not in VERSIONS:
        raise _BadFileError(f"version {version} of the format")
    kind = _text(file)
    if kind != KIND:
        raise _BadFileError(f"a model of the kind {kind[:40]!r}")
    _number(file, "<I")  # revision of the kind
    tensors = _number(file, "<I")
    if tensors > MOST_TENSORS:
        raise _BadFileError(f"{tensors} tensors")
    numbers: list[Numbers] = []
    found: dict[str, Found] = {}
    for _ in range(tensors):
        name, tensor = _tensor(file, size, numbers)
        if name in found:
            raise _BadFileError(f"two tensors {name[:80]!r}")
        found[name] = tensor
    _check_aliases(file, found)
    return numbers, check_network(found)


def _check_aliases(file: BinaryIO, found: Mapping[str, Found]) -> None:
    """The end of the file gives tensors a second name. Only the projection to tokens has one."""
    for _ in range(min(_number(file, "<I"), 2)):
        alias, name = _text(file), _text(file)
        if (alias, name) != ("decoder/projection/weight", "decoder/embeddings/weight"):
            raise _BadFileError(f"a second name {alias[:80]!r} of the tensor {name[:80]!r}")


def _tensor(file: BinaryIO, size: int, numbers: list[Numbers]) -> tuple[str, Found]:
    """The next tensor. The file stands behind it. numbers: takes it if its numbers are not whole."""
    name = _text(file)
    dimensions = _number(file, "<B")
    if dimensions > MOST_DIMENSIONS:
        raise _BadFileError(f"a tensor {name[:80]!r} of {dimensions} dimensions")
    shape = [_number(file, "<I") for _ in range(dimensions)]
    kind = _number(file, "<B")
    item_bytes = ITEM_BYTES.get(kind)
    bytes_ = _number(file, "<I")
    if item_bytes is None or math.prod(shape) * item_bytes != bytes_:
        raise _BadFileError(f"a tensor {name[:80]!r} of shape {shape} in {bytes_} bytes")
    if file.tell() + bytes_ > size:
        raise _BadFileError(f"{size} bytes, and the tensor {name[:80]!r} ends after {file.tell() + bytes_}")
    if kind in FLOATS:
        numbers.append(Numbers(name, FLOATS[kind], file.tell(), bytes_))
    value = None if shape or kind in FLOATS else int.from_bytes(file.read(bytes_), "little", signed=True)
    file.seek(0 if value is not None else bytes_, 1)
    return name, Found(tuple(shape), value)


def _number(file: BinaryIO, form: str) -> int:
    data = file.read(struct.calcsize(form))
    if len(data) < struct.calcsize(form):
        raise _BadFileError("the file is cut off")
    return int(struct.unpack(form, data)[0])


def _text(file: BinaryIO) -> str:
    data = file.read(_number(file, "<H"))
    return data.rstrip(b"\0").decode("utf-8", "replace")
