"""The pool of processes: outcomes, reports, deaths, and that no process is left behind."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from avsr import processes
from avsr.errors import AvsrError, DataError
from avsr.processes import Crew, Report, map_in_order, run

LARGE = 5_000_000
"""Bytes: more than a pipe holds, so that sending them waits for a reader."""


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


# --- work; processes import it from here ---


def open_square() -> Callable[[int, Report], int]:
    return lambda item, report: item * item


def open_reporting() -> Callable[[int, Report], int]:
    def work(item: int, report: Report) -> int:
        report(("begun", item))
        report(("half done", item))
        return item * item

    return work


def open_failing_on_two() -> Callable[[int, Report], int]:
    def work(item: int, report: Report) -> int:
        if item == 2:
            raise ZeroDivisionError("two")
        return item * item

    return work


def open_data_error() -> Callable[[int, Report], int]:
    def work(item: int, report: Report) -> int:
        raise DataError("clip is damaged", got=item, expected="a clip", remedy="delete it")

    return work


def open_fatal_on_two() -> Callable[[int, Report], int]:
    def work(item: int, report: Report) -> int:
        if item == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item

    return work


def open_exiting_on_two() -> Callable[[int, Report], int]:
    def work(item: int, report: Report) -> int:
        if item == 2:
            sys.exit(7)
        return item * item

    return work


def open_dying_while_it_sends() -> Callable[[int, Report], bytes]:
    def work(item: int, report: Report) -> bytes:
        if item:
            return b"whole"
        report("soon")
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return bytes(LARGE)

    return work


def open_unpicklable() -> Callable[[int, Report], Any]:
    return lambda item, report: (lambda: item) if item == 2 else item


def open_nothing() -> Callable[[int, Report], int]:
    raise DataError("the work cannot be opened")


def open_and_die() -> Callable[[int, Report], int]:
    os._exit(3)


def open_pid() -> Callable[[int, Report], tuple[int, int]]:
    return lambda item, report: (item, os.getpid())


def open_meeting(folder: str) -> Callable[[int, Report], int]:
    def work(item: int, report: Report) -> int:
        Path(folder, str(item)).touch()
        end_s = time.monotonic() + 60
        while not Path(folder, str(1 - item)).exists():
            assert time.monotonic() < end_s, "the other item was not begun"
            time.sleep(0.02)
        return os.getpid()

    return work


def open_endless_but_for_zero() -> Callable[[int, Report], int]:
    def work(item: int, report: Report) -> int:
        if item:
            report("stuck")
            time.sleep(600)
        return item

    return work


def open_writing(folder: str) -> Callable[[int, Report], bytes]:
    """Work that takes half a second for all items but the first, writes a file and returns a large result."""

    def work(item: int, report: Report) -> bytes:
        report("begun")
        if item:
            time.sleep(0.5)
        Path(folder, str(item)).touch()
        return bytes(LARGE if item else 1)

    return work


def open_slow_first() -> Callable[[int], int]:
    def work(item: int) -> int:
        if item == 0:
            time.sleep(0.5)
        return item * 10

    return work


def open_failing_map() -> Callable[[int], int]:
    def work(item: int) -> int:
        if item == 1:
            raise DataError("one is wrong")
        return item

    return work


def open_environment() -> Callable[[int, Report], tuple[str | None, str | None]]:
    return lambda item, report: (os.environ.get("OMP_NUM_THREADS"), os.environ.get("ENTERED"))


def say_which(error: Exception) -> AvsrError:
    return DataError("explained", got=f"{type(error).__name__} {error}")


@contextlib.contextmanager
def enter() -> Iterator[None]:
    os.environ["ENTERED"] = "yes"
    yield


here_and_there = pytest.mark.parametrize("workers", [0, 2])


class TestOutcomes:
    @here_and_there
    def test_each_item_has_its_result(self, workers: int) -> None:
        outcomes = dict(run(open_square, range(7), Crew(workers=workers)))
        assert outcomes == {index: index * index for index in range(7)}

    def test_workers_work_at_the_same_time(self, tmp_path: Path) -> None:
        """Each item waits for the other one, so one process alone could do neither."""
        outcomes = dict(run(functools.partial(open_meeting, str(tmp_path)), [0, 1], Crew(workers=2)))
        assert len({os.getpid(), *outcomes.values()}) == 3

    def test_without_workers_it_is_this_process(self) -> None:
        assert dict(run(open_pid, [5], Crew(workers=0))) == {0: (5, os.getpid())}

    @here_and_there
    def test_no_items_no_outcomes(self, workers: int) -> None:
        assert list(run(open_square, [], Crew(workers=workers))) == []

    @here_and_there
    def test_reports_come_with_the_index_of_their_item(self, workers: int) -> None:
        reports: list[tuple[int, Any]] = []
        items = [10, 11, 12, 13]
        list(run(open_reporting, items, Crew(workers=workers), on_report=lambda *report: reports.append(report)))
        expected = [(i, (what, item)) for i, item in enumerate(items) for what in ("begun", "half done")]
        assert sorted(reports) == sorted(expected)
        for index in range(len(items)):  # in the order in which the work sent them
            assert [value[0] for i, value in reports if i == index] == ["begun", "half done"]

    def test_processes_have_their_threads_and_context(self) -> None:
        crew = Crew(workers=1, threads=3, around=enter)
        assert dict(run(open_environment, [0], crew)) == {0: ("3", "yes")}
        assert "ENTERED" not in os.environ

    def test_a_limit_of_the_user_holds_unless_the_work_needs_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "77")
        assert dict(run(open_environment, [0], Crew(workers=1))) == {0: ("77", None)}
        assert dict(run(open_environment, [0], Crew(workers=1, threads=1))) == {0: ("1", None)}


class TestErrors:
    @here_and_there
    def test_work_that_raises_costs_its_item_only(self, workers: int) -> None:
        outcomes = dict(run(open_failing_on_two, range(5), Crew(workers=workers)))
        error = outcomes.pop(2)
        assert str(error) == "unexpected ZeroDivisionError: got two"
        assert outcomes == {0: 0, 1: 1, 3: 9, 4: 16}

    @here_and_there
    def test_explain_makes_the_outcome(self, workers: int) -> None:
        outcomes = dict(run(open_failing_on_two, range(5), Crew(workers=workers, explain=say_which)))
        assert isinstance(outcomes[2], DataError)
        assert str(outcomes[2]) == "explained: got ZeroDivisionError two"
        assert outcomes[4] == 16

    @here_and_there
    def test_our_errors_arrive_whole(self, workers: int) -> None:
        [(_, error)] = run(open_data_error, [8], Crew(workers=workers))
        assert isinstance(error, DataError)
        assert str(error) == "clip is damaged: got 8, expected a clip; delete it"

    def test_an_error_without_a_message_is_named(self) -> None:
        assert str(processes.as_avsr_error(AssertionError())) == "unexpected AssertionError"

    def test_a_result_that_cannot_be_sent_costs_its_item_only(self) -> None:
        outcomes = dict(run(open_unpicklable, range(4), Crew(workers=1)))
        assert isinstance(outcomes[2], AvsrError) and "pickle" in str(outcomes[2])
        assert [outcomes[index] for index in (0, 1, 3)] == [0, 1, 3]

    @here_and_there
    def test_work_that_cannot_be_opened_raises(self, workers: int) -> None:
        with pytest.raises(DataError, match="the work cannot be opened"):
            list(run(open_nothing, range(3), Crew(workers=workers)))

    @here_and_there
    def test_an_error_of_the_listener_passes_unchanged(self, workers: int) -> None:
        error = ZeroDivisionError("of the listener")

        def listen(index: int, value: Any) -> None:
            raise error

        with pytest.raises(ZeroDivisionError) as caught:
            list(run(open_reporting, range(3), Crew(workers=workers), on_report=listen))
        assert caught.value is error


class TestDeaths:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_killed_process_costs_its_item_only(self, workers: int) -> None:
        outcomes = dict(run(open_fatal_on_two, range(6), Crew(workers=workers)))
        error = outcomes.pop(2)
        assert isinstance(error, AvsrError) and "its process died: got signal 9" in str(error)
        assert outcomes == {0: 0, 1: 1, 3: 9, 4: 16, 5: 25}

    def test_the_exit_code_is_named(self) -> None:
        outcomes = dict(run(open_exiting_on_two, [2, 3], Crew(workers=1)))
        assert "exit code 7" in str(outcomes[0])
        assert outcomes[1] == 9

    def test_a_death_in_the_middle_of_a_result_costs_its_item_only(self) -> None:
        def listen(index: int, value: Any) -> None:
            end_s = time.monotonic() + 10
            while multiprocessing.active_children() and time.monotonic() < end_s:  # nobody reads meanwhile
                time.sleep(0.02)

        outcomes = dict(run(open_dying_while_it_sends, [0, 1], Crew(workers=1), on_report=listen))
        assert isinstance(outcomes[0], AvsrError) and "signal 9" in str(outcomes[0])
        assert outcomes[1] == b"whole"

    def test_processes_that_die_before_they_can_work_raise(self) -> None:
        with pytest.raises(AvsrError, match="its process died: got exit code 3"):
            list(run(open_and_die, range(4), Crew(workers=2)))


class TestStop:
    def test_closing_early_ends_the_processes(self) -> None:
        outcomes = run(open_endless_but_for_zero, [1, 0, 0], Crew(workers=2))
        with contextlib.closing(outcomes):
            assert next(outcomes) == (1, 0)
            assert multiprocessing.active_children()  # one of them would sleep for ten minutes
        assert multiprocessing.active_children() == []

    @here_and_there
    def test_an_interrupt_ends_the_processes(self, workers: int) -> None:
        def listen(index: int, value: Any) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(run(open_endless_but_for_zero, [1, 1, 1], Crew(workers=workers), on_report=listen))
        assert multiprocessing.active_children() == []

    def test_finishes_lets_processes_end_their_items(self, tmp_path: Path) -> None:
        """The results are larger than a pipe, so processes can only end if the parent reads on."""
        begun: list[int] = []
        crew = Crew(workers=2, finishes=True)
        work = functools.partial(open_writing, str(tmp_path))
        outcomes = run(work, range(20), crew, on_report=lambda index, value: begun.append(index))
        with contextlib.closing(outcomes):
            for index, _ in outcomes:
                if index:
                    break
        done = {int(path.name) for path in tmp_path.iterdir()}
        assert set(begun) <= done
        assert len(done) < 20

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_killing_the_parent_ends_the_processes(self, tmp_path: Path) -> None:
        script = tmp_path / "parent.py"
        script.write_text(
            "import os, time\n"
            "from avsr.processes import Crew, run\n"
            "def work(item, report):\n"
            "    report(os.getpid())\n"
            "    time.sleep(600)\n"
            "def open_work():\n"
            "    return work\n"
            "if __name__ == '__main__':\n"
            "    show = lambda index, pid: print(pid, flush=True)\n"
            "    list(run(open_work, [0, 1], Crew(workers=2), on_report=show))\n"
        )
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        with subprocess.Popen(
            [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
        ) as parent:
            assert parent.stdout is not None
            pids = [int(parent.stdout.readline()) for _ in range(2)]
            assert all(is_running(pid) for pid in pids)
            parent.kill()
            end_s = time.monotonic() + 10
            while any(is_running(pid) for pid in pids) and time.monotonic() < end_s:
                time.sleep(0.05)
            left = [pid for pid in pids if is_running(pid)]
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        assert left == []


def is_running(pid: int) -> bool:
    """Whether the process still runs. One that has ended may be listed until its parent asks for its exit code."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


