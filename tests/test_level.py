"""Very quiet speech is raised; usual sound stays as it is to the bit, and quiet noise becomes silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import avsr
from avsr.account import Account
from avsr.grid import SAMPLE_RATE_HZ
from avsr.media import read_audio
from avsr.offline.diagnosis import diagnose
from avsr.sound.level import LiveGain, raised
from avsr.streaming.source import open_live_source
from tests.media import shared_corpus
from tests.test_media import write_sound

DEMO = Path(avsr.__file__).parent / "assets" / "demo.mp4"
WORDS = "place blue by r nine again"


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    sound = read_audio(DEMO)
    return sound / np.abs(sound).max()


@pytest.fixture(scope="module")
def model() -> avsr.Recognizer:
    return avsr.load("grid-tiny")


def at(sound: np.ndarray, peak_db: float) -> np.ndarray:
    """The sound with another peak, in 16 bit."""
    return (np.round(32768 * sound / np.abs(sound).max() * 10 ** (peak_db / 20)) / 32768).astype(np.float32)


def result_of(sound: np.ndarray, block: int = 1000) -> tuple[np.ndarray, list[str]]:
    account = Account()
    blocks = [sound[start : start + block] for start in range(0, len(sound), block)]
    return np.concatenate([*raised(blocks, account), sound[:0]]), account.lines()


@pytest.mark.parametrize("peak_db", [0, -10, -20, -30])
def test_usual_sound_is_equal_to_the_bit(speech: np.ndarray, peak_db: float) -> None:
    sound = at(speech, peak_db)
    result, lines = result_of(sound)
    assert lines == []
    np.testing.assert_array_equal(result.view(np.int32), sound.view(np.int32))


@pytest.mark.parametrize("peak_db", [-45, -60, -66, -72])
def test_quiet_speech_is_raised_to_the_usual_level(speech: np.ndarray, peak_db: float) -> None:
    result, (line,) = result_of(at(speech, peak_db))
    assert len(result) == len(speech)
    assert 0.1 < np.abs(result).max() <= 1.0
    assert np.corrcoef(result, speech)[0, 1] > 0.97
    assert line.startswith("the sound is very quiet (-") and "dB of full scale): raised by" in line


def test_blocks_of_any_length_give_the_same(speech: np.ndarray) -> None:
    sound = at(speech, -66)
    np.testing.assert_array_equal(result_of(sound)[0], result_of(sound, block=len(sound))[0])


def noises() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    count = 8 * SAMPLE_RATE_HZ
    white = rng.normal(size=count)
    spectrum = np.fft.rfft(white)
    brown = np.fft.irfft(spectrum / np.maximum(1, np.arange(len(spectrum)) / 160), count)
    dither = rng.uniform(-0.5, 0.5, count) + rng.uniform(-0.5, 0.5, count)
    return {
        "brown at -60 dB": brown / brown.std() * 1e-3,
        "white at -60 dB": white * 1e-3,
        "white at -80 dB": white * 1e-4,
        "hum at -66 dB": 5e-4 * np.sin(2 * np.pi * 50 * np.arange(count) / SAMPLE_RATE_HZ),
        "dither": np.round(2 * dither) / 32768,
        "silence": np.zeros(count),
    }


@pytest.mark.parametrize("name", noises())
def test_quiet_noise_becomes_silence_and_gives_no_words(name: str, model: avsr.Recognizer) -> None:
    sound = noises()[name].astype(np.float32)
    result, lines = result_of(sound)
    assert not result.any()
    said = [line for line in lines if "no voice is heard in it: it counts as silence" in line]
    assert len(said) == (name not in ("silence", "dither"))
    assert model.transcribe(sound).text == ""


def test_recordings_of_noise_are_not_raised() -> None:
    """1 of 100 is: in it somebody laughs."""
    paths = sorted(shared_corpus("noise/noise_train").iterdir())
    heard = []
    for path in paths:
        sound = read_audio(path)
        result, _ = result_of(at(sound, -60) if sound.any() else sound)
        heard += [path.name] * bool(result.any())
    assert len(paths) == 100
    assert len(heard) <= 2


def test_a_click_does_not_hide_quiet_speech(speech: np.ndarray) -> None:
    sound = at(speech, -66)
    sound[2000:2100] = 0.9
    result, lines = result_of(sound)
    assert len(lines) == 1
    assert np.abs(result).max() <= 1.0
    assert np.corrcoef(result[8000:], speech[8000:])[0, 1] > 0.97


def test_the_faint_voice_beside_a_usual_one_stays_faint(speech: np.ndarray) -> None:
    sound = np.concatenate((at(speech, -6), at(speech, -66), at(speech, -6)))
    result, lines = result_of(sound)
    assert len(lines) == 1 and "is not raised: a louder one is near" in lines[0]
    np.testing.assert_array_equal(result, sound)


def test_the_silence_before_the_first_word_stays(speech: np.ndarray) -> None:
    room = np.random.default_rng(0).normal(0, 3e-4, 10 * SAMPLE_RATE_HZ).astype(np.float32)
    sound = np.concatenate((room, at(speech, -6)))
    np.testing.assert_array_equal(result_of(sound)[0], sound)


def test_the_words_of_quiet_speech_are_right_in_files_samples_and_streams(
    speech: np.ndarray, model: avsr.Recognizer, tmp_path: Path
) -> None:
    sound = at(speech, -66)
    path = write_sound(tmp_path / "a.wav", [(0.0, sound[None])], rate=SAMPLE_RATE_HZ)
    expected = model.transcribe(speech).text
    for source in (path, sound):
        transcript = model.transcribe(source)
        assert transcript.text == expected
        assert any("raised by" in line for line in transcript.warnings)
    account = Account()
    live, _ = open_live_source(path, account=account)
    events = []
    with model.stream(video=False) as session:
        for block in live:
            assert block is not None
            events += session.push_audio(block.samples, block.time_s)
        events += session.finish()
    assert " ".join(event.text for event in events if event.event == "final") == expected
    assert any("raised by" in line for line in account.lines())


def test_a_live_stream_is_raised_once_a_voice_was_heard(speech: np.ndarray) -> None:
    sound = np.concatenate([at(speech, -66)] * 2)
    gain = LiveGain()
    result = np.concatenate([gain.push(sound[start : start + 320]) for start in range(0, len(sound), 320)])
    assert len(result) == len(sound)
    second = result[len(speech) :]
    assert np.corrcoef(second, speech)[0, 1] > 0.97 and np.abs(second).max() > 0.1
    assert gain.most_db > 30
    usual = LiveGain()
    loud = at(speech, -20)
    np.testing.assert_array_equal(usual.push(loud), loud)
    np.testing.assert_array_equal(usual.push(loud), loud)
    assert usual.most_db == 0


def test_doctor_says_once_that_nothing_is_heard(tmp_path: Path) -> None:
    hiss = np.random.default_rng(0).standard_normal(SAMPLE_RATE_HZ).astype(np.float32)
    path = write_sound(tmp_path / "a.wav", [(0.0, at(hiss, -66)[None])], rate=SAMPLE_RATE_HZ)
    found = diagnose(path)
    (line,) = (line for line in found.advice if "picture" not in line)
    assert found.severity == "bad" and line.endswith("it counts as silence; check the microphone")


def test_live_the_gain_falls_before_loud_speech_is_clipped(speech: np.ndarray) -> None:
    sound = np.concatenate((at(speech, -60), at(speech, -60), at(speech, -6)))
    gain = LiveGain()
    result = np.concatenate([gain.push(sound[start : start + 320]) for start in range(0, len(sound), 320)])
    assert gain.most_db > 30
    loud = result[-len(speech) :]
    assert (np.abs(loud) >= 0.999).mean() < 0.001
    np.testing.assert_array_equal(loud[-8000:], sound[-8000:])


def test_doctor_tells_quiet_speech_from_silence(speech: np.ndarray, tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", [(0.0, at(speech, -66)[None])], rate=SAMPLE_RATE_HZ)
    found = diagnose(path)
    assert found.severity == "warn" and found.sound is not None and found.sound.level_db < -60
    assert any("the sound is very quiet" in line for line in found.advice)
    assert not any("silent" in line for line in found.advice)


def test_a_voice_too_quiet_beside_a_louder_one_is_said(speech: np.ndarray) -> None:
    pause = np.zeros(SAMPLE_RATE_HZ * 3 // 2, np.float32)
    account = Account()
    sound = np.concatenate((at(speech, -66), pause, at(speech, -20)))
    np.testing.assert_array_equal(np.concatenate(list(raised([sound], account))), sound)  # nothing is changed
    assert len(account.lines()) == 1 and "is not raised: a louder one is near" in account.lines()[0]
    ordinary = Account()
    list(raised([np.concatenate((at(speech, -20), pause, pause, at(speech, -30)))], ordinary))
    assert ordinary.lines() == []


def test_a_constant_offset_hides_no_quiet_speech(speech: np.ndarray) -> None:
    result, (line,) = result_of((at(speech, -60) + 0.5).astype(np.float32))
    assert "raised by" in line
    assert np.corrcoef(result, speech)[0, 1] > 0.97
    assert np.abs(result).max() < 1
