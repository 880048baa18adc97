"""Times of two devices on one clock.

Sound and pictures carry the time of whoever recorded them. Where that is one clock (a file, a browser page, one
computer's monotonic clock), there is nothing to do. Where each device has its own, the clocks differ by an unknown
offset and run apart by up to 100 parts in a million, and all that is known is when things arrive. The quickest arrivals
of the last while are taken to have needed the same time on both ways.
"""

from __future__ import annotations

import collections

WINDOW_S = 10.0
"""Over which the quickest arrival counts: short enough to follow drift, long enough to see one without a queue."""

SLEW = 0.02
"""Seconds by which the correction moves a second at most: pictures must not jump."""

RESTART_S = 1.0
"""A clock that goes back by so much, or ahead of what has passed, was started anew, as when a camera is plugged in
again."""


class ClockAligner:
    """Puts times of the other device on the clock of the reference, from when both arrive.

    `reference` and `align` take a time stamp and the moment of its arrival, in seconds; arrivals of both on one clock.
    """

    def __init__(self) -> None:
        self._reference: collections.deque[tuple[float, float]] = collections.deque()
        self._other: collections.deque[tuple[float, float]] = collections.deque()
        self._offset_s: float | None = None
        self._last: tuple[float, float] | None = None  # time and arrival of the other device's last

    def reference(self, time_s: float, arrived_s: float) -> None:
        """Something of the reference arrived."""
        _add(self._reference, arrived_s, arrived_s - time_s)

    def align(self, time_s: float, arrived_s: float) -> float:
        """The time of something of the other device, on the clock of the reference."""
        moved_s = passed_s = 0.0
        if self._last is not None:
            moved_s, passed_s = time_s - self._last[0], arrived_s - self._last[1]
        if moved_s < -RESTART_S or moved_s - passed_s > RESTART_S:  # what came before says nothing any more
            self._other.clear()
            self._offset_s = None
        self._last = (time_s, arrived_s)
        _add(self._other, arrived_s, arrived_s - time_s)
        if self._reference:
            wanted_s = self._other[0][1] - self._reference[0][1]
            if self._offset_s is None:
                self._offset_s = wanted_s
            most_s = SLEW * max(0.0, passed_s)
            self._offset_s += min(max(wanted_s - self._offset_s, -most_s), most_s)
        return time_s + (self._offset_s or 0.0)


def _add(delays: collections.deque[tuple[float, float]], arrived_s: float, delay_s: float) -> None:
    """Keep the smallest delay of the window first: each is smaller than all that came after it."""
    while delays and delays[-1][1] >= delay_s:
        delays.pop()
    delays.append((arrived_s, delay_s))
    while delays[0][0] < arrived_s - WINDOW_S:
        delays.popleft()
