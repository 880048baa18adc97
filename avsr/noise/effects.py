"""Effects of rooms, microphones and transmission on speech: drawn at random but repeatably, and written down.

    effects = parse_effects("reverb@0.5,highpass=100..400,opus=8..24")       # the effects that may occur
    records = draw_effects(effects, draw, impulse_responses)                 # the effects on one utterance
    samples = apply_effects(samples, records, impulse_response)              # one after the other

| effect | value | meaning |
|---|---|---|
| pitch | semitones | a higher or lower voice of the same length |
| reverb | | a measured impulse response, one of the recordings of the kind "rir" |
| room | reverberation time in s, 0.1-0.8 | a shoe-box room by the image method (pyroomacoustics) |
| microphone | dB | a smooth random frequency response within plus or minus this value |
| highpass, lowpass | Hz | band limits; 200 Hz beyond the limit 48 dB are lost |
| clip | dB | samples beyond this many dB below the peak are cut off |
| mulaw, alaw | | telephone: 8 kHz, G.711 |
| opus, mp3 | kbit/s | through the codec and back |
| loss | share, 0-1 | packets of 20 ms are lost, two in a row on average |
| gain | dB | level |

The first three change the voice before noise is added. The others change the mixture, in the order given. Every effect
keeps the length and the timing of the sound. Samples are float32 [S] on the grid of 16-bit sound (multiples of
1 / 32768) before and after each effect, and may exceed 1. All effects but room, opus and mp3 compute with whole
numbers, so that their samples are the same on every machine. Samples of room, opus and mp3 depend on the version and
the machine code of their libraries.
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
from avsr.noise.codecs import through_codec
from avsr.noise.filters import Filter, apply_filter, lowpass_filter, microphone_filter, room_response
from avsr.noise.mixing import FULL_SCALE, linear

Pcm = NDArray[np.float64]

Draw = Callable[..., int]
"""draw(bound, *purpose): a whole number from 0 to bound - 1 that depends on the purpose."""

Record = dict[str, Any]
"""One effect on one utterance: its name under "effect", and every parameter that repeating it needs."""

PACKET_SAMPLES = 320  # 20 ms
_ROOM_SIZES_M = ((3, 8), (3, 8), (2.4, 3.5))
ROOMS = 16  # different rooms for each reverberation time: few, because computing a room takes up to half a second
_STEPS = 1000  # a range is divided into this many steps, and a value is one of them

# The lowest and highest permitted value of each effect.
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
# The range that values are drawn from if the effect is named without a value.
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
    """An effect that may occur, and the range of its value."""

    name: str
    share: float = 1.0
    """Probability that the effect occurs, 0 to 1."""
    low: float | None = None
    """Lowest value; None if the effect has no value, as mulaw."""
    high: float | None = None
    """Highest value; None if the effect has no value."""


def parse_effects(text: str) -> tuple[Effect, ...]:
    """The effects that `text` names, separated by commas: "name", "name=value" or "name=low..high".

    "@share" behind an effect is its probability. Raises ConfigError for an unknown name or a value out of range.
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


def draw_effects(effects: Sequence[Effect], draw: Draw, impulse_responses: Sequence[str] = ()) -> list[Record]:
    """The effects that occur on one utterance, with every parameter that repeating them needs.

    impulse_responses: names that `reverb` chooses from. Raises ConfigError if `reverb` occurs and they are empty.
    """
    records: list[Record] = []
    for index, effect in enumerate(effects):
        # The index too, because an effect may be named twice and should then be drawn twice.
        purpose = (effect.name, index)
        # Shares and values are whole steps: draws are whole numbers, which are the same on every machine.
        if draw(_STEPS, *purpose, "share") >= effect.share * _STEPS:
            continue
        record: Record = {"effect": effect.name}
        if effect.low is not None and effect.high is not None:
            step = draw(_STEPS + 1, *purpose, "value")
            record["value"] = round(effect.low + (effect.high - effect.low) * step / _STEPS, 3)
        match effect.name:
            case "reverb":
                if not impulse_responses:
                    raise ConfigError("no impulse responses for reverb", remedy="give their folder as rir=FOLDER")
                record["rir"] = impulse_responses[draw(len(impulse_responses), *purpose, "rir")]
            case "room":
                record["value"] = round(record["value"], 1)  # few different rooms, which are then computed once
                record["room"] = draw(ROOMS, *purpose, "room")
            case "microphone" | "loss":
                record["seed"] = draw(1 << 62, *purpose, "seed")
        records.append(record)
    return records


