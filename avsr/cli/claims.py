"""Claims of a run on the results that it is working on, so that two runs into one folder share the work.

A claim is a lock on one byte of the record of the folder (`avsr.cli.sources`). It needs no file of its own, and the
system ends it with the process, even if that is killed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from pathlib import Path

from avsr.cli.sources import RECORD_NAME


class Claims:
    """The claims of one process on results in `folder`: one at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORD_NAME
        self._descriptor: int | None = None

    def take(self, stem: str, *, wait: bool = False) -> bool:
        """Give up the last claim and claim the results `stem`. False if another process has claimed them.

        wait: wait for the other process instead. Where the file system has no locks, everything is free.
        """
        self.give_up()
        # 56 bits: a number that every system takes as a place in a file.
        place = int.from_bytes(hashlib.sha256(os.fsencode(stem)).digest()[:7], "big")
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, place)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN) or self._descriptor is None
        return True

    def give_up(self) -> None:
        """End the claim."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.give_up()  # a program that calls the command keeps no claim
