"""Depthwise-separable convolutional subsampling of log-mel frames (FastConformer, arXiv 2305.05084, section 2.1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsr.nn.masks import valid_mask


class SubsamplingState(NamedTuple):
    """What the subsampling still remembers: the last input frame of each stride-2 stage, [B, C, 1, F]."""

    past: tuple[Tensor, ...]


class Subsampling(nn.Module):
    """`factor` mel frames (a power of two) become one frame of `width` channels.

    Each stage is a 3x3 convolution with stride 2 in time and frequency, one zero of padding in front; output j of a
    stage reads inputs 2j - 1 to 2j + 1, so encoder frame j needs nothing after mel frame `factor` * j + `factor` - 1:
    an even split into chunks of `factor` frames needs no look-ahead. The first stage is a plain convolution, the
    others are depthwise and pointwise.
    """

    def __init__(self, n_mels: int, width: int, *, channels: int, factor: int = 8) -> None:
        super().__init__()
        if factor not in (2, 4, 8, 16):
            raise ValueError(f"subsampling factor: got {factor}, expected 2, 4, 8 or 16")
        self.factor = factor
        stages: list[nn.Module] = [nn.Conv2d(1, channels, 3, stride=2)]
        for _ in range(factor.bit_length() - 2):
            stages.append(
                nn.Sequential(
                    nn.Conv2d(channels, channels, 3, stride=2, groups=channels), nn.Conv2d(channels, channels, 1)
                )
            )
        self.stages = nn.ModuleList(stages)
        bins = [n_mels]
        for _ in stages:
            bins.append((bins[-1] + 1) // 2)
        self._bins = bins[:-1]
        # He et al., arXiv 1502.01852. With torch's default, five layers leave a hundredth of the signal under their
        # biases, and an encoder takes three times as long to begin to listen.
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.channels = channels
        self.project = nn.Linear(channels * bins[-1], width)

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> SubsamplingState:
        return SubsamplingState(
            tuple(
                torch.zeros(batch_size, 1 if stage == 0 else self.channels, 1, bins, device=device, dtype=dtype)
                for stage, bins in enumerate(self._bins)
            )
        )

    def output_lengths(self, lengths: Tensor) -> Tensor:
        return torch.div(lengths + self.factor - 1, self.factor, rounding_mode="floor")

    def forward(
        self, mel_BFT: Tensor, lengths: Tensor, state: SubsamplingState | None = None
    ) -> tuple[Tensor, Tensor, SubsamplingState | None]:
        """[B, F, T], lengths [B] -> [B, ceil(T / factor), width], lengths, next state.

        With a state, T must be a multiple of `factor` except in the last chunk of a stream.
        """
        x_BCTF = mel_BFT.transpose(1, 2)[:, None]
        past = []
        for index, stage in enumerate(self.stages):
            x_BCTF = x_BCTF.masked_fill(~valid_mask(lengths, x_BCTF.shape[2])[:, None, :, None], 0.0)
            if state is None:
                x_BCTF = F.pad(x_BCTF, (1, 1, 1, 0))
            else:
                x_BCTF = F.pad(torch.cat((state.past[index], x_BCTF), dim=2), (1, 1, 0, 0))
                past.append(x_BCTF[:, :, -1:, 1:-1])
            if x_BCTF.shape[2] % 2 == 0:  # an odd number of frames: the last window reaches one past the end
                x_BCTF = F.pad(x_BCTF, (0, 0, 0, 1))
            x_BCTF = F.relu(stage(x_BCTF))
            lengths = torch.div(lengths + 1, 2, rounding_mode="floor")
        x_BCTF = x_BCTF.masked_fill(~valid_mask(lengths, x_BCTF.shape[2])[:, None, :, None], 0.0)
        out_BTD = self.project(x_BCTF.transpose(1, 2).flatten(2))
        return out_BTD, lengths, None if state is None else SubsamplingState(tuple(past))
