"""Live sessions whose way to the server stalls, and refusals: a stalled session goes on, drops are counted, and words
that were said are given."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

import avsr
from avsr.serving.limits import Limits
from avsr.serving.server import Prepared
from avsr.shipped import ASSETS
from avsr.streaming.events import Event
from avsr.streaming.source import file_sound
from tests.fake_live import FakeRecognizer
from tests.test_serving import STOP, events_until_closed, open_socket, picture, running, sound

pytestmark = pytest.mark.usefixtures("grid_tiny")

LIMITS = Limits()


@pytest.fixture(scope="module")
def served() -> Iterator[Prepared]:
    with running(max_sessions=8) as prepared:
        yield prepared


def speak(client: ClientConnection, start_s: float, seconds: float, *, with_pictures: bool = True) -> None:
    """Send sound and pictures of a span at once, in the order in which they are recorded."""
    for number in range(round(seconds * 50)):
        client.send(sound(start_s + number / 50))
        if with_pictures and number % 2 == 0:
            client.send(picture(start_s + number / 50))


def wait_for(client: ClientConnection, word: str) -> None:
    """Read until a word is the last of a partial."""
    while not json.loads(client.recv(timeout=20)).get("text", "").endswith(word):
        pass


def ended(client: ClientConnection) -> tuple[list[str], dict[str, int]]:
    """The words of the finals, and the counters at the end of a session that nobody refused."""
    client.send(STOP)
    events = events_until_closed(client, 40)
    assert client.close_code == 1000, (client.close_code, client.close_reason)
    return words_of(events), counters_of(events)


def words_of(events: list[dict[str, Any]]) -> list[str]:
    return [word for event in events if event["event"] == "final" for word in event["text"].split()]


def counters_of(events: list[dict[str, Any]]) -> dict[str, int]:
    return next(event["counters"] for event in events if event["event"] == "counters")


class TestStalls:
    @pytest.mark.parametrize("stalls_s", [(6.0,), (12.0,), (15.0,), (6.0, 6.0, 6.0)])
    def test_everything_at_once_after_a_stall(self, served: Prepared, stalls_s: tuple[float, ...]) -> None:
        with open_socket(served) as client:
            now_s = 0.0
            for seconds in (1.0, *stalls_s):
                speak(client, now_s, seconds)
                now_s += seconds
                wait_for(client, f"word{int(now_s) - 1}")
            words, counters = ended(client)
        assert words == [f"word{number}" for number in range(int(now_s))]
        assert counters["samples"] == now_s * 16000
        assert counters["samples_dropped"] == counters["samples_lost"] == 0
        assert counters["pictures"] + counters["pictures_dropped"] == now_s * 25

    def test_more_than_waits_is_dropped_and_counted_oldest_first(self) -> None:
        with running(FakeRecognizer(sound_s=0.01)) as served, open_socket(served) as client:
            speak(client, 0.0, 29.0, with_pictures=False)
            time.sleep(1.5)  # for a status
            words, counters = ended(client)
        assert counters["samples_dropped"] > 0
        assert counters["samples"] + counters["samples_dropped"] == 29 * 16000
        assert counters["samples"] >= LIMITS.queued_sound_s * 16000
        assert words

    def test_drops_are_in_the_status_while_the_session_goes_on(self) -> None:
        with running(FakeRecognizer(sound_s=0.005)) as served, open_socket(served) as client:
            speak(client, 0.0, 25.0, with_pictures=False)
            dropped = 0
            while not dropped:
                event = json.loads(client.recv(timeout=10))
                if event["event"] == "status":
                    dropped = event["counters"]["samples_dropped"]

    @pytest.mark.parametrize("lost_s", [6.0, 12.0, 300.0, 86400.0])
    def test_sound_that_never_comes_is_a_gap(self, served: Prepared, lost_s: float) -> None:
        with open_socket(served) as client:
            speak(client, 0.0, 2.0)
            speak(client, 2.0 + lost_s, 2.0)
            words, counters = ended(client)
        assert words == ["word0", "word1", "word2", "word3"]
        assert counters["samples"] == 4 * 16000
        assert counters["samples_lost"] == min(lost_s, 10 if lost_s < 10 else 2) * 16000

    @pytest.mark.parametrize("step_s", [-300.0, -12.0, 12.0, 300.0])
    def test_clock_that_is_set(self, served: Prepared, step_s: float) -> None:
        with open_socket(served) as client:
            for number in range(3):
                speak(client, number * (1 + step_s), 1.0)
            assert ended(client)[0] == ["word0", "word1", "word2"]

    def test_clock_that_drifts(self, served: Prepared) -> None:
        with open_socket(served) as client:
            for number in range(700):
                client.send(sound(number / 50 * 1.01))
            assert len(ended(client)[0]) == 14


class TestRefusals:
    @pytest.mark.parametrize(
        ("offend", "code"),
        [
            (lambda client: client.send(bytes(300_000)), 4413),
            (lambda client: client.send(b"x" * 5), 4400),
            (lambda client: client.send("[" * 4000), 4400),
            (lambda client: client.send("y" * 5000), 4413),
            (lambda client: [client.send(sound(2 + number, 1.0)) for number in range(60)], 4429),
            (lambda client: [client.send(sound(2.0, 1 / 16000)) for _ in range(9000)], 4429),
            (lambda client: [client.send(sound(9.0 * number, 0.1)) for number in range(9)], 4429),
            (lambda client: [client.send(picture(2.0, b"x")) or time.sleep(0.02) for _ in range(15)], 4400),
        ],
        ids=["size", "kind", "text", "long text", "sound", "messages", "leaps", "pictures"],
    )
    def test_words_so_far_come_before_the_reason(
        self, served: Prepared, offend: Callable[[ClientConnection], object], code: int
    ) -> None:
        with open_socket(served) as client:
            speak(client, 0.0, 2.0)
            time.sleep(0.3)
            try:
                offend(client)
            except ConnectionClosed:
                pass
            events = events_until_closed(client)
        assert client.close_code == code
        assert words_of(events)[:2] == ["word0", "word1"]
        assert events[-1]["event"] == "error"
        assert "counters" in [event["event"] for event in events]


SENTENCE = "place blue by r nine again"


CHUNK_SAMPLES = 320 * 16


def spoken() -> NDArray[np.float32]:
    """The demo clip between pauses of a second or more, a whole number of chunks.

    Repetitions then fall into chunks alike: these tests are about stalls, and another place of the chunks may give
    another word.
    """
    clip = np.concatenate([block.samples for block in file_sound(str(ASSETS / "demo.mp4"))])
    more = -(len(clip) + 2 * 16000) % CHUNK_SAMPLES
    before, after = np.split(np.random.default_rng(1).normal(0, 1e-4, 2 * 16000 + more).astype(np.float32), [16000])
    return np.concatenate([before, clip, after])


def test_sound_may_stall_while_pictures_go_on() -> None:
    blocks = np.array_split(spoken(), 275)
    sentence_s, stall_s = sum(map(len, blocks)) / 16000, 38 * CHUNK_SAMPLES / 16000
    texts: list[str] = []

    def take(events: list[Event]) -> None:
        texts.extend(event.text for event in events if event.event == "final" and event.text)

    with avsr.load("grid-tiny").stream(chunk_ms=320, look_ahead_ms=0, video=True) as session:
        sent = 0
        for times, until_s in ((1, sentence_s + stall_s), (3, 0.0)):  # the second time, three sentences at once
            for block in blocks * times:
                take(session.push_audio(block, sent / 16000))
                sent += len(block)
            for time_s in np.arange(sent / 16000, until_s, 0.04):
                take(session.push_video(None, float(time_s)))
        take(session.finish())
        counters = session.counters
    assert texts == [SENTENCE] * 4
    assert counters["samples_lost"] > 10 * 16000
    assert counters["samples_late"] == 0


def test_all_words_of_a_real_model_before_in_and_after_a_stall() -> None:
    sentence = spoken()
    blocks = [(32767 * sentence[first : first + 320]).astype("<i2") for first in range(0, len(sentence), 320)]
    sent = 0

    def say(client: ClientConnection, times: int) -> None:
        nonlocal sent
        for block in blocks * times:
            client.send(struct.pack("<Bd", 1, sent / 16000) + block.tobytes())
            sent += len(block)

    hello = json.dumps({"type": "hello", "protocol": 1, "video": False})
    with running(avsr.load("grid-tiny")) as served, open_socket(served, hello=hello) as client:  # type: ignore[arg-type]
        finals = 0
        for times in (1, 2, 1):  # two sentences are a stall of 11 s
            say(client, times)
            while finals < times:
                event = json.loads(client.recv(timeout=20))
                finals += event["event"] == "final"
                if event["event"] == "final":
                    assert event["text"] == SENTENCE
            finals = 0
        counters = ended(client)[1]
    assert counters["samples"] == sent
    assert counters["samples_dropped"] == counters["samples_lost"] == 0
