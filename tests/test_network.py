"""The whole network: presence, padding, one modality without the other, streams."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from avsr.families.own.fusion import Sides
from avsr.families.own.network import Network
from avsr.grid import LIP_INPUT_PX
from tests.tiny import random_lips, random_mel, random_network, tiny_config, tiny_network


def with_gates() -> Network:
    config = tiny_config()
    assert config.fusion is not None
    return random_network(dataclasses.replace(config, fusion=dataclasses.replace(config.fusion, gated=True)))


def with_evidence() -> Network:
    config = tiny_config()
    assert config.fusion is not None
    return random_network(dataclasses.replace(config, fusion=dataclasses.replace(config.fusion, evidence=True)))


@pytest.fixture(scope="module", params=["joined", "gated", "evidence"])
def network(request: pytest.FixtureRequest) -> Network:
    return {"joined": tiny_network, "gated": with_gates, "evidence": with_evidence}[request.param]()


@torch.no_grad()
def test_lips_without_trust_change_nothing_and_trust_goes_by_degrees() -> None:
    network = with_evidence()
    assert network.fusion is not None
    lips, mel, lengths = random_lips(1, 40), random_mel(1, 160), torch.tensor([160])
    alone = network(mel, lengths).log_probs
    far = []
    for bias in (-60.0, -2.0, 2.0, 60.0):
        network.fusion.trust[1].weight.zero_()
        network.fusion.trust[1].bias.fill_(bias)
        far.append(float((network(mel, lengths, lips).log_probs - alone).abs().mean()))
    assert far[0] == 0.0 and far[0] < far[1] < far[2] < far[3]
    # Without sound there is nothing to fall back to.
    silent = network(None, lengths, lips).log_probs
    network.fusion.trust[1].bias.fill_(-60.0)
    assert torch.equal(network(None, lengths, lips).log_probs, silent)


@torch.no_grad()
def test_evidence_sees_agreement_and_strange_lips() -> None:
    """What each part of the evidence shows the fusion, with everything else equal."""
    evidence = with_evidence().fusion.evidence  # type: ignore[union-attr]
    assert evidence is not None
    yes = torch.ones(1, 5, dtype=torch.bool)
    width = evidence.project.in_features
    units = (width - 32 - 3) // 3
    x, lips = torch.randn(1, 5, len(evidence.mean)), torch.randn(1, 5, len(evidence.mean))
    sure = torch.full((1, 5, units), -20.0)
    sure[..., 0] = 0.0
    other = sure.roll(1, dims=-1)

    def shown(part: slice, sides: Sides, frames: torch.Tensor, heard: torch.Tensor = yes) -> torch.Tensor:
        evidence.project.weight.zero_()
        evidence.project.bias.zero_()
        evidence.project.weight[:, part] = 1.0
        return evidence(x, frames, sides, yes, heard)[0, 0, 0]

    together = slice(2 * units, 3 * units)
    assert shown(together, Sides(sure, sure), lips) > 0.99 > 0.01 > shown(together, Sides(sure, other), lips)
    assert shown(together, Sides(sure, sure), lips, ~yes) == shown(together, Sides(None, sure), lips) == 0.0
    distance = slice(width - 1, width)
    assert shown(distance, Sides(sure, sure), 10 * lips) > shown(distance, Sides(sure, sure), lips) + 4
    unsure = slice(width - 2, width - 1)
    flat = torch.full((1, 5, units), 1 / units).log()
    assert shown(unsure, Sides(sure, flat), lips) > 1 > 0.01 > shown(unsure, Sides(flat, sure), lips)


def test_evidence_learns_the_faces_of_the_training_and_nothing_else() -> None:
    evidence = with_evidence().fusion.evidence  # type: ignore[union-attr]
    assert evidence is not None
    width = len(evidence.mean)
    sides = Sides(None, torch.zeros(1, 400, (evidence.project.in_features - 35) // 3))
    lips = 3.0 + 0.5 * torch.randn(1, 400, width)
    seen = torch.ones(1, 400, dtype=torch.bool)
    seen[:, 200:] = False
    lips[:, 200:] = 1e6
    evidence.eval()(torch.zeros(1, 400, width), lips, sides, seen, seen)
    assert not evidence.mean.any()
    evidence.train()
    for _ in range(600):
        evidence(torch.zeros(1, 400, width), lips, sides, seen, seen)
    torch.testing.assert_close(evidence.mean, torch.full((width,), 3.0), atol=0.2, rtol=0)
    torch.testing.assert_close(evidence.variance.sqrt(), torch.full((width,), 0.5), atol=0.1, rtol=0)


@torch.no_grad()
def test_absent_lips_are_bit_for_bit_no_lips(network: Network) -> None:
    mel, lengths = random_mel(2, 160), torch.tensor([160, 100])
    alone = network(mel, lengths)
    assert torch.equal(alone.log_probs, alone.audio_log_probs)  # the audio encoder and its head, nothing else
    lips = random_lips(2, 40)  # the crops must not matter
    absent = network(mel, lengths, lips, torch.zeros(2, 40, dtype=torch.bool))
    assert torch.equal(alone.log_probs, absent.log_probs)
    present = network(mel, lengths, lips, torch.ones(2, 40, dtype=torch.bool))
    assert not torch.allclose(alone.log_probs, present.log_probs, atol=1e-3)


@torch.no_grad()
def test_nothing_of_lips_or_sound_goes_round_the_map_that_joins_them() -> None:
    network = tiny_network()
    assert network.fusion is not None
    lips, mel, lengths = random_lips(1, 40), random_mel(1, 160), torch.tensor([160])
    width = network.config.audio_encoder.conformer.width
    for layer in network.fusion.layers:
        layer.lips.join.weight[:, width:] = 0.0  # the part that reads the lips
    blind = network(mel, lengths, lips).log_probs
    assert torch.equal(network(mel, lengths, 1 - lips).log_probs, blind)
    assert not torch.allclose(network(random_mel(1, 160, seed=9), lengths, lips).log_probs, blind, atol=1e-2)
    for layer in network.fusion.layers:
        layer.lips.join.weight[:] = 0.0
    nothing = network(mel, lengths, lips).log_probs
    torch.testing.assert_close(nothing, nothing[:, :1].expand_as(nothing), atol=1e-5, rtol=0)


@torch.no_grad()
def test_gates_can_silence_either_side() -> None:
    network = with_gates()
    assert network.fusion is not None
    lips, mel, lengths = random_lips(1, 40), random_mel(1, 160), torch.tensor([160])
    width = network.config.audio_encoder.conformer.width

    def shut(half: slice) -> None:
        for layer in network.fusion.layers:
            opening = layer.lips.gates[2]
            opening.weight[half], opening.bias[half] = 0.0, -100.0

    shut(slice(0, width))  # the gate of the lips
    for layer in network.fusion.layers:
        layer.lips.gates[2].weight[width:], layer.lips.gates[2].bias[width:] = 0.0, 100.0
    blind = network(mel, lengths, lips).log_probs
    torch.testing.assert_close(network(mel, lengths, 1 - lips).log_probs, blind, atol=1e-5, rtol=0)
    assert not torch.allclose(network(random_mel(1, 160, seed=9), lengths, lips).log_probs, blind, atol=1e-2)
    shut(slice(width, None))  # the gate of the sound too: all frames are equal
    nothing = network(mel, lengths, lips).log_probs
    torch.testing.assert_close(nothing, nothing[:, :1].expand_as(nothing), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_crop_of_an_absent_slot_does_not_matter(network: Network) -> None:
    mel, lengths, presence = random_mel(1, 160), torch.tensor([160]), torch.ones(1, 40, dtype=torch.bool)
    presence[0, 10:17] = False
    lips = random_lips(1, 40)
    other = lips.clone()
    other[0, 10:17] = 0.7
    assert torch.equal(
        network(mel, lengths, lips, presence).log_probs, network(mel, lengths, other, presence).log_probs
    )


@torch.no_grad()
def test_far_lips_do_not_reach_a_frame(network: Network) -> None:
    """Lips present only at the end change no earlier frame than the contexts of window, stem and encoder reach."""
    mel, lengths = random_mel(1, 160), torch.tensor([160])
    absent = torch.zeros(1, 40, dtype=torch.bool)
    alone = network(mel, lengths)
    nothing = network(mel, lengths, random_lips(1, 40), absent)
    assert torch.equal(alone.log_probs, nothing.log_probs)
    assert nothing.visual_log_probs is not None


@torch.no_grad()
def test_batch_equals_single_whatever_the_padding(network: Network) -> None:
    frames, slots = [160, 100, 31], [40, 25, 8]
    mel, lips = random_mel(3, 160), random_lips(3, 40)
    presence = torch.rand(3, 40, generator=torch.Generator().manual_seed(5)) < 0.8
    for index, count in enumerate(slots):
        presence[index, count:] = False
    batch = network(mel, torch.tensor(frames), lips, presence)
    for index in range(3):
        one = network(
            mel[index : index + 1, :, : frames[index]],
            torch.tensor(frames[index : index + 1]),
            lips[index : index + 1, : slots[index]],
            presence[index : index + 1, : slots[index]],
        )
        length = int(one.lengths[0])
        assert length == int(batch.lengths[index])
        torch.testing.assert_close(one.log_probs[0], batch.log_probs[index, :length], atol=5e-5, rtol=0)


@torch.no_grad()
def test_padding_content_does_not_matter(network: Network) -> None:
    mel, lips, lengths = random_mel(2, 160), random_lips(2, 40), torch.tensor([160, 100])
    presence = torch.ones(2, 40, dtype=torch.bool)  # presence after the end of the second item must be ignored
    first = network(mel, lengths, lips, presence).log_probs
    mel[1, :, 100:] = 9.0
    lips[1, 26:] = 0.9
    second = network(mel, lengths, lips, presence).log_probs
    torch.testing.assert_close(first[1, :13], second[1, :13], atol=1e-6, rtol=0)


@torch.no_grad()
def test_lips_alone_need_no_sound(network: Network) -> None:
    lips, presence, lengths = random_lips(2, 40), torch.ones(2, 40, dtype=torch.bool), torch.tensor([160, 160])
    without = network(None, lengths, lips, presence)
    ignored = network(random_mel(2, 160), lengths, lips, presence, heard=torch.tensor([False, False]))
    torch.testing.assert_close(without.log_probs, ignored.log_probs, atol=1e-5, rtol=0)
    assert without.audio_log_probs is None


@torch.no_grad()
def test_log_probs_are_normalised_and_blank_is_last(network: Network) -> None:
    output = network(random_mel(1, 160), torch.tensor([160]))
    assert output.log_probs.shape == (1, 20, network.config.vocabulary_size + 1)
    assert network.blank_id == network.config.vocabulary_size
    torch.testing.assert_close(output.log_probs.exp().sum(-1), torch.ones(1, 20))


@pytest.mark.parametrize("chunk_frames", [4, 8, 20])
@pytest.mark.parametrize("kind", ["a", "av", "gaps"])
@torch.no_grad()
def test_stream_equals_whole(chunk_frames: int, kind: str) -> None:
    network = tiny_network(streaming=True)
    mel, lips = random_mel(2, 320), random_lips(2, 80)
    presence = torch.ones(2, 80, dtype=torch.bool)
    if kind == "gaps":
        presence[0, 13:50] = False
        presence[1] = False
    whole = network(mel, torch.tensor([320, 320]), lips if kind != "a" else None, presence if kind != "a" else None)
    state = network.initial_state(2)
    parts = []
    for first in range(0, 40, chunk_frames):
        slots = slice(2 * first, 2 * (first + chunk_frames))
        chunk = mel[..., 8 * first : 8 * (first + chunk_frames)]
        output = network(
            chunk,
            torch.tensor([chunk.shape[-1]] * 2),
            lips[:, slots] if kind != "a" else None,
            presence[:, slots] if kind != "a" else None,
            state,
        )
        state = output.state
        parts.append(output.log_probs)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole.log_probs, atol=1e-4, rtol=0)


@torch.no_grad()
def test_stream_that_never_sees_a_face_is_bit_for_bit_audio_only() -> None:
    network = tiny_network(streaming=True)
    mel, state_a, state_b = random_mel(1, 64), network.initial_state(1), network.initial_state(1)
    absent = torch.zeros(1, 8, dtype=torch.bool)
    for start in (0, 32):
        a = network(mel[..., start : start + 32], torch.tensor([32]), state=state_a)
        b = network(mel[..., start : start + 32], torch.tensor([32]), random_lips(1, 8), absent, state_b)
        assert torch.equal(a.log_probs, b.log_probs)
        state_a, state_b = a.state, b.state


def test_model_that_only_hears() -> None:
    network = tiny_network(lips=False)
    output = network(random_mel(1, 80), torch.tensor([80]), random_lips(1, 20))
    assert output.visual_log_probs is None
    with pytest.raises(ValueError, match="this model reads no lips: mel must be given"):
        network(None, torch.tensor([80]))


def test_stated_cost_of_the_trunk_by_hand() -> None:
    network = tiny_network()
    assert network.visual_encoder is not None
    # 5x5x5 -> 8 at 22x22; three 3x3x8 -> 8 at 11x11, 6x6, 3x3; 72 -> 32
    by_hand = 125 * 8 * 22**2 + 72 * 8 * (11**2 + 6**2 + 3**2) + 72 * 32
    assert LIP_INPUT_PX == 88
    assert network.visual_encoder.mflop_per_slot == pytest.approx(2 * by_hand / 1e6)
