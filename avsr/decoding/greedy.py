"""Greedy CTC search: the best unit of each frame, repeats merged, blanks dropped (Graves et al., ICML 2006, 3.2).

The frames of a unit are those in which it is the best one. That is also its forced alignment: the path of the best
units is the most likely of all paths, so it is the most likely path of its own units too.

Letters: T frames, V units; the blank is unit V.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import LogProbs, Present
from avsr.decoding.checked import check_log_probs
from avsr.decoding.search import Cut, Spoken
from avsr.decoding.tokenizer import Tokenizer

IMPOSSIBLE = -100.0
"""Log-probability of every unit in a frame that certainly holds nothing: small, and finite for those who add it up."""


class AlignedUnit(NamedTuple):
    """One unit in time."""

    unit: int
    first: int
    """Its first frame."""
    end: int
    """The frame after its last."""
    confidence: float
    """Mean probability of the unit in its frames, in [0, 1]."""


class Pause(NamedTuple):
    """What a greedy search knew at the last blank frame."""

    frame: int
    """The frame after that blank."""
    words: tuple[Spoken, ...]
    units: tuple[AlignedUnit, ...]
    """Units of the word that could still grow."""


class GreedyBeam(NamedTuple):
    """What a greedy search knows after some frames."""

    frames: int
    """Number of the next frame."""
    quiet_from: int
    """The frame from which there are only blanks up to now; `frames` if the last frame is no blank."""
    words: tuple[Spoken, ...]
    """Words that later frames cannot change."""
    units: tuple[AlignedUnit, ...]
    """Units of the word that may still grow."""
    run_unit: int | None
    """Best unit of the last frame, None if that is the blank: the next frame may continue it."""
    run_first: int
    """First frame of that run."""
    run_probability: float
    """Sum of the unit's probabilities over the run."""
    at_pause: Pause
    since_pause: tuple[AlignedUnit, ...]
    """Units since the last blank frame."""


