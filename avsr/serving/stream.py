"""One client's session, with bounded queues and two threads: one for sound and one for pictures.

The threads never wait for the client, and the client never waits for the recogniser. If a queue is full, the oldest
items are dropped and counted, pictures before sound. So a client that sends too much harms only its own session.
"""

from __future__ import annotations

import base64
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from avsr.grid import SAMPLE_RATE_HZ, SLOT_S
from avsr.serving.limits import Limits, Meter
from avsr.serving.pictures import decode_jpeg
from avsr.serving.protocol import PictureMessage, RefusalError, SoundMessage

if TYPE_CHECKING:
    from avsr.lips.slots import LipSlot
    from avsr.streaming.events import Event

logger = logging.getLogger(__name__)

PIECE_SAMPLES = 1600
"""Larger blocks are pushed in pieces of 100 ms, so that the time of the session moves in small steps."""

MAX_BROKEN_PICTURES = 10
"""Broken pictures in a row that end the session."""

STATUS_S = 1.0
"""Time between two status events."""

_numbers = itertools.count(1)


class LiveSession(Protocol):
    """The part of `avsr.Session` that the server needs."""

    def push_audio(
        self, samples: npt.NDArray[np.float32], t: float | None = None, *, waiting_s: float = 0.0
    ) -> list[Event]: ...
    def push_video(self, picture: npt.NDArray[np.uint8], t: float) -> list[Event]: ...
    def finish(self) -> list[Event]: ...
    @property
    def counters(self) -> dict[str, int]: ...
    @property
    def latency_ms(self) -> float: ...
    @property
    def recent_lips(self) -> list[LipSlot]: ...
    def __enter__(self) -> LiveSession: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LiveStream:
    """A session and its threads.

    open_session: makes the session. It is called in the session's thread.
    on_document: called with each event for the client, a JSON object.
    on_end: called once, after the last event, with the error that ended the session, or None. A RefusalError comes
        after the words so far.

    Both callbacks are called from the threads and must not block.
    """

    def __init__(
        self,
        open_session: Callable[[], LiveSession],
        *,
        on_document: Callable[[dict[str, Any]], None],
        on_end: Callable[[BaseException | None], None],
        limits: Limits,
    ) -> None:
        self._open_session, self._on_document, self._on_end = open_session, on_document, on_end
        self._limits, self._meter = limits, Meter(limits)
        self._sound: deque[SoundMessage] = deque()
        self._sound_s = 0.0  # in the queue, in seconds
        self._pictures: deque[PictureMessage] = deque()
        self._wake = threading.Condition()
        self._finishing = self._closing = False
        self._dropped = {"pictures_dropped": 0, "pictures_broken": 0, "samples_dropped": 0}
        self._failure: BaseException | None = None
        self._started_s = time.monotonic()
        self._publishing = threading.Lock()
        self._status_due_s = 0.0
        self._last_slot = -1
        number = next(_numbers)
        self._sound_thread = threading.Thread(target=self._run_sound, name=f"avsr-sound-{number}", daemon=True)
        self._picture_thread_name = f"avsr-lips-{number}"

    # -- for the connection -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads."""
        self._sound_thread.start()

    def add(self, item: SoundMessage | PictureMessage) -> None:
        """Queue a block of sound or a picture. Never waits."""
        with self._wake:
            if self._finishing or self._closing:
                return
            if isinstance(item, PictureMessage):
                self._pictures.append(item)
                while len(self._pictures) > self._limits.queued_pictures:
                    self._pictures.popleft()
                    self._dropped["pictures_dropped"] += 1
            else:
                self._sound.append(item)
                self._sound_s += item.seconds
                while self._sound_s > self._limits.queued_sound_s:
                    oldest = self._sound.popleft()
                    self._sound_s -= oldest.seconds
                    self._dropped["samples_dropped"] += len(oldest.samples)
            self._wake.notify_all()

    def finish(self) -> None:
        """Nothing more comes: recognise the queued items, publish the last events, and end."""
        with self._wake:
            self._finishing = True
            self._wake.notify_all()

    def close(self) -> None:
        """End as soon as possible, without further events."""
        with self._wake:
            self._closing = True
            self._sound.clear()
            self._pictures.clear()
            self._wake.notify_all()

    # -- the threads --------------------------------------------------------------------------------------------------

    def _run_sound(self) -> None:
        try:
            with self._open_session() as session:
                # A face finder is bound to one thread, so all pictures of the session go through this one.
                picture_thread = threading.Thread(
                    target=self._run_pictures, args=(session,), name=self._picture_thread_name, daemon=True
                )
                picture_thread.start()
                try:
                    self._recognise_sound(session)
                except RefusalError as refusal:
                    self._failure = refusal
                finally:
                    self.finish()  # after an error too, the other thread must end before the session is closed
                    picture_thread.join()
                # A client that is refused keeps the words that it has said.
                if not self._closing:
                    self._publish(session, session.finish())
        except Exception as error:
            # An error of the pictures came first, and the client gets that one.
            self._failure = self._failure or error
        self._on_end(self._failure)

    def _recognise_sound(self, session: LiveSession) -> None:
        while (sound := self._next_sound()) is not None:
            for first in range(0, len(sound.samples), PIECE_SAMPLES):
                piece = sound.samples[first : first + PIECE_SAMPLES]
                time_s = sound.time_s + first / SAMPLE_RATE_HZ
                waiting_s = self._sound_s + (len(sound.samples) - first - len(piece)) / SAMPLE_RATE_HZ
                self._publish(session, session.push_audio(piece, time_s, waiting_s=waiting_s))
                self._check_silence(session)

    def _run_pictures(self, session: LiveSession) -> None:
        # The sound thread may wait for sound; both `finish` and `close` wake it, so that the session ends.
        try:
            self._recognise_pictures(session)
        except RefusalError as refusal:
            self._failure = refusal
            self.finish()
        except Exception as error:
            self._failure = error
            self.close()

    def _recognise_pictures(self, session: LiveSession) -> None:
        broken = 0
        while (picture := self._next_picture()) is not None:
            try:
                rgb = decode_jpeg(picture.jpeg)
            except ValueError as error:
                broken += 1
                with self._wake:
                    self._dropped["pictures_broken"] += 1
                if broken >= MAX_BROKEN_PICTURES:
                    raise RefusalError("malformed", f"pictures that cannot be read: {error}") from error
                continue
            broken = 0
            self._publish(session, session.push_video(rgb, picture.time_s))
            self._check_silence(session)

    def _check_silence(self, session: LiveSession) -> None:
        lost_s = session.counters.get("samples_lost", 0) / SAMPLE_RATE_HZ
        with self._wake:  # both threads check
            self._meter.silence(lost_s)

    def _next_sound(self) -> SoundMessage | None:
        with self._wake:
            while not self._sound:
                if self._finishing or self._closing:
                    return None
                self._wake.wait()
            sound = self._sound.popleft()
            self._sound_s -= sound.seconds
            return sound

    def _next_picture(self) -> PictureMessage | None:
        with self._wake:
            while True:
                if self._sound_s > self._limits.hurry_s:  # the sound has to catch up
                    self._dropped["pictures_dropped"] += len(self._pictures)
                    self._pictures.clear()
                if self._pictures:
                    return self._pictures.popleft()
                if self._finishing or self._closing:
                    return None
                self._wake.wait()

    # -- events for the client ----------------------------------------------------------------------------------------

    def _publish(self, session: LiveSession, events: list[Event]) -> None:
        # Both threads publish: without the lock, lips could be sent twice and words out of order.
        with self._publishing:
            if self._closing:
                return
            for event in events:
                document = event.document()
                if event.counters is not None:
                    document["counters"] = event.counters | self._dropped
                self._on_document(document)
            for slot in session.recent_lips:
                if slot.index > self._last_slot:
                    self._last_slot = slot.index
                    self._on_document(_lips_document(slot))
            now_s = time.monotonic()
            if now_s >= self._status_due_s:
                self._status_due_s = now_s + STATUS_S
                self._on_document(self._status(session, now_s))

    def _status(self, session: LiveSession, now_s: float) -> dict[str, Any]:
        counters = session.counters
        with self._wake:
            counters = counters | self._dropped
            backlog_s = self._sound_s
        return {
            "event": "status",
            "seconds": round(now_s - self._started_s, 1),
            "latency_ms": round(session.latency_ms, 1),
            "backlog_ms": round(1000 * backlog_s),
            "counters": counters,
        }


def _lips_document(slot: LipSlot) -> dict[str, Any]:
    import cv2

    document: dict[str, Any] = {"event": "lips", "time": round(slot.index * SLOT_S, 3)}
    document |= {"present": slot.present, "reason": slot.reason, "face": slot.face}
    if slot.present:
        document["png"] = base64.b64encode(cv2.imencode(".png", slot.crop)[1].tobytes()).decode()
    return document
