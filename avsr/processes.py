"""The one pool of processes: the same work on many items, here or in several processes.

Processes are started afresh ("spawn"), because MediaPipe, CUDA and ffmpeg threads hang or fail in forked ones. Each
opens its work once and holds one item at a time, so memory does not grow with the number of items. A process that dies
costs its item and no other; processes end with their parent, however it ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import multiprocessing
import os
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

Item = TypeVar("Item")
Result = TypeVar("Result")

Report = Callable[[Any], None]
"""Tells the parent something while an item is being worked on: its progress, or a part of its result."""

STOP_TIMEOUT_S = 2.0

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crew:
    """How many processes work, and how."""

    workers: int
    """Processes; 0: none but this one."""
    threads: int | None = None
    """Of torch in each process; None for a fair share of the cores. This process keeps its own."""
    explain: Callable[[Exception], AvsrError] | None = None
    """Makes an AvsrError of the error of an item; None keeps AvsrErrors and names others. Picklable."""
    around: Callable[[], AbstractContextManager[Any]] | None = None
    """Entered in each process around all its work, as for logging. Picklable."""
    finishes: bool = False
    """Whether processes finish their items when the work is stopped early, instead of being ended at once."""


def run(
    open_work: Callable[[], Callable[[Item, Report], Result]],
    items: Sequence[Item],
    crew: Crew,
    *,
    on_report: Callable[[int, Any], None] | None = None,
) -> Generator[tuple[int, Result | AvsrError], None, None]:
    """The outcome of each item as it comes: its index, and its result or the error.

    open_work: called once in each process; picklable.
    on_report: called with the index of an item and what its work reported.

    Closing the iterator, or an interrupt, ends all processes. Raises what `open_work` raises, and AvsrError when
    processes die before they can work.
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
                    kind, value = worker.connection.recv()
                except (EOFError, ConnectionError):
                    busy.remove(worker)
                    death = _death(worker.process)
                    if worker.index is not None:
                        yield worker.index, death
                        if waiting:
                            busy.append(_start(open_work, crew))
                    elif waiting and not busy:
                        raise death from None  # it died while opening its work, as another one would
                    continue
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
            worker.process.join(None if crew.finishes else STOP_TIMEOUT_S)
            if worker.process.is_alive():
                worker.process.kill()
            worker.connection.close()


def map_in_order(
    open_work: Callable[[], Callable[[Item], Result]], items: Sequence[Item], workers: int
) -> Generator[Result, None, None]:
    """The result of each item, in order, while others are still being worked on.

    open_work: called once in each process; picklable. workers: processes; 0: none but this one.

    Raises what the work raises, and AvsrError when a process is killed. Closing the iterator ends all processes.
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
    """Let torch compute on `count` threads in this process, whether it is imported already or later."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)
    else:
        os.environ["OMP_NUM_THREADS"] = str(count)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread inside the block, if it is imported by now."""
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
    """Any error as one of ours: an AvsrError unchanged, others named by their kind."""
    logger.debug("traceback", exc_info=error)
    return error if isinstance(error, AvsrError) else AvsrError(f"unexpected {type(error).__name__}", got=error)


@dataclasses.dataclass
class _Worker:
    """A process, our end of the pipe to it, and the index of the item it holds, if any."""

    process: BaseProcess
    connection: Connection
    index: int | None = None

    def send(self, item: tuple[Any] | None) -> None:
        try:
            self.connection.send(item)
        except ConnectionError:
            logger.debug("process %s died before it could be given work", self.process.pid)  # the next wait() tells


class _ReportError(BaseException):
    """Carries an error of the listener past the work: errors of the work itself are outcomes."""

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
    """Life of a process: open the work, then do items until told to stop or left alone."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
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
                connection.send(("outcome", outcome))
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
    """Takes reports when nobody listens."""


def _death(process: BaseProcess) -> AvsrError:
    process.join(STOP_TIMEOUT_S)
    code = process.exitcode
    signal_name = signal.strsignal(-code) if code is not None and code < 0 else None
    reason = f"signal {-code} ({signal_name})" if code is not None and signal_name else f"exit code {code}"
    return AvsrError(
        "its process died", got=reason, expected="a result", remedy="if memory ran out, use fewer --workers"
    )


def _exit_with_parent() -> None:
    """Wait for the parent to end, then end too: a parent that was killed cannot say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
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
