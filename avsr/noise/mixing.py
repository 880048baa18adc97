"""Add noise to speech at an exact signal-to-noise ratio, with the same result on every machine.

    result = mix(speech, noise, 0.0)      # 0 dB; None leaves the speech clean
    result.samples, result.achieved_snr_db, result.gain_db, result.scale_db

Sound is float [S] in [-1, 1] or int16 [S]. The mixture is int16 if the speech is int16, and float32 otherwise.

The level of speech is the root mean square of its active part: the 20 ms frames within 35 dB of the loudest frame.
(STOI drops silent frames in the same way, at 40 dB: Taal et al., IEEE TASLP 19(7), 2011, section II.) Pauses therefore
do not count. If they did, a clip with 40 % of silence would get 2.2 dB less noise than its label says. The level of
noise is the root mean square of all its samples. `level="whole"` counts the pauses of the speech too, as most published
protocols do.

Why the bytes are the same everywhere: a sum of floats depends on the order of its terms, which vector instructions
change, and powers and logarithms depend on the C library. Levels are therefore measured on integers of 20 bits: float64
holds their squares and sums exactly (below 2**53), in any order. Decibels are computed in decimal arithmetic, which is
specified to the last digit, and gains are rounded to 0.001 dB. The remaining steps are single multiplications,
additions and roundings, which IEEE 754 defines exactly.
"""

from __future__ import annotations

import decimal
import functools
import math
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.errors import DataError

FRAME_SAMPLES = 320  # 20 ms
ACTIVE_RANGE_DB = 35.0  # a frame is active speech if its level is within this range of the loudest frame
FULL_SCALE = 32768.0  # the float sample 1.0 in 16-bit units
PEAK_LIMIT = 32767.0  # the largest sample of a mixture in 16-bit units

Sound = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.int16]

Level = Literal["active", "whole"]
"""How the level of speech is measured: on its active frames, or on all samples."""

_GAIN_DIGITS = 3
_SCALE_STEP_DB = decimal.Decimal("0.01")
_BITS = 20
_DECIMAL = decimal.Context(prec=30)
_ACTIVE_POWER = 0.00031622776601683794  # 10 ** (-ACTIVE_RANGE_DB / 10)
_LARGEST_GAIN_DB = 200  # a signal that needs more gain consists of rounding errors
_ROUNDING_ERROR_DB = 0.002
_TOLERANCE_DB = 0.01


class MixResult(NamedTuple):
    """A mixture and how it was made."""

    samples: Sound
    """float32 or int16 [S], never beyond full scale. For clean speech it is the array that was passed in."""
    snr_db: float | None
    """The requested SNR; None is clean."""
    achieved_snr_db: float | None
    """The SNR measured on `samples`, with all rounding; None if `samples` contain no noise."""
    gain_db: float | None
    """Gain of the noise; None for clean."""
    scale_db: float
    """Gain of speech and noise together, negative if their sum did not fit into full scale, else 0.0."""


def mix(speech: Sound, noise: Sound, snr_db: float | None, *, level: Level = "active") -> MixResult:
    """Speech plus noise at `snr_db`. 0.0 makes both equally loud; None returns the speech without noise.

    Speech and noise have the same length, and neither is silent. If the sum exceeds full scale, all of it is turned
    down, and nothing is clipped. If 16-bit rounding changes the noise, as with faint speech, the gain corrects for
    it.

    Raises DataError if speech or noise is silent, if their lengths differ, if samples are not finite, or if the speech
    is too faint to reach the SNR within 0.01 dB in 16 bits. Raises ValueError for arrays of another type or shape.
    """
    if snr_db is None:
        _check(speech, "speech")
        return MixResult(speech, None, None, None, 0.0)
    snr_db = float(snr_db)
    gain_db = noise_gain_db(speech, noise, snr_db, level=level)
    result = add_noise(speech, noise, gain_db, level=level, snr_db=snr_db)
    if speech.dtype != np.int16 or _error_db(result) <= _ROUNDING_ERROR_DB:
        return result
    # Rounding to 16 bits makes faint noise louder or removes it. A higher gain lowers the SNR, so bisection finds the
    # gain, here in thousandths of a decibel, that gives the requested SNR after rounding.
    nearest = result
    low, high = (round(1000 * (gain_db + step)) for step in (-20, 20))
    while high - low > 1:
        middle = (low + high) // 2
        result = add_noise(speech, noise, middle / 1000, level=level, snr_db=snr_db)
        nearest = min(nearest, result, key=_error_db)
        is_too_quiet = result.achieved_snr_db is None or result.achieved_snr_db > snr_db  # None: rounding removed it
        low, high = (middle, high) if is_too_quiet else (low, middle)
    if _error_db(nearest) > _TOLERANCE_DB:
        raise DataError(
            "the speech is too faint for this SNR in 16-bit samples",
            got=f"{rms_db(speech, level):.1f} dB of full scale, {snr_db:g} dB above its noise",
            expected=f"an SNR within {_TOLERANCE_DB} dB",
            remedy="leave it out, or mix in floating point",
        )
    return nearest


