"""Changes of bytes, of documents (what JSON and YAML hold) and of texts. The same generator gives the same change."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

from fuzzing.containers import Field, Part, find_parts, with_checksums

INTEGERS = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 1 << 16, (1 << 24) - 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
LONG_INTEGERS = (*INTEGERS, 1 << 40, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 255, 20_000, 10**6, 2**31, 2**63, -(2**63), 10**30,
    0.0, -0.0, 0.5, 1e-300, 1e308, float("nan"), float("inf"), float("-inf"),
    "", " ", "0", "nan", "x" * 5000, "\x00", "\x1b]0;title\x07", "\u202e", "\ud7ff", "../../etc/passwd", "/dev/zero",
    [], {}, [[]], [None], [0] * 2000, {"a": {"b": {"c": 1}}}, [[1, 2], [3]], {"": 0},
)  # fmt: skip
"""Values that a field may hold instead of the right one."""


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """`data` with one to four changes. A file of a known container is also changed at its length fields and parts."""
    fields, parts = find_parts(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        if parts and random.random() < 0.6:
            data = random.choice((_set_field, _set_field, _remove_part, _double_part, _swap_parts))(
                data, fields, parts, random
            )
            fields, parts = find_parts(data)
        else:
            data = random.choice(_BYTE_CHANGES)(data, random)
    # A wrong checksum would be refused before anything else is read.
    return with_checksums(data) if random.random() < 0.8 else data


def _flip_bits(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 3, 20, 200)) if data else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _flip_early_bits(data: bytes, random: Random) -> bytes:
    return _flip_bits(data[:200], random) + data[200:]


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.randint(0, len(data))]


def _remove_block(data: bytes, random: Random) -> bytes:
    start, end = _block(data, random)
    return data[:start] + data[end:]


def _double_block(data: bytes, random: Random) -> bytes:
    start, end = _block(data, random)
    return data[:end] + data[start:end] * random.choice((1, 1, 3, 50)) + data[end:]


def _fill_block(data: bytes, random: Random) -> bytes:
    start, end = _block(data, random)
    filling = random.choice((b"\0", b"\xff", b"A", random.randbytes(1)))
    return data[:start] + filling * (end - start) + data[end:]


def _set_integer(data: bytes, random: Random) -> bytes:
    width = random.choice((1, 2, 4, 8))
    if len(data) < width:
        return data
    place = random.randrange(0, len(data) - width + 1)
    place -= place % random.choice((1, width))
    return _with_integer(data, Field(place, width, random.choice(("little", "big"))), random)


def _insert(data: bytes, random: Random) -> bytes:
    place = random.randint(0, len(data))
    return data[:place] + random.randbytes(random.choice((1, 4, 300))) + data[place:]


def _block(data: bytes, random: Random) -> tuple[int, int]:
    start = random.randint(0, len(data))
    return start, min(len(data), start + random.choice((1, 8, 100, 4096)))


_BYTE_CHANGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip_bits, _flip_early_bits, _cut, _remove_block, _double_block, _fill_block, _set_integer, _set_integer, _insert,
)  # fmt: skip


def _with_integer(data: bytes, field: Field, random: Random) -> bytes:
    bits = 8 * field.width
    old = int.from_bytes(data[field.start : field.start + field.width], field.order)
    new = random.choice((random.choice(LONG_INTEGERS), old + 1, old - 1, 2 * old, old // 2, random.getrandbits(bits)))
    number = (new % (1 << bits)).to_bytes(field.width, field.order)
    return data[: field.start] + number + data[field.start + field.width :]


def _set_field(data: bytes, fields: list[Field], parts: list[Part], random: Random) -> bytes:
    return _with_integer(data, random.choice(fields), random) if fields else data


def _remove_part(data: bytes, fields: list[Field], parts: list[Part], random: Random) -> bytes:
    start, end = random.choice(parts)
    return data[:start] + data[end:]


def _double_part(data: bytes, fields: list[Field], parts: list[Part], random: Random) -> bytes:
    start, end = random.choice(parts)
    times = 1 if end - start > 4096 else random.choice((1, 2, 200))
    return data[:end] + data[start:end] * times + data[end:]


def _swap_parts(data: bytes, fields: list[Field], parts: list[Part], random: Random) -> bytes:
    (start, end), (other_start, other_end) = sorted((random.choice(parts), random.choice(parts)))
    if end > other_start:  # one part is inside the other, or they are the same
        return data
    return data[:start] + data[other_start:other_end] + data[end:other_start] + data[start:end] + data[other_end:]


def mutate_document(document: Any, random: Random) -> Any:
    """A copy of a document with one to three changed values, keys or lists. It may refer to itself no more than before.

    document: dicts, lists and plain values.
    """
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        document = _changed(document, random)
    return document


def _changed(document: Any, random: Random) -> Any:
    if not isinstance(document, dict | list) or not document or random.random() < 0.03:
        return _odd(document, random)
    items: list[Any] = list(document.items() if isinstance(document, dict) else enumerate(document))
    key, value = random.choice(items)
    if isinstance(value, dict | list) and value and random.random() < 0.8:
        new = _changed(value, random)
    else:
        new = _odd(value, random)
    if isinstance(document, list):
        return document[:key] + random.choice(([new], [new], [new], [], [value, new])) + document[key + 1 :]
    changed = dict(document)
    if random.random() < 0.1:
        del changed[key]
    elif random.random() < 0.1:
        changed[random.choice(("unknown", "", key + "2" if isinstance(key, str) else "a", "\x1b[2J"))] = new
    else:
        changed[key] = new
    return changed


def _odd(value: Any, random: Random) -> Any:
    """Another value. Numbers mostly stay numbers, so that checks of the type do not catch all of them."""
    if isinstance(value, bool) or not isinstance(value, int | float) or random.random() < 0.3:
        if isinstance(value, str) and random.random() < 0.3:
            return random.choice((value * 2, value[:-1], value + "\x1b[2J", value.upper(), "\n" + value))
        return random.choice(ODD_VALUES)
    return random.choice(
        (-value, value * 2, value + 1, value - 1, value * 1000, value / 7, 10**6, 10**12, 0, -1, 1 << 31)
    )


def yaml_text(document: Any, random: Random) -> bytes:
    """A hostile YAML file that was made from `document`, or is of a hostile form of its own."""
    if random.random() < 0.7:
        return yaml.safe_dump(mutate_document(document, random), sort_keys=False).encode()
    text = yaml.safe_dump(document, sort_keys=False)
    size = random.choice((5, 9, 12))
    hostile = (
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, size)) + text,
        "m0: &m0 {a: 1}\n"
        + "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, size))
        + text,
        text + "x: " + "[" * 10 ** random.randint(2, 4),
        text + "x: " + "{a: " * 10 ** random.randint(2, 4),
        text + "\n" + "- " * 3000,
        text + "x: " + random.choice(("2020-13-45", "9" * 6000, "0x" + "f" * 5000, "1:2:3:4e5", "!!binary '='", "~")),
        text + "x: " + random.choice(("!!python/object/apply:os.getcwd []", "!a b", "!!set {a}", "!!int x", "*none")),
        text + "x: &x [*x]\n",
        "? [a, b]\n: c\n" + text,
        "\ufeff" + text,
        text + text,
        "---\n" + text + "\n---\n" + text,
        text + "".join(f"k{i}: v\n" for i in range(30_000)),
        text.replace(": ", ":\t"),
        "%YAML 9.9\n---\n" + text,
        "# " + "x" * 10**6 + "\n" + text,
        text.replace("\n", "\x00\n", 1),
    )
    return random.choice(hostile).encode()


def json_text(document: Any, random: Random) -> bytes:
    """A hostile JSON file that was made from `document`, or is of a hostile form of its own."""
    if random.random() < 0.75:
        return json.dumps(mutate_document(document, random)).encode()
    text = json.dumps(document)
    hostile = (
        "[" * 10 ** random.randint(2, 5),
        '{"a":' * 10 ** random.randint(2, 5),
        text[:-1] + ', "x": ' + "[" * 3000 + "]" * 3000 + text[-1:],
        text[:-1] + ', "x": ' + random.choice(("9" * 6000, "1e999", "-Infinity", "NaN", '"\\ud800"', "1e-999")) + "}",
        "\ufeff" + text,
        text + text,
        text.replace('"', "'"),
        text[:-1] + ', "x": "' + "x" * 10**6 + '"}',
        text[:-1] + "," + ",".join(f'"k{i}": {i}' for i in range(30_000)) + "}",
        "",
        "null",
        "\x00" * 100,
    )
    return random.choice(hostile).encode()


def mutate_text(data: bytes, random: Random) -> bytes:
    """A list of lines with changed, doubled, missing or hostile lines."""
    lines = data.split(b"\n")
    hostile = (
        b"",
        b" ",
        b"\x1b]0;title\x07",
        b"\x00",
        b"\xff\xfe",
        b"x" * 10**5,
        b"<blank>",
        b"\xe2\x80\xae",
        b"a b",
        b"\r",
    )
    for _ in range(random.choice((1, 1, 3))):
        place = random.randrange(len(lines)) if lines else 0
        change = random.randrange(5)
        if change == 0:
            lines[place : place + 1] = []
        elif change == 1:
            lines.insert(place, random.choice(lines) if lines else b"")
        elif change == 2:
            lines[place : place + 1] = [random.choice(hostile)]
        elif change == 3 and lines:
            lines[place] += random.choice(hostile)
        else:
            lines += [b"w%d" % number for number in range(random.choice((1, 1000, 100_000)))]
    return b"\n".join(lines)
