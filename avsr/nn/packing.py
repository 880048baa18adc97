"""Packs weights for fast inference on the CPU, and unpacks them again.

A general matrix product rearranges its weights in every pass. oneDNN multiplies weights that were rearranged once. It
also has fast kernels for processors that lack them in `torch.nn.functional.linear`, and applies the activation while
the numbers are in registers. In all this is two to three times as fast on some machines, and it was slower on no
machine that was tried (`benchmarks/beside_nemo.py`).

A packed module gives the same results within rounding, and no gradients.

Shapes: B batch, T frames, K frames of a kernel, D width (D_in, D_out of a layer), X Y Z sides of matrices.
"""

from __future__ import annotations

import platform
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["none", "relu", "swish"]
MAX_FEW_FRAMES = 32
"""Up to this number of frames plain products convolve faster than a call of oneDNN takes."""


def can_pack(device: torch.device, dtype: torch.dtype = torch.float32) -> bool:
    """Whether `device` is a processor with the kernels: x86-64, and for bfloat16 one that computes in bfloat16."""
    if (
        device.type != "cpu"
        or not torch.backends.mkldnn.is_available()
        or platform.machine() not in ("x86_64", "AMD64")
    ):
        return False
    if dtype == torch.bfloat16:  # other processors only emulate it, slowly
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


class PackedWeight:
    """The weight and bias of a linear layer in oneDNN's order. Called, it is the layer, without gradients.

    weight: [D_out, D_in].
    bias: [D_out] or None.
    dtype: in which they are multiplied; float32 or bfloat16.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype = torch.float32) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self.dtype = dtype
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype).contiguous(), None)
            # A copy: a bias that is mapped from a file would keep the whole file in memory.
            self.bias = None if bias is None else bias.detach().to(dtype, copy=True)

    def __call__(self, x: Tensor, activation: Activation = "none") -> Tensor:
        """float32 [..., D_in] -> float32 [..., D_out]. Raises RuntimeError if a gradient is expected."""
        # oneDNN's operators have no backward pass here: without this, training would go on and learn nothing.
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("packed for inference: no gradients; call unpack() on the network first")
        if self.dtype == torch.float32:
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, activation, [], "")
        x = x.to(self.dtype)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, activation, [], "").float()

    def to_dense(self) -> Tensor:
        """The weight [D_out, D_in] in its usual order, in `dtype`."""
        return self.packed.to_dense()

    def __reduce__(self) -> tuple[object, ...]:  # the packed form can be neither copied nor saved
        return PackedWeight, (self.to_dense(), self.bias, self.dtype)


def product(a_1XY: Tensor, b_1YZ: Tensor, plus_1XZ: Tensor | None = None) -> Tensor:
    """a @ b + plus for float32 matrices in batches of 1. The rows or the columns of b must be contiguous."""
    y_XZ = torch.ops.mkldnn._linear_pointwise(a_1XY[0].contiguous(), b_1YZ[0].t(), None, "none", [], "")
    return y_XZ[None] if plus_1XZ is None else y_XZ[None].add_(plus_1XZ)


class PackedRows:
    """One of several linear layers that are multiplied as one: its rows of the common weight.

    whole: the common weight.
    rows: where this layer's outputs are in it.
    """

    def __init__(self, whole: PackedWeight, rows: slice) -> None:
        self.whole, self.rows = whole, rows

    def __call__(self, x: Tensor, activation: Activation = "none") -> Tensor:
        return self.whole(x, activation)[..., self.rows]

    def to_dense(self) -> Tensor:
        """The weight [D_out, D_in] of this layer."""
        # A clone, because a slice would keep the weight of all layers in memory.
        return self.whole.to_dense()[self.rows].clone()


class PackedDepthwise:
    """A depthwise convolution over time, for frames with contiguous channels, as between linear layers.

    weight_DK, bias_D: copied.
    """

    def __init__(self, weight_DK: Tensor, bias_D: Tensor | None) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self._weight_DK, self._bias_D = (
                weight_DK.detach().clone(),
                None if bias_D is None else bias_D.detach().clone(),
            )
            self._weight_KD = self._weight_DK.t().contiguous()
            # oneDNN convolves pictures: this one is a pixel high, and each frame is a pixel.
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                self._weight_DK[:, None, None], [0, 0], [1, 1], [1, 1], len(weight_DK), None
            )

    def __call__(self, x_BTD: Tensor, padding: int, activation: Activation) -> Tensor:
        """[B, T, D] -> [B, T + 2 padding - K + 1, D]. padding: zeros on either side of the frames."""
        # A step of a stream has few frames. A call of oneDNN takes six times as long for them as plain products.
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
    """A module that can be packed. Packing a packed module changes nothing, and so does unpacking an unpacked one."""

    def pack(self, dtype: torch.dtype) -> None:
        """Pack the weights for inference on the CPU. dtype: in which they are multiplied."""
        raise NotImplementedError

    def unpack(self) -> None:
        """Undo `pack`. The weights are equal to the bit if they were packed in float32, and rounded in bfloat16."""
        raise NotImplementedError


class Linear(nn.Linear, Packable):
    """torch's linear layer, followed by an activation. While packed it has no `weight`, so memory does not double."""

    packed: PackedWeight | PackedRows | None = None
    """None: not packed."""

    def pack(self, dtype: torch.dtype) -> None:
        if self.packed is None:
            self._give_up_weight(PackedWeight(self.weight, self.bias, dtype))

    def _give_up_weight(self, packed: PackedWeight | PackedRows) -> None:
        """Use `packed` from now on and free the weight."""
        self.packed = packed
        # A frozen layer must come back frozen.
        self._trained = self.weight.requires_grad
        # Both forms of the weight at once would double the memory of a large model.
        del self.weight
        self.register_parameter("weight", None)

    def unpack(self) -> None:
        if self.packed is not None:
            with torch.inference_mode(False):
                weight = self.packed.to_dense().float()
            self.weight = nn.Parameter(weight, requires_grad=self._trained)
            self.packed = None

    def __call__(self, x: Tensor, activation: Activation = "none") -> Tensor:
        # A step of a stream calls hundreds of such layers, so the call of a module shows. Hooks need that call.
        if self.packed is not None and not self._forward_hooks and not self._forward_pre_hooks:
            return self.packed(x, activation)  # saves the cost of calling a module
        return super().__call__(x, activation)

    def forward(self, x: Tensor, activation: Activation = "none") -> Tensor:
        if self.packed is not None:
            return self.packed(x, activation)
        y = F.linear(x, self.weight, self.bias)
        if activation == "none":
            return y
        return F.relu(y) if activation == "relu" else F.silu(y)


def pack_as_one(layers: tuple[Linear, ...], dtype: torch.dtype) -> PackedWeight:
    """Pack linear layers that have the same input. The result gives their outputs side by side in one product.

    Either every layer has a bias or none has.
    """
    weights: list[Tensor] = [layer.weight for layer in layers]
    biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
    whole = PackedWeight(torch.cat(weights), torch.cat(biases) if biases else None, dtype)
    start = 0
    for layer in layers:
        layer._give_up_weight(PackedRows(whole, slice(start, start + layer.out_features)))
        start += layer.out_features
    return whole
