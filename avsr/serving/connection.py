"""One WebSocket: hello, sound and pictures in, words out, and one clear reason when it ends.

Three things run at once: reading, writing, and the session's threads. Reading hands everything on at once; the threads
put what they have to say into an `Outbox`, which is bounded; writing empties it as fast as the client reads. Whichever
ends first ends the connection.
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
from avsr.serving.limits import Limits, Meter, RateLimit
from avsr.serving.protocol import CLOSE_CODES, PROTOCOL, RefusalError, read_hello, read_media, read_stop
from avsr.serving.stream import BrokenPicturesError, LiveSession, LiveStream

logger = logging.getLogger(__name__)

FINISH_S = 10.0  # for the last words, once nothing more comes
CLOSE_S = 2.0  # for the reason to reach the client
MAX_LIPS = 25  # a second of lip crops that wait to be sent; they are a picture, and the newest ones matter


@dataclass(frozen=True, kw_only=True)
class Live:
    """What is served. open_session(video): a new session. description: what a page is told of the model and the
    settings, in its hello and before."""

    open_session: Callable[[bool], LiveSession]
    description: dict[str, Any]


class Room:
    """Counts the sessions. One counts until its threads have ended, also when its client has long gone. They cannot be
    opened at any pace either: each needs a face finder of its own, which takes longer to make than to ask for."""

    def __init__(self, limits: Limits) -> None:
        self.size = limits.max_sessions
        self.taken = 0
        self._pace = RateLimit(limits.sessions_per_s, limits.burst_s)

    def enter(self) -> None:
        """Take a place. Raises RefusalError where there is none."""
        if self.taken >= self.size:
            raise RefusalError("busy", f"all {self.size} sessions are in use: try again when one has ended")
        if not self._pace.take(1, time.monotonic()):
            raise RefusalError("busy", "too many sessions were opened just now: try again in a few seconds")
        self.taken += 1

    def leave(self) -> None:
        """Give the place back."""
        self.taken -= 1


class Outbox:
    """What waits to be sent to a client. Words are kept, up to a number at which the client counts as too slow; of
    lips the newest, and of the status the last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._words: deque[dict[str, Any]] = deque()
        self._lips: deque[dict[str, Any]] = deque(maxlen=MAX_LIPS)
        self._status: dict[str, Any] | None = None
        self._newest_s = float("-inf")
        self._there = asyncio.Event()
        self.is_full = asyncio.Event()

    def put(self, document: dict[str, Any]) -> None:
        """Add an event."""
        kind = document["event"]
        if kind == "lips":
            self._lips.append(document)
        elif kind == "status":
            self._status = document
        elif self._is_outdated(document):
            return
        elif len(self._words) >= self._most:
            self.is_full.set()
        else:
            self._words.append(document)
        self._there.set()

    async def get(self) -> dict[str, Any]:
        """The next to send; waits until there is one."""
        while True:
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
        """Whether all has been taken out."""
        return not (self._words or self._lips or self._status)

    def _is_outdated(self, document: dict[str, Any]) -> bool:
        # Two threads get events from one session, so that a partial can be overtaken by what came after it.
        emitted_s = document.get("emitted", self._newest_s)
        if document["event"] == "partial" and emitted_s < self._newest_s:
            return True
        self._newest_s = max(self._newest_s, emitted_s)
        return False


