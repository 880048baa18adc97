"""Where in time known units lie: CTC forced alignment (Kuerzinger et al., arXiv 2007.09127, section 2.1).

Letters: T frames, V units; S = 2 U + 1 states: a blank, the first unit, a blank, the second unit, ..., a blank.
"""

from __future__ import annotations

import itertools

import numpy as np

from avsr.arrays import LogProbs
from avsr.decoding.greedy import AlignedUnit


def align(log_probs_TV: LogProbs, units: list[int], blank_id: int) -> list[AlignedUnit]:
    """The most likely frames of units that are known to be spoken.

    log_probs_TV: natural logarithms, [T, V + 1]. units: ids without blanks. Time and memory grow with T times the
    number of units. Raises ValueError when there are too few frames for the units.
    """
    if not units:
        return []
    # Two equal units in a row need a blank between them, which takes a frame.
    repeats = sum(a == b for a, b in itertools.pairwise(units))
    if len(log_probs_TV) < len(units) + repeats:
        raise ValueError(f"alignment: got {len(log_probs_TV)} frames, expected at least {len(units) + repeats}")
    states = np.full(2 * len(units) + 1, blank_id)
    states[1::2] = units
    emission_TS = log_probs_TV[:, states].astype(np.float64)
    # A blank between two units may be skipped, unless they are equal: it is what tells two of them from a long one.
    may_skip_S = np.zeros(len(states), bool)
    may_skip_S[3::2] = states[3::2] != states[1:-2:2]

    score_S = np.full(len(states), -np.inf)
    # A path begins with the first blank or the first unit.
    score_S[:2] = emission_TS[0, :2]
    step_TS = np.zeros(emission_TS.shape, np.int8)  # how many states further back the best path came from
    for frame in range(1, len(emission_TS)):
        before_3S = np.full((3, len(states)), -np.inf)
        before_3S[0] = score_S
        before_3S[1, 1:] = score_S[:-1]
        before_3S[2, 2:] = np.where(may_skip_S[2:], score_S[:-2], -np.inf)
        step_TS[frame] = before_3S.argmax(axis=0)
        score_S = before_3S.max(axis=0) + emission_TS[frame]

    # A path ends with the last unit or the blank after it.
    state = len(states) - 1 if score_S[-1] >= score_S[-2] else len(states) - 2
    path = [state]
    for frame in range(len(emission_TS) - 1, 0, -1):
        state -= int(step_TS[frame, state])
        path.append(state)
    path.reverse()
    aligned = []
    for state, group in itertools.groupby(range(len(path)), key=lambda frame: path[frame]):
        if state % 2:  # a unit; even states are blanks
            frames = list(group)
            mean = float(np.exp(emission_TS[frames, state]).mean())
            aligned.append(AlignedUnit(int(states[state]), frames[0], frames[-1] + 1, min(1.0, mean)))
    return aligned
