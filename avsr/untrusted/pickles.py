"""Reads the pickle in a file of `torch.save`: dicts, lists, plain values and tensors. Nothing of the file is run.

Neither Python's unpickler nor torch's with `weights_only` is used. Both make what a file asks for before anybody can
look at it: 8 GB of zeros, a tuple so deep that its hash overflows the stack, numbers that all have one hash.
The opcodes are those of protocol 2, which `torch.save` writes; `pickletools` of Python describes them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from avsr.untrusted.values import shown

MAX_PICKLE_BYTES = 16 << 20
MAX_OPCODES = 500_000
MAX_TENSORS = 20_000
MAX_DEPTH = 100
MAX_NUMBER_BYTES = 8

STORAGES = {
    "torch DoubleStorage": "float64",
    "torch FloatStorage": "float32",
    "torch HalfStorage": "float16",
    "torch BFloat16Storage": "bfloat16",
    "torch LongStorage": "int64",
    "torch IntStorage": "int32",
    "torch ShortStorage": "int16",
    "torch CharStorage": "int8",
    "torch ByteStorage": "uint8",
    "torch BoolStorage": "bool",
}
"""The type of the numbers by the class that holds them, as "module name"."""
_TENSORS = {"torch._utils _rebuild_tensor": (4, 4), "torch._utils _rebuild_tensor_v2": (6, 7)}
"""By the function that makes a tensor: how many arguments it takes at least and at most."""
_PARAMETER, _ORDERED, _SIZE = "torch._utils _rebuild_parameter", "collections OrderedDict", "torch Size"
_PLAIN = {f"torch {dtype}" for dtype in STORAGES.values()}
GLOBALS = frozenset({*STORAGES, *_TENSORS, *_PLAIN, _PARAMETER, _ORDERED, _SIZE})
"""Everything that a pickle may name."""


class PickleError(Exception):
    """What in a pickle is refused, in half a line."""


class Storage(NamedTuple):
    """The numbers of one or more tensors, in a record of their own."""

    dtype: str
    """As torch calls it."""
    key: str
    """The name of the record."""
    numbers: int
    """How many there are."""


MakeTensor = Callable[[Storage, int, tuple[int, ...], tuple[int, ...]], Any]
"""Gives the tensor of a storage, an offset, a shape and strides. All counts are numbers of items, 0 or more."""


def read_pickle(data: bytes, make_tensor: MakeTensor) -> Any:
    """The content of a pickle. Raises PickleError if it is damaged, too large, or holds anything else."""
    if len(data) > MAX_PICKLE_BYTES:
        raise PickleError(f"a pickle of {len(data)} bytes")
    content = _Reader(data, make_tensor).read()
    _count(content, 0, {})
    return content


def _count(value: Any, depth: int, known: dict[int, int]) -> int:
    """How many values there are; a value in several places counts several times. Raises PickleError for absurdly many.

    Whoever walks through the content meets as many. A list that holds one list twice, and so on, grows without bound.
    """
    if type(value) not in (list, tuple, dict):
        return 1
    if depth > MAX_DEPTH:  # also a list that holds itself
        raise PickleError(f"lists in lists, more than {MAX_DEPTH} deep, in a pickle")
    if id(value) not in known:
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(item, depth + 1, known) for item in items)
        if known[id(value)] > MAX_OPCODES:
            raise PickleError(f"more than {MAX_OPCODES} values in a pickle")
    return known[id(value)]


class _Name(NamedTuple):
    """A class or function that the pickle names. It stays a name."""

    text: str


class _Reader:
    """The stack machine that a pickle is a program for."""

    def __init__(self, data: bytes, make_tensor: MakeTensor) -> None:
        self._data, self._at = data, 0
        self._make_tensor = make_tensor
        self._tensors = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        for _ in range(MAX_OPCODES):
            opcode = self._take(1)[0]
            if opcode == ord("."):
                return self._pop()
            step = _STEPS.get(opcode)
            if step is None:
                raise PickleError(f"the pickle opcode 0x{opcode:02x}, which no tensor needs")
            step(self)
        raise PickleError(f"a pickle of more than {MAX_OPCODES} opcodes")

    def _take(self, count: int) -> bytes:
        """The next bytes of the pickle."""
        part = self._data[self._at : self._at + count]
        if len(part) < count:
            raise PickleError("a pickle that is cut off")
        self._at += count
        return part

    def _skip(self, count: int) -> None:
        self._take(count)

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _long(self) -> int:
        count = self._number("<B")
        # Longer numbers may all have one hash, so that as keys each would be compared with all others.
        if count > MAX_NUMBER_BYTES:
            raise PickleError(f"a number of {count} bytes in a pickle")
        return int.from_bytes(self._take(count), "little", signed=True)

    def _text(self) -> str:
        try:
            return self._take(self._number("<I")).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise PickleError("a text in a pickle that is no UTF-8") from None

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        # What lies below a mark belongs to a list or dict that is still being made.
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise PickleError("a pickle that takes more values than it has")
        return self._stack.pop()

    def _since_mark(self) -> list[Any]:
        if not self._marks:
            raise PickleError("a pickle that takes more values than it has")
        first = self._marks.pop()
        items = self._stack[first:]
        del self._stack[first:]
        return items

    def _top(self, kind: type) -> Any:
        value = self._pop()
        if type(value) is not kind:
            raise PickleError(f"{type(value).__name__} in the place of a {kind.__name__} in a pickle")
        self._push(value)
        return value

    def _extend(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def _set(self, items: list[Any]) -> None:
        content = self._top(dict)
        if len(items) % 2:
            raise PickleError("a key without a value in a pickle")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # The hash of nested tuples may take for ever, or overflow the stack.
            if type(key) not in (str, int, bool):
                raise PickleError(f"a key that is a {type(key).__name__} in a pickle")
            content[key] = value

    def _tuple(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._push(tuple(reversed(items)))

    def _remember(self, number: int) -> None:
        value = self._pop()
        self._memo[number] = value
        self._push(value)

    def _recall(self, number: int) -> None:
        if number not in self._memo:
            raise PickleError("a pickle that takes a value before it is there")
        self._push(self._memo[number])

    def _name(self) -> None:
        end = self._data.find(b"\n", self._data.find(b"\n", self._at) + 1)
        text = " ".join(self._data[self._at : end].decode("utf-8", "replace").split("\n")) if end > self._at else ""
        if text not in GLOBALS:
            raise PickleError(f"{shown(text)} in a pickle")
        self._at = end + 1
        self._push(_Name(text))

    def _storage(self) -> None:
        match self._pop():
            case ("storage", _Name(name), str(key), str(), int(count)) if name in STORAGES and count >= 0:
                self._push(Storage(STORAGES[name], key, count))
            case _:
                raise PickleError("a reference in a pickle that is not one to numbers of a tensor")

    def _call(self) -> None:
        """What `torch.save` writes as a call of a function."""
        arguments, function = self._pop(), self._pop()
        match function, arguments:
            case (_Name(name), (Storage() as storage, int(offset), tuple(size), tuple(stride), *more)) if (
                name in _TENSORS
            ):
                least, most = _TENSORS[name]
                # The seventh says that numbers are to be conjugated or negated.
                if not least <= len(arguments) <= most or any(more[2:]):
                    raise PickleError("a tensor of an unknown form in a pickle")
                self._push(self._tensor(storage, offset, size, stride))
            case (_Name(name), (tensor, bool(), {})) if name == _PARAMETER:
                self._push(tensor)
            case (_Name(name), ()) if name == _ORDERED:
                self._push({})
            case (_Name(name), (tuple(size),)) if name == _SIZE:
                self._push(size)
            case _:
                raise PickleError("a call in a pickle that no tensor needs")

    def _tensor(self, storage: Storage, offset: int, size: tuple[Any, ...], stride: tuple[Any, ...]) -> Any:
        self._tensors += 1
        if self._tensors > MAX_TENSORS:
            raise PickleError(f"more than {MAX_TENSORS} tensors")
        counts = (offset, *size, *stride)
        if len(size) != len(stride) or any(type(count) is not int or count < 0 for count in counts):
            raise PickleError(f"a tensor of shape {shown(size)} and strides {shown(stride)}")
        return self._make_tensor(storage, offset, size, stride)

    def _state(self) -> None:
        """Attributes of an OrderedDict: versions of modules, which nobody needs."""
        self._pop()
        self._top(dict)


_STEPS: dict[int, Callable[[_Reader], None]] = {
    0x80: lambda reader: reader._skip(1),  # the protocol
    ord("N"): lambda reader: reader._push(None),
    0x88: lambda reader: reader._push(True),
    0x89: lambda reader: reader._push(False),
    ord("K"): lambda reader: reader._push(reader._number("<B")),
    ord("M"): lambda reader: reader._push(reader._number("<H")),
    ord("J"): lambda reader: reader._push(reader._number("<i")),
    0x8A: lambda reader: reader._push(reader._long()),
    ord("G"): lambda reader: reader._push(reader._number(">d")),
    ord("X"): lambda reader: reader._push(reader._text()),
    ord("("): lambda reader: reader._marks.append(len(reader._stack)),
    ord(")"): lambda reader: reader._push(()),
    0x85: lambda reader: reader._tuple(1),
    0x86: lambda reader: reader._tuple(2),
    0x87: lambda reader: reader._tuple(3),
    ord("t"): lambda reader: reader._push(tuple(reader._since_mark())),
    ord("]"): lambda reader: reader._push([]),
    ord("a"): lambda reader: reader._extend([reader._pop()]),
    ord("e"): lambda reader: reader._extend(reader._since_mark()),
    ord("}"): lambda reader: reader._push({}),
    ord("s"): lambda reader: reader._set([reader._pop(), reader._pop()][::-1]),
    ord("u"): lambda reader: reader._set(reader._since_mark()),
    ord("q"): lambda reader: reader._remember(reader._number("<B")),
    ord("r"): lambda reader: reader._remember(reader._number("<I")),
    ord("h"): lambda reader: reader._recall(reader._number("<B")),
    ord("j"): lambda reader: reader._recall(reader._number("<I")),
    ord("c"): _Reader._name,
    ord("Q"): _Reader._storage,
    ord("R"): _Reader._call,
    ord("b"): _Reader._state,
}
"""What each opcode does. Opcodes that make objects of any class are not here."""
