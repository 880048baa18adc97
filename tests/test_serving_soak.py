"""An honest client beside hostile ones, with a real server and a real model: a small run of the soak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[1] / "benchmarks" / "serving_soak.py"


@pytest.mark.slow
def test_all_words_come_beside_hostile_clients(tmp_path: Path, grid_tiny: Path) -> None:
    kinds, result = "pongs-before-hello+text-ff+nan-sound", tmp_path / "soak.json"
    command = [sys.executable, str(SOAK), "--only", kinds, "--seconds", "5", "--json", str(result)]
    environment = os.environ | {"PYTHONPATH": str(SOAK.parents[1]), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stderr
    runs = json.loads(result.read_text())
    assert [run["beside"] for run in runs] == ["nobody", kinds.replace("+", " + "), "nobody"]
    for run in runs:
        assert (run["words"], run["expected"], run["closed"], run["dropped_s"]) == (6, 6, "", 0.0)
    assert runs[1]["sent_mb"] > 0
