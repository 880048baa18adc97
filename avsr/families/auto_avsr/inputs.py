"""What published models take: crops and sound, normalised as their training did it.

Shapes: T frames of 40 ms, H W pixels, S samples, F features.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from avsr.families.auto_avsr.config import Code
from avsr.grid import CROP_PX, LIP_INPUT_PX, SAMPLE_RATE_HZ, SLOT_SAMPLES

GREY_SHARES = (0.2989, 0.587, 0.114)
"""Of red, green and blue in torchvision's grey. They add up to 0.9999, so grey becomes a little darker by it."""
GREY_MEAN, GREY_DEVIATION = 0.421, 0.165
SOUND_EPS = {"auto_avsr": 1e-8, "vsr_ml": 0.0}
"""Added to the variance of an utterance, by code. The others do not normalise it."""

TRACKER_SCALE = 53.6 / 52.0
"""How much larger a face is in the crops that the models were trained with than in ours: the distance of the eyes in
pixels. Measured beside the published crops of four clips."""

_FRAME, _HOP, _FFT, _MELS, _STACK = 400, 160, 512, 26, 4
_PRE_EMPHASIS = 0.97


def video_input(crops_THW: Tensor, code: Code) -> Tensor:
    """Grey crops [T, 96, 96] from 0 to 255 in the published geometry -> normalised [T, 88, 88]."""
    edge = (CROP_PX - LIP_INPUT_PX) // 2
    return normalised(crops_THW[:, edge : edge + LIP_INPUT_PX, edge : edge + LIP_INPUT_PX], code)


def normalised(centre_THW: Tensor, code: Code) -> Tensor:
    """Grey crops [T, H, W] from 0 to 255, as the network takes them."""
    centre_THW = centre_THW.float() / 255
    if code in ("auto_avsr", "usr"):
        red, green, blue = GREY_SHARES
        centre_THW = red * centre_THW + green * centre_THW + blue * centre_THW
    return (centre_THW - GREY_MEAN) / GREY_DEVIATION


def published_geometry(crops_THW: Tensor) -> Tensor:
    """Crops [T, H, H] of our tracker, as large as the models expect faces to be: float [T, H, H], 0 to 255."""
    # From the middle of one pixel to the middle of the next: -1 and 1 are the outer edges of the crop.
    side = crops_THW.shape[-1]
    steps = (2 * torch.arange(side, device=crops_THW.device) + 1) / side - 1
    y, x = torch.meshgrid(steps / TRACKER_SCALE, steps / TRACKER_SCALE, indexing="ij")
    grid_1HW2 = torch.stack((x, y), dim=-1)[None]
    return F.grid_sample(crops_THW.float()[None], grid_1HW2, mode="bilinear", align_corners=False)[0]


def sound_input(samples_S: Tensor, code: Code) -> Tensor:
    """Sound [S] at 16 kHz from -1 to 1, as the network takes it: [S], or [T, 104] for AV-HuBERT."""
    if code == "avhubert":
        return fbank(samples_S)
    whole_S = samples_S
    if code in SOUND_EPS and len(samples_S):
        variance, mean = torch.var_mean(samples_S, unbiased=False)
        # Digital silence has no variance; the original divides by zero there.
        whole_S = (samples_S - mean) / (variance + SOUND_EPS[code]).sqrt().clamp(min=1e-20)
    return whole_S[: len(whole_S) // SLOT_SAMPLES * SLOT_SAMPLES]


def fbank(samples_S: Tensor) -> Tensor:
    """Log-mel energies of 10 ms, four side by side, each row normalised: [S] -> [T, 104].

    As python_speech_features computes them: pre-emphasis, no window, 26 triangles up to 8 kHz.
    """
    if not len(samples_S):
        return samples_S.new_zeros(0, _MELS * _STACK)
    emphasised_S = torch.cat((samples_S[:1], samples_S[1:] - _PRE_EMPHASIS * samples_S[:-1])).double()
    count = 1 + max(0, math.ceil((len(samples_S) - _FRAME) / _HOP))
    padded_S = F.pad(emphasised_S, (0, (count - 1) * _HOP + _FRAME - len(emphasised_S)))
    power_nK = torch.fft.rfft(padded_S.unfold(0, _FRAME, _HOP), _FFT).abs().square() / _FFT
    energy_nM = power_nK @ _triangles().to(power_nK).t()
    rows_nM = energy_nM.clamp(min=torch.finfo(torch.float64).eps).log()
    rows_TF = F.pad(rows_nM, (0, 0, 0, -count % _STACK)).reshape(-1, _MELS * _STACK).float()
    return F.layer_norm(rows_TF, rows_TF.shape[-1:])


def _triangles() -> Tensor:
    """[26, 257]: triangles whose corners are evenly spaced in mel, at whole numbers of the spectrum."""
    top = 2595 * math.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    mels = torch.linspace(0, top, _MELS + 2, dtype=torch.float64)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    corner = ((_FFT + 1) * hertz / SAMPLE_RATE_HZ).floor()
    left, middle, right = corner[:-2, None], corner[1:-1, None], corner[2:, None]
    at = torch.arange(_FFT // 2 + 1, dtype=torch.float64)[None]
    rising, falling = (at - left) / (middle - left), (right - at) / (right - middle)
    return torch.where(at < middle, rising, falling) * ((at >= left) & (at < right))
