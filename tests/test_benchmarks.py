"""Every script of the repository starts: benchmarks, examples, experiments, recipes and tools."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks", "examples", "experiments", "recipes", "scripts", "tools")
SCRIPTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py"))
IMPORT = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='imported')"


@pytest.mark.slow
def test_every_script_starts() -> None:
    """Scripts with options answer --help; others can be imported."""
    with ThreadPoolExecutor(2) as pool:
        faults = [fault for fault in pool.map(fault_of, SCRIPTS) if fault]
    assert faults == []


def test_all_benchmarks_have_options() -> None:
    benchmarks = [path for path in SCRIPTS if path.parent.name == "benchmarks"]
    assert len(benchmarks) >= 10
    assert [path.name for path in benchmarks if not has_options(path)] == []


def has_options(path: Path) -> bool:
    return "argparse" in path.read_text(encoding="utf-8")


def fault_of(path: Path) -> str | None:
    """What is wrong with the start of a script; None if nothing is."""
    command = [str(path), "--help"] if has_options(path) else ["-c", IMPORT, str(path)]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(path.parent)))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    name = path.relative_to(ROOT)
    if done.returncode or "Traceback" in done.stderr:
        return f"{name}: exit code {done.returncode}: {done.stderr[-1000:]}"
    if has_options(path) and not done.stdout.startswith("usage:"):
        return f"{name}: got {done.stdout[:100]!r}, expected its usage"
    return None
