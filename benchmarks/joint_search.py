"""Time of the joint CTC/attention search at the full size of published models, by part.

    python benchmarks/joint_search.py --threads 2
    python benchmarks/joint_search.py --threads 2 --frames 100 --steps 12

Random weights: a decoder of 6 blocks, 768 wide, 12 heads, for 5049 units, and CTC rows with one sure unit in 8 frames.
Only the time counts; a random decoder ends no text, so that every step has a full beam. The times are milliseconds a
step. "product" is the time that the decoder's matrix products alone take for one step, measured after each search: on a
busy machine only the ratio to it means anything. Medians of all rounds.

The decoder computes keys and values of the encoder once. Hypotheses share most of their units, so its state holds each
unit of the tree of hypotheses once, and says which of them belong to which hypothesis.

Letters: B hypotheses, N heads, K width of a head, D width, T frames, M units of the tree.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from avsr.decoding.ctc_prefix import CTCPrefixScorer
from avsr.decoding.joint import PRE_BEAM, JointSettings, beam_search
from avsr.decoding.scorers import Part, Scorer
from avsr.nn.packing import PackedWeight

VOCABULARY, WIDTH, HEADS, INNER, DEPTH = 5049, 768, 12, 3072, 6


class TreeState(NamedTuple):
    """The units of all hypotheses, each once."""

    keys: list[Tensor]
    """[M, D] for each block."""
    values: list[Tensor]
    is_own_BM: Tensor
    """Which units belong to which hypothesis."""


class Block:
    """One block of the decoder for one utterance."""

    def __init__(self, encoder_TD: Tensor) -> None:
        self.qkv = random_linear(WIDTH, 3 * WIDTH)
        self.out, self.source_query, self.source_out = (random_linear(WIDTH, WIDTH) for _ in range(3))
        self.inner, self.outer = random_linear(WIDTH, INNER), random_linear(INNER, WIDTH)
        self.source_NKT = in_heads(random_linear(WIDTH, WIDTH)(encoder_TD)).transpose(1, 2).contiguous()
        self.source_NTK = in_heads(random_linear(WIDTH, WIDTH)(encoder_TD)).contiguous()

    def products(self) -> list[PackedWeight]:
        return [self.qkv, self.out, self.source_query, self.source_out, self.inner, self.outer]

    def step(self, x_BD: Tensor, keys_MD: Tensor, values_MD: Tensor, mask_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query_BD, key_BD, value_BD = self.qkv(norm(x_BD)).chunk(3, dim=-1)
        keys_MD, values_MD = torch.cat((keys_MD, key_BD)), torch.cat((values_MD, value_BD))
        x_BD = x_BD + self.out(attend(query_BD, in_heads(keys_MD).transpose(1, 2), in_heads(values_MD), mask_BM))
        x_BD = x_BD + self.source_out(attend(self.source_query(norm(x_BD)), self.source_NKT, self.source_NTK))
        return x_BD + self.outer(self.inner(norm(x_BD), "relu")), keys_MD, values_MD


class RandomDecoder:
    """A `Scorer` of full size."""

    def __init__(self, frames: int) -> None:
        encoder_TD = torch.randn(frames, WIDTH)
        self.blocks = [Block(encoder_TD) for _ in range(DEPTH)]
        self.embedding_VD = torch.randn(VOCABULARY, WIDTH)
        self.output = random_linear(WIDTH, VOCABULARY)

    def initial_state(self, batch: int) -> TreeState:
        empty = [torch.zeros(0, WIDTH) for _ in self.blocks]
        return TreeState(empty, empty, torch.zeros(batch, 0, dtype=torch.bool))

    def score(self, last_B: Any, state: TreeState) -> tuple[Any, TreeState]:
        x_BD = self.embedding_VD[torch.from_numpy(last_B)]
        mask_BM = torch.cat((state.is_own_BM, torch.eye(len(x_BD), dtype=torch.bool)), dim=1)
        keys, values = [], []
        for block, keys_MD, values_MD in zip(self.blocks, state.keys, state.values, strict=True):
            x_BD, keys_MD, values_MD = block.step(x_BD, keys_MD, values_MD, mask_BM)
            keys.append(keys_MD)
            values.append(values_MD)
        log_probs_BV = self.output(norm(x_BD)).log_softmax(dim=-1)
        return log_probs_BV.numpy(), TreeState(keys, values, mask_BM)

    def select(self, state: TreeState, kept_B: Any) -> TreeState:
        mask_BM = state.is_own_BM[torch.from_numpy(kept_B)]
        used_M = mask_BM.any(dim=0).nonzero()[:, 0]
        keys, values = ([x_MD[used_M] for x_MD in many] for many in (state.keys, state.values))
        return TreeState(keys, values, mask_BM[:, used_M])


def in_heads(x_MD: Tensor) -> Tensor:
    """[M, D] -> [N, M, K]."""
    return x_MD.unflatten(-1, (HEADS, -1)).transpose(0, 1)


def attend(query_BD: Tensor, keys_NKM: Tensor, values_NMK: Tensor, mask_BM: Tensor | None = None) -> Tensor:
    scores_NBM = in_heads(query_BD) @ keys_NKM * (WIDTH // HEADS) ** -0.5
    if mask_BM is not None:
        scores_NBM = scores_NBM.masked_fill(~mask_BM, -torch.inf)
    return (scores_NBM.softmax(dim=-1) @ values_NMK).transpose(0, 1).flatten(1)


def norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def random_linear(size_in: int, size_out: int) -> PackedWeight:
    return PackedWeight(torch.randn(size_out, size_in) * size_in**-0.5, torch.zeros(size_out))


class Timed:
    """A scorer that notes how long its calls take."""

    def __init__(self, scorer: Scorer[Any]) -> None:
        self._scorer = scorer
        self.seconds = 0.0

    def initial_state(self, batch: int) -> Any:
        return self._timed(self._scorer.initial_state, batch)

    def score(self, last_B: Any, state: Any) -> Any:
        return self._timed(self._scorer.score, last_B, state)

    def select(self, state: Any, kept_B: Any) -> Any:
        return self._timed(self._scorer.select, state, kept_B)

    def _timed(self, function: Any, *arguments: Any) -> Any:
        begin = time.perf_counter()
        result = function(*arguments)
        self.seconds += time.perf_counter() - begin
        return result


def ctc_rows(frames: int, rng: np.random.Generator) -> Any:
    """Log-probabilities [T, V] as CTC networks give them: sure blanks, and a sure unit in every eighth frame."""
    logits = rng.normal(size=(frames, VOCABULARY)).astype(np.float32) * 2
    logits[:, 0] += 15
    logits[4::8, 0] -= 15
    spoken = range(4, frames, 8)
    logits[spoken, rng.integers(1, VOCABULARY - 1, len(spoken))] += 15
    return torch.from_numpy(logits).log_softmax(dim=-1).numpy()


def product_seconds(decoder: RandomDecoder, beam: int) -> float:
    inputs = {size: torch.randn(beam, size) for size in (WIDTH, INNER)}
    begin = time.perf_counter()
    for block in decoder.blocks:
        for weight in block.products():
            weight(inputs[INNER if weight is block.outer else WIDTH])
    decoder.output(inputs[WIDTH])
    return time.perf_counter() - begin


def measured(decoder: RandomDecoder, rows_TV: Any, beam: int, steps: int) -> dict[str, float]:
    """Milliseconds a step of one search, by part."""
    timed = {"decoder": Timed(decoder), "ctc": Timed(CTCPrefixScorer(rows_TV, 0, VOCABULARY - 1))}
    parts = [Part("decoder", timed["decoder"], 0.9), Part("ctc", timed["ctc"], 0.1)]
    begin = time.perf_counter()
    found = beam_search(parts, VOCABULARY - 1, steps, JointSettings(beam), int(PRE_BEAM * beam))
    whole = time.perf_counter() - begin
    seconds = {name: scorer.seconds for name, scorer in timed.items()}
    seconds = {**seconds, "rest": whole - sum(seconds.values()), "whole": whole}
    product = product_seconds(decoder, beam)
    return {**{name: value / found.steps * 1000 for name, value in seconds.items()}, "product": product * 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=250, help="encoder frames, 25 a second")
    parser.add_argument("--steps", type=int, default=30, help="units of the longest text")
    parser.add_argument("--beam", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows_TV = ctc_rows(args.frames, np.random.default_rng(0))
    with torch.inference_mode():
        decoder = RandomDecoder(args.frames)
        measured(decoder, rows_TV, args.beam, 3)  # the first calls of any kernel are slow
        rounds = [measured(decoder, rows_TV, args.beam, args.steps) for _ in range(args.rounds)]
    print(f"{args.frames} frames, {args.steps} steps, beam {args.beam}, {args.threads} threads: ms a step")
    for name in rounds[0]:
        values = [row[name] for row in rounds]
        print(f"{name:>8} {statistics.median(values):8.1f}  ({min(values):.1f} to {max(values):.1f})")


if __name__ == "__main__":
    main()
