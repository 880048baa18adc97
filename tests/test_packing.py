"""Packed weights: the same results, and no difference that a user of the network could see."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from avsr.families.own.network import Network
from avsr.nn.attention import RelativeAttention
from avsr.nn.conformer import Conformer
from avsr.nn.conformer_shape import ConformerShape
from avsr.nn.context import AttentionContext
from avsr.nn.convolution import ConvolutionModule
from avsr.nn.packing import Linear, Packable, PackedWeight, can_pack
from avsr.nn.subsampling import Subsampling
from tests.tiny import tiny_config

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not can_pack(CPU), reason="this machine has no kernels for packed weights")


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            torch.nn.init.normal_(tensor, std=0.2, generator=generator)
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):
            buffer.data.abs_().add_(0.5)
    return module.eval()


def pack(module: torch.nn.Module, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    for part in module.modules():
        if isinstance(part, Packable):
            part.pack(dtype)
    return module


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("context", ["symmetric", "causal"])
@pytest.mark.parametrize("frames", [1, 2, 33])
@torch.no_grad()
def test_blocks(norm: str, context: str, frames: int) -> None:
    shape = ConformerShape(width=16, layers=2, heads=2, kernel=5, conv_norm=norm, conv_context=context)  # type: ignore[arg-type]
    conformer = randomised(Conformer(shape))
    x, lengths = torch.randn(2, frames, 16), torch.tensor([frames, frames // 2 + 1])
    expected, _ = conformer(x, lengths, AttentionContext())
    got, _ = pack(conformer)(x, lengths, AttentionContext())
    again, _ = conformer(x, lengths, AttentionContext())  # with the positions kept from the first pass
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=1e-5)
    assert torch.equal(got, again)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["plain", "depthwise"])
@pytest.mark.parametrize("frames", [1, 9, 100, 1200])
@torch.no_grad()
def test_subsampling(causal: bool, kind: str, frames: int) -> None:
    module = randomised(Subsampling(80, 16, channels=8, kind=kind, causal=causal))  # type: ignore[arg-type]
    mel, lengths = torch.randn(2, 80, frames), torch.tensor([frames, frames // 2])
    expected, expected_lengths, _ = module(mel, lengths)
    got, got_lengths, _ = pack(module)(mel, lengths)
    assert torch.equal(got_lengths, expected_lengths)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_empty_input_and_changed_context() -> None:
    linear = pack(randomised(Linear(8, 4)))
    assert linear(torch.zeros(1, 0, 8)).shape == (1, 0, 4)
    conformer = pack(randomised(Conformer(ConformerShape(width=16, layers=1, heads=2, kernel=5))))
    x, lengths = torch.randn(1, 30, 16), torch.tensor([30])
    contexts = [AttentionContext(), AttentionContext(left=3, right=3), AttentionContext(style="local", left=3, right=2)]
    packed = [conformer(x, lengths, context)[0] for context in contexts]
    for part in conformer.modules():
        if isinstance(part, Packable):
            part.unpack()
    for context, got in zip(contexts, packed, strict=True):
        torch.testing.assert_close(got, conformer(x, lengths, context)[0], atol=2e-6, rtol=1e-5)


def network() -> Network:
    made = randomised(Network(tiny_config()))
    assert isinstance(made, Network)
    return made


def outputs(made: Network) -> Tensor:
    mel = torch.randn(1, made.config.mel.n_mels, 160, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return made(mel, torch.tensor([160])).log_probs


def test_a_packed_network_can_be_saved_copied_trained_and_listed() -> None:
    made = network()
    weights = copy.deepcopy(made.state_dict())
    expected = outputs(made)
    assert made.pack() and made.pack()
    torch.testing.assert_close(outputs(made), expected, atol=1e-5, rtol=0)
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        torch.testing.assert_close(outputs(other), expected, atol=1e-5, rtol=0)
    assert made.pack()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in made.state_dict().items())
    assert made.pack()
    made.train()
    made(torch.randn(1, made.config.mel.n_mels, 160), torch.tensor([160])).log_probs.sum().backward()
    assert all(p.grad is not None for n, p in made.named_parameters() if n.startswith("audio_encoder.conformer"))
    made.eval()
    assert made.pack()
    assert sum(p.numel() for p in made.parameters()) == sum(p.numel() for p in network().parameters())
    assert made.pack()
    made.load_state_dict(weights)
    assert torch.equal(outputs(made), expected)
    made.pack()
    assert made.to(torch.float64).audio_head.project.weight.dtype == torch.float64


def test_no_gradients_are_lost_in_silence() -> None:
    weight = PackedWeight(torch.randn(4, 8), None)
    with pytest.raises(RuntimeError, match="unpack"):
        weight(torch.randn(1, 8, requires_grad=True))


def test_bfloat16_is_close() -> None:
    if not can_pack(CPU, torch.bfloat16):
        pytest.skip("this processor does not compute in bfloat16")
    made = network()
    expected = outputs(made)
    assert made.pack(torch.bfloat16)
    got = outputs(made)
    assert got.dtype == torch.float32
    assert 0 < (got - expected).abs().max() < 0.1


def test_every_part_with_weights_is_packed() -> None:
    made = network()
    made.pack()
    kinds = {type(part) for part in made.modules() if isinstance(part, Packable)}
    assert kinds == {Linear, RelativeAttention, ConvolutionModule, Subsampling}
    assert all(part.weight is None for part in made.modules() if isinstance(part, Linear))
