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
    """

    def __init__(
        self,
        width: int,
        kernel: int,
        *,
        context: Literal["symmetric", "causal"] = "symmetric",
        norm: Literal["batch", "layer"] = "batch",
        use_bias: bool = True,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0 and context == "symmetric":
            raise ValueError(f"convolution kernel: got {kernel}, expected an odd number when symmetric")
        self.kernel, self.context, self.norm_kind = kernel, context, norm
        self.expand = nn.Linear(width, 2 * width, bias=use_bias)
        self.depthwise = nn.Conv1d(width, width, kernel, groups=width, bias=use_bias)
        self.norm = nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width)
        self.project = nn.Linear(width, width, bias=use_bias)

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> ConvolutionState:
        """A silent past. Raises ValueError for a symmetric module, which needs the future."""
        if self.context != "causal":
            raise ValueError("a symmetric convolution cannot stream: expected conv_context 'causal'")
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
        elif self.context == "causal":
            gated_BDT = F.pad(gated_BDT, (self.kernel - 1, 0))
        else:
            gated_BDT = F.pad(gated_BDT, ((self.kernel - 1) // 2, (self.kernel - 1) // 2))
        mixed_BDT = self.depthwise(gated_BDT)
        if self.norm_kind == "batch":
            mixed_BTD = self.norm(mixed_BDT).transpose(1, 2)
        else:
            mixed_BTD = self.norm(mixed_BDT.transpose(1, 2))
        return self.project(F.silu(mixed_BTD)), next_state
