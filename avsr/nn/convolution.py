"""The Conformer's convolution module (Gulati et al., arXiv 2005.08100, section 2.2).

Shapes: B batch, T frames, K cached frames or the kernel's frames, D width.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsr.nn.packing import Linear, Packable, PackedDepthwise


class ConvolutionState(NamedTuple):
    """The past of one depthwise convolution."""

    past_BKD: Tensor
    """Its last inputs (after the gate), oldest first: as many as the kernel reaches back."""


class ConvolutionModule(Packable):
    """Pointwise, gate, depthwise over time, norm, SiLU, pointwise: [B, T, D] -> [B, T, D].

    width: D.
    kernel: frames that the depthwise convolution reads.
    context: "symmetric" reads (kernel - 1) / 2 frames on either side. "causal" reads only the past and can stream.
        "chunked" is symmetric, but in a pass cut into chunks it reads zeros after the end of each chunk, and can
        stream (dynamic chunk convolution, Li et al., arXiv 2304.09325, section 3.2).
    look_ahead: how many of the kernel's frames lie in the future. None: what `context` says.
    norm: of the depthwise convolution's output.
    use_bias: whether the convolutions have biases.

    Raises ValueError if the kernel does not fit the context or the look-ahead.
    """

    def __init__(
        self,
        width: int,
        kernel: int,
        *,
        context: Literal["symmetric", "causal", "chunked"] = "symmetric",
        look_ahead: int | None = None,
        norm: Literal["batch", "layer"] = "batch",
        use_bias: bool = True,
    ) -> None:
        super().__init__()
        if look_ahead is None:
            # An even kernel has no middle frame.
            if kernel % 2 == 0 and context != "causal":
                raise ValueError(f"convolution kernel: got {kernel}, expected an odd number when symmetric")
            look_ahead = 0 if context == "causal" else (kernel - 1) // 2
        if not 0 <= look_ahead < kernel:
            raise ValueError(f"convolution look-ahead: got {look_ahead}, expected 0 to {kernel - 1}")
        self.kernel, self.look_ahead, self.norm_kind = kernel, look_ahead, norm
        self.chunked = context == "chunked"
        self._packed: PackedDepthwise | None = None
        self.expand = Linear(width, 2 * width, bias=use_bias)
        self.depthwise = nn.Conv1d(width, width, kernel, groups=width, bias=use_bias)
        self.norm = nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width)
        self.project = Linear(width, width, bias=use_bias)

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> ConvolutionState:
        """The state before a stream: zeros. Raises ValueError if the module needs the future."""
        if self.look_ahead and not self.chunked:
            raise ValueError("a convolution that looks ahead cannot stream: expected conv_context causal or chunked")
        past = self.kernel - 1 - self.look_ahead
        return ConvolutionState(torch.zeros(batch_size, past, self.project.in_features, device=device, dtype=dtype))

    def pack(self, dtype: torch.dtype) -> None:
        """As `Packable.pack`. A batch norm becomes part of the depthwise convolution."""
        weight_DK, bias_D = self.depthwise.weight[:, 0], self.depthwise.bias
        with torch.no_grad():
            # In evaluation a batch norm is a fixed scale and shift, so the convolution can do both.
            if isinstance(self.norm, nn.BatchNorm1d):
                assert self.norm.running_mean is not None and self.norm.running_var is not None
                scale_D = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
                shift_D = self.norm.bias - self.norm.running_mean * scale_D
                weight_DK = weight_DK * scale_D[:, None]
                bias_D = shift_D if bias_D is None else bias_D * scale_D + shift_D
        self._packed = PackedDepthwise(weight_DK, bias_D)

    def unpack(self) -> None:
        self._packed = None

    def forward(
        self,
        x_BTD: Tensor,
        valid_BT: Tensor | None,
        state: ConvolutionState | None = None,
        chunk: int | None = None,
    ) -> tuple[Tensor, ConvolutionState | None]:
        """The output [B, T, D] and the next state (None if `state` is None).

        x_BTD: the input.
        valid_BT: which frames are real. The others are read as zeros. None: all are real.
        state: the frames before x, for a stream.
        chunk: frames of the chunks that the pass is cut into. Only a module with context "chunked" reads it.

        Raises ValueError for a state without chunks if the module looks ahead.
        """
        gated_BTD = F.glu(self.expand(x_BTD), dim=-1)
        # The convolution would carry padding into real frames, and the result would depend on the batch.
        if valid_BT is not None:
            gated_BTD = gated_BTD.masked_fill(~valid_BT[..., None], 0.0)
        next_state = None
        B, T, D = gated_BTD.shape
        before, after = self.kernel - 1 - self.look_ahead, self.look_ahead
        if state is not None:
            if after and chunk is None:
                raise ValueError("a convolution that looks ahead can stream in chunks only")
            gated_BTD = torch.cat((state.past_BKD, gated_BTD), dim=1)
            past_BKD = gated_BTD[:, gated_BTD.shape[1] - before :]
            # A clone frees the rest of the chunk, which a view would keep in memory as long as the state lives.
            next_state = ConvolutionState(past_BKD if T <= before else past_BKD.clone())
        if after and self.chunked and chunk is not None and (state is not None or chunk < T):
            # Each chunk becomes an item of the batch, with the frames before it in front and zeros behind it.
            missing = before if state is None else 0
            gated_BTD = F.pad(gated_BTD, (0, 0, missing, -T % chunk)).unfold(1, before + chunk, chunk)
            gated_BTD = F.pad(gated_BTD.flatten(0, 1).transpose(1, 2), (0, 0, 0, after))
            before = after = 0
        elif state is not None:  # the past is in front already, and only a causal module comes here
            before = after = 0
        mixed_BTD = self._mix(gated_BTD, before, after)
        return self.project(mixed_BTD.reshape(B, -1, D)[:, :T]), next_state

    def _mix(self, gated_BTD: Tensor, before: int, after: int) -> Tensor:
        """Depthwise convolution, norm, SiLU, with `before` zeros in front of the frames and `after` zeros behind."""
        if self._packed is not None:
            if before != after:  # the packed convolution pads both sides alike
                gated_BTD, before = F.pad(gated_BTD, (0, 0, before, after)), 0
            mixed_BTD = self._packed(gated_BTD, before, "swish" if self.norm_kind == "batch" else "none")
            return mixed_BTD if self.norm_kind == "batch" else F.silu(self.norm(mixed_BTD))
        mixed_BDT = self.depthwise(F.pad(gated_BTD.transpose(1, 2), (before, after)))
        if self.norm_kind == "batch":
            return F.silu(self.norm(mixed_BDT).transpose(1, 2))
        return F.silu(self.norm(mixed_BDT.transpose(1, 2)))
