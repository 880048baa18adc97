"""Weights laid out for inference on the CPU.

The matrix products of a whole pass take turns with different weights, and a general product first rearranges them each
time. oneDNN multiplies weights that were rearranged once; it is also quicker on processors for which the library behind
`torch.nn.functional.linear` has no kernels of its own, and applies the activation while the numbers are at hand. Two to
three times faster in all on some machines, never slower on those tried (`benchmarks/beside_nemo.py`).

A packed module computes the same within rounding, without gradients. Packing is undone by `unpack`.
"""

from __future__ import annotations

import platform
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["none", "relu", "swish"]
MAX_FEW_FRAMES = 32  # so few are convolved faster by plain products than oneDNN takes to begin


def can_pack(device: torch.device, dtype: torch.dtype = torch.float32) -> bool:
    """Whether this machine has the kernels: x86-64 processors; for bfloat16 those that compute in it."""
    if (
        device.type != "cpu"
        or not torch.backends.mkldnn.is_available()
        or platform.machine() not in ("x86_64", "AMD64")
    ):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


class PackedWeight:
    """The weight [D_out, D_in] and bias of a linear layer in oneDNN's order. dtype: in which they are multiplied."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype = torch.float32) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self.dtype = dtype
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype).contiguous(), None)
            self.bias = None if bias is None else bias.detach().to(dtype)

    def __call__(self, x: Tensor, activation: Activation = "none") -> Tensor:
        """float32 [..., D_in] -> float32 [..., D_out]."""
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("packed for inference: no gradients; call unpack() on the network first")
        if self.dtype == torch.float32:
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, activation, [], "")
        x = x.to(self.dtype)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, activation, [], "").float()

    def to_dense(self) -> Tensor:
        """The weight [D_out, D_in] as it was, in `dtype`."""
        return self.packed.to_dense()

    def __reduce__(self) -> tuple[object, ...]:  # the packed form can be neither copied nor saved
        return PackedWeight, (self.to_dense(), self.bias, self.dtype)


def product(a_1XY: Tensor, b_1YZ: Tensor, plus_1XZ: Tensor | None = None) -> Tensor:
    """a @ b + plus of single float32 matrices; those of b must have their rows or their columns together."""
    y_XZ = torch.ops.mkldnn._linear_pointwise(a_1XY[0].contiguous(), b_1YZ[0].t(), None, "none", [], "")
    return y_XZ[None] if plus_1XZ is None else y_XZ[None].add_(plus_1XZ)


class PackedRows:
    """One of several layers that share their input and are multiplied as one: its rows of the whole."""

    def __init__(self, whole: PackedWeight, rows: slice) -> None:
        self.whole, self.rows = whole, rows

    def __call__(self, x: Tensor, activation: Activation = "none") -> Tensor:
        return self.whole(x, activation)[..., self.rows]

    def to_dense(self) -> Tensor:
        return self.whole.to_dense()[self.rows].clone()


class PackedDepthwise:
    """A depthwise convolution over time, weight [D, K] and bias [D], on frames whose channels lie together."""

    def __init__(self, weight_DK: Tensor, bias_D: Tensor | None) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self._weight_DK, self._bias_D = (
                weight_DK.detach().clone(),
                None if bias_D is None else bias_D.detach().clone(),
            )
            self._weight_KD = self._weight_DK.t().contiguous()
            # As a picture one pixel high, whose pixels are frames.
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                self._weight_DK[:, None, None], [0, 0], [1, 1], [1, 1], len(weight_DK), None
            )

    def __call__(self, x_BTD: Tensor, padding: int, activation: Activation) -> Tensor:
        """[B, T, D] -> [B, T + 2 padding - K + 1, D]."""
        if x_BTD.shape[0] * x_BTD.shape[1] <= MAX_FEW_FRAMES and not padding:
            windows_BTKD = x_BTD.unfold(1, len(self._weight_KD), 1).transpose(2, 3)
            y_BTD = torch.linalg.vecdot(windows_BTKD, self._weight_KD, dim=2)
            if self._bias_D is not None:
                y_BTD += self._bias_D
            return F.silu(y_BTD) if activation == "swish" else y_BTD
        y_BD1T = torch.ops.mkldnn._convolution_pointwise(
            x_BTD.transpose(1, 2)[:, :, None],
            self._packed,
            self._bias_D,
            [0, padding],
            [1, 1],
            [1, 1],
            len(self._weight_DK),
            activation,
            [],
            "",
        )
        return y_BD1T[:, :, 0].transpose(1, 2)

    def __reduce__(self) -> tuple[object, ...]:
        return PackedDepthwise, (self._weight_DK, self._bias_D)


class Packable(nn.Module):
    """A module that can be packed. Both calls may be repeated."""

    def pack(self, dtype: torch.dtype) -> None:
        """Lay out the weights for inference on the CPU, multiplied in `dtype`."""
        raise NotImplementedError

    def unpack(self) -> None:
        """Undo `pack`, to the bit where `dtype` was float32."""
        raise NotImplementedError


class Linear(nn.Linear, Packable):
    """torch's linear layer, followed by an activation; while packed it has no other copy of its weights."""

    packed: PackedWeight | PackedRows | None = None

    def pack(self, dtype: torch.dtype) -> None:
        if self.packed is None:
            self._give_up_weight(PackedWeight(self.weight, self.bias, dtype))

    def _give_up_weight(self, packed: PackedWeight | PackedRows) -> None:
        self.packed = packed
        self._trained = self.weight.requires_grad
        del self.weight
        self.register_parameter("weight", None)

    def unpack(self) -> None:
        if self.packed is not None:
            with torch.inference_mode(False):
                weight = self.packed.to_dense().float()
            self.weight = nn.Parameter(weight, requires_grad=self._trained)
            self.packed = None

    def __call__(self, x: Tensor, activation: Activation = "none") -> Tensor:
        if self.packed is not None and not self._forward_hooks and not self._forward_pre_hooks:
            return self.packed(x, activation)  # without what a call of a module costs
        return super().__call__(x, activation)

    def forward(self, x: Tensor, activation: Activation = "none") -> Tensor:
        if self.packed is not None:
            return self.packed(x, activation)
        y = F.linear(x, self.weight, self.bias)
        if activation == "none":
            return y
        return F.relu(y) if activation == "relu" else F.silu(y)


def pack_as_one(layers: tuple[Linear, ...], dtype: torch.dtype) -> PackedWeight:
    """Linear layers with the same input, all with a bias or none, packed into one product, side by side."""
    weights: list[Tensor] = [layer.weight for layer in layers]
    biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
    whole = PackedWeight(torch.cat(weights), torch.cat(biases) if biases else None, dtype)
    start = 0
    for layer in layers:
        layer._give_up_weight(PackedRows(whole, slice(start, start + layer.out_features)))
        start += layer.out_features
    return whole
