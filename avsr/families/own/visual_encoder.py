"""Encodes lip crops: a convolutional trunk for each 40 ms slot, Conformer blocks over slots, two slots to one frame.

Shapes: B batch, T slots, N windows of slots, S slots of a window, K cached or padded slots, L look-ahead slots,
H W pixels, D width.
"""

from __future__ import annotations

import copy
import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsr.families.own.config import VisualEncoderConfig
from avsr.grid import LIP_INPUT_PX
from avsr.nn.conformer import Conformer, ConformerState
from avsr.nn.context import AttentionContext
from avsr.nn.resnet import WIDTH, ResNet18

CONTRAST_FLOOR = 0.02
"""Added to the deviation of a crop's grey in [0, 1]. Without it, normalisation would turn a flat crop into noise."""

TRUNK_SLOTS = 64
"""Slots that go through the trunk at once outside of training. One map of a ResNet's first stage is then 16 MB."""


class VisualEncoderState(NamedTuple):
    """The past of the visual encoder in a stream."""

    crops_BKHW: Tensor
    """The last crops, normalised, and zero for a slot without lips. The first layer reads them again."""
    ahead_BL: Tensor
    """Presence of the newest of these crops, for which no output frame has been computed yet."""
    conformer: ConformerState


class LightTrunk(nn.Module):
    """Four strided convolutions, fast on CPUs: windows of crops [N, slots, 88, 88] -> [N, width].

    The first stage is a 3-D convolution over (slots, height, width). It spans all slots of the window, so it equals a
    2-D convolution with one input channel a slot. The other stages halve the picture, down to 3 x 3.
    """

    def __init__(self, channels: tuple[int, ...], slots: int, width: int) -> None:
        super().__init__()
        self.width = width
        stem, *later = channels
        sizes = [slots, stem, *later]
        layers = [_stage(slots, stem, kernel=5, stride=4)]
        layers += [_stage(before, after, kernel=3, stride=2) for before, after in itertools.pairwise(sizes[1:])]
        self.stages = nn.Sequential(*layers)
        self.project = nn.Linear(later[-1] * 9, width)

    def forward(self, windows_NSHW: Tensor) -> Tensor:
        return self.project(self.stages(windows_NSHW).flatten(1))


class ResNetTrunk(nn.Module):
    """The front end of Auto-AVSR (Ma et al., arXiv 2303.14307): windows of crops [N, slots, 88, 88] -> [N, 512].

    A 3-D convolution to 64 channels (5 slots, 7 x 7 pixels, stride 1, 2, 2), batch norm, SiLU, max-pooling, then a
    ResNet-18 with SiLU and the mean over the remaining pixels. The crops are grey and the window is as long as the
    kernel, so the 3-D convolution equals a 2-D one with one input channel a slot.
    `families/own/auto_avsr_front_end.py` reads the published weights.
    """

    width = WIDTH

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.resnet = ResNet18(2, slots)

    def forward(self, windows_NSHW: Tensor) -> Tensor:
        return self.resnet(windows_NSHW)


