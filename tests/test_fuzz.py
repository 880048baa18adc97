"""The fuzzing command: a few runs of every kind, every input that was once a finding, and bad commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
FINDINGS = sorted((ROOT / "tests/fuzz_findings").glob("*.json"))
KINDS = ("media", "checkpoint", "nemo", "torch", "tokenizer", "yaml", "json", "safetensors", "whisper", "manifest")
KINDS += ("plan", "frames", "published")
RUNS, SEED = 6, 23
BAD_RECOGNIZERS = """
import os, sys, time
def hang(samples): time.sleep(100)
def crash(samples): os.abort()
def talk(samples): os.write(2, b"a C library speaks"); return "yes"
def leave(samples): open("more", "w").close(); return "yes"
def fail(samples): return [][1]
def grow(samples): held = bytearray(os.urandom(1)) * (3 << 30); return "yes"
"""


@pytest.fixture(scope="module")
def fuzz() -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "tools"))
    import fuzz

    yield fuzz
    sys.path.remove(str(ROOT / "tools"))


@pytest.fixture(scope="module")
def bases(fuzz: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AVSR_TEST_MEDIA", raising=False)  # the same inputs on every machine
        return fuzz.make_bases(tmp_path_factory.mktemp("fuzz") / "bases")


@pytest.fixture(scope="module")
def runner(fuzz: Any, bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with fuzz.Runner(fuzz.TOOL, bases, tmp_path_factory.mktemp("runs"), most_seconds=30) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind) for kind in KINDS])
def test_a_fixed_set_of_hostile_inputs_is_handled_well(kind: str, fuzz: Any, bases: Path, runner: Any) -> None:
    faults = {number: runner.run(fuzz.make_case(kind, SEED, number, bases)) for number in range(RUNS)}
    assert {number: outcome for number, outcome in faults.items() if outcome.fault} == {}


@pytest.mark.slow
@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in FINDINGS])
def test_what_was_a_finding_is_handled_well(path: Path, fuzz: Any, runner: Any) -> None:
    assert path.stat().st_size <= 2048
    outcome = runner.run(fuzz.Case.from_json(path.read_text()))
    assert outcome.fault == "", outcome.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("media", ["doctor", "input.mp4"]),
        ("media", ["doctor", "input.mpg"]),
        ("own", ["transcribe", "input.wav", "--model", "model"]),
        ("pieces", ["transcribe", "input.wav", "--model", "model"]),
        ("torch", ["front-end", "front.pth"]),
        ("published", ["transcribe", "input.wav", "--model", "model"]),
        ("corpus", ["noise", "render", "plan.jsonl", "--output-dir", "out", "--workers", "0"]),
        ("corpus", ["train", "training.yaml", "--dry-run"]),
        ("corpus", ["compare", "results", "results"]),
        ("installed", ["AVSR_MODELS=models", "models"]),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else value,
)
def test_a_base_works_before_it_is_changed(base: str, words: list[str], fuzz: Any, runner: Any) -> None:
    outcome = runner.run(fuzz.Case(base, words))  # changes of a base that is refused at once would reach nothing
    assert (outcome.fault, outcome.code) == ("", 0), outcome.stderr


def test_the_list_of_kinds_is_whole(fuzz: Any) -> None:
    assert set(KINDS) == set(fuzz.KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_kind_seed_and_number_give_the_same_input(kind: str, fuzz: Any, bases: Path, tmp_path: Path) -> None:
    for number in range(20):
        case = fuzz.make_case(kind, SEED, number, bases)
        assert case == fuzz.make_case(kind, SEED, number, bases)
        assert case == fuzz.Case.from_json(case.to_json())
    assert len({fuzz.make_case(kind, SEED, number, bases).to_json() for number in range(20)}) > 15
    case.write(bases, tmp_path / "case")
    for name, content in case.files.items():
        assert (tmp_path / "case" / name).read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "fault"),
    [
        ("talk", "stderr: a line that is not ours"),
        ("leave", "files left behind: more"),
        ("crash", "ended by signal 6"),
        ("hang", "took more than"),
        ("grow", "took"),
    ],
)
def test_a_bad_command_is_noticed(function: str, fault: str, fuzz: Any, bases: Path, tmp_path: Path) -> None:
    words = ["transcribe", "input.wav", "--model", f"function:bad.py:{function}"]
    case = fuzz.Case("own", words, {"bad.py": BAD_RECOGNIZERS.encode()})
    good = fuzz.Case("own", ["doctor", "input.wav"])
    with fuzz.Runner(fuzz.TOOL, bases, tmp_path, most_seconds=10 if function == "hang" else 60) as runner:
        assert runner.run(good).fault == ""
        assert runner.run(case).fault.startswith(fault)
        assert runner.run(good).fault == ""  # by another child if that one ended


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "fault"),
    [
        (0, "yes\n", "", ""),
        (1, "", "avsr: x: not a model\n", ""),
        (2, "", "avsr: wrong\n", "exit code 2"),
        (1, "", "avsr: unexpected KeyError: got 1\n", "stderr: unexpected"),
        (1, "", "Traceback (most recent call last):\n", "stderr: Traceback"),
        (1, "", "avsr: x: got unexpected end of data, expected a tar\n", ""),
        (0, "", "[mp3 @ 0x1] invalid\n", "stderr: a line that is not ours"),
        (1, "", "", "failed without a word"),
        (0, "a \x1b[2J b\n", "", "stdout: control characters"),
        (0, '{"start": NaN}\n', "", "stdout: NaN"),
    ],
)
def test_results_are_judged(code: int, stdout: str, stderr: str, fault: str, fuzz: Any) -> None:
    from fuzzing.runner import judge

    assert judge(code, stdout, stderr) == fault


def test_changes_of_containers_reach_their_fields(fuzz: Any, bases: Path) -> None:
    from fuzzing.containers import find_parts, with_checksums

    for name in ("input.mp4", "input.mkv", "input.avi", "input.wav", "input.ogg", "input.mov", "input.webm"):
        fields, parts = find_parts((bases / "media" / name).read_bytes())
        assert len(parts) > 2 and len(fields) > 3, name
    ogg = (bases / "media/input.ogg").read_bytes()
    assert with_checksums(ogg) == ogg  # libavformat computed the same ones


def test_hostile_documents_are_of_many_kinds(fuzz: Any) -> None:
    from fuzzing.mutations import json_text, yaml_text

    document = {"a": {"b": [1, 2.5, "c"]}, "d": True}
    for make in (yaml_text, json_text):
        texts = [make(document, Random(number)) for number in range(60)]
        assert len(set(texts)) > 30
        # Most pass for documents at first sight, and some are far too large.
        assert sum(b"2.5" in text for text in texts) > 10
        assert max(map(len, texts)) > 5000
