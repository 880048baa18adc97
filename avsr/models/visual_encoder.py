"""Lip crops to 80 ms frames: a light convolutional trunk on each 40 ms slot, then Conformer blocks on pairs of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from avsr.models.config import LIP_INPUT_PX, VisualEncoderConfig
from avsr.nn.conformer import Conformer, ConformerState

CONTRAST_FLOOR = 0.02  # of a crop's deviation in [0, 1]: keeps a flat crop from being blown up to noise


class VisualEncoderState(NamedTuple):
    """The past of the visual encoder: the stem's last crops (zeros where absent) and the blocks' past."""

    crops_BKHW: Tensor
    conformer: ConformerState


class LightTrunk(nn.Module):
    """Four strided convolutions for CPUs: windows of crops [N, slots, 88, 88] -> [N, width].

    The first stage is a 3-D convolution over (slots, height, width) that spans all slots of the window, hence a 2-D
    convolution with one input channel a slot; the others halve the picture to 3 x 3. `mflop_per_slot` states the cost.
    """

    def __init__(self, channels: tuple[int, ...], slots: int, width: int) -> None:
        super().__init__()
        stem, *later = channels
        sizes = [slots, stem, *later]
        layers = [Conv2dNormActivation(slots, stem, 5, stride=4, padding=1)]
        layers += [
            Conv2dNormActivation(before, after, 3, stride=2, padding=1)
            for before, after in zip(sizes[1:], sizes[2:], strict=False)
        ]
        self.stages = nn.Sequential(*layers)
        self.project = nn.Linear(later[-1] * 9, width)

    def forward(self, windows_NSHW: Tensor) -> Tensor:
        x_NCHW = self.stages(windows_NSHW.contiguous(memory_format=torch.channels_last))
        return self.project(x_NCHW.flatten(1))

    @property
    def mflop_per_slot(self) -> float:
        """Floating point operations for one 40 ms slot (a multiplication and an addition are two), in millions."""
        side = LIP_INPUT_PX
        total = 2 * self.project.weight.numel()
        for layer in self.stages:
            assert isinstance(layer, Conv2dNormActivation)
            conv = layer[0]
            assert isinstance(conv, nn.Conv2d)
            side = (side + 2 * int(conv.padding[0]) - conv.kernel_size[0]) // conv.stride[0] + 1
            total += 2 * conv.weight.numel() * side * side
        return total / 1e6


class VisualEncoder(nn.Module):
    """Lip crops at 25 a second -> frames of 80 ms. Frame j is fed by slots 2j and 2j + 1.

    A slot that is not present has no influence at all: its crop is zero in every window of the stem, its features are
    zero, and a frame whose two slots are both absent is padding to the blocks.
    """

    def __init__(self, config: VisualEncoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.conformer.width
        self.trunk = LightTrunk(config.channels, config.stem_slots, width)
        self.dropout = nn.Dropout(config.conformer.dropout)
        self.pair = nn.Linear(2 * width, width)
        self.conformer = Conformer(config.conformer)

    @property
    def look_ahead_slots(self) -> int:
        """Slots of the future that the stem reads."""
        return self.config.stem_look_ahead

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> VisualEncoderState:
        """An empty past. Raises ValueError when the stem, attention or convolutions need the future."""
        if self.config.stem_look_ahead:
            raise ValueError(f"stem_look_ahead {self.config.stem_look_ahead} cannot stream: expected 0")
        past = self.config.stem_slots - 1
        return VisualEncoderState(
            torch.zeros(batch_size, past, LIP_INPUT_PX, LIP_INPUT_PX, device=device, dtype=dtype),
            self.conformer.initial_state(batch_size, self.config.attention, device, dtype),
        )

    def forward(
        self, lips_BT1HW: Tensor, presence_BT: Tensor, lengths: Tensor, state: VisualEncoderState | None = None
    ) -> tuple[Tensor, Tensor, VisualEncoderState | None]:
        """Crops [B, T_lip, 1, 88, 88] in [0, 1], presence [B, T_lip] bool, frame counts [B] of 80 ms.

        T_lip must be twice the number of frames. Returns [B, T_lip / 2, width], which of these frames saw lips
        (bool [B, T_lip / 2]) and the next state.
        """
        B, T = presence_BT.shape
        crops_BTHW = lips_BT1HW[:, :, 0]
        mean_BT11 = crops_BTHW.mean(dim=(-2, -1), keepdim=True)
        deviation_BT11 = crops_BTHW.std(dim=(-2, -1), keepdim=True, unbiased=False)
        # Each crop by its own light and contrast: works live, and takes away what differs between rooms and skins.
        crops_BTHW = (crops_BTHW - mean_BT11) / (deviation_BT11 + CONTRAST_FLOOR)
        crops_BTHW = crops_BTHW.masked_fill(~presence_BT[..., None, None], 0.0)
        past = self.config.stem_slots - 1 - self.config.stem_look_ahead
        if state is None:
            padded_BKHW = F.pad(crops_BTHW, (0, 0, 0, 0, past, self.config.stem_look_ahead))
        else:
            padded_BKHW = torch.cat((state.crops_BKHW, crops_BTHW), dim=1)
        windows_BTSHW = padded_BKHW.unfold(1, self.config.stem_slots, 1).permute(0, 1, 4, 2, 3)
        features_BTD = crops_BTHW.new_zeros(B, T, self.pair.out_features)
        if bool(presence_BT.any()):
            # Only slots with lips pay for the trunk.
            features_BTD[presence_BT] = self.trunk(windows_BTSHW[presence_BT]).to(features_BTD.dtype)
        x_BTD = self.pair(features_BTD.reshape(B, T // 2, -1))
        seen_BT = presence_BT.reshape(B, T // 2, 2).any(dim=-1)
        x_BTD, conformer_state = self.conformer(
            self.dropout(x_BTD),
            lengths,
            self.config.attention,
            None if state is None else state.conformer,
            present_BT=seen_BT,
        )
        if state is None or conformer_state is None:
            return x_BTD, seen_BT, None
        K = state.crops_BKHW.shape[1]
        return x_BTD, seen_BT, VisualEncoderState(padded_BKHW[:, padded_BKHW.shape[1] - K :], conformer_state)
