"""Reports of an evaluation: tables, figures and the page."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import pytest

from avsr.datasets.manifest import read_manifest, write_manifest
from avsr.errors import DataError
from avsr.evaluation.conditions import Condition
from avsr.evaluation.figures import curves_of, with_whole_lips
from avsr.evaluation.opened import ModelSource
from avsr.evaluation.report import write_report
from avsr.evaluation.results import Results, Spoken, make_cell, read_results
from avsr.evaluation.statistics import snr_gain_db
from avsr.evaluation.tables import level_table
from tests.corpus import make_corpus
from tests.evaluations import all_modalities, evaluation, function, measured, tiny_model


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), count=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def whole(manifest: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the evaluation of the tiny model by all modalities."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    measured(all_modalities(manifest, model), output, command="avsr evaluate it")
    return output


def cells(row: str) -> list[str]:
    """The cells of a row of a Markdown table."""
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_what_lips_are_worth(manifest: Path, model: Path, tmp_path: Path) -> None:
    system = ModelSource(str(model), "cpu")
    levels = evaluation(manifest, system, ("a", "av"), snrs_db=(None, -10.0, 0.0), pictures=("intact",), seeds=(1,))
    results = measured(levels, tmp_path / "run")
    table = write_report(tmp_path / "run", results)
    found = re.search(r"At 0 dB lips are worth (?:at least )?(-?[\d.]+) dB: the SNR", table)
    assert found is not None
    rates = {
        curve.modality: [results.rates([with_whole_lips(curve, "white", level)])[0].percent for level in (-10.0, 0.0)]
        for curve in curves_of(results, ())
    }
    expected_db = snr_gain_db([-10.0, 0.0], rates["a"], rates["av"], 0.0)
    assert float(found[1]) == pytest.approx(expected_db, abs=0.06)


def test_the_mean_leaves_brown_out_and_says_so(tmp_path: Path) -> None:
    spoken = [Spoken("one", "a b c d", 1.0)]
    texts = {
        "babble": "x x x x",
        "environment": "a b x x",
        "white": "a x x x",
        "pink": "a b c x",
        "brown": "a b c d",
    }
    cells = {Condition("a", "clean", None, "unused", None): make_cell(spoken, ["a b c d"], [None], [1.0])}
    for noise, text in texts.items():
        cells[Condition("a", noise, 0.0, "unused", 1)] = make_cell(spoken, [text], [0.0], [1.0])
    table = level_table(curves_of(Results.make({"system": {"name": "some"}}, spoken, cells), ()))
    assert table.titles == ["", "audio only"]
    assert [row[1].split()[0] for row in table.rows] == ["0.0", f"{(100 + 50 + (75 + 25) / 2) / 3:.1f}"]
    said = "In noise: mean of babble, environment, and white and pink together, without brown; intact lips."
    assert said in table.notes
    only_brown = {condition: cell for condition, cell in cells.items() if condition.noise in ("clean", "brown")}
    table = level_table(curves_of(Results.make({"system": {"name": "some"}}, spoken, only_brown), ()))
    assert "In noise: mean of brown; intact lips." in table.notes and len(table.rows) == 2


def test_page_holds_everything_and_needs_nothing(manifest: Path, model: Path, whole: Path) -> None:
    results = read_results(whole)
    table = write_report(whole, results, media=all_modalities(manifest, model))
    page = (whole / "report.html").read_text()
    for title in ("noise", "Damage to the lips", "Confused", "Worst", "Speed", "To repeat this"):
        assert title in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:audio/mpeg") == page.count('class="strip"') > 0
    assert "avsr evaluate it" in page and results.run["system"]["weights_sha256"] in page
    rate = results.rates([results.clean("av")])[0]
    assert f"{rate.percent:.1f} [{rate.low:.1f}, {rate.high:.1f}]" in table
    assert table.strip() in (whole / "report.md").read_text()
    figures = {path.name: path.read_bytes()[:4] for path in (whole / "figures").iterdir()}
    assert figures["wer-snr.png"] == b"\x89PNG" and figures["wer-snr.pdf"] == b"%PDF"


def test_nobody_is_shown_without_media(whole: Path, tmp_path: Path) -> None:
    write_report(tmp_path, read_results(whole))
    page = (tmp_path / "report.html").read_text()
    assert "data:audio" not in page and "image/jpeg" not in page
    first = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    write_report(tmp_path, read_results(whole))
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}


def test_text_cannot_become_markup(manifest: Path, tmp_path: Path) -> None:
    shutil.copytree(manifest.parent, tmp_path / "corpus")
    utterances = [dataclasses.replace(u, text="<script>alert(1)</script> | x") for u in read_manifest(manifest)]
    write_manifest(tmp_path / "corpus/manifest.jsonl", utterances)
    job = evaluation(tmp_path / "corpus/manifest.jsonl", function("loudest"), snrs_db=(None,))
    write_report(tmp_path / "run", measured(job, tmp_path / "run"))
    assert "<script" not in (tmp_path / "run/report.html").read_text()


def test_others_stand_in_the_same_table(manifest: Path, whole: Path, tmp_path: Path) -> None:
    other = measured(evaluation(manifest, function("loudest")), tmp_path / "other")
    table = write_report(tmp_path / "report", read_results(whole), beside=[other])
    assert cells(table.splitlines()[0]) == [
        "", "audio only", "lips only", "audio-visual", "other_recognizers:loudest, audio only",
    ]  # fmt: skip
    rate = other.rates([other.clean("a")])[0]
    assert f"{rate.percent:.1f} [" in table.splitlines()[2].rsplit("|", 2)[1]
    fewer = measured(evaluation(manifest, function("loudest"), clips=2), tmp_path / "fewer")
    with pytest.raises(DataError, match="not evaluated on the same utterances"):
        write_report(tmp_path / "report", read_results(whole), beside=[fewer])


def test_whatever_is_measured_can_be_reported(manifest: Path, model: Path, tmp_path: Path) -> None:
    source = ModelSource(str(model), "cpu")
    for number, job in enumerate(
        (
            evaluation(manifest, source, ("v",), noises=(), snrs_db=(None,), pictures=("intact",)),
            evaluation(manifest, source, ("av",), snrs_db=(0.0,), pictures=("random-50",), seeds=(3,)),
            evaluation(manifest, source, ("a", "av"), snrs_db=(None,), pictures=("absent",), clips=1),
        )
    ):
        results = measured(job, tmp_path / str(number))
        table = write_report(tmp_path / str(number), results, media=job)
        assert cells(table.splitlines()[0])[0] == ""
