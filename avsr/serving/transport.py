"""Limits below HTTP and WebSockets: connections that stall, flood, or never read are slowed or cut.

uvicorn parses whatever has come, however long it takes, and has no limit for control frames, requests that never end,
or clients that do not read their answers. So a `ClientSocket` stands between the socket and the parsers of uvicorn. It
counts everything from the first byte to the close, and gives the parsers small pieces, so that other connections get
their turns between them.
"""

from __future__ import annotations

import asyncio
import time
from asyncio.transports import BaseTransport
from collections.abc import Generator
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CTRL_OPCODES, Frame
from websockets.http11 import Request
from websockets.streams import StreamReader

from avsr.serving.meters import REQUEST_LOOP_S, SESSION, STRANGER, Usage
from avsr.serving.places import Places, address_of
from avsr.serving.protocol import CLOSE_CODES

REQUEST_S = 10.0
"""Time for a request, from its first byte to the last byte of the answer; for a WebSocket, until its hello, and from
the end of its session to the close."""

STALLED_S = 20.0
"""How long a client may read nothing while the send buffer is full."""

CLOSING_S = 2.0
"""How long a client may take to answer the close of a WebSocket, or to read it if the client is not read any more."""

PIECE_BYTES = 2048
"""What a parser gets at once, unless a frame is longer: 341 of the smallest frames, which take about 3 ms."""

TURN_S = 0.002
"""After this time, the other connections get their turns before the next piece."""

SEND_BUFFER_BYTES = 256 * 1024

NAMES_OF_CODES = {code: name for name, code in CLOSE_CODES.items()}


class ClientSocket(asyncio.Protocol):
    """The connection of one client: counted, read in turns, slowed and cut."""

    transport: asyncio.Transport
    address: str

    def __init__(self, places: Places, **options: Any) -> None:
        self._places, self._metrics, self._options = places, places.metrics, options
        self._loop = asyncio.get_running_loop()
        self._usage, self._has_session = Usage(STRANGER), False
        self._unread = memoryview(b"")
        self._is_held = self._is_cut = False
        self._next_turn: asyncio.Handle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    # -- called by the event loop -------------------------------------------------------------------------------------

    def connection_made(self, transport: BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.address = address_of(transport.get_extra_info("peername"))
        self.parser: HttpTransport | WebSocketTransport = HttpTransport(**self._options)
        self._places.admit(self)
        self.transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)
        self.finish_within(REQUEST_S)
        self.parser.connection_made(cast(asyncio.Transport, ParserTransport(self)))

    def data_received(self, data: bytes) -> None:
        now_s = self._loop.time()
        self._metrics.totals["bytes"] += len(data)
        self._usage.take_bytes(len(data), now_s)
        # Nothing more is read while something is unread, but for what an event loop has already taken from the system.
        self._unread = memoryview(bytes(self._unread) + data if self._unread else data)
        if self._next_turn is None and not self._is_held:
            # A new connection waits too if its address has used up its time.
            if self._wait_s(now_s):
                self._plan()
            else:
                self._take_turn()

    def eof_received(self) -> None:
        self.parser.eof_received()

    def pause_writing(self) -> None:
        self.parser.pause_writing()
        if self._stalled is None:
            self._stalled = self._loop.call_later(STALLED_S, self.cut, "unread")

    def resume_writing(self) -> None:
        self.parser.resume_writing()
        _cancel(self._stalled)
        self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_cut = True
        self._unread = memoryview(b"")
        _cancel(self._stalled)
        self._stalled = None
        _cancel(self._deadline)
        self._deadline = None
        _cancel(self._next_turn)
        self._next_turn = None
        self._places.leave(self)
        self.parser.connection_lost(exc)

    # -- called by the parsers ----------------------------------------------------------------------------------------

    def hold(self, is_held: bool) -> None:
        """Read no more, or read again."""
        self._is_held = is_held
        if is_held:
            self.transport.pause_reading()
        else:
            self._plan()

    def finish_within(self, seconds: float | None) -> None:
        """Cut the connection after this time, unless it is called again; None: no limit."""
        _cancel(self._deadline)
        self._deadline = None
        if seconds is not None and not self._is_cut:
            self._deadline = self._loop.call_later(seconds, self.cut, "time")

    def answered(self) -> None:
        """Count an answer over HTTP. The next request has its own time."""
        self._metrics.totals["requests"] += 1
        self._spend_loop(REQUEST_LOOP_S)
        self.finish_within(REQUEST_S)

    def take_frames(self, count: int, control: int) -> None:
        """Count frames of a WebSocket."""
        self._metrics.totals["frames"] += count
        self._usage.take_frames(count, control, self._loop.time())

    def refuse(self, reason: str) -> None:
        """Count a refusal."""
        self._metrics.refuse(reason)

    def closing(self) -> None:
        """The close was sent. What still comes is worth nothing."""
        self._usage = Usage(STRANGER)

    # -- called by `Room` and `Places` --------------------------------------------------------------------------------

    def session_begins(self) -> None:
        """Give the connection the share of a session, and a place that no other connection can take."""
        self._metrics.totals["sessions"] += 1
        self._has_session, self._usage = True, Usage(SESSION)
        self.finish_within(None)
        self._places.move(self, has_session=True)

    def session_ends(self) -> None:
        """Take both back."""
        self._has_session, self._usage = False, Usage(STRANGER)
        self.finish_within(REQUEST_S)
        self._places.move(self, has_session=False)

    def cut(self, reason: str) -> None:
        """End the connection. A session gets the reason first if the client may still read it."""
        if self._is_cut:
            return
        self._is_cut = True
        self._metrics.cut(reason)
        may_read = reason in ("bytes", "frames", "loop") and self.parser.says_goodbye(reason, self._has_session)
        if may_read:
            self.transport.pause_reading()
            self._loop.call_later(CLOSING_S, self.transport.abort)
        else:
            self.transport.abort()

    # -- turns --------------------------------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        """Give the parser what has come, for TURN_S at most."""
        self._next_turn = None
        # Time of this thread is charged, not time by the clock: the threads of sessions may hold this one up. The hold
        # is measured by the clock, as the other connections feel it.
        begun_s, begun_cpu_s = time.perf_counter(), time.thread_time()
        try:
            while self._unread and not self._is_held and not self._is_cut and not self.transport.is_closing():
                size = max(PIECE_BYTES, self.parser.missing_bytes)
                piece, self._unread = self._unread[:size], self._unread[size:]
                self.parser.data_received(cast(bytes, piece))  # the parsers append it to a bytearray
                if self._usage.exceeded or time.perf_counter() - begun_s > TURN_S:
                    break
        # A fault of a parser concerns this connection alone.
        except Exception as error:
            self._metrics.fail(type(error).__name__)
            self.cut("error")
        self._metrics.hold(time.perf_counter() - begun_s)
        self._spend_loop(time.thread_time() - begun_cpu_s)
        self._plan()

    def _spend_loop(self, seconds: float) -> None:
        now_s = self._loop.time()
        self._usage.take_loop(seconds, now_s)
        if not self._has_session:
            self._places.everyone.spend(seconds, now_s)
            self._places.budget_of(self.address, now_s).spend(seconds, now_s)

    def _plan(self) -> None:
        """Decide whether to cut the connection, to wait, to go on with what has come, or to read more."""
        if self._is_cut or self.transport.is_closing():
            return
        if self._usage.exceeded is not None:
            self.cut(self._usage.exceeded)
            return
        if self._is_held:
            return
        wait_s = self._wait_s(self._loop.time())
        if not self._unread and not wait_s:
            self.transport.resume_reading()
            return
        self.transport.pause_reading()
        if self._next_turn is None:
            self._metrics.totals["slowed"] += wait_s > 0
            self._next_turn = self._loop.call_later(wait_s, self._take_turn)

    def _wait_s(self, now_s: float) -> float:
        wait_s = self._usage.wait_s(now_s)
        if self._has_session:
            return wait_s
        of_address = self._places.budget_of(self.address, now_s)
        return max(wait_s, of_address.debt_s(now_s), self._places.everyone.debt_s(now_s))


