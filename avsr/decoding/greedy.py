"""Greedy CTC search: the best unit of each frame, repeats merged, blanks dropped."""

from __future__ import annotations

import torch
from torch import Tensor


def greedy(log_probs_TV: Tensor, blank_id: int) -> list[int]:
    """Units of one utterance: log-probabilities [T, V + 1] -> ids."""
    best_T = torch.unique_consecutive(log_probs_TV.argmax(dim=-1))
    return best_T[best_T != blank_id].tolist()
