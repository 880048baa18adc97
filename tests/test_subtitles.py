"""Subtitles of random transcripts: what holds for every one of them, and the layout that callers choose."""

from __future__ import annotations

import html
import random
import re
import unicodedata

import pytest

from avsr import ConfigError, Segment, Transcript
from avsr.cli.main import main
from avsr.output import Layout, render
from avsr.output.subtitles import MAX_DELAY_MS, MIN_CUE_MS, READ_COLUMNS_PER_S, Cue, cues
from avsr.text import columns, is_unspaced
from tests.test_output import read_cues, word

SCRIPTS = {
    "latin": "a I don't place- blue. incomprehensibilities re-evaluation, <i> & --> 1 WEBVTT NOTE".split(),
    "korean": "네 안녕하세요 반갑습니다 이야기를 GPU를".split(),
    "japanese": ["今日", "は", "とても", "いい", "天気です", "。", "カタカナ"],
    "chinese": ["你好", "世界", "，", "我们今天在这里讨论这个问题"],
    "mixed": ["👩‍👩‍👧", "🇰🇷", "👍🏽", "שלום", "مرحبا", "ไทย", "e\u0301te\u0301", "x" * 60, "가" * 70, "two words"],
    "hostile": ["line\nbreak", "\n\n", "a\r\nb", "nul\0", "\x1b[31m", "tab\tbed", "", " ", "\u2028", "-->", "<u>x</u>"],
}


def random_transcript(seed: int) -> Transcript:
    """Words of one or more scripts, at a pace between zero time and slow, with overlaps, pauses and several faces."""
    choose = random.Random(seed)
    texts = [text for name in choose.sample(list(SCRIPTS), choose.randint(1, 3)) for text in SCRIPTS[name]]
    pace_s = choose.choice([0.0, 0.02, 0.1, 0.3, 1.0])
    faces = choose.choice([(None,), (0,), (None, 0), (0, 1), (None, 0, 1, 2)])
    now_s, segments = choose.choice([0.0, 5.0, 3599.9]), []
    for _ in range(choose.randint(0, 12)):
        words = []
        for _ in range(choose.choice([1, 1, 2, 5, 30])):
            start_s = max(0.0, now_s - choose.choice([0.0, 0.0, 0.0, 0.2]))
            length_s = choose.choice([0.0, pace_s / 2, pace_s])
            words.append(word(choose.choice(texts), start_s, start_s + length_s, face=choose.choice(faces)))
            now_s += choose.choice([0.0, pace_s, pace_s])
        segments.append(Segment(words=tuple(words)))
        now_s += choose.choice([0.0, 0.05, 0.3, 1.0, 5.0])
    return Transcript(source="x.mp4", duration=now_s, model="m", modality="a", segments=tuple(segments))


def letters(text: str) -> str:
    """A text without spaces, line breaks and control characters, in the form in which subtitles hold it."""
    kept = "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text)
    return "".join(unicodedata.normalize("NFC", kept).split())


def needed_ms(cue: Cue) -> float:
    return max(MIN_CUE_MS, sum(map(columns, cue.lines)) / READ_COLUMNS_PER_S * 1000)


SEEDS = range(300)
LAYOUTS = (Layout(), Layout(max_line_width=20, max_line_count=1), Layout(max_line_width=60, max_line_count=4))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_word_is_lost_moved_or_shown_beyond_the_limits(layout: Layout) -> None:
    for seed in SEEDS:
        text = random_transcript(seed)
        found = cues(text, layout)
        shown = "".join("".join(cue.lines) for cue in found)
        assert letters(shown) == letters("".join(each.word for each in text.words)), seed
        for cue in found:
            assert 1 <= len(cue.lines) <= layout.max_line_count, seed
            for line in cue.lines:
                assert line == line.strip() and line, seed
                is_one_word = " " not in line and not any(map(is_unspaced, line))
                assert columns(line) <= layout.max_line_width or is_one_word, (seed, line)


def test_times() -> None:
    for seed in SEEDS:
        text = random_transcript(seed)
        found = cues(text)
        for cue, following in zip(found, [*found[1:], None], strict=False):
            assert 0 <= cue.start_ms < cue.end_ms, seed
            if following is not None:
                assert cue.end_ms <= following.start_ms, seed
            # Long enough to be seen and read, unless the next cue is due.
            if following is None or following.start_ms > cue.end_ms:
                assert cue.end_ms - cue.start_ms >= needed_ms(cue), seed


def test_a_cue_begins_with_its_first_word_or_a_little_later() -> None:
    for seed in SEEDS:
        choose = random.Random(seed)
        now_s, segments = 0.0, []
        for _ in range(20):
            texts = [f"{len(segments)}-{index}-{'x' * choose.randint(0, 30)}" for index in range(choose.randint(1, 4))]
            words = []
            for text in texts:
                now_s += choose.choice([0.0, 0.1, 0.5])
                words.append(word(text, now_s, now_s + choose.choice([0.0, 0.3]), face=choose.choice([0, 0, 1])))
            segments.append(Segment(words=tuple(words)))
            now_s += choose.choice([0.0, 0.3, 2.0])
        text = Transcript(source="x", duration=now_s, model="m", modality="av", segments=tuple(segments))
        start_ms = {each.word: round(each.start * 1000) for each in text.words}
        for number, cue in enumerate(cues(text)):
            first = start_ms[cue.lines[0].split()[0]]
            # Cues whose words begin at one time follow each other by a millisecond.
            assert first <= cue.start_ms <= first + MAX_DELAY_MS + number, seed