class ParserTransport:
    """The socket as the parsers of uvicorn see it. Pausing and the change of parsers go through the `ClientSocket`."""

    def __init__(self, client: ClientSocket) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client.transport, name)

    def pause_reading(self) -> None:
        self.client.hold(True)

    def resume_reading(self) -> None:
        self.client.hold(False)

    def set_protocol(self, protocol: WebSocketTransport) -> None:
        self.client.parser = protocol


class FrameReader(StreamReader):
    """Knows how many bytes the parser waits for."""

    needed = 0

    def at_eof(self) -> Generator[None, None, bool]:
        self.needed = 0  # called before each frame
        return super().at_eof()

    def read_exact(self, n: int) -> Generator[None, None, bytearray]:
        self.needed = n
        return super().read_exact(n)


class HttpTransport(H11Protocol):
    """HTTP, with a limited time for each request."""

    client_socket: ClientSocket
    missing_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.client_socket = cast(ParserTransport, transport).client
        super().connection_made(transport)

    # A WebSocket has the same time until its hello.
    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self.client_socket.finish_within(REQUEST_S)
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        self.client_socket.answered()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self.client_socket.refuse("http")
        super().send_400_response(msg)

    def says_goodbye(self, reason: str, has_session: bool) -> bool:
        """No: a client that sends too much before an answer gets none."""
        return False


class WebSocketTransport(WebSocketsSansIOProtocol):
    """A WebSocket whose frames of all kinds are counted."""

    client_socket: ClientSocket

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.close_timeout = CLOSING_S
        # The parser already runs on its reader, so the reader gets another class instead of being replaced.
        self.conn.reader.__class__ = FrameReader

    @property
    def missing_bytes(self) -> int:
        """Bytes that the frame being read still needs. It is one frame however long it is, so they cost little."""
        reader = cast(FrameReader, self.conn.reader)
        return reader.needed - len(reader.buffer)

    def connection_made(self, transport: BaseTransport) -> None:
        self.client_socket = cast(ParserTransport, transport).client
        super().connection_made(transport)

    def handle_events(self) -> None:
        frames = [event for event in self.conn.events if isinstance(event, Frame)]
        if frames:
            # A fragment without content carries as little as a control frame. Honest clients send an empty last one.
            control = sum(frame.opcode in CTRL_OPCODES or not (frame.fin or frame.data) for frame in frames)
            self.client_socket.take_frames(len(frames), control)
        super().handle_events()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            # The application runs after this, so that it finds its connection here.
            self.scope["state"]["client_socket"] = self.client_socket
        else:
            self.client_socket.refuse("handshake")

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.close":
            self.client_socket.closing()
            name = NAMES_OF_CODES.get(message.get("code"), "other")
            if name != "stopped":
                self.client_socket.refuse(name)

    def says_goodbye(self, reason: str, has_session: bool) -> bool:
        """Whether the client of a session has been told why it is cut."""
        if has_session and self.handshake_complete and not self.close_sent:
            code, why = CLOSE_CODES["rate"], f"too many {reason}"
            self.conn.send_close(code, why)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": why})
        return self.close_sent


def _cancel(timer: asyncio.Handle | None) -> None:
    if timer is not None:
        timer.cancel()
