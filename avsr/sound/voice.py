"""Where an utterance ends: nothing recognised for a while, and no voice to be heard.

Whether there is a voice is what Silero VAD says, a small network whose weights come with the package `silero-vad`. They
are run here and not by that package: importing it sets the number of torch's threads for the whole process, and its
model hides its state.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from avsr.errors import AvsrError
from avsr.grid import SAMPLE_RATE_HZ

WINDOW_SAMPLES = 512  # 32 ms: what the network takes at a time,
CONTEXT_SAMPLES = 64  # and what of the window before
BINS = 129
VOICE = 0.4  # of the probability


class VoiceState(NamedTuple):
    """The past of one stream: the end of the last window [1, 64], and the two halves of the LSTM [1, 128]."""

    context: Tensor
    hidden: Tensor
    cell: Tensor


class VoiceNetwork(nn.Module):
    """Silero VAD 6 at 16 kHz: a fixed short-time spectrum, four convolutions, an LSTM cell, and the probability."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * BINS, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def initial_state(self) -> VoiceState:
        return VoiceState(torch.zeros(1, CONTEXT_SAMPLES), torch.zeros(1, 128), torch.zeros(1, 128))

    def forward(self, window_1S: Tensor, state: VoiceState) -> tuple[Tensor, VoiceState]:
        """One window [1, 512] -> the probability of a voice in it, and the next state."""
        x_11S = F.pad(torch.cat((state.context, window_1S), dim=1), (0, CONTEXT_SAMPLES), "reflect")[:, None]
        real_1FT, imaginary_1FT = self.stft_conv(x_11S).split(BINS, dim=1)
        x_1DT = (real_1FT.square() + imaginary_1FT.square()).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x_1DT = F.relu(layer(x_1DT))
        hidden, cell = self.lstm_cell(x_1DT[:, :, 0], (state.hidden, state.cell))
        probability = torch.sigmoid(self.final_conv(F.relu(hidden)[..., None])).mean()
        return probability, VoiceState(window_1S[:, -CONTEXT_SAMPLES:].clone(), hidden, cell)


@functools.cache
def voice_network() -> VoiceNetwork:
    """The one network of all streams. Raises AvsrError where its weights are not there."""
    spec = importlib.util.find_spec("silero_vad")  # does not import it
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    path = Path(folders[0], "data", "silero_vad_16k.safetensors") if folders else None
    if path is None or not path.is_file():
        raise AvsrError("the weights of the voice detector are missing", remedy="pip install 'silero-vad>=6.2,<7'")
    network = VoiceNetwork()
    network.load_state_dict(load_file(path))
    return network.eval()


class VoiceActivity:
    """When a voice was heard last in a stream of sound."""

    def __init__(self) -> None:
        self._network = voice_network()
        self._state = self._network.initial_state()
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
            window_1S = torch.from_numpy(samples[None, start : start + WINDOW_SAMPLES])
            probability, self._state = self._network(window_1S, self._state)
            self._heard_samples += WINDOW_SAMPLES
            if float(probability) >= VOICE:
                self.last_voice_s = self._heard_samples / SAMPLE_RATE_HZ
        self._rest = samples[whole:]
