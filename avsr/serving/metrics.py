"""What the server counts: connections, refusals, cuts, bytes, frames, and how long its event loop was held.

All counts are sums since the start. They hold no addresses, names or texts of clients.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping

logger = logging.getLogger(__name__)

SUMMARY_S = 60.0
"""Time between two lines of the log about what was refused."""

LONG_HOLD_S = 0.02
"""A connection that holds the event loop longer delays the words of others noticeably."""

TOTALS = {
    "connections": "connections that were accepted",
    "sessions": "sessions that were opened",
    "requests": "requests over HTTP that were answered",
    "bytes": "bytes that clients sent",
    "frames": "WebSocket frames that clients sent",
    "slowed": "pauses in which a connection was not read because it had sent too much",
    "long_holds": "turns of one connection that held the event loop for longer than 20 ms",
}
"""Counts without a reason, and what each counts."""

REASONS = {
    "refused": "requests, sessions and messages that were refused",
    "ended": "sessions that the server ended because they were idle or had lasted long enough",
    "failed": "sessions that failed by a fault of the server",
    "cut": "connections that were closed without an answer, or in the middle of a session",
    "errors": "errors inside the server's libraries that a client caused",
}
"""Counts by reason, and what each counts."""

NO_REFUSALS = {"idle": "ended", "length": "ended", "fault": "failed"}
"""By the reason that a session's client gets: the count, if it is another one than `refused`."""

NOW = {
    "connections_without_session": "open connections without a session",
    "connections_in_session": "open connections with a session",
    "sessions": "sessions at the moment, with those whose client has gone and whose threads still run",
    "max_sessions": "sessions that may run at the same time",
}
"""Values of the moment, and what each is."""


class Metrics:
    """The counts of one server."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter({name: 0 for name in TOTALS})
        self.reasons: dict[str, Counter[str]] = {name: Counter() for name in REASONS}
        self.longest_hold_s = 0.0
        self.latest_tick_s = 0.0
        self._told: dict[str, Counter[str]] = {name: Counter() for name in REASONS}
        self._tell_at_s: float | None = None

    def refuse(self, reason: str) -> None:
        """Count a refusal, or another end of a session by the server."""
        self.reasons[NO_REFUSALS.get(reason, "refused")][reason] += 1

    def cut(self, reason: str) -> None:
        """Count a connection that is cut."""
        self.reasons["cut"][reason] += 1

    def fail(self, error: str) -> None:
        """Count an error inside a library. error: its type."""
        self.reasons["errors"][error] += 1

    def hold(self, seconds: float) -> None:
        """Note how long one connection held the event loop."""
        if seconds > self.longest_hold_s:
            self.longest_hold_s = seconds
        if seconds > LONG_HOLD_S:
            self.totals["long_holds"] += 1

    def late(self, seconds: float) -> None:
        """Note by how many seconds a call of the event loop was late."""
        self.latest_tick_s = max(self.latest_tick_s, seconds)

    def tick(self, now_s: float) -> None:
        """Write a line about the counts by reason: a minute after the first, and then once a minute at most."""
        if self.reasons == self._told:
            return
        if self._tell_at_s is None:
            self._tell_at_s = now_s + SUMMARY_S
        elif now_s >= self._tell_at_s:
            self.tell()

    def tell(self) -> None:
        """Write what the counts by reason have gained since the last line, if anything."""
        self._tell_at_s = None
        news = {name: counts - self._told[name] for name, counts in self.reasons.items()}
        self._told = {name: counts.copy() for name, counts in self.reasons.items()}
        parts = [f"{name} {counts.total()} ({_listed(counts)})" for name, counts in news.items() if counts]
        if parts:
            logger.warning("clients: %s", ", ".join(parts))

    def text(self, now: Mapping[str, float]) -> str:
        """All counts in the text format of Prometheus. now: the values of `NOW`."""
        return "".join(f"{line}\n" for line in self._lines(now))

    def _lines(self, now: Mapping[str, float]) -> Iterator[str]:
        for name, meaning in TOTALS.items():
            yield from _metric(f"{name}_total", "counter", meaning, {"": self.totals[name]})
        for name, meaning in REASONS.items():
            values = {f'{{reason="{reason}"}}': count for reason, count in sorted(self.reasons[name].items())}
            yield from _metric(f"{name}_total", "counter", meaning, values)
        meaning = "the longest turn of one connection in the event loop"
        yield from _metric("loop_hold_max_seconds", "gauge", meaning, {"": round(self.longest_hold_s, 6)})
        meaning = "the largest delay of the event loop, whoever caused it"
        yield from _metric("loop_late_max_seconds", "gauge", meaning, {"": round(self.latest_tick_s, 6)})
        for name, value in now.items():
            yield from _metric(name, "gauge", NOW[name], {"": value})


def _metric(name: str, kind: str, meaning: str, values: Mapping[str, float]) -> Iterator[str]:
    yield f"# HELP avsr_{name} {meaning}"
    yield f"# TYPE avsr_{name} {kind}"
    for labels, value in values.items():
        yield f"avsr_{name}{labels} {value}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
