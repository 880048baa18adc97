"""A stand-in for a recogniser that streams: a word for every second of sound, without a model or a face finder.

What it is sent can ask for more: a first sample of 0.5 raises RuntimeError, 0.25 raises ConfigError.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

import numpy as np

from avsr.decoding.search import Search
from avsr.engine import Card
from avsr.errors import ConfigError
from avsr.lips.slots import LipSlot
from avsr.streaming.events import Event
from avsr.transcript import Word


class FakeSession:
    """One session.

    sound_s, picture_s: how long a call takes.
    talk: how many times as many events as usual.
    confidence: of each word.
    foreign: whether the last final takes all words back.
    """

    def __init__(
        self,
        *,
        video: bool,
        sound_s: float = 0.0,
        picture_s: float = 0.0,
        talk: int = 0,
        confidence: float | None = 0.8,
        foreign: bool = False,
    ) -> None:
        self.video, self.latency_ms = video, 360.0
        self._sound_s, self._picture_s, self._talk = sound_s, picture_s, talk
        self._confidence, self._foreign = confidence, foreign
        self._heard_s, self._words = 0.0, 0
        self._lost_s = 0.0
        self._end_s: float | None = None
        self._pictures: list[float] = []
        self._mode = ""
        self.recent_lips: list[LipSlot] = []
        self.is_closed = False
        self.threads: set[str] = set()

    @property
    def counters(self) -> dict[str, int]:
        pictures, samples = len(self._pictures), round(self._heard_s * 16000)
        return {"pictures": pictures, "used": pictures, "samples": samples, "samples_lost": round(self._lost_s * 16000)}

    def push_audio(self, samples: np.ndarray, t: float | None = None, *, waiting_s: float = 0.0) -> list[Event]:
        assert samples.dtype == np.float32
        self.threads.add(threading.current_thread().name)
        time.sleep(self._sound_s)
        if samples[0] == 0.5:
            raise RuntimeError("two and two is five")
        if samples[0] == 0.25:
            raise ConfigError("this cannot be", remedy="do something else")
        if t is not None and self._end_s is not None and t > self._end_s + 0.04:
            self._lost_s += t - self._end_s if t - self._end_s < 10 else 2  # as a real session does
        self._end_s = None if t is None else t + len(samples) / 16000
        self._heard_s += len(samples) / 16000
        events = []
        mode = "av" if self._pictures else "a"
        if mode != self._mode:
            self._mode = mode
            events.append(Event(event="mode", start=0.0, end=0.0, emitted=self._heard_s, text=mode, reason="ok"))
        if int(self._heard_s + 1e-6) > self._words:
            self._words += 1
            events.append(self._said("partial"))
        return events + [self._said("partial")] * self._talk

    def push_video(self, picture: np.ndarray, t: float) -> list[Event]:
        assert picture.dtype == np.uint8
        self.threads.add(threading.current_thread().name)
        time.sleep(self._picture_s)
        self._pictures.append(t)
        crop = np.full((96, 96), 7, np.uint8)
        self.recent_lips = [LipSlot(len(self._pictures), crop, True, "ok", 0)]
        return []

    def finish(self) -> list[Event]:
        self.is_closed = True
        now_s = self._heard_s
        counters = Event(event="counters", start=now_s, end=now_s, emitted=now_s, counters=self.counters)
        if self._foreign:
            return [Event(event="final", start=now_s, end=now_s, emitted=now_s, reason="foreign"), counters]
        return [self._said("final"), counters]

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_closed = True

    def _said(self, kind: str) -> Event:
        words = tuple(
            Word(word=f"word{number}", start=number, end=number + 0.9, confidence=self._confidence, modality="a")
            for number in range(self._words)
        )
        return Event(
            event=kind,  # type: ignore[arg-type]
            start=0.0,
            end=float(self._words),
            emitted=self._heard_s,
            text=" ".join(word.word for word in words),
            words=words,
            committed=len(words) - (kind == "partial"),
            reason="end" if kind == "final" else "",
        )


class FakeRecognizer:
    """As many sessions as are wanted, all with the same manners."""

    name = "fake"

    def __init__(self, *, domain: str = "open", **manners: Any) -> None:
        self.card = Card(self.name, "own", ("a", "v", "av"), domain=domain, chunks_ms=(320,))
        self._manners = manners
        self.sessions: list[FakeSession] = []

    def stream(
        self, *, chunk_ms: int, look_ahead_ms: int, video: bool, face: str, search: Search | None
    ) -> FakeSession:
        if chunk_ms != 320:
            raise ConfigError(f"chunk_ms {chunk_ms}", expected="320")
        self.sessions.append(FakeSession(video=video, **self._manners))
        return self.sessions[-1]
