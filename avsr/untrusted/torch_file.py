"""Reads files of `torch.save` that come from strangers, without running their pickle."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from avsr.errors import ModelError
from avsr.untrusted.files import open_file
from avsr.untrusted.pickles import MAX_PICKLE_BYTES, PickleError, scan_pickle
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
        with open_file(path, MAX_WEIGHTS_BYTES + MAX_PICKLE_BYTES) as file, zipfile.ZipFile(file) as records:
            scan_pickle(_pickle_of(records))
        # Mapped, so that a record that claims to be longer than it is cannot reach beyond the file.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except PickleError as error:
        raise ModelError(damaged, got=error, expected="tensors by name, as torch.save writes them") from None
    except (
        # A damaged archive or pickle can raise any of these.
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        NotImplementedError,
        MemoryError,
        zlib.error,
    ) as error:
        raise ModelError(
            damaged,
            got=shown(error).split("\n")[0] or type(error).__name__,
            expected="weights in the zip file that torch.save writes",
            remedy="download the model again",
        ) from None


def _pickle_of(records: zipfile.ZipFile) -> bytes:
    """The pickle of the archive that torch would read. Raises PickleError if that is not certain."""
    entries = records.infolist()
    # A compressed archive could unpack to far more than its size, and could not be mapped.
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        raise PickleError("a compressed or encrypted archive")
    if len(entries) > MAX_RECORDS:
        raise PickleError(f"an archive of {len(entries)} records")
    # torch finds records without regard to case, and takes the first of a name.
    names = {entry.filename.lower() for entry in entries}
    if len(names) != len(entries) or records.comment:
        raise PickleError("an archive with two records of one name, or with a comment")
    pickles = [entry for entry in entries if PurePosixPath(entry.filename.lower()).name == "data.pkl"]
    if len(pickles) != 1:
        raise PickleError(f"{len(pickles)} records data.pkl")
    if pickles[0].file_size > MAX_PICKLE_BYTES:
        raise PickleError(f"a pickle of {pickles[0].file_size} bytes")
    return records.read(pickles[0])


def plain_tensors(content: Any, what: str) -> dict[str, torch.Tensor]:
    """`content`, checked to be a mapping of names to dense tensors of at most 8 GiB in all.

    `what` names the file in errors. Raises ModelError that names the entry that is something else, or that claims more
    numbers than the file holds for it.
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
        # With strides of 0, a few bytes would stand for any number of them.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ModelError(f"{damaged}: {shown(name)}", got="more numbers than the file holds for it")
        total += tensor.numel() * 4
    if total > MAX_WEIGHTS_BYTES:
        raise ModelError(f"{what}: weights too large", got=f"{total} bytes", expected=f"{MAX_WEIGHTS_BYTES} at most")
    return content
