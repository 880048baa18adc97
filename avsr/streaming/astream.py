"""Live recognition for asyncio: `async for event in events_of(live)`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

from avsr.streaming.events import Event
from avsr.streaming.live import Live

POLL_S = 0.01
"""How often a reader who leaves early checks whether the run has ended."""


async def events_of(live: Live) -> AsyncIterator[Event]:
    """The events of a run, computed in a thread. Leaving the loop early ends the run and its threads.

    Events wait for a slow reader, and no event is lost. An error of the run is raised after the events before it.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()

    def put(item: Event | BaseException | None) -> bool:
        """Hand over an item, None after the last one. False if the event loop has been closed."""
        try:
            loop.call_soon_threadsafe(waiting.put_nowait, item)
        except RuntimeError:
            return False
        return True

    def work() -> None:
        try:
            with live:
                for event in live.events():
                    if not put(event):
                        return
        except BaseException as error:  # the reader must get every error, of any type
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
        live.end()
        # thread.join() would block the event loop.
        while thread.is_alive():
            await asyncio.sleep(POLL_S)
