"""How much a client may send, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from avsr.serving.protocol import PictureMessage, RefusalError, SoundMessage


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one server grants. A page sends 25 blocks of sound and at most 25 pictures a second; the limits are twice
    what the liveliest honest client does, and bursts allow for one that was held up.

    max_sessions: at once. sessions_per_s: opened. max_minutes: of one session. hello_s: until the first message.
    idle_s: without sound and pictures. clock_slack_s: how far the times of a client may run ahead of or behind the
    time that passes here; a step forward is silence that has to be recognised, so it is as good as sound.
    message_bytes, text_bytes: of one message. burst_s: for how many seconds the rates may be exceeded.
    queued_pictures, queued_sound_s: what waits for the recogniser; the oldest goes first. hurry_s: of waiting sound,
    from which on pictures are dropped unseen. outgoing: words that wait to be sent. write_s: how long a client may
    leave what it is sent unread.
    """

    max_sessions: int = 4
    sessions_per_s: float = 2.0
    max_minutes: float = 60.0
    hello_s: float = 5.0
    idle_s: float = 30.0
    clock_slack_s: float = 10.0
    message_bytes: int = 256 * 1024
    text_bytes: int = 4096
    messages_per_s: float = 200.0
    pictures_per_s: float = 50.0
    sound_per_s: float = 1.25
    burst_s: float = 4.0
    queued_pictures: int = 6
    queued_sound_s: float = 6.0
    hurry_s: float = 0.8
    outgoing: int = 256
    write_s: float = 10.0


class RateLimit:
    """A token bucket: `rate` a second in the long run, and `burst_s` seconds' worth at once."""

    def __init__(self, rate: float, burst_s: float) -> None:
        self._rate, self._most = rate, rate * burst_s
        self._left, self._since_s = self._most, -1.0

    def take(self, amount: float, now_s: float) -> bool:
        """Whether so much may pass now."""
        if self._since_s >= 0:
            self._left = min(self._most, self._left + self._rate * (now_s - self._since_s))
        self._since_s = now_s
        if amount > self._left:
            return False
        self._left -= amount
        return True


class Meter:
    """Watches what one client sends after its hello. Each check raises RefusalError.

    clock: seconds, of any origin.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._messages = RateLimit(limits.messages_per_s, limits.burst_s)
        self._pictures = RateLimit(limits.pictures_per_s, limits.burst_s)
        self._sound = RateLimit(limits.sound_per_s, limits.burst_s)
        self._offset_s: float | None = None  # of the client's clock to ours

    def message(self, size: int, *, is_text: bool) -> None:
        """A message of that many bytes came; before anybody looks into it."""
        most = self._limits.text_bytes if is_text else self._limits.message_bytes
        if size > most:
            raise RefusalError("size", f"message of {size} bytes: expected {most} at most")
        if not self._messages.take(1, self._clock()):
            raise RefusalError("rate", f"more than {self._limits.messages_per_s:.0f} messages a second")

    def media(self, item: SoundMessage | PictureMessage) -> None:
        """Sound or a picture came."""
        now_s = self._clock()
        if isinstance(item, PictureMessage):
            if not self._pictures.take(1, now_s):
                raise RefusalError("rate", f"more than {self._limits.pictures_per_s:.0f} pictures a second")
        elif not self._sound.take(item.seconds, now_s):
            raise RefusalError("rate", "sound faster than it can be spoken: expected a second of it in a second")
        if self._offset_s is None:
            self._offset_s = item.time_s - now_s
        off_s = item.time_s - now_s - self._offset_s
        if abs(off_s) > self._limits.clock_slack_s:
            raise RefusalError(
                "rate", f"times {off_s:+.0f} s off: expected those of a clock that goes at its usual speed"
            )
