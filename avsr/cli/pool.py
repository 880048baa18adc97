"""Work on many files, here or in several processes; one file that fails, or kills its process, costs no other.

Processes are started afresh ("spawn"), because MediaPipe and CUDA hang or fail in forked ones. Each opens the model
once and holds one file at a time, so memory does not grow with the number of files.
"""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from avsr.cli.console import explain, messages_on_stderr
from avsr.errors import AvsrError
from avsr.transcript import Transcript

Work = Callable[[str, Callable[[float], None]], Transcript]
"""Transcribes one file, calling its second argument with the fraction done in [0, 1]."""

OnProgress = Callable[[int, float], None]
"""Called with the index of a file and the fraction of it that is done."""

Outcome = tuple[int, Transcript | AvsrError]
"""Index of a file, and its transcript or why there is none."""

STOP_TIMEOUT_S = 2.0

logger = logging.getLogger(__name__)


def run_here(open_work: Callable[[], Work], paths: Sequence[str], on_progress: OnProgress) -> Generator[Outcome]:
    """The outcome of each path, in order. Raises what `open_work` raises."""
    work = open_work()
    for index, path in enumerate(paths):
        yield index, _attempt(work, path, lambda fraction, index=index: on_progress(index, fraction))  # type: ignore[misc]


def run_in_processes(
    open_work: Callable[[], Work], paths: Sequence[str], on_progress: OnProgress, *, workers: int, debug: bool = False
) -> Generator[Outcome]:
    """The outcome of each path as it comes, from up to `workers` processes. Closing the iterator stops them.

    open_work: called once in each process; must be picklable. Raises AvsrError when it fails, or no process survives.
    """
    waiting = deque(enumerate(paths))
    crew: list[_Worker] = []
    leaving: list[_Worker] = []  # told to stop
    try:
        for _ in range(min(workers, len(paths))):
            crew.append(_start(open_work, workers, debug))
        while crew:
            for ready in wait([worker.connection for worker in crew]):
                worker = next(worker for worker in crew if worker.connection is ready)
                try:
                    kind, value = worker.connection.recv()
                except (EOFError, ConnectionError):
                    crew.remove(worker)
                    death = _death(worker.process)
                    if worker.index is not None:
                        yield worker.index, death
                        if waiting:
                            crew.append(_start(open_work, workers, debug))
                    elif waiting and not crew:
                        raise death from None  # died while opening the model, as another one would
                    continue
                if kind == "unusable":
                    raise value
                if kind == "progress":
                    if worker.index is not None:
                        on_progress(worker.index, value)
                    continue
                if kind == "outcome" and worker.index is not None:
                    yield worker.index, value
                if waiting:
                    worker.index, path = waiting.popleft()
                    worker.send(path)
                else:
                    worker.send(None)
                    crew.remove(worker)
                    leaving.append(worker)
    finally:
        for worker in crew:
            worker.process.terminate()
        for worker in crew + leaving:
            worker.process.join(STOP_TIMEOUT_S)
            if worker.process.is_alive():
                worker.process.kill()


@dataclasses.dataclass
class _Worker:
    """A process, our end of the pipe to it, and the index of the file it holds, if any."""

    process: BaseProcess
    connection: Connection
    index: int | None = None

    def send(self, path: str | None) -> None:
        try:
            self.connection.send(path)
        except ConnectionError:
            logger.debug("process %s died before it could be given work", self.process.pid)  # the next wait() tells


def _start(open_work: Callable[[], Work], workers: int, debug: bool) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    threads = max(1, (os.cpu_count() or 1) // workers)
    process = context.Process(target=_serve, args=(theirs, open_work, threads, debug), daemon=True)
    with _interrupts_ignored():  # a process inherits this: Ctrl-C is for us, who then stop it
        process.start()
    theirs.close()  # so that its death closes the pipe
    return _Worker(process, ours)


def _serve(connection: Connection, open_work: Callable[[], Work], threads: int, debug: bool) -> None:
    """Life of a worker process: open the model, then transcribe what comes until told to stop or left alone."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # read when torch is imported, in open_work
    with messages_on_stderr(debug=debug):
        try:
            try:
                work = open_work()
            except Exception as error:
                connection.send(("unusable", explain(error)))
                return
            connection.send(("ready", None))
            while (path := connection.recv()) is not None:
                outcome = _attempt(work, path, lambda fraction: connection.send(("progress", fraction)))
                connection.send(("outcome", outcome))
        except (EOFError, ConnectionError):
            logger.debug("nobody waits for this process any more")


def _attempt(work: Work, path: str, on_fraction: Callable[[float], None]) -> Transcript | AvsrError:
    try:
        return work(path, on_fraction)
    except Exception as error:  # also a fault of ours must not cost the other files
        return explain(error)


def _death(process: BaseProcess) -> AvsrError:
    process.join(STOP_TIMEOUT_S)
    code = process.exitcode
    signal_name = signal.strsignal(-code) if code is not None and code < 0 else None
    reason = f"signal {-code} ({signal_name})" if code is not None and signal_name else f"exit code {code}"
    return AvsrError(
        "its process died", got=reason, expected="a transcript", remedy="if memory ran out, use fewer --workers"
    )


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may change this
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
