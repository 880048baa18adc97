"""The sound of a stream: what of it is still needed, and what of it never came."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.grid import HOP_SAMPLES, SAMPLE_RATE_HZ
from avsr.sound.mel import PAST_FRAMES
from avsr.sound.voice import VoiceActivity

JITTER_S = 0.04  # time stamps that are off by less say nothing: samples are counted


class Gap(NamedTuple):
    """Samples [start, end) of the stream that never came."""

    start: int
    end: int


class SoundBuffer:
    """Samples counted from the beginning of the stream; what is kept of them begins at a whole log-mel frame."""

    def __init__(self) -> None:
        self.voice = VoiceActivity()
        self.received = self.lost = self.late = 0
        self._samples = np.zeros(0, np.float32)
        self._kept_from = 0
        self._gaps: deque[Gap] = deque()

    @property
    def end(self) -> int:
        """Samples of the stream so far, lost ones included."""
        return self._kept_from + len(self._samples)

    @property
    def end_s(self) -> float:
        return self.end / SAMPLE_RATE_HZ

    def add(self, samples: NDArray[np.float32]) -> None:
        """Samples [S] that go on where the last ended."""
        if len(samples):
            self._samples = np.concatenate((self._samples, samples))
            self.voice.push(samples)

    def receive(self, samples: NDArray[np.float32], ahead_s: float) -> None:
        """Samples whose first is `ahead_s` after the end: silence fills a gap, an overlap is cut off."""
        self.received += len(samples)
        if ahead_s > JITTER_S:
            self.lose(round(ahead_s * SAMPLE_RATE_HZ))
        elif ahead_s < -JITTER_S:
            overlap = min(len(samples), round(-ahead_s * SAMPLE_RATE_HZ))
            self.late += overlap
            samples = samples[overlap:]
        self.add(samples)

    def lose(self, count: int) -> None:
        """Silence that does not count as heard, in place of samples that did not come."""
        self.lost += count
        self._gaps.append(Gap(self.end, self.end + count))
        self.add(np.zeros(count, np.float32))

    def kept(self) -> tuple[NDArray[np.float32], int]:
        """What is kept, and which log-mel frame it begins with."""
        return self._samples, self._kept_from // HOP_SAMPLES

    def between(self, start: int, end: int) -> NDArray[np.float32]:
        """Samples [start, end), which must be kept."""
        return self._samples[start - self._kept_from : end - self._kept_from]

    def lost_share(self, start: int, end: int) -> float:
        """The share of samples [start, end) that never came."""
        lost = sum(max(0, min(gap.end, end) - max(gap.start, start)) for gap in self._gaps)
        return lost / max(1, end - start)

    def forget(self, mel_frames: int) -> None:
        """Keep what the log-mel frames from `mel_frames` on need."""
        keep_from = max(0, mel_frames - PAST_FRAMES) * HOP_SAMPLES
        if keep_from > self._kept_from:
            self._samples = self._samples[keep_from - self._kept_from :].copy()
            self._kept_from = keep_from
        while self._gaps and self._gaps[0].end <= keep_from:
            self._gaps.popleft()
