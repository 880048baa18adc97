"""The sound of a stream: the samples that are still needed, and the gaps in them."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from avsr.arrays import Samples
from avsr.grid import SAMPLE_RATE_HZ
from avsr.sound.voice import VoiceActivity

JITTER_S = 0.04
"""A time stamp that is off by less is ignored: the block follows the last one."""


class Gap(NamedTuple):
    """Samples [start, end) of the stream that never came."""

    start: int
    end: int


class SoundBuffer:
    """The newest samples of a stream, counted from its beginning. `forget` drops the oldest."""

    def __init__(self) -> None:
        self.voice = VoiceActivity()
        # Numbers of samples: received; replaced by silence because they never came; dropped because they came too late.
        self.received = self.lost = self.late = 0
        self._samples = np.zeros(0, np.float32)
        self._kept_from = 0
        self._gaps: deque[Gap] = deque()

    @property
    def end(self) -> int:
        """Number of samples of the stream so far, lost samples included."""
        return self._kept_from + len(self._samples)

    @property
    def end_s(self) -> float:
        return self.end / SAMPLE_RATE_HZ

    def add(self, samples: Samples) -> None:
        """Append samples [S]."""
        if len(samples):
            self._samples = np.concatenate((self._samples, samples))
            self.voice.push(samples)

    def receive(self, samples: Samples, ahead_s: float) -> None:
        """Append samples that begin `ahead_s` after the end. Silence fills a gap; an overlap is cut off."""
        self.received += len(samples)
        if ahead_s > JITTER_S:
            self.lose(round(ahead_s * SAMPLE_RATE_HZ))
        elif ahead_s < -JITTER_S:
            overlap = min(len(samples), round(-ahead_s * SAMPLE_RATE_HZ))
            self.late += overlap
            samples = samples[overlap:]
        self.add(samples)

    def lose(self, count: int) -> None:
        """Append silence in place of `count` samples that did not come."""
        self.lost += count
        # Silence takes the place of lost samples, so that the number of a sample remains its time.
        self._gaps.append(Gap(self.end, self.end + count))
        self.add(np.zeros(count, np.float32))

    def between(self, start: int, end: int) -> Samples:
        """Samples [start, end). None of them may have been dropped by `forget`."""
        return self._samples[start - self._kept_from : end - self._kept_from]

    def lost_share(self, start: int, end: int) -> float:
        """The share of samples [start, end) that never came."""
        lost = sum(max(0, min(gap.end, end) - max(gap.start, start)) for gap in self._gaps)
        return lost / max(1, end - start)

    def forget(self, before: int) -> None:
        """Drop the samples before number `before`."""
        if before > self._kept_from:
            # A slice without a copy would keep the whole array in memory.
            self._samples = self._samples[before - self._kept_from :].copy()
            self._kept_from = before
        while self._gaps and self._gaps[0].end <= before:
            self._gaps.popleft()
