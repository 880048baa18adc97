"""Noise at exact levels: the measured SNR is the requested SNR for every type of samples, and nothing clips."""

from __future__ import annotations

import math

import numpy as np
import pytest

from avsr.errors import DataError
from avsr.noise.mixing import MixResult, active_rms, linear, mix, rms_db


def sound(amplitude: float, seed: int, dtype: str, count: int = 24_001) -> np.ndarray:
    """Noise with a pause in it, [S]."""
    samples = amplitude * np.random.default_rng(seed).standard_normal(count)
    samples[6_400:9_600] = 0
    return np.rint(samples * 32_768).astype(np.int16) if dtype == "int16" else samples.astype(dtype)


def independent_snr_db(speech: np.ndarray, result: MixResult) -> float:
    """Measured in plain float64 from the documented definition; the pause of `sound` counts for noise only."""
    clean = speech.astype(np.float64)
    noise = result.samples.astype(np.float64) / 10 ** (result.scale_db / 20) - clean
    return 10 * math.log10(np.mean(np.delete(clean, slice(6_400, 9_600)) ** 2) / np.mean(noise**2))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
@pytest.mark.parametrize("amplitude", [0.2, 0.02, 0.003])
def test_achieved_snr_is_the_requested_snr(dtype: str, amplitude: float) -> None:
    speech, noise = sound(amplitude, 0, dtype), sound(0.1, 1, dtype)
    for snr_db in range(-20, 31, 2):
        result = mix(speech, noise, snr_db)
        assert result.samples.dtype == ("int16" if dtype == "int16" else "float32")
        assert independent_snr_db(speech, result) == pytest.approx(snr_db, abs=0.01)
        assert result.achieved_snr_db == pytest.approx(snr_db, abs=0.01)
        assert np.abs(result.samples.astype(float)).max() <= (32_767 if dtype == "int16" else 1.0)


def test_zero_db_is_a_value_and_none_is_clean() -> None:
    speech, noise = sound(0.1, 0, "float32"), sound(0.3, 1, "float32")
    assert mix(speech, noise, 0.0).achieved_snr_db == pytest.approx(0.0, abs=0.001)
    clean = mix(speech, noise, None)
    np.testing.assert_array_equal(clean.samples, speech)
    assert clean == MixResult(clean.samples, None, None, None, 0.0)


def test_a_loud_sum_is_turned_down_and_says_so() -> None:
    speech, noise = sound(0.3, 0, "int16"), sound(0.1, 1, "int16")
    result = mix(speech, noise, -15.0)
    assert result.scale_db < -10
    assert np.abs(result.samples.astype(int)).max() in range(32_700, 32_768)
    assert mix(speech // 10, noise, 10.0).scale_db == 0.0


def test_level_of_active_speech_leaves_out_pauses() -> None:
    speech = np.concatenate([np.full(3200, 0.5), np.zeros(3200), np.full(100, 0.5)]).astype(np.float32)
    assert active_rms(speech) == pytest.approx(0.5)
    assert rms_db(speech, "active") == pytest.approx(-6.021, abs=0.001)
    assert rms_db(speech) == pytest.approx(-6.021 + 10 * math.log10(3300 / 6500), abs=0.001)


def test_order_of_samples_does_not_change_a_level_by_a_bit() -> None:
    """Another order of the samples, as on a machine with wider vectors, changes the last bits of a sum of floats."""
    noise = np.random.default_rng(3).standard_normal(320 * 30).astype(np.float32)
    assert active_rms(noise) == active_rms(noise.reshape(30, 320)[:, ::-1].reshape(-1)) == active_rms(noise[::-1])


def test_gains_are_rounded_correctly() -> None:
    assert linear(0.0) == 1.0 and linear(20.0) == 10.0 and linear(-6.021).hex() == "0x1.fff9f6763e43ap-2"


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_silence_has_no_level(dtype: str) -> None:
    speech, silence = sound(0.1, 0, dtype), np.zeros(24_001, dtype)
    with pytest.raises(DataError, match="noise is digital silence"):
        mix(speech, silence, 0.0)
    with pytest.raises(DataError, match="level of digital silence is undefined"):
        mix(silence, speech, 0.0)
    with pytest.raises(DataError, match="empty speech"):
        mix(speech[:0], speech[:0], 0.0)
    with pytest.raises(DataError, match="got 10 samples, expected 24001"):
        mix(speech, speech[:10], 0.0)


def test_signals_that_cannot_be_mixed_are_refused() -> None:
    speech = sound(0.1, 0, "float32")
    with pytest.raises(DataError, match="noise has samples that are not finite"):
        mix(speech, np.full_like(speech, np.nan), 0.0)
    with pytest.raises(ValueError, match="int32"):
        mix(speech.astype(np.int32), speech, 0.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one dimension"):
        mix(speech[None], speech[None], 0.0)
    with pytest.raises(ValueError, match="for no noise give None"):
        mix(speech, speech, float("inf"))
    with pytest.raises(DataError, match="the speech is too faint for this SNR in 16-bit samples"):
        mix(np.ones(16_000, np.int16), np.full(16_000, 3, np.int16), 30.0)
    with pytest.raises(DataError, match="too far apart"):
        mix(speech, speech * np.float32(1e-20), 0.0)
