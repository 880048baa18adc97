"""A session with a model that recognises the last seconds again: updates that are left out, and faces of words."""

from __future__ import annotations

import numpy as np
import pytest

from avsr.arrays import Samples
from avsr.decoding.redecoding import RedecodingSearch
from avsr.decoding.search import Spoken
from avsr.engine import Card, Model
from avsr.errors import ModelError
from avsr.families.whisper.stream import WhisperStream
from avsr.media import read_audio
from avsr.recognizer import Recognizer
from avsr.shipped import ASSETS
from avsr.streaming import Event

BLOCK = 640  # samples: 40 ms
WORD_S = 0.25


class Clockwork:
    """Finds a word for every quarter of a second of the sound. It needs neither weights nor CTranslate2."""

    def __init__(self) -> None:
        self.calls = 0

    def recognize(self, samples: Samples, before: str, language: str | None) -> list[Spoken]:
        self.calls += 1
        count = int(len(samples) / 16_000 / WORD_S)
        return [Spoken(f"{chr(97 + k % 26)}!", k * WORD_S, (k + 1) * WORD_S, 0.9) for k in range(count)]


@pytest.fixture
def clockwork() -> Clockwork:
    return Clockwork()


@pytest.fixture
def recognizer(clockwork: Clockwork) -> Recognizer:
    search = RedecodingSearch(recognize=clockwork.recognize, frame_s=0.08, longest_s=8.0)
    return Recognizer(
        Model(
            card=Card("clockwork", "toy", ("a",), chunks_ms=(400, 800)),
            engine=None,  # type: ignore[arg-type]
            stream=lambda chunk_ms, look_ahead_ms, *, lips, search=None, _search=search: (
                WhisperStream("clockwork", chunk_ms, look_ahead_ms),
                _search,
            ),
        )
    )


@pytest.fixture(scope="module")
def speech() -> Samples:
    return np.ascontiguousarray(read_audio(ASSETS / "demo.mp4")[12_800 : 12_800 + 60 * BLOCK])  # 2.4 s


def test_without_a_chunk_the_model_takes_its_usual_one(recognizer: Recognizer) -> None:
    assert recognizer.stream().latency_ms == 400
    assert Card("a", "b", ("a",), chunks_ms=(80, 160, 320, 640)).chunk_for() == 320
    assert Card("a", "b", ("a",), chunks_ms=(80, 160, 320, 640)).chunk_for(320) == 320
    assert Card("a", "b", ("a",), chunks_ms=(80, 160)).chunk_for() == 160


def test_while_the_work_is_behind_updates_are_left_out(
    recognizer: Recognizer, clockwork: Clockwork, speech: Samples
) -> None:
    session = recognizer.stream(chunk_ms=400)
    blocks = np.split(speech, len(speech) // BLOCK)
    for number, block in enumerate(blocks):
        session.push_audio(block, waiting_s=(len(blocks) - 1 - number) * 0.04)
    assert clockwork.calls == 2  # one for the sound until less than a chunk waited, one for the last chunk
    assert session.counters["steps_skipped"] == 4
    events = session.finish()
    assert events[-1].counters is not None and events[-1].counters["steps_skipped"] == 4


def test_when_nothing_waits_every_chunk_is_an_update(
    recognizer: Recognizer, clockwork: Clockwork, speech: Samples
) -> None:
    session = recognizer.stream(chunk_ms=400)
    for block in np.split(speech, len(speech) // BLOCK):
        session.push_audio(block, waiting_s=0.3)
    assert clockwork.calls == 6 and session.counters["steps_skipped"] == 0


def test_sound_of_a_minute_at_once_is_recognised_in_windows(recognizer: Recognizer, speech: Samples) -> None:
    session = recognizer.stream(chunk_ms=400)
    session.push_audio(np.tile(speech, 20))
    assert session.counters["steps_skipped"] == 119
    assert session.finish()[-1].event == "counters"


def test_words_that_are_heard_get_the_face_that_is_seen(recognizer: Recognizer, speech: Samples) -> None:
    session = recognizer.stream(chunk_ms=400, video=True)
    events: list[Event] = []
    crop = np.full((96, 96), 90, np.uint8)
    for k in range(len(speech) // BLOCK):
        events += session.push_video(crop if k < 30 else None, 0.04 * k)
        events += session.push_audio(speech[BLOCK * k : BLOCK * (k + 1)], 0.04 * k)
    events += session.finish()
    words = [word for event in events if event.event == "final" for word in event.words]
    assert {word.modality for word in words} == {"a"}
    assert {word.face for word in words if word.end < 1.1} == {0}
    assert {word.face for word in words if word.start > 1.4} == {None}
    assert {(event.text, event.reason) for event in events if event.event == "mode"} == {("a", "ok")}
    counters = session.counters
    assert counters["used"] == 30 and counters["pictures"] == 60 and counters["pending"] == 0


def test_pictures_change_no_word_of_a_model_that_only_hears(recognizer: Recognizer, speech: Samples) -> None:
    said = []
    for video in (False, True):
        session = recognizer.stream(chunk_ms=800, video=video)
        events: list[Event] = []
        for k in range(len(speech) // BLOCK):
            if video:
                events += session.push_video(np.full((96, 96), k, np.uint8), 0.04 * k)
            events += session.push_audio(speech[BLOCK * k : BLOCK * (k + 1)], 0.04 * k)
        events += session.finish()
        said.append([(word.word, word.start, word.end) for event in events for word in event.words])
    assert said[0] == said[1] and said[0]


def test_a_model_that_only_reads_lips_is_refused_without_them() -> None:
    model = Model(Card("lips", "toy", ("v",), chunks_ms=(400,)), engine=None, stream=lambda *_, **__: None)  # type: ignore
    with pytest.raises(ModelError, match="was not trained for modality"):
        Recognizer(model).stream(video=False)
