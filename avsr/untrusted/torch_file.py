"""Reads files of `torch.save` that come from strangers, without running their pickle."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsr.errors import ModelError
from avsr.untrusted.values import shown

if TYPE_CHECKING:
    import torch

MAX_RECORDS = 100_000
"""Entries of the zip file; one tensor is one entry."""
MAX_WEIGHTS_BYTES = 8 << 30


def read_torch_file(path: Path, what: str) -> Any:
    """The content of a file of `torch.save`. Its tensors are mapped from the file and valid only while the file exists.

    `what` names the file in errors. Raises ModelError if it is missing, damaged or compressed, or if it holds anything
    but tensors and plain values.
    """
    import torch

    damaged = f"{what} cannot be read"
    try:
        with zipfile.ZipFile(path) as records:
            entries = records.infolist()
            # A compressed archive could unpack to far more than its size, and could not be mapped.
            if len(entries) > MAX_RECORDS or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ModelError(damaged, got="a compressed archive", expected="one as torch.save writes it")
        # Mapped, so that a record that claims to be longer than it is cannot reach beyond the file.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise ModelError(damaged, got="no such file", remedy="check the path") from None
    except (
        # A damaged pickle can raise any of these.
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise ModelError(
            damaged,
            got=shown(error).split("\n")[0],
            expected="weights in the zip file that torch.save writes",
            remedy="download the model again",
        ) from None


def plain_tensors(content: Any, what: str) -> dict[str, torch.Tensor]:
    """`content`, checked to be a mapping of names to dense tensors of at most 8 GiB in all.

    `what` names the file in errors. Raises ModelError that names the entry that is something else.
    """
    import torch

    damaged = f"{what} cannot be read"
    if not isinstance(content, dict):
        raise ModelError(damaged, got=type(content).__name__, expected="tensors by name")
    total = 0
    for name, tensor in content.items():
        # Sparse tensors can claim any size, and meta tensors hold no numbers.
        plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and not tensor.is_meta
        if not isinstance(name, str) or not plain:
            raise ModelError(f"{damaged}: {shown(name)}", got=type(tensor).__name__, expected="a plain tensor")
        total += tensor.numel() * 4  # may be far more than the file holds, because strides can be 0
    if total > MAX_WEIGHTS_BYTES:
        raise ModelError(f"{what}: weights too large", got=f"{total} bytes", expected=f"{MAX_WEIGHTS_BYTES} at most")
    return content
