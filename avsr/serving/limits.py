"""Limits for clients: sizes, rates and times."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from avsr.serving.protocol import PictureMessage, RefusalError, SoundMessage


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one server.

    A page sends 50 blocks of sound and at most 25 pictures a second. The rates allow about twice as much. The way to
    the server may be held up, and then everything arrives at once. So a client may send as much at once as the rates
    allow in `stall_s`, and only a client that is too fast for longer is refused. What arrives faster than it is
    recognised waits in bounded queues; the oldest is dropped and counted.
    """

    max_sessions: int = 4
    """Sessions at the same time."""
    sessions_per_s: float = 2.0
    """Sessions opened in a second."""
    burst_s: float = 4.0
    """After a pause, as many sessions may be opened at once as the rate allows in this many seconds."""
    max_minutes: float = 60.0
    """Length of a session."""
    hello_s: float = 5.0
    """Time until the first message."""
    idle_s: float = 30.0
    """Time without sound and pictures. A longer stall ends the session."""
    message_bytes: int = 256 * 1024
    """Size of a binary message."""
    text_bytes: int = 4096
    """Size of a text message."""
    messages_per_s: float = 200.0
    pictures_per_s: float = 50.0
    sound_per_s: float = 1.25
    """Seconds of sound in a second. The same holds for silence: a step of the time stamps is a gap, which is
    recognised as silence and costs as much work as sound."""
    stall_s: float = 30.0
    """A client that sent less than a rate may send this many seconds' worth at once. As long as `idle_s`, so that a
    stall never exceeds a rate."""
    queued_pictures: int = 6
    """Pictures that wait to be recognised. Older pictures are dropped."""
    queued_sound_s: float = 16.0
    """Sound that waits to be recognised, 1 MB. Older sound is dropped. Longer than a stall of 15 s."""
    hurry_s: float = 0.8
    """If more sound than this waits, all pictures are dropped, so that the sound catches up."""
    outgoing: int = 256
    """Events with words that wait to be sent."""
    write_s: float = 20.0
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
        self._messages = RateLimit(limits.messages_per_s, limits.stall_s)
        self._pictures = RateLimit(limits.pictures_per_s, limits.stall_s)
        self._sound = RateLimit(limits.sound_per_s, limits.stall_s)
        self._silence = RateLimit(limits.sound_per_s, limits.stall_s)
        self._silent_s = 0.0

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

    def silence(self, total_s: float) -> None:
        """Check the silence that was recognised in place of missing sound, since the session began.

        Steps of a clock are not checked, because a clock may be set and a computer may sleep. Only the work that they
        cause is.
        """
        more_s, self._silent_s = total_s - self._silent_s, total_s
        if not self._silence.take(more_s, self._clock()):
            raise RefusalError(
                "rate",
                "times that run ahead of the sound: expected sound for them, or a clock of usual speed",
            )
