"""Where in time each unit lies, and how sure the model was of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torchaudio
from torch import Tensor

MIN_PAUSE_FRAMES = 4
MAX_PIECE_FRAMES = 1500  # bounds the memory of alignment, which grows with frames times units


class AlignedUnit(NamedTuple):
    """One unit in time: frames [first, end), and the mean probability the model gave it there, in [0, 1]."""

    unit: int
    first: int
    end: int
    confidence: float


def align(log_probs_TV: Tensor, units: list[int], blank_id: int) -> list[AlignedUnit]:
    """The most likely frames of the units (CTC forced alignment; Kuerzinger et al., arXiv 2007.09127).

    log_probs_TV: float32 on the CPU. Raises ValueError when there are too few frames for the units.
    """
    if not units:
        return []
    repeats = sum(a == b for a, b in zip(units, units[1:], strict=False))
    if len(log_probs_TV) < len(units) + repeats:
        raise ValueError(f"alignment: got {len(log_probs_TV)} frames, expected at least {len(units) + repeats}")
    path_T, _ = torchaudio.functional.forced_align(
        log_probs_TV[None].contiguous(), torch.tensor([units], dtype=torch.int32), blank=blank_id
    )
    path = path_T[0].tolist()
    probability_T = log_probs_TV.exp()[torch.arange(len(path)), path_T[0].long()].tolist()
    aligned = []
    frame = 0
    while frame < len(path):
        first = frame
        while frame < len(path) and path[frame] == path[first]:
            frame += 1
        if path[first] != blank_id:
            mean = sum(probability_T[first:frame]) / (frame - first)
            aligned.append(AlignedUnit(path[first], first, frame, min(1.0, mean)))
    return aligned


def align_greedy(log_probs_TV: Tensor, blank_id: int) -> list[AlignedUnit]:
    """Greedy search and alignment of any length of audio, piece by piece between pauses."""
    from avsr.decoding.greedy import greedy

    best_T = log_probs_TV.argmax(dim=-1)
    aligned = []
    for first, end in _pieces((best_T == blank_id).tolist()):
        piece_TV = log_probs_TV[first:end]
        for unit in align(piece_TV, greedy(piece_TV, blank_id), blank_id):
            aligned.append(unit._replace(first=unit.first + first, end=unit.end + first))
    return aligned


def _pieces(is_blank: list[bool]) -> list[tuple[int, int]]:
    """Cut [0, T) in the middle of pauses; a stretch without any is cut at a single blank once it is very long.

    Cutting at a blank never changes the greedy result.
    """
    pieces, first, run = [], 0, 0
    for frame, blank in enumerate([*is_blank, False]):
        if blank:
            run += 1
            if frame - first >= MAX_PIECE_FRAMES:
                pieces.append((first, frame))
                first, run = frame, 0
        else:
            if run >= MIN_PAUSE_FRAMES and frame < len(is_blank):
                pieces.append((first, frame - run // 2))
                first = frame - run // 2
            run = 0
    pieces.append((first, len(is_blank)))
    return [(start, end) for start, end in pieces if not all(is_blank[start:end])]
