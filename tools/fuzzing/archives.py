"""Hostile tar, zip, pickle and safetensors files. Nothing in them is dangerous if it is run: it only takes memory."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from random import Random

from fuzzing.mutations import LONG_INTEGERS, json_text, mutate_bytes

PICKLES: tuple[bytes, ...] = (
    b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R.",  # bytearray(8 << 30)
    b"\x80\x02cbuiltins\nexec\nX\x04\x00\x00\x00pass\x85R.",
    b"\x80\x02cos\ngetcwd\n)R.",
    b"\x80\x02ctorch\nzeros\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
    b"\x80\x02ccollections\nOrderedDict\n)R.",
    b"\x80\x02X\xff\xff\xff\x7f",
    b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    b"\x80\x02\x8b\xff\xff\xff\x7f.",
    b"\x80\x02" + b"]" * 3000 + b"a" * 2999 + b".",
    b"\x80\x02" + b"(" * 100_000 + b".",
    b"\x80\x02]" + b"q\x00h\x00\x86" * 5000 + b".",
    b"\x80\x02]q\x00h\x00a.",
    b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    b"\x80\x02N.",
    b"\x80\x02r\xff\xff\xff\xff.",
    b"\x80\x02j\xff\xff\xff\xff.",
    b"",
    b".",
    b"\x80\x7f.",
)


def mutate_zip(data: bytes, random: Random) -> bytes:
    """A hostile file of `torch.save` made from a good one: other records, or another pickle in a right zip."""
    if random.random() < 0.3:
        return mutate_bytes(data, random)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    compression = random.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,))
    _change_records(records, random)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
        for number in range(random.choice((0,) * 20 + (2000,))):
            archive.writestr(zipfile.ZipInfo(f"archive/more/{number}"), b"", compression)
    return file.getvalue()


def _change_records(records: dict[str, bytes], random: Random) -> None:
    pickled = next((name for name in records if name.endswith("data.pkl")), None)
    if pickled is not None and random.random() < 0.75:
        records[pickled] = mutate_pickle(records[pickled], random)
        return
    name = random.choice(list(records))
    content = records.pop(name)
    match random.randrange(5):
        case 0:
            records[name + "x"] = content
        case 1:
            records[name] = mutate_bytes(content, random)
        case 2:
            records["../" + name] = content
        case 3:
            records[name] = struct.pack("<f", random.choice((float("nan"), float("inf"), 6e4))) * (len(content) // 4)


def mutate_pickle(data: bytes, random: Random) -> bytes:
    """Another pickle: a hostile one, or this one with changed opcodes and arguments."""
    if random.random() < 0.35:
        return random.choice(PICKLES)
    if random.random() < 0.3:
        return mutate_bytes(data, random)
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 3))):
        match random.randrange(3):
            case 0:  # a small number, such as a length, a stride or an offset
                places = [place for place, byte in enumerate(changed[:-1]) if byte == pickle.BININT1[0]]
                if places:
                    place = random.choice(places)
                    changed[place : place + 2] = pickle.BININT + struct.pack(
                        "<i", random.choice((-1, 0, 2**31 - 1, 2**20, -(2**31), 10**9))
                    )
            case 1:
                place = random.randrange(2, max(3, len(changed)))
                changed[place:place] = random.choice(
                    (b"0", b"1", b"2", b")", b"]", b"}", b"N", b"R", b"b", b"\x85", b"Q")
                )
            case _:
                changed[random.randrange(len(changed))] = random.choice(
                    b"().0122GIJKLMNRQbcdehjlopqrstu}\x81\x85\x8a\x8b"
                )
    return bytes(changed)


def mutate_safetensors(data: bytes, random: Random) -> bytes:
    """Weights with another header, another length of the header, or numbers that are not finite."""
    length = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + length], data[8 + length :]
    match random.randrange(6):
        case 0:
            return random.choice(LONG_INTEGERS).to_bytes(8, "little") + header + body
        case 1:
            bad = struct.pack("<f", random.choice((float("nan"), float("inf"), float("-inf"), 6e4, 1e38, 0.0)))
            start = random.choice((0, random.randrange(0, len(body), 4)))
            end = len(body) if random.random() < 0.5 else min(len(body), start + 4)
            return data[: 8 + length] + body[:start] + bad * ((end - start) // 4) + body[end:]
        case 2:
            return mutate_bytes(data, random)
        case _:
            header = json_text(json.loads(header), random)
            return len(header).to_bytes(8, "little") + header + body


def make_tar(members: dict[str, bytes], random: Random) -> bytes:
    """A tar of `members` with one hostile habit: types, names, sizes, headers, or compression."""
    file = io.BytesIO()
    names = list(members)
    chosen = random.choice(names)
    habit = random.randrange(12)
    with tarfile.open(fileobj=file, mode="w", format=random.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))) as tar:
        if habit == 8:  # more members than any model has
            for number in range(3000):
                tar.addfile(tarfile.TarInfo(f"more/{number}"))
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(members[name])
            if name == chosen:
                _give_habit(member, habit, random)
            tar.addfile(member, io.BytesIO(members[name]) if member.isreg() else None)
            if habit == 7 and name == chosen:
                tar.addfile(member, io.BytesIO(members[name]))
    data = file.getvalue()
    match habit:
        case 9:  # headers for long names, each followed by another
            return _long_name_header() * random.choice((10, 2000)) + data
        case 10:
            return mutate_bytes(gzip.compress(data, mtime=0), random)
        case 11:
            return mutate_bytes(data, random)
    return data


def _give_habit(member: tarfile.TarInfo, habit: int, random: Random) -> None:
    match habit:
        case 0:
            member.type = random.choice(
                (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
            )
            member.linkname, member.size = "/dev/zero", 0
        case 1:
            member.name = random.choice(("../../x", "/etc/x", "a" * 5000, "\x1b[2J", "", ".", member.name + "/"))
        case 2:
            member.pax_headers = {
                random.choice(("size", "path", "GNU.sparse.realsize", "x")): random.choice(
                    ("-1", "9" * 30, "\x00", "a")
                )
            }
        case 3:
            member.type = tarfile.GNUTYPE_SPARSE
        case 4:
            member.mtime, member.uid, member.mode = 2**40, 2**30, 0


def _long_name_header() -> bytes:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 10
    return member.tobuf(tarfile.GNU_FORMAT) + b"long name\0".ljust(512, b"\0")
