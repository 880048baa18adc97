"""Convolutional subsampling of log-mel frames (FastConformer, arXiv 2305.05084, section 2.1).

Shapes: B batch, T frames, C channels, F frequency bins, D width, K = 9 pixels of a kernel or K cached frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsr.nn.masks import padding_mask
from avsr.nn.packing import Packable, PackedWeight

PIECE_FRAMES = 256
"""Mel frames computed at a time from a long recording. The inner stages hold far more numbers than the input or the
output, and for this many frames they stay in the processor's cache."""


class SubsamplingState(NamedTuple):
    """The past of a subsampling."""

    past: tuple[Tensor, ...]
    """The last input frame of each stage, [B, C, 1, F]; before the first chunk of a causal one, 2 frames of zeros."""


class Subsampling(Packable):
    """Subsampling of `factor` mel frames to one frame of `width` channels, with ReLUs between 3x3 convolutions.

    Each stage halves time and frequency. With one zero frame in front, output j of a stage reads inputs 2j - 1 to
    2j + 1. Encoder frame j then needs nothing after mel frame factor * j + factor - 1, so chunks of `factor` mel frames
    need no look-ahead.

    n_mels: F, frequency bins of the input.
    width: channels of the output.
    channels: of the stages.
    factor: 2, 4, 8 or 16. Raises ValueError for others.
    kind: stages after the first are depthwise and pointwise convolutions, or plain ones. The first is always plain.
    causal: two zero frames in front. Output j of a stage reads inputs 2j - 2 to 2j, and encoder frame j is complete
        with mel frame factor * j.
    """

    def __init__(
        self,
        n_mels: int,
        width: int,
        *,
        channels: int,
        factor: int = 8,
        kind: Literal["depthwise", "plain"] = "depthwise",
        causal: bool = False,
    ) -> None:
        super().__init__()
        if factor not in (2, 4, 8, 16):
            raise ValueError(f"subsampling factor: got {factor}, expected 2, 4, 8 or 16")
        self.factor = factor
        self.padding = 2 if causal else 1  # zeros in front of time and frequency; behind them at most one
        stages: list[nn.Module] = [nn.Conv2d(1, channels, 3, stride=2)]
        for _ in range(factor.bit_length() - 2):
            if kind == "plain":
                stages.append(nn.Conv2d(channels, channels, 3, stride=2))
                continue
            stages.append(
                nn.Sequential(
                    nn.Conv2d(channels, channels, 3, stride=2, groups=channels), nn.Conv2d(channels, channels, 1)
                )
            )
        self.stages = nn.ModuleList(stages)
        bins = [n_mels]
        for _ in stages:
            bins.append((bins[-1] + self.padding) // 2)
        self._bins = bins[:-1]
        # He et al., arXiv 1502.01852. With torch's default the signal shrinks to a hundredth after five layers and
        # drowns in their biases: the encoder then trained three times as long before it used the sound.
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.channels = channels
        self.project = nn.Linear(channels * bins[-1], width)
        self._packed: _PackedSubsampling | None = None

    def pack(self, dtype: torch.dtype) -> None:
        if self._packed is None:
            self._packed = _PackedSubsampling(self, dtype)

    def unpack(self) -> None:
        self._packed = None

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> SubsamplingState:
        """The state before a stream: zeros, as a whole recording is padded with."""
        return SubsamplingState(
            tuple(
                torch.zeros(batch_size, channels, self.padding, bins, device=device, dtype=dtype)
                for channels, bins in zip([1] + [self.channels] * len(self._bins), self._bins, strict=False)
            )
        )

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """The number of encoder frames for whole recordings of `lengths` mel frames, int64 [B]."""
        for _ in self.stages:
            lengths = torch.div(lengths + self.padding, 2, rounding_mode="floor")
        return lengths

    def forward(
        self, mel_BFT: Tensor, lengths: Tensor, state: SubsamplingState | None = None
    ) -> tuple[Tensor, Tensor, SubsamplingState | None]:
        """The frames [B, T', width], their lengths [B], and the next state (None if `state` is None).

        T' is ceil(T / factor), or if causal ceil((T - 1) / factor) + 1.

        mel_BFT: log-mel frames.
        lengths: int64 [B]; frames after the length are padding.
        state: the past, for a stream. T must then be a multiple of `factor`, except in the last chunk. If causal, T of
            the first chunk is one more than a multiple.
        """
        if state is None and mel_BFT.shape[2] > PIECE_FRAMES and not self.training:
            return self._in_pieces(mel_BFT, lengths)
        x_BCTF = mel_BFT.transpose(1, 2)[:, None]
        past = []
        for index, stage in enumerate(self.stages):
            x_BCTF = _masked(x_BCTF, lengths)
            before = self.padding if state is None else state.past[index].shape[2]
            if state is not None:
                # With stride 2 and a kernel of 3, the next window reads one frame of this chunk again.
                past.append(x_BCTF[:, :, -1:].clone())
            x_BCTF = self._padded(x_BCTF, before, None if state is None else state.past[index])
            x_BCTF = F.relu(stage(x_BCTF)) if self._packed is None else self._packed.stages[index](x_BCTF)
            lengths = torch.div(lengths + before, 2, rounding_mode="floor")
        x_BCTF = _masked(x_BCTF, lengths)
        if self._packed is None:
            out_BTD = self.project(x_BCTF.transpose(1, 2).flatten(2))
        else:
            out_BTD = self._packed.project(x_BCTF.permute(0, 2, 3, 1).flatten(2))
        return out_BTD, lengths, None if state is None else SubsamplingState(tuple(past))

    def _padded(self, x_BCTF: Tensor, before: int, past_BCKF: Tensor | None) -> Tensor:
        """The input with padding: `before` frames in front (the past, or zeros) and zeros around the bins.

        One more zero frame follows if the last window would reach past the end. Channels are last in memory.
        """
        B, C, T, bins = x_BCTF.shape
        size = (B, C, before + T + (before + T + 1) % 2, self.padding + bins + 1)
        if torch.is_grad_enabled():  # writing into a new tensor, as below, would give no gradients
            front = x_BCTF.new_zeros(B, C, before, bins) if past_BCKF is None else past_BCKF
            joined = torch.cat((front, x_BCTF), dim=2)
            return F.pad(joined, (self.padding, 1, 0, size[2] - before - T))
        padded = torch.empty(size, dtype=x_BCTF.dtype, device=x_BCTF.device, memory_format=torch.channels_last).zero_()
        padded[:, :, before : before + T, self.padding : self.padding + bins] = x_BCTF
        if past_BCKF is not None:
            padded[:, :, :before, self.padding : self.padding + bins] = past_BCKF
        return padded

    def _in_pieces(self, mel_BFT: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, None]:
        """`forward` of a long recording, computed as a stream."""
        state = self.initial_state(len(mel_BFT), mel_BFT.device, mel_BFT.dtype)
        first = PIECE_FRAMES + self.padding - 1  # a causal first chunk is one frame longer
        starts = [0, *range(first, mel_BFT.shape[2], PIECE_FRAMES)]
        parts = []
        for start, end in zip(starts, [*starts[1:], mel_BFT.shape[2]], strict=True):
            part_BTD, _, state_after = self(mel_BFT[:, :, start:end], (lengths - start).clamp(0, end - start), state)
            assert state_after is not None
            parts.append(part_BTD)
            state = state_after
        return torch.cat(parts, dim=1), self.output_lengths(lengths), None


def _masked(x_BCTF: Tensor, lengths: Tensor) -> Tensor:
    """x with zeros in the padding."""
    valid_BT = padding_mask(lengths, x_BCTF.shape[2])
    return x_BCTF if valid_BT is None else x_BCTF.masked_fill(~valid_BT[:, None, :, None], 0.0)


class _PackedSubsampling:
    """The stages (with their ReLU) and the projection of a `Subsampling`, packed.

    Channels are last in memory, so that products over channels need no rearrangement.
    """

    def __init__(self, module: Subsampling, dtype: torch.dtype) -> None:
        self.stages: list[Callable[[Tensor], Tensor]] = []
        for stage in module.stages:
            if isinstance(stage, nn.Conv2d):
                plain = stage.in_channels > 1
                self.stages.append(_PlainStage(stage) if plain else _FirstStage(stage, dtype))
            else:
                assert isinstance(stage, nn.Sequential)
                self.stages.append(_DepthwiseStage(stage, dtype))
        # The packed stages leave channels last, so the columns of the projection get that order too.
        weight_DCF = module.project.weight.unflatten(1, (module.channels, -1))
        self.project = PackedWeight(weight_DCF.transpose(1, 2).flatten(1), module.project.bias, dtype)


class _FirstStage:
    """A 3x3 convolution with stride 2 from one channel, as a product of windows of 9 pixels with the weights."""

    def __init__(self, stage: nn.Conv2d, dtype: torch.dtype) -> None:
        self._weight = PackedWeight(stage.weight.flatten(1), stage.bias, dtype)

    def __call__(self, x_B1TF: Tensor) -> Tensor:
        windows_BTFK = x_B1TF[:, 0].unfold(1, 3, 2).unfold(2, 3, 2).flatten(3)
        return self._weight(windows_BTFK, "relu").permute(0, 3, 1, 2)


class _DepthwiseStage:
    """A depthwise 3x3 convolution with stride 2, then a product over channels."""

    def __init__(self, stage: nn.Sequential, dtype: torch.dtype) -> None:
        depthwise, pointwise = stage
        assert isinstance(depthwise, nn.Conv2d) and isinstance(pointwise, nn.Conv2d)
        self._depthwise = depthwise
        self._pointwise = PackedWeight(pointwise.weight.flatten(1), pointwise.bias, dtype)

    def __call__(self, x_BCTF: Tensor) -> Tensor:
        x_BCTF = self._depthwise(x_BCTF.contiguous(memory_format=torch.channels_last))
        return self._pointwise(x_BCTF.permute(0, 2, 3, 1), "relu").permute(0, 3, 1, 2)


class _PlainStage:
    """A 3x3 convolution with stride 2, not packed: torch's is fast enough if channels are last."""

    def __init__(self, stage: nn.Conv2d) -> None:
        self._stage = stage

    def __call__(self, x_BCTF: Tensor) -> Tensor:
        return F.relu(self._stage(x_BCTF.contiguous(memory_format=torch.channels_last)))
