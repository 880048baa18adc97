"""Reads files of `torch.save` that come from strangers: a zip file of a pickle and one record for each storage."""

from __future__ import annotations

import io
import math
import mmap
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from avsr.errors import ModelError
from avsr.untrusted.files import open_file
from avsr.untrusted.pickles import MAX_PICKLE_BYTES, PickleError, Storage, read_pickle
from avsr.untrusted.values import shown

if TYPE_CHECKING:
    import torch

MAX_RECORDS = 100_000
"""Entries of the zip file; one tensor is one entry."""
MAX_DIRECTORY_BYTES = 8 << 20
MAX_WEIGHTS_BYTES = 8 << 30
MAX_DIMENSIONS = 16
MAX_SHARE = 3
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field


def read_torch_file(path: Path, what: str) -> Any:
    """The content of a file of `torch.save`. Its tensors are mapped from the file, which must not be cut off meanwhile.

    `what` names the file in errors. Raises ModelError if it is missing, damaged or compressed, or if it holds anything
    but tensors and plain values.
    """
    damaged = f"{what} cannot be read"
    try:
        with open_file(path, MAX_WEIGHTS_BYTES + MAX_PICKLE_BYTES) as file:
            return _Records(file).read()
    except (PickleError, MemoryError) as error:
        got = error if isinstance(error, PickleError) else "not enough memory"
        raise ModelError(damaged, got=got, expected="tensors by name, as torch.save writes them") from None
    # A damaged zip file can raise any of these.
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, OverflowError, struct.error) as error:
        raise ModelError(
            damaged,
            got=shown(error),
            expected="weights in the zip file that torch.save writes",
            remedy="download the model again",
        ) from None


class _Records:
    """The records of the zip file. Raises PickleError if they are not as `torch.save` writes them."""

    def __init__(self, file: BinaryIO) -> None:
        with zipfile.ZipFile(_ShortReads(file)) as directory:
            entries = directory.infolist()
        if len(entries) > MAX_RECORDS:
            raise PickleError(f"an archive of {len(entries)} records")
        # A compressed archive could unpack to far more than its size, and could not be mapped.
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
            raise PickleError("a compressed or encrypted archive")
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) != len(entries):
            raise PickleError("an archive with two records of one name")
        self._claimed = 0
        # Private: what is written into a tensor never reaches the file.
        self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def read(self) -> Any:
        roots = [name.removesuffix("data.pkl") for name in self._entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise PickleError(f"{len(roots)} records data.pkl")
        self._root = roots[0]
        if f"{self._root}byteorder" in self._entries and self._bytes(f"{self._root}byteorder", 16) != b"little":
            raise PickleError("numbers of another byte order")
        return read_pickle(self._bytes(f"{self._root}data.pkl", MAX_PICKLE_BYTES), self._tensor)

    def _place(self, name: str) -> tuple[int, int]:
        """Where a record lies in the file: the first byte and the one after the last."""
        entry = self._entries.get(name)
        if entry is None:
            raise PickleError(f"no record {shown(name)}")
        at = entry.header_offset
        signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(self._memory[at : at + _LOCAL_HEADER.size])
        first = at + _LOCAL_HEADER.size + name_bytes + extra_bytes
        if signature != b"PK\3\4" or first + entry.file_size > len(self._memory):
            raise PickleError(f"a record {shown(name)} that is cut off")
        return first, first + entry.file_size

    def _bytes(self, name: str, most: int) -> bytes:
        first, end = self._place(name)
        if end - first > most:
            raise PickleError(f"a record {shown(name)} of {end - first} bytes")
        data = self._memory[first:end]
        if zlib.crc32(data) != self._entries[name].CRC:
            raise PickleError(f"a damaged record {shown(name)}")
        return data

    def _tensor(self, storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
        import torch

        dtype = getattr(torch, storage.dtype)
        first, end = self._place(f"{self._root}data/{storage.key}")
        if storage.numbers * dtype.itemsize > end - first:
            raise PickleError(f"a record of {end - first} bytes for {storage.numbers} numbers")
        last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
        if len(size) > MAX_DIMENSIONS or (0 not in size and last >= storage.numbers):
            raise PickleError(f"a tensor of shape {shown(size)} in {storage.numbers} numbers")
        # With strides of 0, a few bytes would stand for any number of them.
        if math.prod(size) > storage.numbers:
            raise PickleError("a tensor of more numbers than the file holds for it")
        # Tied weights are in the file once and stand in two places. More would fill the memory from a small file.
        self._claimed += math.prod(size) * dtype.itemsize
        if self._claimed > MAX_SHARE * len(self._memory):
            raise PickleError("tensors of many times the bytes of the file")
        if 0 in size:
            return torch.empty(size, dtype=dtype)
        return torch.frombuffer(self._memory, dtype=dtype, count=storage.numbers, offset=first).as_strided(
            size, stride, offset
        )


class _ShortReads(io.RawIOBase):
    """A file that refuses long reads. A zip file states the length of its directory, which is read at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:
            raise PickleError(f"a directory of {size} bytes in an archive")
        return self._file.read(size if size >= 0 else MAX_DIRECTORY_BYTES)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def plain_tensors(content: Any, what: str) -> dict[str, torch.Tensor]:
    """`content`, checked to be a mapping of names to dense tensors of at most 8 GiB in all.

    `what` names the file in errors. Raises ModelError that names the entry that is something else, or that claims more
    numbers than the file holds for it.
    """
    import torch

    damaged = f"{what} cannot be read"
    if not isinstance(content, dict):
        raise ModelError(damaged, got=type(content).__name__, expected="tensors by name")
    total, stored = 0, {}
    for name, tensor in content.items():
        # Sparse tensors can claim any size, and meta tensors hold no numbers.
        plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and not tensor.is_meta
        if not isinstance(name, str) or not plain:
            raise ModelError(f"{damaged}: {shown(name)}", got=type(tensor).__name__, expected="a plain tensor")
        total += tensor.numel() * 4
        stored[tensor.data_ptr()] = tensor.numel() * 4
    # One tensor may have several names, but not hundreds: each name becomes a copy.
    if total > MAX_SHARE * sum(stored.values()):
        raise ModelError(damaged, got="one tensor under very many names", expected="a tensor for each name")
    if total > MAX_WEIGHTS_BYTES:
        raise ModelError(f"{what}: weights too large", got=f"{total} bytes", expected=f"{MAX_WEIGHTS_BYTES} at most")
    return content
