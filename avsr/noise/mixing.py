"""Adding noise to speech at an exact level, with the same result on every machine.

    result = mix(speech, noise, 0.0)      # 0 dB; None leaves the speech clean
    result.samples, result.achieved_snr_db, result.gain_db, result.scale_db

Sound is float [S] in [-1, 1] or int16 [S]; the mixture has the kind of the speech (float32 or int16).

Level of speech: root mean square of its active part, the 20 ms frames within 35 dB of the loudest. (STOI drops silent
frames in the same way, at 40 dB: Taal et al., IEEE TASLP 19(7), 2011, section II.) So pauses do not count: a clip with
40 % of silence would otherwise get 2.2 dB less noise than its label says. Level of noise: root mean square of it all.
`level="whole"` counts all of the speech too, as most published protocols do.

Why bytes are the same everywhere: sums of floats depend on their order, which vector instructions change, and powers
and logarithms on the C library. So signals are measured as integers of 20 bits, whose squares and sums float64 holds
exactly (below 2**53), in any order; decibels are computed in decimal arithmetic, which is specified to the last digit;
gains are rounded to 0.001 dB. What is left are single multiplications, additions and roundings, which IEEE 754 fixes.
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
ACTIVE_RANGE_DB = 35.0  # frames within this of the loudest count as speech
FULL_SCALE = 32768.0  # integers of 16-bit sound for 1.0
PEAK_LIMIT = 32767.0  # the loudest a mixture may get, in the same integers

Sound = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.int16]
Level = Literal["active", "whole"]

_GAIN_DIGITS = 3
_SCALE_STEP_DB = decimal.Decimal("0.01")
_BITS = 20
_DECIMAL = decimal.Context(prec=30)
_ACTIVE_POWER = 0.00031622776601683794  # 10 ** (-ACTIVE_RANGE_DB / 10)
# Gains of more than this are noise that consists of rounding errors.
_LARGEST_GAIN_DB = 200
_ROUNDING_ERROR_DB = 0.002
_TOLERANCE_DB = 0.01


class MixResult(NamedTuple):
    """A mixture and how it was made.

    samples: float32 or int16 [S], never beyond full scale. snr_db: what was asked for; None: clean, and the samples are
    the speech itself. achieved_snr_db: measured on `samples`, all rounding included. gain_db: of the noise. scale_db:
    0.0, or what speech and noise together were turned down by because their sum did not fit, which leaves the SNR as
    it is.
    """

    samples: Sound
    snr_db: float | None
    achieved_snr_db: float | None
    gain_db: float | None
    scale_db: float


def mix(speech: Sound, noise: Sound, snr_db: float | None, *, level: Level = "active") -> MixResult:
    """Speech plus noise at `snr_db`: 0.0 means equally loud, None no noise at all.

    speech, noise: of one length, not silent. A sum beyond full scale is turned down as a whole, not clipped. Where
    16-bit rounding adds to the noise, as with faint speech, the gain makes up for it. Raises DataError for silence,
    speech too faint for 0.01 dB in 16 bits, lengths that differ and numbers that are not finite, ValueError for arrays
    of other kinds.
    """
    if snr_db is None:
        _check(speech, "speech")
        return MixResult(speech, None, None, None, 0.0)
    snr_db = float(snr_db)
    gain_db = noise_gain_db(speech, noise, snr_db, level=level)
    result = add_noise(speech, noise, gain_db, level=level, snr_db=snr_db)
    if speech.dtype != np.int16 or _error_db(result) <= _ROUNDING_ERROR_DB:
        return result
    # Rounding to 16 bits makes faint noise louder, or removes it. The more gain, the lower the SNR: search by halves.
    nearest = result
    low, high = (round(1000 * (gain_db + step)) for step in (-20, 20))
    while high - low > 1:
        middle = (low + high) // 2
        result = add_noise(speech, noise, middle / 1000, level=level, snr_db=snr_db)
        nearest = min(nearest, result, key=_error_db)
        achieved_db = math.inf if result.achieved_snr_db is None else result.achieved_snr_db
        low, high = (middle, high) if achieved_db > snr_db else (low, middle)
    if _error_db(nearest) > _TOLERANCE_DB:
        raise DataError(
            "the speech is too faint for this SNR in 16-bit samples",
            got=f"{rms_db(speech, level):.1f} dB of full scale, {snr_db:g} dB above its noise",
            expected=f"an SNR within {_TOLERANCE_DB} dB",
            remedy="leave it out, or mix in floating point",
        )
    return nearest


def noise_gain_db(speech: Sound, noise: Sound, snr_db: float, *, level: Level = "active") -> float:
    """The gain of `noise`, in steps of 0.001 dB, that puts `speech` `snr_db` above it. Raises as `mix`."""
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
    """Speech plus noise times a known gain, as `mix` returns it; achieved_snr_db is None where no noise is left."""
    if len(noise) != len(speech):
        raise DataError("noise does not fit", got=f"{len(noise)} samples", expected=f"{len(speech)}")
    clean, added = _pcm(speech, "speech"), _pcm(noise, "noise") * linear(gain_db)
    is_16_bit = speech.dtype == np.int16
    mixed = clean + (np.rint(added) if is_16_bit else added)
    scale_db = fitting_scale_db(mixed)
    scale = linear(scale_db)
    if scale_db:
        mixed *= scale
    samples: Sound
    samples = np.rint(mixed).astype(np.int16) if is_16_bit else (mixed / FULL_SCALE).astype(np.float32)
    heard = _pcm(samples, "mixture") / scale - clean
    achieved_db = None
    if heard.any():
        achieved_db = round(_decibels(_power(clean, "speech", level) / _power(heard, "noise", "whole")), 4)
    return MixResult(samples, snr_db, achieved_db, gain_db, scale_db)


def _error_db(result: MixResult) -> float:
    if result.achieved_snr_db is None or result.snr_db is None:
        return math.inf
    return abs(result.achieved_snr_db - result.snr_db)


def active_rms(samples: Sound) -> float:
    """Root mean square over the 20 ms frames within 35 dB of the loudest one: the level of speech without its pauses.

    A last frame that is shorter counts with the samples it has. Same unit as the samples. Raises DataError for an empty
    or all-zero signal, whose level is undefined.
    """
    rms = math.sqrt(_power(_pcm(samples, "signal"), "signal", "active"))
    return rms if samples.dtype == np.int16 else rms / FULL_SCALE


def rms_db(samples: Sound, level: Level = "whole") -> float:
    """Level in dB below full scale (1.0 or 32768), in steps of 0.001. Raises DataError for silence."""
    return round(_decibels(_power(_pcm(samples, "signal"), "signal", level) / Fraction(FULL_SCALE) ** 2), _GAIN_DIGITS)


def fitting_scale_db(mixed_pcm: NDArray[np.float64]) -> float:
    """What samples in 16-bit units must be turned down by to fit, in steps of 0.01 dB: 0.0 where they do."""
    peak = float(np.abs(mixed_pcm).max(initial=0.0))
    if peak <= PEAK_LIMIT:
        return 0.0
    excess_db = _DECIMAL.multiply(20, _DECIMAL.log10(_DECIMAL.divide(decimal.Decimal(peak), 32767)))
    return -float(excess_db.quantize(_SCALE_STEP_DB, rounding=decimal.ROUND_CEILING))


@functools.lru_cache(maxsize=4096)
def linear(gain_db: float) -> float:
    """The factor of a gain in dB, the same to the last bit everywhere."""
    return float(_DECIMAL.power(10, _DECIMAL.divide(decimal.Decimal(str(gain_db)), 20)))


def _decibels(power_ratio: Fraction) -> float:
    ratio = _DECIMAL.divide(decimal.Decimal(power_ratio.numerator), decimal.Decimal(power_ratio.denominator))
    return float(_DECIMAL.multiply(10, _DECIMAL.log10(ratio)))


def _power(pcm: NDArray[np.float64], name: str, level: Level) -> Fraction:
    """Mean square of float64 samples, over the active frames or all, exactly (of samples rounded to 20 bits)."""
    if len(pcm) == 0:
        raise DataError(f"the level of an empty {name} is undefined")
    peak = float(np.abs(pcm).max())
    if peak == 0.0:
        if name == "noise":
            raise DataError("noise is digital silence", remedy="leave this noise out")
        raise DataError(f"the level of digital silence is undefined ({name})", remedy="leave this signal out")
    exponent = max(math.frexp(peak)[1] - _BITS, -1000)
    integers = np.rint(pcm * 2.0**-exponent)
    whole = len(integers) // FRAME_SAMPLES * FRAME_SAMPLES
    frames, rest = integers[:whole].reshape(-1, FRAME_SAMPLES), integers[whole:]
    energies = np.append(np.einsum("fs,fs->f", frames, frames), np.dot(rest, rest)).astype(np.int64)
    counts = np.append(np.full(len(frames), FRAME_SAMPLES), len(rest))
    if level == "active":
        active = energies >= energies.max() * _ACTIVE_POWER
        energies, counts = energies[active], counts[active]
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
