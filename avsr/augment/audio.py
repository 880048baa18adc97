"""Random changes of sound for training: noise, speed, frequency response.

Samples are float32 [S] at 16 kHz. Random numbers come from the generator that is passed in.
"""

from __future__ import annotations

import numpy as np

from avsr.arrays import Samples
from avsr.grid import SAMPLE_RATE_HZ
from avsr.noise.filters import fast_length
from avsr.noise.mixing import linear, noise_gain_db


def mix_at_snr(speech: Samples, noise: Samples, snr_db: float) -> Samples:
    """Speech plus noise of the same length at `snr_db`, as `avsr.noise.mixing` defines the SNR.

    Unlike `avsr.noise.mixing.mix` it does not turn the sum down, so the sum may exceed full scale. Raises DataError if
    speech or noise is silent.
    """
    gain = np.float32(linear(noise_gain_db(speech, noise, snr_db)))
    return (speech + gain * noise).astype(np.float32)


def change_speed(samples: Samples, factor: float) -> Samples:
    """Samples played faster (factor > 1) or slower. Pitch and formants change too, roughly as with another talker.

    Linear interpolation is 20 times quicker than a windowed sinc, and its aliases are weak for speech.
    """
    positions = np.arange(0.0, len(samples) - 1, factor)
    return np.interp(positions, np.arange(len(samples)), samples).astype(np.float32)


def colour_channel(samples: Samples, depth_db: float, random: np.random.Generator) -> Samples:
    """Samples as from another microphone: a random level within +-depth_db at each octave, linear between.

    The eight octaves go from 62.5 Hz to 8 kHz.
    """
    # A transform of a length with large prime factors takes several times as long.
    padded = fast_length(len(samples))
    spectrum = np.fft.rfft(samples, padded)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(padded, 1 / SAMPLE_RATE_HZ), 62.5) / 62.5)
    response_db = np.interp(octaves, np.arange(8), random.uniform(-depth_db, depth_db, 8))
    return np.fft.irfft(spectrum * 10 ** (response_db / 20), padded)[: len(samples)].astype(np.float32)
