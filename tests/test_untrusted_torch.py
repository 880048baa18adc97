"""Files of `torch.save` from strangers: what torch writes is read, and everything else is refused soon, in one line."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from avsr.errors import ModelError
from avsr.untrusted import pickles, torch_file
from avsr.untrusted.pickles import PickleError, read_pickle
from avsr.untrusted.torch_file import plain_tensors, read_torch_file


def archive(path: Path, content: bytes, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as records:
        records.writestr("archive/data.pkl", content)
        for name, data in ({"version": b"3\n"} | more).items():
            records.writestr(f"archive/{name}", data)
    return path


def no_tensor(*arguments: Any) -> Any:
    raise AssertionError("no tensor is asked for")


class Reduced:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def number(value: int) -> bytes:
    return b"\x8a\x0b" + value.to_bytes(11, "little")


TWICE = b"]q\x00" + b"](h\x00h\x00eq\x00" * 60
"""A list of twice a list of twice a list, and so on: its full text would have 2 ** 60 parts."""
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
MAKE = b"ctorch._utils\n_rebuild_tensor_v2\n"

HOSTILE_PICKLES = {
    "8 GB of zeros": pickle.dumps({"a": Reduced(bytearray, 8 << 30)}, 2),
    "8 GB of zeros, newer": pickle.dumps({"a": Reduced(bytearray, 8 << 30)}, 4),
    "a command": b'cos\nsystem\n(S"touch owned"\ntR.',
    "an instance": b"(ios\nsystem\n.",
    "getattr": pickle.dumps(Reduced(getattr, "a", "upper"), 2),
    "bytes": pickle.dumps(Reduced(bytes, 1 << 33), 2),
    "lists in lists": b"\x80\x02" + b"]" * 3_000_000 + b".",
    "a text of 4 GB": b"\x80\x02X" + struct.pack("<I", 0xFFFFFFFF) + b"x.",
    "a number of 1 GB": b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"x.",
    "no end": b"\x80\x02" + b"0" * 100,
    "nothing": b"",
    "a name without end": b"\x80\x02ccollections",
    "a name that is none": b"\x80\x02c\xff\xff\n\xff\n.",
    # The first two ended the process or took for ever in torch, though nothing of them was run.
    "a key of tuples in tuples": b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
    "a key of twice a tuple of twice a tuple": b"\x80\x02})q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"Ns.",
    "keys of one hash": b"\x80\x02}(" + b"".join(number(n * (2**61 - 1)) + b"N" for n in range(20_000)) + b"u.",
    "a call of lists": b"\x80\x02" + TWICE + b")R.",
    "a reference of lists": b"\x80\x02" + TWICE + b"0(h\x00NNNNtQ.",
    "attributes of a number": b"\x80\x02K\x01}b.",
    "more values than there are": b"\x80\x02.",
    "values from below a mark": b"\x80\x02](a.",
    "an end without a beginning": b"\x80\x02]e.",
    "a value that was not kept": b"\x80\x02h\x05.",
    "a list as a dict": b"\x80\x02](K\x01K\x02u.",
    "a key without a value": b"\x80\x02}(K\x01u.",
    "a text that is no UTF-8": b"\x80\x02X\x01\x00\x00\x00\xff.",
    "a storage of fewer than no numbers": b"\x80\x02" + STORAGE.replace(b"K\x04", b"J\xff\xff\xff\xff") + b".",
    "a tensor of a list": b"\x80\x02" + MAKE + b"(]K\x00))\x89}tR.",
    "an offset before the beginning": b"\x80\x02" + MAKE + b"(" + STORAGE + b"J\xff\xff\xff\xff))\x89}tR.",
    "a negative size": b"\x80\x02" + MAKE + b"(" + STORAGE + b"K\x00J\xff\xff\xff\xff\x85K\x01\x85\x89}tR.",
    "sizes without strides": b"\x80\x02" + MAKE + b"(" + STORAGE + b"K\x00K\x04\x85)\x89}tR.",
    "a negated tensor": b"\x80\x02" + MAKE + b"(" + STORAGE + b"K\x00))\x89}}X\x03\x00\x00\x00neg\x88stR.",
}


@pytest.mark.parametrize("data", HOSTILE_PICKLES.values(), ids=HOSTILE_PICKLES)
def test_hostile_pickles(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(PickleError):
        read_pickle(data, no_tensor)
    with pytest.raises(ModelError, match="weights cannot be read: got") as caught:
        read_torch_file(archive(tmp_path / "x.pth", data), "weights")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_pickle_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_PICKLE_BYTES", 10)
    with pytest.raises(PickleError, match="a pickle of 11 bytes"):
        read_pickle(b"\x80\x02" + b"]" * 8 + b".", no_tensor)
    monkeypatch.setattr(pickles, "MAX_OPCODES", 5)
    with pytest.raises(PickleError, match="more than 5 opcodes"):
        read_pickle(b"\x80\x02]]]]]]].", no_tensor)
    monkeypatch.setattr(pickles, "MAX_PICKLE_BYTES", 1000)
    monkeypatch.setattr(pickles, "MAX_OPCODES", 1000)
    monkeypatch.setattr(pickles, "MAX_TENSORS", 3)
    tensor = MAKE + b"(" + STORAGE + b"K\x00))\x89}tR"
    assert read_pickle(b"\x80\x02" + tensor * 3 + b".", lambda *arguments: arguments[0].numbers) == 4
    with pytest.raises(PickleError, match="more than 3 tensors"):
        read_pickle(b"\x80\x02" + tensor * 4 + b".", lambda *arguments: None)


def contents() -> dict[str, Any]:
    kinds = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    tensors = OrderedDict((f"layer.{index}", torch.ones(3, 2, dtype=kind)) for index, kind in enumerate(kinds))
    for kind in (torch.int8, torch.uint8, torch.bool):
        tensors[str(kind)] = torch.tensor([0, 1, 1]).to(kind)
    tensors["weight"] = torch.nn.Parameter(torch.zeros(4))
    tensors["turned"] = torch.arange(6.0).reshape(2, 3).T
    tensors["part"] = torch.arange(24.0).reshape(4, 6)[1:3, 2:]
    tensors["number"], tensors["empty"] = torch.tensor(3.5), torch.zeros(0, 4)
    tensors["both"] = tensors["turned"]
    # A state_dict has versions of its modules as an attribute; this one has thousands of values to keep in mind.
    layers = torch.nn.Sequential(*(torch.nn.BatchNorm1d(3) for _ in range(100)))
    return {"tensors": tensors, "a plain dict": dict(tensors), "a network": layers.state_dict()}


@pytest.mark.parametrize("kind", contents())
def test_what_torch_saves_is_read_as_torch_reads_it(kind: str, tmp_path: Path) -> None:
    content = contents()[kind]
    torch.save(content, tmp_path / "x.pth")
    read = plain_tensors(read_torch_file(tmp_path / "x.pth", "weights"), "weights")
    expected = torch.load(tmp_path / "x.pth", weights_only=True)
    assert list(read) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(read[name], tensor)
        assert read[name].dtype == tensor.dtype
        assert read[name].stride() == tensor.stride() or not tensor.numel()


def test_a_checkpoint_of_a_training(tmp_path: Path) -> None:
    """Weights, and the state of an optimizer whose keys are numbers, beside plain values of all kinds."""
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {
        "state_dict": network.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "epoch": 75,
        "global_step": 1 << 40,
        "loss": [0.5, None, True, ("a", -1)],
        "shape": torch.Size([1, 2]),
    }
    torch.save(content, tmp_path / "x.ckpt")
    read = read_torch_file(tmp_path / "x.ckpt", "weights")
    assert torch.equal(read["state_dict"]["weight"], network.weight)
    assert torch.equal(
        read["optimizer_states"][0]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"]
    )
    plain = ("epoch", "global_step", "loss", "shape")
    assert [read[key] for key in plain] == [75, 1 << 40, [0.5, None, True, ("a", -1)], (1, 2)]


def test_writing_into_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4)}, tmp_path / "x.pth")
    before = (tmp_path / "x.pth").read_bytes()
    read_torch_file(tmp_path / "x.pth", "weights")["a"].fill_(1)
    assert (tmp_path / "x.pth").read_bytes() == before


def test_the_older_form_of_torch_save_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match="File is not a zip file.*expected weights in the zip file"):
        read_torch_file(tmp_path / "x.pth", "weights")


EMPTY = pickle.dumps({}, 2)
TENSOR = b"\x80\x02}X\x01\x00\x00\x00a" + MAKE + b"(" + STORAGE + b"K\x00K\x04\x85K\x01\x85\x89}tRs."


def test_records_that_are_not_as_torch_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"

    def check(message: str) -> None:
        with pytest.raises(ModelError, match=message):
            read_torch_file(path, "weights")

    archive(path, EMPTY, **{"inside/data.pkl": EMPTY})
    check("2 records data.pkl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive(path, EMPTY, **{"version": b"3"})
        with zipfile.ZipFile(path, "a") as records:
            records.writestr("archive/data.pkl", TENSOR)
    check("two records of one name")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as records:
        records.writestr("archive/data.pkl", EMPTY + bytes(100_000))
    check("a compressed or encrypted archive")
    archive(path, TENSOR)
    check("no record 'archive/data/0'")
    archive(path, TENSOR, **{"data/0": bytes(12)})
    check("a record of 12 bytes for 4 numbers")
    archive(path, TENSOR.replace(b"K\x04\x85", b"K\x05\x85"), **{"data/0": bytes(16)})
    check(r"a tensor of shape \(5,\) in 4 numbers")
    archive(path, TENSOR.replace(b"K\x00K", b"K\x01K"), **{"data/0": bytes(16)})
    check(r"a tensor of shape \(4,\) in 4 numbers")
    archive(path, TENSOR, byteorder=b"big", **{"data/0": bytes(16)})
    check("another byte order")
    path.write_bytes(archive(path, EMPTY).read_bytes().replace(EMPTY, EMPTY[:-1] + b"N", 1))
    check("a damaged record 'archive/data.pkl'")
    path.write_bytes(b"")
    check("not a zip file")


def test_a_record_that_claims_more_than_the_file_has(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pth", TENSOR, **{"data/0": bytes(16)})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"archive/data/0") - 46
    struct.pack_into("<II", data, entry + 20, 1 << 31, 1 << 31)
    path.write_bytes(data)
    with pytest.raises(ModelError, match="a record 'archive/data/0' that is cut off"):
        read_torch_file(path, "weights")
    # A record may begin anywhere: here it begins in the middle of another.
    struct.pack_into("<II", data, entry + 20, 16, 16)
    struct.pack_into("<I", data, entry + 42, 3)
    path.write_bytes(data)
    with pytest.raises(ModelError, match="a record 'archive/data/0' that is cut off"):
        read_torch_file(path, "weights")


def test_a_directory_that_claims_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pth"
    monkeypatch.setattr(torch_file, "MAX_DIRECTORY_BYTES", 1 << 20)
    with path.open("wb") as file:
        file.truncate(2 << 20)
        file.seek(0, io.SEEK_END)
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 2 << 20, 0, 0))
    with pytest.raises(ModelError, match="a directory of 2097152 bytes"):
        read_torch_file(path, "weights")
    monkeypatch.setattr(torch_file, "MAX_RECORDS", 2)
    with pytest.raises(ModelError, match="an archive of 3 records"):
        read_torch_file(archive(path, EMPTY, more=b""), "weights")


def test_tensors_that_repeat_their_numbers(tmp_path: Path) -> None:
    for tensor in (torch.zeros(1).expand(1 << 20), torch.zeros(4).as_strided((1000, 1000), (0, 0))):
        torch.save({"a": tensor}, tmp_path / "x.pth")
        with pytest.raises(ModelError, match="more numbers than the file holds for it"):
            plain_tensors(read_torch_file(tmp_path / "x.pth", "weights"), "weights")


def test_values_that_share_each_other(tmp_path: Path) -> None:
    doubled: list[object] = [1]
    for _ in range(100):
        doubled = [doubled, doubled]
    itself: list[object] = []
    itself.append(itself)
    deep: object = 1
    for _ in range(200):
        deep = [deep]
    for content in (doubled, itself, deep):
        torch.save({"a": content}, tmp_path / "x.ckpt")
        with pytest.raises(ModelError, match="in a pickle"):
            read_torch_file(tmp_path / "x.ckpt", "state")
    shared = {"betas": (0.9, 0.98)}
    torch.save({"a": [shared, shared]}, tmp_path / "x.ckpt")
    assert read_torch_file(tmp_path / "x.ckpt", "state")["a"] == [shared, shared]


def test_tensors_that_share_their_numbers(tmp_path: Path) -> None:
    numbers = torch.zeros(1000)
    path = tmp_path / "x.ckpt"
    torch.save({f"{index}": numbers[:] for index in range(500)}, path)
    with pytest.raises(ModelError, match="many times the bytes of the file"):
        read_torch_file(path, "state")
    torch.save({f"{index}": numbers for index in range(500)}, path)  # one tensor by many names
    with pytest.raises(ModelError, match="one tensor under very many names"):
        plain_tensors(read_torch_file(path, "state"), "state")
    torch.save({"tied": numbers, "weights": numbers}, path)
    assert plain_tensors(read_torch_file(path, "state"), "state").keys() == {"tied", "weights"}
