"""Limits for clients: sizes, rates and times."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from avsr.serving.protocol import PictureMessage, RefusalError, SoundMessage


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one server.

    A page sends 50 blocks of sound and at most 25 pictures a second. The rates allow about twice as much, and bursts
    allow for a client that was held up.
    """

    max_sessions: int = 4
    """Sessions at the same time."""
    sessions_per_s: float = 2.0
    """Sessions opened in a second."""
    max_minutes: float = 60.0
    """Length of a session."""
    hello_s: float = 5.0
    """Time until the first message."""
    idle_s: float = 30.0
    """Time without sound and pictures."""
    clock_slack_s: float = 10.0
    """How far a client's time stamps may run ahead of the server's clock, or behind it. A step forward is a gap, which
    is recognised as silence and costs as much work as sound."""
    message_bytes: int = 256 * 1024
    """Size of a binary message."""
    text_bytes: int = 4096
    """Size of a text message."""
    messages_per_s: float = 200.0
    pictures_per_s: float = 50.0
    sound_per_s: float = 1.25
    """Seconds of sound in a second."""
    burst_s: float = 4.0
    """A client that sent less than a rate may exceed it later by this many seconds' worth."""
    queued_pictures: int = 6
    """Pictures that wait to be recognised. Older pictures are dropped."""
    queued_sound_s: float = 6.0
    """Sound that waits to be recognised. Older sound is dropped."""
    hurry_s: float = 0.8
    """If more sound than this waits, all pictures are dropped, so that the sound catches up."""
    outgoing: int = 256
    """Events with words that wait to be sent."""
    write_s: float = 10.0
    """How long a client may leave an event unread."""


class RateLimit:
    """A token bucket: on average `rate` a second, and at most `burst_s` seconds' worth at once."""

    def __init__(self, rate: float, burst_s: float) -> None:
        self._rate, self._most = rate, rate * burst_s
        self._left, self._since_s = self._most, -1.0

    def take(self, amount: float, now_s: float) -> bool:
        """Whether `amount` may pass now."""
        if self._since_s >= 0:
            self._left = min(self._most, self._left + self._rate * (now_s - self._since_s))
        self._since_s = now_s
        if amount > self._left:
            return False
        self._left -= amount
        return True


class Meter:
    """Checks the messages of one client against the limits. Each check raises RefusalError.

    clock: the server's clock in seconds, of any origin.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._messages = RateLimit(limits.messages_per_s, limits.burst_s)
        self._pictures = RateLimit(limits.pictures_per_s, limits.burst_s)
        self._sound = RateLimit(limits.sound_per_s, limits.burst_s)
        self._offset_s: float | None = None  # the first time stamp of the client minus the server's time

    def message(self, size: int, *, is_text: bool) -> None:
        """Check a message of `size` bytes, before it is parsed."""
        most = self._limits.text_bytes if is_text else self._limits.message_bytes
        if size > most:
            raise RefusalError("size", f"message of {size} bytes: expected {most} at most")
        if not self._messages.take(1, self._clock()):
            raise RefusalError("rate", f"more than {self._limits.messages_per_s:.0f} messages a second")

    def media(self, item: SoundMessage | PictureMessage) -> None:
        """Check a block of sound or a picture."""
        now_s = self._clock()
        if isinstance(item, PictureMessage):
            if not self._pictures.take(1, now_s):
                raise RefusalError("rate", f"more than {self._limits.pictures_per_s:.0f} pictures a second")
        elif not self._sound.take(item.seconds, now_s):
            raise RefusalError("rate", "sound faster than it can be spoken: expected a second of it in a second")
        # The client's clock has an origin of its own, so only the drift since its first time stamp can be checked.
        if self._offset_s is None:
            self._offset_s = item.time_s - now_s
        off_s = item.time_s - now_s - self._offset_s
        if abs(off_s) > self._limits.clock_slack_s:
            raise RefusalError(
                "rate", f"times {off_s:+.0f} s off: expected those of a clock that goes at its usual speed"
            )
