"""The one pool of processes: the same work on many items, in this process or in several.

Processes are spawned, because MediaPipe, CUDA and ffmpeg threads hang or fail in forked ones. Each process opens its
work once and holds one item at a time, so memory does not grow with the number of items. If a process dies, its item is
lost and all others are done. Processes end when their parent ends, even if it is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from avsr.errors import AvsrError
from avsr.files import file_error

Item = TypeVar("Item")
Result = TypeVar("Result")

Report = Callable[[Any], None]
"""Sends the parent a value while an item is being worked on, such as its progress or a part of its result."""

STOP_TIMEOUT_S = 2.0

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crew:
    """How many processes work, and how."""

    workers: int
    """Number of processes; 0 to work in this process."""
    threads: int | None = None
    """Threads of torch in each process; None for an equal share of the cores, or OMP_NUM_THREADS if that is set. Does
    not apply to this process."""
    explain: Callable[[Exception], AvsrError] | None = None
    """Turns an error of the work into the outcome of the item; None for `as_avsr_error`. Picklable."""
    around: Callable[[], AbstractContextManager[Any]] | None = None
    """A context that each process enters before it opens its work, for example for logging. Picklable."""
    finishes: bool = False
    """Whether processes finish the items they hold when the work is stopped early; False ends them at once."""


def run(
    open_work: Callable[[], Callable[[Item, Report], Result]],
    items: Sequence[Item],
    crew: Crew,
    *,
    on_report: Callable[[int, Any], None] | None = None,
) -> Generator[tuple[int, Result | AvsrError], None, None]:
    """The index and the outcome of each item, in the order in which they are done.

    An outcome is the result, or an AvsrError if the work raised or its process died.

    open_work: makes the work; called once in each process. Picklable, as are items, reports and results.
    on_report: called in this process with the index of an item and a value that its work reported.

    Closing the iterator, or an interrupt, ends all processes. Raises the error of `open_work`, which several processes
    turn into an AvsrError; the error of `on_report`; and AvsrError if processes die before they can work.
    """
    report = on_report or _ignore
    if crew.workers == 0:
        yield from _run_here(open_work(), items, report, crew.explain)
        return
    waiting = deque(enumerate(items))
    busy: list[_Worker] = []
    leaving: list[_Worker] = []  # told to stop
    try:
        for _ in range(min(crew.workers, len(items))):
            busy.append(_start(open_work, crew))
        while busy:
            for ready in wait([worker.connection for worker in busy]):
                worker = next(worker for worker in busy if worker.connection is ready)
                try:
                    message = worker.connection.recv_bytes()
                except (EOFError, OSError):  # OSError: it died in the middle of a message
                    busy.remove(worker)
                    worker.connection.close()
                    death = _death(worker.process)
                    if worker.index is not None:
                        yield worker.index, death
                        # Another process takes its place: only the item that it held is lost.
                        if waiting:
                            busy.append(_start(open_work, crew))
                    elif waiting and not busy:
                        raise death from None  # it died while opening its work, as another one would
                    continue
                kind, value = pickle.loads(message)
                if kind == "unusable":
                    raise value
                if kind == "report":
                    if worker.index is not None:
                        report(worker.index, value)
                    continue
                if kind == "outcome" and worker.index is not None:
                    yield worker.index, value
                if waiting:
                    worker.index, item = waiting.popleft()
                    worker.send((item,))
                else:
                    worker.send(None)
                    busy.remove(worker)
                    leaving.append(worker)
    finally:
        for worker in busy:
            if crew.finishes:
                worker.send(None)
            else:
                worker.process.terminate()
        for worker in busy + leaving:
            if crew.finishes:
                worker.drain()
            worker.process.join(None if crew.finishes else STOP_TIMEOUT_S)
            if worker.process.is_alive():
                # terminate() may be ignored. A killed process is joined again, so that no zombie is left.
                worker.process.kill()
                worker.process.join()
            worker.connection.close()


def map_in_order(
    open_work: Callable[[], Callable[[Item], Result]], items: Sequence[Item], workers: int
) -> Generator[Result, None, None]:
    """The result of each item, in the order of the items, while later items are still being worked on.

    open_work: makes the work; called once in each process. Picklable, as are items and results.
    workers: number of processes; 0 to work in this process.

    Raises AvsrError for the first item that failed. Closing the iterator ends all processes.
    """
    held: dict[int, Result] = {}
    upcoming = 0
    outcomes = run(functools.partial(_without_reports, open_work), items, Crew(workers=workers))
    with contextlib.closing(outcomes):
        for index, outcome in outcomes:
            if isinstance(outcome, AvsrError):
                raise outcome
            held[index] = outcome
            while upcoming in held:
                yield held.pop(upcoming)
                upcoming += 1


def limit_threads(count: int) -> None:
    """Let torch compute on `count` threads in this process. Torch may be imported before or after the call."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)
    else:
        # torch reads this when it is imported. Importing it here would be a waste for work that needs no torch.
        os.environ["OMP_NUM_THREADS"] = str(count)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread inside the block. Does nothing if torch is not imported yet."""
    if "torch" not in sys.modules:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def as_avsr_error(error: Exception) -> AvsrError:
    """An AvsrError unchanged; an OSError with its file; any other error with its kind."""
    logger.debug("traceback", exc_info=error)
    if isinstance(error, AvsrError):
        return error
    if isinstance(error, OSError):
        return file_error(error)
    return AvsrError(f"unexpected {type(error).__name__}", got=error if str(error) else None)


@dataclasses.dataclass
class _Worker:
    """A process as its parent sees it."""

    process: BaseProcess
    connection: Connection
    """The parent's end of the pipe."""
    index: int | None = None
    """Of the item that the process holds; None if it holds no item."""

    def send(self, item: tuple[Any] | None) -> None:
        """Give the process its next item, or None to let it end."""
        try:
            self.connection.send(item)
        except ConnectionError:
            logger.debug("process %s died before it could be given work", self.process.pid)  # the next wait() tells

    def drain(self) -> None:
        """Read until the process ends: a process that sends a large result waits for a reader."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                self.connection.recv_bytes()


class _ReportError(BaseException):
    """Carries an error of the listener through the work. Not an Exception: `_attempt` must not make it an outcome."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _run_here(
    work: Callable[[Item, Report], Result],
    items: Sequence[Item],
    report: Callable[[int, Any], None],
    explain: Callable[[Exception], AvsrError] | None,
) -> Generator[tuple[int, Result | AvsrError], None, None]:
    def report_item(index: int, value: Any) -> None:
        try:
            report(index, value)
        except Exception as error:
            raise _ReportError(error) from None

    for index, item in enumerate(items):
        try:
            outcome = _attempt(work, item, functools.partial(report_item, index), explain)
        except _ReportError as failed:
            raise failed.error from None
        yield index, outcome


