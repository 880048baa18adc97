"""The network that detects a covered mouth, for training. `avsr.lips.occlusion` runs the same weights without torch.

Letters: B batch, H W pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsr.lips.occlusion import CONTRAST_FLOOR, INPUT_PX, STRIDES
from avsr.shipped import shipped_weights


class OcclusionHead(nn.Module):
    """Lip crops as `head_input` gives them, [B, 48, 48], -> log odds [B] that half of the mouth or more is covered."""

    def __init__(self) -> None:
        super().__init__()
        channels, kernels = (1, 16, 24, 32, 32), (5, 3, 3, 3)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels[index], channels[index + 1], kernel, stride=stride, padding=kernel // 2)
            for index, (kernel, stride) in enumerate(zip(kernels, STRIDES, strict=True))
        )
        self.flat = nn.Linear(32 * (INPUT_PX // math.prod(STRIDES)) ** 2, 20)
        self.out = nn.Linear(20, 1)

    def forward(self, pixels_BHW: Tensor) -> Tensor:
        x = pixels_BHW[:, None]
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        return self.out(F.relu(self.flat(x.flatten(1))))[:, 0]


def head_input(crops_BHW: Tensor) -> Tensor:
    """Crops [B, 96, 96] in grey levels -> float [B, 48, 48], each minus its mean, in units of its own contrast."""
    pixels_BHW = F.avg_pool2d(crops_BHW.float()[:, None], 2)[:, 0]
    deviation, mean = torch.std_mean(pixels_BHW, dim=(1, 2), keepdim=True)
    return (pixels_BHW - mean) / (deviation + CONTRAST_FLOOR)


def shipped_occlusion_head() -> OcclusionHead:
    """The trained network that comes with the package, in float32, for evaluation."""
    head = OcclusionHead()
    head.load_state_dict({name: torch.from_numpy(array) for name, array in shipped_weights("occlusion").items()})
    return head.eval()
