"""A real browser for tests: headless Chromium with a camera and a microphone made of files, driven by its DevTools.

It needs no driver program: DevTools speak JSON over a WebSocket, and the package `websockets` is there for the server.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
import wave
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
ALLOWED = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
"""Flags for a camera and a microphone whose use nobody is asked about."""


def find_browser() -> str:
    """The browser's program; skips the test where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    return found


def write_camera(path: Path, pictures: Iterable[np.ndarray], *, fps: int = 25) -> Path:
    """What the camera sees, over and over: pictures uint8 RGB [H, W, 3], even sides. Returns path (.y4m)."""
    with path.open("wb") as file:
        for number, rgb in enumerate(pictures):
            if number == 0:
                file.write(f"YUV4MPEG2 W{rgb.shape[1]} H{rgb.shape[0]} F{fps}:1 Ip A1:1 C420jpeg\n".encode())
            file.write(b"FRAME\n" + cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).tobytes())
    return path


def write_microphone(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    """What the microphone hears, once: float32 [S] in [-1, 1]. Returns path (.wav)."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


class Browser:
    """One page. A context manager; leaving it ends the browser with all its processes.

    folder: for its profile, empty. flags: of Chromium, beside those that are always needed.
    """

    def __init__(self, folder: Path, *, flags: Sequence[str] = ALLOWED, size: tuple[int, int] = (1280, 860)) -> None:
        from websockets.sync.client import connect

        self._ids = itertools.count(1)
        self.errors: list[str] = []
        always = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"]
        always += ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        always += ["--remote-debugging-port=0", f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}"]
        self._process = subprocess.Popen(
            [find_browser(), *always, *flags, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that all of its processes can be ended together
            env={**os.environ, "LANGUAGE": "en", "LC_ALL": "C.UTF-8"},
        )
        try:
            port = self._port(folder / "DevToolsActivePort")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=20) as answer:
                pages = [target for target in json.load(answer) if target["type"] == "page"]
            self._connection = connect(pages[0]["webSocketDebuggerUrl"], max_size=None, compression=None)
            self._socket = self._connection.__enter__()
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._connection.__exit__(kind, error, trace)
        finally:
            self._end()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of DevTools."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message}"
                return message["result"]
            self._note(message)

    def open(self, url: str) -> None:
        """Show a page, and wait until it has loaded."""
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'", 20)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, script: str, seconds: float) -> Any:
        """The value of an expression as soon as it is true."""
        end_s = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end_s, f"not within {seconds} s: {script}\n{self.text()}\n{self.errors}"
            time.sleep(0.1)
        return value

    def text(self) -> str:
        """All that the page shows."""
        return self.run("document.body.innerText")

    def screenshot(self, path: Path) -> Path:
        """Write what the window shows as PNG."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(message["params"]["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.errors.append(str(message["params"]["entry"]))

    def _port(self, path: Path) -> int:
        end_s = time.monotonic() + 40
        while time.monotonic() < end_s and self._process.poll() is None:
            if path.exists() and (lines := path.read_text().splitlines()):
                return int(lines[0])
            time.sleep(0.1)
        raise RuntimeError(f"the browser did not start: exit code {self._process.poll()}")

    def _end(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
