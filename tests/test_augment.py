"""Noise at exact levels, and changes that repeat and stay in their ranges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avsr.augment import audio, filters, mixing, video
from avsr.datasets.manifest import save_samples
from avsr.datasets.noise import NoiseBank, read_noise_folder
from avsr.datasets.randomness import generator, stable_seed
from avsr.errors import DataError
from tests.tiny import random_samples


def decibels(ratio: float) -> float:
    return 20 * float(np.log10(ratio))


@pytest.mark.parametrize("snr_db", [-20.0, -5.0, 0.0, 7.3, 30.0])
def test_snr_is_met_on_active_speech(snr_db: float) -> None:
    speech = random_samples(2.0)
    speech[8000:24_000] = 0  # a pause must not count
    noise = random_samples(2.0, seed=1) * 7
    mixed = audio.mix_at_snr(speech, noise, snr_db)
    added = (mixed - speech).astype(np.float64)
    active = np.concatenate((speech[:8000], speech[24_000:])).astype(np.float64)
    achieved = decibels(np.sqrt((active**2).mean()) / np.sqrt((added**2).mean()))
    assert achieved == pytest.approx(snr_db, abs=0.01)


def test_silence_cannot_be_mixed() -> None:
    speech, silence = random_samples(0.5), np.zeros(8000, np.float32)
    with pytest.raises(DataError, match="noise is digital silence"):
        audio.mix_at_snr(speech, silence, 0.0)
    with pytest.raises(DataError, match="level of digital silence"):
        audio.mix_at_snr(silence, speech, 0.0)
    with pytest.raises(DataError, match="got 10 samples, expected 8000"):
        audio.mix_at_snr(speech, speech[:10], 0.0)
    with pytest.raises(DataError, match="empty"):
        mixing.active_rms(np.zeros(0, np.float32))


@pytest.mark.parametrize(("colour", "fall_db"), [("white", 0), ("pink", 3), ("brown", 6)])
def test_coloured_noise_falls_by_its_decibels_an_octave(colour: filters.NoiseColour, fall_db: float) -> None:
    noise = filters.coloured_noise(160_000, colour, 1)
    power = np.abs(np.fft.rfft(noise)) ** 2
    low, high = power[5000:10_000].mean(), power[20_000:40_000].mean()  # two octaves apart
    assert 10 * np.log10(low / high) == pytest.approx(2 * fall_db, abs=0.5)
    assert noise.std() == pytest.approx(1.0, abs=0.05)


def test_speed_moves_pitch() -> None:
    tone = np.sin(2 * np.pi * 500 * np.arange(16_000) / 16_000).astype(np.float32)
    faster = audio.change_speed(tone, 1.25)
    assert len(faster) == pytest.approx(12_800, abs=1)
    assert np.abs(np.fft.rfft(faster)).argmax() * 16_000 / len(faster) == pytest.approx(625, abs=2)


def test_channel_stays_within_its_depth() -> None:
    noise = random_samples(2.0)
    coloured = audio.colour_channel(noise, 6.0, generator("channel"))
    assert coloured.shape == noise.shape
    bands = zip(
        np.array_split(np.abs(np.fft.rfft(noise)), 40), np.array_split(np.abs(np.fft.rfft(coloured)), 40), strict=True
    )
    gains = [decibels(float(np.sqrt((b**2).mean() / (a**2).mean()))) for a, b in bands]
    assert max(map(abs, gains)) < 6.5
    assert np.std(gains) > 0.5


def test_noise_bank_draws_any_length_and_repeats(tmp_path: Path) -> None:
    save_samples(tmp_path / "a" / "short.wav", random_samples(0.3))
    save_samples(tmp_path / "silent.wav", np.zeros(1000, np.float32))
    noises = read_noise_folder(tmp_path)
    assert list(noises) == ["a/short.wav"]
    bank = NoiseBank(list(noises.values()), [random_samples(1.0, seed=s) for s in range(3)])
    kinds = set()
    for index in range(60):
        noise, kind = bank.draw(20_000, generator("draw", index))
        again, _ = bank.draw(20_000, generator("draw", index))
        np.testing.assert_array_equal(noise, again)
        assert noise.shape == (20_000,) and noise.any()
        kinds.add(kind)
    assert kinds == {"environment", "babble", "coloured"}
    assert NoiseBank([], []).draw(100, generator("x"))[1] == "coloured"
    with pytest.raises(DataError, match="no noise"):
        read_noise_folder(tmp_path / "nothing")


def test_seeds_depend_on_every_part_and_on_nothing_else() -> None:
    assert stable_seed(1, "a", "noise") == 2270531152551601419
    assert (
        len({stable_seed(1, "a", "x"), stable_seed(2, "a", "x"), stable_seed(1, "b", "x"), stable_seed(1, "a", "y")})
        == 4
    )


def test_lips_vary_alike_in_every_frame() -> None:
    crop = np.zeros((96, 96), np.uint8)
    crop[40:60, 30:70] = 200
    clip = np.repeat(crop[None], 5, axis=0)
    varied = video.vary_lips(clip, 1.0, generator("lips", 3))
    assert varied.shape == (5, 88, 88) and varied.dtype == np.uint8
    assert (varied == varied[:1]).all()
    np.testing.assert_array_equal(varied, video.vary_lips(clip, 1.0, generator("lips", 3)))
    assert not np.array_equal(varied, video.vary_lips(clip, 1.0, generator("lips", 4)))


def test_centre_crop_and_hidden_slots() -> None:
    clip = np.arange(96 * 96).reshape(1, 96, 96).astype(np.uint8)
    np.testing.assert_array_equal(video.centre_crop(clip), clip[:, 4:92, 4:92])
    np.testing.assert_array_equal(video.centre_crop(video.centre_crop(clip)), clip[:, 4:92, 4:92])
    for index in range(30):
        hidden = ~video.hide_slots(np.ones(50, bool), 10, generator(index))
        assert hidden.sum() <= 10
        assert np.abs(np.diff(hidden.astype(int))).sum() <= 2  # one stretch
