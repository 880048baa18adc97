"""From voice and moving lips to windows that begin and end in pauses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import avsr
from avsr.grid import FRAME_SAMPLES, SAMPLE_RATE_HZ
from avsr.lips.movement import MOVES_FROM, follow_movement, initial_movement
from avsr.lips.slots import LipSlot, no_crop
from avsr.media import read_audio
from avsr.offline.pauses import cut_at_pauses, pack
from avsr.offline.tape import Tape, Window
from avsr.sound.speech import LEAST_WINDOWS, PAUSE_WINDOWS, Stretch, follow_speech, initial_speech
from avsr.sound.voice import WINDOW_SAMPLES

LONGEST = 375  # frames: 30 s
Sound = NDArray[np.float32]


def voice_of(text: str) -> NDArray[np.float32]:
    """Probabilities of a voice in windows: "." 0.01, "-" 0.2, "o" 0.5."""
    return np.array([{".": 0.01, "-": 0.2, "o": 0.5}[letter] for letter in text], np.float32)


def stretches_of(voice: NDArray[np.float32], moving: NDArray[np.bool_] | None = None) -> list[tuple[float, float]]:
    """Begin and end of the stretches in seconds."""
    if moving is None:
        moving = np.zeros(len(voice), bool)
    stretches, _ = follow_speech(voice, moving, initial_speech(), LONGEST, is_last=True)
    return [(stretch.start * 0.08, stretch.end * 0.08) for stretch in stretches]


PAUSE = "." * 40  # windows: 1.28 s


def test_a_stretch_is_the_voice_with_edges() -> None:
    ((start, end),) = stretches_of(voice_of(PAUSE + "ooooooo" + PAUSE))
    assert start == pytest.approx(1.28 - 0.3, abs=0.08) and start <= 1.28 - 0.3
    assert end == pytest.approx(1.504 + 0.3, abs=0.08) and end >= 1.504 + 0.3


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("." * 100, 0),
        ("-" * 100, 0),  # too unlikely for a beginning
        (PAUSE + "ooooo" + PAUSE, 0),  # too short for a word
        (PAUSE + "o" * 6 + PAUSE + "o" * 9 + PAUSE, 2),
        ("ooo" + "." * (PAUSE_WINDOWS - 1) + "ooo", 1),
        ("oooooo" + "." * PAUSE_WINDOWS + "oooooo", 2),
        ("ooo" + "-" * 60 + "ooo", 1),  # faint speech between goes on
        ("oooooo", 1),
        ("", 0),
    ],
)
def test_what_begins_and_ends_a_stretch(text: str, count: int) -> None:
    assert len(stretches_of(voice_of(text))) == count


def test_moving_lips_make_a_faint_voice_enough() -> None:
    faint = np.full(200, 0.03, np.float32)
    moving = np.zeros(200, bool)
    moving[80:120] = True
    assert stretches_of(faint) == []
    ((start, end),) = stretches_of(faint, moving)
    assert start == pytest.approx(80 * 0.032 - 0.3, abs=0.08) and end == pytest.approx(120 * 0.032 + 0.3, abs=0.08)
    assert stretches_of(np.full(200, 0.01, np.float32), moving) == []  # silent lips


def test_a_long_stretch_is_cut_where_the_voice_is_faintest() -> None:
    voice = np.full(1500, 0.9, np.float32)  # 48 s
    voice[800:806] = 0.3  # the last third of 30 s begins at window 625
    voice[300:310] = 0.2  # more likely a pause, but too early
    first, second = stretches_of(voice)
    assert first[1] == second[0] == pytest.approx(803 * 0.032, abs=0.08)
    assert second[1] == pytest.approx(48.0 + 0.3, abs=0.09)


@pytest.mark.parametrize("seed", range(8))
def test_any_blocks_give_the_same_stretches_each_short_enough(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 400, 60)
    voice = np.concatenate([np.full(length, level) for length, level in zip(lengths, rng.random(60) ** 2, strict=True)])
    voice = (voice * rng.random(len(voice))).astype(np.float32)
    moving = np.repeat(rng.random(len(voice) // 50 + 1) < 0.2, 50)[: len(voice)]
    longest = int(rng.integers(60, 380))
    whole, _ = follow_speech(voice, moving, initial_speech(), longest, is_last=True)
    state, parts = initial_speech(), []
    for start, end in blocks(rng, len(voice), 300):
        ready, state = follow_speech(voice[start:end], moving[start:end], state, longest)
        assert all(stretch.end <= state.settled for stretch in ready)
        parts += ready
    rest, _ = follow_speech(voice[:0], moving[:0], state, longest, is_last=True)
    assert parts + rest == whole and len(whole) > 5
    assert all(stretch.end - stretch.start <= longest for stretch in whole)
    assert all(one.end <= other.start for one, other in zip(whole, whole[1:], strict=False))
    for window in np.flatnonzero(voice >= 0.4):
        if (voice[window : window + LEAST_WINDOWS] >= 0.4).sum() == LEAST_WINDOWS:  # long enough for a word
            assert any(one.start * 2.5 <= window < one.end * 2.5 for one in whole)


def blocks(rng: np.random.Generator, count: int, largest: int) -> Iterator[tuple[int, int]]:
    """Parts of any size that follow each other."""
    start = 0
    while start < count:
        end = min(count, start + int(rng.integers(1, largest)))
        yield start, end
        start = end


def lips(openings: list[float], face: int | None = 1, *, present: bool = True) -> list[LipSlot]:
    return [LipSlot(k, no_crop(), present, "ok", face, opening=opening) for k, opening in enumerate(openings)]


class TestMovement:
    def test_lips_that_open_and_close_move(self) -> None:
        still, talking = [0.05] * 25, [0.05, 0.05 + 4 * MOVES_FROM] * 12
        moving, _ = follow_movement(lips(still + talking + still), initial_movement())
        assert not moving[:26].any() and moving[28:49].all() and not moving[60:].any()

    def test_hidden_lips_and_another_face_do_not_move(self) -> None:
        talking = [0.05, 0.15] * 20
        hidden, _ = follow_movement(lips(talking, present=False), initial_movement())
        nobody, _ = follow_movement(lips([float("nan")] * 40, None), initial_movement())
        cut, _ = follow_movement(lips([0.05] * 20) + lips([0.2] * 20, face=2), initial_movement())
        assert not (hidden.any() or nobody.any() or cut.any())

    def test_any_blocks_give_the_same(self) -> None:
        rng = np.random.default_rng(0)
        slots = lips(rng.normal(0.1, 0.01, 100).tolist())
        whole, _ = follow_movement(slots, initial_movement())
        state, parts = initial_movement(), []
        for start, end in blocks(rng, 100, 15):
            part, state = follow_movement(slots[start:end], state)
            parts.append(part)
        assert np.concatenate(parts).tolist() == whole.tolist() and 0 < whole.sum() < 100


class TestGroups:
    def test_stretches_share_a_window_that_is_long_enough(self) -> None:
        stretches = [Stretch(10, 100), Stretch(150, 200), Stretch(300, 385), Stretch(385, 400)]
        groups, rest = pack(stretches, [], LONGEST, 400)
        assert groups == [stretches[:3]] and rest == stretches[3:]

    def test_a_group_is_complete_when_no_later_stretch_fits(self) -> None:
        group = [Stretch(10, 100)]
        assert pack([], group, LONGEST, 385) == ([], group)
        assert pack([], group, LONGEST, 386) == ([group], [])


@pytest.fixture(scope="module")
def talk() -> Sound:
    """Three minutes: sentences with short and long pauses, 38 s without a pause, noise, silence."""
    rng = np.random.default_rng(5)
    sentence = read_audio(Path(avsr.__file__).parent / "assets" / "demo.mp4")
    words = sentence[round(0.96 * SAMPLE_RATE_HZ) : round(2.56 * SAMPLE_RATE_HZ)]
    parts: list[NDArray[Any]] = []
    for pause_s in rng.choice([0.3, 0.9, 2.0, 6.0], 15, p=[0.3, 0.3, 0.2, 0.2]):
        parts += [words, np.zeros(round(pause_s * SAMPLE_RATE_HZ), np.float32)]
    parts += [rng.normal(0, 0.01, 35 * SAMPLE_RATE_HZ), *[words] * 24, np.zeros(20 * SAMPLE_RATE_HZ), words]
    return np.concatenate(parts).astype(np.float32)


def cut(samples: Sound, seed: int = 0, longest: int = LONGEST) -> list[Window]:
    rng = np.random.default_rng(seed)
    sound = (samples[start:end] for start, end in blocks(rng, len(samples), [16_000, 700, 200_000][seed % 3]))
    return list(cut_at_pauses(Tape(sound, iter(()), sound=True, picture=False, lips=False), longest))


def of_speech(windows: list[Window]) -> list[Window]:
    return [window for window in windows if window.speech]


@pytest.mark.parametrize("longest", [375, 120])
def test_windows_cover_a_recording_once(talk: Sound, longest: int) -> None:
    windows = cut(talk, longest=longest)
    assert windows[0].first == 0
    assert all(one.keep[1] == other.first for one, other in zip(windows, windows[1:], strict=False))
    assert windows[-1].keep[1] == -(-len(talk) // FRAME_SAMPLES)
    for window in windows:
        assert window.keep[0] == window.first and window.keep[1] - window.first <= longest
        first, end = (frame * FRAME_SAMPLES for frame in window.keep)
        np.testing.assert_array_equal(window.samples, talk[first:end])


def test_windows_of_speech_hold_every_stretch_once(talk: Sound) -> None:
    windows = cut(talk)
    stretches = [stretch for window in windows for stretch in window.speech or ()]
    assert all(one.end <= other.start for one, other in zip(stretches, stretches[1:], strict=False))
    for window in of_speech(windows):
        assert window.speech is not None
        assert (window.speech[0].start, window.speech[-1].end) == window.keep
    loud = np.abs(talk) > 0.05
    loud[:: WINDOW_SAMPLES * 2] = False
    inside = np.zeros(len(talk), bool)
    for start, end in stretches:
        inside[start * FRAME_SAMPLES : end * FRAME_SAMPLES] = True
    assert inside[loud].all()
    assert inside.mean() < 0.6  # silence and noise are outside
    assert len(of_speech(windows)) < 20


@pytest.mark.parametrize("seed", [1, 2])
def test_any_blocks_of_sound_give_the_same_windows(talk: Sound, seed: int) -> None:
    one, other = cut(talk, 0), cut(talk, seed)
    assert [(window.keep, window.speech) for window in one] == [(window.keep, window.speech) for window in other]


def test_sound_without_speech_gives_no_window_of_speech() -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 100 * SAMPLE_RATE_HZ).astype(np.float32)
    windows = cut(noise)
    assert [window.keep for window in windows] == [(0, 375), (375, 750), (750, 1125), (1125, 1250)]
    assert not of_speech(windows)


def test_a_picture_longer_than_the_sound_is_covered_too(talk: Sound) -> None:
    sound = talk[: 10 * SAMPLE_RATE_HZ]
    slots = [LipSlot(k, no_crop(), True, "ok", 3, opening=0.05) for k in range(500)]
    tape = Tape(iter([sound]), iter(slots), sound=True, picture=True, lips=False)
    windows = list(cut_at_pauses(tape, LONGEST))
    assert windows[-1].keep[1] == 250
    assert sum(len(window.faces) for window in windows) == 500
    assert all(window.crops is None and window.present is None for window in windows)
    alone = of_speech(cut(sound))
    assert [window.speech for window in of_speech(windows)] == [window.speech for window in alone]
