"""The CTC output layer (Graves et al., ICML 2006). The blank is the last index.

Shapes: B batch, T frames, D width, V units of the vocabulary.
"""

from __future__ import annotations

from torch import Tensor, nn

from avsr.nn.packing import Linear


class CTCHead(nn.Module):
    """Frames [B, T, D] -> log-probabilities [B, T, V + 1], float32: the V units, and last the blank."""

    def __init__(self, width: int, vocabulary_size: int) -> None:
        super().__init__()
        self.blank_id = vocabulary_size
        self.project = Linear(width, vocabulary_size + 1)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.project(x_BTD).float().log_softmax(dim=-1)
