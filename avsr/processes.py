"""The same work on many items, here or in several processes, with results in the order of the items."""

from __future__ import annotations

import collections
import concurrent.futures
import concurrent.futures.process
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from avsr.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    open_work: Callable[[], Callable[[Item], Result]], items: Sequence[Item], workers: int
) -> Generator[Result, None, None]:
    """The result of each item, in order, while others are still being worked on.

    open_work: called once in each process; picklable. workers: processes; 0: none but this one. Raises what the work
    raises, and DataError where a process was killed. Closing it, or an interrupt, ends all processes.
    """
    if workers == 0:
        work = open_work()
        yield from map(work, items)
        return
    # Spawned, because forked processes hang where the parent has used MediaPipe, torch or ffmpeg threads.
    pool = concurrent.futures.ProcessPoolExecutor(
        max(1, min(workers, len(items))),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(open_work,),
    )
    running: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
    upcoming = iter(items)
    try:
        while True:
            for item in upcoming:
                running.append(pool.submit(_work_on, item))
                if len(running) > 4 * workers:
                    break
            if not running:
                return
            yield running.popleft().result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise DataError(
            "a process was killed", remedy="run it again, with fewer workers if memory was short"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_work: Callable[[Any], Any] | None = None


def _start(open_work: Callable[[], Callable[[Any], Any]]) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    threading.Thread(target=exit_with_parent, daemon=True).start()
    _work = open_work()


def _work_on(item: Any) -> Any:
    assert _work is not None
    return _work(item)


def exit_with_parent() -> None:
    """Wait for the parent to end, then end too: one that was killed says nothing, and its pool would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def limit_threads(count: int) -> None:
    """Let torch compute on `count` threads in this process, whether it is imported already or later."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)
    else:
        os.environ["OMP_NUM_THREADS"] = str(count)