def noise_gain_db(speech: Sound, noise: Sound, snr_db: float, *, level: Level = "active") -> float:
    """The gain of `noise` in steps of 0.001 dB that gives the SNR `snr_db`. Raises the same errors as `mix`."""
    if not math.isfinite(snr_db):
        raise ValueError(f"the SNR is not finite: got {snr_db}; for no noise give None")
    if len(noise) != len(speech):
        raise DataError("noise does not fit", got=f"{len(noise)} samples", expected=f"{len(speech)}")
    speech_power = _power(_pcm(speech, "speech"), "speech", level)
    noise_power = _power(_pcm(noise, "noise"), "noise", "whole")
    gain_db = round(_decibels(speech_power / noise_power) - snr_db, _GAIN_DIGITS)
    if abs(gain_db) > _LARGEST_GAIN_DB:
        raise DataError(
            "speech and noise are too far apart in level",
            got=f"a gain of {gain_db:.0f} dB",
            expected=f"at most {_LARGEST_GAIN_DB} dB",
            remedy="one of them is practically silent: leave it out",
        )
    return gain_db


def add_noise(
    speech: Sound, noise: Sound, gain_db: float, *, level: Level = "active", snr_db: float | None = None
) -> MixResult:
    """Speech plus noise with a known gain. Raises the same errors as `mix`.

    level: how `achieved_snr_db` of the result is measured.
    snr_db: the requested SNR, copied into the result.
    """
    if len(noise) != len(speech):
        raise DataError("noise does not fit", got=f"{len(noise)} samples", expected=f"{len(speech)}")
    clean, scaled_noise = _pcm(speech, "speech"), _pcm(noise, "noise") * linear(gain_db)
    is_16_bit = speech.dtype == np.int16
    mixed = clean + (np.rint(scaled_noise) if is_16_bit else scaled_noise)
    scale_db = fitting_scale_db(mixed)
    scale = linear(scale_db)
    if scale_db:
        mixed *= scale
    samples: Sound
    samples = np.rint(mixed).astype(np.int16) if is_16_bit else (mixed / FULL_SCALE).astype(np.float32)
    # The noise in the result is what the result has beyond the speech, including the rounding of both.
    achieved_noise = _pcm(samples, "mixture") / scale - clean
    achieved_db = None
    if achieved_noise.any():
        achieved_db = round(_decibels(_power(clean, "speech", level) / _power(achieved_noise, "noise", "whole")), 4)
    return MixResult(samples, snr_db, achieved_db, gain_db, scale_db)


def _error_db(result: MixResult) -> float:
    """How far a result is from its requested SNR."""
    if result.achieved_snr_db is None or result.snr_db is None:
        return math.inf  # rounding removed all noise: any result with noise is nearer
    return abs(result.achieved_snr_db - result.snr_db)


def active_rms(samples: Sound) -> float:
    """The level of speech without its pauses: the root mean square of the 20 ms frames within 35 dB of the loudest.

    The result has the unit of the samples. An incomplete last frame counts with its samples. Raises DataError for an
    empty or all-zero signal, because its level is undefined.
    """
    rms = math.sqrt(_power(_pcm(samples, "signal"), "signal", "active"))
    return rms if samples.dtype == np.int16 else rms / FULL_SCALE


