"""Live sources, their faults, microphone and camera, and sessions that run on them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avsr.errors import ConfigError, MediaError
from avsr.recognizer import Recognizer
from avsr.streaming import Event
from avsr.streaming.devices import Camera, Microphone
from avsr.streaming.faults import Faults
from avsr.streaming.live import Live
from avsr.streaming.source import Clock, LivePicture, LiveSound, blocks, file_pictures, file_sound, in_order
from tests.fake_devices import FakeCapture, FakeInput
from tests.tiny import live_network, own_recognizer, random_samples, tiny_tokenizer

DEMO = Path(__file__).resolve().parents[1] / "avsr/assets/demo.mp4"
SECONDS = 2.0


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return own_recognizer(live_network(), tiny_tokenizer())


def sound() -> Iterator[LiveSound]:
    return blocks([random_samples(SECONDS, seed=3)])


def pictures(count: int = round(25 * SECONDS)) -> Iterator[LivePicture]:
    """Lip crops, so that no faces need to be found."""
    random = np.random.default_rng(4)
    for k in range(count):
        yield LivePicture(0.04 * k, 0.04 * k, random.integers(0, 255, (96, 96)).astype(np.uint8))


def times(items: Iterator[LivePicture] | Iterator[LiveSound]) -> list[tuple[float, float]]:
    return [(round(item.arrival_s, 6), round(item.time_s, 6)) for item in items]


def fates(counters: dict[str, int]) -> int:
    return sum(counters[fate] for fate in ("used", "late", "absent", "duplicate"))


def finals(events: list[Event]) -> list[str]:
    return [event.text for event in events if event.event == "final"]


# -- files ----------------------------------------------------------------------------------------------------------


def test_a_file_arrives_in_order_of_time() -> None:
    items = list(in_order(file_sound(DEMO), file_pictures(DEMO)))
    assert [item.arrival_s for item in items] == sorted(item.arrival_s for item in items)
    heard = [item for item in items if isinstance(item, LiveSound)]
    assert {len(block.samples) for block in heard[:-1]} == {320}
    assert [block.time_s for block in heard] == pytest.approx([0.02 * k for k in range(len(heard))])
    at_80_ms = [type(item) for item in items if item.arrival_s == pytest.approx(0.08)]
    assert at_80_ms == [LivePicture, LiveSound]


def test_a_file_without_sound_or_pictures_says_so() -> None:
    with pytest.raises(MediaError):
        list(file_sound(DEMO.with_name("nowhere.mp4")))


# -- faults ---------------------------------------------------------------------------------------------------------


def test_no_faults_change_nothing() -> None:
    assert times(Faults().of_pictures(pictures())) == times(pictures())
    assert times(Faults().of_sound(sound())) == times(sound())


def test_spans_are_dropped() -> None:
    faults = Faults(drop_video=((0.2, 0.4), (1.0, 9.0)), drop_audio=((0.5, 1.0),))
    seen = [time_s for _, time_s in times(faults.of_pictures(pictures()))]
    assert seen == pytest.approx([0.0, 0.04, 0.08, 0.12, 0.16, *(0.4 + 0.04 * k for k in range(15))])
    heard = [time_s for _, time_s in times(faults.of_sound(sound()))]
    assert len(heard) == 75 and not [time_s for time_s in heard if 0.5 <= time_s < 1.0]


def test_delays_move_arrivals_alone() -> None:
    faults = Faults(delay_video_ms=200, delay_audio_ms=50)
    assert times(faults.of_pictures(pictures(2))) == [(0.2, 0.0), (0.24, 0.04)]
    assert times(faults.of_sound(sound()))[0] == (0.07, 0.0)


def test_a_wrong_clock_moves_time_stamps_alone() -> None:
    faults = Faults(skew_ms=40, drift_ppm=1000)
    assert times(faults.of_pictures(pictures(26)))[25] == (1.0, 1.041)


def test_jitter_reorders_pictures_and_never_sound() -> None:
    faults = Faults(jitter_ms=300)
    seen = times(faults.of_pictures(pictures()))
    assert seen == sorted(seen) and sorted(time_s for _, time_s in seen) != [time_s for _, time_s in seen]
    assert all(-1e-6 <= arrival_s - time_s <= 0.3 for arrival_s, time_s in seen)
    heard = times(faults.of_sound(sound()))
    assert heard == sorted(heard) and [time_s for _, time_s in heard] == [time_s for _, time_s in times(sound())]


def test_shares_are_drawn_from_the_seed_and_apart_from_each_other() -> None:
    few = times(Faults(drop_frames=0.3).of_pictures(pictures(500)))
    assert 310 <= len(few) <= 390
    assert few == times(Faults(drop_frames=0.3).of_pictures(pictures(500)))
    assert few != times(Faults(drop_frames=0.3, seed=2).of_pictures(pictures(500)))
    both = times(Faults(drop_frames=0.3, duplicate_frames=0.5).of_pictures(pictures(500)))
    assert sorted(set(both)) == few and 1.3 * len(few) < len(both) < 1.7 * len(few)
    assert times(Faults(drop_frames=1.0).of_pictures(pictures())) == []


@pytest.mark.parametrize(("fps", "count"), [(10, 20), (12.5, 25), (25, 50), (50, 99), (60, 119)])
def test_other_rates(fps: float, count: int) -> None:
    seen = list(Faults(video_fps=fps).of_pictures(pictures()))
    assert abs(len(seen) - count) <= 1
    stamps = [picture.time_s for picture in seen]
    assert stamps == sorted(set(stamps))
    original = list(pictures())
    for picture in seen:  # never older than a picture lasts
        shown = [k for k, other in enumerate(original) if np.array_equal(other.rgb, picture.rgb)]
        assert shown[0] * 0.04 <= picture.time_s + 1e-6 < (shown[0] + 1) * 0.04 + 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"drop_video": ((2.0, 1.0),)},
        {"drop_audio": ((-1.0, 1.0),)},
        {"delay_video_ms": -1.0},
        {"jitter_ms": float("nan")},
        {"drop_frames": 1.1},
        {"video_fps": 0.0},
        {"drift_ppm": 1e9},
    ],
)
def test_faults_that_cannot_be(options: dict) -> None:
    with pytest.raises(ConfigError):
        Faults(**options)


# -- sessions on sources --------------------------------------------------------------------------------------------


def run(recognizer: Recognizer, faults: Faults, *, real_time: bool = False, **options: object) -> list[Event]:
    session = recognizer.stream(origin_s=0.0, **options)  # type: ignore[arg-type]
    with Live(session, faults.of_sound(sound()), faults.of_pictures(pictures()), real_time=real_time) as live:
        return list(live.events())


@pytest.mark.parametrize("seed", range(12))
def test_whatever_goes_wrong_each_picture_has_one_fate_and_the_seed_decides(recognizer: Recognizer, seed: int) -> None:
    random = np.random.default_rng(seed)

    def maybe(value: float) -> float:
        return value if random.random() < 0.5 else 0.0

    start_s = random.uniform(0, 2)
    faults = Faults(
        drop_video=((start_s, start_s + random.uniform(0.01, 1)),) if random.random() < 0.5 else (),
        drop_audio=((start_s, start_s + random.uniform(0.01, 1)),) if random.random() < 0.3 else (),
        delay_video_ms=maybe(random.uniform(0, 1000)),
        delay_audio_ms=maybe(random.uniform(0, 500)),
        jitter_ms=maybe(random.uniform(0, 400)),
        drop_frames=maybe(random.uniform(0, 1)),
        duplicate_frames=maybe(random.uniform(0, 1)),
        skew_ms=maybe(random.uniform(-500, 500)),
        drift_ppm=maybe(random.uniform(-10_000, 10_000)),
        video_fps=random.uniform(1, 60) if random.random() < 0.5 else None,
        seed=seed,
    )
    sent = sum(1 for _ in faults.of_pictures(pictures()))
    events = run(recognizer, faults, chunk_ms=160)
    counters = events[-1].counters
    assert counters is not None
    assert counters["pictures"] == sent == fates(counters) and counters["pending"] == 0
    again = run(recognizer, faults, chunk_ms=160)
    assert finals(again) == finals(events) and again[-1].counters == counters


def test_in_real_time_it_takes_as_long_as_it_lasts_and_says_the_same(recognizer: Recognizer) -> None:
    started = time.monotonic()
    events = run(recognizer, Faults(), chunk_ms=160, real_time=True, max_video_lag_ms=1000)
    assert time.monotonic() - started >= SECONDS
    assert finals(events) == finals(run(recognizer, Faults(), chunk_ms=160))
    assert [event.emitted for event in events] == sorted(event.emitted for event in events)


def test_a_reader_that_stalls_holds_up_nothing(recognizer: Recognizer) -> None:
    with Live(recognizer.stream(), sound(), pictures(), real_time=True) as live:
        events = live.events()
        first = next(events)
        time.sleep(SECONDS + 0.5)  # everything is heard meanwhile
        rest = list(events)
    counters = rest[-1].counters
    assert first.event == "mode" and counters is not None
    assert (counters["used"], counters["samples_lost"]) == (50, 0)


def test_stopped_in_the_middle_it_gives_what_is_known(recognizer: Recognizer) -> None:
    with Live(recognizer.stream(), sound(), pictures(), real_time=True) as live:
        events = live.events()
        next(events)
        time.sleep(0.3)
        rest = live.stop()
        assert rest[-1].event == "counters"
        assert 0 < rest[-1].counters["samples"] < 16_000 * SECONDS  # type: ignore[index]
    assert live.stop() == []


def test_pictures_that_break_off_leave_the_sound(recognizer: Recognizer) -> None:
    def broken() -> Iterator[LivePicture]:
        yield from pictures(10)
        raise MediaError("the picture is damaged")

    warnings: list[str] = []
    with Live(recognizer.stream(), sound(), broken(), on_warning=warnings.append) as live:
        events = list(live.events())
    assert warnings == ["no more pictures, and from here on the sound alone: the picture is damaged"]
    assert events[-1].counters["samples"] == 32_000  # type: ignore[index]


@pytest.mark.parametrize("real_time", [False, True])
def test_sound_that_breaks_off_ends_it_in_order(recognizer: Recognizer, real_time: bool) -> None:
    def broken() -> Iterator[LiveSound]:
        for block in sound():
            if block.time_s >= 0.5:
                raise MediaError("the microphone has gone")
            yield block

    told: list[Event] = []
    with Live(recognizer.stream(video=False), broken(), real_time=real_time) as live:
        with pytest.raises(MediaError, match="gone"):
            for event in live.events():
                told.append(event)
    assert told[-1].event == "counters" and told[-1].counters["samples"] == 8000  # type: ignore[index]


# -- microphone -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_microphone_is_heard_on_the_clock_until_it_is_unplugged(
    microphone: type[FakeInput], rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeInput, "rates", (rate,))
    clock = Clock()
    heard: list[LiveSound] = []
    with Microphone(clock) as source:
        with pytest.raises(MediaError, match="the microphone has gone.*start again"):
            for block in source.sound():
                if block is not None:
                    heard.append(block)
                if len(heard) == 30:
                    microphone.unplugged.set()
    total = sum(len(block.samples) for block in heard)
    assert total >= 30 * 300
    for before, block in zip(heard, heard[1:], strict=False):
        assert block.time_s - before.time_s == pytest.approx(0.02, abs=0.015)
    assert heard[-1].arrival_s <= clock.now_s()
    spectrum = np.abs(np.fft.rfft(np.concatenate([block.samples for block in heard])))
    assert np.argmax(spectrum) * 16_000 / total == pytest.approx(200, abs=10)


def test_microphone_that_nobody_reads_does_not_grow(
    microphone: type[FakeInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avsr.streaming.devices.MAX_WAITING_S", 0.1)
    with Microphone(Clock()) as source:
        time.sleep(0.4)
        sound = source.sound()
        blocks_ = [next(sound) for _ in range(7)]
    gaps = np.diff([block.time_s for block in blocks_ if block is not None])
    assert gaps.max() > 0.1  # what was lost shows in the time stamps


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ImportError("No module named 'sounddevice'"), r"needs the package sounddevice; pip install '\.\[mic\]'"),
        (OSError("PortAudio library not found"), "needs the PortAudio library: .*apt-get install libportaudio2"),
    ],
)
def test_microphone_without_its_libraries(error: Exception, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise error

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(MediaError, match=line):
        Microphone(Clock()).__enter__()


def test_microphone_that_is_not_there(microphone: type[FakeInput], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeInput, "rates", ())
    with pytest.raises(MediaError, match="cannot be opened: got Invalid sample rate"):
        Microphone(Clock()).__enter__()


# -- camera ---------------------------------------------------------------------------------------------------------


def test_camera_gives_the_newest_picture(camera: type[FakeCapture]) -> None:
    clock = Clock()
    with Camera(clock) as source:
        seen = source.pictures()
        time.sleep(0.3)  # nobody looks
        picture = next(seen)
        assert picture is not None
        assert picture.rgb[0, 0, 2] >= 5 and picture.rgb[0, 0, 0] == 7  # RGB, and not the first
        assert 0.2 <= picture.time_s <= clock.now_s()
        following = next(seen)
        assert following is not None and following.time_s > picture.time_s
    assert [thread.name for thread in threading.enumerate() if thread.name == "camera"] == []


def test_camera_that_is_unplugged_comes_back(camera: type[FakeCapture]) -> None:
    warnings: list[str] = []
    with Camera(Clock(), on_warning=warnings.append) as source:
        seen = source.pictures()
        assert next(seen) is not None
        camera.plugged.clear()
        while next(seen) is not None:
            pass
        camera.plugged.set()
        while next(seen) is None:
            pass
    assert warnings == ["camera 0 has gone: the sound alone until it is back", "camera 0 is back"]


def test_camera_that_is_not_there(camera: type[FakeCapture]) -> None:
    camera.plugged.clear()
    with pytest.raises(MediaError, match="camera 3 cannot be opened.*--camera"):
        Camera(Clock(), 3).__enter__()


def test_microphone_and_camera_run_a_session(
    recognizer: Recognizer, microphone: type[FakeInput], camera: type[FakeCapture]
) -> None:
    clock = Clock()
    ear, eye = Microphone(clock), Camera(clock)
    told: list[Event] = []
    session = recognizer.stream(chunk_ms=160)
    with Live(session, ear.sound(), eye.pictures(), real_time=True, clock=clock) as live:
        live.session.prepare()  # before the devices, or the first second waits for the face finder
        with ear, eye:
            threading.Timer(1.5, microphone.unplugged.set).start()
            with pytest.raises(MediaError, match="has gone"):
                for event in live.events():
                    told.append(event)
    counters = told[-1].counters
    assert counters is not None and counters["samples"] > 8000
    assert counters["pictures"] >= 3 and fates(counters) == counters["pictures"]
    assert counters["samples_lost"] < 1600
    assert [event.text for event in told if event.event == "mode"][0] == "a"  # nobody is in the picture
