"""Speech from the eSpeak NG library, with the time of every word and phoneme.

The scripts that make synthetic speech share this wrapper; the `avsr` package does not need it. The library comes with
the Debian and Ubuntu package `libespeak-ng1`, the Fedora package `espeak-ng` or the Homebrew formula `espeak-ng`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import dataclasses
import functools
from xml.sax.saxutils import escape

import numpy as np

from avsr.errors import AvsrError

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: espeak_Synth hands every buffer to the callback before it returns
_BUFFER_MS = 10_000  # a sentence in one buffer
_PHONEME_EVENTS, _DONT_EXIT = 0x0001, 0x8000  # espeak_Initialize options
_UTF8, _SSML = 0x0001, 0x0010  # espeak_Synth flags
_EVENT_END_OF_LIST, _EVENT_WORD, _EVENT_END, _EVENT_PHONEME = 0, 1, 5, 7  # espeak_EVENT_TYPE
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7  # espeak_SetParameter


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """A word, or a phoneme by its eSpeak name, from `start` to `end` (seconds)."""

    name: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speech:
    """samples: float32 [S] in [-1, 1]; words and phonemes in order, without the pauses."""

    samples: np.ndarray
    sample_rate: int
    words: tuple[Span, ...]
    phonemes: tuple[Span, ...]


@functools.cache
def _load() -> ctypes.CDLL | None:
    for name in ("libespeak-ng.so.1", ctypes.util.find_library("espeak-ng")):
        try:
            return ctypes.CDLL(name) if name else None
        except OSError:
            continue
    return None


def available() -> bool:
    """True when the library is installed."""
    return _load() is not None


@functools.cache
def _start() -> tuple[ctypes.CDLL, int]:
    """The library, ready to speak, and its sample rate."""
    library = _load()
    if library is None:
        raise AvsrError("the eSpeak NG library is not installed", remedy="apt-get install libespeak-ng1 espeak-ng-data")
    sample_rate = library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, None, _PHONEME_EVENTS | _DONT_EXIT)
    if sample_rate <= 0:
        raise AvsrError("eSpeak NG does not start", got=sample_rate, remedy="apt-get install espeak-ng-data")
    return library, sample_rate


def speak(
    words: list[str],
    *,
    voice: str,
    rate_wpm: int = 175,
    pitch: int = 50,
    pitch_range: int = 50,
    word_gap_ms: int = 0,
    word_rates: list[float] | None = None,
    noise_seed: int = 0,
) -> Speech:
    """`words` said as one sentence by `voice` ("en+f3").

    pitch, pitch_range: 0-100. word_rates: speed of each word, relative to `rate_wpm`. noise_seed: eSpeak draws its
    breath noise from the C library's generator. Still, the samples depend a little on what this process said before.

    Raises AvsrError for an unknown voice, or when eSpeak reads the text as another number of words.
    """
    library, sample_rate = _start()
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise AvsrError("eSpeak NG has no such voice", got=voice, remedy="list them with `espeak-ng --voices=variant`")
    for parameter, value in (
        (_RATE, rate_wpm),
        (_VOLUME, 50),  # at the default of 100 a dozen voices clip
        (_PITCH, pitch),
        (_RANGE, pitch_range),
        (_WORD_GAP, round(word_gap_ms / 10)),
    ):
        library.espeak_SetParameter(parameter, value, 0)

    buffers: list[np.ndarray] = []
    events: list[tuple[int, float, str]] = []

    def receive(samples: ctypes._Pointer, num_samples: int, event: ctypes._Pointer) -> int:
        if num_samples > 0:
            buffers.append(np.ctypeslib.as_array(samples, (num_samples,)).astype(np.float32) / 32768)
        index = 0
        while event[index].type != _EVENT_END_OF_LIST:
            kind = event[index].type
            if kind not in (_EVENT_WORD, _EVENT_PHONEME, _EVENT_END):
                index += 1
                continue
            name = event[index].id.string.decode("utf-8", "replace") if kind == _EVENT_PHONEME else ""
            events.append((kind, event[index].audio_position / 1000, name))
            index += 1
        return 0

    callback = _CALLBACK(receive)
    library.espeak_SetSynthCallback(callback)
    spoken = [escape(word) for word in words]
    if word_rates is not None:
        spoken = [
            f'<prosody rate="{round(100 * rate)}%">{word}</prosody>'
            for word, rate in zip(spoken, word_rates, strict=True)
        ]
    text = f"<speak>{' '.join(spoken)}</speak>".encode()
    ctypes.CDLL(None).srand(noise_seed & 0x7FFFFFFF)
    library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8 | _SSML, None, None)

    samples = np.concatenate(buffers) if buffers else np.zeros(0, np.float32)
    end_s = len(samples) / sample_rate

    def is_sound(event: tuple[int, float, str]) -> bool:
        return event[0] == _EVENT_PHONEME and not event[2].startswith("_")  # names that begin with "_" are pauses

    phonemes: list[Span] = []
    word_starts: list[float] = []
    for index, (kind, start, name) in enumerate(events):
        end = next((time for _, time, _ in events[index + 1 :] if time > start), end_s)
        if is_sound(events[index]):
            phonemes.append(Span(name=name, start=start, end=end))
        elif kind == _EVENT_WORD and any(is_sound(later) for later in events[index + 1 :]):  # one may follow the last
            # Before a vowel the mark comes with the last consonant of the word before, not after it.
            early = bool(phonemes) and phonemes[-1].start == start
            word_starts.append(end if early else start)
    if len(word_starts) != len(words):
        raise AvsrError(f"eSpeak NG read {' '.join(words)!r} differently", got=len(word_starts), expected=len(words))
    spans = []
    for word, start, limit in zip(words, word_starts, [*word_starts[1:], end_s], strict=True):
        inside = [phoneme.end for phoneme in phonemes if start <= phoneme.start < limit]
        spans.append(Span(name=word, start=start, end=max(inside, default=limit)))
    return Speech(samples=samples, sample_rate=sample_rate, words=tuple(spans), phonemes=tuple(phonemes))