class Connection:
    """One client, from the accepted handshake to the close."""

    def __init__(self, websocket: WebSocket, live: Live, *, limits: Limits, access: Access, room: Room) -> None:
        self._websocket, self._live = websocket, live
        self._limits, self._access, self._room = limits, access, room
        self._meter = Meter(limits)
        self._outbox = Outbox(limits.outgoing)
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._has_session = False

    async def run(self) -> None:
        """Serve it; returns when it is closed. Raises nothing that concerns others."""
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
            if self._has_session:  # its threads are about to end; the process does not while they compute
                await asyncio.wait([self._ended], timeout=CLOSE_S)

    async def _hello(self) -> protocol.Hello:
        try:
            message = await asyncio.wait_for(self._receive(), self._limits.hello_s)
        except asyncio.TimeoutError:
            raise RefusalError("hello", f"no hello within {self._limits.hello_s:g} s") from None
        if not isinstance(message, str):
            raise RefusalError("malformed", 'the first message is to be {"type": "hello", ...}')
        hello = read_hello(message)
        if not self._access.accepts(hello.token):
            raise RefusalError("token", "the token is wrong: open the page by the address that avsr serve printed")
        return hello

    async def _stream(self, *, video: bool) -> None:
        self._room.enter()
        stream = LiveStream(
            lambda: self._live.open_session(video),
            say=self._say_from_thread,
            ended=self._end_from_thread,
            limits=self._limits,
        )
        self._ended.add_done_callback(lambda _: self._room.leave())
        try:
            stream.start()
        except RuntimeError as no_thread:
            self._ended.set_result(no_thread)
            raise RefusalError("fault", "the server cannot open another session") from no_thread
        self._has_session = True
        self._outbox.put(
            {"event": "hello", "protocol": PROTOCOL, "version": __version__, "video": video} | self._live.description
        )
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(task)
            for task in (self._read(stream), self._write(), self._watch_outbox(), asyncio.shield(self._ended))
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            refusal = next((error for task in done if isinstance(error := task.exception(), RefusalError)), None)
            if refusal is None:
                for task in done:
                    task.result()  # a client that has gone
            reader = tasks[0]
            if reader in done and (refusal is None or refusal.code in ("idle", "length")):
                stream.finish()
                await asyncio.wait([self._ended], timeout=FINISH_S)
                await self._flush(tasks[1])
            if refusal is None and self._ended.done():
                refusal = _refusal_for(self._ended.result())
            if refusal is not None:
                raise refusal
        finally:
            stream.close()
            await _cancel(tasks)

    async def _read(self, stream: LiveStream) -> None:
        """Hand on what comes until the client says stop. Raises RefusalError; WebSocketDisconnect where it leaves."""
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
            if media_s >= end_s:
                break
        raise RefusalError("length", f"the session has lasted {self._limits.max_minutes:g} minutes: start another")

    async def _receive(self) -> str | bytes:
        """The next message, of a permitted size, at a permitted rate."""
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
        """Let the writer send what is left, as long as the client reads."""
        end_s = time.monotonic() + CLOSE_S
        while not self._outbox.is_empty and not writer.done() and time.monotonic() < end_s:
            await asyncio.sleep(0.01)

    async def _close(self, refusal: RefusalError | None) -> None:
        code, message = ("stopped", "stopped") if refusal is None else (refusal.code, str(refusal))

        async def tell() -> None:
            if refusal is not None:
                await self._websocket.send_text(protocol.write({"event": "error", "code": code, "message": message}))
            reason = message.encode()[:120].decode(errors="ignore")  # as long as a close frame allows
            await self._websocket.close(CLOSE_CODES[code], reason)

        # A client that does not read is not waited for: the connection below is cut when this one returns.
        with contextlib.suppress(asyncio.TimeoutError, RuntimeError):
            await asyncio.wait_for(tell(), CLOSE_S)

    def _say_from_thread(self, document: dict[str, Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(self._outbox.put, document)

    def _end_from_thread(self, error: BaseException | None) -> None:
        def end() -> None:
            if not self._ended.done():
                self._ended.set_result(error)

        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(end)


async def _cancel(tasks: list[asyncio.Future[Any]]) -> None:
    """End them all. More than once where needed: before Python 3.12 `wait_for` loses a cancellation that comes just as
    what it waits for is done."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=0.1)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # has been dealt with, or comes too late to matter


def _refusal_for(error: BaseException | None) -> RefusalError | None:
    """What the client is told about how its session ended."""
    match error:
        case None:
            return None
        case BrokenPicturesError():
            return RefusalError("malformed", f"pictures that cannot be read: {error}")
        case AvsrError():
            return RefusalError("fault", str(error))
        case _:
            logger.warning("a session failed: unexpected %s: %s", type(error).__name__, error)
            logger.debug("traceback", exc_info=error)
            return RefusalError("fault", "the session failed on the server, which says more")