def apply_effects(
    samples: Samples,
    records: Sequence[Record],
    impulse_response: Callable[[str], NDArray[np.int16]] | None = None,
) -> Samples:
    """Samples [S] after the recorded effects, in their order.

    impulse_response: returns the samples of the impulse response with a name; `reverb` needs it. Raises DataError for
    an incomplete record and for an impulse response without sound.
    """
    pcm = np.rint(samples.astype(np.float64) * FULL_SCALE)
    for record in records:
        try:
            # Back to whole numbers after each effect: the next filter is exact for whole numbers only.
            pcm = np.rint(_apply(pcm, record, impulse_response))
        except (KeyError, TypeError) as error:
            raise DataError("an effect is incomplete", got=record, expected=f"also {error}") from error
    return (pcm / FULL_SCALE).astype(np.float32)


def _apply(pcm: Pcm, record: Record, impulse_response: Callable[[str], NDArray[np.int16]] | None) -> Pcm:
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
            # What the low-pass takes away from the whole: one design serves both limits, without a shift in time.
            return pcm - apply_filter(pcm, lowpass_filter(round(record["value"])))
        case "lowpass":
            return apply_filter(pcm, lowpass_filter(round(record["value"])))
        case "clip":
            # A whole number, so that clipped samples stay on the 16-bit grid.
            limit = math.floor(float(np.abs(pcm).max(initial=0.0)) * linear(-record["value"]))
            return np.clip(pcm, -limit, limit)
        case "mulaw" | "alaw" as law:
            return telephone(pcm, law)
        case "opus" | "mp3" as codec:
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
    """The impulse response of a random room: its size and the places of talker and microphone are drawn from `room`.

    Image method (Allen and Berkley, JASA 65(4), 1979), computed by pyroomacoustics; all walls absorb alike, by Sabine's
    formula. Raises ConfigError if pyroomacoustics is not installed.
    """
    try:
        import pyroomacoustics
    except ImportError as error:
        raise ConfigError(
            "rooms need pyroomacoustics", got=error, remedy="pip install '.[rooms]', or use reverb with recordings"
        ) from error
    pyroomacoustics.constants.set("num_threads", 1)  # threads would add up in another order
    stream = hashlib.shake_128(f"room/{reverberation_s}/{room}".encode()).digest(36)
    draws = [int.from_bytes(stream[4 * i : 4 * i + 4], "big") / 2**32 for i in range(9)]
    size_m = [round(low + (high - low) * draws[i], 2) for i, (low, high) in enumerate(_ROOM_SIZES_M)]
    # Both stay half a metre away from the walls.
    talker_m, microphone_m = ([round(0.5 + (size_m[i] - 1) * draws[k + i], 2) for i in range(3)] for k in (3, 6))
    try:
        absorption, order = pyroomacoustics.inverse_sabine(reverberation_s, size_m)
    except ValueError:  # no walls make so large a room this dry; these absorb nearly everything
        absorption, order = 0.95, 10
    shoe_box = pyroomacoustics.ShoeBox(
        size_m, fs=SAMPLE_RATE_HZ, materials=pyroomacoustics.Material(absorption), max_order=order
    )
    shoe_box.add_source(talker_m)
    shoe_box.add_microphone(microphone_m)
    shoe_box.compute_rir()
    response = np.asarray(shoe_box.rir[0][0], np.float64)
    # pyroomacoustics delays all sound by half of its fractional delay filter.
    flight_s = math.dist(talker_m, microphone_m) / pyroomacoustics.constants.get("c")
    direct = round(flight_s * SAMPLE_RATE_HZ) + pyroomacoustics.constants.get("frac_delay_length") // 2
    # 16-bit steps are coarse enough to hide the differences between machines in the last bits.
    response = np.rint(response / np.abs(response).max() * 32_767)
    return room_response(np.trim_zeros(response, "b"), direct)


