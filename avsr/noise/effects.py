"""What rooms, microphones and lines do to speech; chosen at random but repeatably, and written down.

    effects = parse_effects("reverb@0.5,highpass=100..400,opus=8..24")       # what may happen
    records = draw_effects(effects, draw, impulse_responses)                 # what happens to one utterance
    samples = apply_effects(samples, records, impulse_response)              # one after the other

| effect | value | |
|---|---|---|
| pitch | semitones | voice higher or lower, same length |
| reverb | | a measured impulse response, one of the recordings of kind "rir" |
| room | reverberation time in s, 0.1-0.8 | a shoe-box room by the image method (pyroomacoustics) |
| microphone | dB | a smooth frequency response within plus or minus so much |
| highpass, lowpass | Hz | band limits, 48 dB at 200 Hz beyond |
| clip | dB | peaks cut off so far below the loudest |
| mulaw, alaw | | telephone: 8 kHz, G.711 |
| opus, mp3 | kbit/s | through the codec and back |
| loss | share, 0-1 | packets of 20 ms that are lost, two in a row on average |
| gain | dB | level |

The first three happen to the voice, before noise is added, the others to the mixture, in the order given. Sound keeps
its length and its time. Samples are float32 [S] on the grid of 16-bit sound (multiples of 1 / 32768) before and after
each effect, and may exceed 1. All but room, opus and mp3 compute with whole numbers, so that samples are the same on
every machine; those three depend on the versions and the machine code of their libraries.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Samples
from avsr.errors import ConfigError, DataError, nearest
from avsr.grid import SAMPLE_RATE_HZ
from avsr.noise.filters import Filter, apply_filter, lowpass_filter, microphone_filter, room_response
from avsr.noise.mixing import FULL_SCALE, linear

Pcm = NDArray[np.float64]
Draw = Callable[..., int]
"""draw(bound, *purpose): a whole number from 0 to bound - 1 that depends on the purpose."""

PACKET_SAMPLES = 320
_ROOM_SIZES_M = ((3, 8), (3, 8), (2.4, 3.5))
ROOMS = 16  # rooms of one reverberation time; computing one takes up to half a second
_STEPS = 1000  # values are drawn from a range in so many steps

# Lowest and highest value, and what is drawn from without a range.
_LIMITS: dict[str, tuple[float, float]] = {
    "pitch": (-12, 12),
    "room": (0.1, 0.8),
    "microphone": (0, 24),
    "highpass": (20, 4000),
    "lowpass": (500, 7900),
    "clip": (0, 40),
    "opus": (6, 128),
    "mp3": (8, 160),
    "loss": (0, 0.9),
    "gain": (-60, 60),
}
_DEFAULTS: dict[str, tuple[float, float]] = {
    "pitch": (-3, 3),
    "room": (0.2, 0.6),
    "microphone": (6, 6),
    "highpass": (80, 400),
    "lowpass": (2500, 7500),
    "clip": (3, 15),
    "opus": (8, 24),
    "mp3": (16, 48),
    "loss": (0.02, 0.1),
    "gain": (-10, 10),
}
VOICE_EFFECTS = ("pitch", "reverb", "room")
EFFECTS = (*VOICE_EFFECTS, "microphone", "highpass", "lowpass", "clip", "mulaw", "alaw", "opus", "mp3", "loss", "gain")


@dataclasses.dataclass(frozen=True)
class Effect:
    """Something that may happen, with probability `share`, and a value from `low` to `high` where it has one."""

    name: str
    share: float = 1.0
    low: float | None = None
    high: float | None = None


def parse_effects(text: str) -> tuple[Effect, ...]:
    """Effects from "name", "name=value" or "name=low..high", with "@share" behind if not for all, and commas between.

    Raises ConfigError for unknown names and values that make no sense.
    """
    return tuple(_parse_effect(word.strip()) for word in text.split(",") if word.strip())


def _parse_effect(word: str) -> Effect:
    match = re.fullmatch(r"([^=@]+)(?:=([^@]+))?(?:@(.+))?", word)
    name, values, share_text = match.groups() if match else (word, None, None)
    if name not in EFFECTS:
        close = nearest(name, EFFECTS)
        remedy = f"did you mean {close}?" if close else None
        raise ConfigError("unknown effect", got=name, expected=", ".join(EFFECTS), remedy=remedy)
    try:
        share = float(share_text) if share_text is not None else 1.0
        given = [float(value) for value in values.split("..")] if values is not None else []
    except ValueError:
        raise ConfigError("an effect has no number", got=word, expected="name=value@share") from None
    if not 0 <= share <= 1:
        raise ConfigError("the share of an effect is out of range", got=word, expected="0 to 1")
    if name not in _LIMITS:
        if given:
            raise ConfigError("the effect takes no value", got=word, expected=name)
        return Effect(name, share)
    lowest, highest = _LIMITS[name]
    low, high = (given[0], given[-1]) if given else _DEFAULTS[name]
    if len(given) > 2 or not lowest <= low <= high <= highest:
        raise ConfigError("the value of an effect is out of range", got=word, expected=f"{lowest:g} to {highest:g}")
    return Effect(name, share, low, high)


def draw_effects(effects: Sequence[Effect], draw: Draw, impulse_responses: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What happens to one utterance, with all that is needed to repeat it. impulse_responses: names to choose from.

    Raises ConfigError where there is none for `reverb`.
    """
    records: list[dict[str, Any]] = []
    for index, effect in enumerate(effects):
        purpose = (effect.name, index)
        if draw(_STEPS, *purpose, "share") >= effect.share * _STEPS:
            continue
        record: dict[str, Any] = {"effect": effect.name}
        if effect.low is not None and effect.high is not None:
            step = draw(_STEPS + 1, *purpose, "value")
            record["value"] = round(effect.low + (effect.high - effect.low) * step / _STEPS, 3)
        match effect.name:
            case "reverb":
                if not impulse_responses:
                    raise ConfigError("no impulse responses for reverb", remedy="give their folder as rir=FOLDER")
                record["rir"] = impulse_responses[draw(len(impulse_responses), *purpose, "rir")]
            case "room":
                record["value"] = round(record["value"], 1)
                record["room"] = draw(ROOMS, *purpose, "room")
            case "microphone" | "loss":
                record["seed"] = draw(1 << 62, *purpose, "seed")
        records.append(record)
    return records


