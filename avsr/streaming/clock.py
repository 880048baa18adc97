"""Times of two devices on one clock.

Sound and pictures carry time stamps of the device that recorded them. If both come from one clock (a file, a browser
page, the monotonic clock of one computer), nothing needs to be done. If each device has a clock of its own, the clocks
differ by an unknown offset and drift apart by up to 100 parts in a million. Only the arrival times are on one clock.
The aligner assumes that the quickest arrivals of the last seconds took equally long from either device.
"""

from __future__ import annotations

import collections

WINDOW_S = 10.0
"""The quickest arrival of this many seconds counts: short enough to follow drift, and long enough to include an arrival
that did not wait in any queue."""

SLEW = 0.02
"""The correction moves by at most this many seconds in a second, because pictures must not jump."""

RESTART_S = 1.0
"""A clock that steps back by more than this, or runs ahead of the arrivals by more than this, has been restarted: the
camera was plugged in again, for example."""


class ClockAligner:
    """Converts time stamps of one device (the camera) to the clock of another (the microphone, the reference).

    `reference` and `align` take a time stamp and the time of its arrival, both in seconds. All arrival times are on one
    clock.
    """

    def __init__(self) -> None:
        self._reference: collections.deque[tuple[float, float]] = collections.deque()
        self._other: collections.deque[tuple[float, float]] = collections.deque()
        self._offset_s: float | None = None
        self._last: tuple[float, float] | None = None  # last time stamp of the other device, and its arrival

    def reference(self, time_s: float, arrived_s: float) -> None:
        """Note a time stamp of the reference device."""
        _add(self._reference, arrived_s, arrived_s - time_s)

    def align(self, time_s: float, arrived_s: float) -> float:
        """The time stamp of the other device, converted to the clock of the reference."""
        moved_s = passed_s = 0.0
        if self._last is not None:
            moved_s, passed_s = time_s - self._last[0], arrived_s - self._last[1]
        if moved_s < -RESTART_S or moved_s - passed_s > RESTART_S:  # delays of the clock before its restart are void
            self._other.clear()
            self._offset_s = None
        self._last = (time_s, arrived_s)
        _add(self._other, arrived_s, arrived_s - time_s)
        if self._reference:
            wanted_s = self._other[0][1] - self._reference[0][1]
            # No picture has been placed by an offset yet, so the first one is taken whole.
            if self._offset_s is None:
                self._offset_s = wanted_s
            most_s = SLEW * max(0.0, passed_s)
            self._offset_s += min(max(wanted_s - self._offset_s, -most_s), most_s)
        return time_s + (self._offset_s or 0.0)


def _add(delays: collections.deque[tuple[float, float]], arrived_s: float, delay_s: float) -> None:
    """Add a delay to a window, the smallest first. A delay is removed when a later one is smaller or equal."""
    while delays and delays[-1][1] >= delay_s:
        delays.pop()
    delays.append((arrived_s, delay_s))
    while delays[0][0] < arrived_s - WINDOW_S:
        delays.popleft()
