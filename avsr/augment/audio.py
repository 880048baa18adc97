"""What can happen to sound: speed, colour of the channel, loudness, noise.

Sound is float32 [S] at 16 kHz throughout; random numbers come from the generator passed in.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from avsr.errors import DataError

Samples = NDArray[np.float32]
NoiseColour = Literal["white", "pink", "brown"]

FRAME_SAMPLES = 320  # 20 ms
ACTIVE_RANGE_DB = 35.0  # frames within this of the loudest count as speech


def active_rms(samples: Samples) -> float:
    """Root mean square over the 20 ms frames within 35 dB of the loudest one: the level of speech without its pauses.

    Raises DataError for an empty or all-zero signal, whose level is undefined.
    """
    if len(samples) == 0:
        raise DataError("the level of an empty signal is undefined")
    whole = samples[: max(1, len(samples) // FRAME_SAMPLES) * FRAME_SAMPLES]
    frames = whole[None] if len(whole) < FRAME_SAMPLES else whole.reshape(-1, FRAME_SAMPLES)
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    loudest = power.max()
    if loudest == 0.0:
        raise DataError("the level of digital silence is undefined", remedy="leave this signal out")
    return math.sqrt(power[power >= loudest * 10 ** (-ACTIVE_RANGE_DB / 10)].mean())


def mix_at_snr(speech: Samples, noise: Samples, snr_db: float) -> Samples:
    """Speech plus noise scaled so that speech-active RMS over noise RMS is `snr_db`; 0.0 means equally loud.

    noise: as long as the speech. Raises DataError when either is silent. Nothing is clipped.
    """
    if len(noise) != len(speech):
        raise DataError("noise does not fit", got=f"{len(noise)} samples", expected=f"{len(speech)}")
    noise_rms = math.sqrt(np.mean(np.square(noise, dtype=np.float64)))
    if noise_rms == 0.0:
        raise DataError("noise is digital silence", remedy="leave this noise out")
    gain = active_rms(speech) / noise_rms * 10 ** (-snr_db / 20)
    return (speech + gain * noise).astype(np.float32)


def coloured_noise(count: int, colour: NoiseColour, random: np.random.Generator) -> Samples:
    """Gaussian noise of unit deviation whose power falls with frequency: not at all, as 1/f, or as 1/f^2."""
    padded = _fast_length(count)
    spectrum = np.fft.rfft(random.standard_normal(padded, np.float32))
    slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[colour]
    frequency = np.maximum(np.arange(len(spectrum)), 1 + padded * 20 / 16_000)  # flat below 20 Hz
    noise = np.fft.irfft(spectrum / frequency**slope, padded)[:count]
    return (noise / noise.std()).astype(np.float32)


def change_speed(samples: Samples, factor: float) -> Samples:
    """Play faster (factor > 1) or slower, pitch and formants moving along: another talker, roughly.

    Linear interpolation: 20 times quicker than a windowed sinc, and the images it leaves are weak for speech.
    """
    positions = np.arange(0.0, len(samples) - 1, factor)
    return np.interp(positions, np.arange(len(samples)), samples).astype(np.float32)


def colour_channel(samples: Samples, depth_db: float, random: np.random.Generator) -> Samples:
    """A random microphone: a smooth frequency response within +-depth_db through seven octave points."""
    padded = _fast_length(len(samples))
    spectrum = np.fft.rfft(samples, padded)
    octave = np.log2(np.maximum(np.fft.rfftfreq(padded, 1 / 16_000), 62.5) / 62.5)
    response_db = np.interp(octave, np.arange(8), random.uniform(-depth_db, depth_db, 8))
    return np.fft.irfft(spectrum * 10 ** (response_db / 20), padded)[: len(samples)].astype(np.float32)


def _fast_length(count: int) -> int:
    """The next multiple of 4096: transforms of prime lengths take ten times as long."""
    return -(-count // 4096) * 4096
