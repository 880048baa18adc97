"""Reads the members of a `.nemo` archive safely: a tar, sometimes compressed with gzip, from a stranger.

The names of the members are only compared and never become paths. Every size is checked before anything is read.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from avsr.errors import ModelError
from avsr.files import temporary_folder
from avsr.untrusted.torch_file import MAX_WEIGHTS_BYTES

MAX_HEADER_BYTES = 1 << 20
MAX_MEMBERS = 1000


class Archive:
    """The regular files of a tar, by the last part of their names. A context manager.

    Raises ModelError if the file cannot be read, is no tar, or has too many members or two of the same name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members: dict[str, tarfile.TarInfo] = {}
        try:
            self._file: BinaryIO = open(path, "rb")
        except OSError as error:
            raise ModelError(f"{path}: cannot be read", got=error.strerror) from None
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
                            raise ModelError(f"{self._path}: two members are called {name!r}", expected="one")
                        self._members[name] = member
        except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
            raise ModelError(
                f"{self._path}: not a model archive", got=error, expected="a tar, as .nemo files are"
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
    """A file that refuses long reads. tarfile reads only headers through it.

    Some tar headers state their own length, and tarfile would allocate whatever they state.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise ModelError(f"{self._path}: not a model archive", got=f"a tar header of {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _decompressed(file: BinaryIO, path: Path) -> BinaryIO:
    """A temporary file with the content of a gzip file.

    Raises ModelError if the content is damaged or too large: a small gzip file can unpack to a very large one.
    """
    limit = MAX_WEIGHTS_BYTES + (1 << 30)
    with file:
        file.seek(0)
        plain = tempfile.TemporaryFile(prefix="avsr-")  # noqa: SIM115 - the caller closes it
        try:
            with gzip.open(file) as source:
                while block := source.read(1 << 20):
                    plain.write(block)
                    # Checked while it unpacks: a gzip file does not reliably state its size.
                    if plain.tell() > limit:
                        raise ModelError(f"{path}: too large when decompressed", expected=f"{limit} bytes at most")
        except (OSError, EOFError, zlib.error) as error:
            plain.close()
            raise ModelError(f"{path}: cannot be decompressed", got=error, remedy="download the model again") from None
        except BaseException:
            plain.close()
            raise
    return plain