class TestMapInOrder:
    @here_and_there
    def test_results_are_in_the_order_of_items(self, workers: int) -> None:
        assert list(map_in_order(open_slow_first, range(6), workers)) == [0, 10, 20, 30, 40, 50]

    @here_and_there
    def test_an_error_raises(self, workers: int) -> None:
        results = map_in_order(open_failing_map, range(5), workers)
        with pytest.raises(DataError, match="one is wrong"):
            list(results)

    def test_closing_early_ends_the_processes(self) -> None:
        results = map_in_order(open_slow_first, range(50), 2)
        assert next(results) == 0
        results.close()
        assert multiprocessing.active_children() == []


class TestThreads:
    def test_the_limit_holds_for_torch_now_and_later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch = pytest.importorskip("torch")
        before = torch.get_num_threads()
        try:
            processes.limit_threads(1)
            assert torch.get_num_threads() == 1
        finally:
            torch.set_num_threads(before)
        monkeypatch.delitem(sys.modules, "torch")
        monkeypatch.setenv("OMP_NUM_THREADS", "8")
        processes.limit_threads(3)
        assert os.environ["OMP_NUM_THREADS"] == "3"

    def test_one_thread_restores_the_number(self) -> None:
        torch = pytest.importorskip("torch")
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(2)
            with processes.one_thread():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
