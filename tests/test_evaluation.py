"""Error rates as jiwer counts them, their intervals, tests of differences, and results of several conditions."""

from __future__ import annotations

import random
from pathlib import Path

import jiwer
import numpy as np
import pytest

from avsr.errors import DataError
from avsr.evaluation.conditions import Condition
from avsr.evaluation.results import Results, Spoken, make_cell, read_results
from avsr.evaluation.statistics import (
    aligned_words,
    count_errors,
    error_rate,
    intervals,
    paired_test,
    resampled_rates,
    resampling,
    snr_gain_db,
    word_error_rate,
)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("a b c", "a b c", (3, 0, 0, 0, 5, 0)),
        ("a b c", "a x c", (2, 1, 0, 0, 5, 1)),
        ("a b c", "", (0, 0, 3, 0, 5, 5)),
        ("a", "a b c", (1, 0, 0, 2, 1, 4)),
        ("", "a b", (0, 0, 0, 2, 0, 3)),
        ("", "", (0, 0, 0, 0, 0, 0)),
        ("a b c d", "b c d a", (3, 0, 1, 1, 7, 4)),
    ],
)
def test_counts_by_hand(reference: str, hypothesis: str, expected: tuple[int, ...]) -> None:
    assert count_errors(reference, hypothesis) == expected


def random_text(source: random.Random) -> str:
    """Few words, so that they meet; any white space between and around them; often empty."""
    words = source.choices(["a", "b", "ab", "ü", "don't"], k=source.choice([0, 0, 1, 2, 3, 6]))
    return (
        source.choice(["", " ", "\t"]) + source.choice([" ", "  ", "\t", "\n "]).join(words) + source.choice(["", " "])
    )


def test_rates_equal_jiwers_on_any_strings() -> None:
    source = random.Random(1)
    for _ in range(300):
        references = [random_text(source) for _ in range(source.randint(1, 4))]
        hypotheses = [random_text(source) for _ in references]
        counts = [count_errors(r, h) for r, h in zip(references, hypotheses, strict=True)]
        words, characters = sum(c.words for c in counts), sum(c.characters for c in counts)
        wer = error_rate(sum(c.errors for c in counts), words)
        cer = error_rate(sum(c.character_errors for c in counts), characters)
        assert wer == pytest.approx(100 * jiwer.wer(references, hypotheses), abs=1e-9), (references, hypotheses)
        assert cer == pytest.approx(100 * jiwer.cer(references, hypotheses), abs=1e-9), (references, hypotheses)


def test_aligned_words_hold_all_words_and_all_errors() -> None:
    assert aligned_words("a b c d", "a x c") == [("a", "a"), ("b", "x"), ("c", "c"), ("d", "")]
    source = random.Random(2)
    for _ in range(100):
        reference, hypothesis = (" ".join(random_text(source).split()) for _ in range(2))
        pairs = aligned_words(reference, hypothesis)
        assert [left for left, _ in pairs if left] == reference.split()
        assert [right for _, right in pairs if right] == hypothesis.split()
        assert sum(left != right for left, right in pairs) == count_errors(reference, hypothesis).errors


def test_rate_equals_jiwer_and_lies_in_its_interval() -> None:
    references = ["a b c", "d e", "f g h i", "a a"] * 10
    hypotheses = ["a b", "d e", "f x h i j", "a a"] * 10
    rate = word_error_rate(references, hypotheses)
    assert rate.percent == pytest.approx(100 * jiwer.wer(references, hypotheses))
    assert rate.low < rate.percent < rate.high
    assert (rate.utterances, rate.words) == (40, 110)
    assert rate == word_error_rate(references, hypotheses)


def test_no_errors_and_nothing() -> None:
    assert word_error_rate(["a"], ["a"])[:3] == (0.0, 0.0, 0.0)
    assert word_error_rate(["", "a"], ["", "a"]).percent == 0.0
    with pytest.raises(ValueError, match="no utterance"):
        word_error_rate([], [])


def test_resampled_rates_are_those_of_the_drawn_utterances() -> None:
    weights = resampling(7, 50)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    errors, words = np.arange(14.0).reshape(2, 7), np.arange(1.0, 8.0)
    drawn = np.repeat(np.arange(7), weights[3].astype(int))
    expected = 100 * errors[1, drawn].sum() / words[drawn].sum()
    assert resampled_rates(errors, words, weights)[1, 3] == pytest.approx(expected)


