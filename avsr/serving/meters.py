"""How much of the server one connection may use, from its first byte to its close.

`limits.py` limits messages. Below them there is work that is no message: requests, control frames, fragments, bytes
after a refusal. All of it is counted here as bytes, frames and time of the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass

CONTROL_FRAMES_PER_S = 5.0
CONTROL_FRAMES_AT_ONCE = 40
"""Pings, pongs, closes, and fragments without content. A client needs one in 20 s. After a stall, a minute's
worth may come at once."""

REQUEST_LOOP_S = 0.001
"""Time of the event loop that a request over HTTP is taken to cost, beside what its parser is measured to take."""

ADDRESS_LOOP_SHARE, ADDRESS_LOOP_AT_ONCE_S = 0.25, 0.5
"""Time of the event loop for all connections without a session of one address: a part of each second, and at once."""

STRANGERS_LOOP_SHARE, STRANGERS_LOOP_AT_ONCE_S = 0.4, 1.0
"""The same for all connections without a session, of all addresses."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a connection may use: on average in a second, and at once."""

    bytes_per_s: float
    bytes_at_once: float
    frames_per_s: float
    frames_at_once: float
    loop_per_s: float
    """Seconds of the event loop in a second."""
    loop_at_once_s: float


STRANGER = Share(
    bytes_per_s=256 * 1024,
    bytes_at_once=1024 * 1024,
    frames_per_s=10,
    frames_at_once=100,
    loop_per_s=0.05,
    loop_at_once_s=0.1,
)
"""A connection without a session: a browser that loads the page, or a client that has not said hello yet."""

SESSION = Share(
    bytes_per_s=16 * 1024 * 1024,
    bytes_at_once=64 * 1024 * 1024,
    frames_per_s=1000,
    frames_at_once=16000,
    loop_per_s=0.1,
    loop_at_once_s=1.0,
)
"""A connection with a session. A proxy may cut each picture into frames of 4 KiB, which makes about 500 frames a
second. After a stall, the frames of many seconds come at once."""


class Budget:
    """An amount that is spent and grows back: `per_s` a second, up to `at_once`. It may go into debt."""

    def __init__(self, per_s: float, at_once: float) -> None:
        self._per_s, self._at_once = per_s, at_once
        self._left, self._since_s = at_once, float("-inf")

    def spend(self, amount: float, now_s: float) -> bool:
        """Take `amount`, whether it is there or not. Returns whether it was there."""
        left = self._left + self._per_s * (now_s - self._since_s)
        self._left, self._since_s = min(left, self._at_once) - amount, now_s
        return self._left >= 0

    def debt_s(self, now_s: float) -> float:
        """How long it takes to grow back to nothing owed, in seconds; 0 if nothing is owed."""
        return 0.0 if self._left >= 0 else max(0.0, -self._left / self._per_s - (now_s - self._since_s))

    def is_full(self, now_s: float) -> bool:
        """Whether all has grown back."""
        return self._left + self._per_s * (now_s - self._since_s) >= self._at_once


class Usage:
    """What one connection has used of its share."""

    exceeded: str | None = None
    """What it has used too much of; None as long as it is within its share."""

    def __init__(self, share: Share) -> None:
        self._bytes = Budget(share.bytes_per_s, share.bytes_at_once)
        self._frames = Budget(share.frames_per_s, share.frames_at_once)
        self._control = Budget(CONTROL_FRAMES_PER_S, CONTROL_FRAMES_AT_ONCE)
        self._loop = Budget(share.loop_per_s, share.loop_at_once_s)
        self._is_session = share is SESSION

    def take_bytes(self, count: int, now_s: float) -> None:
        """Count bytes."""
        # The bytes of a session cost little beside its messages, which have limits of their own: it is only slowed.
        if not self._bytes.spend(count, now_s) and not self._is_session:
            self.exceeded = "bytes"

    def take_frames(self, count: int, control: int, now_s: float) -> None:
        """Count `count` frames; `control` is how many of them are control frames."""
        if not self._frames.spend(count, now_s) or (control and not self._control.spend(control, now_s)):
            self.exceeded = "frames"

    def take_loop(self, seconds: float, now_s: float) -> None:
        """Count time of the event loop."""
        if not self._loop.spend(seconds, now_s):
            self.exceeded = "loop"

    def wait_s(self, now_s: float) -> float:
        """How long the connection is not to be read."""
        return self._bytes.debt_s(now_s)
