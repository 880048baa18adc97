"""The sound of a stream: the samples that are still needed, and the ones that never came."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from avsr.arrays import Samples
from avsr.grid import SAMPLE_RATE_HZ
from avsr.sound.voice import VoiceActivity

JITTER_S = 0.04  # a time stamp that is off by less says nothing: samples are counted


class Gap(NamedTuple):
    """Samples [start, end) of the stream that never came."""

    start: int
    end: int


class SoundBuffer:
    """Samples counted from the beginning of the stream. Those before `forget` are gone."""

    def __init__(self) -> None:
        self.voice = VoiceActivity()
        self.received = self.lost = self.late = 0
        self._samples = np.zeros(0, np.float32)
        self._kept_from = 0
        self._gaps: deque[Gap] = deque()

    @property
    def end(self) -> int:
        """Number of samples of the stream so far, lost ones included."""
        return self._kept_from + len(self._samples)

    @property
    def end_s(self) -> float:
        return self.end / SAMPLE_RATE_HZ

    def add(self, samples: Samples) -> None:
        """Samples [S] that follow the last ones."""
        if len(samples):
            self._samples = np.concatenate((self._samples, samples))
            self.voice.push(samples)

    def receive(self, samples: Samples, ahead_s: float) -> None:
        """Samples that begin `ahead_s` after the end: silence fills a gap, an overlap is cut off."""
        self.received += len(samples)
        if ahead_s > JITTER_S:
            self.lose(round(ahead_s * SAMPLE_RATE_HZ))
        elif ahead_s < -JITTER_S:
            overlap = min(len(samples), round(-ahead_s * SAMPLE_RATE_HZ))
            self.late += overlap
            samples = samples[overlap:]
        self.add(samples)

    def lose(self, count: int) -> None:
        """Silence in place of samples that did not come. It does not count as heard."""
        self.lost += count
        self._gaps.append(Gap(self.end, self.end + count))
        self.add(np.zeros(count, np.float32))

    def between(self, start: int, end: int) -> Samples:
        """Samples [start, end), which must not be forgotten."""
        return self._samples[start - self._kept_from : end - self._kept_from]

    def lost_share(self, start: int, end: int) -> float:
        """The share of samples [start, end) that never came."""
        lost = sum(max(0, min(gap.end, end) - max(gap.start, start)) for gap in self._gaps)
        return lost / max(1, end - start)

    def forget(self, before: int) -> None:
        """Drop the samples before number `before`."""
        if before > self._kept_from:
            self._samples = self._samples[before - self._kept_from :].copy()
            self._kept_from = before
        while self._gaps and self._gaps[0].end <= before:
            self._gaps.popleft()
