"""Where the length fields and the parts of MP4, RIFF, EBML and Ogg files are."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

Part = tuple[int, int]
"""Start and end of a box, chunk, element or page."""
MOST_PARTS = 2000
MP4_FOLDERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"moof", b"traf", b"mvex", b"dinf"}
EBML_FOLDERS = {0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0xE1, 0x1F43B675, 0xA0, 0x1C53BB6B, 0xBB, 0x1A45DFA3}


class Field(NamedTuple):
    """A number in a file."""

    start: int
    width: int
    order: Literal["little", "big"]


def find_parts(data: bytes) -> tuple[list[Field], list[Part]]:
    """The length fields and parts of a file; both empty if its container is not known."""
    found: list[tuple[list[Field], Part]] = []
    for item in _walk(data):
        found.append(item)
        if len(found) == MOST_PARTS:
            break
    return [field for fields, _ in found for field in fields], [part for _, part in found]


def _walk(data: bytes) -> Iterator[tuple[list[Field], Part]]:
    if data[4:8] == b"ftyp":
        yield from _boxes(data, 0, len(data))
    elif data[:4] == b"RIFF":
        yield [Field(4, 4, "little")], (0, len(data))
        yield from _chunks(data, 12, len(data))
    elif data[:4] == b"\x1aE\xdf\xa3":
        yield from _elements(data, 0, len(data))
    elif data[:4] == b"OggS":
        yield from _pages(data)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[list[Field], Part]]:
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        stop = min(end, start + max(8, size))
        if kind in MP4_FOLDERS:
            yield [Field(start, 4, "big")], (start, stop)
            yield from _boxes(data, start + 8, stop)
        else:  # the numbers of a small box are all worth changing
            numbers = [Field(place, 4, "big") for place in range(start, min(stop - 3, start + 160), 4)]
            yield ([Field(start, 4, "big")] if kind == b"mdat" else numbers), (start, stop)
        start = stop


def _chunks(data: bytes, start: int, end: int) -> Iterator[tuple[list[Field], Part]]:
    while start + 8 <= end:
        kind, size = struct.unpack_from("<4sI", data, start)
        stop = min(end, start + 8 + size + size % 2)
        numbers = [Field(start + 4, 4, "little")]
        if kind in (b"fmt ", b"avih", b"strh", b"strf"):
            numbers += [Field(place, 2, "little") for place in range(start + 8, stop - 1, 2)]
        yield numbers, (start, stop)
        if kind == b"LIST":
            yield from _chunks(data, start + 12, stop)
        start = stop


def _elements(data: bytes, start: int, end: int) -> Iterator[tuple[list[Field], Part]]:
    while start < end and data[start]:
        id_width = 9 - data[start].bit_length()
        place = start + id_width
        if place >= end or not data[place]:
            return
        width = 9 - data[place].bit_length()
        size = int.from_bytes(data[place : place + width], "big") - (1 << 7 * width)
        stop = min(end, place + width + size)
        numbers = [Field(place, width, "big")]
        if size in (1, 2, 4, 8):
            numbers.append(Field(place + width, size, "big"))
        if stop <= place + width + size:
            yield [number for number in numbers if number.start + number.width <= len(data)], (start, stop)
        if int.from_bytes(data[start:place], "big") in EBML_FOLDERS:
            yield from _elements(data, place + width, stop)
        start = stop


def _pages(data: bytes) -> Iterator[tuple[list[Field], Part]]:
    for start, stop in _page_places(data):
        numbers = [Field(start + 5, 1, "little"), Field(start + 6, 8, "little"), Field(start + 14, 4, "little")]
        yield [*numbers, Field(start + 18, 4, "little"), Field(start + 26, 1, "little")], (start, stop)


def _page_places(data: bytes) -> Iterator[Part]:
    start = data.find(b"OggS")
    while start >= 0 and start + 27 <= len(data):
        segments = data[start + 27 : start + 27 + data[start + 26]]
        stop = min(len(data), start + 27 + len(segments) + sum(segments))
        yield start, stop
        start = data.find(b"OggS", stop)


def with_checksums(data: bytes) -> bytes:
    """The same file with right checksums in its Ogg pages. Other containers stay unchanged."""
    if data[:4] != b"OggS":
        return data
    changed = bytearray(data)
    for start, stop in _page_places(data):
        changed[start + 22 : start + 26] = bytes(4)
        changed[start + 22 : start + 26] = struct.pack("<I", _checksum(bytes(changed[start:stop])))
    return bytes(changed)


def _checksum(page: bytes) -> int:
    """CRC-32 as RFC 3533 has it: not reflected, and begun with 0; zlib has another one."""
    value = 0
    for byte in page:
        value = (value << 8 & 0xFFFFFFFF) ^ _TABLE[value >> 24 ^ byte]
    return value


def _table_entry(byte: int) -> int:
    value = byte << 24
    for _ in range(8):
        value = (value << 1 ^ 0x04C11DB7 if value >> 31 else value << 1) & 0xFFFFFFFF
    return value


_TABLE = [_table_entry(byte) for byte in range(256)]
