"""One WebSocket: a hello, sound and pictures in, words out, and a reason when it ends.

Three things run at the same time: a reader, a writer and the session's threads. The reader passes messages to the
session without waiting. The threads put events into a bounded `Outbox`. The writer sends them as fast as the client
reads. The connection ends when the first of the three ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from avsr import __version__
from avsr.errors import AvsrError
from avsr.serving import protocol
from avsr.serving.access import Access
from avsr.serving.limits import Limits, Meter
from avsr.serving.places import Room
from avsr.serving.protocol import CLOSE_CODES, PROTOCOL, RefusalError, read_hello, read_media, read_stop
from avsr.serving.stream import LiveSession, LiveStream

logger = logging.getLogger(__name__)

FINISH_S = 20.0
"""How long the session may take for the last words after the client's stop, or after a refusal. The sound that waits
is at most 16 s, and is recognised faster than it was spoken."""

CLOSE_S = 2.0
"""How long the client may take to receive the reason for the close."""

MAX_LIPS = 25
"""Lip crops that wait to be sent, a second of them. Older crops are dropped: the page shows only the newest."""


@dataclass(frozen=True, kw_only=True)
class Live:
    """The model that is served."""

    open_session: Callable[[bool], LiveSession]
    """Makes a session; the argument is whether pictures will come."""
    description: dict[str, Any]
    """Facts about model and settings, which a page gets at `/info` and in the hello."""


class Outbox:
    """The events that wait to be sent to a client.

    It keeps all events with words; if there are more than `most`, the client is too slow. It keeps the newest lip crops
    and the last status.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._words: deque[dict[str, Any]] = deque()
        self._lips: deque[dict[str, Any]] = deque(maxlen=MAX_LIPS)
        self._status: dict[str, Any] | None = None
        self._newest_s = float("-inf")
        self._there = asyncio.Event()
        self.is_full = asyncio.Event()

    def put(self, document: dict[str, Any]) -> None:
        """Add an event, a JSON object."""
        kind = document["event"]
        if kind == "lips":
            self._lips.append(document)
        elif kind == "status":
            self._status = document
        elif self._is_outdated(document):
            return
        elif len(self._words) >= self._most:
            # Words are never dropped: a client that does not read them is disconnected.
            self.is_full.set()
        else:
            self._words.append(document)
        self._there.set()

    async def get(self) -> dict[str, Any]:
        """The next event to send. Waits until an event is there."""
        while True:
            # Words go first: newer lips and a newer status replace the ones that wait, newer words do not.
            if self._words:
                return self._words.popleft()
            if self._lips:
                return self._lips.popleft()
            if self._status is not None:
                status, self._status = self._status, None
                return status
            self._there.clear()
            await self._there.wait()

    @property
    def is_empty(self) -> bool:
        """Whether no event waits."""
        return not (self._words or self._lips or self._status)

    def _is_outdated(self, document: dict[str, Any]) -> bool:
        # Two threads get events from one session, so a newer event may be put before an older partial.
        emitted_s = document.get("emitted", self._newest_s)
        if document["event"] == "partial" and emitted_s < self._newest_s:
            return True
        self._newest_s = max(self._newest_s, emitted_s)
        return False


