"""Published streaming models chunk by chunk: equal to our whole pass, and to the stream of the reference."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import avsr
from avsr.nn.context import AttentionContext
from avsr.recognizer import Recognizer
from tests.media import shared_nemo

CPU = torch.device("cpu")
SIZES = [("streaming", 13), ("streaming", 6), ("streaming", 1), ("streaming", 0), ("streaming_hybrid", 13)]


def load(name: str, right: int) -> tuple[Recognizer, AttentionContext]:
    recognizer = avsr.load(shared_nemo(f"{name}.nemo"), device="cpu")
    config = recognizer.model.network.config.audio_encoder
    return recognizer, next(c for c in (config.attention, *config.attention_choices) if c.right == right)


def chunks(frames: int, right: int) -> list[tuple[int, int]]:
    """Mel frames [start, end) of each chunk of a stream: encoder frame j is complete with mel frame 8 j."""
    ends = [*range(1 + 8 * right, frames, 8 * (right + 1)), frames]
    return list(zip([0, *ends[:-1]], ends, strict=True))


@pytest.mark.parametrize(("name", "right"), SIZES)
def test_chunks_equal_the_masked_whole(name: str, right: int) -> None:
    recognizer, context = load(name, right)
    stored = np.load(shared_nemo(f"{name}.npz"))
    for case in ("single", "short"):
        mel, counts = torch.from_numpy(stored[f"{case}.features"]), torch.from_numpy(stored[f"{case}.feat_len"])
        with torch.inference_mode():
            whole, frames = recognizer.model.network(mel, counts, attention=context)[:2]
            state = recognizer.model.network.initial_state(1, CPU, attention=context)
            parts = []
            for start, end in chunks(int(counts[0]), right):
                lengths = torch.tensor([end - start])
                out = recognizer.model.network(mel[..., start:end], lengths, state=state, attention=context)
                parts.append(out.log_probs[:, : int(out.lengths[0])])
                state = out.state
        torch.testing.assert_close(torch.cat(parts, dim=1), whole[:, : int(frames[0])], atol=5e-5, rtol=0)


def as_the_reference_streams(
    recognizer: Recognizer, context: AttentionContext, mel_BFT: Tensor, totals: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Encoder frames and their counts of each step.

    The reference computes the subsampling of each chunk anew from the nine mel frames before it, zeros where there are
    less. After a first chunk of one frame these zeros are not what the inner stages would have seen, so that one frame
    differs from the whole pass; it is computed in the same way here. A tail of less than eight frames is dropped.
    """
    encoder, right = recognizer.model.network.audio_encoder, context.right
    state = encoder.initial_state(len(mel_BFT), CPU, torch.float32, context)
    steps = []
    for index, (start, end) in enumerate(chunks(mel_BFT.shape[-1], right)):
        if index and end - start < 8:
            break
        lengths = (totals - start).clamp(0, end - start)
        x_BTD, frames, subsampling_state = encoder.subsampling(mel_BFT[..., start:end], lengths, state.subsampling)
        if right == 0 and index == 1:
            history_BFT = torch.nn.functional.pad(mel_BFT[..., :end], (8, 0))
            x_BTD = encoder.subsampling(history_BFT, lengths + 9)[0][:, 2:]
        x_BTD, conformer_state = encoder.conformer(x_BTD * encoder.input_scale, frames, context, state.conformer)
        state = type(state)(subsampling_state, conformer_state)
        steps.append((x_BTD, frames))
    return steps


@pytest.mark.parametrize(("name", "right"), SIZES)
def test_chunks_equal_those_of_the_reference(name: str, right: int) -> None:
    recognizer, context = load(name, right)
    offline, stored = np.load(shared_nemo(f"{name}.npz")), np.load(shared_nemo(f"{name}.stream.npz"))
    streams: list[dict[str, Any]] = json.loads(shared_nemo(f"{name}.json").read_text())["streaming"]
    compared = 0
    for stream in streams:
        if stream["pad_and_drop_preencoded"] or stream["att_context_size"] != [context.left, right]:
            continue
        tag = stream["tag"]
        with torch.inference_mode():
            steps = as_the_reference_streams(
                recognizer,
                context,
                torch.from_numpy(offline[f"{stream['case']}.features"]),
                torch.tensor(stream["streams_length"]),  # one frame more than the valid ones
            )
            assert [frames.tolist() for _, frames in steps] == [step["out_lengths"] for step in stream["steps"]]
            for index, (x_BTD, frames) in enumerate(steps):
                key = f"{tag}.step{index}.encoder"
                if key in stored:
                    wanted = torch.from_numpy(stored[key]).transpose(1, 2)
                    for item, count in enumerate(frames.tolist()):
                        torch.testing.assert_close(x_BTD[item, :count], wanted[item, :count], atol=5e-5, rtol=0)
            for item, count in enumerate(stored[f"{tag}.out_len"].tolist()):
                heard_TD = torch.cat([x_BTD[item, : int(frames[item])] for x_BTD, frames in steps])
                log_probs_TV = recognizer.model.network.audio_head(heard_TD)
                assert len(log_probs_TV) == count
                wanted = torch.from_numpy(stored[f"{tag}.log_probs"])[item, :count]
                torch.testing.assert_close(log_probs_TV, wanted, atol=1e-4, rtol=0)
                compared += 1
    assert compared
