"""Live recognition for asyncio: `async for event in events_of(live)`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

from avsr.streaming.events import Event
from avsr.streaming.live import Live

MAX_WAITING = 64
"""Events that may wait for a slow reader; then the work waits too."""


async def events_of(live: Live) -> AsyncIterator[Event]:
    """The events of a run, computed in a thread of its own. Leaving the loop early stops the run and its threads."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[Event | BaseException | None] = asyncio.Queue(MAX_WAITING)
    left = threading.Event()

    def put(item: Event | BaseException | None) -> bool:
        """Hand over an item; False if nobody reads any more."""
        if left.is_set() or loop.is_closed():
            return False
        try:
            asyncio.run_coroutine_threadsafe(waiting.put(item), loop).result()
        except RuntimeError:  # the loop was closed in the meantime
            return False
        return not left.is_set()

    def work() -> None:
        try:
            with live:
                for event in live.events():
                    if not put(event):
                        return
        except BaseException as error:  # the reader must get it, whatever it is
            put(error)
        else:
            put(None)

    thread = threading.Thread(target=work, name="avsr astream", daemon=True)
    thread.start()
    try:
        while (item := await waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()
        # The thread may be waiting for room in the queue: make room until it has seen that nobody reads.
        while thread.is_alive():
            while not waiting.empty():
                waiting.get_nowait()
            await asyncio.sleep(0.01)
