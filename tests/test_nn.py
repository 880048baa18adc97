"""Neural blocks: equal to a slow independent reference, and independent of padding, batches and chunks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from avsr.nn.attention import RelativeAttention, relative_positions
from avsr.nn.conformer import Conformer, ConformerState
from avsr.nn.conformer_shape import ConformerShape
from avsr.nn.context import AttentionContext
from avsr.nn.convolution import ConvolutionModule
from avsr.nn.masks import Sight, valid_mask, visible
from avsr.nn.packing import Packable, can_pack
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
        sight = Sight(context, 5, valid)
        got, _ = attention(x, x, sight)
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
    seen = sight.seen()
    assert seen is not None and seen.all()
    torch.testing.assert_close(got[0], torch.stack(rows), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "context",
    [
        AttentionContext(),
        AttentionContext(left=3, right=0),
        AttentionContext(left=-1, right=2),
        AttentionContext(style="chunked", left=4, right=1),
        AttentionContext(style="local", left=2, right=1, global_tokens=1, global_spacing=3),
    ],
)
def test_a_finer_context_sees_the_same_stretches_of_time(context: AttentionContext) -> None:
    frames, slots = torch.arange(12), torch.arange(0, 24, 2)
    fine = context.finer(2)
    assert torch.equal(visible(fine, slots, slots), visible(context, frames, frames))
    assert (fine.style, fine.streamable, fine.global_tokens) == (
        context.style,
        context.streamable,
        context.global_tokens,
    )
    assert fine.global_spacing == 2 * context.global_spacing
    if context.chunk is not None:
        assert fine.chunk == 2 * context.chunk


def test_a_sight_reports_rows_without_a_visible_key() -> None:
    sight = Sight(AttentionContext(left=1, right=0), 4, torch.tensor([[True, False, False, False]]))
    seen = sight.seen()
    assert seen is not None and seen.tolist() == [[True, True, False, False]]


def test_positions_run_from_newest_to_oldest() -> None:
    table = relative_positions(1, -1, 2, device=CPU, dtype=torch.float32)
    expected = torch.tensor([[math.sin(1), math.cos(1)], [0, 1], [math.sin(-1), math.cos(-1)]])
    torch.testing.assert_close(table, expected)


def test_chunked_context_by_hand() -> None:
    seen = visible(AttentionContext(style="chunked", left=2, right=1), torch.arange(6), torch.arange(6)).int().tolist()
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
        ({"style": "local", "left": 4}, "expected a limit on both"),
        ({"left": 4, "right": 4, "global_tokens": 1}, "global tokens"),
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


def test_a_state_keeps_its_last_frames_and_shares_them_with_the_next() -> None:
    attention = randomised(RelativeAttention(8, 2))
    assert isinstance(attention, RelativeAttention)
    state = attention.initial_state(1, AttentionContext(left=21, right=0), CPU, torch.float32)
    frames = torch.randn(1, 100, 16)
    for start, end in itertools.pairwise([0, 1, 2, 3, 30, 31, 36, 37, 38, 60, 61, 69, 70, 100]):
        before, state = state, state.after(frames[:, start:end])
        seen = torch.cat((torch.zeros(1, 21, 16), frames[:, :end]), dim=1)
        assert torch.equal(torch.cat(state.pieces_BKC, dim=1), seen[:, -21:])
        if end - start == 1:
            assert {id(piece) for piece in state.pieces_BKC[1:-1]} <= {id(piece) for piece in before.pieces_BKC}


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


def remembered(state: ConformerState) -> Iterator[torch.Tensor]:
    for block in state.blocks:
        yield from block.attention.pieces_BKC
        yield from block.convolution


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
            before = [t.clone() for t in remembered(state)]
            x, x_lengths, sub_state = subsampling(chunk, torch.tensor([chunk.shape[-1]] * 2), sub_state)
            x, next_state = conformer(x, x_lengths, context, state)
            after = list(remembered(state))
            assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))  # the old state is unchanged
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


def local_by_loops(attention: RelativeAttention, x: torch.Tensor, lengths: list[int], context: AttentionContext):
    """Local attention as the published models compute it, one number after another, with their mistakes."""
    B, T, D = x.shape
    N, E = attention.heads, attention.head_width
    a, b, w = context.left, context.right, max(context.left, context.right)
    project = {name: getattr(attention, f"to_{name}")(x).view(B, T, N, E) for name in ("query", "key", "value")}
    if attention.global_projections:
        project |= {
            f"global_{name}": getattr(attention, f"to_global_{name}")(x).view(B, T, N, E)
            for name in ("query", "key", "value")
        }
    global_q, global_k, global_v = (project.get(f"global_{n}", project[n]) for n in ("query", "key", "value"))
    table = attention.to_position(relative_positions(a, -b, D, device=CPU, dtype=x.dtype)).view(-1, N, E)
    at = [n * context.global_spacing for n in range(context.global_tokens)]
    out = torch.zeros(B, T, N, E)
    for item in range(B):
        for n in range(N):
            for i in range(lengths[item]):
                q = project["query"][item, i, n]
                position = [(q + attention.bias_v[n]) @ row[n] for row in table]
                band = [torch.tensor(0.0)] * (2 * w + 1)
                band[:a] = position[:a]
                band[2 * w - b :] = position[a:]
                scores = [global_q[item, i, n] @ global_k[item, g, n] / math.sqrt(E) for g in at]
                values = [project["value"][item, g, n] for g in at]
                for offset in range(-a, b + 1):
                    j = i + offset
                    if 0 <= j < lengths[item]:
                        content = (q + attention.bias_u[n]) @ project["key"][item, j, n]
                        scores.append((content + band[offset + w]) / math.sqrt(E))
                        values.append(project["value"][item, j, n])
                out[item, i, n] = torch.stack(scores).softmax(0) @ torch.stack(values)
    flat = [(g, item, n) for g in at for item in range(B) for n in range(N)]  # order of the global rows
    for item in range(B):
        for n in range(N):
            for index, g in enumerate(at):
                from_g, from_item, from_n = flat[(item * N + n) * len(at) + index]
                scores = global_k[item, : lengths[item], n] @ global_q[from_item, from_g, from_n] / math.sqrt(E)
                out[item, g, n] = scores.softmax(0) @ global_v[item, : lengths[item], n]
    return attention.to_output(out.flatten(2))


@pytest.mark.parametrize(
    ("left", "right", "tokens", "spacing", "separate"),
    [(3, 3, 0, 1, False), (2, 4, 0, 1, False), (4, 1, 1, 1, False), (3, 3, 1, 1, True), (2, 2, 3, 4, True)],
)
def test_local_attention_equals_loops(left: int, right: int, tokens: int, spacing: int, separate: bool) -> None:
    attention = randomised(RelativeAttention(8, 2, global_projections=separate))
    assert isinstance(attention, RelativeAttention)
    context = AttentionContext(
        style="local", left=left, right=right, global_tokens=tokens, global_spacing=spacing if tokens else 1
    )
    x, lengths = torch.randn(2, 19, 8, generator=torch.Generator().manual_seed(2)), [19, 13]
    valid = valid_mask(torch.tensor(lengths), 19)
    with torch.no_grad():
        got, _ = attention(x, x, Sight(context, 19, valid))
        expected = local_by_loops(attention, x, lengths, context)
    torch.testing.assert_close(got[valid], expected[valid], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "context",
    [
        AttentionContext(),
        AttentionContext(left=5, right=5),
        AttentionContext(left=7, right=-1),
        AttentionContext(left=-1, right=2),
        AttentionContext(style="chunked", left=6, right=2),
        AttentionContext(style="chunked", left=-1, right=3),
        AttentionContext(style="local", left=5, right=3),
        AttentionContext(style="local", left=4, right=4, global_tokens=2, global_spacing=9),
    ],
)
@pytest.mark.parametrize("queries", [1, 2, 13])
def test_attention_in_blocks_equals_attention_at_once(
    monkeypatch: pytest.MonkeyPatch, context: AttentionContext, queries: int
) -> None:
    attention = randomised(RelativeAttention(8, 2))
    x, valid = torch.randn(2, 61, 8), valid_mask(torch.tensor([61, 40]), 61)
    with torch.no_grad():
        monkeypatch.setattr("avsr.nn.masks.MIN_BLOCK_QUERIES", 1000)
        whole, _ = attention(x, x, Sight(context, 61, valid))
        assert len(list(Sight(context, 61, valid).blocks())) == 1
        monkeypatch.setattr("avsr.nn.masks.MIN_BLOCK_QUERIES", queries)
        monkeypatch.setattr("avsr.nn.masks.LONG_BLOCK_QUERIES", queries)
        monkeypatch.setattr("avsr.nn.masks.BLOCK_SCORES", 1)
        blocks, _ = attention(x, x, Sight(context, 61, valid))
        monkeypatch.setattr("avsr.nn.attention.MANY_SCORES", 1)
        heads, _ = attention(x, x, Sight(context, 61, valid))
        if can_pack(CPU):
            for part in attention.modules():
                if isinstance(part, Packable):
                    part.pack(torch.float32)
        packed, _ = attention(x, x, Sight(context, 61, valid))
        monkeypatch.setattr("avsr.nn.attention.LONGEST_ROW", 3)
        monkeypatch.setattr("avsr.nn.attention.KEYS_AT_ONCE", 2)
        in_pieces, _ = attention(x, x, Sight(context, 61, valid))
        for part in attention.modules():
            if isinstance(part, Packable):
                part.unpack()
        in_pieces_too, _ = attention(x, x, Sight(context, 61, valid))
    for got in (blocks, heads, packed, in_pieces, in_pieces_too):
        torch.testing.assert_close(got[valid], whole[valid], atol=1e-5, rtol=0)


def test_blocks_look_no_further_than_their_context() -> None:
    blocks = list(Sight(AttentionContext(style="local", left=128, right=128), 3000).blocks())
    assert max(block.keys.stop - block.keys.start for block in blocks) == 128 + 256
    assert [block.queries.start for block in blocks[1:]] == [block.queries.stop for block in blocks[:-1]]
    assert list(Sight(AttentionContext(), 40).blocks())[0].allowed is None


def test_gradients_flow_through_attention_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = randomised(RelativeAttention(8, 2)).double()
    x = torch.randn(1, 7, 8, dtype=torch.float64, requires_grad=True)
    monkeypatch.setattr("avsr.nn.masks.MIN_BLOCK_QUERIES", 2)
    monkeypatch.setattr("avsr.nn.masks.LONG_BLOCK_QUERIES", 2)
    monkeypatch.setattr("avsr.nn.masks.BLOCK_SCORES", 1)
    context = AttentionContext(left=2, right=1)
    assert torch.autograd.gradcheck(lambda y: attention(y, y, Sight(context, 7))[0], (x,))


def test_convolution_sees_as_far_ahead_as_it_says() -> None:
    module = randomised(ConvolutionModule(8, 5, look_ahead=1, norm="layer"))
    assert isinstance(module, ConvolutionModule)
    x, valid = torch.randn(1, 20, 8), None
    changed = x.clone()
    changed[:, 10] += 1.0
    with torch.no_grad():
        differs = (module(x, valid)[0] != module(changed, valid)[0]).any(dim=-1)[0]
    assert differs.nonzero().flatten().tolist() == [9, 10, 11, 12, 13]
    with pytest.raises(ValueError, match="cannot stream"):
        module.initial_state(1, CPU, torch.float32)


@pytest.mark.parametrize("kind", ["depthwise", "plain"])
@pytest.mark.parametrize("factor", [4, 8])
@pytest.mark.parametrize("frames", [1, 7, 8, 9, 40, 41])
def test_causal_subsampling(kind: str, factor: int, frames: int) -> None:
    subsampling = randomised(Subsampling(80, 16, channels=4, factor=factor, kind=kind, causal=True))  # type: ignore[arg-type]
    assert isinstance(subsampling, Subsampling)
    mel, lengths = torch.randn(1, 80, frames), torch.tensor([frames])
    with torch.no_grad():
        out, out_lengths, _ = subsampling(mel, lengths)
        expected = math.ceil((frames - 1) / factor) + 1
        assert out.shape[1] == expected
        assert out_lengths.tolist() == subsampling.output_lengths(lengths).tolist() == [expected]
        later = torch.randn(1, 80, 64)  # frame j is ready with mel frame factor * j
        longer, _, _ = subsampling(torch.cat((mel, later), dim=-1), lengths + 64)
        done = (frames - 1) // factor + 1
        torch.testing.assert_close(longer[:, :done], out[:, :done], atol=1e-5, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("frames", [48, 49, 50, 101, 147])
def test_long_recordings_are_subsampled_in_pieces(monkeypatch: pytest.MonkeyPatch, causal: bool, frames: int) -> None:
    subsampling = randomised(Subsampling(80, 16, channels=4, causal=causal))
    mel, lengths = torch.randn(2, 80, frames), torch.tensor([frames, 45])
    with torch.no_grad():
        whole, whole_lengths, _ = subsampling(mel, lengths)
        monkeypatch.setattr("avsr.nn.subsampling.PIECE_FRAMES", 48)
        pieces, piece_lengths, _ = subsampling(mel, lengths)
    assert whole_lengths.tolist() == piece_lengths.tolist()
    for item, length in enumerate(whole_lengths.tolist()):
        torch.testing.assert_close(pieces[item, :length], whole[item, :length], atol=1e-5, rtol=0)


@pytest.mark.parametrize("right", [13, 6, 1, 0])
def test_causal_chunks_equal_the_masked_whole(right: int) -> None:
    """Streams as in the published models: causal subsampling, chunks of right + 1 frames, a shorter first chunk."""
    subsampling = randomised(Subsampling(80, 32, channels=8, causal=True))
    shape = ConformerShape(width=32, layers=3, heads=4, kernel=5, conv_context="causal")
    conformer = randomised(Conformer(shape))
    assert isinstance(subsampling, Subsampling) and isinstance(conformer, Conformer)
    context = AttentionContext(style="chunked", left=28, right=right)
    mel, counts = torch.randn(2, 80, 403, generator=torch.Generator().manual_seed(3)), torch.tensor([403, 260])
    with torch.no_grad():
        whole, lengths, _ = subsampling(mel, counts)
        whole, _ = conformer(whole, lengths, context)
        sub_state = subsampling.initial_state(2, CPU, torch.float32)
        state = conformer.initial_state(2, context, CPU, torch.float32)
        parts, heard, start, end = [], torch.zeros(2, dtype=torch.int64), 0, 1 + 8 * right
        while start < 403:
            chunk = mel[..., start:end]
            x, x_lengths, sub_state = subsampling(chunk, (counts - start).clamp(0, chunk.shape[-1]), sub_state)
            x, state = conformer(x, x_lengths, context, state)
            parts.append(x)
            heard = heard + x_lengths
            start, end = end, end + 8 * (right + 1)
    streamed = torch.cat(parts, dim=1)
    assert heard.tolist() == lengths.tolist() == [52, 34]
    for item, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(streamed[item, :length], whole[item, :length], atol=5e-5, rtol=0)


def test_a_state_of_another_context_is_refused() -> None:
    _, conformer = build(streaming=True)
    state = conformer.initial_state(1, AttentionContext(style="chunked", left=8, right=3), CPU, torch.float32)
    with pytest.raises(ValueError, match="got 8 frames of past"):
        conformer(torch.zeros(1, 4, 32), torch.tensor([4]), AttentionContext(style="chunked", left=4, right=3), state)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.elements = max(self.elements, out.numel())
        return out


def test_memory_of_local_attention_grows_with_time_and_not_its_square() -> None:
    conformer = Conformer(ConformerShape(width=8, layers=1, heads=2, kernel=3)).eval()
    context = AttentionContext(style="local", left=32, right=32, global_tokens=1)

    def largest(frames: int) -> int:
        with LargestTensor() as mode, torch.no_grad():
            conformer(torch.randn(1, frames, 8), torch.tensor([frames]), context)
        return mode.elements

    assert largest(16_384) <= 2 * largest(8_192)
    assert largest(8_192) < 8_192 * 8_192 / 100
