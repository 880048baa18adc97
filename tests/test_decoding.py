"""Units, greedy search and alignment, on log-probabilities that can be checked by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torchaudio

from avsr.arrays import LogProbs
from avsr.decoding.alignment import align
from avsr.decoding.greedy import GreedySearch, greedy
from avsr.decoding.search import Spoken
from avsr.decoding.tokenizer import SentencePieceTokenizer, Tokenizer, WordTokenizer
from avsr.errors import DataError, ModelError
from tests.nemo_archive import tokenizer_model


def peaked(path: list[int], size: int, probability: float = 0.9) -> LogProbs:
    """Log-probabilities whose best unit at each frame is the given one."""
    probs = np.full((len(path), size), (1 - probability) / (size - 1), np.float32)
    probs[np.arange(len(path)), path] = probability
    return np.log(probs)


def random_log_probs(frames: int, size: int, seed: int) -> LogProbs:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(frames, size, generator=generator)).log_softmax(-1).numpy()


def decoded(log_probs: LogProbs, words: str = "abcdefgh") -> list[Spoken]:
    """What a greedy search makes of all frames at once; a unit a letter, a second a frame."""
    search = GreedySearch(WordTokenizer(words[: log_probs.shape[1] - 1]), frame_s=1.0)
    return search.words(search.step(log_probs, search.initial_state()))


def test_greedy_merges_repeats_and_drops_blanks() -> None:
    assert greedy(peaked([3, 0, 0, 3, 0, 1, 1, 2, 3], 4), blank_id=3) == [0, 0, 1, 2]
    assert greedy(peaked([3, 3], 4), blank_id=3) == []
    assert greedy(np.zeros((0, 4), np.float32), blank_id=3) == []


def test_alignment_finds_frames_and_confidence() -> None:
    units = align(peaked([3, 0, 0, 3, 1, 3], 4), [0, 1], blank_id=3)
    assert [(u.unit, u.first, u.end) for u in units] == [(0, 1, 3), (1, 4, 5)]
    assert units[0].confidence == pytest.approx(0.9)


def test_alignment_is_the_best_of_all_paths() -> None:
    log_probs = random_log_probs(7, 4, seed=0)
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


def test_alignment_is_that_of_torchaudio() -> None:
    for seed in range(20):
        log_probs = random_log_probs(30, 5, seed)
        units = [0, 0, 1, 3, 3, 2][: 1 + seed % 6]
        path_T, _ = torchaudio.functional.forced_align(
            torch.from_numpy(log_probs)[None], torch.tensor([units], dtype=torch.int32), blank=4
        )
        runs = [(unit, list(group)) for unit, group in itertools.groupby(range(30), key=path_T[0].tolist().__getitem__)]
        expected = [(unit, frames[0], frames[-1] + 1) for unit, frames in runs if unit != 4]
        assert [(u.unit, u.first, u.end) for u in align(log_probs, units, blank_id=4)] == expected


def test_greedy_frames_are_the_forced_alignment_of_what_it_finds() -> None:
    for seed in range(20):
        log_probs = random_log_probs(40, 6, seed)
        units = align(log_probs, greedy(log_probs, blank_id=5), blank_id=5)
        words = decoded(log_probs)
        assert [(u.first, u.end) for u in units] == [(word.start_s, word.end_s) for word in words]
        assert [u.confidence for u in units] == pytest.approx([word.confidence for word in words])


def test_a_search_in_any_chunks_is_the_search_at_once() -> None:
    tokenizer = SentencePieceTokenizer(tokenizer_model())
    search = GreedySearch(tokenizer, frame_s=0.08)
    random = np.random.default_rng(0)
    for seed in range(10):
        log_probs = random_log_probs(60, len(tokenizer) + 1, seed)
        log_probs[random.random(60) < 0.5, -1] = 9.0  # blanks
        at_once = search.words(search.step(log_probs, search.initial_state(7)))
        beam = search.initial_state(7)
        first = 0
        while first < 60:
            end = first + int(random.integers(1, 9))
            before, shown = beam, search.words(beam)
            beam = search.step(log_probs[first:end], beam)
            assert search.words(before) == shown  # the beam that was given is as it was
            first = end
        assert search.words(beam) == at_once
        assert at_once[0].start_s >= 7 * 0.08


def test_settled_words_are_not_decoded_again() -> None:
    search = GreedySearch(WordTokenizer("abc"), frame_s=1.0)
    beam = search.step(peaked([0, 3, 1, 3, 2, 2], 4), search.initial_state())
    assert [word.word for word in beam.words] == ["a", "b"]  # "c" may still grow until its run ends
    assert search.step(peaked([3, 0], 4), beam).words[0] is beam.words[0]


TOKENIZERS = (WordTokenizer("abcde"), SentencePieceTokenizer(tokenizer_model()))


def speech(tokenizer: Tokenizer, seed: int, frames: int = 90) -> LogProbs:
    """Runs of random units, with few or many blanks between them."""
    random = np.random.default_rng(seed)
    blanks = random.choice([0.05, 0.4])
    path: list[int] = []
    while len(path) < frames:
        unit = len(tokenizer) if random.random() < blanks else int(random.integers(len(tokenizer)))
        path += [unit] * int(random.integers(1, 4))
    return peaked(path[:frames], len(tokenizer) + 1)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("seed", range(8))
def test_committed_words_never_change(tokenizer: Tokenizer, seed: int) -> None:
    search = GreedySearch(tokenizer, frame_s=0.08)
    rows, random = speech(tokenizer, seed), np.random.default_rng(seed)
    beam, fixed, first = search.initial_state(), [], 0
    while first < len(rows):
        end = first + int(random.integers(1, 7))
        beam = search.step(rows[first:end], beam)
        assert search.words(beam)[: len(fixed)] == fixed
        fixed = search.words(beam)[: search.committed(beam)]
        assert len(fixed) >= len(search.words(beam)) - 2  # a piece with a space inside can hold two words
        first = end
    assert fixed


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("seed", range(20))
def test_a_cut_is_two_searches(tokenizer: Tokenizer, seed: int) -> None:
    search = GreedySearch(tokenizer, frame_s=0.08)
    rows = speech(tokenizer, seed)
    beam = search.initial_state()
    for first in range(0, len(rows), 7):
        beam = search.step(rows[first : first + 7], beam)
    words, frame, rest = search.cut(beam)
    assert words == search.words(search.step(rows[:frame], search.initial_state()))
    again = search.step(rows[frame:], search.initial_state(frame))
    assert (search.words(rest), search.pause(rest)) == (search.words(again), search.pause(again))
    assert search.cut(rest) == search.cut(again)
    together = [*words, *search.words(rest)]
    assert together == search.words(beam)  # no word is cut in two


def test_without_a_pause_a_cut_takes_all_words() -> None:
    search = GreedySearch(WordTokenizer("abc"), frame_s=1.0)
    words, frame, rest = search.cut(search.step(peaked([3, 0, 0, 1], 4), search.initial_state(5)))
    assert ([word.word for word in words], frame, rest) == (["a", "b"], 9, search.initial_state(9))


def test_pause_is_the_time_since_the_last_unit() -> None:
    search = GreedySearch(WordTokenizer("abc"), frame_s=1.0)
    beam = search.initial_state(10)
    assert search.pause(beam) == 0
    for path, pause in (([3, 3], 2), ([1], 0), ([1, 3], 1), ([3, 3], 3)):
        beam = search.step(peaked(path, 4), beam)
        assert search.pause(beam) == pause


def test_silence_makes_frames_certain_of_nothing() -> None:
    search = GreedySearch(WordTokenizer("abc"), frame_s=1.0)
    log_probs = search.silence(peaked([0, 1, 2], 4), np.array([False, True, False]))
    assert [word.word for word in decoded(log_probs)] == ["a", "c"]
    assert np.isfinite(log_probs).all()


def test_a_pause_between_equal_words_keeps_both() -> None:
    assert [word.start_s for word in decoded(peaked([0, 3, 0, 3, 3, 3, 3, 3, 0], 4))] == [0, 2, 8]


def test_nothing_said() -> None:
    assert decoded(peaked([3] * 20, 4)) == []
    assert decoded(np.zeros((0, 4), np.float32)) == []


def test_tokenizer() -> None:
    tokenizer = WordTokenizer(["bin", "blue", "soon"])
    assert tokenizer.encode("soon bin") == [2, 0]
    assert tokenizer.decode([2, 0]) == "soon bin"
    with pytest.raises(DataError, match="'blu' is not in the vocabulary of 3 words; did you mean 'blue'"):
        tokenizer.encode("blu")
    with pytest.raises(ModelError, match="vocabulary is wrong"):
        WordTokenizer(["a", "a"])


def test_pieces_of_words() -> None:
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
