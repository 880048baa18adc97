"""`Recognizer.astream`: the events of a live run for asyncio, and what happens to its threads."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avsr.errors import MediaError
from avsr.recognizer import Recognizer
from avsr.streaming import Event
from avsr.streaming.live import Live
from avsr.streaming.source import LiveSound, blocks, file_pictures, file_sound
from tests.tiny import live_network, own_recognizer, random_samples, tiny_tokenizer

DEMO = Path(__file__).resolve().parents[1] / "avsr/assets/demo.mp4"
SAMPLES = random_samples(8.0, seed=3)
WAIT_S = 20.0
"""After which a test that waits has failed."""


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return own_recognizer(live_network(), tiny_tokenizer())


def without_time(events: list[Event]) -> list[Event]:
    """The events without the time that it took to compute them, which is never the same."""
    return [dataclasses.replace(event, compute_ms=0.0) for event in events]


def threads_of_the_run() -> list[str]:
    names = ("avsr astream", "_push_sound", "_push_pictures", "_push_both")
    return [thread.name for thread in threading.enumerate() if thread.name in names]


def has_ended_in_time() -> bool:
    """Whether all threads of the run end soon: `asyncio.run` does not wait for a generator that was left."""
    end_s = time.monotonic() + WAIT_S
    while threads_of_the_run() and time.monotonic() < end_s:
        time.sleep(0.01)
    return threads_of_the_run() == []


class EndlessSound:
    """Sound that never ends, and after some seconds nothing but None, as from a microphone that gives no sound."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.is_silent = threading.Event()

    def __iter__(self) -> Iterator[LiveSound | None]:
        yield from (block for block in blocks([SAMPLES]) if block.time_s < self.seconds)
        self.is_silent.set()
        wait = threading.Event()
        while True:
            wait.wait(0.01)
            yield None


def test_events_of_a_file_are_the_ones_of_a_live_run(recognizer: Recognizer) -> None:
    async def read() -> list[Event]:
        return [event async for event in recognizer.astream(DEMO, chunk_ms=160)]

    with Live(recognizer.stream(chunk_ms=160), file_sound(DEMO), file_pictures(DEMO)) as live:
        expected = list(live.events())
    events = asyncio.run(read())
    assert without_time(events) == without_time(expected)
    assert events[-1].counters is not None and events[-1].counters["pictures"] == 88
    assert {"mode", "partial", "final", "counters"} == {event.event for event in events}


def test_leaving_the_loop_ends_the_threads(recognizer: Recognizer) -> None:
    async def read_one() -> None:
        async for event in recognizer.astream(EndlessSound(8.0), chunk_ms=80, real_time=True):
            assert event.event == "mode"
            assert threads_of_the_run()
            break

    asyncio.run(read_one())
    assert has_ended_in_time()


@pytest.mark.parametrize("real_time", [True, False])
def test_a_reader_can_be_cancelled_while_no_event_comes(recognizer: Recognizer, real_time: bool) -> None:
    source = EndlessSound(0.5)
    events: list[Event] = []

    async def read() -> None:
        async for event in recognizer.astream(source, chunk_ms=80, real_time=real_time):
            events.append(event)

    async def cancel() -> None:
        task = asyncio.create_task(read())
        while not source.is_silent.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, WAIT_S)

    asyncio.run(cancel())
    assert events and events[-1].event != "counters"
    assert has_ended_in_time()


@pytest.mark.parametrize("real_time", [True, False])
def test_an_error_reaches_the_reader_after_the_events_before_it(recognizer: Recognizer, real_time: bool) -> None:
    def breaks_off() -> Iterator[LiveSound]:
        for block in blocks([SAMPLES]):
            if block.time_s >= 0.5:
                raise MediaError("the microphone has gone")
            yield block

    events: list[Event] = []

    async def read() -> None:
        async for event in recognizer.astream(breaks_off(), chunk_ms=80, real_time=real_time):
            events.append(event)

    with pytest.raises(MediaError, match="the microphone has gone"):
        asyncio.run(read())
    assert events[-1].counters is not None and events[-1].counters["samples"] == 8000
    assert has_ended_in_time()


def test_events_wait_for_a_slow_reader() -> None:
    recognizer = own_recognizer(live_network(seed=3), tiny_tokenizer())
    # This model changes its words with every burst of noise, so there are many events.
    samples = random_samples(24.0, seed=3)
    samples[np.arange(len(samples)) / 16_000 % 0.56 > 0.16] = 0

    async def read() -> list[Event]:
        events = []
        async for event in recognizer.astream(samples, chunk_ms=80):
            while not events and "_push_both" in threads_of_the_run():  # all is recognised before the second event
                await asyncio.sleep(0.01)
            events.append(event)
        return events

    with Live(recognizer.stream(chunk_ms=80, video=False), blocks([samples])) as live:
        expected = list(live.events())
    assert len(expected) > 80
    assert without_time(asyncio.run(read())) == without_time(expected)


def test_the_event_loop_stays_free(recognizer: Recognizer) -> None:
    goes_on = threading.Event()

    def waits() -> Iterator[LiveSound]:
        yield from blocks([SAMPLES[:16_000]])
        assert goes_on.wait(WAIT_S), "the event loop did not run while the source waited"

    async def read() -> Event:
        asyncio.get_running_loop().call_later(0.05, goes_on.set)
        return [event async for event in recognizer.astream(waits(), chunk_ms=80)][-1]

    assert asyncio.run(read()).event == "counters"
