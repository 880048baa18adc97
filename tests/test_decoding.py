"""Units, greedy search and alignment, on log-probabilities that can be checked by hand."""

from __future__ import annotations

import itertools

import pytest
import torch

from avsr.decoding.alignment import align, align_greedy
from avsr.decoding.greedy import greedy
from avsr.decoding.tokenizer import SentencePieceTokenizer, WordTokenizer
from avsr.errors import DataError, ModelError


def peaked(path: list[int], size: int, probability: float = 0.9) -> torch.Tensor:
    """Log-probabilities whose best unit at each frame is the given one."""
    probs = torch.full((len(path), size), (1 - probability) / (size - 1))
    probs[torch.arange(len(path)), torch.tensor(path)] = probability
    return probs.log()


def test_greedy_merges_repeats_and_drops_blanks() -> None:
    assert greedy(peaked([3, 0, 0, 3, 0, 1, 1, 2, 3], 4), blank_id=3) == [0, 0, 1, 2]
    assert greedy(peaked([3, 3], 4), blank_id=3) == []
    assert greedy(torch.zeros(0, 4), blank_id=3) == []


def test_alignment_finds_frames_and_confidence() -> None:
    units = align(peaked([3, 0, 0, 3, 1, 3], 4), [0, 1], blank_id=3)
    assert [(u.unit, u.first, u.end) for u in units] == [(0, 1, 3), (1, 4, 5)]
    assert units[0].confidence == pytest.approx(0.9)


def test_alignment_is_the_best_of_all_paths() -> None:
    log_probs = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    wanted = [2, 0]
    best = max(
        (path for path in itertools.product(range(4), repeat=7) if _collapse(path) == wanted),
        key=lambda path: sum(float(log_probs[t, u]) for t, u in enumerate(path)),
    )
    units = align(log_probs, wanted, blank_id=3)
    assert [(u.unit, u.first) for u in units] == [(2, best.index(2)), (0, best.index(0))]


def _collapse(path: tuple[int, ...]) -> list[int]:
    return [unit for unit, _ in itertools.groupby(path) if unit != 3]


def test_alignment_needs_enough_frames() -> None:
    with pytest.raises(ValueError, match="got 2 frames, expected at least 3"):
        align(peaked([0, 0], 4), [0, 0], blank_id=3)


def test_long_alignment_in_pieces_equals_greedy_and_keeps_time() -> None:
    path = ([3] * 10 + [0, 0, 3, 1, 2] + [3] * 2 + [2]) * 300
    log_probs = peaked(path, 4)
    units = align_greedy(log_probs, blank_id=3)
    assert [u.unit for u in units] == greedy(log_probs, blank_id=3)
    assert (units[0].first, units[0].end) == (10, 12)
    assert units[-1].first == len(path) - 1
    assert all(a.end <= b.first for a, b in itertools.pairwise(units))


def test_a_pause_between_equal_words_keeps_both() -> None:
    units = align_greedy(peaked([0, 3, 0, 3, 3, 3, 3, 3, 0], 4), blank_id=3)
    assert [u.first for u in units] == [0, 2, 8]


def test_nothing_said() -> None:
    assert align_greedy(peaked([3] * 20, 4), blank_id=3) == []
    assert align_greedy(torch.zeros(0, 4), blank_id=3) == []


def test_tokenizer() -> None:
    tokenizer = WordTokenizer(["bin", "blue", "soon"])
    assert tokenizer.encode("soon bin") == [2, 0]
    assert tokenizer.decode([2, 0]) == "soon bin"
    with pytest.raises(DataError, match="'blu' is not in the vocabulary of 3 words; did you mean 'blue'"):
        tokenizer.encode("blu")
    with pytest.raises(ModelError, match="vocabulary is wrong"):
        WordTokenizer(["a", "a"])


def test_pieces_of_words() -> None:
    from tests.nemo_archive import tokenizer_model

    tokenizer = SentencePieceTokenizer(tokenizer_model())
    ids = tokenizer.encode("the quiet teacher paints a boat")
    assert tokenizer.decode(ids) == "the quiet teacher paints a boat"
    groups = tokenizer.word_groups(ids)
    assert [word for word, _, _ in groups] == "the quiet teacher paints a boat".split()
    assert [first for _, first, _ in groups] == [0, *(end for _, _, end in groups[:-1])]
    assert groups[-1][2] == len(ids)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):  # any order of pieces: unknown ones, spaces alone, the middle of a word first
        ids = torch.randint(len(tokenizer), (12,), generator=generator).tolist()
        groups = tokenizer.word_groups(ids)
        assert [word for word, _, _ in groups] == tokenizer.decode(ids).split()
        assert all(first < end for _, first, end in groups)
    assert tokenizer.word_groups([]) == []
    assert tokenizer.word_groups([0, 0]) == [("⁇", 0, 1), ("⁇", 1, 2)]
