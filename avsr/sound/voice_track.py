"""The probability of a voice in the last seconds of a stream, as a value.

Letters: S samples, B windows of 32 ms.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Samples
from avsr.grid import SAMPLE_RATE_HZ
from avsr.sound.voice import WINDOW_SAMPLES, VoiceState, voice_network

WINDOW_S = WINDOW_SAMPLES / SAMPLE_RATE_HZ


class VoiceTrack(NamedTuple):
    """Methods return the next value and leave this one unchanged. Times are seconds of the stream."""

    state: VoiceState
    rest_S: Samples
    """The last samples, too few for a window."""
    first: int
    """The number of the first window that is kept."""
    voice_B: NDArray[np.float32]
    """The probability of a voice in each window."""

    def heard(self, samples_S: Samples) -> VoiceTrack:
        """The track after these samples."""
        samples_S = np.concatenate((self.rest_S, samples_S))
        whole = len(samples_S) // WINDOW_SAMPLES * WINDOW_SAMPLES
        voice_B, state = voice_network().probabilities(samples_S[:whole], self.state)
        return VoiceTrack(state, samples_S[whole:].copy(), self.first, np.concatenate((self.voice_B, voice_B)))

    def without(self, before_s: float) -> VoiceTrack:
        """The track without the windows that end before this time."""
        drop = min(len(self.voice_B), max(0, int(before_s / WINDOW_S) - self.first))
        return self._replace(first=self.first + drop, voice_B=self.voice_B[drop:].copy())

    def span(self, start_s: float, end_s: float, least: float) -> tuple[float, float] | None:
        """From the first to the last window in [start_s, end_s) with a voice of this probability; None without one."""
        first = max(0, int(start_s / WINDOW_S) - self.first)
        end = max(0, -int(-end_s / WINDOW_S // 1) - self.first)
        voiced = np.flatnonzero(self.voice_B[first:end] >= least)
        if not len(voiced):
            return None
        begin = self.first + first
        return (begin + int(voiced[0])) * WINDOW_S, (begin + int(voiced[-1]) + 1) * WINDOW_S


def initial_voice_track() -> VoiceTrack:
    """The track before the first sample of a stream."""
    return VoiceTrack(voice_network().initial_state(), np.zeros(0, np.float32), 0, np.zeros(0, np.float32))
