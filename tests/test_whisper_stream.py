"""Whisper live, on real weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import avsr
from avsr.arrays import Samples
from avsr.decoding.search import Search
from avsr.engine import Chunk
from avsr.errors import ConfigError
from avsr.grid import FRAME_SAMPLES, SAMPLE_RATE_HZ
from avsr.media import read_audio
from avsr.streaming import Event, Session
from tests.media import installed_model, shared_clip

pytest.importorskip("ctranslate2", reason="needs the extra whisper")

from avsr.families.whisper.stream import WhisperStream  # noqa: E402 (needs the extra)


def test_every_sample_is_in_one_row() -> None:
    stream = WhisperStream("tiny", 400, 0)
    samples = np.random.default_rng(0).random(5 * FRAME_SAMPLES + 7, np.float32)
    none = np.zeros((0, 96, 96), np.uint8), np.zeros(0, bool)
    first, state = stream.step(Chunk(4, samples[: 4 * FRAME_SAMPLES + 5], *none), stream.initial_state())
    last, _ = stream.step(Chunk(2, samples[4 * FRAME_SAMPLES + 5 :], *none, is_last=True), state)
    rows = np.concatenate((first, last))
    assert rows.shape == (6, FRAME_SAMPLES)
    np.testing.assert_array_equal(rows.ravel()[: len(samples)], samples)
    assert not rows.ravel()[len(samples) :].any()


@pytest.mark.parametrize(("chunk_ms", "look_ahead_ms"), [(300, 0), (400, 100), (0, 400), (410, -10), (100, 300)])
def test_chunks_that_it_does_not_have(chunk_ms: int, look_ahead_ms: int) -> None:
    with pytest.raises(
        ConfigError, match="such chunks: got a chunk of .*, expected 400, 800, 1600 or 3200 ms for both"
    ):
        WhisperStream("tiny", chunk_ms, look_ahead_ms)


@pytest.fixture(scope="module")
def whisper() -> avsr.Recognizer:
    return avsr.load(str(installed_model("whisper-tiny.en")))


def run(session: Session, samples: Samples) -> list[Event]:
    events: list[Event] = []
    for start in range(0, len(samples), FRAME_SAMPLES):
        events += session.push_audio(samples[start : start + FRAME_SAMPLES])
    return events + session.finish()


def words_of(events: Sequence[Event]) -> str:
    return " ".join(event.text for event in events if event.event == "final").lower()


@pytest.mark.parametrize("chunk_ms", [400, 1600])
def test_a_sentence_grows_and_committed_words_stay(whisper: avsr.Recognizer, chunk_ms: int) -> None:
    samples = read_audio(shared_clip("woman_700_30fps.mp4"))
    events = run(whisper.stream(chunk_ms=chunk_ms), samples)
    assert "represents the european central bank" in words_of(events)
    fixed: list[tuple[str, float, float]] = []
    for event in events:
        if event.event in ("partial", "final"):
            words = [(word.word, word.start, word.end) for word in event.words]
            assert words[: len(fixed)] == fixed
            fixed = [] if event.event == "final" else words[: event.committed]
    assert max(event.committed for event in events if event.event == "partial") > 3


def test_silence_has_no_words(whisper: avsr.Recognizer) -> None:
    events = run(whisper.stream(chunk_ms=800), np.zeros(6 * SAMPLE_RATE_HZ, np.float32))
    assert [event.event for event in events] == ["mode", "mode", "counters"]


def test_a_search_that_it_does_not_have_is_refused(whisper: avsr.Recognizer) -> None:
    with pytest.raises(ConfigError, match="does not know the language: got ko"):
        whisper.stream(chunk_ms=400, search=Search(language="ko"))
    with pytest.raises(ConfigError, match="gives words, not log-probabilities"):
        whisper.stream(chunk_ms=400, on_log_probs=lambda rows: None)