def _stage(channels_in: int, channels_out: int, *, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


def _trunk(config: VisualEncoderConfig) -> LightTrunk | ResNetTrunk:
    match config.trunk:
        case "light":
            return LightTrunk(config.channels, config.stem_slots, config.conformer.width)
        case "resnet18":
            return ResNetTrunk(config.stem_slots)


class VisualEncoder(nn.Module):
    """Encodes lip crops, one every 40 ms, as frames of 80 ms. Slots 2j and 2j + 1 make frame j.

    A slot that is not present has no influence: its crop is zero in every window that the first layer reads, the
    Conformer blocks treat it as padding, and its half of the frame is zero.
    """

    def __init__(self, config: VisualEncoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.conformer.width
        # Channels last in memory take a quarter less time in a ResNet. The weights need the same order: with only the
        # input in it, small batches take twice the time.
        self.trunk = _trunk(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.embed = nn.Identity() if self.trunk.width == width else nn.Linear(self.trunk.width, width)
        self.dropout = nn.Dropout(config.conformer.dropout)
        # Blocks over frames of 80 ms would miss what tells letters apart: for a "b" lips open and close within 100 ms.
        self.conformer = Conformer(config.conformer)
        self.pair = nn.Linear(2 * width, width)

    @property
    def look_ahead_slots(self) -> int:
        """Slots (40 ms) after a frame that the first layer reads. The frame is complete only when they have come."""
        return self.config.stem_look_ahead

    @property
    def mflop_per_slot(self) -> float:
        """Cost of the trunk for one slot, in millions of operations. A multiplication and an addition count as two."""
        from torch.utils.flop_counter import FlopCounterMode

        # On the meta device the count costs neither time nor memory, and this trunk does not change.
        trunk = copy.deepcopy(self.trunk).to("meta").eval()
        with FlopCounterMode(display=False) as counter:
            trunk(torch.empty(1, self.config.stem_slots, LIP_INPUT_PX, LIP_INPUT_PX, device="meta"))
        return counter.get_total_flops() / 1e6

    def initial_state(
        self, batch_size: int, device: torch.device, dtype: torch.dtype, attention: AttentionContext | None = None
    ) -> VisualEncoderState:
        """The state before a stream, for the same `attention` as in `forward`.

        Raises ValueError if attention or convolutions need the future.
        """
        past = self.config.stem_slots - 1 - self.config.stem_look_ahead
        return VisualEncoderState(
            torch.zeros(batch_size, past, LIP_INPUT_PX, LIP_INPUT_PX, device=device, dtype=dtype),
            torch.zeros(batch_size, 0, dtype=torch.bool, device=device),
            self.conformer.initial_state(batch_size, self._over_slots(attention), device, dtype),
        )

    def slots_wanted(self, frames: int, state: VisualEncoderState | None) -> int:
        """The number of slots that `forward` needs for `frames` frames of 80 ms.

        Two a frame. The first chunk of a stream needs the look-ahead slots as well.
        """
        return 2 * frames + (0 if state is None else self.look_ahead_slots - state.ahead_BL.shape[1])

    def features(
        self, lips_BT1HW: Tensor, presence_BT: Tensor, state: VisualEncoderState | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The output of the trunk for each slot, [B, T', trunk.width], before the Conformer blocks.

        Also returns the presence of these slots, bool [B, T'], and the normalised crops with the past and look-ahead
        that the first layer reads. Without a state T' is T. With a state the slots of the look-ahead are held back
        until the next chunk, and the slots held back by the last chunk come first.

        lips_BT1HW: crops in [0, 1].
        presence_BT: which crops show lips. The output of the others is zero.
        state: the past, for a stream.
        """
        # Zero after the normalisation, because a fixed one would turn black into another number.
        crops_BTHW = self._normalise(lips_BT1HW[:, :, 0]).masked_fill(~presence_BT[..., None, None], 0.0)
        if state is None:
            past = self.config.stem_slots - 1 - self.look_ahead_slots
            padded_BKHW = F.pad(crops_BTHW, (0, 0, 0, 0, past, self.look_ahead_slots))
        else:
            padded_BKHW = torch.cat((state.crops_BKHW, crops_BTHW), dim=1)
            presence_BT = torch.cat((state.ahead_BL, presence_BT), dim=1)
        read_BKHW = padded_BKHW
        # Each crop is in several windows. Autocast would cast it in each of them; this casts it once.
        if torch.is_autocast_enabled(read_BKHW.device.type):
            read_BKHW = read_BKHW.to(torch.get_autocast_dtype(read_BKHW.device.type))
        windows_BTSHW = read_BKHW.unfold(1, self.config.stem_slots, 1).permute(0, 1, 4, 2, 3)
        presence_BT = presence_BT[:, : windows_BTSHW.shape[1]]
        features_BTD = crops_BTHW.new_zeros(*presence_BT.shape, self.trunk.width)
        if bool(presence_BT.any()):  # only slots with lips pay for the trunk
            seen_NSHW = windows_BTSHW[presence_BT].contiguous(memory_format=torch.channels_last)
            # In training all slots go at once, because batch norm takes its statistics over them.
            pieces = [seen_NSHW] if self.training else seen_NSHW.split(TRUNK_SLOTS)
            features_BTD[presence_BT] = torch.cat([self.trunk(piece) for piece in pieces]).to(features_BTD.dtype)
        return features_BTD, presence_BT, padded_BKHW

    def forward(
        self,
        lips_BT1HW: Tensor,
        presence_BT: Tensor,
        lengths: Tensor,
        state: VisualEncoderState | None = None,
        attention: AttentionContext | None = None,
    ) -> tuple[Tensor, Tensor, VisualEncoderState | None]:
        """The frames [B, frames, width], which of them saw lips (bool [B, frames]), and the next state.

        The next state is None if `state` is None.

        lips_BT1HW: crops [B, T, 1, 88, 88] in [0, 1]. `slots_wanted` says how many; without a state, two a frame.
        presence_BT: which crops show lips, bool.
        lengths: frames (80 ms) of each item, int64 [B].
        state: the past, for a stream.
        attention: a context other than the configured one, in frames of 80 ms.

        Raises ValueError for an odd number of slots.
        """
        features_BTD, present_BT, padded_BKHW = self.features(lips_BT1HW, presence_BT, state)
        B, T = present_BT.shape
        if T % 2:
            raise ValueError(f"lips: got {presence_BT.shape[1]} slots, expected what slots_wanted says, two a frame")
        x_BTD, conformer_state = self.conformer(
            self.dropout(self.embed(features_BTD)),
            2 * lengths,
            self._over_slots(attention),
            None if state is None else state.conformer,
            present_BT=present_BT,
        )
        # The blocks give some output for padding too; an absent slot must add nothing to its frame.
        x_BTD = self.pair(x_BTD.masked_fill(~present_BT[..., None], 0.0).reshape(B, T // 2, -1))
        seen_BT = present_BT.reshape(B, T // 2, 2).any(dim=-1)
        if state is None or conformer_state is None:
            return x_BTD, seen_BT, None
        all_present = torch.cat((state.ahead_BL, presence_BT), dim=1)
        # The next slot's window begins this many crops back. The look-ahead crops are among them.
        K = self.config.stem_slots - 1
        return (
            x_BTD,
            seen_BT,
            VisualEncoderState(padded_BKHW[:, padded_BKHW.shape[1] - K :], all_present[:, T:], conformer_state),
        )

    def _over_slots(self, attention: AttentionContext | None) -> AttentionContext:
        """The attention context in slots, the frames of the Conformer blocks."""
        return (attention or self.config.attention).finer(2)

    def _normalise(self, crops_BTHW: Tensor) -> Tensor:
        """Crops with a mean of about 0 and a deviation of about 1."""
        if self.config.normalize == "fixed":
            return (crops_BTHW - self.config.mean) / self.config.std
        # Each crop by its own light and contrast: needs no statistics of a whole video, so it works live, and removes
        # differences between rooms and skins.
        mean_BT11 = crops_BTHW.mean(dim=(-2, -1), keepdim=True)
        centred_BTHW = crops_BTHW - mean_BT11
        deviation_BT11 = (
            centred_BTHW.square().mean(dim=(-2, -1), keepdim=True).sqrt()
        )  # .std() takes three times as long
        return centred_BTHW / (deviation_BT11 + CONTRAST_FLOOR)
