"""Both trunks: equal to an independent construction, streams with look-ahead, and weights from strangers."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from avsr.errors import ModelError
from avsr.families.own.auto_avsr_front_end import load_visual_trunk
from avsr.families.own.config import VisualEncoderConfig
from avsr.families.own.network import Network
from avsr.families.own.visual_encoder import ResNetTrunk, VisualEncoder
from avsr.nn.conformer_shape import ConformerShape
from avsr.nn.context import AttentionContext
from tests.tiny import random_lips, random_mel, tiny_config

CPU = torch.device("cpu")
CAUSAL = ConformerShape(width=16, layers=1, heads=2, kernel=3, conv_context="causal", dropout=0.0)
TRUNKS: dict[str, VisualEncoderConfig] = {
    "light": VisualEncoderConfig(conformer=CAUSAL, channels=(8, 8, 8, 8), attention=AttentionContext(left=8, right=0)),
    "resnet18": VisualEncoderConfig(
        conformer=CAUSAL, trunk="resnet18", normalize="fixed", attention=AttentionContext(left=8, right=0)
    ),
}


def build(trunk: str, **changes: object) -> VisualEncoder:
    """An encoder in evaluation mode. No weight or running mean is zero, so every one of them matters."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        encoder = VisualEncoder(dataclasses.replace(TRUNKS[trunk], **changes))  # type: ignore[arg-type]
        for name, tensor in encoder.trunk.state_dict().items():
            if name.endswith(("running_mean", "bias")):
                tensor.normal_(std=0.2)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
    return encoder.eval()


@functools.cache
def random_weights(prefix: str) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(11)
    weights: dict[str, Tensor] = {}

    def convolution(name: str, *shape: int) -> None:
        weights[f"{name}.weight"] = torch.randn(shape, generator=random) * math.sqrt(2 / math.prod(shape[1:]))

    def norm(name: str, channels: int) -> None:
        weights[f"{name}.weight"] = 1 + 0.2 * torch.randn(channels, generator=random)
        weights[f"{name}.bias"] = 0.2 * torch.randn(channels, generator=random)
        weights[f"{name}.running_mean"] = 0.2 * torch.randn(channels, generator=random)
        weights[f"{name}.running_var"] = 0.5 + torch.rand(channels, generator=random)
        weights[f"{name}.num_batches_tracked"] = torch.tensor(1234)

    before = 64
    for layer, channels in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            name = f"{prefix}trunk.layer{layer}.{block}"
            convolution(f"{name}.conv1", channels, before, 3, 3)
            norm(f"{name}.bn1", channels)
            convolution(f"{name}.conv2", channels, channels, 3, 3)
            norm(f"{name}.bn2", channels)
            if layer > 1 and block == 0:
                convolution(f"{name}.downsample.0", channels, before, 1, 1)
                norm(f"{name}.downsample.1", channels)
            before = channels
    convolution(f"{prefix}frontend3D.0", 64, 1, 5, 7, 7)
    norm(f"{prefix}frontend3D.1", 64)
    weights["encoder.encoders.0.self_attn.linear_q.weight"] = torch.randn(8, 8, generator=random)
    weights["decoder.embed.0.weight"] = torch.randn(4, 8, generator=random)
    weights["ctc.ctc_lo.bias"] = torch.randn(4, generator=random)
    return weights


def auto_avsr_weights(prefix: str) -> dict[str, Tensor]:
    """Random weights with the names and shapes of a published model: its front end, and a few others."""
    return dict(random_weights(prefix))


