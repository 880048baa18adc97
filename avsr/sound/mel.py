"""Log-mel features, as the published FastConformer models expect them.

25 ms symmetric Hann windows every 10 ms, pre-emphasis 0.97, 512-point power spectrum, Slaney mel filters,
log(power + 2^-24). Frame i is centred on sample 160 i, with zeros before the beginning and after the end.

Letters: B batch, S samples, T frames of 10 ms, F bins of the spectrum, M mel filters.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from avsr.grid import HOP_SAMPLES, SAMPLE_RATE_HZ
from avsr.nn.masks import valid_mask
from avsr.sound.mel_config import MelConfig

WINDOW_SAMPLES = 400  # 25 ms
FFT_SAMPLES = 512
PREEMPHASIS = 0.97
LOG_GUARD = 2.0**-24
LOOK_AHEAD_SAMPLES = WINDOW_SAMPLES // 2 - HOP_SAMPLES
"""Samples that a frame reads past the end of its own 10 ms."""
PAST_FRAMES = 2
"""A stream must keep the sound of this many frames for the next one: its transform begins 257 samples before its
centre."""
PIECE_FRAMES = 3000
"""Frames that are computed at a time: an hour of spectra in float64 would be gigabytes."""


def slaney_filters(n_mels: int) -> Tensor:
    """Triangular filters of equal area on Slaney's mel scale: float64 [M, FFT_SAMPLES / 2 + 1].

    The scale (M. Slaney, Auditory Toolbox, 1998) is linear up to 1000 Hz, with 200 / 3 Hz a mel. From there on it is
    logarithmic: 27 mels multiply the frequency by 6.4.
    """
    edges_hz = _edges_hz(n_mels)
    bins_hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, FFT_SAMPLES // 2 + 1, dtype=torch.float64)
    low, middle, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    triangles_MF = torch.minimum((bins_hz - low) / (middle - low), (high - bins_hz) / (high - middle)).clamp(min=0)
    return triangles_MF * 2 / (high - low)


def mel_middles_hz(n_mels: int) -> Tensor:
    """The frequency in the middle of each of `slaney_filters`, rising: float64 [M]."""
    return _edges_hz(n_mels)[1:-1]


def _edges_hz(n_mels: int) -> Tensor:
    step = math.log(6.4) / 27
    mels = torch.linspace(0, 15 + math.log(SAMPLE_RATE_HZ / 2000) / step, n_mels + 2, dtype=torch.float64)
    return torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * step))


class LogMel(nn.Module):
    """Samples [B, S] at 16 kHz, sample counts [B] -> log-mel [B, M, S // 160], frame counts [B] (samples // 160).

    Frames past an item's count are zero. The arithmetic is float64, which costs little. In float32 a weak filter beside
    a strong tone would be off by about 1e-4, and the exact error would depend on the machine's Fourier transform.
    """

    filters_MF: Tensor
    window: Tensor

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.config = config
        # The filters and the window follow from the configuration, so checkpoints do not hold them.
        self.register_buffer("filters_MF", slaney_filters(config.n_mels), persistent=False)
        self.register_buffer(
            "window", torch.hann_window(WINDOW_SAMPLES, periodic=False, dtype=torch.float64), persistent=False
        )

    @torch.no_grad()
    def forward(self, samples_BS: Tensor, sample_counts: Tensor) -> tuple[Tensor, Tensor]:
        if samples_BS.shape[1] < HOP_SAMPLES:  # shorter than one frame
            return samples_BS.new_zeros(len(samples_BS), self.config.n_mels, 0, dtype=torch.float32), sample_counts * 0
        frames = samples_BS.shape[1] // HOP_SAMPLES
        pieces = [
            self._log_mel(samples_BS, sample_counts, first, min(first + PIECE_FRAMES, frames))
            for first in range(0, frames, PIECE_FRAMES)
        ]
        mel_BMT = self._fixed(torch.cat(pieces, dim=-1))
        lengths = torch.div(sample_counts, HOP_SAMPLES, rounding_mode="floor")
        valid_B1T = valid_mask(lengths, mel_BMT.shape[-1])[:, None]
        if self.config.normalize == "per_feature":
            count_B11 = lengths.clamp(min=1)[:, None, None]
            mean_BM1 = (mel_BMT * valid_B1T).sum(-1, keepdim=True) / count_B11
            centred_BMT = (mel_BMT - mean_BM1) * valid_B1T
            # The unbiased variance, and 1e-5 beside the deviation: the published models were trained with both.
            variance_BM1 = centred_BMT.square().sum(-1, keepdim=True) / (count_B11 - 1).clamp(min=1)
            mel_BMT = centred_BMT / (variance_BM1.sqrt() + 1e-5)
        return mel_BMT.masked_fill(~valid_B1T, 0.0), lengths

    @torch.no_grad()
    def piece(self, samples_BS: Tensor, first: int, end: int) -> Tensor:
        """Frames [first, end) of a stream, float32 [B, M, end - first], with the same numbers as `forward` gives.

        samples_BS: the stream from its beginning, or from a later frame; then `first` counts from that frame, and must
            be at least `PAST_FRAMES`. Samples must reach `LOOK_AHEAD_SAMPLES` past 160 `end`, unless the stream ends
            there: after the last sample there is silence.

        Raises ValueError for a normalisation that needs the whole utterance.
        """
        if self.config.normalize == "per_feature":
            raise ValueError("mel.normalize per_feature needs the whole utterance: expected fixed or none for a stream")
        counts = torch.full((len(samples_BS),), samples_BS.shape[1], device=samples_BS.device)
        return self._fixed(self._log_mel(samples_BS, counts, first, end))

    def _fixed(self, mel_BMT: Tensor) -> Tensor:
        return (mel_BMT - self.config.mean) / self.config.std if self.config.normalize == "fixed" else mel_BMT

    def _log_mel(self, samples_BS: Tensor, sample_counts: Tensor, first: int, end: int) -> Tensor:
        """Frames [first, end), float32 [B, M, end - first], before normalisation."""
        start = first * HOP_SAMPLES - FFT_SAMPLES // 2
        stop = (end - 1) * HOP_SAMPLES + FFT_SAMPLES // 2
        # From one sample earlier, for the pre-emphasis. There are zeros before the beginning and after the end.
        inside_BS = samples_BS[:, max(0, start - 1) : stop].double()
        missing = stop - max(0, start - 1) - inside_BS.shape[1]
        inside_BS = F.pad(inside_BS, (max(0, 1 - start), missing))
        emphasised_BS = inside_BS[:, 1:] - PREEMPHASIS * inside_BS[:, :-1]
        # The first sample after the end would be the pre-emphasis of the last one, and no silence.
        is_real_BS = torch.arange(start, stop, device=samples_BS.device) < sample_counts[:, None]
        power_BFT = torchaudio.functional.spectrogram(
            emphasised_BS * is_real_BS,
            pad=0,
            window=self.window,
            n_fft=FFT_SAMPLES,
            hop_length=HOP_SAMPLES,
            win_length=WINDOW_SAMPLES,
            power=2.0,
            normalized=False,
            center=False,
        )
        # Rounded at the end, which hides the last bits in which Fourier transforms of different machines differ.
        return (self.filters_MF @ power_BFT + LOG_GUARD).log().float()
