"""ResNet-18 over pictures or over sound (He et al., CVPR 2016), with the activation that published lip readers have.

Shapes: N pictures or sounds, C channels of the input, H W pixels, S samples, T frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Activation = Literal["swish", "relu", "prelu"]
WIDTH = 512
"""Channels of the output."""
LAYER_CHANNELS = (64, 128, 256, 512)
SOUND_KERNEL, SOUND_STRIDE, SOUND_PADDING = 80, 4, 38
FRAME_COLUMNS = 20
"""Columns of the last layer over sound that become one frame."""


def activation_of(kind: Activation, channels: int) -> nn.Module:
    """The activation; PReLU has a slope for each channel."""
    if kind == "prelu":
        return nn.PReLU(channels)
    return nn.SiLU(inplace=True) if kind == "swish" else nn.ReLU(inplace=True)


class BasicBlock(nn.Module):
    """Two convolutions of 3, each with a batch norm, and the input added before the last activation."""

    def __init__(self, before: int, channels: int, stride: int, kind: Activation, dimensions: Literal[1, 2]) -> None:
        super().__init__()
        convolution, norm = _layers(dimensions)
        self.conv1 = convolution(before, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = norm(channels)
        self.relu1 = activation_of(kind, channels)
        self.conv2 = convolution(channels, channels, 3, padding=1, bias=False)
        self.bn2 = norm(channels)
        self.downsample: nn.Module | None = None
        if stride != 1:
            self.downsample = nn.Sequential(convolution(before, channels, 1, stride=stride, bias=False), norm(channels))
        self.relu2 = activation_of(kind, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu2(y)

    def fold(self) -> None:
        """Make the batch norms a part of the convolutions, for inference."""
        _fold(self, "conv1", "bn1")
        _fold(self, "conv2", "bn2")
        if isinstance(self.downsample, nn.Sequential):
            _fold(self.downsample, "0", "1")


class ResNet18(nn.Module):
    """A first convolution and four layers of two blocks each.

    pictures [N, C, H, W] -> [N, 512], the mean over the remaining pixels; or sound [N, 1, S] -> [N, 512, T], a frame
    for each 640 samples. The names of the weights are those of torchvision's ResNet-18.

    dimensions: 2 for pictures, 1 for sound.
    channels: C.
    kind: the activation in the blocks. stem_kind: after the first convolution.
    """

    def __init__(
        self,
        dimensions: Literal[1, 2],
        channels: int = 1,
        kind: Activation = "swish",
        stem_kind: Activation | None = None,
    ) -> None:
        super().__init__()
        convolution, norm = _layers(dimensions)
        self.dimensions = dimensions
        kernel, stride, padding = (7, 2, 3) if dimensions == 2 else (SOUND_KERNEL, SOUND_STRIDE, SOUND_PADDING)
        self.conv1 = convolution(channels, 64, kernel, stride=stride, padding=padding, bias=False)
        self.bn1 = norm(64)
        self.relu = activation_of(stem_kind or kind, 64)
        before = 64
        for number, width in enumerate(LAYER_CHANNELS, start=1):
            blocks = (
                BasicBlock(before, width, 1 if number == 1 else 2, kind, dimensions),
                BasicBlock(width, width, 1, kind, dimensions),
            )
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            before = width
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, x: Tensor) -> Tensor:
        """The first convolution, and for pictures the pooling after it."""
        x = self.relu(self.bn1(self.conv1(x)))
        return F.max_pool2d(x, 3, stride=2, padding=1) if self.dimensions == 2 else x

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for number in range(1, len(LAYER_CHANNELS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        if self.dimensions == 2:
            return F.adaptive_avg_pool2d(x, 1).flatten(1)
        return F.avg_pool1d(x, FRAME_COLUMNS, FRAME_COLUMNS)

    def fold(self) -> None:
        """Make every batch norm a part of the convolution before it. Results stay equal within rounding.

        The network cannot be trained after it.
        """
        _fold(self, "conv1", "bn1")
        for module in self.modules():
            if isinstance(module, BasicBlock):
                module.fold()


def _layers(dimensions: Literal[1, 2]) -> tuple[Callable[..., nn.Module], Callable[[int], nn.Module]]:
    return (nn.Conv2d, nn.BatchNorm2d) if dimensions == 2 else (nn.Conv1d, nn.BatchNorm1d)


def _fold(module: nn.Module, convolution: str, norm: str) -> None:
    before, after = module.get_submodule(convolution), module.get_submodule(norm)
    if isinstance(after, nn.Identity):  # folded already
        return
    assert isinstance(before, nn.Conv1d | nn.Conv2d) and isinstance(after, nn.BatchNorm1d | nn.BatchNorm2d)
    # In double precision, because the rounding of every layer adds up.
    setattr(module, convolution, fuse_conv_bn_eval(before.double(), after.double()).float())
    setattr(module, norm, nn.Identity())
