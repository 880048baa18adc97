"""Runs a session on sources of sound and pictures, and gives its events in one order.

    session = model.stream(chunk_ms=320)
    with Live(session, file_sound(path), file_pictures(path), real_time=True) as live:
        for event in live.events():
            ...

In real time, one thread pushes sound and another pushes pictures, because finding faces takes long. Both put their
events into a queue, so a reader who stalls holds up neither. As fast as possible, one thread does all work in the order
of arrival, and the result is the same in every run. The caller's thread only waits for events, so that after Ctrl-C the
session can still be finished.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from avsr.account import Account
from avsr.arrays import Crops, Samples
from avsr.errors import AvsrError
from avsr.streaming.events import Event
from avsr.streaming.source import Clock, Item, LivePicture, LiveSound, Pace, in_order


class LiveSession(Protocol):
    """What `Live` needs of a session."""

    on_event: Callable[[Event], None] | None

    @property
    def faces_seen(self) -> list[int]: ...
    def prepare(self) -> None: ...
    def push_audio(self, samples: Samples, t: float | None = None, *, waiting_s: float = 0.0) -> list[Event]: ...
    def push_video(self, picture: Crops | None, t: float) -> list[Event]: ...
    def finish(self) -> list[Event]: ...
    def close(self) -> None: ...


class Live:
    """One run of a session, from the beginning of its sources to their end. A context manager that leaves no threads.

    session: a new session; its `on_event` is replaced.
    sound: blocks in order of arrival; None between them lets the run end while no sound comes.
    pictures: the same for pictures; None for sound alone.
    real_time: each item is pushed when it arrives by the clock; False pushes all as fast as possible.
    clock: the clock of the arrival times; None for one that starts with `events`.
    account: of the file that the sound comes from; what was left out of it is added to the counters.
    on_warning: called with a line for each problem that does not stop the run, such as pictures that break off. It is
        called from the thread that reads the events.
    """

    def __init__(
        self,
        session: LiveSession,
        sound: Iterable[LiveSound | None],
        pictures: Iterable[LivePicture | None] | None = None,
        *,
        real_time: bool = False,
        clock: Clock | None = None,
        account: Account | None = None,
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        self._queue: queue.SimpleQueue[Event | str | Exception | None] = queue.SimpleQueue()
        self.session = session
        # The callback runs in the order of the session; what two pushing threads get back is in no common order.
        session.on_event = self._queue.put
        self._sound, self._pictures = sound, pictures
        self._real_time, self._clock, self._on_warning = real_time, clock, on_warning
        self._account = account
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._pace: Pace | None = None

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        self._halt()
        self.session.close()

    @property
    def lag_s(self) -> float:
        """In real time: how many seconds the work is behind the arrivals."""
        return 0.0 if self._pace is None else self._pace.lag_s

    @property
    def has_pictures(self) -> bool:
        """Whether pictures come with the sound."""
        return self._pictures is not None

    def warn(self, line: str) -> None:
        """Pass on a warning, from any thread."""
        self._queue.put(line)

    def events(self) -> Iterator[Event]:
        """All events, as they become known; the counters come last. An error of the run is raised after them."""
        works: list[Callable[[], None]]
        if self._real_time:
            # Before the clock starts: loading the face finder takes up to a second.
            self.session.prepare()
            self._pace = Pace(self._clock or Clock(), self._stop)
            works = [self._push_sound] if self._pictures is None else [self._push_sound, self._push_pictures]
        else:
            works = [self._push_both]
        for work in works:
            self._threads.append(threading.Thread(target=self._guard, args=(work,), name=work.__name__, daemon=True))
            self._threads[-1].start()
        running, error = len(works), None
        while running and error is None:
            item = self._queue.get()
            if item is None:
                running -= 1
            elif isinstance(item, Exception):
                error = item
            else:
                yield from self._pass_on(item)
        yield from self.stop()
        if error is not None:
            raise error

    def end(self) -> None:
        """Let the run end soon, and `events` with it. Returns at once; may be called from any thread."""
        self._stop.set()

    def stop(self) -> list[Event]:
        """End the run now. Returns the events that were not read yet, the last final, and the counters."""
        self._halt()
        # The threads have ended here: a push after the end would be an error.
        self.session.finish()
        events: list[Event] = []
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                if isinstance(item, Event | str):
                    events += self._pass_on(item)
        return events

    def _halt(self) -> None:
        self.end()
        for thread in self._threads:
            thread.join()

    def _pass_on(self, item: Event | str) -> list[Event]:
        if isinstance(item, Event):
            if item.counters is not None and self._account is not None:
                # A file is mended by its reader, a live source by the session.
                of_file = {
                    name: max(value, item.counters.get(name, value)) for name, value in self._account.counters().items()
                }
                return [dataclasses.replace(item, counters=item.counters | of_file)]
            return [item]
        if self._on_warning is not None:
            self._on_warning(item)
        return []

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # `events` raises it in the reader's thread
            self._queue.put(error)
        else:
            self._queue.put(None)

    def _push_sound(self) -> None:
        assert self._pace is not None
        for block in self._pace.follow(self._sound):
            if block is not None:
                # What came while the work went on waits in the source.
                self.session.push_audio(block.samples, block.time_s, waiting_s=self._pace.lag_s)

    def _push_pictures(self) -> None:
        assert self._pace is not None
        for picture in self._pace.follow(self._safe_pictures()):
            if picture is not None:
                self.session.push_video(picture.rgb, picture.time_s)

    def _push_both(self) -> None:
        for item in in_order(self._until_the_end(self._sound), self._until_the_end(self._safe_pictures())):
            if isinstance(item, LiveSound):
                self.session.push_audio(item.samples, item.time_s)
            else:
                self.session.push_video(item.rgb, item.time_s)

    def _until_the_end(self, items: Iterable[Item | None]) -> Iterator[Item]:
        """The items without the Nones between them, until the run is to end."""
        for item in items:
            if self._stop.is_set():
                return
            if item is not None:
                yield item

    def _safe_pictures(self) -> Iterator[LivePicture | None]:
        """The pictures up to the first error of their source. The sound goes on without pictures."""
        try:
            yield from self._pictures or ()
        except AvsrError as error:
            self.warn(f"no more pictures, and from here on the sound alone: {error}")
