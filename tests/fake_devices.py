"""Stand-ins for a microphone and a camera, at the edge of the libraries that read them, and their fixtures."""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Callable

import cv2
import numpy as np
import pytest


class FakeInput:
    """Takes the place of sounddevice.InputStream: a 200 Hz tone in real time, until `unplugged` is set."""

    unplugged = threading.Event()
    rates = (16_000,)

    def __init__(
        self, samplerate: int, blocksize: int, device: object, channels: int, dtype: str, callback: Callable[..., None]
    ) -> None:
        if samplerate not in self.rates:
            raise FakePortAudioError("Invalid sample rate")
        self.active = True
        self._rate, self._block, self._callback = samplerate, blocksize, callback
        self._thread = threading.Thread(target=self._record, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self.active = False
        self._thread.join()

    def _record(self) -> None:
        position = 0
        started = time.monotonic()
        while self.active and not self.unplugged.is_set():
            position += self._block
            time.sleep(max(0.0, started + position / self._rate - time.monotonic()))
            tone = np.sin(400 * np.pi * np.arange(position - self._block, position) / self._rate)
            times = types.SimpleNamespace(
                currentTime=1000.0 + time.monotonic() - started,  # a clock of its own
                inputBufferAdcTime=1000.0 + (position - self._block) / self._rate,
            )
            self._callback(tone.astype(np.float32)[:, None], self._block, times, None)
        self.active = False


class FakePortAudioError(Exception):
    pass


class FakeCapture:
    """Takes the place of cv2.VideoCapture: 50 pictures a second while `plugged` is set."""

    plugged = threading.Event()
    taken = 0

    def __init__(self, number: int, api: int) -> None:
        self._open = self.plugged.is_set()

    def isOpened(self) -> bool:  # noqa: N802
        return self._open

    def set(self, name: int, value: float) -> bool:
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(0.02)
        if not self.plugged.is_set():
            return False, None
        type(self).taken += 1
        return True, np.full((48, 64, 3), (self.taken % 256, 0, 7), np.uint8)  # blue, green, red

    def release(self) -> None:
        self._open = False


@pytest.fixture
def microphone(monkeypatch: pytest.MonkeyPatch) -> type[FakeInput]:
    module = types.ModuleType("sounddevice")
    module.InputStream = FakeInput  # type: ignore[attr-defined]
    module.PortAudioError = FakePortAudioError  # type: ignore[attr-defined]
    module.query_devices = lambda device, kind: {"default_samplerate": 48_000.0}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    monkeypatch.setattr(FakeInput, "unplugged", threading.Event())
    monkeypatch.setattr(FakeInput, "rates", (16_000,))
    return FakeInput


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> type[FakeCapture]:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(FakeCapture, "plugged", threading.Event())
    monkeypatch.setattr(FakeCapture, "taken", 0)
    monkeypatch.setattr("avsr.streaming.devices.RETRY_S", 0.05)
    FakeCapture.plugged.set()
    return FakeCapture
