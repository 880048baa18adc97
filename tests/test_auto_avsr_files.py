"""Files of published lip readers: every form in which they come, and one line for each that is wrong."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import avsr
from avsr.errors import AvsrError, ModelError
from avsr.families.auto_avsr.family import owns
from avsr.families.auto_avsr.weights import open_weights
from tests.published_models import TINY_UNITS, tiny_config, tiny_folder, tiny_weights, write_units

Weights = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "lips")


def in_v1(weights: Weights) -> Weights:
    """The same weights in the other layout."""
    return {
        name.replace("proj_encoder.", "encoder.embed.0.").replace("frontend.", "encoder.frontend.", 1)
        if name.startswith(("proj_encoder.", "frontend."))
        else name: tensor
        for name, tensor in weights.items()
    }


@torch.inference_mode()
def output(target: Path) -> Tensor:
    video = torch.randn(9, 88, 88, generator=torch.Generator().manual_seed(1))
    network = open_weights(target).network
    return network.ctc_log_probs(network.sides.join(network.sides.lips(video), None), "v")


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: {"state_dict": {f"model.{name}": tensor for name, tensor in weights.items()}, "epoch": 3},
        lambda weights: {f"_orig_mod.{name}": tensor for name, tensor in weights.items()},
        lambda weights: {f"module.model.{name}": tensor for name, tensor in weights.items()},
        lambda weights: {name: t for name, t in weights.items() if not name.endswith("num_batches_tracked")},
        in_v1,
    ],
)
def test_every_form_gives_the_same_numbers(folder: Path, change: Callable[[Weights], Any], tmp_path: Path) -> None:
    expected = output(folder)
    torch.save(change(tiny_weights(tiny_config())), folder / "model.pth")
    torch.testing.assert_close(output(folder), expected)
    (folder / "model.pth").rename(folder / "vsr_mine.pth")
    torch.testing.assert_close(output(folder), expected)  # the only file of weights in a folder, whatever its name
    torch.testing.assert_close(output(folder / "vsr_mine.pth"), expected)
    assert owns(str(folder / "vsr_mine.pth")) and not owns(str(tmp_path)) and not owns("no/such/place")


def test_safetensors_and_settings_with_a_list_of_letters(folder: Path) -> None:
    expected = output(folder)
    save_file(tiny_weights(tiny_config()), folder / "model.safetensors")
    (folder / "model.pth").unlink()
    (folder / "unigram5000_units.txt").unlink()
    settings = {"char_list": TINY_UNITS, "adim": 8, "rel_pos_type": "latest", "relu_type": "swish"}
    (folder / "model.json").write_text(json.dumps([512, 6, settings]))
    opened = open_weights(folder)
    assert opened.units.units == tuple(TINY_UNITS) and opened.network.config.code == "vsr_ml"
    torch.testing.assert_close(output(folder), expected)


def test_weights_of_other_kinds_of_models_are_left_to_others(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    save_file({"encoder.layers.0.conv.weight": torch.ones(2)}, other / "model.safetensors")
    assert not owns(str(other))
    save_file({f"model.{name}": t for name, t in tiny_weights(tiny_config()).items()}, other / "model.safetensors")
    assert owns(str(other))
    (other / "config.yaml").write_text("format: 1\n")
    assert not owns(str(other)) and not owns(str(other / "model.safetensors"))


def test_settings_without_a_kind_of_positions_mean_the_old_one(folder: Path) -> None:
    expected = output(folder)
    (folder / "model.json").write_text(json.dumps({"labels_type": "unigram5000"}))
    assert open_weights(folder).network.config.lips.positions == "legacy"  # type: ignore[union-attr]
    assert not torch.allclose(output(folder), expected)


def refused(target: Path, message: str) -> None:
    """The model is refused by one line."""
    with pytest.raises(ModelError, match=message) as caught:
        avsr.load(target)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("run-by-a-pickle",)


def test_hostile_files_get_one_line_each(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    path, good = folder / "model.pth", (folder / "model.pth").read_bytes()
    torch.save({**tiny_weights(tiny_config()), "hook": Code()}, path)
    refused(folder, "model.pth cannot be read: got .*mkdir")
    assert not (tmp_path / "run-by-a-pickle").exists()
    path.write_bytes(good[: len(good) // 2])
    refused(folder, "model.pth cannot be read.*download the model again")
    torch.save({**tiny_weights(tiny_config()), "ctc.ctc_lo.bias": torch.zeros(1).expand(2_500_000_000)}, path)
    refused(folder, "more numbers than the file holds")  # 10 GB of zeros, claimed in a few bytes
    path.write_bytes(good)
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
        packed.writestr("archive/data/99", bytes(50 << 20))
    (tmp_path / "bomb").rename(path)
    refused(folder, "a compressed or encrypted archive")
    header = json.dumps({"ctc.ctc_lo.bias": {"dtype": "F32", "shape": [2_500_000_000], "data_offsets": [0, 10**10]}})
    path.unlink()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    refused(folder, "model.safetensors: weights cannot be read")


def test_wrong_weights_are_named(folder: Path) -> None:
    def check(message: str, **changes: Tensor | None) -> None:
        weights = {**tiny_weights(tiny_config()), **changes}
        torch.save({name: tensor for name, tensor in weights.items() if tensor is not None}, folder / "model.pth")
        refused(folder, message)

    nan = torch.full((6,), float("nan"))
    check(r"\(auto_avsr\): weight ctc.ctc_lo.bias is not finite", **{"ctc.ctc_lo.bias": nan})
    name = "decoder.decoders.0.src_attn.linear_k.weight"
    check(rf"\(auto_avsr\): weight {name} is missing", **{name: None})
    check("weight ctc.ctc_lo.weight is missing: got a file that looks like auto_avsr", **{"ctc.ctc_lo.weight": None})
    name = "encoder.encoders.1.norm_mha.weight"
    check(rf"weight {name} has another shape: got \(9,\), expected \(8,\)", **{name: torch.ones(9)})
    check("weight 'decoder.lstm.weight' is not supported", **{"decoder.lstm.weight": torch.ones(3)})
    check("weight frontend.trunk.conv1.weight is missing", **{"frontend.frontend3D.0.weight": None})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("encoder.pre_encode.out.weight", "a NeMo model"),
        ("decoder.embed.0.weight", "an auto_avsr model whose first weights are missing"),
        ("frontend3D.0.weight", "a front end alone"),
        ("encoder.embed.1.weight", "a language model"),
        ("something.else", "none of these"),
    ],
)
def test_another_layout_is_told(folder: Path, name: str, kind: str) -> None:
    torch.save({name: torch.ones(2, 2)}, folder / "model.pth")
    refused(
        folder, f"weight proj_encoder.weight or encoder.embed.0.weight is missing: got a file that looks like {kind}"
    )


def test_a_wrong_list_of_units_is_refused(folder: Path) -> None:
    path = folder / "unigram5000_units.txt"
    write_units(path, TINY_UNITS[:3] + TINY_UNITS[4:])
    refused(folder, "not the units of this model: got 5 with blank and end, expected 6")
    path.write_text("<unk> 1\nA 3\n")
    refused(folder, "unigram5000_units.txt:2: no unit: got 'A 3', expected a piece of text and 2")
    write_units(path, [*TINY_UNITS[:3], "<unk>", *TINY_UNITS[4:]])
    refused(folder, "a unit is there twice")
    path.write_bytes(b"\xff\xfe 1\n")
    refused(folder, "the list of units cannot be read")
    path.unlink()
    refused(folder, r"the list of its 6 units is missing: expected a file \*_units.txt beside the weights")


def test_settings_that_change_results_are_refused(folder: Path) -> None:
    for settings, message in (
        ({"adim": 16}, "setting adim: got 16, expected 8, as the weights"),
        ({"zero_triu": True}, "setting zero_triu is not supported: got True, expected False"),
        ({"transformer_input_layer": "conv2d"}, "setting transformer_input_layer is not supported: got 'conv2d'"),
        ({"dheads": 3}, "an even multiple of the 3 heads"),
        ({"dheads": 10**30}, "wrong size"),
        ({"dheads": "2"}, "expected a whole number from 1 on"),
    ):
        (folder / "model.json").write_text(json.dumps({"rel_pos_type": "latest", **settings}))
        refused(folder, message)
    (folder / "model.json").write_text("[1, 2, 3]")
    refused(folder, "not the settings of a model")
    (folder / "model.json").write_text("{")
    refused(folder, "model.json: not JSON")


def test_a_language_model_for_other_units_is_refused(folder: Path) -> None:
    from avsr.families.auto_avsr.config import LanguageModelShape
    from avsr.families.auto_avsr.language_model import LanguageModel
    from avsr.families.auto_avsr.layouts import language_model_source

    def write(vocabulary: int) -> None:
        shape = LanguageModelShape(
            width=8, heads=2, hidden=16, layers=1, vocabulary=vocabulary, embedding=4, sinusoidal=False
        )
        weights = LanguageModel(shape).state_dict()
        torch.save({language_model_source(name): t for name, t in weights.items()}, folder / "lm" / "model.pth")

    (folder / "lm").mkdir()
    refused(folder, "lm: no language model: expected model.pth and model.json")
    sizes = {"layer": 1, "unit": 16, "att_unit": 8, "embed_unit": 4, "head": 2, "pos_enc": "none"}
    (folder / "lm" / "model.json").write_text(json.dumps(sizes))
    write(7)
    refused(folder, "a language model for other units: got 7 units, expected 6")
    write(6)
    assert open_weights(folder).language_model is not None
    (folder / "lm" / "model.json").write_text(json.dumps({**sizes, "pos_enc": "learned"}))
    refused(folder, "setting pos_enc is not supported: got 'learned'")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q\x00.", b"weights"])
def test_other_files_named_pth_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vsr.pth"
    path.write_bytes(content)
    with pytest.raises(AvsrError, match="vsr.pth cannot be read"):
        avsr.load(path)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="this system does not list mapped files")
def test_no_file_stays_mapped(folder: Path) -> None:
    opened = open_weights(folder)
    # One tensor that is still a part of the file would keep all its 1 GB in memory.
    assert str(folder) not in Path("/proc/self/maps").read_text()
    assert opened.network.config.vocabulary == 6