def telephone(pcm: Pcm, law: Literal["mulaw", "alaw"]) -> Pcm:
    """Samples after a G.711 telephone line: 8 kHz, limited to 3.4 kHz, coded in 8 bits."""
    # Every second sample may be dropped once nothing above 4 kHz is left.
    narrow = apply_filter(pcm, lowpass_filter(3400))[::2]
    coded = _g711(law)[np.clip(np.rint(narrow), -32_768, 32_767).astype(np.int64) + 32_768]
    wide = np.zeros(len(pcm))
    # Zeros between the samples halve the level; the factor 2 makes up for it.
    wide[::2] = 2 * coded
    return apply_filter(wide, lowpass_filter(3700))


@functools.cache
def _g711(law: Literal["mulaw", "alaw"]) -> NDArray[np.float64]:
    """The 16-bit value that ITU-T G.711 decodes for each 16-bit value, as the reference code of G.191 does.

    Element k is for the value k - 32768.
    """
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
    """Samples with silence in place of lost packets of 20 ms.

    share: expected share of lost packets, 0 to 0.9. Losses come in runs of two on average: a Markov chain of two states
    (Gilbert, Bell System Technical Journal 39(5), 1960).
    """
    count = -(-len(pcm) // PACKET_SAMPLES)
    stream = hashlib.shake_128(f"loss/{seed}".encode()).digest(4 * count)
    chances = np.frombuffer(stream, ">u4").tolist()
    # Runs of two on average leave with probability 1/2; `fail` follows from the expected share.
    recover, fail = 0.5, 0.5 * share / (1 - share)
    lost, is_lost = np.zeros(count, bool), False
    for packet, chance in enumerate(chances):
        is_lost = chance >= recover * 2**32 if is_lost else chance < fail * 2**32
        lost[packet] = is_lost
    return np.where(np.repeat(lost, PACKET_SAMPLES)[: len(pcm)], 0.0, pcm)


def change_pitch(pcm: Pcm, semitones: float) -> Pcm:
    """The same speech, as long as before, in a higher or lower voice; the formants move with the pitch.

    The speech is played at another speed and then stretched to its old length.
    """
    # A whole ratio, because positions in floats would differ in their last bits.
    thousandths = round(1000 * 2 ** (semitones / 12))
    count = (len(pcm) - 1) * 1000 // thousandths
    if count < 4 * _WINDOW or thousandths == 1000:  # too short to stretch, or no change
        return pcm
    positions = np.arange(count, dtype=np.int64) * thousandths
    before, part = positions // 1000, positions % 1000
    replayed = np.rint((pcm[before] * (1000 - part) + pcm[before + 1] * part) / 1000)
    return stretch(replayed, len(pcm))


_WINDOW = 480  # 30 ms
_HOP = _WINDOW // 2
_SEARCH = 160  # 10 ms, a period of 100 Hz: periods of a lower pitch cannot be aligned


def stretch(pcm: Pcm, count: int) -> Pcm:
    """The same speech in `count` samples with the same pitch: WSOLA (Verhelst and Roelands, ICASSP 1993).

    Segments of 30 ms overlap by half and are faded into each other. A segment is taken up to 10 ms away from its place,
    where it correlates best with the continuation of the segment before it.
    """
    padded = np.concatenate([pcm, np.zeros(2 * _WINDOW + 2 * _SEARCH)])
    fade = np.arange(_HOP) / _HOP
    out = np.zeros(count + 2 * _WINDOW)
    out[:_HOP] = padded[:_HOP]
    position = 0  # of the last segment; only its first half has been written
    for first in range(_HOP, count, _HOP):
        wanted = padded[position + _HOP : position + _WINDOW]
        target = max(0, first * len(pcm) // count - _SEARCH)
        candidates = padded[target : target + 2 * _SEARCH + _HOP]
        position = target + int(np.correlate(candidates, wanted).argmax())
        out[first : first + _HOP] = wanted * (1 - fade) + padded[position : position + _HOP] * fade
    return out[:count]