def test_intervals_cover_the_truth() -> None:
    """Of 200 samples from a known error rate about 95 % of the intervals hold it."""
    source = np.random.default_rng(1)
    errors = source.binomial(6, 0.2, (200, 100)).astype(float)
    low, high = intervals(errors, np.full(100, 6.0), resampling(100, 1000))
    covered = np.mean((low <= 20) & (high >= 20))
    assert 0.90 <= covered <= 0.98


def test_chance_alone_is_rarely_called_a_difference() -> None:
    """A family of ten conditions without any difference, 200 times: each test errs in 5 % of cases, as a family too."""
    source = np.random.default_rng(2)
    words, weights = np.full(60, 6.0), resampling(60, 500)
    alone = family = 0
    for _ in range(200):
        hard = source.uniform(0, 0.5, 60)  # the same utterances are hard for both
        a, b = (source.binomial(6, hard, (10, 60)).astype(float) for _ in range(2))
        result = paired_test(a, b, words, weights)
        alone += int((result.p <= 0.05).sum())
        family += int((result.p_family <= 0.05).any())
    assert 0.02 <= alone / 2000 <= 0.08
    assert family / 200 <= 0.09


def test_real_differences_are_found() -> None:
    source = np.random.default_rng(3)
    a = source.binomial(6, 0.3, (3, 80)).astype(float)
    b = a.copy()
    b[0] = np.maximum(a[0] - 1, 0)  # clearly better
    b[2, :3] += 1  # three errors more: may be chance
    result = paired_test(a, b, np.full(80, 6.0), resampling(80, 2000))
    assert result.p_family[0] < 0.01
    assert result.low[0] < result.difference[0] < result.high[0] < 0
    assert (result.difference[1], result.p[1], result.p_family[1]) == (0.0, 1.0, 1.0)
    assert result.p[2] >= 0.25  # 2^(1 - 3)
    assert (result.p_family >= result.p).all()


def test_one_utterance_proves_nothing() -> None:
    result = paired_test(np.array([[0.0]]), np.array([[5.0]]), np.array([6.0]), resampling(1, 100))
    assert (result.p[0], result.p_family[0]) == (1.0, 1.0)


def test_snr_gain_is_read_off_between_levels() -> None:
    levels_db = [-10.0, -5.0, 0.0, 5.0]
    heard = [80.0, 60.0, 30.0, 10.0]
    assert snr_gain_db(levels_db, heard, heard, 0.0) == 0.0
    assert snr_gain_db(levels_db, heard, [50.0, 40.0, 20.0, 5.0], 0.0) == pytest.approx(2.5)
    assert snr_gain_db(levels_db, heard, [9.0, 8.0, 7.0, 6.0], 5.0) == 15.0  # at least: there is no lower level
    assert snr_gain_db(levels_db, heard, [90.0, 70.0, 40.0, 20.0], 0.0) == pytest.approx(-2.5)
    assert snr_gain_db(levels_db, heard, [99.0, 98.0, 97.0, 96.0], 0.0) == -5.0
    with pytest.raises(ValueError, match="got 1 dB, expected one of the levels"):
        snr_gain_db(levels_db, heard, heard, 1.0)


def test_n_wer_is_av_huberts_where_its_noises_are_there() -> None:
    spoken = [Spoken("one", "a b c d", 1.0)]
    cells = {}
    for errors, noise in enumerate(("babble", "speech", "music", "noise", "white")):
        for snr_db in (-10.0, -5.0, 0.0, 5.0, 10.0, 20.0):
            text = " ".join("abcd"[errors:]) if snr_db < 20 else ""
            cells[Condition("av", noise, snr_db, "intact", 1)] = make_cell(spoken, [text], [snr_db], [1.0])
    found = Results.make({}, spoken, cells).n_wer("av")
    assert found is not None
    assert found[0].percent == pytest.approx((0 + 25 + 50 + 75) / 4)
    assert found[1] == ("babble", "speech", "music", "noise")


def test_results_that_are_none(tmp_path: Path) -> None:
    for content, message in (
        ("{", "cannot read the results"),
        ('{"schema": 9}', "results of another version: got 9"),
        ('{"schema": 1}', "not the results of an evaluation"),
        ("[]", "not the results of an evaluation"),
    ):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(DataError, match=message):
            read_results(tmp_path)