def apply_effects(
    samples: Samples,
    records: Sequence[dict[str, Any]],
    impulse_response: Callable[[str], NDArray[np.int16]] | None = None,
) -> Samples:
    """Samples [S] after recorded effects, one after the other; impulse_response gives the samples of what `rir` names.

    Raises DataError for records that are not of `draw_effects` and for impulse responses without sound.
    """
    pcm = np.rint(samples.astype(np.float64) * FULL_SCALE)
    for record in records:
        try:
            pcm = np.rint(_apply(pcm, record, impulse_response))
        except (KeyError, TypeError) as error:
            raise DataError("an effect is incomplete", got=record, expected=f"also {error}") from error
    return (pcm / FULL_SCALE).astype(np.float32)


def _apply(pcm: Pcm, record: dict[str, Any], impulse_response: Callable[[str], NDArray[np.int16]] | None) -> Pcm:
    match record["effect"]:
        case "pitch":
            return change_pitch(pcm, record["value"])
        case "reverb":
            if impulse_response is None:
                raise DataError("no impulse responses to take this from", got=record["rir"])
            response = impulse_response(record["rir"])
            return apply_filter(pcm, _response_filter(response.tobytes(), record["rir"]))
        case "room":
            return apply_filter(pcm, room_filter(record["value"], record["room"]))
        case "microphone":
            return apply_filter(pcm, microphone_filter(record["value"], record["seed"]))
        case "highpass":
            return pcm - apply_filter(pcm, lowpass_filter(round(record["value"])))
        case "lowpass":
            return apply_filter(pcm, lowpass_filter(round(record["value"])))
        case "clip":
            limit = math.floor(float(np.abs(pcm).max(initial=0.0)) * linear(-record["value"]))
            return np.clip(pcm, -limit, limit)
        case "mulaw" | "alaw" as law:
            return telephone(pcm, law)
        case "opus" | "mp3" as codec:
            from avsr.noise.codecs import through_codec

            return through_codec(pcm, codec, round(record["value"] * 1000))
        case "loss":
            return lose_packets(pcm, record["value"], record["seed"])
        case "gain":
            return pcm * linear(record["value"])
    raise DataError("unknown effect", got=record["effect"], expected=", ".join(EFFECTS))