class GreedySearch:
    """Greedy search of one model; one search serves many streams.

    frame_s: seconds from one frame to the next.
    """

    def __init__(self, tokenizer: Tokenizer, *, frame_s: float) -> None:
        self._tokenizer = tokenizer
        self._blank_id = len(tokenizer)
        self._frame_s = frame_s

    def initial_state(self, first_frame: int = 0, after: GreedyBeam | None = None) -> GreedyBeam:
        """The beam before frame `first_frame`. Words before it have no influence."""
        return GreedyBeam(first_frame, first_frame, (), (), None, first_frame, 0.0, Pause(first_frame, (), ()), ())

    def step(self, log_probs_TV: LogProbs, beam: GreedyBeam) -> GreedyBeam:
        """The beam after these frames."""
        if not len(log_probs_TV):
            return beam
        units, since_pause, at_pause = [*beam.units], [*beam.since_pause], beam.at_pause
        run_unit, run_first, run_sum = beam.run_unit, beam.run_first, beam.run_probability
        quiet_from = beam.quiet_from
        # NaN would be the best unit of its frame, and a sure one.
        check_log_probs(log_probs_TV, "of this search", most=np.inf)
        best_T, probability_T = _best(log_probs_TV)
        for first, end in _runs(best_T):
            unit = None if best_T[first] == self._blank_id else int(best_T[first])
            if unit != run_unit:
                if run_unit is not None:
                    units.append(_finished(run_unit, run_first, beam.frames + first, run_sum))
                    since_pause.append(units[-1])
                    quiet_from = beam.frames + first
                run_unit, run_first, run_sum = unit, beam.frames + first, 0.0
            # Summed frame by frame, so that the confidence is the same to the bit however a stream is cut into chunks.
            if unit is not None:
                run_sum = sum(probability_T[first:end], run_sum)
            else:
                at_pause, since_pause = Pause(beam.frames + end, beam.words, tuple(units)), []
        frames = beam.frames + len(log_probs_TV)
        if run_unit is not None:
            quiet_from = frames
        # Whole words are decoded once, so that a step does not cost more the longer the stream is.
        words, open_units = self._settle(beam.words, tuple(units))
        return GreedyBeam(
            frames, quiet_from, words, open_units, run_unit, run_first, run_sum, at_pause, tuple(since_pause)
        )

    def words(self, beam: GreedyBeam) -> list[Spoken]:
        """The words so far, the one that may still grow among them."""
        units = beam.units
        if beam.run_unit is not None:
            units += (_finished(beam.run_unit, beam.run_first, beam.frames, beam.run_probability),)
        return [*beam.words, *self._words(units)]

    def committed(self, beam: GreedyBeam) -> int:
        """How many words are whole. A word may grow until a unit that begins another word shows that it has ended."""
        ids = [*self._ids(beam.units), *([] if beam.run_unit is None else [beam.run_unit])]
        # The unit of the last run is certain, but not its end.
        fixed = min(self._tokenizer.open_from(ids), len(beam.units))
        return len(beam.words) + sum(end <= fixed for _, _, end in self._tokenizer.word_groups(ids))

    def pause(self, beam: GreedyBeam) -> int:
        """How many frames have passed since the last unit."""
        return beam.frames - beam.quiet_from

    def cut(self, beam: GreedyBeam) -> Cut:
        """See `FrameSearch`. Without a word before the last blank, the cut comes after the last frame."""
        frame, words, units = beam.at_pause
        at = len(units)
        units += beam.since_pause
        ids = [*self._ids(units), *([] if beam.run_unit is None else [beam.run_unit])]
        for _, first, end in self._tokenizer.word_groups(ids):
            if first < at < end:  # this blank lies between two pieces of one word
                at, frame = first, units[first].first
        before = [*words, *self._words(units[:at])]
        if not before:
            return Cut(self.words(beam), beam.frames, self.initial_state(beam.frames))
        words, open_units = self._settle((), units[at:])
        rest = beam._replace(
            quiet_from=max(beam.quiet_from, frame),
            words=words,
            units=open_units,
            at_pause=Pause(frame, (), ()),
            since_pause=units[at:],
        )
        return Cut(before, frame, rest)

    def silence(self, log_probs_TV: LogProbs, where_T: Present) -> LogProbs:
        """The same rows, with a certain blank `where_T`."""
        nothing_V = np.full(log_probs_TV.shape[-1], IMPOSSIBLE, np.float32)
        nothing_V[self._blank_id] = 0.0
        return np.where(where_T[:, None], nothing_V, log_probs_TV)

    def _settle(
        self, words: tuple[Spoken, ...], units: tuple[AlignedUnit, ...]
    ) -> tuple[tuple[Spoken, ...], tuple[AlignedUnit, ...]]:
        """Move whole words from the units to the words."""
        first = self._tokenizer.open_from(self._ids(units))
        return (*words, *self._words(units[:first])), units[first:]

    def _words(self, units: tuple[AlignedUnit, ...]) -> list[Spoken]:
        return words_of(self._tokenizer, units, self._frame_s)

    def _ids(self, units: tuple[AlignedUnit, ...]) -> list[int]:
        return [unit.unit for unit in units]


def words_of(tokenizer: Tokenizer, units: Sequence[AlignedUnit], frame_s: float) -> list[Spoken]:
    """Words of units. A word lies from its first unit to its last, and is as sure as all of them are together."""
    return [
        Spoken(
            word,
            units[first].first * frame_s,
            units[end - 1].end * frame_s,
            math.prod(unit.confidence for unit in units[first:end]),
        )
        for word, first, end in tokenizer.word_groups([unit.unit for unit in units])
    ]


def greedy(log_probs_TV: LogProbs, blank_id: int) -> list[int]:
    """The units of one utterance, without times: log-probabilities [T, V + 1] -> ids."""
    best = np.asarray(log_probs_TV).argmax(axis=-1).tolist()
    return [unit for unit, _ in itertools.groupby(best) if unit != blank_id]


def _best(log_probs_TV: LogProbs) -> tuple[NDArray[np.int64], list[float]]:
    """The best unit of each frame and its probability."""
    best_T = log_probs_TV.argmax(axis=-1)
    return best_T, np.exp(log_probs_TV[np.arange(len(best_T)), best_T]).tolist()


def _runs(best_T: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Stretches [first, end) of frames with the same best unit."""
    edges = [0, *(np.flatnonzero(np.diff(best_T)) + 1).tolist(), len(best_T)]
    return list(itertools.pairwise(edges))


def _finished(unit: int, first: int, end: int, probability: float) -> AlignedUnit:
    # Rounding of float32 can give a mean just above 1.
    return AlignedUnit(unit, first, end, min(1.0, probability / (end - first)))
