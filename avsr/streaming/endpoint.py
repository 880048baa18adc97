"""Where an utterance ends: nothing recognised for a while, and no voice to be heard."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

WINDOW_SAMPLES = 512  # what the detector takes at 16 kHz, 32 ms
VOICE = 0.4  # of the detector's probability
PATIENCE = 3
"""Noise may sound like voices for ever: after so many times the pause, the words decide alone."""


class VoiceActivity:
    """Silero VAD on a stream: when a voice was heard last. Every stream needs one of its own."""

    def __init__(self) -> None:
        from silero_vad import load_silero_vad

        self._model = load_silero_vad()
        self._rest = np.zeros(0, np.float32)
        self._heard_samples = 0
        self.last_voice_s = float("-inf")
        """Seconds of sound pushed when the last voice ended."""

    @torch.inference_mode()
    def push(self, samples: NDArray[np.float32]) -> None:
        """The next samples [S] at 16 kHz."""
        samples = np.concatenate((self._rest, samples))
        whole = len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES
        for start in range(0, whole, WINDOW_SAMPLES):
            window = torch.from_numpy(samples[start : start + WINDOW_SAMPLES])
            self._heard_samples += WINDOW_SAMPLES
            if float(self._model(window, 16_000)) >= VOICE:
                self.last_voice_s = self._heard_samples / 16_000
        self._rest = samples[whole:]


def has_ended(*, blank_s: float, since_voice_s: float, pause_s: float) -> bool:
    """Whether an utterance is over: no unit for `blank_s`, no voice for `since_voice_s`; pause_s: how long it takes."""
    return blank_s >= pause_s * PATIENCE or (blank_s >= pause_s and since_voice_s >= pause_s / 2)
