"""Looks through a pickle without running it: only what tensors by name are made of may be in it.

torch unpickles with `weights_only`, which runs no code of the file but still lets it allocate any memory, for example a
`bytearray` of 8 GB. So every opcode is looked at first. The opcodes are those of Python's `pickletools`.
"""

from __future__ import annotations

from avsr.untrusted.values import shown

MAX_PICKLE_BYTES = 16 << 20
MAX_OPCODES = 2_000_000

GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch Size",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        *(
            f"torch {kind}Storage"
            for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
        ),
        *(f"torch {name}" for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool")),
    }
)
"""Everything that a pickle may name, as "module name"."""

# By opcode: how many bytes of argument follow. What is not here, such as INST, OBJ, NEWOBJ or STACK_GLOBAL, makes
# objects of any class, is for old protocols, or never occurs in a file of `torch.save`.
_FIXED = {
    **dict.fromkeys(b"().012aNbeltusRQ]}\x85\x86\x87\x88\x89\x94", 0),  # marks, tuples, lists, dicts, REDUCE, BUILD
    **dict.fromkeys(b"Khq\x80", 1),  # BININT1, BINGET, BINPUT, PROTO
    ord("M"): 2,  # BININT2
    **dict.fromkeys(b"Jjr", 4),  # BININT, LONG_BINGET, LONG_BINPUT
    **dict.fromkeys(b"G\x95", 8),  # BINFLOAT, FRAME
}
# By opcode: how many bytes state the length of the argument.
_COUNTED = {ord("X"): 4, ord("T"): 4, ord("B"): 4, ord("\x8c"): 1, ord("U"): 1, ord("C"): 1, 0x8A: 1}
_GLOBAL, _STOP = ord("c"), ord(".")


class PickleError(Exception):
    """What in a pickle is refused, in half a line."""


def scan_pickle(data: bytes) -> None:
    """Raises PickleError unless the pickle is whole and has only the opcodes and names of tensors by name."""
    if len(data) > MAX_PICKLE_BYTES:
        raise PickleError(f"a pickle of {len(data)} bytes")
    position, size = 0, len(data)
    for _ in range(MAX_OPCODES):
        if position >= size:
            raise PickleError("a pickle that is cut off")
        opcode = data[position]
        position += 1
        if opcode == _STOP:
            return
        if opcode in _FIXED:
            position += _FIXED[opcode]
        elif opcode in _COUNTED:
            first = position + _COUNTED[opcode]
            position = first + int.from_bytes(data[position:first], "little")
        elif opcode == _GLOBAL:
            position = _after_global(data, position)
        else:
            raise PickleError(f"the pickle opcode 0x{opcode:02x}, which no tensor needs")
    raise PickleError(f"a pickle of more than {MAX_OPCODES} opcodes")


def _after_global(data: bytes, position: int) -> int:
    """The position behind the module and the name of a global."""
    end = data.find(b"\n", data.find(b"\n", position) + 1)
    name = " ".join(data[position:end].decode("utf-8", "replace").split("\n")) if end > position else ""
    if name not in GLOBALS:
        raise PickleError(f"{shown(name)} in a pickle")
    return end + 1
