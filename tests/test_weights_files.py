"""Weights of strangers: every number and size is asked before it is believed, in every kind of file."""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import avsr
from avsr.cli.main import main
from avsr.errors import AvsrError, ModelError
from avsr.families.nemo import load_nemo
from avsr.families.own.auto_avsr_front_end import load_visual_trunk
from avsr.families.own.checkpoint import load_checkpoint, save_checkpoint
from avsr.families.own.visual_encoder import ResNetTrunk
from avsr.families.whisper.model_file import check_model_file, check_numbers
from avsr.nn import sizes
from avsr.untrusted.safetensors import MAX_HEADER_BYTES, read_safetensors
from avsr.untrusted.weights import enough_memory
from tests.media import installed_model
from tests.nemo_archive import saved, weights, write_archive
from tests.test_visual_encoder import auto_avsr_weights
from tests.tiny import tiny_network, tiny_tokenizer
from tests.whisper_files import network_file
from tests.whisper_files import tensor as stored

NAME = "audio_head.project.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "model", tiny_network(), tiny_tokenizer(), card="# tiny\n")


def change(folder: Path, name: str, tensor: torch.Tensor) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path) | {name: tensor}, path)


def filled(shape: torch.Size, value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Zeros with one other number, the last."""
    tensor = torch.zeros(shape, dtype=dtype)
    tensor.view(-1)[-1] = value
    return tensor


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_weight_that_is_not_finite_is_named(folder: Path, value: float, dtype: torch.dtype) -> None:
    change(folder, NAME, filled(torch.Size((7, 32)), value, dtype))
    with pytest.raises(ModelError, match=rf"model.safetensors: weight {NAME} is not finite; download the model again"):
        load_checkpoint(folder)


def test_numbers_that_only_float64_holds_are_not_finite(folder: Path) -> None:
    change(folder, NAME, filled(torch.Size((7, 32)), 1e300, torch.float64))
    with pytest.raises(ModelError, match=f"{NAME} is not finite"):
        load_checkpoint(folder)


def test_large_finite_numbers_are_finite(folder: Path) -> None:
    # Their sum is infinite, and they are not.
    change(folder, NAME, torch.full((7, 32), 3e38))
    assert load_checkpoint(folder)[0].audio_head.project.weight[0, 0] == 3e38


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.int8, torch.complex64, torch.float8_e4m3fn])
def test_other_numbers_than_floats_are_refused(folder: Path, dtype: torch.dtype) -> None:
    change(folder, NAME, torch.zeros(7, 32).to(dtype))
    with pytest.raises(ModelError, match="is of another kind: got torch.int64|dtype '(BOOL|I8|C64|F8_E4M3)' of"):
        load_checkpoint(folder)


def test_a_nemo_archive_is_asked_too(tmp_path: Path) -> None:
    def check(name: str, tensor: torch.Tensor, message: str) -> None:
        path = write_archive(
            tmp_path / "a.nemo", batch_norm, members={"./model_weights.ckpt": saved(state | {name: tensor})}
        )
        for action in (lambda: load_nemo(path), lambda: avsr.load(path)):
            with pytest.raises(ModelError, match=message):
                action()
        assert main(["import", str(path), "--output-dir", str(tmp_path / "made")]) == 1
        assert not (tmp_path / "made").exists()

    def batch_norm(content: dict[str, Any]) -> None:
        content["encoder"]["conv_norm_type"] = "batch_norm"

    norm = "encoder.layers.1.conv.batch_norm."
    state = weights() | {f"encoder.layers.{k}.conv.batch_norm.running_mean": torch.zeros(16) for k in (0, 1)}
    state |= {f"encoder.layers.{k}.conv.batch_norm.running_var": torch.ones(16) for k in (0, 1)}
    state |= {f"encoder.layers.{k}.conv.batch_norm.num_batches_tracked": torch.tensor(5) for k in (0, 1)}
    load_nemo(write_archive(tmp_path / "good.nemo", batch_norm, members={"./model_weights.ckpt": saved(state)}))
    head = "decoder.decoder_layers.0.weight"
    check(head, filled(state[head].shape, float("nan")), f"weight {head} is not finite")
    check(head, state[head].bool(), f"weight {head} is of another kind: got torch.bool")
    check(head, state[head] + 0j, "ComplexFloatStorage")
    check(f"{norm}running_var", -torch.ones(16), f"weight {norm}running_var is negative")
    check(f"{norm}running_mean", torch.full((16,), float("inf")), f"weight {norm}running_mean is not finite")
    check(f"{norm}num_batches_tracked", torch.tensor(0.5), "num_batches_tracked is of another kind")


def test_import_writes_no_checkpoint_of_a_model_that_does_not_react(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in (0.0, 6e4, 1e30):
        state = {name: torch.full_like(tensor, value) for name, tensor in weights().items()}
        path = write_archive(tmp_path / "a.nemo", members={"./model_weights.ckpt": saved(state)})
        assert main(["import", str(path), "--output-dir", str(tmp_path / "made")]) == 1
        assert "model a " in capsys.readouterr().err and not (tmp_path / "made").exists()


def test_a_front_end_is_asked_too(tmp_path: Path) -> None:
    trunk, path = ResNetTrunk(5), tmp_path / "vsr.pth"
    name = "trunk.layer3.1.bn2.running_var"
    torch.save(auto_avsr_weights("") | {name: -torch.ones(256)}, path)
    with pytest.raises(ModelError, match=f"weight {name} is negative"):
        load_visual_trunk(trunk, path)
    torch.save(auto_avsr_weights("") | {name: torch.full((256,), float("inf"))}, path)
    with pytest.raises(ModelError, match=f"weight {name} is not finite"):
        load_visual_trunk(trunk, path)


@pytest.mark.parametrize(
    ("kind", "form", "last", "is_good"),
    [
        (0, "<I", 0x7F7FFFFF, True),  # the largest float32
        (0, "<I", 0xFF7FFFFF, True),
        (0, "<I", 0x7F800000, False),  # infinity
        (0, "<I", 0xFFC00000, False),  # a NaN with a sign
        (4, "<H", 0x7BFF, True),  # the largest float16
        (4, "<H", 0x7C00, False),
        (4, "<H", 0xFE00, False),
        (5, "<H", 0x7C00, True),  # an ordinary bfloat16
        (5, "<H", 0xFF80, False),
        (1, "<B", 0xFF, True),  # whole numbers
        (2, "<H", 0xFFFF, True),
    ],
)
def test_whisper_weights_are_asked_by_their_bits(
    tmp_path: Path, kind: int, form: str, last: int, is_good: bool
) -> None:
    numbers = bytes(2 * struct.calcsize(form)) + struct.pack(form, last)
    data = network_file(more=[stored("extra", (3,), numbers, kind=kind)])
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    if is_good:
        return check_numbers(path, check_model_file(path)[0])
    with pytest.raises(ModelError, match="not finite in the tensor 'extra'"):
        check_numbers(path, check_model_file(path)[0])


@pytest.mark.slow
def test_a_published_whisper_model_with_one_nan_is_refused(tmp_path: Path) -> None:
    source = installed_model("whisper-tiny.en")
    for file in source.iterdir():
        if file.name != "model.bin":
            (tmp_path / file.name).symlink_to(file)
    data = bytearray((source / "model.bin").read_bytes())
    check_numbers(source / "model.bin", check_model_file(source / "model.bin")[0])
    middle = len(data) // 2 & ~1
    data[middle : middle + 8] = b"\xff" * 8  # NaN in float16, bfloat16 and float32
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(ModelError, match="not finite in the tensor"):
        avsr.load(tmp_path)


def test_no_checkpoint_with_a_nan_is_written(tmp_path: Path) -> None:
    network = tiny_network()
    network.state_dict()[NAME][0, 0] = float("nan")
    with pytest.raises(ModelError, match=f"weight {NAME} is not finite; nothing is written"):
        save_checkpoint(tmp_path / "model", network, tiny_tokenizer(), card="")
    assert list(tmp_path.iterdir()) == []


# -- sizes ------------------------------------------------------------------------------------------------------------


def set_key(folder: Path, key: str, value: object) -> None:
    content = yaml.safe_load((folder / "config.yaml").read_text())
    node = content["model"]
    *parents, last = key.split(".")
    for parent in parents:
        node = node[parent]
    node[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(content))


AUDIO, VISUAL = "audio_encoder.conformer.", "visual_encoder.conformer."


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((f"{side}{name}", 20_001) for side in (AUDIO, VISUAL) for name in ("layers", "heads", "expansion", "kernel")),
        *((f"{AUDIO}layers", value) for value in (sizes.MAX_LAYERS + 1, 10**100)),
        (f"{AUDIO}width", 1 << 30),
        (f"{AUDIO}dropout", float("nan")),
        *((f"fusion.{name}", 20_000) for name in ("layers", "heads", "expansion")),
        ("fusion.dropout", float("nan")),
        ("audio_encoder.subsampling_channels", 1 << 40),
        ("visual_encoder.stem_slots", 20_000),
        ("visual_encoder.channels", [8, 8, 8, 10**9]),
        *(
            (f"visual_encoder.{name}", value)
            for name in ("mean", "std")
            for value in (float("nan"), float("inf"), 1e30)
        ),
        *((f"mel.{name}", value) for name in ("mean", "std") for value in (float("nan"), -float("inf"), 1e30, 10**400)),
        ("mel.std", 1e-30),
        ("mel.n_mels", 100_000),
        ("vocabulary_size", 10**12),
        *((f"audio_encoder.attention.{side}", 10**9) for side in ("left", "right")),
        *((f"visual_encoder.attention.{side}", 10**9) for side in ("left", "right")),
        *((f"fusion.{part}.{side}", 10**9) for part in ("attention", "lips") for side in ("left", "right")),
        ("audio_encoder.attention_choices", [{"style": "chunked", "left": 10**9, "right": 10**9 - 1}]),
        ("audio_encoder.attention_choices", [{}] * 200),
        ("audio_encoder.attention", {"style": "local", "left": 5, "right": 5, "global_tokens": 10**9}),
        ("audio_encoder.attention", {"style": "local", "left": 5, "right": 5, "global_spacing": 10**12}),
    ],
)
def test_a_size_beyond_its_limit_is_refused_before_anything_is_built(folder: Path, key: str, value: object) -> None:
    set_key(folder, key, value)
    started = time.process_time()
    with pytest.raises(AvsrError, match="config.yaml") as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((f"{side}layers", sizes.MAX_LAYERS) for side in (AUDIO, VISUAL)),
        *((f"{side}expansion", sizes.MAX_EXPANSION) for side in (AUDIO, VISUAL)),
        (f"{AUDIO}kernel", 999),
        (f"{AUDIO}conv_norm", "batch"),
        (f"{AUDIO}global_projections", True),
        ("fusion.layers", sizes.MAX_LAYERS),
        ("audio_encoder.subsampling_channels", sizes.MAX_WIDTH),
        ("audio_encoder.subsampling_kind", "plain"),
        ("visual_encoder.channels", [8, 8, 8, 8192]),
        ("visual_encoder.stem_slots", sizes.MAX_STEM_SLOTS),
        ("mel.n_mels", 256),
    ],
)
def test_sizes_within_the_limits_are_compared_with_the_file_without_memory(
    folder: Path, key: str, value: object
) -> None:
    set_key(folder, key, value)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=r"model.safetensors: (weight .* (is missing|has another shape)|unknown)"):
        load_checkpoint(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_the_largest_published_models_are_within_the_limits(tmp_path: Path) -> None:
    # 42 layers of 1024, 1024 units: more than any FastConformer. Contexts of 256 frames of 40 ms.
    def large(content: dict[str, Any]) -> None:
        content["encoder"].update(n_layers=42, d_model=1024, n_heads=8, conv_kernel_size=31, conv_context_size=None)
        content["encoder"].update(
            subsampling_conv_channels=256, self_attention_model="rel_pos_local_attn", att_context_style="regular",
            att_context_size=[512, 512], global_tokens=1, subsampling_factor=4,
        )  # fmt: skip
        content["decoder"]["feat_in"] = 1024

    with pytest.raises(ModelError, match="weight encoder.* (is missing|has another shape)"):  # the settings pass
        load_nemo(write_archive(tmp_path / "large.nemo", large))


def test_memory_that_does_not_suffice_is_named(folder: Path) -> None:
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")):
        with pytest.raises(ModelError, match="model: the memory does not suffice"), enough_memory("model"):
            raise error
    with pytest.raises(RuntimeError, match="else"), enough_memory("model"):
        raise RuntimeError("something else")


def test_a_model_that_does_not_fit_into_the_memory_is_named(tmp_path: Path) -> None:
    # A sparse file: 3 GB of weights that take no place on the disk.
    code = (
        "import resource, sys, torch\n"
        "from avsr.untrusted.safetensors import read_safetensors\n"
        "from avsr.untrusted.weights import enough_memory\n"
        "from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "try:\n"
        "    with enough_memory('big'): read_safetensors(Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    path = tmp_path / "big.safetensors"
    header = json.dumps({"x": {"dtype": "F32", "shape": [750_000_000], "data_offsets": [0, 3_000_000_000]}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 3_000_000_000)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("ModelError big: the memory does not suffice"), done.stderr


# -- the header of a safetensors file ---------------------------------------------------------------------------------


def write_file(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    tensors = {
        "half": torch.randn(3, 2).half(),
        "brain": torch.randn(4).bfloat16(),
        "scalar": torch.tensor(7),
        "none": torch.zeros(0, 3),
        "double": torch.randn(2, 1, 2).double(),
    }
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    found = read_safetensors(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"", b"", "a header of 0 bytes"),
        (b"{}" + b" " * MAX_HEADER_BYTES, b"", "a header of 4194306 bytes"),
        (b"[1, 2]", b"", "no mapping"),
        (b"{" * 100_000, b"", "no JSON"),
        (b"[" * 100_000, b"", "no JSON"),
        (b'{"x": ' + b"9" * 10_000 + b"}", b"", "no JSON"),
        (b'{"x": 1, "x": 2}', b"", "the key 'x' twice"),
        (b"\xff\xfe\x00", b"", "no JSON"),
        ({"x": 1}, b"", "no dtype, shape and data_offsets for 'x'"),
        ({"x": entry([1], 0, 4) | {"more": 1}}, bytes(4), "no dtype, shape and data_offsets"),
        ({"x": entry([1], 0, 8, "C64")}, bytes(8), "dtype 'C64' of 'x'"),
        ({"x": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, bytes(4), r"dtype \['F32'\]"),
        ({"x": entry([-1, -1], 0, 4)}, bytes(4), "shape"),
        ({"x": entry([True], 0, 4)}, bytes(4), "shape"),
        ({"x": entry([1 << 40, 1 << 40], 0, 4)}, bytes(4), "shape"),
        ({"x": entry([1] * 100, 0, 4)}, bytes(4), "shape"),
        ({"x": entry([1], 0, 8)}, bytes(8), r"'x' of shape \[1\] in 8 bytes"),
        ({"x": entry([1], 4, 0)}, bytes(4), "in -4 bytes"),
        ({"x": entry([1], 4, 8)}, bytes(8), "'x' at byte 4 of the data, where 0 is the next free one"),
        ({"x": entry([2], 0, 8), "y": entry([2], 4, 12)}, bytes(12), "'y' at byte 4 of the data, where 8"),
        ({"x": entry([1], 0, 4)}, bytes(8), "8 bytes of data, where the header describes 4"),
        ({"x": entry([1 << 20], 0, 4 << 20)}, bytes(8), "8 bytes of data, where the header describes 4194304"),
    ],
)
def test_a_wrong_header_is_refused_by_its_fault(tmp_path: Path, header: object, data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=f"weights cannot be read: got .*{message}"):
        read_safetensors(write_file(tmp_path / "x.safetensors", header, data))


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 1 << 40, 100])
def test_a_length_beyond_the_file_takes_no_memory(tmp_path: Path, length: int) -> None:
    with pytest.raises(ModelError, match="a header of"):
        read_safetensors(write_file(tmp_path / "x.safetensors", {}, length=length))


def test_the_header_is_asked_before_any_data_is_read(tmp_path: Path) -> None:
    path = write_file(tmp_path / "x.safetensors", {"x": entry([4], 0, 16)}, bytes(16))

    def refuse(header: object) -> None:
        raise ModelError("refused")

    check: Callable[[Any], None] = refuse
    with pytest.raises(ModelError, match="refused"):
        read_safetensors(path, check)
