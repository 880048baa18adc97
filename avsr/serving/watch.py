"""The server of uvicorn, without the log lines that clients could fill the disk with, and with a clock for its loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from avsr.serving.metrics import Metrics

logger = logging.getLogger(__name__)

ACCEPTS_AT_ONCE = 16
"""New connections that the event loop takes before the others get their turns."""

WAITING_CONNECTIONS = 128
"""New connections that the system keeps until they are taken."""

TICK_S = 0.1
"""Time between two ticks of uvicorn."""


class WatchedServer(uvicorn.Server):
    """Counts the errors of its event loop, measures how late the loop is, and writes a line a minute about clients."""

    def __init__(self, config: uvicorn.Config, metrics: Metrics) -> None:
        super().__init__(config)
        self._metrics = metrics
        self._ticked_s: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        def count(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            error = context.get("exception")
            self._metrics.fail(type(error).__name__ if error else "unknown")
            logger.debug("%s", context.get("message"), exc_info=error)

        asyncio.get_running_loop().set_exception_handler(count)
        await super().startup(sockets)
        # asyncio has one number for two things. Few connections are taken at once, and more may wait in the system.
        for listener in sockets or []:
            listener.listen(WAITING_CONNECTIONS)

    async def on_tick(self, counter: int) -> bool:
        now_s = time.monotonic()
        if self._ticked_s is not None:
            self._metrics.late(now_s - self._ticked_s - TICK_S)
        self._ticked_s = now_s
        self._metrics.tick(now_s)
        return await super().on_tick(counter)


@contextlib.contextmanager
def quiet_libraries(metrics: Metrics) -> Iterator[None]:
    """Count what uvicorn and websockets would write about clients, instead of writing it.

    A client could fill the disk with it: a few bytes are a traceback of 3 KB. Debugging shows all of it.
    """

    def count(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            kind = record.exc_info[0] if record.exc_info else None
            metrics.fail(kind.__name__ if kind else "error")
        return logging.getLogger("avsr").isEnabledFor(logging.DEBUG)

    library = logging.getLogger("uvicorn.error")  # websockets gets this logger from uvicorn
    level = library.level
    if not logging.getLogger("avsr").isEnabledFor(logging.DEBUG):
        library.setLevel(logging.ERROR)
    library.addFilter(count)
    try:
        yield
    finally:
        library.removeFilter(count)
        library.setLevel(level)