def auto_avsr_front_end(weights: dict[str, Tensor], prefix: str, video_BT1HW: Tensor) -> Tensor:
    """The published front end in plain operations, [B, T, 1, 88, 88] -> [B, T, 512]: written from its description."""

    def weight(name: str) -> Tensor:
        return weights[prefix + name]

    def norm(x: Tensor, name: str) -> Tensor:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        mean, variance = weight(f"{name}.running_mean").view(shape), weight(f"{name}.running_var").view(shape)
        scale, offset = weight(f"{name}.weight").view(shape), weight(f"{name}.bias").view(shape)
        return (x - mean) / torch.sqrt(variance + 1e-5) * scale + offset

    def swish(x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)

    x = F.conv3d(video_BT1HW.transpose(1, 2), weight("frontend3D.0.weight"), stride=(1, 2, 2), padding=(2, 3, 3))
    x = F.max_pool3d(swish(norm(x, "frontend3D.1")), (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
    B, T = x.shape[0], x.shape[2]
    x = x.transpose(1, 2).flatten(0, 1)
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            name = f"trunk.layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            y = swish(norm(F.conv2d(x, weight(f"{name}.conv1.weight"), stride=stride, padding=1), f"{name}.bn1"))
            y = norm(F.conv2d(y, weight(f"{name}.conv2.weight"), padding=1), f"{name}.bn2")
            if stride == 2:
                x = norm(F.conv2d(x, weight(f"{name}.downsample.0.weight"), stride=2), f"{name}.downsample.1")
            x = swish(x + y)
    return x.mean(dim=(2, 3)).view(B, T, 512)


@pytest.mark.parametrize("prefix", ["", "frontend.", "encoder.frontend.", "model.encoder.frontend."])
@torch.no_grad()
def test_imported_front_end_equals_an_independent_one(prefix: str, tmp_path: Path) -> None:
    weights = auto_avsr_weights(prefix)
    torch.save(weights, tmp_path / "vsr.pth")
    encoder = build("resnet18")
    assert isinstance(encoder.trunk, ResNetTrunk)
    load_visual_trunk(encoder.trunk, tmp_path / "vsr.pth")
    (tmp_path / "vsr.pth").unlink()  # nothing stays mapped
    lips, presence = random_lips(2, 7), torch.ones(2, 7, dtype=torch.bool)
    expected = auto_avsr_front_end(weights, prefix, (lips - 0.421) / 0.165)
    assert expected.std() > 0.1
    features, _, _ = encoder.features(lips, presence)
    assert float((features - expected).abs().max()) < 1e-5 * float(expected.abs().max())  # rounding of float32
    exact = auto_avsr_front_end(
        {name: tensor.double() for name, tensor in weights.items()}, prefix, (lips.double() - 0.421) / 0.165
    )
    features, _, _ = encoder.double().features(lips.double(), presence)
    torch.testing.assert_close(features, exact, atol=1e-10, rtol=1e-10)


def test_front_end_inside_a_lightning_checkpoint(tmp_path: Path) -> None:
    weights = auto_avsr_weights("model.frontend.")
    torch.save({"epoch": 3, "state_dict": weights, "optimizer_states": [{"lr": 0.1}]}, tmp_path / "last.ckpt")
    trunk = ResNetTrunk(5)
    load_visual_trunk(trunk, tmp_path / "last.ckpt")
    torch.testing.assert_close(trunk.resnet.conv1.weight, weights["model.frontend.frontend3D.0.weight"][:, 0])


def test_wrong_files_are_refused_by_the_name_of_the_weight(tmp_path: Path) -> None:
    path = tmp_path / "vsr.pth"
    trunk = ResNetTrunk(5)
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    prefix = "encoder.frontend."

    def check(message: str, content: object) -> None:
        torch.save(content, path)
        with pytest.raises(ModelError, match=message) as caught:
            load_visual_trunk(trunk, path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    def without(name: str) -> dict[str, Tensor]:
        return {key: value for key, value in auto_avsr_weights(prefix).items() if key != prefix + name}

    missing = "trunk.layer3.1.bn2.running_var"
    check(f"weight {prefix}{missing} is missing", without(missing))
    check("weight frontend3D.0.weight is missing.*expected one, with a prefix", without("frontend3D.0.weight"))
    check("weight frontend3D.0.weight is missing", {})
    check("holds two visual front ends", auto_avsr_weights("a.") | auto_avsr_weights("b."))
    name = f"{prefix}trunk.layer2.0.downsample.0.weight"
    wrong = auto_avsr_weights(prefix)
    wrong[name] = wrong[name][:, :32]
    check(rf"weight {name} has another shape: got \(128, 32, 1, 1\), expected \(128, 64, 1, 1\)", wrong)
    wrong = auto_avsr_weights(prefix)
    wrong[f"{prefix}frontend3D.0.weight"] = torch.zeros(64, 3, 5, 7, 7)  # colour
    check(r"frontend3D.0.weight has another shape: got \(64, 3, 5, 7, 7\), expected \(64, 1, 5, 7, 7\)", wrong)
    prelu = auto_avsr_weights(prefix) | {f"{prefix}trunk.layer1.0.relu1.weight": torch.ones(64)}
    check("layer1.0.relu1.weight' is not supported.*SiLU", prelu)
    wrong = auto_avsr_weights(prefix)
    wrong[f"{prefix}trunk.layer4.1.bn1.bias"] = torch.full((512,), float("nan"))
    check("trunk.layer4.1.bn1.bias is not finite", wrong)
    name = f"{prefix}trunk.layer1.0.bn1.weight"
    check("ComplexFloatStorage", auto_avsr_weights(prefix) | {name: torch.ones(64) + 0j})
    check(f"{name} is of another kind: got torch.int64", auto_avsr_weights(prefix) | {name: torch.ones(64).long()})
    check("cannot be read: .*_rebuild_meta_tensor", auto_avsr_weights(prefix) | {name: torch.ones(64, device="meta")})
    check("got list, expected tensors by name", [1, 2])
    check("cannot be read: 'model'", {"model": "x"})
    check("cannot be read", {"args": Path("x")})  # an object: never unpickled
    for data in (b"", b"PK\x03\x04 not a zip", b"\x80\x02}q\x00."):
        path.write_bytes(data)
        with pytest.raises(ModelError, match="vsr.pth cannot be read"):
            load_visual_trunk(trunk, path)
    with pytest.raises(ModelError, match="no such file"):
        load_visual_trunk(trunk, tmp_path / "none.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in trunk.state_dict().items())


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("look_ahead", [0, 2, 3])
@torch.no_grad()
def test_chunks_equal_the_whole_with_the_declared_look_ahead(trunk: str, look_ahead: int) -> None:
    encoder = build(trunk, stem_look_ahead=look_ahead)
    frames = 12
    lips, presence = random_lips(2, 2 * frames, seed=4), torch.ones(2, 2 * frames, dtype=torch.bool)
    presence[0, 7:12] = False
    presence[1, ::3] = False
    whole, whole_seen, _ = encoder(lips, presence, torch.tensor([frames] * 2))
    assert encoder.look_ahead_slots == look_ahead
    for chunks in ([frames], [1] * frames, [5, 3, 4]):
        state = encoder.initial_state(2, CPU, torch.float32)
        parts, seen, given, done = [], [], 0, 0
        for count in chunks:
            wanted = encoder.slots_wanted(count, state)
            chunk, chunk_presence = lips[:, given : given + wanted], presence[:, given : given + wanted]
            given += wanted
            done += count
            assert given == 2 * done + look_ahead  # the encoder waits for the declared look-ahead, and for no more
            missing = wanted - chunk.shape[1]  # the end of the stream
            chunk, chunk_presence = F.pad(chunk, (0,) * 7 + (missing,)), F.pad(chunk_presence, (0, missing))
            before = [state.crops_BKHW.clone(), state.ahead_BL.clone()]
            x, x_seen, next_state = encoder(chunk, chunk_presence, torch.tensor([count] * 2), state)
            assert torch.equal(before[0], state.crops_BKHW) and torch.equal(before[1], state.ahead_BL)
            assert x.shape[1] == count
            state = next_state
            parts.append(x)
            seen.append(x_seen)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)
        assert torch.equal(torch.cat(seen, dim=1), whole_seen)


@pytest.mark.parametrize("trunk", TRUNKS)
@torch.no_grad()
def test_slots_read_their_own_time_and_absent_ones_nothing(trunk: str) -> None:
    encoder = build(trunk)
    lips, presence = random_lips(1, 20), torch.ones(1, 20, dtype=torch.bool)
    whole, _, _ = encoder.features(lips, presence)
    changed = lips.clone()
    changed[0, 9] = 1 - changed[0, 9] ** 2
    differs = (encoder.features(changed, presence)[0] != whole).any(-1)[0].nonzero().flatten().tolist()
    assert differs == [7, 8, 9, 10, 11]  # two slots of look-ahead and two of the past
    absent = presence.clone()
    absent[0, 9] = False
    features, _, _ = encoder.features(lips, absent)
    assert torch.equal(features, encoder.features(changed, absent)[0]) and not features[0, 9].any()
    assert whole.shape == (1, 20, encoder.trunk.width)
    # Slots 2j and 2j + 1 make frame j. With a stem of one slot, no other slot changes it.
    alone = build(trunk, stem_slots=1, stem_look_ahead=0)
    x, _, _ = alone(lips, presence, torch.tensor([10]))
    y, _, _ = alone(changed, presence, torch.tensor([10]))
    assert (x != y).any(-1)[0].nonzero().flatten()[0] == 4
    with pytest.raises(ValueError, match="got 19 slots, expected what slots_wanted says"):
        encoder(lips[:, :19], presence[:, :19], torch.tensor([10]))
    nothing, seen, _ = encoder(lips, torch.zeros_like(presence), torch.tensor([10]))
    assert not seen.any()
    assert torch.equal(nothing, encoder(1 - lips, torch.zeros_like(presence), torch.tensor([10]))[0])


@pytest.mark.parametrize("trunk", TRUNKS)
@torch.no_grad()
def test_padding_and_company_change_nothing(trunk: str) -> None:
    encoder = build(trunk)
    slots = [24, 10, 2]
    lips, presence = random_lips(3, 24), torch.zeros(3, 24, dtype=torch.bool)
    for index, count in enumerate(slots):
        presence[index, :count] = True
    lengths = torch.tensor([count // 2 for count in slots])
    together, _, _ = encoder(lips, presence, lengths)
    for index, count in enumerate(slots):
        alone, _, _ = encoder(
            lips[index : index + 1, :count], presence[index : index + 1, :count], lengths[index : index + 1]
        )
        torch.testing.assert_close(together[index, : count // 2], alone[0], atol=5e-5, rtol=0)


@torch.no_grad()
def test_long_recordings_in_pieces_equal_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build("resnet18")
    lips, presence = random_lips(1, 20), torch.ones(1, 20, dtype=torch.bool)
    whole, _, _ = encoder.features(lips, presence)
    monkeypatch.setattr("avsr.families.own.visual_encoder.TRUNK_SLOTS", 7)
    torch.testing.assert_close(encoder.features(lips, presence)[0], whole, atol=1e-5, rtol=1e-5)


def test_cost_of_the_resnet_by_hand() -> None:
    stem = 5 * 49 * 64 * 44**2
    stages = 4 * 9 * 64 * 64 * 22**2
    for channels, side in ((128, 11), (256, 6), (512, 3)):
        half = channels // 2
        stages += (9 * half * channels + 3 * 9 * channels**2 + half * channels) * side**2
    assert build("resnet18").mflop_per_slot == pytest.approx(2 * (stem + stages) / 1e6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trunk": "resnet18", "channels": (8, 8, 8, 8)}, "channels: expected none with trunk resnet18"),
        ({"channels": (8, 8, 8)}, r"channels: got \[8, 8, 8\], expected 4"),
        ({"stem_look_ahead": 5}, "stem_look_ahead: got 5, expected 0 to 4"),
        ({"normalize": "fixed", "std": 0.0}, "std: got 0.0"),
    ],
)
def test_contradictory_configurations_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VisualEncoderConfig(conformer=CAUSAL, **changes)


@pytest.mark.parametrize("look_ahead", [1, 2])
@torch.no_grad()
def test_whole_network_streams_with_look_ahead_of_the_lips(look_ahead: int) -> None:
    config = tiny_config(streaming=True)
    assert config.visual_encoder is not None
    visual = dataclasses.replace(config.visual_encoder, stem_look_ahead=look_ahead)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(dataclasses.replace(config, visual_encoder=visual)).eval()
        for parameter in network.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    frames = [20, 14]  # the second ends within a chunk
    mel, lips = random_mel(2, 160), random_lips(2, 40)
    presence = torch.ones(2, 40, dtype=torch.bool)
    presence[0, 13:19] = False
    whole = network(mel, torch.tensor([160, 112]), lips, presence)
    state, parts, given = network.initial_state(2), [], 0
    for first in range(0, 20, 4):
        assert network.visual_encoder is not None
        wanted = network.visual_encoder.slots_wanted(4, state.visual)
        chunk = slice(given, given + wanted)
        given += wanted
        counts = torch.tensor([max(0, min(4, count - first)) for count in frames])
        output = network(mel[..., 8 * first : 8 * first + 32], 8 * counts, lips[:, chunk], presence[:, chunk], state)
        state = output.state
        parts.append(output.log_probs)
    streamed = torch.cat(parts, dim=1)
    for index, count in enumerate(frames):
        torch.testing.assert_close(streamed[index, :count], whole.log_probs[index, :count], atol=1e-4, rtol=0)
    assert not torch.allclose(
        whole.log_probs[0], network(mel, torch.tensor([160, 112])).log_probs[0], atol=1e-3
    )  # the lips matter
