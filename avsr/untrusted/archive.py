"""Reads the members of a `.nemo` archive safely: a tar, sometimes compressed with gzip, from a stranger.

The names of the members are only compared and never become paths. Every size is checked before anything is read.
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from avsr.errors import ModelError
from avsr.files import DISK_FULL, temporary_folder
from avsr.untrusted.files import open_file
from avsr.untrusted.torch_file import MAX_WEIGHTS_BYTES
from avsr.untrusted.values import shown

MAX_HEADER_BYTES = 1 << 20
MAX_HEADERS_BYTES = 8 << 20
MAX_MEMBERS = 1000
MAX_ARCHIVE_BYTES = MAX_WEIGHTS_BYTES + (1 << 30)
MAX_GZIP_RATIO = 20
FREE_GZIP_BYTES = 64 << 20


class Archive:
    """The regular files of a tar, by the last part of their names. A context manager.

    Raises ModelError if the file cannot be read, is no tar, or has too many members or two of the same name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members: dict[str, tarfile.TarInfo] = {}
        self._file: BinaryIO = open_file(path, MAX_ARCHIVE_BYTES)
        try:
            if self._file.read(2) == b"\x1f\x8b":  # gzip
                self._file = _decompressed(self._file, path)
            self._list()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def _list(self) -> None:
        self._file.seek(0)
        try:
            # Mode "r:" reads plain tars only: tarfile itself must not decompress, because it would not bound the size.
            with tarfile.open(fileobj=_HeaderReader(self._file, self._path), mode="r:") as tar:
                for count, member in enumerate(tar):
                    if count >= MAX_MEMBERS or member.size < 0:
                        raise ModelError(
                            f"{self._path}: not a model archive", expected=f"{MAX_MEMBERS} members at most"
                        )
                    # Links and devices could lead outside; a sparse file can claim far more bytes than it has.
                    if member.isreg() and not member.issparse():
                        # Names begin with "./" in published archives. Only the last part counts, so no name becomes a
                        # path.
                        name = member.name.rpartition("/")[2]
                        # With two members of one name it would depend on the reader which one is the model.
                        if name in self._members:
                            raise ModelError(f"{self._path}: two members are called {shown(name)}", expected="one")
                        self._members[name] = member
        except RecursionError:  # tarfile calls itself for each header that belongs to the next one
            raise ModelError(f"{self._path}: not a model archive", got="a chain of headers") from None
        except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
            raise ModelError(
                f"{self._path}: not a model archive", got=shown(error), expected="a tar, as .nemo files are"
            ) from None

    def _seek(self, name: str, limit: int) -> int:
        """Go to the content of a member and return its size in bytes. Raises ModelError as `read`."""
        member = self._members.get(name)
        if member is None:
            raise ModelError(f"{self._path}: {name} is missing", remedy="check that this is a .nemo model")
        if member.size > limit:
            raise ModelError(
                f"{self._path}: {name} is too large", got=f"{member.size} bytes", expected=f"{limit} at most"
            )
        self._file.seek(member.offset_data)
        return member.size

    def read(self, name: str, limit: int) -> bytes:
        """The content of one member. Raises ModelError if it is missing, cut off or larger than `limit` bytes."""
        size = self._seek(name, limit)
        data = self._file.read(size)
        if len(data) < size:
            raise ModelError(f"{self._path}: {name} is cut off", remedy="download the model again")
        return data

    @contextmanager
    def as_file(self, name: str, limit: int) -> Iterator[Path]:
        """The path of a temporary copy of one member, removed when the context ends. Raises ModelError as `read`."""
        left = self._seek(name, limit)
        # A file of its own, because torch maps weights from a file.
        with temporary_folder() as folder:
            copy = folder / "member"
            with copy.open("wb") as file:
                while left:
                    block = self._file.read(min(left, 1 << 20))
                    if not block:
                        raise ModelError(f"{self._path}: {name} is cut off", remedy="download the model again")
                    file.write(block)
                    left -= len(block)
            yield copy


class _HeaderReader(io.RawIOBase):
    """A file that refuses long reads, and many. tarfile reads only headers through it.

    Some tar headers state their own length, and tarfile would allocate whatever they state.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._left = MAX_HEADERS_BYTES

    def read(self, size: int = -1) -> bytes:
        self._left -= max(size, 0)
        if not 0 <= size <= MAX_HEADER_BYTES or self._left < 0:
            raise ModelError(
                f"{self._path}: not a model archive", got=f"tar headers of more than {MAX_HEADER_BYTES} bytes"
            )
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _decompressed(file: BinaryIO, path: Path) -> BinaryIO:
    """A temporary file with the content of a gzip file.

    Raises ModelError if the content is damaged or too large: a small gzip file can unpack to a very large one.
    """
    with file:
        packed = os.fstat(file.fileno()).st_size
        # Weights hardly shrink, so that an archive that unpacks to many times its size holds none.
        limit = min(MAX_ARCHIVE_BYTES, MAX_GZIP_RATIO * packed + FREE_GZIP_BYTES)
        file.seek(0)
        plain = tempfile.TemporaryFile(prefix="avsr-")  # noqa: SIM115 - the caller closes it
        try:
            for block in _unpacked(file):
                plain.write(block)
                # Checked while it unpacks: a gzip file does not reliably state its size.
                if plain.tell() > limit:
                    raise ModelError(
                        f"{path}: too large when decompressed", got=f"{packed} bytes that unpack to more than {limit}"
                    )
        except (OSError, EOFError, zlib.error) as error:
            plain.close()
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                what = f"{path}: cannot be decompressed: the folder for temporary files is full"
                raise ModelError(what, remedy="free some space, or set TMPDIR to another folder") from None
            why = getattr(error, "strerror", None) or error
            what = f"{path}: cannot be decompressed: {why}"
            raise ModelError(what, remedy="download the model again") from None
        except BaseException:
            plain.close()
            raise
    return plain


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    """The content of a gzip file, in blocks of at most 1 MiB. Raises EOFError, zlib.error."""
    unpacker = zlib.decompressobj(wbits=31)
    packed = b""
    while not unpacker.eof:
        packed = packed or file.read(1 << 16)
        if not packed:
            raise EOFError("it is cut off")
        yield unpacker.decompress(packed, 1 << 20)
        packed = unpacker.unconsumed_tail
    # A file may be followed by more of its kind, thousands of empty ones too. No archive of a model is.
    if (unpacker.unused_data + file.read(1 << 16)).strip(b"\0"):
        raise EOFError("there is something behind its end")
