"""What one reader may take from one file: a file of few bytes must not cost hours or gigabytes.

Nothing is believed but what the file really holds. The reader may go on in proportion to the bytes of the packets that
it has met, all tracks together, and at most as many as the file has: an edit list can give one packet again and again.

The rates lie above what honest files reach, even where nothing moves and nobody speaks. There the packets are smallest:
sound without a voice takes 20 bytes a second or more, at any codec, and a speaking voice takes 600. A still picture
takes some 30 bytes 25 times a second. A pause without any packets needs no bytes, so it lives from the sound around it:
20 minutes of speech of a recorder that starts by voice (4.75 kbit/s) carry 12 hours of pauses.
"""

from __future__ import annotations

import math

from avsr.errors import MediaError

FREE_S = 300.0
"""So much media time needs no bytes at all."""
BYTES_PER_SECOND = 16
"""Each further second of media time needs this many bytes. Silence in Opus (DTX) takes 20 or more in a container."""

FREE_PIXELS = 4_000_000_000
"""2000 pictures of 1920 x 1080 need no bytes at all."""
PIXELS_PER_BYTE = 100_000
"""A still picture of 1920 x 1080 has 70 000 for each byte. 4K without any movement and without sound may have more: it
shows no lips that move, and is cut."""

FREE_VALUES = 1_000_000_000
"""Samples times channels: 3 hours of stereo at 48 kHz need no bytes at all."""
VALUES_PER_BYTE = 4_000
"""Silence of one channel at 48 kHz with 16 bytes a second has 3000."""


FREE_STEPS = 1_000
"""So many steps of the clock need no bytes. Each costs a search through 1024 packets, which takes a millisecond."""
BYTES_PER_STEP = 2_000
"""Each further step needs this many bytes. A joined clip of 10 s has 6 kB at the lowest bit rates."""


class Budget:
    """Counts what one reader has taken from a file, and says where it must stop.

    max_hours: the longest media time that is read. file_bytes: the size of the file.
    """

    def __init__(self, max_hours: float, file_bytes: int) -> None:
        self._max_hours = max_hours
        self._file_bytes = file_bytes
        self._packet_bytes = 0
        self._pixels = 0
        self._values = 0
        self._steps = 0
        self.is_over = False
        """Whether the reader has met a limit. Nothing more is decoded then."""

    def add_packet(self, size: int) -> None:
        """Count a packet of `size` bytes, of any track."""
        self._packet_bytes += size

    def add_picture(self, width: int, height: int) -> None:
        """Count a decoded picture."""
        self._pixels += width * height

    def add_sound(self, samples: int, channels: int) -> None:
        """Count a decoded piece of sound."""
        self._values += samples * channels

    def take_step(self) -> bool:
        """Whether one more step of the clock may be looked into."""
        self._steps += 1
        return self._steps <= FREE_STEPS + self._bytes / BYTES_PER_STEP

    def refuse_time(self, end_s: float) -> str | None:
        """Why the reader may not go on to `end_s` of media time; None: it may. It is over after a refusal."""
        few = ""
        if end_s > self._max_hours * 3600:
            few = (
                f"it lasts longer than {_clock(int(self._max_hours * 3600))} (h:mm:ss); --max-hours sets another limit"
            )
        elif end_s > FREE_S + self._bytes / BYTES_PER_SECOND:
            few = f"so few bytes ({self._bytes}) hold no more; convert the file to WAV if it is sound"
        self.is_over |= bool(few)
        return few or None

    def refuse_work(self) -> str | None:
        """Why no more packets may be decoded; None: they may. It is over after a refusal."""
        few = ""
        if self._pixels > FREE_PIXELS + PIXELS_PER_BYTE * self._bytes:
            few = f"{self._pixels / 1e9:.1f} billion pixels come from so few bytes ({self._bytes})"
        elif self._values > FREE_VALUES + VALUES_PER_BYTE * self._bytes:
            few = f"{self._values / 1e9:.1f} billion samples come from so few bytes ({self._bytes})"
        self.is_over |= bool(few)
        return few or None

    @property
    def _bytes(self) -> int:
        return min(self._packet_bytes, self._file_bytes)


def check_stated_hours(path: object, stated_s: float | None, max_hours: float) -> None:
    """Raises MediaError if the file states that it lasts longer, before any work is done.

    stated_s: None or an estimate counts as nothing; the reader stops at the limit then.
    """
    if stated_s is None or not stated_s > max_hours * 3600:
        return
    # Rounded up, so that the length that is shown is above the limit, and the number that is shown is enough.
    raise MediaError(
        f"{path}: the recording is too long",
        got=f"{_clock(math.ceil(stated_s))}, as the file states",
        expected=f"at most {_clock(int(max_hours * 3600))} (h:mm:ss)",
        remedy=f"read it with --max-hours {math.ceil(stated_s / 3600)}, or cut it",
    )


def _clock(seconds: int) -> str:
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
