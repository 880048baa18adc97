"""The messages between page and server over the WebSocket `/stream`.

Client to server. The first message is the hello, within a few seconds; sound and pictures follow as they come.

    text    {"type": "hello", "protocol": 1, "token": "...", "video": true}
                                token: if the server needs one; video: whether pictures will come, default true
    binary  1, time, samples    sound: int16, mono, 16 kHz
    binary  2, time, samples    sound: float32 in [-1, 1], mono, 16 kHz
    binary  3, time, picture    one JPEG file
    text    {"type": "stop"}    nothing more comes; the server sends the last words and closes

A binary message is one byte (its kind), a float64 (its time) and the payload, all little-endian. The time is in seconds
on one clock of the client: when the first sample or the picture was recorded. A block of sound is a second at most.

Server to client, JSON texts, each with its kind in "event":

    hello       protocol, version, model, modalities, notice, chunk_ms, look_ahead_ms, latency_ms (of the algorithm),
                video
    partial, final, mode, counters
                as `Event.document()` of `avsr.streaming.events` has them; times are on the client's clock
    lips        a slot of the model: time (seconds from the beginning of the session), present, reason, face, and if
                present png: the grey crop, 96x96, in base64
    status      once a second: seconds, counters, latency_ms, backlog_ms (sound that waits to be recognised)
    error       code, message; the last event before the server closes, unless the client sent a stop

The close code stands for the code of the error (`CLOSE_CODES`); the reason of the close is its message.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from avsr.grid import SAMPLE_RATE_HZ

PROTOCOL = 1
INT16_SOUND, FLOAT32_SOUND, JPEG_PICTURE = 1, 2, 3
MAX_BLOCK_SAMPLES = SAMPLE_RATE_HZ
"""Samples in one message: a second."""

CLOSE_CODES = {
    "stopped": 1000,  # the client sent a stop
    "malformed": 4400,
    "token": 4401,
    "hello": 4408,  # the hello did not come in time
    "idle": 4409,  # neither sound nor pictures came for a while
    "length": 4410,  # the session has reached its longest duration
    "slow": 4411,  # the client does not read the events
    "size": 4413,
    "rate": 4429,
    "fault": 4500,  # an error of the server
    "busy": 4503,  # no session is free
}
"""Close codes of the WebSocket. There are also 1009 for a message too large to be read, and 1012 when the server is
stopped."""

_HEADER = struct.Struct("<Bd")


class RefusalError(Exception):
    """Ends the connection. code: a key of CLOSE_CODES. str() is the reason in one line, which the client gets."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True)
class SoundMessage:
    """A block of sound."""

    time_s: float
    """Time of its first sample, on the client's clock."""
    samples: npt.NDArray[np.float32]
    """float32 [S] in [-1, 1] at 16 kHz."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class PictureMessage:
    """A picture."""

    time_s: float
    """When it was taken, on the client's clock."""
    jpeg: bytes
    """The file as the client sent it, not checked yet."""


@dataclass(frozen=True)
class Hello:
    """The client's first message."""

    token: str
    """"" if the client sent none."""
    video: bool
    """Whether pictures will come."""


def read_media(message: bytes) -> SoundMessage | PictureMessage:
    """Parse a binary message. Raises RefusalError."""
    if len(message) <= _HEADER.size:
        raise RefusalError(
            "malformed", f"binary message of {len(message)} bytes: expected a kind, a time and a payload"
        )
    kind, time_s = _HEADER.unpack_from(message)
    if not math.isfinite(time_s) or abs(time_s) > 1e9:  # beyond, a float64 no longer holds microseconds
        raise RefusalError("malformed", f"time {time_s}: expected seconds")
    payload = message[_HEADER.size :]
    if kind == JPEG_PICTURE:
        return PictureMessage(time_s, payload)
    if kind not in (INT16_SOUND, FLOAT32_SOUND):
        raise RefusalError("malformed", f"binary message of kind {kind}: expected 1, 2 (sound) or 3 (picture)")
    dtype = np.dtype("<i2" if kind == INT16_SOUND else "<f4")
    if len(payload) % dtype.itemsize or len(payload) > MAX_BLOCK_SAMPLES * dtype.itemsize:
        raise RefusalError(
            "malformed", f"block of sound of {len(payload)} bytes: expected whole samples, a second at most"
        )
    samples = np.frombuffer(payload, dtype).astype(np.float32)
    if kind == INT16_SOUND:
        samples /= 32768.0
    elif not np.isfinite(samples).all():
        raise RefusalError("malformed", "block of sound with values that are not finite")
    # Browsers may give float samples beyond full scale; the session expects [-1, 1].
    return SoundMessage(time_s, np.clip(samples, -1.0, 1.0))


def read_hello(text: str) -> Hello:
    """Parse the first message. Raises RefusalError."""
    document = _read_document(text, "hello")
    # A browser may still show a page that an older server sent.
    if document.get("protocol") != PROTOCOL:
        remedy = f'load the page again, or send "protocol": {PROTOCOL} in the hello'
        got = f"{document.get('protocol')!r:.20}"
        what = f"protocol {got}: expected {PROTOCOL}; {remedy}"
        raise RefusalError("malformed", what)
    token, video = document.get("token", ""), document.get("video", True)
    if not isinstance(token, str) or not isinstance(video, bool):
        raise RefusalError("malformed", "hello: expected a text as token, and true or false as video")
    return Hello(token, video)


def read_stop(text: str) -> None:
    """Check a text message after the hello: it must be the stop. Raises RefusalError."""
    _read_document(text, "stop")


def write(document: dict[str, Any]) -> str:
    """A message to the client, as JSON."""
    # A browser's JSON.parse refuses NaN, so an error here is better than a message that breaks the page.
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _read_document(text: str, kind: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    # Deeply nested JSON raises RecursionError.
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("type") != kind:
        raise RefusalError("malformed", f'text message: expected {{"type": "{kind}"}}')
    return document