@functools.lru_cache(maxsize=64)
def _response_filter(pcm16: bytes, name: str) -> Filter:
    response = np.frombuffer(pcm16, np.int16).astype(np.float64)
    if not response.any():
        raise DataError(f"{name}: the impulse response is digital silence", remedy="leave it out")
    return room_response(response, int(np.abs(response).argmax()))


@functools.lru_cache(maxsize=8 * ROOMS)
def room_filter(reverberation_s: float, room: int) -> Filter:
    """Impulse response of one of the rooms of a reverberation time: size, talker and microphone are drawn.

    Image method (Allen and Berkley, JASA 65(4), 1979) by pyroomacoustics; walls absorb evenly, as Sabine's formula
    says. Raises ConfigError where that package is missing.
    """
    try:
        import pyroomacoustics
    except ImportError as error:
        raise ConfigError(
            "rooms need pyroomacoustics", got=error, remedy="pip install 'avsr[rooms]', or use reverb with recordings"
        ) from error
    pyroomacoustics.constants.set("num_threads", 1)  # sums in the same order everywhere
    stream = hashlib.shake_128(f"room/{reverberation_s}/{room}".encode()).digest(36)
    draws = [int.from_bytes(stream[4 * i : 4 * i + 4], "big") / 2**32 for i in range(9)]
    size_m = [round(low + (high - low) * draws[i], 2) for i, (low, high) in enumerate(_ROOM_SIZES_M)]
    talker_m, ear_m = ([round(0.5 + (size_m[i] - 1) * draws[k + i], 2) for i in range(3)] for k in (3, 6))
    try:
        absorption, order = pyroomacoustics.inverse_sabine(reverberation_s, size_m)
    except ValueError:  # too short a time for so large a room: walls that absorb nearly all
        absorption, order = 0.95, 10
    shoe_box = pyroomacoustics.ShoeBox(
        size_m, fs=SAMPLE_RATE_HZ, materials=pyroomacoustics.Material(absorption), max_order=order
    )
    shoe_box.add_source(talker_m)
    shoe_box.add_microphone(ear_m)
    shoe_box.compute_rir()
    response = np.asarray(shoe_box.rir[0][0], np.float64)
    # The library puts the direct sound where it belongs after half of its fractional delay filter.
    flight_s = math.dist(talker_m, ear_m) / pyroomacoustics.constants.get("c")
    direct = round(flight_s * SAMPLE_RATE_HZ) + pyroomacoustics.constants.get("frac_delay_length") // 2
    response = np.rint(response / np.abs(response).max() * 32_767)  # too coarse for its rounding errors to matter
    return room_response(np.trim_zeros(response, "b"), direct)


def telephone(pcm: Pcm, law: Literal["mulaw", "alaw"]) -> Pcm:
    """Through a G.711 line: every second sample below 3.4 kHz, coded in 8 bits."""
    narrow = apply_filter(pcm, lowpass_filter(3400))[::2]
    coded = _g711(law)[np.clip(np.rint(narrow), -32_768, 32_767).astype(np.int64) + 32_768]
    wide = np.zeros(len(pcm))
    wide[::2] = 2 * coded
    return apply_filter(wide, lowpass_filter(3700))