def rms_db(samples: Sound, level: Level = "whole") -> float:
    """Level in dB relative to full scale (1.0 or 32768), in steps of 0.001. Raises DataError for silence."""
    return round(_decibels(_power(_pcm(samples, "signal"), "signal", level) / Fraction(FULL_SCALE) ** 2), _GAIN_DIGITS)


def fitting_scale_db(mixed_pcm: NDArray[np.float64]) -> float:
    """The gain in steps of 0.01 dB that makes samples in 16-bit units fit into 16 bits: 0.0 if they fit already."""
    peak = float(np.abs(mixed_pcm).max(initial=0.0))
    if peak <= PEAK_LIMIT:
        return 0.0
    excess_db = _DECIMAL.multiply(20, _DECIMAL.log10(_DECIMAL.divide(decimal.Decimal(peak), 32767)))
    # Rounded up, so that the peak certainly fits.
    return -float(excess_db.quantize(_SCALE_STEP_DB, rounding=decimal.ROUND_CEILING))


@functools.lru_cache(maxsize=4096)
def linear(gain_db: float) -> float:
    """The factor of a gain in dB, the same to the last bit on every machine."""
    # `str` gives the decimal digits that a plan has, without the tail of the binary form.
    return float(_DECIMAL.power(10, _DECIMAL.divide(decimal.Decimal(str(gain_db)), 20)))


def _decibels(power_ratio: Fraction) -> float:
    ratio = _DECIMAL.divide(decimal.Decimal(power_ratio.numerator), decimal.Decimal(power_ratio.denominator))
    return float(_DECIMAL.multiply(10, _DECIMAL.log10(ratio)))


def _power(pcm: NDArray[np.float64], name: str, level: Level) -> Fraction:
    """The mean square of the active frames or of all samples. Samples are rounded to 20 bits; the rest is exact."""
    if len(pcm) == 0:
        raise DataError(f"the level of an empty {name} is undefined")
    peak = float(np.abs(pcm).max())
    if peak == 0.0:
        if name == "noise":
            raise DataError("noise is digital silence", remedy="leave this noise out")
        raise DataError(f"the level of digital silence is undefined ({name})", remedy="leave this signal out")
    # The peak gets all 20 bits, so that faint sound is measured as exactly as loud sound.
    exponent = max(math.frexp(peak)[1] - _BITS, -1000)
    integers = np.rint(pcm * 2.0**-exponent)
    whole = len(integers) // FRAME_SAMPLES * FRAME_SAMPLES
    frames, rest = integers[:whole].reshape(-1, FRAME_SAMPLES), integers[whole:]
    energies = np.append(np.einsum("fs,fs->f", frames, frames), np.dot(rest, rest)).astype(np.int64)
    counts = np.append(np.full(len(frames), FRAME_SAMPLES), len(rest))
    if level == "active":
        active = energies >= energies.max() * _ACTIVE_POWER
        energies, counts = energies[active], counts[active]
    # Python's integers have no upper bound, however long the recording is.
    energy = sum(energies.tolist())
    return Fraction(energy, int(counts.sum())) * Fraction(4) ** exponent


def _check(samples: Sound, name: str) -> None:
    if not isinstance(samples, np.ndarray) or samples.dtype not in (np.int16, np.float32, np.float64):
        kind = getattr(samples, "dtype", type(samples).__name__)
        raise ValueError(f"{name}: got {kind}, expected an array of float32, float64 or int16")
    if samples.ndim != 1:
        raise ValueError(f"{name}: got the shape {samples.shape}, expected one dimension, mono")


def _pcm(samples: Sound, name: str) -> NDArray[np.float64]:
    """Samples in units of 16-bit sound, float64, not rounded."""
    _check(samples, name)
    if samples.dtype == np.int16:
        return samples.astype(np.float64)
    if not np.isfinite(samples).all():
        raise DataError(f"{name} has samples that are not finite", remedy="check where it comes from")
    return samples.astype(np.float64) * FULL_SCALE
