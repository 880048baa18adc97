"""Effects of rooms, microphones and lines: strength, unchanged time and length, repetition, and their text form."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import av
import numpy as np
import pytest

from avsr.errors import ConfigError, DataError
from avsr.noise import effects, filters
from avsr.noise.effects import EFFECTS, apply_effects, draw_effects, parse_effects
from avsr.noise.mixing import mix
from avsr.randomness import stable_seed

NEEDS_LIBRARY = ("room", "opus", "mp3")


def syllables(seed: int = 0, count: int = 32_100) -> np.ndarray:
    """Low-passed noise in bursts of 20 ms, float32 on the 16-bit grid: broad enough to see a delay of one sample."""
    random = np.random.default_rng(seed)
    samples = np.convolve(random.standard_normal(count), np.hanning(7), "same")
    samples *= np.repeat(random.uniform(0, 0.05, count // 320 + 1), 320)[:count]
    return (np.rint(samples * 32_768) / 32_768).astype(np.float32)


def impulse_response(name: str) -> np.ndarray:
    """A strong direct sound after 100 samples, and a decaying tail."""
    assert name == "hall"
    response = 200 * np.random.default_rng(1).standard_normal(6000) * 0.999 ** np.arange(6000)
    response[:100], response[100] = 0, 30_000
    return np.rint(response).astype(np.int16)


def record_of(text: str, seed: int = 0) -> dict[str, Any]:
    (record,) = draw_effects(parse_effects(text), lambda bound, *what: stable_seed(seed, *what) % bound, ["hall"])
    return record


@pytest.mark.parametrize("name", EFFECTS)
def test_effects_keep_time_length_and_grid_and_repeat(name: str) -> None:
    if name == "room":
        pytest.importorskip("pyroomacoustics")
    samples = syllables()
    untouched = samples.copy()
    record = record_of(name)
    changed = apply_effects(samples, [record], impulse_response)
    np.testing.assert_array_equal(samples, untouched)
    assert changed.shape == samples.shape and changed.dtype == np.float32
    np.testing.assert_array_equal(changed * 32_768, np.rint(changed * 32_768))
    np.testing.assert_array_equal(changed, apply_effects(samples, [record], impulse_response))
    assert not np.array_equal(changed, samples)
    if name == "pitch":  # its segments move by up to 10 ms: compare envelopes
        changed, samples = (np.abs(s[: 100 * 320]).reshape(100, 320).mean(axis=1) for s in (changed, samples))
        lags = np.correlate(changed[10:-10] - changed.mean(), samples[5:-5] - samples.mean())
        assert abs(int(lags.argmax()) - 5) <= 1
    else:
        lags = np.correlate(changed[8000:24_000], samples[7900:24_100])
        assert int(np.abs(lags).argmax()) == 100


@pytest.mark.parametrize("name", EFFECTS)
def test_effects_survive_short_silent_and_loud_sound(name: str) -> None:
    if name == "room":
        pytest.importorskip("pyroomacoustics")
    for samples in (np.zeros(0), np.full(1, 0.5), np.zeros(2000), np.full(3000, 2.0)):
        changed = apply_effects(samples.astype(np.float32), [record_of(name)], impulse_response)
        assert len(changed) == len(samples) and np.isfinite(changed).all()


def test_same_bytes_on_every_machine() -> None:
    """Golden hash of all effects that compute with whole numbers, one after the other, on whole numbers."""
    samples = (np.rint(2000 * filters.coloured_noise(32_100, "pink", 1)) / 32_768).astype(np.float32)
    fade = np.arange(6000, 0, -1) ** 2 / 36e6
    response = np.rint(filters.coloured_noise(6000, "white", 2) * 3000 * fade).astype(np.int16)
    records = [record_of(name) for name in EFFECTS if name not in NEEDS_LIBRARY]
    samples = apply_effects(samples, records, lambda name: response)
    noise = [filters.coloured_noise(16_000, colour, 7) for colour in ("white", "pink", "brown")]
    mixture = mix(samples[:16_000], noise[1], -3.0).samples
    content = b"".join(array.astype("<f4").tobytes() for array in (samples, *noise, mixture))
    assert hashlib.sha256(content).hexdigest() == "546b0ba4c202cebcf127560f76e6038984b3817f99ba522d5e0f54ddbcf2995c"


def test_transform_gives_the_exact_convolution() -> None:
    random = np.random.default_rng(0)
    pcm = np.rint(random.uniform(-32_768, 32_767, 70_000))  # more than one block
    filter_ = filters.Filter(random.standard_normal(50), delay=10)
    exact = np.zeros(70_049, object)
    integers = [int(value) for value in pcm]
    for index, tap in enumerate(filter_.integers.astype(int).tolist()):
        exact[index : index + 70_000] += np.array(integers, object) * tap
    wanted = exact[10:70_010].astype(np.float64) * filter_.factor
    np.testing.assert_array_equal(filters.apply_filter(pcm, filter_), wanted)


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_telephone_has_the_levels_of_g711(law: str) -> None:
    values = np.arange(-32_768, 32_768).astype(np.int16)
    encoder, decoder = av.CodecContext.create(f"pcm_{law}", "w"), av.CodecContext.create(f"pcm_{law}", "r")
    for context in (encoder, decoder):
        context.sample_rate, context.layout, context.format = 8000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(values[None], format="s16", layout="mono")
    frame.sample_rate = 8000
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    decoded = np.concatenate([f.to_ndarray()[0] for packet in packets for f in decoder.decode(packet)])
    ours = effects._g711(law)  # type: ignore[arg-type]
    assert set(ours) == set(decoded.astype(float))
    assert (ours != decoded).mean() < 0.02  # values just between two levels
    assert np.abs(ours - values).max() <= np.abs(decoded.astype(float) - values).max()


def test_bands_are_limited() -> None:
    white = filters.coloured_noise(160_000, "white", 1) / 8
    for text, passed, stopped in (
        ("lowpass=2000", (100, 1800), (2200, 7900)),
        ("highpass=500", (700, 7900), (0, 300)),
        ("mulaw", (100, 3200), (3900, 7900)),
    ):
        power = np.abs(np.fft.rfft(apply_effects(white, [record_of(text)]))) ** 2 / np.abs(np.fft.rfft(white)) ** 2
        level_db = [10 * math.log10(np.median(power[10 * low : 10 * high])) for low, high in (passed, stopped)]
        assert level_db[0] == pytest.approx(0, abs=0.3)
        assert level_db[1] < -25


def test_loss_comes_in_runs_and_at_its_rate() -> None:
    lost = effects.lose_packets(np.ones(320 * 20_000), 0.2, seed=5).reshape(-1, 320)[:, 0] == 0
    assert lost.mean() == pytest.approx(0.2, abs=0.015)
    assert lost.sum() / (np.diff(lost.astype(int)) == 1).sum() == pytest.approx(2, abs=0.15)
    np.testing.assert_array_equal(effects.lose_packets(np.ones(3200), 0.0, 1), np.ones(3200))


def test_clip_pitch_and_gain_have_the_requested_strength() -> None:
    samples = syllables()
    clipped = apply_effects(samples, [record_of("clip=6")])
    assert np.abs(clipped).max() == pytest.approx(np.abs(samples).max() / 10**0.3, rel=1e-3)
    assert apply_effects(samples, [record_of("gain=20")]).max() == pytest.approx(10 * samples.max())
    tone = np.sin(2 * np.pi * 400 * np.arange(32_000) / 16_000).astype(np.float32)
    higher = apply_effects(tone, [record_of("pitch=12")])
    assert np.abs(np.fft.rfft(higher[4000:28_000])).argmax() * 16_000 / 24_000 == pytest.approx(800, abs=5)


def test_a_room_rings_as_long_as_asked() -> None:
    pytest.importorskip("pyroomacoustics")
    for wanted_s in (0.2, 0.5):
        response = effects.room_filter(wanted_s, 3).integers
        decay = np.cumsum(response[::-1] ** 2)[::-1]
        decay_db = 10 * np.log10(decay / decay[0])
        fall_s = (np.argmax(decay_db < -25) - np.argmax(decay_db < -5)) / 16_000 * 3
        assert fall_s == pytest.approx(wanted_s, rel=0.5)


def test_effects_are_parsed() -> None:
    one, two, three = parse_effects("reverb@0.5, lowpass=3000..4000, mulaw@0")
    assert (one.name, one.share, two.low, two.high) == ("reverb", 0.5, 3000, 4000)
    draw = lambda bound, *what: stable_seed("draws", *what) % bound  # noqa: E731
    values = [record["value"] for record in draw_effects([two], draw)]
    assert 3000 <= values[0] <= 4000
    counts = [
        len(draw_effects([one, three], lambda bound, *what, n=n: stable_seed(n, *what) % bound, ["hall"]))
        for n in range(400)
    ]
    assert np.mean(counts) == pytest.approx(0.5, abs=0.1)
    assert parse_effects("") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("revreb", "unknown effect: got revreb, .*did you mean reverb?"),
        ("lowpass=x", "an effect has no number"),
        ("lowpass=nan", "out of range"),
        ("lowpass=9000", "got lowpass=9000, expected 500 to 7900"),
        ("lowpass=4000..3000", "out of range"),
        ("gain@2", "share of an effect is out of range"),
        ("mulaw=3", "takes no value"),
    ],
)
def test_wrong_effects_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_effects(text)


def test_broken_records_are_refused() -> None:
    samples = syllables(count=3200)
    with pytest.raises(DataError, match="unknown effect: got echo"):
        apply_effects(samples, [{"effect": "echo"}])
    with pytest.raises(DataError, match="an effect is incomplete: .*'value'"):
        apply_effects(samples, [{"effect": "gain"}])
    with pytest.raises(DataError, match="silent.wav: the impulse response is digital silence"):
        apply_effects(samples, [{"effect": "reverb", "rir": "silent.wav"}], lambda name: np.zeros(10, np.int16))
    with pytest.raises(ConfigError, match="no impulse responses"):
        draw_effects(parse_effects("reverb"), lambda bound, *what: 0)