@functools.cache
def _g711(law: Literal["mulaw", "alaw"]) -> NDArray[np.float64]:
    """What each 16-bit value is after coding and decoding by ITU-T G.711, as in the reference code of G.191."""
    values = np.arange(-32_768, 32_768)
    if law == "mulaw":
        magnitude = np.minimum(np.abs(values), 32_635) + 132
        segment = np.frexp(magnitude)[1] - 8
        mantissa = (magnitude >> (segment + 3)) & 15
        decoded = (((mantissa << 3) + 132) << segment) - 132
    else:
        magnitude = np.where(values < 0, ~values, values) >> 4
        segment = np.maximum(np.frexp(magnitude)[1] - 4, 0)
        mantissa = np.where(segment > 0, (magnitude >> (np.maximum(segment, 1) - 1)) & 15, magnitude & 15)
        decoded = np.where(segment > 0, ((mantissa << 4) + 264) << (np.maximum(segment, 1) - 1), (mantissa << 4) + 8)
    return np.where(values < 0, -decoded, decoded).astype(np.float64)


def lose_packets(pcm: Pcm, share: float, seed: int) -> Pcm:
    """Silence in place of lost packets of 20 ms; losses come in runs of two on average (Gilbert's model)."""
    count = -(-len(pcm) // PACKET_SAMPLES)
    stream = hashlib.shake_128(f"loss/{seed}".encode()).digest(4 * count)
    chances = np.frombuffer(stream, ">u4").tolist()
    recover, fail = 0.5, 0.5 * share / (1 - share)
    lost, is_lost = np.zeros(count, bool), False
    for packet, chance in enumerate(chances):
        is_lost = chance >= recover * 2**32 if is_lost else chance < fail * 2**32
        lost[packet] = is_lost
    return np.where(np.repeat(lost, PACKET_SAMPLES)[: len(pcm)], 0.0, pcm)


def change_pitch(pcm: Pcm, semitones: float) -> Pcm:
    """The same speech in a higher or lower voice, formants moving along: replayed at another speed, then stretched."""
    thousandths = round(1000 * 2 ** (semitones / 12))
    count = (len(pcm) - 1) * 1000 // thousandths
    if count < 4 * _WINDOW or thousandths == 1000:
        return pcm
    positions = np.arange(count, dtype=np.int64) * thousandths
    before, part = positions // 1000, positions % 1000
    replayed = np.rint((pcm[before] * (1000 - part) + pcm[before + 1] * part) / 1000)
    return stretch(replayed, len(pcm))


_WINDOW = 480
_HOP = _WINDOW // 2
_SEARCH = 160  # a period of 100 Hz


def stretch(pcm: Pcm, count: int) -> Pcm:
    """The same speech in `count` samples, its pitch unchanged: WSOLA (Verhelst and Roelands, ICASSP 1993).

    Stretches of 30 ms are taken from where they belong, moved by up to 10 ms to where they fit best to what came
    before, and faded into each other.
    """
    padded = np.concatenate([pcm, np.zeros(2 * _WINDOW + 2 * _SEARCH)])
    fade = np.arange(_HOP) / _HOP
    out = np.zeros(count + 2 * _WINDOW)
    out[:_HOP] = padded[:_HOP]
    position = 0  # of the stretch whose first half has been written
    for first in range(_HOP, count, _HOP):
        wanted = padded[position + _HOP : position + _WINDOW]
        target = max(0, first * len(pcm) // count - _SEARCH)
        candidates = padded[target : target + 2 * _SEARCH + _HOP]
        position = target + int(np.correlate(candidates, wanted).argmax())
        out[first : first + _HOP] = wanted * (1 - fade) + padded[position : position + _HOP] * fade
    return out[:count]
