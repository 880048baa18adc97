"""Voice activity: when somebody last spoke in a stream of sound.

The network is Silero VAD 6 at 16 kHz (https://github.com/snakers4/silero-vad). Its weights come with the package
`silero-vad`. That package itself is not imported: it needs torch, sets the number of torch's threads for the whole
process, and hides the state of its model.

Letters: B windows, S samples, T frames of the spectrum, D width of a layer, K width below it times the taps of its
filter, P parts of the gates.
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
_BLOCK_WINDOWS = 64  # 2 s: their spectra and filters stay in the cache of a core
_PARTS = 8  # of the gates
_LARGEST_PRODUCT = 200_000  # M N K; of the largest matrix these are three rows

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

    weight_KD: Floats
    """[3 x width below, D], the earliest tap first."""
    bias_D: Floats
    stride: int


class VoiceNetwork(NamedTuple):
    """The weights of Silero VAD: a short-time spectrum, four convolutions, an LSTM and the probability of a voice.

    Everything is computed in one thread. OpenBLAS wakes one thread a core for a product of matrices with M N K above
    262,144 and of a matrix and a vector with M N from 9,216 on; the threads spin while they wait for the next one, and
    double the time on two cores. So all products are stacks of smaller ones.
    """

    real_SD: Floats
    """[256, 129]: cosines of 129 bins, times the analysis window."""
    imaginary_SD: Floats
    """[256, 129]: sines."""
    convolutions: tuple[Convolution, ...]
    input_KD: Floats
    """[128, 512]: weights of the input of the LSTM for its gates: input, forget, cell, output."""
    hidden_PDK: Floats
    """[8, 64, 128]: weights of the last output of the LSTM, in 8 parts."""
    lstm_bias_D: Floats
    """[512]. Weights and biases of the sigmoid gates are halved, because sigmoid(x) = (1 + tanh(x / 2)) / 2."""
    out_D: Floats
    """[128]"""
    out_bias: float

    def initial_state(self) -> VoiceState:
        """The state before the first window: silence."""
        return VoiceState(np.zeros(CONTEXT_SAMPLES, np.float32), *np.zeros((2, WIDTH), np.float32))

    def probabilities(self, samples_S: Floats, state: VoiceState) -> tuple[Floats, VoiceState]:
        """The probability, in [0, 1], of a voice in each window of 512 samples, and the state after them.

        samples_S: the next samples, [512 x number of windows]. Any cutting gives the same results within 1e-5.
        """
        blocks = []
        for start in range(0, len(samples_S), _BLOCK_WINDOWS * WINDOW_SAMPLES):
            block_S = samples_S[start : start + _BLOCK_WINDOWS * WINDOW_SAMPLES]
            block_B, state = self._block(block_S, state)
            blocks.append(block_B)
        return np.concatenate([np.zeros(0, np.float32), *blocks]), state

    def _block(self, samples_S: Floats, state: VoiceState) -> tuple[Floats, VoiceState]:
        windows_BS = samples_S.reshape(-1, WINDOW_SAMPLES)
        gates_BD = self._gates(windows_BS, state.context_S)
        outputs_BD = np.empty((len(windows_BS), WIDTH), np.float32)
        hidden_D, cell_D = state.hidden_D, state.cell_D
        # Only this loop depends on the window before. It is written for few calls of numpy.
        for gate_D, output_D in zip(gates_BD, outputs_BD, strict=True):
            gate_D += np.matmul(self.hidden_PDK, hidden_D).ravel()
            np.tanh(gate_D, out=gate_D)
            gate_in_D, gate_forget_D, new_D, gate_out_D = gate_D.reshape(4, WIDTH)
            cell_D = 0.5 * ((1 + gate_forget_D) * cell_D + (1 + gate_in_D) * new_D)
            hidden_D = np.multiply(0.5 + 0.5 * gate_out_D, np.tanh(cell_D), out=output_D)
        logits_B = np.einsum("bd,d->b", np.maximum(outputs_BD, 0), self.out_D) + self.out_bias
        # Copies, because views would keep whole blocks in memory.
        after = VoiceState(samples_S[-CONTEXT_SAMPLES:].copy(), hidden_D.copy(), cell_D)
        return 0.5 + 0.5 * np.tanh(0.5 * logits_B), after

    def _gates(self, windows_BS: Floats, context_S: Floats) -> Floats:
        """What the LSTM adds to its own output in each window: [B, 512]."""
        ends_BS = windows_BS[:, -CONTEXT_SAMPLES:]
        contexts_BS = np.concatenate((context_S[None], ends_BS[:-1]))
        mirrors_BS = windows_BS[:, -2 : -2 - CONTEXT_SAMPLES : -1]
        x_BS = np.concatenate((contexts_BS, windows_BS, mirrors_BS), axis=1)
        frames_BTS = np.lib.stride_tricks.sliding_window_view(x_BS, _STFT_SAMPLES, axis=1)[:, ::_STFT_HOP_SAMPLES]
        real_BTD, imaginary_BTD = _product(frames_BTS, self.real_SD), _product(frames_BTS, self.imaginary_SD)
        x_BTD = np.sqrt(real_BTD * real_BTD + imaginary_BTD * imaginary_BTD)
        for convolution in self.convolutions:
            x_BTD = _convolve(x_BTD, convolution)
        return _product(x_BTD[:, 0], self.input_KD) + self.lstm_bias_D  # one frame is left


def _product(x_K: Floats, weight_KD: Floats) -> Floats:
    """The product of rows of any number of dimensions with a matrix: [..., K] -> [..., D], in one thread."""
    # Windows over an array overlap, and numpy multiplies overlapping rows without OpenBLAS.
    rows_NK = np.ascontiguousarray(x_K).reshape(-1, len(weight_KD))
    count, together = len(rows_NK), _LARGEST_PRODUCT // weight_KD.size
    if missing := -count % together:
        rows_NK = np.concatenate((rows_NK, np.zeros((missing, len(weight_KD)), np.float32)))
    product_ND = np.matmul(rows_NK.reshape(-1, together, len(weight_KD)), weight_KD).reshape(len(rows_NK), -1)
    return product_ND[:count].reshape(*x_K.shape[:-1], -1)


def _convolve(x_BTD: Floats, layer: Convolution) -> Floats:
    """The convolution of x and its rectifier: [B, T, width below] -> [B, ceil(T / stride), D]."""
    batch, frames, width = x_BTD.shape
    padded_BD = np.zeros((batch, (frames + 2) * width), np.float32)
    padded_BD[:, width:-width] = x_BTD.reshape(batch, -1)
    taps_BTK = np.lib.stride_tricks.sliding_window_view(padded_BD, 3 * width, axis=1)[:, :: layer.stride * width]
    y_BTD = _product(taps_BTK, layer.weight_KD)
    y_BTD += layer.bias_D
    return np.maximum(y_BTD, 0, out=y_BTD)


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
        weight_KD = weight_DCK.transpose(2, 1, 0).reshape(-1, len(weight_DCK))
        return Convolution(np.ascontiguousarray(weight_KD), weights[f"{name}.bias"], stride)

    stft_SD = weights["stft_conv.weight"][:, 0].T
    halves_D = np.repeat(np.array([0.5, 0.5, 1, 0.5], np.float32), WIDTH)
    return VoiceNetwork(
        real_SD=np.ascontiguousarray(stft_SD[:, :_BINS]),
        imaginary_SD=np.ascontiguousarray(stft_SD[:, _BINS:]),
        convolutions=(
            convolution("conv1", 1),
            convolution("conv2", 2),
            convolution("conv3", 2),
            convolution("conv4", 1),
        ),
        input_KD=np.ascontiguousarray((halves_D[:, None] * weights["lstm_cell.weight_ih"]).T),
        hidden_PDK=(halves_D[:, None] * weights["lstm_cell.weight_hh"]).reshape(_PARTS, -1, WIDTH),
        lstm_bias_D=halves_D * (weights["lstm_cell.bias_ih"] + weights["lstm_cell.bias_hh"]),
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
        probabilities_B, self._state = self._network.probabilities(samples[:whole], self._state)
        voiced = np.flatnonzero(probabilities_B >= VOICE_FROM)
        if len(voiced):
            last = self._done_samples + (int(voiced[-1]) + 1) * WINDOW_SAMPLES
            self.last_voice_s = last / SAMPLE_RATE_HZ
        self._done_samples += whole
        self._rest = samples[whole:]
