"""Who has a place: connections without a session, and sessions. No address takes the places of all others.

Clients on one network may share an address, so an address is never shut out: it loses its own oldest connection to a
new one. All clients of this machine share one address, and an ssh tunnel ends here too. So there the sessions are not
divided: another user of this machine can take them all, as `SECURITY.md` says.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from typing import Any, Protocol

from avsr.serving.limits import Limits, RateLimit
from avsr.serving.meters import (
    ADDRESS_LOOP_AT_ONCE_S,
    ADDRESS_LOOP_SHARE,
    STRANGERS_LOOP_AT_ONCE_S,
    STRANGERS_LOOP_SHARE,
    Budget,
)
from avsr.serving.metrics import Metrics
from avsr.serving.protocol import RefusalError

MAX_CONNECTIONS = 64
"""Connections without a session at the same time. Those with a session do not count."""

ADDRESS_SHARE = 0.75
"""The part of the sessions, and of their rate, that one address may have, unless it is this machine."""

MAX_ADDRESSES = 1000
"""Addresses whose use is remembered."""

THIS_MACHINE = "this machine"


def address_of(peer: Any) -> str:
    """What counts as one address: an IPv4 address, 64 bits of an IPv6 address, or this machine.

    peer: the name that a socket gives to the other side.
    """
    try:
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    except (TypeError, IndexError, ValueError):
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    # Every address from 127.0.0.1 to 127.255.255.254 is this machine.
    if address.is_loopback:
        return THIS_MACHINE
    if isinstance(address, ipaddress.IPv6Address):
        # A household gets 64 bits or more, and one machine may use all addresses in them.
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


class Client(Protocol):
    """A connection, as far as its place is concerned."""

    address: str

    def cut(self, reason: str) -> None: ...
    def session_begins(self) -> None: ...
    def session_ends(self) -> None: ...


class Places:
    """The connections of a server, and the time of its event loop that those without a session have used."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.strangers: dict[Client, None] = {}  # in the order in which they came
        self.in_session: set[Client] = set()
        self.everyone = Budget(STRANGERS_LOOP_SHARE, STRANGERS_LOOP_AT_ONCE_S)
        self._addresses: dict[str, Budget] = {}

    def admit(self, client: Client) -> None:
        """Give a place to a new connection. If there is none, another connection without a session is cut."""
        self.metrics.totals["connections"] += 1
        if len(self.strangers) >= MAX_CONNECTIONS:
            self._evict()
        self.strangers[client] = None

    def leave(self, client: Client) -> None:
        """Give the place back."""
        self.strangers.pop(client, None)
        self.in_session.discard(client)

    def move(self, client: Client, *, has_session: bool) -> None:
        """Count a connection as one with a session, or no longer. One that has left stays away."""
        if has_session and client in self.strangers:
            del self.strangers[client]
            self.in_session.add(client)
        elif not has_session and client in self.in_session:
            self.in_session.discard(client)
            self.strangers[client] = None

    def budget_of(self, address: str, now_s: float) -> Budget:
        """The time of the event loop for the connections of an address. It outlives them, so that a new connection is
        no new budget."""
        found = self._addresses.get(address)
        if found is None:
            if len(self._addresses) >= MAX_ADDRESSES:
                self._addresses = {name: used for name, used in self._addresses.items() if not used.is_full(now_s)}
            if len(self._addresses) >= MAX_ADDRESSES:
                return self.everyone
            found = self._addresses[address] = Budget(ADDRESS_LOOP_SHARE, ADDRESS_LOOP_AT_ONCE_S)
        return found

    def _evict(self) -> None:
        # The oldest has had the most time to say hello. Bytes that trickle in do not make it younger.
        counts = Counter(client.address for client in self.strangers)
        most = max(counts.values())
        victim = next(client for client in self.strangers if counts[client.address] == most)
        del self.strangers[victim]
        victim.cut("place")


class Room:
    """Limits the number of sessions at the same time, and how fast sessions are opened.

    A session counts until its threads have ended, even if its client has gone. The rate is limited because each session
    needs a face finder, which takes the server longer to make than a client takes to ask for it.
    """

    def __init__(self, limits: Limits) -> None:
        self.size = limits.max_sessions
        self._limits = limits
        self._by_address: Counter[str] = Counter()
        self._pace = RateLimit(limits.sessions_per_s, limits.burst_s)
        self._paces: dict[str, RateLimit] = {}

    @property
    def taken(self) -> int:
        """Sessions at the moment."""
        return self._by_address.total()

    def enter(self, client: Client) -> None:
        """Count a new session. Raises RefusalError if there are too many."""
        share = 1.0 if client.address == THIS_MACHINE else ADDRESS_SHARE
        of_address = max(1, int(share * self.size))
        if self.taken >= self.size:
            raise RefusalError("busy", f"all {self.size} sessions are in use: try again when one has ended")
        if self._by_address[client.address] >= of_address:
            raise RefusalError("busy", f"your address has {of_address} sessions: the others are kept for other people")
        now_s = time.monotonic()
        # The address is asked first, so that one that is refused takes nothing from the others.
        if not (self._pace_of(client.address, share).take(1, now_s) and self._pace.take(1, now_s)):
            raise RefusalError("busy", "too many sessions were opened just now: try again in a few seconds")
        self._by_address[client.address] += 1
        client.session_begins()

    def leave(self, client: Client) -> None:
        """Count the end of a session."""
        self._by_address[client.address] -= 1
        client.session_ends()

    def _pace_of(self, address: str, share: float) -> RateLimit:
        if address not in self._paces and len(self._paces) >= MAX_ADDRESSES:
            self._paces.clear()
        return self._paces.setdefault(address, RateLimit(share * self._limits.sessions_per_s, self._limits.burst_s))
