"""Limits below HTTP and WebSockets: connections that stall, flood or never read are cut.

uvicorn has no limit for a request that never ends, for control frames, or for a client that does not read its answer.
"""

from __future__ import annotations

import asyncio
from asyncio.transports import BaseTransport
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MAX_CONNECTIONS = 64
"""Connections at the same time."""

REQUEST_S = 10.0
"""Time for a request, from its first byte to the last byte of the answer."""

STALLED_S = 10.0
"""How long a client may read nothing while the send buffer is full."""

PINGS_PER_S = 5.0
PINGS_AT_ONCE = 20


class HttpTransport(H11Protocol):
    """HTTP with a limited number of connections and a limited time for each request."""

    _timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # The connection below is added to the set by super(), so the set is counted before.
        is_full = len(self.connections) >= MAX_CONNECTIONS
        super().connection_made(transport)
        self._restart_timeout()
        if is_full:
            transport.abort()

    # A WebSocket may stay open as long as its session lasts; `WebSocketTransport` has its limits.
    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._cancel_timeout()
        super().handle_websocket_upgrade(event)

    # A connection that is kept open has the same time for its next request.
    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._restart_timeout()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timeout()
        super().connection_lost(exc)

    def _restart_timeout(self) -> None:
        self._cancel_timeout()
        self._timeout = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _cancel_timeout(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None


class WebSocketTransport(WebSocketsSansIOProtocol):
    """A WebSocket that is cut if its client stops reading, or sends too many pings."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._stalled: asyncio.TimerHandle | None = None
        self._pings_left, self._pings_since_s = float(PINGS_AT_ONCE), 0.0

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=256 * 1024)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_stalled()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_stalled()
        super().connection_lost(exc)

    # uvicorn answers pings itself, so that no limit of messages sees them.
    def handle_ping(self) -> None:
        now_s = self.loop.time()
        left = self._pings_left + PINGS_PER_S * (now_s - self._pings_since_s)
        self._pings_left, self._pings_since_s = min(left, PINGS_AT_ONCE) - 1, now_s
        if self._pings_left < 0:
            self.transport.abort()
            return
        super().handle_ping()

    def _cancel_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
