"""The process that this package runs in: whose it is, whether it was forked, and what other packages say about it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from avsr.errors import AvsrError

USER_VARIABLES = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""Where Python's `getpass.getuser` looks for a name before it asks the system."""

_computing_process: int | None = None
"""The process that first used a model. A forked process inherits the value."""


def start_computing() -> None:
    """Prepare this process for torch, CTranslate2 and MediaPipe. Call it before they are imported.

    Raises AvsrError in a process that was forked from one that used them, and if the current folder was removed.
    """
    global _computing_process
    require_own_process()
    require_folder()
    _computing_process = os.getpid()
    name_user()


def require_own_process() -> None:
    """Raises AvsrError in a process that was forked from one that had used a model.

    The libraries behind the models keep threads. A fork copies their locks but not the threads, so that the first use
    in the forked process waits for ever.
    """
    if _computing_process in (None, os.getpid()):
        return
    raise AvsrError(
        "this process was forked after its parent had used a model",
        remedy='fork before that, or start processes with multiprocessing.get_context("spawn"), and load the model in'
        " each",
    )


def require_folder() -> None:
    """Raises AvsrError if the current folder was removed.

    The arithmetic library of torch would end the process while it is loaded, with a message about another fault.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise AvsrError("the current folder was removed", remedy="change into another folder") from None


def name_user() -> None:
    """Give this process the name "uid-NUMBER" in LOGNAME if the system knows no name for its user.

    That is so in a container that runs with a number of its own choice. torch asks for a name when it chooses a folder
    for compiled code, and raises KeyError if there is none.
    """
    if any(map(os.environ.get, USER_VARIABLES)):
        return
    try:
        import pwd

        pwd.getpwuid(os.getuid())
    except (KeyError, ImportError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"


@contextlib.contextmanager
def quiet_matplotlib() -> Iterator[None]:
    """Hold back the notes of Matplotlib about folders that it cannot write while it is imported inside the block.

    MediaPipe imports it, although nothing is drawn. Without a folder for its fonts it makes a temporary one.
    """
    log = logging.getLogger("matplotlib")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
