"""Voice activity: when somebody last spoke in a stream of sound.

The network is Silero VAD 6 at 16 kHz (https://github.com/snakers4/silero-vad). Its weights come with the package
`silero-vad`. That package itself is not imported: it needs torch, sets the number of torch's threads for the whole
process, and hides the state of its model.

Letters: S samples, T frames of the spectrum, D width of a layer, K taps of a filter times the width below it.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from avsr.errors import AvsrError
from avsr.grid import SAMPLE_RATE_HZ

WINDOW_SAMPLES = 512
"""32 ms: one step of the network."""
CONTEXT_SAMPLES = 64
"""4 ms: samples of the window before that the network reads again."""
WIDTH = 128
"""Width of the LSTM."""
VOICE_FROM = 0.4
"""A window holds a voice if its probability reaches this."""

_STFT_SAMPLES = 256
_STFT_HOP_SAMPLES = 128
_BINS = _STFT_SAMPLES // 2 + 1

Floats = NDArray[np.float32]


class VoiceState(NamedTuple):
    """What the network remembers of one stream."""

    context_S: Floats
    """[64]: the end of the last window."""
    hidden_D: Floats
    """[128]: the output of the LSTM."""
    cell_D: Floats
    """[128]: the memory of the LSTM."""


class Convolution(NamedTuple):
    """A convolution over time with three taps and one frame of padding on either side."""

    weight_DK: Floats
    """[D, 3 x width below], the earliest tap first."""
    bias_D: Floats
    stride: int


class VoiceNetwork(NamedTuple):
    """The weights of Silero VAD: a short-time spectrum, four convolutions, an LSTM and the probability of a voice.

    All products are `numpy.einsum`, in one thread. Matrix products wake one thread a core for microseconds of work,
    and these spin while they wait.
    """

    stft_DS: Floats
    """[258, 256]: the real parts of 129 bins, then the imaginary parts, times the analysis window."""
    convolutions: tuple[Convolution, ...]
    lstm_DK: Floats
    """[512, 256]: input, forget, cell and output gate, for the input of the LSTM beside its last output."""
    lstm_bias_D: Floats
    """[512]"""
    out_D: Floats
    """[128]"""
    out_bias: float

    def initial_state(self) -> VoiceState:
        """The state before the first window: silence."""
        return VoiceState(np.zeros(CONTEXT_SAMPLES, np.float32), *np.zeros((2, WIDTH), np.float32))

    def step(self, window_S: Floats, state: VoiceState) -> tuple[float, VoiceState]:
        """The probability, in [0, 1], of a voice in the next window [512], and the next state."""
        x_S = np.concatenate((state.context_S, window_S, window_S[-2 : -2 - CONTEXT_SAMPLES : -1]))  # mirrored end
        frames_TS = np.lib.stride_tricks.sliding_window_view(x_S, _STFT_SAMPLES)[::_STFT_HOP_SAMPLES]
        spectrum_TD = np.einsum("ts,ds->td", frames_TS, self.stft_DS)
        x_TD = np.hypot(spectrum_TD[:, :_BINS], spectrum_TD[:, _BINS:])
        for convolution in self.convolutions:
            x_TD = _convolve(x_TD, convolution)
        x_K = np.concatenate((x_TD[0], state.hidden_D))
        gates_D = np.einsum("dk,k->d", self.lstm_DK, x_K) + self.lstm_bias_D
        gate_in_D, gate_forget_D, new_D, gate_out_D = np.split(gates_D, 4)
        cell_D = _sigmoid(gate_forget_D) * state.cell_D + _sigmoid(gate_in_D) * np.tanh(new_D)
        hidden_D = _sigmoid(gate_out_D) * np.tanh(cell_D)
        probability = float(_sigmoid(np.maximum(hidden_D, 0) @ self.out_D + self.out_bias))
        # A copy, because a view would keep the caller's whole array in memory.
        return probability, VoiceState(window_S[-CONTEXT_SAMPLES:].copy(), hidden_D, cell_D)


def _convolve(x_TD: Floats, layer: Convolution) -> Floats:
    """The convolution of x and its rectifier: [T, width below] -> [ceil(T / stride), D]."""
    frames, width = x_TD.shape
    padded_D = np.zeros((frames + 2) * width, np.float32)
    padded_D[width:-width] = x_TD.ravel()
    taps_TK = np.lib.stride_tricks.sliding_window_view(padded_D, 3 * width)[:: layer.stride * width]
    return np.maximum(np.einsum("tk,dk->td", taps_TK, layer.weight_DK) + layer.bias_D, 0)


def _sigmoid(x: Floats) -> Floats:
    return 0.5 + 0.5 * np.tanh(0.5 * x)  # overflows nowhere


@functools.cache
def voice_network() -> VoiceNetwork:
    """The one network of all streams. Raises AvsrError if its weights are not installed."""
    spec = importlib.util.find_spec("silero_vad")  # finds the package without importing it
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    path = Path(folders[0], "data", "silero_vad_16k.safetensors") if folders else None
    if path is None or not path.is_file():
        raise AvsrError("the weights of the voice detector are missing", remedy="pip install 'silero-vad>=6.2,<7'")
    weights = load_file(path)

    def convolution(name: str, stride: int) -> Convolution:
        weight_DCK = weights[f"{name}.weight"]
        # Taps by channels, so that a window of consecutive frames in memory is one row of a product.
        by_tap = np.ascontiguousarray(weight_DCK.transpose(0, 2, 1)).reshape(len(weight_DCK), -1)
        return Convolution(by_tap, weights[f"{name}.bias"], stride)

    return VoiceNetwork(
        stft_DS=weights["stft_conv.weight"][:, 0],
        convolutions=(
            convolution("conv1", 1),
            convolution("conv2", 2),
            convolution("conv3", 2),
            convolution("conv4", 1),
        ),
        lstm_DK=np.concatenate((weights["lstm_cell.weight_ih"], weights["lstm_cell.weight_hh"]), axis=1),
        lstm_bias_D=weights["lstm_cell.bias_ih"] + weights["lstm_cell.bias_hh"],
        out_D=weights["final_conv.weight"][0, :, 0],
        out_bias=float(weights["final_conv.bias"][0]),
    )


class VoiceActivity:
    """Follows one stream of sound and knows when a voice last ended in it."""

    def __init__(self) -> None:
        self._network = voice_network()
        self._state = self._network.initial_state()
        self._rest = np.zeros(0, np.float32)  # shorter than a window
        self._done_samples = 0
        self.last_voice_s = float("-inf")
        """Seconds from the start of the stream to the end of its last window with a voice; -inf before the first."""

    def push(self, samples: Floats) -> None:
        """Take in the next samples [S] at 16 kHz, any number of them."""
        samples = np.concatenate((self._rest, samples))
        whole = len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES
        for start in range(0, whole, WINDOW_SAMPLES):
            probability, self._state = self._network.step(samples[start : start + WINDOW_SAMPLES], self._state)
            self._done_samples += WINDOW_SAMPLES
            if probability >= VOICE_FROM:
                self.last_voice_s = self._done_samples / SAMPLE_RATE_HZ
        self._rest = samples[whole:]
