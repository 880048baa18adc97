"""Keeps the warnings of the JPEG decoder off the standard error output.

The decoder inside OpenCV writes a line to it for each damaged file, from C, and has no switch for that. A client could
fill the disk with such lines. While files are decoded, what anybody writes to the standard error output goes to a
buffer in memory. Known lines of the decoder are counted; everything else is written a moment later.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator

_KNOWN = re.compile(
    rb"(Corrupt JPEG data|Premature end of JPEG|Warning: unknown JFIF|Invalid SOS parameters|Inconsistent progression|"
    rb"Unknown Adobe color|Application transferred too many|\[ ?(WARN|ERROR):[^\n]*(loadsave|grfmt_jpeg|exif|imdecode))"
    rb"[^\n]*\n?"
)
_STDERR = 2


class DecoderWarnings:
    """Hides the warnings of all threads that decode inside `hidden`."""

    def __init__(self) -> None:
        self.count = 0
        """Warnings that were not written."""
        self._lock = threading.Lock()
        self._threads = 0
        self._buffer = self._stderr = -1

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """While this lasts, warnings of the decoder are counted and not written."""
        with self._lock:
            if self._threads == 0:
                self._redirect()
            self._threads += 1
        try:
            yield
        finally:
            with self._lock:
                self._threads -= 1
                if self._threads == 0:
                    self._restore()

    def _redirect(self) -> None:
        if self._buffer < 0:
            self._buffer = os.memfd_create("stderr")
        # A process without a standard error output has nothing to keep clean.
        with contextlib.suppress(OSError):
            self._stderr = os.dup(_STDERR)
            os.dup2(self._buffer, _STDERR)

    def _restore(self) -> None:
        if self._stderr < 0:
            return
        os.dup2(self._stderr, _STDERR)
        os.close(self._stderr)
        self._stderr = -1
        size = os.fstat(self._buffer).st_size
        if size:
            written = os.pread(self._buffer, size, 0)
            os.ftruncate(self._buffer, 0)
            os.lseek(self._buffer, 0, os.SEEK_SET)
            other, known = _KNOWN.subn(b"", written)
            self.count += known
            if other:
                os.write(_STDERR, other)


warnings = DecoderWarnings()
"""The one of this process, as there is one standard error output."""
