"""One channel of several: the mean to the bit for ordinary sound, the right channel where the mean would spoil it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avsr.account import Account
from avsr.grid import SAMPLE_RATE_HZ
from avsr.media import read_audio
from avsr.media.channels import Downmix
from avsr.offline.diagnosis import diagnose
from tests.test_media import write_sound

CANCEL = "the channels cancel each other when they are mixed: channel {} of {} is used alone"
NOISE = "the other channels hold only hum or noise: channel {} of {} is used alone"


def voice(seconds: float = 4.0, seed: int = 0, rate: int = SAMPLE_RATE_HZ) -> np.ndarray:
    """Noise like speech: most of it below 1 kHz, in syllables of 0.2 s with pauses between them."""
    rng = np.random.default_rng(seed)
    count = round(seconds * rate)
    spectrum = np.fft.rfft(rng.normal(size=count))
    hz = np.fft.rfftfreq(count, 1 / rate)
    sound = np.fft.irfft(spectrum / (1 + (hz / 500) ** 2) * (hz > 100), count)
    syllables = rng.random(round(seconds * 5) + 1) < 0.5
    sound *= np.repeat(syllables, rate // 5)[:count] + 1e-3
    return 0.1 * sound / sound.std()


def noise(level: float, seconds: float = 4.0, seed: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, round(seconds * SAMPLE_RATE_HZ))


def hum(level: float, seconds: float = 4.0) -> np.ndarray:
    times = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return level * sum(np.sin(2 * np.pi * 50 * number * times) / number for number in (1, 2, 3, 5, 7))


def mixed(channels: list[np.ndarray], block: int = 1024, rate: int = SAMPLE_RATE_HZ) -> tuple[np.ndarray, list[str]]:
    """The one channel of several, pushed in blocks, and what was said."""
    values = np.stack(channels).astype(np.float32)
    account = Account()
    downmix = Downmix(account)
    result = []
    for start in range(0, values.shape[1], block):
        result += downmix.push(values[:, start : start + block], rate)
    result += downmix.finish()
    assert [len(part) for part in result] == [
        min(block, values.shape[1] - start) for start in range(0, values.shape[1], block)
    ]
    return np.concatenate(result), account.lines()


def later(sound: np.ndarray, seconds: float) -> np.ndarray:
    turns = np.exp(-2j * np.pi * np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE_HZ) * seconds)
    return np.fft.irfft(np.fft.rfft(sound) * turns, len(sound))


@pytest.mark.parametrize(
    "channels",
    [
        pytest.param([voice()], id="mono"),
        pytest.param([voice(), voice()], id="equal"),
        pytest.param([voice(), 0.3 * voice()], id="panned"),
        pytest.param([voice(), 0 * voice()], id="one silent"),
        pytest.param([voice(seed=1), voice(seed=2)], id="two speakers"),
        pytest.param([voice() + noise(0.01), voice() + noise(0.01, seed=8)], id="room"),
        pytest.param([voice() + hum(0.3), voice() - hum(0.3)], id="the mean removes the hum"),
        pytest.param([voice(), later(voice(), 0.0003)], id="two microphones"),
        pytest.param([voice(), noise(1e-4)], id="faint hiss"),
        pytest.param([0 * voice()] * 2, id="silence"),
        pytest.param([hum(0.1), hum(0.1)], id="hum"),
        pytest.param([0.2 * voice(), 0.2 * voice(), voice(seed=1), 0 * voice(), *[0.1 * voice(seed=3)] * 2], id="5.1"),
    ],
)
def test_ordinary_sound_is_the_mean_to_the_bit(channels: list[np.ndarray]) -> None:
    mono, lines = mixed(channels)
    expected = np.stack(channels).astype(np.float32).mean(axis=0, dtype=np.float32)
    assert lines == []
    np.testing.assert_array_equal(mono.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize(
    ("channels", "used"),
    [
        pytest.param([voice(), -voice()], 0, id="inverted"),
        pytest.param([voice(0.3), -voice(0.3)], 0, id="one short word"),
        pytest.param([hum(0.1), -hum(0.1)], 0, id="a steady tone"),
        pytest.param([voice(), -0.7 * voice() + noise(0.003)], 0, id="weaker, with noise"),
        pytest.param([-0.7 * voice() + noise(0.01), voice()], 1, id="the second is better"),
        pytest.param([voice(), -later(voice(), 0.0002)], 0, id="inverted and later"),
        pytest.param([voice() + noise(0.03), -voice() + noise(0.03, seed=8)], 0, id="in noise"),
        pytest.param([voice(), -voice(), *[0 * voice()] * 4], 0, id="5.1"),
        pytest.param([-0.5 * voice(), -0.5 * voice(), voice(), *[0 * voice()] * 3], 2, id="the centre of 5.1"),
    ],
)
def test_of_channels_that_cancel_one_is_used(channels: list[np.ndarray], used: int) -> None:
    mono, lines = mixed(channels)
    assert lines == [CANCEL.format(used + 1, len(channels))]
    np.testing.assert_array_equal(mono, channels[used].astype(np.float32))


@pytest.mark.parametrize(
    ("channels", "used"),
    [
        pytest.param([voice(), hum(0.1)], 0, id="hum"),
        pytest.param([noise(0.1), voice()], 1, id="hiss"),
        pytest.param([noise(0.1), 0.3 * voice()], 1, id="louder hiss"),
        pytest.param([hum(0.1), *[0 * voice()] * 4, voice()], 5, id="5.1"),
    ],
)
def test_a_channel_of_noise_alone_is_left_out(channels: list[np.ndarray], used: int) -> None:
    mono, lines = mixed(channels)
    assert lines == [NOISE.format(used + 1, len(channels))]
    np.testing.assert_array_equal(mono, channels[used].astype(np.float32))


def test_blocks_of_any_length_give_the_same() -> None:
    channels = [voice(), -voice()]
    np.testing.assert_array_equal(mixed(channels)[0], mixed(channels, block=64_000)[0])


def test_channels_that_cancel_later_are_found_within_a_second() -> None:
    left, right = voice(12.0), voice(12.0)
    right[6 * SAMPLE_RATE_HZ :] *= -1
    mono, _ = mixed([left, right])
    lost = np.abs(mono - left) > 1e-3
    assert lost.sum() < 1.0 * SAMPLE_RATE_HZ
    assert not lost[: 6 * SAMPLE_RATE_HZ].any()


def test_a_second_speaker_is_heard_when_the_noise_of_his_channel_ends() -> None:
    """Hum, and later a voice in the same channel: each voice is in the result."""
    left = np.concatenate([voice(6.0), 0 * voice(6.0)])
    right = np.concatenate([hum(0.05, 6.0), hum(0.05, 6.0) + voice(6.0, seed=4)])
    mono, lines = mixed([left, right])
    assert lines[0] == NOISE.format(1, 2)
    np.testing.assert_array_equal(mono[: 3 * SAMPLE_RATE_HZ], left[: 3 * SAMPLE_RATE_HZ].astype(np.float32))
    second = slice(7 * SAMPLE_RATE_HZ, 12 * SAMPLE_RATE_HZ)
    assert np.corrcoef(mono[second], right[second])[0, 1] > 0.99


def test_the_choice_stays_in_a_pause() -> None:
    speech = np.concatenate([voice(4.0), 1e-4 * noise(1.0, 10.0), voice(4.0, seed=3)])
    mono, lines = mixed([speech, hum(0.1, 18.0)])
    assert lines == [NOISE.format(1, 2)]
    np.testing.assert_array_equal(mono, speech.astype(np.float32))


def test_channels_and_rate_may_change() -> None:
    downmix = Downmix()
    parts = []
    for channels, rate in ((2, 16_000), (1, 16_000), (6, 48_000), (2, 8_000)):
        parts += downmix.push(np.full((channels, rate // 4), 0.25, np.float32), rate)
    parts += downmix.finish()
    assert [len(part) for part in parts] == [4000, 4000, 12_000, 2000]
    assert all(np.all(part == 0.25) for part in parts)


def test_any_values_pass() -> None:
    for value in (0.0, 1e30, 3e38, 1e-40):
        mono, _ = mixed([np.full(20_000, value), np.full(20_000, -value)])
        assert len(mono) == 20_000


def test_files_are_read_so_and_doctor_says_it(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", [(0.0, np.stack([voice(), -voice()]).clip(-1, 1))], rate=SAMPLE_RATE_HZ)
    np.testing.assert_allclose(read_audio(path), voice().clip(-1, 1), atol=1e-4)
    found = diagnose(path)
    assert CANCEL.format(1, 2) in found.advice
    assert found.severity == "warn" and not any("silent" in line for line in found.advice)


def test_a_channel_of_values_that_are_not_finite_counts_as_silent(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=SAMPLE_RATE_HZ, layout="stereo")
        values = np.stack([voice(), np.full(len(voice()), np.nan)]).astype(np.float32).T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(values), format="flt", layout="stereo")
        frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    np.testing.assert_allclose(read_audio(path), 0.5 * voice(), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_clipped_sound_is_said(channels: int, tmp_path: Path) -> None:
    quiet = np.clip(0.1 * voice(), -1, 1)
    loud = np.clip(10 * voice(), -1, 1)
    share = (np.abs(loud) >= 1).mean()
    values = np.stack([quiet, loud][-channels:])  # of two channels one is clipped, and their mean is not
    path = write_sound(tmp_path / "a.wav", [(0.0, values)], rate=SAMPLE_RATE_HZ)
    account = Account()
    read_audio(path, account=account)
    (line,) = account.lines()
    assert line == f"{share:.0%} of the sound is clipped, and words may be wrong there: record it at a lower level"
    assert sum("clipped" in line for line in diagnose(path).advice) == 1
