"""Text in any script: one form, words put together, width in columns, characters that stay whole."""

from __future__ import annotations

import unicodedata

import pytest

from avsr.text import characters, columns, join_words, may_break, one_line, pad, unbreakable_parts

KOREAN_OLD = "\u1112\u119e\u11ab"  # old Korean, for which Unicode has no single character
FLAG, OTHER_FLAG = "\U0001f1f0\U0001f1f7", "\U0001f1ef\U0001f1f5"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


def test_one_line_is_composed_and_has_single_spaces() -> None:
    assert one_line(unicodedata.normalize("NFD", "  안녕\u3000하세요,\n caf\u00e9\t ")) == "안녕 하세요, caf\u00e9"
    assert one_line(" \n ") == ""


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("we don't know", "we don't know"),
        ("네 OK 그래요", "네 OK 그래요"),
        ("今日 は 晴れ です 。", "今日は晴れです。"),
        ("カタ カナ ｶﾅ", "カタカナｶﾅ"),
        ("你好, 我 是 “王” 。", "你好,我是“王”。"),
        ("สวัสดี ครับ", "สวัสดีครับ"),
        ("ສະບາຍ ດີ", "ສະບາຍດີ"),
        ("ជំរាប សួរ", "ជំរាបសួរ"),
        ("မင်္ဂလာ ပါ", "မင်္ဂလာပါ"),
        ("東京 2020 年 GPU です", "東京 2020 年 GPU です"),
    ],
)
def test_words_have_spaces_where_their_script_has_them(words: str, text: str) -> None:
    assert join_words(words.split()) == text


def test_a_text_of_texts_is_the_text_of_all_words() -> None:
    first, second = ["今日", "は", "OK"], ["네", "今日", "は"]
    assert join_words([join_words(first), join_words(second)]) == join_words(first + second)
    assert join_words(["a", "", "b", ""]) == "a b"
    assert join_words([]) == ""


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("hello", 5),
        ("안녕", 4),
        ("日本ゴ", 6),
        ("ﾆﾎﾝ", 3),
        ("Ａ", 2),
        ("e\u0301", 1),
        (unicodedata.normalize("NFD", "한"), 2),
        (KOREAN_OLD, 2),
        ("กำ", 2),
        ("ที่", 1),
        ("a\u200bb\n", 2),
        ("🙂", 2),
    ],
)
def test_columns(text: str, width: int) -> None:
    assert columns(text) == width
    assert pad(text, 7) == text + " " * (7 - width)
    assert pad(text, 0) == text


@pytest.mark.parametrize(
    "expected",
    [
        ["한", "국"],
        [KOREAN_OLD, "가"],
        list(map(lambda text: unicodedata.normalize("NFD", text), "각나")),
        ["e\u0301", "a"],
        [FLAG, OTHER_FLAG],
        [FAMILY, "👍🏽"],
        ["กำ", "ที่"],
        ["ខ្មែ", "រ"],
        ["\u200da"],
    ],
)
def test_characters_stay_whole(expected: list[str]) -> None:
    assert characters("".join(expected)) == expected


def test_where_a_line_may_end() -> None:
    assert unbreakable_parts("「東京」へ、行くー。") == ["「東", "京」", "へ、", "行", "くー。"]
    assert unbreakable_parts("한국인ㅋ") == ["한", "국", "인", "ㅋ"]
    assert unbreakable_parts("abc def-ghi") == ["abc def-ghi"]
    assert unbreakable_parts("日本abc語") == ["日", "本abc語"]
    assert unbreakable_parts("🙂👍🏽") == ["🙂", "👍🏽"]
    assert unbreakable_parts("") == []
    assert not may_break("", "東") and not may_break("東", "")
