"""Blocks: formulas against a slow independent reference, padding, batches, streams."""

from __future__ import annotations

import math

import pytest
import torch

from avsr.nn.attention import RelativeAttention, relative_positions
from avsr.nn.conformer import Conformer, ConformerShape
from avsr.nn.masks import AttentionContext, valid_mask
from avsr.nn.subsampling import Subsampling

CPU = torch.device("cpu")


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return module.eval()


def test_attention_equals_the_formula_written_as_loops() -> None:
    attention = randomised(RelativeAttention(8, 2))
    assert isinstance(attention, RelativeAttention)
    x = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(2))
    valid = torch.tensor([[True, True, False, True, True]])
    context = AttentionContext(left=2, right=1)
    with torch.no_grad():
        got, any_key, _ = attention(x, x, valid, context)
        query, key, value = (f(x)[0].view(5, 2, 4) for f in (attention.to_query, attention.to_key, attention.to_value))
        rows = []
        for i in range(5):
            heads = []
            for n in range(2):
                visible = [j for j in range(5) if valid[0, j] and -1 <= i - j <= 2]
                scores = []
                for j in visible:
                    sinusoid = torch.tensor(
                        [
                            f((i - j) * math.exp(-2 * (c // 2) * math.log(10000) / 8))
                            for c, f in zip(range(8), [math.sin, math.cos] * 4, strict=True)
                        ]
                    )
                    position = attention.to_position(sinusoid).view(2, 4)[n]
                    content = (query[i, n] + attention.bias_u[n]) @ key[j, n]
                    scores.append((content + (query[i, n] + attention.bias_v[n]) @ position) / 2)
                weights = torch.stack(scores).softmax(0)
                heads.append(sum(w * value[j, n] for w, j in zip(weights, visible, strict=True)))
            rows.append(attention.to_output(torch.cat(heads)))
    assert any_key.all()
    torch.testing.assert_close(got[0], torch.stack(rows), atol=1e-5, rtol=0)


def test_attention_reports_rows_without_a_visible_key() -> None:
    attention = randomised(RelativeAttention(8, 2))
    x = torch.randn(1, 4, 8)
    _, any_key, _ = attention(x, x, torch.tensor([[True, False, False, False]]), AttentionContext(left=1, right=0))
    assert any_key.tolist() == [[True, True, False, False]]


def test_positions_run_from_newest_to_oldest() -> None:
    table = relative_positions(1, -1, 2, device=CPU, dtype=torch.float32)
    expected = torch.tensor([[math.sin(1), math.cos(1)], [0, 1], [math.sin(-1), math.cos(-1)]])
    torch.testing.assert_close(table, expected)


def test_chunked_context_by_hand() -> None:
    seen = AttentionContext(style="chunked", left=2, right=1).visible(torch.arange(6), torch.arange(6)).int().tolist()
    assert seen == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"style": "chunked", "left": 3, "right": 1}, "multiple of 2"),
        ({"style": "chunked", "left": 2}, "right -1"),
        ({"left": -2}, "left -2"),
    ],
)
def test_wrong_context_is_refused(arguments: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        AttentionContext(**arguments)


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 16, 61])
def test_subsampling_gives_one_frame_for_each_started_eight(frames: int) -> None:
    subsampling = randomised(Subsampling(80, 16, channels=4))
    out, lengths, _ = subsampling(torch.randn(1, 80, frames), torch.tensor([frames]))
    assert out.shape == (1, math.ceil(frames / 8), 16)
    assert lengths.tolist() == [math.ceil(frames / 8)]


def test_subsampling_frame_needs_nothing_after_its_own_eighty_ms() -> None:
    subsampling = randomised(Subsampling(80, 16, channels=4))
    mel = torch.randn(1, 80, 64)
    changed = mel.clone()
    changed[..., 32:] += 1.0  # encoder frames 0..3 cover mel frames 0..31
    a, b = (subsampling(m, torch.tensor([64]))[0] for m in (mel, changed))
    torch.testing.assert_close(a[:, :4], b[:, :4], atol=0, rtol=0)
    assert not torch.equal(a[:, 4], b[:, 4])


def build(streaming: bool, norm: str = "layer") -> tuple[Subsampling, Conformer]:
    shape = ConformerShape(
        width=32,
        layers=3,
        heads=4,
        kernel=5,
        conv_context="causal" if streaming else "symmetric",
        conv_norm=norm,  # type: ignore[arg-type]
    )
    subsampling, conformer = randomised(Subsampling(80, 32, channels=8)), randomised(Conformer(shape))
    assert isinstance(subsampling, Subsampling) and isinstance(conformer, Conformer)
    return subsampling, conformer


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_padding_and_neighbours_change_nothing(norm: str) -> None:
    subsampling, conformer = build(streaming=False, norm=norm)
    context = AttentionContext(left=6, right=4)
    mel, lengths = torch.randn(3, 80, 203), torch.tensor([203, 150, 9])
    with torch.no_grad():
        batch, batch_lengths = subsampling(mel, lengths)[:2]
        batch, _ = conformer(batch, batch_lengths, context)
        for index, length in enumerate(lengths.tolist()):
            one, one_lengths = subsampling(mel[index : index + 1, :, :length], lengths[index : index + 1])[:2]
            one, _ = conformer(one, one_lengths, context)
            torch.testing.assert_close(one[0], batch[index, : one_lengths[0]], atol=5e-5, rtol=0)


@pytest.mark.parametrize("chunk_frames", [4, 8, 20])
def test_chunks_equal_the_masked_whole(chunk_frames: int) -> None:
    subsampling, conformer = build(streaming=True)
    context = AttentionContext(style="chunked", left=8, right=3)
    mel = torch.randn(2, 80, 403, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole, lengths, _ = subsampling(mel, torch.tensor([403, 403]))
        whole, _ = conformer(whole, lengths, context)
        sub_state = subsampling.initial_state(2, CPU, torch.float32)
        state = conformer.initial_state(2, context, CPU, torch.float32)
        parts = []
        for start in range(0, 403, 8 * chunk_frames):
            chunk = mel[..., start : start + 8 * chunk_frames]
            before = [t.clone() for block in state.blocks for part in block for t in part]
            x, x_lengths, sub_state = subsampling(chunk, torch.tensor([chunk.shape[-1]] * 2), sub_state)
            x, next_state = conformer(x, x_lengths, context, state)
            after = [t for block in state.blocks for part in block for t in part]
            assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))  # never written to
            state = next_state
            parts.append(x)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=0)


def test_what_needs_the_future_refuses_to_stream() -> None:
    _, conformer = build(streaming=False)
    with pytest.raises(ValueError, match="cannot stream"):
        conformer.initial_state(1, AttentionContext(style="chunked", left=8, right=3), CPU, torch.float32)
    _, conformer = build(streaming=True)
    with pytest.raises(ValueError, match="cannot stream"):
        conformer.initial_state(1, AttentionContext(), CPU, torch.float32)


def test_valid_mask() -> None:
    assert valid_mask(torch.tensor([0, 2]), 3).tolist() == [[False] * 3, [True, True, False]]