class Connection:
    """The connection of one client, from the handshake to the close."""

    def __init__(self, websocket: WebSocket, live: Live, *, limits: Limits, access: Access, room: Room) -> None:
        self._websocket, self._live = websocket, live
        self._limits, self._access, self._room = limits, access, room
        self._meter = Meter(limits)
        self._outbox = Outbox(limits.outgoing)
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._has_session = False

    async def run(self) -> None:
        """Serve the client until the connection is closed. Raises nothing that would stop the server."""
        await self._websocket.accept()
        try:
            try:
                hello = await self._hello()
                await self._stream(video=hello.video)
                refusal = None
            except RefusalError as error:
                refusal = error
            await self._close(refusal)
        except WebSocketDisconnect:
            logger.debug("a client has gone")
        finally:
            if self._has_session:  # the process must not end while the session's threads compute
                await asyncio.wait([self._ended], timeout=CLOSE_S)

    async def _hello(self) -> protocol.Hello:
        try:
            # A browser cannot add headers to a WebSocket, so the token comes in the first message.
            message = await asyncio.wait_for(self._receive(), self._limits.hello_s)
        except asyncio.TimeoutError:
            raise RefusalError("hello", f"no hello within {self._limits.hello_s:g} s") from None
        if not isinstance(message, str):
            raise RefusalError("malformed", 'the first message is to be {"type": "hello", ...}')
        hello = read_hello(message)
        if not self._access.accepts(hello.token):
            why = "the token is wrong: use the address that avsr serve printed, or send its token in the hello"
            raise RefusalError("token", why)
        return hello

    async def _stream(self, *, video: bool) -> None:
        client = self._websocket.state.client_socket  # put there by `WebSocketTransport`
        self._room.enter(client)
        stream = LiveStream(
            lambda: self._live.open_session(video),
            on_document=self._put_from_thread,
            on_end=self._end_from_thread,
            limits=self._limits,
        )
        # The place is free when the threads have ended, which may be long after the client has gone.
        self._ended.add_done_callback(lambda _: self._room.leave(client))
        try:
            stream.start()
        except RuntimeError as no_thread:
            # The system gives no more threads. Without a result, the place in the room would never be free again.
            self._ended.set_result(no_thread)
            raise RefusalError("fault", "the server cannot open another session") from no_thread
        self._has_session = True
        self._outbox.put(
            {"event": "hello", "protocol": PROTOCOL, "version": __version__, "video": video} | self._live.description
        )
        # Without the shield, `_cancel` would end `_ended` and free the place in the room while the threads still
        # compute.
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(task)
            for task in (self._read(stream), self._write(), self._watch_outbox(), asyncio.shield(self._ended))
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            refusal = next((error for task in done if isinstance(error := task.exception(), RefusalError)), None)
            if refusal is None:
                for task in done:
                    task.result()  # raises WebSocketDisconnect if the client has gone
            # After a stop, and after a refusal of what it sent, the client still reads: it gets the last words before
            # the close.
            reader, writer = tasks[:2]
            if reader in done:
                stream.finish()
                tasks.append(asyncio.ensure_future(self._ignore()))
                await asyncio.wait([self._ended, writer], timeout=FINISH_S, return_when=asyncio.FIRST_COMPLETED)
            if reader in done or self._ended.done():
                await self._flush(writer)
            if refusal is None and self._ended.done():
                refusal = _refusal_for(self._ended.result())
            if refusal is not None:
                raise refusal
        finally:
            stream.close()
            await _cancel(tasks)

    async def _read(self, stream: LiveStream) -> None:
        """Pass messages to the session until the client's stop. Raises RefusalError, WebSocketDisconnect."""
        end_s = time.monotonic() + 60 * self._limits.max_minutes
        media_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            left_s = min(end_s, media_s + self._limits.idle_s) - now_s
            try:
                message = await asyncio.wait_for(self._receive(), max(left_s, 0.0))
            except asyncio.TimeoutError:
                if time.monotonic() >= end_s:
                    break
                raise RefusalError("idle", f"neither sound nor pictures for {self._limits.idle_s:g} s") from None
            if isinstance(message, str):
                read_stop(message)
                return
            item = read_media(message)
            self._meter.media(item)
            stream.add(item)
            media_s = time.monotonic()
            # A client that never pauses does not let the wait above run out.
            if media_s >= end_s:
                break
        raise RefusalError("length", f"the session has lasted {self._limits.max_minutes:g} minutes: start another")

    async def _ignore(self) -> None:
        """Read what still comes after a stop or a refusal, so that an honest client is not held up."""
        # The limits still hold: what a flood brings after its refusal costs time too.
        with contextlib.suppress(RefusalError):
            while True:
                await self._receive()

    async def _receive(self) -> str | bytes:
        """The next message. Raises RefusalError if it is too large or comes too fast."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        content: str | bytes | None = message.get("text")
        if content is None:
            content = message.get("bytes") or b""
        self._meter.message(len(content), is_text=isinstance(content, str))
        return content

    async def _write(self) -> None:
        while True:
            text = protocol.write(await self._outbox.get())
            try:
                await asyncio.wait_for(self._websocket.send_text(text), self._limits.write_s)
            except asyncio.TimeoutError:
                raise RefusalError("slow", "what was sent has not been read for too long") from None

    async def _watch_outbox(self) -> None:
        await self._outbox.is_full.wait()
        raise RefusalError("slow", "what was sent is read too slowly")

    async def _flush(self, writer: asyncio.Future[Any]) -> None:
        """Let the writer send the waiting events, for as long as the client reads."""
        end_s = time.monotonic() + CLOSE_S
        while not self._outbox.is_empty and not writer.done() and time.monotonic() < end_s:
            await asyncio.sleep(0.01)

    async def _close(self, refusal: RefusalError | None) -> None:
        code, message = ("stopped", "stopped") if refusal is None else (refusal.code, str(refusal))

        async def send() -> None:
            if refusal is not None:
                await self._websocket.send_text(protocol.write({"event": "error", "code": code, "message": message}))
            reason = message.encode()[:120].decode(errors="ignore")  # as long as a close frame allows
            await self._websocket.close(CLOSE_CODES[code], reason)

        # A client that does not read does not get the reason: its TCP connection is cut after this.
        with contextlib.suppress(asyncio.TimeoutError, RuntimeError):
            await asyncio.wait_for(send(), CLOSE_S)

    def _put_from_thread(self, document: dict[str, Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(self._outbox.put, document)

    def _end_from_thread(self, error: BaseException | None) -> None:
        def end() -> None:
            if not self._ended.done():
                self._ended.set_result(error)

        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(end)


async def _cancel(tasks: list[asyncio.Future[Any]]) -> None:
    """Cancel all tasks, and wait until they have ended."""
    # Before Python 3.12, `wait_for` loses a cancellation that comes when its task has just ended. So it is repeated.
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=0.1)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # fetched, so that asyncio does not log it: it was handled, or comes too late


def _refusal_for(error: BaseException | None) -> RefusalError | None:
    """The reason that the client gets for the end of its session; None after a normal end."""
    match error:
        case None:
            return None
        case RefusalError():
            return error
        case AvsrError():
            return RefusalError("fault", str(error))
        case _:
            logger.warning("a session failed: unexpected %s: %s", type(error).__name__, error)
            logger.debug("traceback", exc_info=error)
            return RefusalError("fault", "the session failed on the server: its log has the error")
