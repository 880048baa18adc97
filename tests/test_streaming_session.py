"""Live sessions: equal to one pass, and whatever happens to sound and pictures."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from avsr.arrays import LogProbs
from avsr.decoding.greedy import greedy
from avsr.errors import ConfigError
from avsr.recognizer import Recognizer
from avsr.streaming import Event, Session, Step
from tests.tiny import engine_of, live_network, own_recognizer, random_samples, tiny_network, tiny_tokenizer

SECONDS = 2.9
BLOCK = 320  # samples: 20 ms


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return own_recognizer(live_network(), tiny_tokenizer())


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return random_samples(SECONDS, seed=3)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 255, (73, 96, 96)).astype(np.uint8)


def run(
    session: Session,
    samples: np.ndarray,
    crops: np.ndarray | None = None,
    *,
    delay_s: float = 0.0,
    skip: tuple[int, ...] = (),
) -> list[Event]:
    """Sound in blocks, each crop `delay_s` after its time."""
    events: list[Event] = []
    arrivals = [] if crops is None else [(0.04 * k + delay_s, k) for k in range(len(crops)) if k not in skip]
    for start in range(0, len(samples), BLOCK):
        while arrivals and arrivals[0][0] <= start / 16_000:
            _, k = arrivals.pop(0)
            events += session.push_video(crops[k], 0.04 * k)  # type: ignore[index]
        events += session.push_audio(samples[start : start + BLOCK], start / 16_000)
    for _, k in arrivals:
        events += session.push_video(crops[k], 0.04 * k)  # type: ignore[index]
    return events + session.finish()


def adds_up(counters: dict[str, int]) -> bool:
    fates = ("used", "late", "absent", "duplicate", "pending")
    return counters["pictures"] == sum(counters[fate] for fate in fates)


def finals(events: list[Event]) -> str:
    return " ".join(event.text for event in events if event.event == "final")


@pytest.mark.parametrize("seconds", [1.01, 1.09, 1.33])
def test_no_word_ends_after_the_sound(recognizer: Recognizer, seconds: float) -> None:
    """The last frame of 80 ms is begun only, and the words of random sound reach its end."""
    last = run(recognizer.stream(chunk_ms=320), random_samples(seconds, seed=3))[-2]
    assert last.words[-1].end == last.end == pytest.approx(seconds)
    assert last.words[-1].start < last.end


@pytest.mark.parametrize("chunk_ms", [80, 160, 320, 640, 1600])
@pytest.mark.parametrize("with_lips", [False, True])
def test_a_stream_equals_one_pass_in_chunks(
    recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray, chunk_ms: int, with_lips: bool
) -> None:
    parts: list[LogProbs] = []
    session = recognizer.stream(chunk_ms=chunk_ms, video=with_lips, on_log_probs=parts.append)
    lips = crops if with_lips else None
    events = run(session, samples, lips)
    whole = recognizer.log_probs([samples], None if lips is None else [lips], chunk_ms=chunk_ms)
    assert sum(map(len, parts)) == len(whole[0])
    np.testing.assert_allclose(np.concatenate(parts), whole[0], atol=1e-4, rtol=0)
    units = greedy(whole[0], recognizer.model.network.blank_id)
    assert finals(events) == engine_of(recognizer).tokenizer.decode(units)
    counters = events[-1].counters
    assert counters is not None and adds_up(counters)
    assert counters["used"] == (len(crops) if with_lips else 0)


@pytest.mark.parametrize("chunk_ms", [80, 320])
def test_with_lips_that_come_and_go_a_stream_equals_one_pass_with_the_same_presence(
    recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray, chunk_ms: int
) -> None:
    lost = np.random.default_rng(5).random(len(crops)) < 0.3
    lost[20:40] = True
    parts: list[LogProbs] = []
    used: list[bool] = []

    def on_chunk(chunk: Step) -> None:
        used.extend(chunk.used)

    session = recognizer.stream(chunk_ms=chunk_ms, on_log_probs=parts.append, on_chunk=on_chunk)
    run(session, samples, crops, skip=tuple(np.flatnonzero(lost)))
    presence = np.array(used[: len(crops)])
    assert 15 < presence.sum() <= (~lost).sum()
    whole = recognizer.log_probs([samples], [crops], [presence], chunk_ms=chunk_ms)
    together = np.concatenate(parts)
    np.testing.assert_allclose(together, whole[0][: len(together)], atol=1e-4, rtol=0)


def test_a_look_ahead_changes_what_is_shown_and_not_what_is_final(
    recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray
) -> None:
    one = run(recognizer.stream(chunk_ms=1600), samples, crops)
    session = recognizer.stream(chunk_ms=400, look_ahead_ms=1200)
    assert session.look_ahead_ms == 1200
    assert session.latency_ms < recognizer.stream(chunk_ms=1600).latency_ms
    other = run(session, samples, crops)
    assert finals(one) == finals(other)
    first = [next(event for event in events if event.event == "partial") for events in (one, other)]
    assert first[0].emitted > 1.6 and first[1].emitted < 0.6


def test_without_pictures_it_is_the_sound_alone_to_the_bit(recognizer: Recognizer, samples: np.ndarray) -> None:
    heard: list[LogProbs] = []
    read: list[LogProbs] = []
    run(recognizer.stream(chunk_ms=320, video=False, on_log_probs=heard.append), samples)
    events = run(recognizer.stream(chunk_ms=320, video=True, on_log_probs=read.append), samples)
    assert np.array_equal(np.concatenate(heard), np.concatenate(read))
    assert [(event.text, event.reason) for event in events if event.event == "mode"] == [("a", "lost")]


def test_pictures_that_come_too_late_are_counted_and_have_no_influence(
    recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray
) -> None:
    heard: list[LogProbs] = []
    read: list[LogProbs] = []
    run(recognizer.stream(chunk_ms=320, video=False, on_log_probs=heard.append), samples)
    session = recognizer.stream(chunk_ms=320, max_video_lag_ms=200, on_log_probs=read.append)
    events = run(session, samples, crops, delay_s=0.9)
    assert np.array_equal(np.concatenate(heard), np.concatenate(read))
    counters = events[-1].counters
    assert counters is not None and adds_up(counters)
    assert counters["used"] == 0 and counters["late"] == len(crops)


def test_pictures_that_lag_are_waited_for(recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray) -> None:
    on_time: list[LogProbs] = []
    lagging: list[LogProbs] = []
    run(recognizer.stream(chunk_ms=320, on_log_probs=on_time.append), samples, crops)
    session = recognizer.stream(chunk_ms=320, max_video_lag_ms=320, on_log_probs=lagging.append)
    events = run(session, samples, crops, delay_s=0.2)
    assert np.array_equal(np.concatenate(on_time), np.concatenate(lagging))
    assert all(event.text == "av" for event in events if event.event == "mode")


def test_lips_that_go_and_come_back_are_told(recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray) -> None:
    events = run(recognizer.stream(chunk_ms=80, max_video_lag_ms=80), samples, crops, skip=tuple(range(20, 50)))
    modes = [(event.text, event.reason) for event in events if event.event == "mode"]
    assert [text for text, _ in modes] == ["av", "a", "av"] or [text for text, _ in modes] == ["av", "a", "a", "av"]
    assert modes[1][1] == "late"  # and not yet lost
    times = [event.start for event in events if event.event == "mode"]
    assert 0.8 <= times[1] <= 1.2 and 2.0 <= times[-1] <= 2.6
    counters = events[-1].counters
    assert counters is not None and adds_up(counters)


def test_sound_that_is_lost_is_marked(recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray) -> None:
    session = recognizer.stream(chunk_ms=320)
    events: list[Event] = []
    for k, crop in enumerate(crops):
        events += session.push_video(crop, 0.04 * k)
        start = 640 * k
        if not 0.7 <= start / 16_000 < 1.7:
            events += session.push_audio(samples[start : start + 640], start / 16_000)
    events += session.finish()
    modes = [(event.text, event.reason) for event in events if event.event == "mode"]
    assert ("v", "sound_lost") in modes and modes[-1] == ("av", "ok")
    counters = events[-1].counters
    assert counters is not None and counters["samples_lost"] == pytest.approx(16_000, abs=640)


def test_sound_that_stops_does_not_hang_the_lips(recognizer: Recognizer, crops: np.ndarray) -> None:
    session = recognizer.stream(chunk_ms=320)
    events: list[Event] = []
    for k in range(100):
        events += session.push_video(crops[k % len(crops)], 0.04 * k)
    assert any(event.event == "mode" and event.text == "v" for event in events)
    assert session.finish()[-1].event == "counters"


def test_a_gap_of_an_hour_is_skipped(recognizer: Recognizer, samples: np.ndarray) -> None:
    session = recognizer.stream(chunk_ms=320, video=False)
    session.push_audio(samples[:16_000], 5.0)
    session.push_audio(samples[:16_000], 3605.0)
    (counters,) = [event for event in session.finish() if event.event == "counters"]
    assert counters.emitted == pytest.approx(3606.0, abs=0.1)
    assert counters.counters is not None and counters.counters["samples_lost"] < 3 * 16_000


@pytest.mark.parametrize("seed", range(6))
def test_whatever_comes_is_counted_once_and_the_session_ends(
    recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray, seed: int
) -> None:
    """Lost, late, early, doubled and shuffled pictures, and sound with gaps and overlaps."""
    random = np.random.default_rng(seed)
    arrivals: list[tuple[float, str, int, float]] = []
    for k in range(len(crops)):
        for _ in range(int(random.choice([0, 1, 1, 1, 2]))):
            time_s = 0.04 * k + float(random.choice([0, 0, 0, 0.02, -3, 30, random.normal(0, 0.1)]))
            arrivals.append((0.04 * k + random.exponential(0.1), "video", k, time_s))
    for k in range(0, len(samples), BLOCK):
        if random.random() < 0.95:
            arrivals.append((k / 16_000 + random.exponential(0.01), "audio", k, k / 16_000 + random.normal(0, 0.02)))
    session = recognizer.stream(chunk_ms=160, max_video_lag_ms=100)
    events: list[Event] = []
    sent = 0
    for _, kind, k, time_s in sorted(arrivals):
        if kind == "video":
            events += session.push_video(crops[k], time_s)
            sent += 1
        else:
            events += session.push_audio(samples[k : k + BLOCK], time_s)
        assert adds_up(session.counters)
    events += session.finish()
    counters = events[-1].counters
    assert counters is not None and adds_up(counters)
    assert counters["pictures"] == sent and counters["pending"] == 0
    assert session.finish() == []
    with pytest.raises(ValueError, match="has ended"):
        session.push_audio(samples[:160])


def test_sessions_share_a_model_and_nothing_else(
    recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray
) -> None:
    alone = finals(run(recognizer.stream(chunk_ms=320), samples, crops))
    results: dict[int, str] = {}

    def work(number: int) -> None:
        results[number] = finals(run(recognizer.stream(chunk_ms=320), samples, crops))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(8), alone)


def test_sound_and_pictures_may_come_from_two_threads(
    recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray
) -> None:
    session = recognizer.stream(chunk_ms=160)
    events: list[Event] = []

    def film() -> None:
        for k, crop in enumerate(crops):
            events.extend(session.push_video(crop, 0.04 * k))

    camera = threading.Thread(target=film)
    camera.start()
    for start in range(0, len(samples), BLOCK):
        events.extend(session.push_audio(samples[start : start + BLOCK]))
    camera.join()
    counters = session.finish()[-1].counters
    assert counters is not None and adds_up(counters) and counters["pictures"] == len(crops)


def test_what_is_said_is_also_called_in_order(recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray) -> None:
    called: list[Event] = []
    chunks: list[Step] = []
    session = recognizer.stream(chunk_ms=160, look_ahead_ms=160, on_event=called.append, on_chunk=chunks.append)
    assert run(session, samples, crops) == called
    final = [chunk for chunk in chunks if chunk.for_good]
    assert [chunk.start for chunk in final[1:]] == [chunk.end for chunk in final[:-1]]
    assert final[-1].end == pytest.approx(2.96)  # of 2.92 s of lips
    assert len(chunks) > len(final)
    assert sum(sum(chunk.used) for chunk in final) == len(crops)
    assert all(chunk.compute_ms > 0 for chunk in chunks)


def test_a_picture_without_lips_is_not_waited_for(
    recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray
) -> None:
    session = recognizer.stream(chunk_ms=320)
    events: list[Event] = []
    for k in range(40):
        events += session.push_video(None if 5 <= k < 20 else crops[k], 0.04 * k)
        events += session.push_audio(samples[640 * k : 640 * (k + 1)])
    modes = [(event.text, event.reason) for event in events if event.event == "mode"]
    assert modes == [("av", "ok"), ("a", "no_face"), ("av", "ok")]
    session.finish()
    assert session.counters["absent"] == 17 and session.counters["used"] == 23  # two before lips are trusted again


def test_two_clocks(recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray) -> None:
    """A camera whose clock is an hour off, known by when things arrive."""
    session = recognizer.stream(chunk_ms=320, clocks="arrival")
    for k in range(len(crops)):
        now_s = 0.04 * (k + 1)
        session.push_audio(samples[640 * k : 640 * (k + 1)], 0.04 * k, arrived=now_s)
        session.push_video(crops[k], 3600.0 + 0.04 * k, arrived=now_s)
    counters = session.finish()[-1].counters
    assert counters is not None and adds_up(counters)
    assert counters["used"] > 65


def test_faces_are_found_in_pictures(recognizer: Recognizer) -> None:
    pytest.importorskip("mediapipe")
    with recognizer.stream(chunk_ms=320) as session:
        for k in range(15):
            session.push_video(np.full((120, 160, 3), 60, np.uint8), 0.04 * k)
            session.push_audio(np.zeros(640, np.float32))
        assert session.last_lips is not None and session.last_lips.reason == "no_face"
        assert session.mode == "a"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"chunk_ms": 100}, "not trained for such chunks: got 100 ms, expected one of 80, 160, 320, 640, 1600 ms"),
        ({"chunk_ms": 400}, "got 400 ms"),
        ({"chunk_ms": 320, "look_ahead_ms": 1}, "got 321 ms"),
        ({"chunk_ms": 960, "look_ahead_ms": 640}, "wrong chunks: got chunk_ms 960, look_ahead_ms 640"),
        ({"chunk_ms": -80, "look_ahead_ms": 400}, "wrong chunks"),
        ({"clocks": "mine"}, "unknown clocks: got mine, expected shared or arrival"),
        ({"max_video_lag_ms": float("nan")}, "a session cannot be so"),
        ({"pause_ms": 0}, "a session cannot be so"),
        ({"face": "left"}, "unknown choice of face: got left"),
    ],
)
def test_settings_that_cannot_be(recognizer: Recognizer, options: dict, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recognizer.stream(**options)
    assert line in str(caught.value)


def test_a_model_for_whole_recordings_cannot_stream() -> None:
    with pytest.raises(ConfigError, match="cannot stream: it was trained on whole recordings"):
        own_recognizer(tiny_network(), tiny_tokenizer()).stream()


@pytest.mark.parametrize(
    "push",
    [
        lambda session: session.push_audio(np.zeros(10)),
        lambda session: session.push_audio(np.zeros((10, 2), np.float32)),
        lambda session: session.push_audio(np.full(10, np.nan, np.float32)),
        lambda session: session.push_audio([0.0]),
        lambda session: session.push_audio(np.zeros(10, np.float32), float("inf")),
        lambda session: session.push_audio(np.zeros(16_000 * 61, np.float32)),
        lambda session: session.push_video(np.zeros((88, 88), np.uint8), 0.0),
        lambda session: session.push_video(np.zeros((96, 96)), 0.0),
        lambda session: session.push_video(np.zeros((0, 4, 3), np.uint8), 0.0),
        lambda session: session.push_video(np.zeros((96, 96), np.uint8), float("nan")),
    ],
)
def test_wrong_arrays_are_refused(recognizer: Recognizer, push: object) -> None:
    session = recognizer.stream()
    with pytest.raises(ValueError, match="got .* expected"):
        push(session)  # type: ignore[operator]
    assert adds_up(session.counters)


@pytest.mark.parametrize("restart_s", [0.0, -100.0])
def test_a_clock_that_steps_back_for_good_loses_nothing(
    recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray, restart_s: float
) -> None:
    """A recorder that began again in the middle: the same words as without the step."""
    joint = 80 * 320  # 1.6 s, a multiple of the blocks and of the slots
    events: list[Event] = []
    session = recognizer.stream(chunk_ms=320)
    shift_s = 0.0
    for start in range(0, len(samples), BLOCK):
        time_s = start / 16_000
        shift_s = restart_s - joint / 16_000 if start >= joint else 0.0
        events += session.push_audio(samples[start : start + BLOCK], time_s + shift_s)
    events += session.finish()
    whole = run(recognizer.stream(chunk_ms=320), samples)
    assert finals(events) == finals(whole)
    counters = events[-1].counters
    assert counters is not None
    assert (counters["joints"], counters["samples_late"], counters["samples_lost"]) == (1, 0, 0)


def test_single_blocks_from_the_past_are_late_and_no_joint(recognizer: Recognizer, samples: np.ndarray) -> None:
    session = recognizer.stream(chunk_ms=320, video=False)
    events: list[Event] = []
    for start in range(0, len(samples), BLOCK):
        events += session.push_audio(samples[start : start + BLOCK], start / 16_000)
        if start == 100 * BLOCK:  # sent again after 1.5 s
            late = samples[:BLOCK]
            events += session.push_audio(late, 0.0) + session.push_audio(late, BLOCK / 16_000)
    events += session.finish()
    counters = events[-1].counters
    assert counters is not None
    assert (counters["joints"], counters["samples_late"]) == (0, 2 * BLOCK)
    assert counters["samples"] == len(samples) + 2 * BLOCK
    assert finals(events) == finals(run(recognizer.stream(chunk_ms=320, video=False), samples))


def test_pictures_follow_the_sound_over_a_joint(recognizer: Recognizer, samples: np.ndarray, crops: np.ndarray) -> None:
    session = recognizer.stream(chunk_ms=320)
    events: list[Event] = []
    joint_slot = 40
    for slot in range(len(crops)):
        shift_s = -0.04 * joint_slot if slot >= joint_slot else 0.0
        sound = samples[640 * slot : 640 * (slot + 1)]
        events += session.push_audio(sound, 0.04 * slot + shift_s) + session.push_video(
            crops[slot], 0.04 * slot + shift_s
        )
    events += session.finish()
    counters = events[-1].counters
    assert counters is not None and adds_up(counters)
    # Pictures that come before the joint is sure, half a second after it, are late.
    assert counters["late"] + counters["duplicate"] <= 14
    assert counters["used"] >= len(crops) - 20  # after lost slots, lips are taken up again with some care