def _start(open_work: Callable[[], Any], crew: Crew) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, open_work, crew), daemon=True)
    with _interrupts_ignored():  # a process inherits this: Ctrl-C is for the parent, who then stops it
        process.start()
    theirs.close()  # so that the death of the process closes the pipe
    return _Worker(process, ours)


def _serve(connection: Connection, open_work: Callable[[], Callable[[Any, Report], Any]], crew: Crew) -> None:
    """The main function of a process: open the work, then do items until the parent sends None or is gone."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if crew.threads is not None or "OMP_NUM_THREADS" not in os.environ:  # a limit of the user's own holds
        limit_threads(crew.threads or max(1, (os.cpu_count() or 1) // crew.workers))
    with crew.around() if crew.around else contextlib.nullcontext():
        try:
            try:
                work = open_work()
            except Exception as error:
                connection.send(("unusable", (crew.explain or as_avsr_error)(error)))
                return
            connection.send(("ready", None))
            while (item := connection.recv()) is not None:
                outcome = _attempt(work, item[0], lambda value: connection.send(("report", value)), crew.explain)
                try:
                    connection.send(("outcome", outcome))
                except Exception as error:  # the result cannot be pickled, and nothing of it was sent
                    connection.send(("outcome", (crew.explain or as_avsr_error)(error)))
        except (EOFError, ConnectionError):
            logger.debug("nobody waits for this process any more")


def _attempt(
    work: Callable[[Item, Report], Result],
    item: Item,
    report: Report,
    explain: Callable[[Exception], AvsrError] | None,
) -> Result | AvsrError:
    try:
        return work(item, report)
    except Exception as error:  # also a fault of ours must not cost the other items
        return (explain or as_avsr_error)(error)


def _without_reports(open_work: Callable[[], Callable[[Item], Result]]) -> Callable[[Item, Report], Result]:
    work = open_work()
    return lambda item, report: work(item)


def _ignore(index: int, value: Any) -> None:
    """A listener that does nothing."""


def _death(process: BaseProcess) -> AvsrError:
    # The pipe closes a little before the exit code is known.
    process.join(STOP_TIMEOUT_S)
    code = process.exitcode
    signal_name = signal.strsignal(-code) if code is not None and code < 0 else None
    reason = f"signal {-code} ({signal_name})" if code is not None and signal_name else f"exit code {code}"
    return AvsrError(
        "its process died", got=reason, expected="a result", remedy="if memory ran out, use fewer --workers"
    )


def _exit_with_parent() -> None:
    """Wait until the parent has ended, then end this process: a killed parent cannot stop it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # sys.exit() would end this thread only.
        os._exit(1)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may change this
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
