"""A session that runs on sources: the threads around it, and its events in one order.

    live = Live(recognizer, file_sound(path), file_pictures(path), real_time=True)
    for event in live.events():
        ...

In real time sound has a thread, and pictures, whose faces take long to find, have another; what they say meets in a
queue, so that a reader who stalls holds up neither. As fast as possible all work is done in one thread in the order of
arrival, and the result is the same every time. The caller's own thread only waits, and so Ctrl-C always finds a session
that can be finished.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from avsr.errors import AvsrError
from avsr.streaming.events import Event
from avsr.streaming.source import Clock, Pace, Picture, Sound, in_order

if TYPE_CHECKING:
    from avsr.recognizer import Recognizer


class Live:
    """One run of a session from the beginning of its sources to their end. A context manager that leaves no threads.

    pictures: None for sound alone. real_time: nothing is used before it arrives. clock: by which it arrives, None for
    one that begins with the first event that is asked for. on_warning: called with a line for what is wrong and does
    not stop it, from the thread that reads the events; pictures that break off are such a thing. options: those of
    `Session`. Raises what it does.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        sound: Iterable[Sound | None],
        pictures: Iterable[Picture | None] | None = None,
        *,
        real_time: bool = False,
        clock: Clock | None = None,
        on_warning: Callable[[str], None] | None = None,
        **options: Any,
    ) -> None:
        self._told: queue.SimpleQueue[Event | str | Exception | None] = queue.SimpleQueue()
        self.session = recognizer.stream(video=pictures is not None, on_event=self._told.put, **options)
        self._sound, self._pictures = sound, pictures
        self._real_time, self._clock, self._on_warning = real_time, clock, on_warning
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
        """How far the work is behind what has arrived, in real time."""
        return 0.0 if self._pace is None else self._pace.lag_s

    def warn(self, line: str) -> None:
        """Pass on a warning, from any thread."""
        self._told.put(line)

    def events(self) -> Iterator[Event]:
        """All events, as they become known; the last is the counters. Then raises the error that ended the sound."""
        works: list[Callable[[], None]]
        if self._real_time:
            self.session.prepare()
            self._pace = Pace(self._clock or Clock(), self._stop)
            works = [self._hear] if self._pictures is None else [self._hear, self._see]
        else:
            works = [self._hear_and_see]
        for work in works:
            self._threads.append(threading.Thread(target=self._guard, args=(work,), name=work.__name__, daemon=True))
            self._threads[-1].start()
        running, error = len(works), None
        while running and error is None:
            told = self._told.get()
            if told is None:
                running -= 1
            elif isinstance(told, Exception):
                error = told
            else:
                yield from self._pass_on(told)
        yield from self.stop()
        if error is not None:
            raise error

    def stop(self) -> list[Event]:
        """End it here: what was said and not yet read, the last final, and the counters."""
        self._halt()
        self.session.finish()
        events: list[Event] = []
        with contextlib.suppress(queue.Empty):
            while True:
                told = self._told.get_nowait()
                if isinstance(told, Event | str):
                    events += self._pass_on(told)
        return events

    def _halt(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _pass_on(self, told: Event | str) -> list[Event]:
        if isinstance(told, Event):
            return [told]
        if self._on_warning is not None:
            self._on_warning(told)
        return []

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whatever it is, the reader of the events has to hear of it
            self._told.put(error)
        else:
            self._told.put(None)

    def _hear(self) -> None:
        assert self._pace is not None
        for block in self._pace.follow(self._sound):
            if block is not None:
                self.session.push_audio(block.samples, block.time_s)

    def _see(self) -> None:
        assert self._pace is not None
        for picture in self._pace.follow(self._seen()):
            if picture is not None:
                self.session.push_video(picture.rgb, picture.time_s)

    def _hear_and_see(self) -> None:
        sound = (block for block in self._sound if block is not None)
        pictures = (picture for picture in self._seen() if picture is not None)
        for item in in_order(sound, pictures):
            if self._stop.is_set():
                return
            if isinstance(item, Sound):
                self.session.push_audio(item.samples, item.time_s)
            else:
                self.session.push_video(item.rgb, item.time_s)

    def _seen(self) -> Iterator[Picture | None]:
        try:
            yield from self._pictures or ()
        except AvsrError as error:
            self.warn(f"no more pictures, and from here on the sound alone: {error}")
