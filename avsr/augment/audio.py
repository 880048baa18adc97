"""What can happen to sound: speed, colour of the channel, loudness, noise.

Sound is float32 [S] at 16 kHz throughout; random numbers come from the generator passed in.
"""

from __future__ import annotations

import numpy as np

from avsr.arrays import Samples
from avsr.grid import SAMPLE_RATE_HZ
from avsr.noise.filters import fast_length
from avsr.noise.mixing import linear, noise_gain_db


def mix_at_snr(speech: Samples, noise: Samples, snr_db: float) -> Samples:
    """Speech plus noise at `snr_db` as `avsr.noise.mixing` defines it, for training: nothing is turned down.

    noise: as long as the speech. Raises DataError when either is silent. The sum may exceed full scale.
    """
    gain = np.float32(linear(noise_gain_db(speech, noise, snr_db)))
    return (speech + gain * noise).astype(np.float32)


def change_speed(samples: Samples, factor: float) -> Samples:
    """Play faster (factor > 1) or slower, pitch and formants moving along: another talker, roughly.

    Linear interpolation: 20 times quicker than a windowed sinc, and the images it leaves are weak for speech.
    """
    positions = np.arange(0.0, len(samples) - 1, factor)
    return np.interp(positions, np.arange(len(samples)), samples).astype(np.float32)


def colour_channel(samples: Samples, depth_db: float, random: np.random.Generator) -> Samples:
    """A random microphone: a smooth frequency response within +-depth_db through seven octave points."""
    padded = fast_length(len(samples))
    spectrum = np.fft.rfft(samples, padded)
    octave = np.log2(np.maximum(np.fft.rfftfreq(padded, 1 / SAMPLE_RATE_HZ), 62.5) / 62.5)
    response_db = np.interp(octave, np.arange(8), random.uniform(-depth_db, depth_db, 8))
    return np.fft.irfft(spectrum * 10 ** (response_db / 20), padded)[: len(samples)].astype(np.float32)
