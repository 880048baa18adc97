"""tools/results_page.py: the numbers on the page are those of the evaluation."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from avsr.evaluation.conditions import CLEAN, INTACT, UNUSED, Condition
from avsr.evaluation.measure_tables import measure
from avsr.evaluation.results import Results, Spoken, make_cell
from avsr.evaluation.results_file import write_results
from avsr.evaluation.tables import markdown

RIGHT, WRONG, HALF = ["a b", "c d"], ["x y", "x y"], ["a y", "c y"]


def results() -> Results:
    """Half wrong by the lips; by the sound right but in noise; both better than either, but in loud white noise."""
    spoken = [Spoken("one", "a b", 1.0, "s1"), Spoken("two", "c d", 1.0, "s2")]
    said = {
        ("a", CLEAN, None, UNUSED): RIGHT,
        ("v", UNUSED, None, INTACT): HALF,
        ("av", CLEAN, None, INTACT): RIGHT,
        ("a", "babble", 0.0, UNUSED): WRONG,
        ("av", "babble", 0.0, INTACT): HALF,
        ("a", "babble", -10.0, UNUSED): WRONG,
        ("av", "babble", -10.0, INTACT): HALF,
        ("a", "white", 0.0, UNUSED): HALF,
        ("av", "white", 0.0, INTACT): RIGHT,
        ("a", "white", -10.0, UNUSED): HALF,
        ("av", "white", -10.0, INTACT): WRONG,
        ("av", CLEAN, None, "blur-8"): WRONG,
        ("av", "white", -10.0, "blur-8"): HALF,
    }
    cells = {
        Condition(modality, noise, level_db, video, None if level_db is None else 1): make_cell(
            spoken, texts, [level_db] * 2, [1.0] * 2
        )
        for (modality, noise, level_db, video), texts in said.items()
    }
    return Results.make({"system": {"name": "some"}, "split": "test"}, spoken, cells)


def test_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(__file__).resolve().parents[1] / "tools" / "results_page.py"
    spec = importlib.util.spec_from_file_location("results_page", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    write_results(tmp_path, results())
    monkeypatch.setattr("sys.argv", ["results_page.py", str(tmp_path), "--live", str(tmp_path)])
    module.main()
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    measures = measure(results())
    assert measures.lips is not None and markdown(measures.lips) in printed
    assert measures.people is not None and markdown(measures.people) in printed
    assert lines[0] == "# Word error rates of some" and "2 clips, 4 words, 1 seeds of noise." in lines
    assert "In noise: mean of babble, and white with half the weight." in lines
    # Babble counts twice beside white noise.
    assert "| clean | 0.0 [0.0, 0.0] | 50.0 [50.0, 50.0] | 0.0 [0.0, 0.0] |  |" in lines
    assert "| 0 dB | 83.3 [83.3, 83.3] | 50.0 [50.0, 50.0] | 33.3 [33.3, 33.3] | 60 % |" in lines
    assert "| -10 dB | 83.3 [83.3, 83.3] | 50.0 [50.0, 50.0] | 66.7 [66.7, 66.7] | 20 % |" in lines
    assert "| -10 dB | 100.0 / 50.0 | 50.0 / 100.0 |" in lines
    assert any(line.startswith("Lips are worth at least 10.0 dB at 0 dB") for line in lines)
    more = "cells audio-visual has more errors than audio only, in 1 of them beyond"
    assert any(f"In 1 of the 5 {more}" in line and "white -10 dB (+50.0 [50.0, 50.0])" in line for line in lines)
    damaged = "In 1 of the 2 cells of lost, covered, blurred and late lips audio-visual has more errors than audio only"
    assert any(line.startswith(damaged) and "blur-8, clean (+100.0 [100.0, 100.0])" in line for line in lines)
    names = ("audio only 0.0 [0.0, 0.0]", "lips only 50.0 [50.0, 50.0]", "audio-visual 0.0 [0.0, 0.0]")
    assert f"Live, in chunks of 320 ms, clean: {', '.join(names)}." in lines
