"""The voice detector in numpy against the same network in torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

import avsr
from avsr.errors import AvsrError
from avsr.media import read_audio
from avsr.sound import voice
from avsr.sound.voice import CONTEXT_SAMPLES, WINDOW_SAMPLES, VoiceActivity, voice_network
from tests.tiny import random_samples

BINS = 129


class ReferenceState(NamedTuple):
    """The end of the last window [1, 64], and the two halves of the LSTM [1, 128]."""

    context: Tensor
    hidden: Tensor
    cell: Tensor


class ReferenceNetwork(nn.Module):
    """Silero VAD 6 at 16 kHz, with the layers and names of its published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * BINS, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, window_1S: Tensor, state: ReferenceState) -> tuple[Tensor, ReferenceState]:
        x_11S = F.pad(torch.cat((state.context, window_1S), dim=1), (0, CONTEXT_SAMPLES), "reflect")[:, None]
        real_1FT, imaginary_1FT = self.stft_conv(x_11S).split(BINS, dim=1)
        x_1DT = (real_1FT.square() + imaginary_1FT.square()).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x_1DT = F.relu(layer(x_1DT))
        hidden, cell = self.lstm_cell(x_1DT[:, :, 0], (state.hidden, state.cell))
        probability = torch.sigmoid(self.final_conv(F.relu(hidden)[..., None])).mean()
        return probability, ReferenceState(window_1S[:, -CONTEXT_SAMPLES:].clone(), hidden, cell)


def windows_of(samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return np.split(samples[: len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES], len(samples) // WINDOW_SAMPLES)


@torch.inference_mode()
def by_torch(samples: NDArray[np.float32]) -> list[float]:
    folders = voice.importlib.util.find_spec("silero_vad").submodule_search_locations  # type: ignore[union-attr]
    network = ReferenceNetwork()
    network.load_state_dict(load_file(Path(folders[0], "data", "silero_vad_16k.safetensors")))  # type: ignore[index]
    state = ReferenceState(torch.zeros(1, CONTEXT_SAMPLES), torch.zeros(1, 128), torch.zeros(1, 128))
    probabilities = []
    for window in windows_of(samples):
        probability, state = network(torch.from_numpy(window[None]), state)
        probabilities.append(float(probability))
    return probabilities


@pytest.fixture(scope="module")
def sound() -> NDArray[np.float32]:
    """Speech, noise, faint speech, silence, speech: several blocks of the network."""
    speech = read_audio(Path(avsr.__file__).parent / "assets" / "demo.mp4")
    samples = np.concatenate((speech, random_samples(1.0), speech * 0.01, np.zeros(8000, np.float32), speech))
    return samples[: len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES]


def test_probabilities_equal_the_network_in_torch(sound: NDArray[np.float32]) -> None:
    network = voice_network()
    probabilities, _ = network.probabilities(sound, network.initial_state())
    expected = by_torch(sound)
    assert max(expected) > 0.9 and min(expected) < 0.1
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("windows", [1, 3, 70])
def test_any_cutting_gives_the_same_probabilities(windows: int, sound: NDArray[np.float32]) -> None:
    network = voice_network()
    whole, last = network.probabilities(sound, network.initial_state())
    state, parts = network.initial_state(), []
    for start in range(0, len(sound), windows * WINDOW_SAMPLES):
        part, state = network.probabilities(sound[start : start + windows * WINDOW_SAMPLES], state)
        parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-5)
    for part, expected in zip(state, last, strict=True):
        np.testing.assert_allclose(part, expected, rtol=0, atol=1e-4)


def test_the_state_is_left_untouched() -> None:
    network = voice_network()
    window = random_samples(0.1)[:WINDOW_SAMPLES]
    _, state = network.probabilities(window, network.initial_state())
    before = [part.copy() for part in state]
    first, second = network.probabilities(window, state), network.probabilities(window, state)
    assert first[0] == second[0]
    window[:] = 0.0  # the caller reuses its buffer
    for part, copy in zip(state, before, strict=True):
        np.testing.assert_array_equal(part, copy)


def test_without_the_weights_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    voice_network.cache_clear()
    monkeypatch.setattr(voice.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AvsrError, match="voice detector are missing; pip install 'silero-vad"):
        VoiceActivity()
