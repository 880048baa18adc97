"""Microphone and camera as live sources, stamped with one monotonic clock.

A thread reads each device. It only stamps the sound and the pictures and stores them; recognition runs elsewhere.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsr.errors import MediaError
from avsr.grid import SAMPLE_RATE_HZ
from avsr.media.audio import Resampler
from avsr.streaming.source import BLOCK_S, Clock, LivePicture, LiveSound

MAX_WAITING_S = 10.0
"""Sound that may wait to be fetched. Later sound is lost until some is fetched; the time stamps show the gap."""

SILENT_S = 2.0
"""A microphone that gives no block for this long has gone."""

POLL_S = 0.25
"""A source that waits for its device gives None this often, so that its reader can stop."""

CLOSE_S = 2.0
"""How long closing waits for the camera's thread."""

RETRY_S = 1.0
"""Time between attempts to open a camera that has gone."""

logger = logging.getLogger(__name__)


class Microphone:
    """The sound of a PortAudio input. Use it as a context manager; it records from `__enter__` on.

    clock: gives the time stamps.
    device: number or part of the name, as `python -m sounddevice` lists them; None for the default.

    `__enter__` raises MediaError if there is no such device, or if sounddevice or PortAudio is not installed.
    """

    def __init__(self, clock: Clock, device: str | int | None = None) -> None:
        self._clock, self._device = clock, device
        self._waiting: queue.Queue[tuple[float, NDArray[np.float32]]] = queue.Queue(round(MAX_WAITING_S / BLOCK_S))
        self._stream: Any = None
        self._resampler: Resampler | None = None
        self._offset_s = math.inf

    def __enter__(self) -> Microphone:
        try:
            import sounddevice
        except ImportError:
            raise MediaError("the microphone needs the package sounddevice", remedy="pip install '.[mic]'") from None
        except OSError as error:
            raise MediaError(
                "the microphone needs the PortAudio library",
                got=error,
                remedy="install it; on Debian and Ubuntu: apt-get install libportaudio2",
            ) from None
        reason: Exception | None = None
        # A device that cannot record at 16 kHz is opened at its own rate, and its sound is resampled here.
        for rate in (SAMPLE_RATE_HZ, None):
            try:
                self._open(sounddevice, rate)
                return self
            except (sounddevice.PortAudioError, ValueError) as caught:  # ValueError: no device has this name
                reason = caught
        raise MediaError(
            "the microphone cannot be opened",
            got=reason,
            expected="an input of the sound system",
            remedy="python -m sounddevice lists them; name one with --mic-device NAME",
        )

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def _open(self, sounddevice: Any, rate: int | None) -> None:
        """Start recording at `rate`; None for the device's own rate. Raises PortAudioError, ValueError."""
        if rate is None:
            rate = round(sounddevice.query_devices(self._device, "input")["default_samplerate"])
            self._resampler = Resampler(rate)
        stream = sounddevice.InputStream(
            samplerate=rate,
            blocksize=round(BLOCK_S * rate),
            device=self._device,
            channels=1,
            dtype="float32",
            callback=self._take,
        )
        stream.start()
        self._stream = stream

    def _take(self, samples: NDArray[np.float32], count: int, times: Any, status: Any) -> None:
        """Called by PortAudio in a thread that must never wait."""
        if status:
            logger.debug("microphone: %s", status)
        # PortAudio has a clock of its own, and a varying time passes between its time stamp and this call. The smallest
        # difference seen so far is the best estimate of the offset between the two clocks.
        self._offset_s = min(self._offset_s, self._clock.now_s() - times.currentTime)
        time_s = times.inputBufferAdcTime + self._offset_s
        try:
            # PortAudio uses the array again after this call, so the samples are copied.
            self._waiting.put_nowait((time_s, samples[:, 0].copy()))
        except queue.Full:
            logger.debug("microphone: a block was not fetched in time")

    def sound(self) -> Iterator[LiveSound | None]:
        """Blocks of sound as they come; None now and then. Raises MediaError when the microphone has gone."""
        silent_s = 0.0
        while True:
            try:
                time_s, samples = self._waiting.get(timeout=POLL_S)
            except queue.Empty:
                silent_s += POLL_S
                if silent_s >= SILENT_S or not self._stream.active:
                    raise MediaError(
                        "the microphone has gone", got="no more sound from it", remedy="plug it in, and start again"
                    ) from None
                yield None
                continue
            silent_s = 0.0
            pieces = [samples] if self._resampler is None else list(self._resampler.push(samples))
            for piece in pieces:
                end_s = time_s + len(piece) / SAMPLE_RATE_HZ
                # A session refuses samples that are not finite.
                yield LiveSound(end_s, max(0.0, time_s), np.nan_to_num(piece))
                time_s = end_s


class Camera:
    """The pictures of a camera. Use it as a context manager.

    Only the newest picture waits to be fetched. If finding faces takes longer than a picture lasts, the pictures
    between are skipped, and no queue builds up. A camera that was unplugged is opened again when it is back.

    clock: gives the time stamps.
    number: N of /dev/videoN.
    on_warning: called with a line when the camera has gone and when it is back.

    `__enter__` raises MediaError if the camera cannot be opened.
    """

    def __init__(self, clock: Clock, number: int = 0, *, on_warning: Callable[[str], None] | None = None) -> None:
        self._clock, self._number, self._on_warning = clock, number, on_warning
        self._changed = threading.Condition()
        self._newest: LivePicture | None = None
        self._closed = threading.Event()
        self._capture: Any = None
        self._thread = threading.Thread(target=self._watch, name="camera", daemon=True)

    def __enter__(self) -> Camera:
        self._capture = self._open()
        if self._capture is None:
            raise MediaError(
                f"camera {self._number} cannot be opened",
                expected=f"a camera as /dev/video{self._number} that no other program uses",
                remedy="name another with --camera N, or leave --camera away",
            )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(CLOSE_S)
        if (
            self._capture is not None and not self._thread.is_alive()
        ):  # a thread that waits for an unplugged camera is still using it
            self._capture.release()

    def pictures(self) -> Iterator[LivePicture | None]:
        """The newest picture, as soon as it comes, never twice; None now and then while no picture comes."""
        while not self._closed.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None, POLL_S)
                picture, self._newest = self._newest, None
            yield picture

    def _open(self) -> Any:
        import cv2

        capture = cv2.VideoCapture(self._number, cv2.CAP_V4L2)
        if not capture.isOpened():
            capture.release()
            return None
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # an old picture is of no use
        return capture

    def _watch(self) -> None:
        import cv2

        has_gone = False
        while not self._closed.is_set():
            if self._capture is None:
                self._closed.wait(RETRY_S)
                self._capture = self._open()
                continue
            good, bgr = self._capture.read()
            now_s = self._clock.now_s()
            # Every read fails while a camera is gone; only the change is worth a line.
            if good == has_gone:
                has_gone = not good
                self._warn("has gone: the sound alone until it is back" if has_gone else "is back")
            if not good:
                self._capture.release()
                self._capture = None
                continue
            picture = LivePicture(now_s, now_s, np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8))
            with self._changed:
                self._newest = picture
                self._changed.notify()

    def _warn(self, what: str) -> None:
        if self._on_warning is not None:
            self._on_warning(f"camera {self._number} {what}")
