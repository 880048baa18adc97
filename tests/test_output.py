"""Output formats: golden texts that can be checked by hand, and independent readers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from avsr import AvsrError, ConfigError, Segment, Transcript, VideoSummary, Word
from avsr.output import FORMATS, render, to_json_line, write
from avsr.output.subtitles import MAX_CUE_LINES, MAX_DELAY_MS, MAX_LINE_COLUMNS, MIN_CUE_MS, Cue, cues
from avsr.text import columns


def word(text: str, start: float, end: float, confidence: float | None = 0.9, face: int | None = None) -> Word:
    return Word(
        word=text, start=start, end=end, confidence=confidence, modality="a" if face is None else "av", face=face
    )


def transcript(*segments: Segment, source: str = "clips/my talk.mp4", **fields: object) -> Transcript:
    known = {
        "duration": 7.0,
        "model": "tiny",
        "modality": "av",
        "video": VideoSummary(fps=25.0, faces=1, coverage=0.98766),
    }
    return Transcript(source=source, segments=segments, **{**known, **fields})  # type: ignore[arg-type]


GREETING = transcript(
    Segment(words=(word("good", 0.25, 0.5, 0.98765, face=0), word("morning", 0.5, 1.0004, face=0))),
    Segment(words=(word("all", 3661.5, 3662.0, 0.5),)),
    warnings=("the picture ends early",),
    language="en",
)
EMPTY = transcript(video=None, modality="a")
HOSTILE = transcript(Segment(words=(word("a-->b", 0.0, 0.5), word("<i>&", 0.5, 1.0), word("x\n\ny\tz", 1.0, 1.5))))


def test_txt() -> None:
    assert render(GREETING, "txt") == "good morning\nall\n"


def test_srt() -> None:
    assert render(GREETING, "srt") == (
        "1\n00:00:00,250 --> 00:00:01,083\ngood morning\n\n2\n01:01:01,500 --> 01:01:02,333\nall\n"
    )


def test_vtt() -> None:
    assert render(GREETING, "vtt") == (
        "WEBVTT\n\n00:00:00.250 --> 00:00:01.083\ngood morning\n\n01:01:01.500 --> 01:01:02.333\nall\n"
    )


def test_tsv() -> None:
    assert render(GREETING, "tsv") == "start\tend\ttext\n250\t1000\tgood morning\n3661500\t3662000\tall\n"


def test_ctm_has_no_blank_inside_a_field() -> None:
    assert render(GREETING, "ctm") == (
        "my_talk 1 0.250 0.250 good 0.988\nmy_talk 1 0.500 0.500 morning 0.900\nmy_talk 1 3661.500 0.500 all 0.500\n"
    )


def test_json_is_schema_2() -> None:
    assert json.loads(render(GREETING, "json")) == {
        "schema": 2,
        "source": "clips/my talk.mp4",
        "duration": 7.0,
        "model": "tiny",
        "language": "en",
        "modality": "av",
        "text": "good morning all",
        "segments": [
            {
                "start": 0.25,
                "end": 1.0,
                "text": "good morning",
                "words": [
                    {"word": "good", "start": 0.25, "end": 0.5, "confidence": 0.988, "modality": "av", "face": 0},
                    {"word": "morning", "start": 0.5, "end": 1.0, "confidence": 0.9, "modality": "av", "face": 0},
                ],
            },
            {
                "start": 3661.5,
                "end": 3662.0,
                "text": "all",
                "words": [
                    {"word": "all", "start": 3661.5, "end": 3662.0, "confidence": 0.5, "modality": "a", "face": None}
                ],
            },
        ],
        "video": {"fps": 25.0, "faces": 1, "coverage": 0.988},
        "warnings": ["the picture ends early"],
        "foreign_words": 0,
        "unsure_words": 0,
    }


def test_an_unknown_confidence_is_null_in_json_and_na_in_ctm() -> None:
    text = transcript(Segment(words=(word("good", 0.25, 0.5, confidence=None),)))
    assert render(text, "ctm") == "my_talk 1 0.250 0.250 good NA\n"
    (segment,) = json.loads(render(text, "json"))["segments"]
    assert segment["words"][0]["confidence"] is None


def test_repr_is_short_and_says_what_a_reader_wants_to_know() -> None:
    assert repr(GREETING.words[0]) == "Word('good' 0.25-0.50 s, confidence 0.99, face 0)"
    assert repr(word("good", 0.25, 0.5, confidence=None)) == "Word('good' 0.25-0.50 s)"
    assert repr(GREETING.segments[0]) == "Segment(0.25-1.00 s, 2 words: 'good morning')"
    assert repr(GREETING) == "Transcript('clips/my talk.mp4' 7.00 s, model 'tiny', 3 words: 'good morning all')"
    many = transcript(Segment(words=tuple(word(f"w{i}", i, i + 1) for i in range(500))))
    assert repr(many).endswith("500 words: 'w0 w1 w2 w3 w4 w5 w6 w7 ...')")
    assert repr(EMPTY).endswith("0 words)")


def test_json_line_is_the_same_object_on_one_line() -> None:
    line = to_json_line(HOSTILE)
    assert line.count("\n") == 1
    assert json.loads(line) == json.loads(render(HOSTILE, "json"))


def test_empty_transcript_is_valid_everywhere() -> None:
    assert {name: render(EMPTY, name) for name in FORMATS if name != "json"} == {
        "txt": "",
        "srt": "",
        "vtt": "WEBVTT\n",
        "tsv": "start\tend\ttext\n",
        "ctm": "",
    }
    content = json.loads(render(EMPTY, "json"))
    assert (content["text"], content["segments"], content["video"], content["language"]) == ("", [], None, None)


@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_text_cannot_end_a_cue_or_start_another(name: str) -> None:
    (cue,) = read_cues(render(HOSTILE, name), name)
    expected = {"srt": "a->b <i>& x y z", "vtt": "a--&gt;b &lt;i&gt;&amp; x y z"}
    assert cue == (0.0, 1.5, [expected[name]])


def test_text_cannot_add_columns() -> None:
    assert render(HOSTILE, "tsv").splitlines()[1].split("\t") == ["0", "1500", "a-->b <i>& x y z"]
    assert [len(line.split(" ")) for line in render(HOSTILE, "ctm").splitlines()] == [6, 6, 6]


def test_long_segment_becomes_balanced_cues() -> None:
    # 24 words of 9 characters: 239 characters, which fill 6 lines of 4 words and so 3 cues of 2 lines.
    words = tuple(word(f"word-{i:04}", float(i), i + 0.5) for i in range(24))
    found = read_cues(render(transcript(Segment(words=words)), "srt"), "srt")
    assert [(start, end) for start, end, _ in found] == [(0.0, 7.5), (8.0, 15.5), (16.0, 23.5)]
    assert [[len(line.split()) for line in lines] for _, _, lines in found] == [[4, 4]] * 3


def test_no_lone_last_word() -> None:
    words = tuple(
        word(text, float(i), i + 0.5) for i, text in enumerate("one two three four five six seven eight nine".split())
    )
    (cue,) = read_cues(render(transcript(Segment(words=words)), "vtt"), "vtt")
    assert cue[2] == ["one two three four five", "six seven eight nine"]  # 44 characters in all; the limit is 42


def test_subtitle_limits_hold_for_any_words() -> None:
    words = tuple(word("m" * (1 + i * 7 % 13), float(i), i + 1.0) for i in range(200))
    found = read_cues(render(transcript(Segment(words=words)), "srt"), "srt")
    assert all(len(lines) <= MAX_CUE_LINES for _, _, lines in found)
    assert all(len(line) <= MAX_LINE_COLUMNS for _, _, lines in found for line in lines)
    assert [text for _, _, lines in found for line in lines for text in line.split()] == [w.word for w in words]


def test_word_longer_than_a_line_stays_whole() -> None:
    segment = Segment(words=(word("see", 0.0, 0.1), word("a" * 60, 0.1, 0.9), word("there", 0.9, 1.0)))
    found = read_cues(render(transcript(segment), "srt"), "srt")
    assert [line for _, _, lines in found for line in lines] == ["see", "a" * 60, "there"]


def spoken(*words: Word) -> list[Cue]:
    return cues(transcript(*(Segment(words=(each,)) for each in words)))


def test_a_short_cue_stays_long_enough_to_be_read() -> None:
    assert [(cue.start_ms, cue.end_ms) for cue in spoken(word("hm", 2.0, 2.08))] == [(2000, 2000 + MIN_CUE_MS)]
    # 30 columns are read in 1.5 s; of two lines, the break between them counts as a space.
    assert [(cue.start_ms, cue.end_ms) for cue in spoken(word("m" * 30, 2.0, 2.5))] == [(2000, 3500)]
    (long,) = cues(transcript(Segment(words=(word("m" * 40, 2.0, 2.1), word("m" * 40, 2.1, 2.2)))))
    assert (long.start_ms, long.end_ms) == (2000, 2000 + 50 * (40 + 1 + 40))
    assert [(cue.start_ms, cue.end_ms) for cue in spoken(word("slow", 2.0, 9.0))] == [(2000, 9000)]


def test_cues_never_overlap() -> None:
    found = spoken(word("yes", 1.0, 1.9), word("no", 1.9, 2.4), word("so", 4.3, 4.5))
    assert [(cue.start_ms, cue.end_ms) for cue in found] == [(1000, 1900), (1900, 2733), (4300, 5133)]
    # Words of two people who talk at the same time.
    found = spoken(word("one", 1.0, 4.0, face=0), word("two", 2.0, 3.0, face=1))
    assert [(cue.start_ms, cue.end_ms) for cue in found] == [(1000, 2000), (2000, 3000)]


def test_a_cue_that_would_flash_by_takes_the_next_words() -> None:
    (cue,) = spoken(word("yes", 1.0, 1.08), word("no", 1.3, 1.4), word("so", 1.3, 1.3), word("oh", 1.2, 3.0))
    assert (cue.start_ms, cue.end_ms, cue.lines) == (1000, 3000, ("yes no so oh",))
    # Another face begins another line.
    (cue,) = spoken(word("yes", 1.0, 1.08, face=0), word("no", 1.3, 1.4, face=1), word("so", 1.4, 1.5, face=1))
    assert (cue.start_ms, cue.end_ms, cue.lines) == (1000, 1000 + MIN_CUE_MS, ("yes", "no so"))
    # The next sentence does not fit, so that it is shared out between two cues.
    sentence = tuple(word(f"word-{i}", 5.2 + i / 2, 5.7 + i / 2) for i in range(12))
    found = cues(transcript(Segment(words=(word("well", 5.0, 5.1),)), Segment(words=sentence)))
    assert [cue.start_ms for cue in found] == [5000, 9200]
    assert [cue.lines[0].split()[0] for cue in found] == ["well", "word-8"]
    # Two faces at one time whose words do not fit together: the second waits a little.
    long = ("m" * 40, "n" * 40)
    turns = [Segment(words=tuple(word(text, 1.0, 3.0, face=face) for text in long)) for face in (0, 1)]
    found = cues(transcript(*turns))
    assert [(cue.start_ms, cue.end_ms) for cue in found] == [(1000, 1000 + MAX_DELAY_MS), (1000 + MAX_DELAY_MS, 5450)]


def test_another_face_starts_a_cue() -> None:
    faces = (None, 0, None, 0, 1, None, 0)
    words = tuple(word(f"w{number}", number, number + 1.0, face=face) for number, face in enumerate(faces))
    found = cues(transcript(Segment(words=words)))
    assert [cue.lines for cue in found] == [("w0 w1 w2 w3",), ("w4 w5",), ("w6",)]
    assert [(cue.start_ms, cue.end_ms) for cue in found] == [(0, 4000), (4000, 6000), (6000, 7000)]


@pytest.mark.parametrize(
    "text", ["안녕하세요 반갑습니다 여러분 오늘은 GPU 이야기를 하겠습니다", "今日 は とても いい 天気 です 。"]
)
def test_lines_are_measured_in_columns(text: str) -> None:
    words = tuple(word(part, float(i), i + 1.0) for i, part in enumerate(text.split() * 20))
    found = cues(transcript(Segment(words=words)))
    lines = [line for cue in found for line in cue.lines]
    assert max(map(columns, lines)) in range(MAX_LINE_COLUMNS - 10, MAX_LINE_COLUMNS + 1)
    assert "".join(lines).replace(" ", "") == "".join(each.word for each in words)
    assert not any(line.startswith("。") for line in lines)
    if " " not in "".join(lines):
        assert "今日はとてもいい天気です。" in "".join(lines)


@pytest.mark.parametrize("text", ["가나다라마바사" * 20, "日本語、" * 40, "ภาษาไทย" * 30])
def test_a_word_wider_than_a_line_breaks_between_its_characters(text: str) -> None:
    found = cues(transcript(Segment(words=(word(text, 10.0, 20.0), word("end", 20.0, 20.5)))))
    lines = [line for cue in found for line in cue.lines]
    assert "".join(lines).replace(" ", "") == text + "end"
    assert max(map(columns, lines)) <= MAX_LINE_COLUMNS
    assert not any(line.startswith("、") for line in lines)
    # The characters share the time of the word evenly.
    shown = [len("".join(cue.lines)) for cue in found]
    assert found[1].start_ms == pytest.approx(10_000 + 10_000 * shown[0] / len(text), abs=400)
    assert all(before.end_ms <= after.start_ms for before, after in zip(found, found[1:], strict=False))


def test_words_without_letters_make_no_cue_and_keep_the_fields_of_ctm() -> None:
    empty = transcript(Segment(words=(word(" ", 0.0, 0.5),)), source="네 talk.mp4")
    assert cues(empty) == []
    assert render(empty, "ctm") == "네_talk 1 0.000 0.500 _ 0.900\n"


def test_every_format_writes_korean_and_japanese_as_they_are_written() -> None:
    text = transcript(
        Segment(words=(word("네", 0.0, 1.0), word("GPU를", 1.0, 2.0))),
        Segment(words=(word("今日", 2.0, 3.0), word("は", 3.0, 4.0))),
        source="강연 1.mp4",
        language="ko",
    )
    assert render(text, "txt") == "네 GPU를\n今日は\n"
    assert render(text, "tsv") == "start\tend\ttext\n0\t2000\t네 GPU를\n2000\t4000\t今日は\n"
    assert render(text, "vtt").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n네 GPU를\n")
    assert render(text, "ctm").splitlines()[1:3] == [
        "강연_1 1 1.000 1.000 GPU를 0.900",
        "강연_1 1 2.000 1.000 今日 0.900",
    ]
    content = json.loads(render(text, "json"))
    assert (content["text"], content["language"]) == ("네 GPU를 今日は", "ko")


def test_unknown_format_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown output format: got 'jsn', expected txt, .*; did you mean json"):
        render(GREETING, "jsn")


def test_transcript_renders_and_saves_itself(tmp_path: Path) -> None:
    GREETING.save(tmp_path / "talk.SRT")
    assert (tmp_path / "talk.SRT").read_text(encoding="utf-8") == GREETING.to("srt")


def test_write_keeps_what_is_there_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    path.write_text("mine")
    with pytest.raises(AvsrError, match=r"talk\.txt: is there already"):
        write(GREETING, path)
    assert path.read_text() == "mine"
    write(GREETING, path, overwrite=True)
    assert path.read_text() == "good morning\nall\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "new/talk.txt",
            "new/talk.txt: cannot be written: got No such file or directory; make the folder .*/new first",
        ),
        ("file/talk.txt", "file/talk.txt: cannot be written: got Not a directory; make the folder .*/file first"),
        ("folder.txt", "folder.txt: cannot be written: got Is a directory"),
        ("a\0b.txt", "cannot be written: got embedded null byte"),
        ("x" * 300 + ".txt", "cannot be written: got File name too long"),
    ],
)
def test_what_cannot_be_written_is_one_error(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(AvsrError, match=message) as error:
        GREETING.save(tmp_path / name, overwrite=True)
    assert "partial" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.txt"]


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(GREETING, tmp_path / "talk.txt")
    assert list(tmp_path.iterdir()) == []


def test_source_name_that_is_not_utf8(tmp_path: Path) -> None:
    source = "caf\udce9.mp4"  # how Python hands over the byte E9
    write(transcript(source=source), tmp_path / "talk.json")
    assert json.loads((tmp_path / "talk.json").read_bytes())["source"] == source


def read_cues(text: str, name: str) -> list[tuple[float, float, list[str]]]:
    """An independent, strict reader of SubRip and WebVTT: start and end in seconds, lines."""
    assert text.endswith("\n")
    blocks = text.removesuffix("\n").split("\n\n")
    if name == "vtt":
        assert blocks.pop(0) == "WEBVTT"
    cues = []
    for number, block in enumerate(blocks, start=1):
        lines = block.split("\n")
        if name == "srt":
            assert lines.pop(0) == str(number)
        mark = "," if name == "srt" else r"\."
        match = re.fullmatch(
            rf"(\d\d):(\d\d):(\d\d){mark}(\d{{3}}) --> (\d\d):(\d\d):(\d\d){mark}(\d{{3}})", lines.pop(0)
        )
        assert match
        assert lines
        assert all(line and "-->" not in line for line in lines)
        times = [int(group) for group in match.groups()]
        start, end = (h * 3600 + m * 60 + s + ms / 1000 for h, m, s, ms in (times[:4], times[4:]))
        assert start < end
        cues.append((start, end, lines))
    return cues
