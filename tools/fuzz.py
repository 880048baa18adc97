"""Runs the commands of `avsr` on thousands of hostile inputs and reports bad ends.

    python tools/fuzz.py                                        # 200 runs over all kinds
    python tools/fuzz.py --kind media,yaml --runs 2000 --seed 7 --keep findings
    python tools/fuzz.py --kind media --seed 7 --only 1234      # one run again

Each run takes an input that works, changes it in a few places, and opens it with a real command in a child process. The
command must end with 0 or 1 within 60 s and 2 GB, write to standard error only lines of ours, without "unexpected" or a
traceback, print no control characters or NaN, and leave no files behind. Kind, seed and number give the same
input again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

TOOL = Path(__file__).resolve()
sys.path[:0] = [str(TOOL.parents[1]), str(TOOL.parent)]  # this checkout, whatever is installed

from fuzzing.cases import KINDS, Case, make_case  # noqa: E402
from fuzzing.runner import Outcome, Runner  # noqa: E402

MINIMISE_RUNS, MINIMISE_S = 24, 20.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print a table. Returns 1 if there is a finding, 2 for wrong usage."""
    arguments = _parser().parse_args(argv)
    if arguments.child is not None:
        from fuzzing.worker import work

        work(arguments.child)
        return 0
    if arguments.write_bases is not None:
        from fuzzing.bases import write_bases

        write_bases(arguments.write_bases)
        return 0
    numbers = range(arguments.runs) if arguments.only is None else [arguments.only]
    jobs = [(arguments.kind[number % len(arguments.kind)], number) for number in numbers]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        bases = make_bases(Path(folder, "bases"))
        return _run_all(jobs, arguments, bases, Path(folder))


def make_bases(folder: Path) -> Path:
    """The bases, written into a new folder by a process of its own. Importing torch here would double the memory."""
    folder.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(TOOL), "--write-bases", str(folder)], check=True, env=environment)
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Hostile inputs for the commands of avsr.")
    parser.add_argument(
        "--kind", type=_kinds, default=list(KINDS), metavar="LIST", help=f"of {','.join(KINDS)}; default all"
    )
    parser.add_argument("--runs", type=int, default=200, metavar="N", help="number of runs over all kinds; default 200")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another seed gives other inputs; default 1")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at the same time; default 1")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="only this run of the first kind")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write each finding into this folder")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--write-bases", type=Path, help=argparse.SUPPRESS)
    return parser


def _kinds(text: str) -> list[str]:
    kinds = text.split(",")
    for kind in kinds:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"got {kind!r}, expected {', '.join(KINDS)}")
    return kinds


def _run_all(jobs: list[tuple[str, int]], arguments: argparse.Namespace, bases: Path, folder: Path) -> int:
    results: dict[str, list[Outcome]] = defaultdict(list)
    start_s = time.monotonic()
    runners: SimpleQueue[Runner] = SimpleQueue()
    with ExitStack() as stack, ThreadPoolExecutor(arguments.jobs) as pool:
        for _ in range(arguments.jobs):
            runners.put(stack.enter_context(Runner(TOOL, bases, folder)))

        def run(job: tuple[str, int]) -> tuple[str, int, Outcome]:
            runner = runners.get()
            try:
                case = make_case(job[0], arguments.seed, job[1], bases)
                outcome = runner.run(case)
                if outcome.fault:
                    _report(job, arguments, *_smaller(case, outcome, runner))
                return *job, outcome
            finally:
                runners.put(runner)

        try:
            for done, (kind, _, outcome) in enumerate(pool.map(run, jobs), start=1):
                results[kind].append(outcome)
                _progress(done, len(jobs), time.monotonic() - start_s)
        except KeyboardInterrupt:  # the table then shows the runs so far
            pool.shutdown(cancel_futures=True)
    print(_table(results))
    return int(any(outcome.fault for outcomes in results.values() for outcome in outcomes))


def _smaller(case: Case, outcome: Outcome, runner: Runner) -> tuple[Case, Outcome]:
    """The same fault with a smaller input, if that is found soon."""
    if len(case.files) != 1 or outcome.seconds > 5 or case.words[0] == "clients":
        return case, outcome
    ((name, data),) = case.files.items()
    end_s, step = time.monotonic() + MINIMISE_S, len(data) // 2
    tries = start = 0
    while step >= 1 and tries < MINIMISE_RUNS and time.monotonic() < end_s:
        if start >= len(data):
            start, step = 0, step // 2
            continue
        attempt = replace(case, files={name: data[:start] + data[start + step :]})
        tries += 1
        again = runner.run(attempt)
        if again.fault == outcome.fault and again.stderr.split(":")[-1][:20] == outcome.stderr.split(":")[-1][:20]:
            case, data, outcome = attempt, attempt.files[name], again
        else:
            start += step
    return case, outcome


def _report(job: tuple[str, int], arguments: argparse.Namespace, case: Case, outcome: Outcome) -> None:
    kind, number = job
    changed = [*case.files, *(f"{name}={what}" for name, what in case.special.items())]
    lines = [
        f"FINDING {kind} {number}: {outcome.fault} ({outcome.seconds:.1f} s, {outcome.peak_mb:.0f} MB)",
        f"  again: python tools/fuzz.py --kind {kind} --seed {arguments.seed} --only {number}",
        f"  words: avsr {' '.join(case.words)}  [{', '.join(changed)}]",
        *(f"  stderr: {line[:300]!r}" for line in outcome.stderr.splitlines()[-3:]),
    ]
    _progress_off()
    print("\n".join(lines), flush=True)
    if arguments.keep is not None:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        name = f"{kind}-{arguments.seed}-{number}"
        (arguments.keep / f"{name}.json").write_text(case.to_json())
        (arguments.keep / f"{name}.txt").write_text("\n".join(lines) + "\n")


def _progress(done: int, total: int, seconds: float) -> None:
    if sys.stderr.isatty():
        left_s = round(seconds / done * (total - done))
        print(f"\r{done}/{total} runs, {left_s // 60}:{left_s % 60:02} left ", end="", file=sys.stderr, flush=True)


def _progress_off() -> None:
    if sys.stderr.isatty():
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)


def _table(results: dict[str, list[Outcome]]) -> str:
    _progress_off()
    rows = [
        f"{'kind':12} {'runs':>6} {'accepted':>9} {'refused':>8} {'findings':>9} {'longest s':>10} {'largest MB':>11}"
    ]
    everything = [outcome for outcomes in results.values() for outcome in outcomes]
    for kind, outcomes in [*results.items(), ("all", everything)]:
        good = [outcome for outcome in outcomes if not outcome.fault]
        accepted = sum(outcome.code == 0 for outcome in good)
        longest_s = max((outcome.seconds for outcome in outcomes), default=0.0)
        largest_mb = max((outcome.peak_mb for outcome in outcomes), default=0.0)
        rows.append(
            f"{kind:12} {len(outcomes):6} {accepted:9} {len(good) - accepted:8} {len(outcomes) - len(good):9}"
            f" {longest_s:10.1f} {largest_mb:11.0f}"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
