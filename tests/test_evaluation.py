"""Word error rate as jiwer counts it, and its interval."""

from __future__ import annotations

import jiwer
import pytest

from avsr.evaluation.wer import word_error_rate, word_errors


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a x c", 1),
        ("a b c", "", 3),
        ("a", "a b c", 2),
        ("", "a b", 2),
        ("", "", 0),
        ("a b c d", "b c d a", 2),
    ],
)
def test_errors_by_hand(reference: str, hypothesis: str, errors: int) -> None:
    assert word_errors(reference, hypothesis) == (errors, len(reference.split()))


def test_rate_equals_jiwer_and_lies_in_its_interval() -> None:
    references = ["a b c", "d e", "f g h i", "a a"] * 10
    hypotheses = ["a b", "d e", "f x h i j", "a a"] * 10
    rate = word_error_rate(references, hypotheses)
    assert rate.percent == pytest.approx(100 * jiwer.wer(references, hypotheses))
    assert rate.low < rate.percent < rate.high
    assert (rate.utterances, rate.words) == (40, 110)
    assert rate == word_error_rate(references, hypotheses)


def test_no_errors_and_no_words() -> None:
    assert word_error_rate(["a"], ["a"])[:3] == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="no word"):
        word_error_rate([""], ["a"])
    with pytest.raises(ValueError, match="no word"):
        word_error_rate([], [])
