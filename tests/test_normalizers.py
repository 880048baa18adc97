"""Normalisers: what each of them makes the same, and what it keeps apart."""

from __future__ import annotations

import hashlib
import unicodedata

import pytest

from avsr.errors import ConfigError
from avsr.evaluation.normalizers import NORMALIZERS, find_normalizer
from avsr.evaluation.normalizers.numbers import cardinal, figures_of, read_aloud
from avsr.evaluation.scores import SCORES

HAND_MADE = [
    "Don't, PLEASE: ‘stop’ at 5.",
    "Ünder’s — ...",
    "It's 1969; Mr. Grey's $1,250.50 (25%) won't do & the 21st at 10:05 a.m. isn't 3.14!",
    "In the 1960s one hundred and five of the U.S. organizers realised a hundred colours.",
    "P-I-T-T, oh three 0 twenty second 58,939 QG86",
    "Bin blue at F2, now. Been read to you for",
    "안녕하세요, 3명의 50%는 AI를 don’t.",
    "नमस्ते दुनिया สวัสดี",
    "\x00\n\t<b>|</b> ½ １２",
    "",
]
BEHAVIOUR = {
    "none 1": "221fd6ec0edc",
    "plain 1": "6fc7a5cb5deb",
    "english 1": "7abd548e56d3",
    "spelled 1": "16edf61adb8c",
    "grid 1": "4585c8998990",
    "korean 1": "1c0910048e5c",
    "mixed 1": "1c0910048e5c",
}
"""SHA-256 of what each version of each normaliser makes of `HAND_MADE`, the first 12 digits."""


@pytest.mark.parametrize("name", NORMALIZERS)
def test_behaviour_changes_with_the_version_alone(name: str) -> None:
    normalizer = find_normalizer(name)
    made = hashlib.sha256("\n".join(map(normalizer.apply, HAND_MADE)).encode()).hexdigest()[:12]
    assert BEHAVIOUR.get(f"{name} {normalizer.version}") == made, "raise the version, and add its line here"


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normal_texts_are_composed_and_stay(name: str) -> None:
    normalizer = find_normalizer(name)
    assert normalizer.score in SCORES
    for text in HAND_MADE:
        normal = normalizer.apply(text)
        assert normal == unicodedata.normalize("NFC", normal)
        assert normal == normalizer.apply(unicodedata.normalize("NFD", text))
        # Written once more, nothing changes: hypotheses of a recogniser that writes so already are treated alike.
        assert normalizer.apply(normal) == normal


def test_a_wrong_name_is_one_line() -> None:
    with pytest.raises(ConfigError, match="unknown normaliser: got englsh, expected one of none, .* mean english"):
        find_normalizer("englsh")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none", "As it IS, 5!", "As it IS, 5!"),
        ("plain", "Don't, PLEASE: ‘stop’ at 5.", "don't please stop at 5"),
        ("plain", "Ünder’s — ...", "ünder's"),
        ("plain", "नमस्ते, दुनिया!", "नमस्ते दुनिया"),
        ("korean", "“안녕하세요”, it’s 50%.", "안녕하세요 its 50퍼센트"),
    ],
)
def test_texts_in_any_language(name: str, text: str, expected: str) -> None:
    assert find_normalizer(name).apply(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It's 25.", "it is twenty-five"),
        ("the 21st of May", "The twenty-first of May"),
        ("in 1969, 2005 and 2015", "in nineteen sixty nine two thousand five and twenty fifteen"),
        ("1,969 people", "one thousand nine hundred and sixty-nine people"),
        ("a hundred and five", "105"),
        ("the 1960s and the '70s", "the nineteen sixties and the seventies"),
        ("at 10:30 or 10:05", "at ten thirty or ten oh five"),
        ("10:00 a.m., 9:00", "10 am, nine o'clock"),
        ("$5, $1, $3.5 million", "five dollars one dollar three point five million dollars"),
        ("£2.50", "two pounds and 50 pence"),
        ("3.14 or ½ or 3/4", "three point one four or one half or three quarters"),
        ("25% of R&D", "twenty five per cent of r and d"),
        ("Call 5551234 or 007", "call five five five one two three four or zero zero seven"),
        ("Mr. and Mrs. Smith, Dr. No", "mister and missus smith doctor no"),
        ("the U.S. and the E.U.", "the us and the EU"),
        ("we won't, can't, don't; they'll; I'm; you've", "we will not can not do not they will i am you have"),
        ("the grey colour of the theatre", "the gray color of the theater"),
        ("they realised and travelled", "they realized and traveled"),
    ],
)  # fmt: skip
def test_english_that_is_said_alike_is_the_same(one: str, other: str) -> None:
    english = find_normalizer("english").apply
    assert english(one) == english(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("he'd", "he had"),
        ("John's", "john is"),
        ("prize", "prise"),
        ("size", "sise"),
        ("um yes", "yes"),
        ("1969", "1,969"),
        ("fifteen", "fifty"),
        ("salt and four", "salt four"),
    ],
)
def test_english_that_may_differ_stays_apart(one: str, other: str) -> None:
    english = find_normalizer("english").apply
    assert english(one) != english(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("c m u", "CMU."),
        ("p i t t s b u r g h", "P-I-T-T-S-B-U-R-G-H"),
        ("rubout h a x x n six seven nine one", "Rub out H-A-X-X-N-6-7-9-1."),
        ("two five", "25"),
        ("twenty five", "two five"),
        ("four oh three", "403"),
        ("f y z o", "FYZ0"),
        ("one thousand", "1,000"),
        ("september first nineteen sixty nine", "September 1st, 1969."),
        ("twenty second", "22nd"),
        ("one hundred and twenty", "120"),
        ("four one two six two eight three", "412-6283"),
        ("ten one sixty eight", "10168"),
    ],
)
def test_spelled_text_is_the_same_however_it_is_written(one: str, other: str) -> None:
    spelled = find_normalizer("spelled").apply
    assert spelled(one) == spelled(other)
    assert all(len(unit) == 1 for unit in spelled(one).split())


def test_spelled_text_keeps_other_letters_apart() -> None:
    spelled = find_normalizer("spelled").apply
    assert spelled("b") != spelled("p") and spelled("five") != spelled("nine") and spelled("yes") == "y e s"


def test_grid_sentences_are_those_of_the_corpus() -> None:
    grid = find_normalizer("grid").apply
    assert grid("Been blew buy F2, now.") == "bin blue by f two now"
    assert grid("Place read with J-0 please!") == "place red with j zero please"
    assert grid("Bin Green by you for, please") == "bin green by u four please"
    assert grid("Bim blue") == "bim blue"


def test_numbers_come_back_from_their_words() -> None:
    for value in [*range(0, 1200), 1969, 2005, 9999, 10_000, 58_939, 100_000, 999_999, 1_000_000, 12_345_678]:
        assert figures_of(cardinal(value)) == [str(value)]
    assert figures_of("seven seven fifty two fifty three".split()) == ["7", "7", "52", "53"]
    assert figures_of("no hundred and a half".split()) == "no hundred and a half".split()


def test_any_run_of_figures_has_words() -> None:
    for figures in ("0", "00", "7", "1905", "1900", "2100", "15213", "15200", "9" * 5000):
        assert read_aloud(figures)
    assert read_aloud("15213") == "one five two one three".split()