def test_one_word_utterances_do_not_flash_by() -> None:
    """In steady one-word utterances of one face, no cue is shorter than the minimum."""
    for gap_s in (0.1, 0.3, 0.5, 0.7, 0.82, 0.9):
        segments = tuple(Segment(words=(word("yes", i * gap_s, i * gap_s + 0.08),)) for i in range(50))
        found = cues(Transcript(source="x", duration=60.0, model="m", modality="a", segments=segments))
        assert min(cue.end_ms - cue.start_ms for cue in found) >= 800
        assert sum(len(" ".join(cue.lines).split()) for cue in found) == 50


@pytest.mark.parametrize("name", ["srt", "vtt"])
@pytest.mark.parametrize("highlight", [False, True])
def test_files_are_valid_and_hold_the_text(name: str, highlight: bool) -> None:
    for seed in SEEDS:
        text = random_transcript(seed)
        written = render(text, name, Layout(highlight_words=highlight))
        assert not any(unicodedata.category(letter) == "Cc" and letter != "\n" for letter in written), seed
        if not text.words or not letters(text.text):
            assert written == {"srt": "", "vtt": "WEBVTT\n"}[name]
            continue
        found = read_cues(written, name)
        for (_, end, _), (start, _, _) in zip(found, found[1:], strict=False):
            assert end <= start, seed
        if not highlight:
            continue
        plain = [lines for _, _, lines in read_cues(render(text, name), name)]
        bare = [[re.sub("</?u>", "", line) for line in lines] for _, _, lines in found]
        if "<u>" not in text.text:  # a word of the transcript that looks like our mark
            kept = [lines for lines, before in zip(bare, [None, *bare], strict=False) if lines != before]
            assert kept == [lines for lines, before in zip(plain, [None, *plain], strict=False) if lines != before]


def test_highlighted_words_are_the_words_in_order_at_their_times() -> None:
    words = (word("good", 0.25, 0.5), word("a<b", 0.5, 1.0), word("morning", 1.2, 1.2), word("all", 1.5, 2.0))
    text = Transcript(source="x", duration=3.0, model="m", modality="a", segments=(Segment(words=words),))
    assert text.to("vtt", highlight_words=True) == (
        "WEBVTT\n\n"
        "00:00:00.250 --> 00:00:00.500\n<u>good</u> a&lt;b morning all\n\n"
        "00:00:00.500 --> 00:00:01.000\ngood <u>a&lt;b</u> morning all\n\n"
        "00:00:01.000 --> 00:00:01.200\ngood a&lt;b morning all\n\n"
        "00:00:01.200 --> 00:00:01.201\ngood a&lt;b <u>morning</u> all\n\n"
        "00:00:01.201 --> 00:00:01.500\ngood a&lt;b morning all\n\n"
        "00:00:01.500 --> 00:00:02.000\ngood a&lt;b morning <u>all</u>\n"
    )
    for seed in SEEDS:
        random_text = random_transcript(seed)
        marked = render(random_text, "vtt", Layout(highlight_words=True))
        found = [html.unescape(part) for part in re.findall("<u>(.*?)</u>", marked)]
        plain = cues(random_text)
        has_room = all(cue.end_ms - cue.start_ms > 300 for cue in plain)
        if has_room:
            assert letters("".join(found)) == letters("".join(each.word for each in random_text.words)), seed


def test_the_layout_is_the_callers_choice() -> None:
    words = tuple(word(f"word-{i}", float(i), i + 1.0) for i in range(6))
    text = Transcript(source="x", duration=6.0, model="m", modality="a", segments=(Segment(words=words),))
    assert [lines for _, _, lines in read_cues(text.to("srt", max_line_width=13, max_line_count=1), "srt")] == [
        ["word-0 word-1"],
        ["word-2 word-3"],
        ["word-4 word-5"],
    ]
    (cue,) = read_cues(text.to("srt", max_line_width=6, max_line_count=6), "srt")
    assert cue[2] == [f"word-{i}" for i in range(6)]
    assert text.to("srt", max_line_width=10**9) == text.to("srt", max_line_width=41)
    one_each = read_cues(text.to("srt", max_line_width=1, max_line_count=1), "srt")
    assert [lines for _, _, lines in one_each] == [[f"word-{i}"] for i in range(6)]  # narrow letters stay together
    wide = Transcript(
        source="x", duration=2.0, model="m", modality="a", segments=(Segment(words=(word("한국말", 0, 2),)),)
    )
    assert [lines for _, _, lines in read_cues(wide.to("srt", max_line_width=3), "srt")] == [["한", "국"], ["말"]]


def test_a_wrong_layout_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    text = Transcript(source="x", duration=1.0, model="m", modality="a", segments=(Segment(words=(word("a", 0, 1),)),))
    with pytest.raises(ConfigError, match="max_line_width cannot be so: got 0, expected a whole number from 1 on"):
        text.to("srt", max_line_width=0)
    with pytest.raises(ConfigError, match="only subtitles have a layout: got txt, expected srt or vtt"):
        text.to("txt", highlight_words=True)
    for words, message in {
        ("--max-line-width", "30"): "--max-line-width is for subtitles; add --format srt or vtt",
        ("--highlight-words", "-f", "txt"): "--highlight-words is for subtitles; add --format srt or vtt",
        ("-f", "srt", "--max-line-count", "0"): "argument --max-line-count: got '0', expected a whole number from 1 on",
    }.items():
        assert main(["transcribe", "x.mp4", *words]) == 2
        assert message in capsys.readouterr().err


def test_many_short_utterances_take_little_time() -> None:
    """Each utterance is looked at once, however many flash by."""
    segments = tuple(Segment(words=(word("yes", i * 0.05, i * 0.05 + 0.01),)) for i in range(20_000))
    found = cues(Transcript(source="x", duration=1000.0, model="m", modality="a", segments=segments))
    assert sum(len(" ".join(cue.lines).split()) for cue in found) == 20_000
