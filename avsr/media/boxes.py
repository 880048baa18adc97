"""Adds up what the tables of an MP4 or MOV file claim, before FFmpeg believes them.

FFmpeg makes an entry in memory for each sample that a fragment (`trun`) claims, and for each edit (`elst`) copies of
the entries of all samples in it. So a file of 5 kB took 3 GB. ISO/IEC 14496-12 describes the boxes.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from avsr.errors import MediaError

FREE_SAMPLES = 1_000_000
"""So many samples of fragments need no bytes: they may be empty, or cut off in the last fragment. Any other one has at
least one byte in the file."""
FREE_EDITED = 4_000_000
EDITED_PER_BYTE = 32
"""Edits times samples, for each byte of the file. One hour of AAC (60 MB, 170 000 samples) may have 11 000 edits."""
MAX_BOXES = 10_000_000
"""Fragments of half a second in a recording of 24 hours have 1.5 million."""
MAX_UNPACKED_BYTES = 64 << 20
"""Compressed descriptions of QuickTime have some kilobytes."""

_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"cmov"}
# In these boxes: where the number of entries stands behind the head of the box.
_COUNTS_AT = {b"trun": 4, b"elst": 4, b"stsz": 8, b"stz2": 8}


def check_tables(path: Path) -> None:
    """Raises MediaError if the file claims more samples or edits than its bytes can hold. Other formats pass."""
    with contextlib.suppress(OSError), path.open("rb") as file:  # the opener says why a file cannot be read
        size = path.stat().st_size
        claims = _Claims()
        claims.add(file, 0, size)
        samples = claims.in_fragments + claims.in_tables
        if (
            claims.in_fragments > FREE_SAMPLES + size
            or claims.edits * min(samples, size) > FREE_EDITED + EDITED_PER_BYTE * size
        ):
            got = f"{samples} samples and {claims.edits} edits in {size} bytes"
        elif claims.boxes > MAX_BOXES:
            got = f"more than {MAX_BOXES} boxes"
        else:
            return
        raise MediaError(
            f"{path}: the description of the recording is absurd",
            got=got,
            expected="a sample for each byte at most, and edits that do not repeat it all",
            remedy="check the file, or convert it to MKV",
        )


class _Claims:
    """What the boxes claim, added up."""

    def __init__(self) -> None:
        self.in_fragments = 0
        """Samples."""
        self.in_tables = 0
        """Samples. FFmpeg itself drops those that lie behind the end of the file."""
        self.edits = 0
        self.boxes = 0

    def add(self, file: BinaryIO, start: int, end: int, depth: int = 0) -> None:
        """Add the boxes from byte `start` to `end`."""
        while start + 8 <= end and self.boxes <= MAX_BOXES:
            self.boxes += 1
            file.seek(start)
            head = file.read(16)
            if len(head) < 8:
                return
            size, kind = struct.unpack(">I4s", head[:8])
            body = start + 8
            if size == 1 and len(head) == 16:
                size, body = struct.unpack(">Q", head[8:])[0], start + 16
            # A box of size 0 goes on to the end, and FFmpeg reads a box that is cut off too.
            box_end = min(start + size, end) if size else end
            if box_end < body:
                return
            if kind in _CONTAINERS and depth < 16:
                self.add(file, body, box_end, depth + 1)
            elif kind == b"cmvd":
                self._add_packed(file, body, box_end)
            elif kind in _COUNTS_AT:
                self._count(file, kind, body)
            start = box_end

    def _count(self, file: BinaryIO, kind: bytes, body: int) -> None:
        file.seek(body + _COUNTS_AT[kind])
        count = int.from_bytes(file.read(4), "big")
        if kind == b"elst":
            self.edits += count
        elif kind == b"trun":
            self.in_fragments += count
        else:
            self.in_tables += count

    def _add_packed(self, file: BinaryIO, body: int, end: int) -> None:
        """Add the boxes of a compressed description."""
        file.seek(body + 4)
        with contextlib.suppress(zlib.error):
            unpacked = zlib.decompressobj().decompress(
                file.read(min(end - body, MAX_UNPACKED_BYTES)), MAX_UNPACKED_BYTES
            )
            self.add(io.BytesIO(unpacked), 0, len(unpacked), 1)
