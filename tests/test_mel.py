"""Log-mel against a slow independent computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchaudio

from avsr.sound.mel import LogMel, slaney_filters
from avsr.sound.mel_config import MelConfig
from tests.tiny import random_samples


def slaney_hz(mel: float) -> float:
    return 200 / 3 * mel if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)


def by_hand(samples: np.ndarray, n_mels: int) -> np.ndarray:
    """[n_mels, frames], not normalised: each step as written in the documentation of `mel.py`."""
    samples = samples.astype(np.float64)
    emphasised = np.append(samples[0], samples[1:] - 0.97 * samples[:-1])
    padded = np.pad(emphasised, 256)
    window = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399), 56)
    top = 15 + 27 * math.log(8.0) / math.log(6.4)
    edges = [slaney_hz(top * m / (n_mels + 1)) for m in range(n_mels + 2)]
    hertz = np.arange(257) * 16_000 / 512
    filters = []
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        triangle = np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle))
        filters.append(np.maximum(triangle, 0) * 2 / (high - low))
    frames = []
    for index in range(len(samples) // 160):
        power = np.abs(np.fft.rfft(padded[160 * index : 160 * index + 512] * window)) ** 2
        frames.append(np.log(np.array(filters) @ power + 2.0**-24))
    return np.array(frames).T


@pytest.mark.parametrize("n_mels", [80, 128])
def test_equals_the_formula(n_mels: int) -> None:
    samples = random_samples(0.5)
    mel, lengths = LogMel(MelConfig(n_mels=n_mels, normalize="none"))(
        torch.from_numpy(samples)[None], torch.tensor([8000])
    )
    assert lengths.tolist() == [50]
    np.testing.assert_allclose(mel[0].numpy(), by_hand(samples, n_mels), atol=1e-5)


def test_per_feature_has_zero_mean_and_unit_deviation() -> None:
    mel, _ = LogMel(MelConfig())(torch.from_numpy(random_samples(1.0))[None], torch.tensor([16_000]))
    torch.testing.assert_close(mel[0].mean(-1), torch.zeros(80), atol=1e-5, rtol=0)
    torch.testing.assert_close(mel[0].std(-1), torch.ones(80), atol=1e-3, rtol=0)


@pytest.mark.parametrize("normalize", ["per_feature", "fixed", "none"])
def test_padding_changes_nothing(normalize: str) -> None:
    log_mel = LogMel(MelConfig(normalize=normalize, mean=-8.0, std=4.0))  # type: ignore[arg-type]
    samples = torch.zeros(2, 16_000)
    samples[0] = torch.from_numpy(random_samples(1.0))
    samples[1, :5000] = torch.from_numpy(random_samples(1.0, seed=1)[:5000])
    batch, lengths = log_mel(samples, torch.tensor([16_000, 5000]))
    one, _ = log_mel(samples[1:, :5000], torch.tensor([5000]))
    assert lengths.tolist() == [100, 31]
    torch.testing.assert_close(batch[1, :, :31], one[0], atol=2e-5, rtol=0)
    assert not batch[1, :, 31:].any()


@pytest.mark.parametrize("count", [0, 1, 159, 160])
def test_very_short(count: int) -> None:
    mel, lengths = LogMel(MelConfig())(torch.ones(1, count), torch.tensor([count]))
    assert mel.shape[-1] == int(lengths[0]) == count // 160
    assert torch.isfinite(mel).all()


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_equal_torchaudio(n_mels: int) -> None:
    theirs = torchaudio.functional.melscale_fbanks(257, 0.0, 8000.0, n_mels, 16_000, norm="slaney", mel_scale="slaney")
    torch.testing.assert_close(slaney_filters(n_mels).float(), theirs.T, atol=1e-6, rtol=0)


def test_pieces_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    log_mel = LogMel(MelConfig(normalize="none"))
    for count in (160, 161, 401, 16_007):
        samples = torch.randn(2, count, generator=torch.Generator().manual_seed(count))
        counts = torch.tensor([count, count // 2])
        monkeypatch.setattr("avsr.sound.mel.PIECE_FRAMES", 10_000)
        whole, lengths = log_mel(samples, counts)
        monkeypatch.setattr("avsr.sound.mel.PIECE_FRAMES", 7)
        pieces, _ = log_mel(samples, counts)
        assert torch.equal(whole, pieces)
        assert lengths.tolist() == [count // 160, count // 2 // 160]
