"""Live sessions on recordings of people with the shipped model, and a small model for half a minute on end."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest

import avsr
from avsr.bench.latency import LiveClip, clip_of_file
from avsr.evaluation.statistics import count_errors
from avsr.recognizer import Recognizer
from avsr.streaming import Event
from avsr.streaming.faults import Faults
from avsr.streaming.live import Live
from avsr.streaming.source import LivePicture, blocks
from tests.media import shared_clip
from tests.tiny import live_network, own_recognizer, random_samples, tiny_tokenizer

CLIPS = {
    "grid_bbaf2n.mpg": "bin blue at f two now",
    "grid_lbbc2a.mpg": "lay blue by c two again",
    "grid_swiz3n.mpg": "set white in z three now",
}


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return avsr.load("grid-tiny", device="cpu")


def finals(events: list[Event]) -> str:
    return " ".join(event.text for event in events if event.event == "final")


def listen(recognizer: Recognizer, clip: LiveClip, faults: Faults, **options: object) -> list[Event]:
    pictures = None if clip.pictures is None else faults.of_pictures(clip.pictures)
    # All words: lost lips can make a sentence look foreign, and the recogniser alone is tested here.
    session = recognizer.stream(origin_s=0.0, video=pictures is not None, force=True, **options)  # type: ignore[arg-type]
    with Live(session, blocks([clip.samples]), pictures) as live:
        return list(live.events())


@pytest.mark.slow
def test_lips_that_get_lost_cost_no_more_than_a_word(recognizer: Recognizer) -> None:
    lost = [
        Faults(),
        Faults(drop_video=((1.0, 2.0),)),
        Faults(drop_frames=0.3),
        Faults(delay_video_ms=200),
        Faults(delay_video_ms=600),
        Faults(jitter_ms=200),
        Faults(skew_ms=40),
    ]
    errors = {faults: 0 for faults in lost}
    alone = 0
    for name, text in CLIPS.items():
        clip = clip_of_file(shared_clip(name), lips=True)
        heard = LiveClip(samples=clip.samples)
        alone += count_errors(text, finals(listen(recognizer, heard, Faults()))).errors
        for faults in lost:
            events = listen(recognizer, clip, faults)
            errors[faults] += count_errors(text, finals(events)).errors
            counters = events[-1].counters
            assert counters is not None
            assert counters["pictures"] == sum(counters[fate] for fate in ("used", "late", "absent", "duplicate"))
    assert max(errors.values()) <= alone + 1, errors


def resident_mib() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_half_a_minute_costs_no_memory_and_no_time_is_lost() -> None:
    recognizer = own_recognizer(live_network(), tiny_tokenizer())
    crops = np.random.default_rng(1).integers(0, 255, (80, 96, 96)).astype(np.uint8)
    samples = random_samples(3.2, seed=3)
    session = recognizer.stream(chunk_ms=320, origin_s=0.0)
    events: list[Event] = []
    before_mib = 0.0
    for second in range(10):
        for k, crop in enumerate(crops):
            at_s = 3.2 * second + 0.04 * k
            events += session.push_video(crop, at_s)
            events += session.push_audio(samples[640 * k : 640 * (k + 1)], at_s)
        if second == 2:
            before_mib = resident_mib()
    assert resident_mib() - before_mib < 16
    events += session.finish()
    assert [event.emitted for event in events] == sorted(event.emitted for event in events)
    assert events[-1].end == pytest.approx(32.0)
    assert session.counters["used"] == 800 and session.counters["samples_lost"] == 0


def test_eight_at_once_say_what_one_says() -> None:
    recognizer = own_recognizer(live_network(), tiny_tokenizer())
    crops = np.random.default_rng(1).integers(0, 255, (75, 96, 96)).astype(np.uint8)
    pictures = tuple(LivePicture(0.04 * (k + 1), 0.04 * k, crop) for k, crop in enumerate(crops))
    clip = LiveClip(samples=random_samples(3.0, seed=3), pictures=pictures)
    alone = [(event.event, event.text, event.words) for event in listen(recognizer, clip, Faults(), chunk_ms=160)]
    together: dict[int, list[tuple]] = {}

    def run(number: int) -> None:
        events = listen(recognizer, clip, Faults(), chunk_ms=160)
        together[number] = [(event.event, event.text, event.words) for event in events]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(together.values()) == [alone] * 8
