"""The Conformer's convolution module (Gulati et al., arXiv 2005.08100, section 2.2)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvolutionState(NamedTuple):
    """What one depthwise convolution still remembers.

    past_BDK: its last K = kernel - 1 inputs (after the gate), oldest first.
    """

    past_BDK: Tensor


class ConvolutionModule(nn.Module):
    """Pointwise, gate, depthwise over time, norm, SiLU, pointwise.

    context "symmetric" looks (kernel - 1) / 2 frames to either side; "causal" looks only back and can stream.
    look_ahead, where given, says instead how many of the kernel's frames lie in the future.
    """

    def __init__(
        self,
        width: int,
        kernel: int,
        *,
        context: Literal["symmetric", "causal"] = "symmetric",
        look_ahead: int | None = None,
        norm: Literal["batch", "layer"] = "batch",
        use_bias: bool = True,
    ) -> None:
        super().__init__()
        if look_ahead is None:
            if kernel % 2 == 0 and context == "symmetric":
                raise ValueError(f"convolution kernel: got {kernel}, expected an odd number when symmetric")
            look_ahead = 0 if context == "causal" else (kernel - 1) // 2
        if not 0 <= look_ahead < kernel:
            raise ValueError(f"convolution look-ahead: got {look_ahead}, expected 0 to {kernel - 1}")
        self.kernel, self.look_ahead, self.norm_kind = kernel, look_ahead, norm
        self.expand = nn.Linear(width, 2 * width, bias=use_bias)
        self.depthwise = nn.Conv1d(width, width, kernel, groups=width, bias=use_bias)
        self.norm = nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width)
        self.project = nn.Linear(width, width, bias=use_bias)

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> ConvolutionState:
        """A silent past. Raises ValueError for a module that needs the future, as a symmetric one does."""
        if self.look_ahead:
            raise ValueError("a convolution that looks ahead cannot stream: expected conv_context 'causal'")
        return ConvolutionState(
            torch.zeros(batch_size, self.project.in_features, self.kernel - 1, device=device, dtype=dtype)
        )

    def forward(
        self, x_BTD: Tensor, valid_BT: Tensor, state: ConvolutionState | None = None
    ) -> tuple[Tensor, ConvolutionState | None]:
        """[B, T, D] -> [B, T, D] and the next state; frames that are not valid enter as zeros."""
        gated_BDT = F.glu(self.expand(x_BTD), dim=-1).masked_fill(~valid_BT[..., None], 0.0).transpose(1, 2)
        next_state = None
        if state is not None:
            gated_BDT = torch.cat((state.past_BDK, gated_BDT), dim=-1)
            next_state = ConvolutionState(gated_BDT[..., gated_BDT.shape[-1] - (self.kernel - 1) :])
        else:
            gated_BDT = F.pad(gated_BDT, (self.kernel - 1 - self.look_ahead, self.look_ahead))
        mixed_BDT = self.depthwise(gated_BDT)
        if self.norm_kind == "batch":
            mixed_BTD = self.norm(mixed_BDT).transpose(1, 2)
        else:
            mixed_BTD = self.norm(mixed_BDT.transpose(1, 2))
        return self.project(F.silu(mixed_BTD)), next_state
