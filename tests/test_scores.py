"""Scores other than the word error rate, word times, long utterances, and results of different normalisers."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from avsr.arrays import Samples
from avsr.cli.main import main
from avsr.datasets.manifest import read_manifest, write_manifest
from avsr.engine import Card, Model, Search, Spoken
from avsr.errors import ConfigError, DataError
from avsr.evaluation.compare import compare
from avsr.evaluation.long_sounds import with_long_sounds
from avsr.evaluation.normalizers import find_normalizer
from avsr.evaluation.opened import ModelSource
from avsr.evaluation.report import write_report
from avsr.evaluation.results import Results, read_results
from avsr.evaluation.scores import SCORES
from avsr.evaluation.statistics import count_units
from avsr.evaluation.tables import Table, markdown
from avsr.evaluation.word_times import median_and_p90_ms, start_errors_ms
from avsr.grid import SAMPLE_RATE_HZ
from tests.corpus import make_corpus
from tests.evaluations import FUNCTIONS, evaluation, function, measured, tiny_model


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), count=8)


def korean_manifest(manifest: Path, folder: Path) -> Path:
    """The corpus with a Korean sentence in decomposed letters as the text of each utterance."""
    shutil.copytree(manifest.parent, folder)
    text = unicodedata.normalize("NFD", "오늘은 AI를 배웠습니다.")
    utterances = [dataclasses.replace(u, text=text, words=()) for u in read_manifest(manifest)]
    write_manifest(folder / "manifest.jsonl", utterances)
    return folder / "manifest.jsonl"


def plain_run(manifest: Path, output: Path, **more: object) -> Results:
    return measured(evaluation(manifest, function("loudest"), snrs_db=(None,), **more), output)  # type: ignore[arg-type]


class TestUnits:
    @pytest.mark.parametrize(
        ("score", "text", "expected"),
        [
            ("wer", "오늘은 ai를 ", ["오늘은", "ai를"]),
            ("cer_no_spaces", "오늘 ai\t를", ["오", "늘", "a", "i", "를"]),
            ("cer_no_spaces", "नम स्ते", ["न", "म", "स्", "ते"]),
            ("mixed_error_rate", "오늘은 ai를 open source로", ["오", "늘", "은", "ai", "를", "open", "source", "로"]),
            ("mixed_error_rate", "50퍼센트", ["50", "퍼", "센", "트"]),
            ("mixed_error_rate", "我用python写ひらカタ", ["我", "用", "python", "写", "ひ", "ら", "カ", "タ"]),
            ("mixed_error_rate", "just words", ["just", "words"]),
            ("mixed_error_rate", "", []),
        ],
    )
    def test_of_texts(self, score: str, text: str, expected: list[str]) -> None:
        assert SCORES[score].units(text) == expected

    @pytest.mark.parametrize(
        ("score", "reference", "hypothesis", "expected"),
        [
            ("cer_no_spaces", "한번 더", "한 번더", (3, 0)),
            ("cer_no_spaces", "한번 더", "한범 더", (3, 1)),
            ("wer", "한번 더", "한 번더", (2, 2)),
            ("mixed_error_rate", "오늘 open source를", "오늘 오픈 source를", (5, 2)),
            ("mixed_error_rate", "", "오늘 open", (0, 3)),
            ("mixed_error_rate", "오늘 open", "", (3, 3)),
        ],
    )
    def test_counts_by_hand(self, score: str, reference: str, hypothesis: str, expected: tuple[int, int]) -> None:
        assert count_units(score, reference, hypothesis) == expected


class TestResults:
    def test_korean_is_scored_by_syllables(self, manifest: Path, tmp_path: Path) -> None:
        korean = korean_manifest(manifest, tmp_path / "corpus")
        job = evaluation(korean, function("korean"), snrs_db=(None,), normalizer="mixed")
        results = measured(job, tmp_path / "run")
        assert results.utterances[0].reference == "오늘은 ai를 배웠습니다"  # composed: ten syllables
        (row,) = csv.DictReader((tmp_path / "run/results.csv").read_text().splitlines())
        # 오 늘 은 AI 를 배 웠 습 니 다, of which 웠 is lost and 습 another one
        assert float(row["mixed_error_rate"]) == pytest.approx(100 * 2 / 10)
        assert float(row["cer_no_spaces"]) == pytest.approx(100 * 2 / 11, abs=1e-3)
        assert float(row["wer"]) == 100.0
        assert results.rates([list(results.cells)])[0].percent == pytest.approx(20.0)
        assert compare(results, results).score.title == "mixed error rate"
        table = write_report(tmp_path / "run", results)
        assert "Mixed error rate in percent" in table and "Mixed error rate in noise" in page_of(tmp_path / "run")
        again = read_results(tmp_path / "run")
        assert again.rates([list(again.cells)]) == results.rates([list(results.cells)])
        (cell,) = json.loads((tmp_path / "run/results.json").read_text())["cells"]
        assert sum(cell["mixed_error_rate_errors"]) == 2 * len(results.utterances)

    def test_the_record_says_how_texts_were_scored(self, manifest: Path, tmp_path: Path) -> None:
        run = plain_run(manifest, tmp_path / "run", normalizer="korean").run
        assert run["normalizer"] == {"name": "korean", "version": find_normalizer("korean").version}
        assert run["score"] == "cer_no_spaces"
        assert run["search"] == Search("greedy", beam=1)._asdict()  # as it was used, not as it was asked for

    def test_other_normalisers_are_not_compared(self, manifest: Path, tmp_path: Path) -> None:
        one = plain_run(manifest, tmp_path / "one")
        other = plain_run(manifest, tmp_path / "other", normalizer="plain")
        assert one.utterances == other.utterances  # the references alone would not show it
        message = "scored with different normalisers: got none 1 and plain 1; evaluate both with the same --normalize"
        with pytest.raises(DataError, match=message):
            compare(one, other)
        with pytest.raises(DataError, match=message):
            write_report(tmp_path / "report", one, beside=[other])

    def test_older_results_have_the_normaliser_of_their_time(self, manifest: Path, tmp_path: Path) -> None:
        results = plain_run(manifest, tmp_path / "run")
        content = json.loads((tmp_path / "run/results.json").read_text())
        for key in ("normalizer", "score", "search"):
            del content["run"][key]
        names = []
        for normalize in (False, True):
            content["run"]["normalize"] = normalize
            (tmp_path / "run/results.json").write_text(json.dumps(content))
            old = read_results(tmp_path / "run")
            names.append((old.normalizer, old.score_name))
            assert old.rates([list(old.cells)]) == results.rates([list(results.cells)])
        assert names == [("none 1", "wer"), ("plain 1", "wer")]

    def test_a_language_that_the_model_does_not_know_is_refused(self, manifest: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="does not know the language: got ko"):
            plain_run(manifest, tmp_path / "run", search=Search(language="ko"))
        assert not (tmp_path / "run").exists()


def page_of(folder: Path) -> str:
    return (folder / "report.html").read_text()


class TestWordTimes:
    def test_errors_are_those_of_right_words(self) -> None:
        spoken = [("the", 0.1), ("Cat", 0.5), ("sat", 1.0), ("down", 1.5)]
        written = [("The", 0.2), ("hat", 0.5), ("cat,", 0.45), ("down", 1.5)]
        assert start_errors_ms(spoken, written, find_normalizer("plain").apply) == (100, -50, 0)
        assert start_errors_ms([("twenty", 1.0), ("five", 2.0)], [("25", 1.0)], find_normalizer("english").apply) == ()
        assert median_and_p90_ms(np.array([-10.0, 20.0, 30.0])) == pytest.approx((20.0, 28.0))
        assert median_and_p90_ms(np.zeros(0)) is None

    def test_they_reach_results_and_report(self, manifest: Path, tmp_path: Path) -> None:
        model = tiny_model(tmp_path / "tiny")
        job = evaluation(manifest, ModelSource(str(model), "cpu"), ("a", "av"), pictures=("intact",))
        results = measured(job, tmp_path / "run")
        right = {c: sum(count.hits for count in cell.counts) for c, cell in results.cells.items()}
        assert sum(right.values()) > 0
        assert {c: len(results.start_errors_ms([c])) for c in results.cells} == right
        again = read_results(tmp_path / "run")
        assert {c: cell.start_errors_ms for c, cell in again.cells.items() if right[c]} == {
            c: cell.start_errors_ms for c, cell in results.cells.items() if right[c]
        }
        write_report(tmp_path / "run", results)
        assert (
            "<h2>Word times</h2>" in page_of(tmp_path / "run")
            and "Word times:" in (tmp_path / "run/report.md").read_text()
        )
        row = next(csv.DictReader((tmp_path / "run/results.csv").read_text().splitlines()))
        expected = median_and_p90_ms(results.start_errors_ms([next(iter(results.cells))]))
        if expected:
            assert float(row["start_error_median_ms"]) == pytest.approx(expected[0])

    def test_a_model_without_times_has_none(self, manifest: Path, tmp_path: Path) -> None:
        results = plain_run(manifest, tmp_path / "run")
        write_report(tmp_path / "run", results)
        assert "Word times" not in page_of(tmp_path / "run")
        assert all(cell.start_errors_ms == () for cell in results.cells.values())


class Numbered:
    """An engine that says how long each sound is, in whole seconds, and keeps the longest."""

    longest_s = 0.0

    def encode_audio(self, samples: Sequence[Samples]) -> list[float]:
        lengths_s = [len(item) / SAMPLE_RATE_HZ for item in samples]
        self.longest_s = max(self.longest_s, *lengths_s)
        return lengths_s

    def encode_lips(self, crops: object, present: object, audio: object) -> object:
        raise NotImplementedError

    def decode(self, audio: list[float] | None, lips: object, search: Search) -> list[list[Spoken]]:
        return [[Spoken(f"{round(length_s)}", 0.1, 0.2, 1.0)] for length_s in audio or ()]


class TestLongSounds:
    def test_they_are_cut_as_files_are(self) -> None:
        engine = Numbered()
        card = Card("numbered", "test", ("a",), window_s=3.0, margin_s=1.0)
        whole = with_long_sounds(Model(card, engine))
        noise = np.random.default_rng(1).standard_normal(20 * SAMPLE_RATE_HZ).astype(np.float32) * 0.1
        sounds = [noise[: seconds * SAMPLE_RATE_HZ] for seconds in (2, 12, 5)]
        texts = [[word.word for word in words] for words in whole.decode(whole.encode_audio(sounds), None, Search())]
        assert texts[0] == ["2"] and texts[2] == ["5"]
        assert len(texts[1]) >= 1 and "12" not in texts[1]
        assert engine.longest_s == pytest.approx(5.0, abs=0.1)

    def test_a_model_of_lips_gets_everything_whole(self) -> None:
        engine = Numbered()
        for card in (Card("a", "test", ("a", "av"), window_s=3.0), Card("b", "test", ("v",), window_s=3.0)):
            assert with_long_sounds(Model(card, engine)) is engine


class TestCommand:
    def test_normalisers_have_names(self, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        common = f"evaluate {manifest} --split train --recognizer {FUNCTIONS}:loudest --workers 1 --quiet --snr clean"
        for words, name in (("", "none"), (" --normalize", "plain"), (" --normalize grid", "grid")):
            assert main(f"{common} -o {tmp_path / name}{words}".split()) == 0
            assert read_results(tmp_path / name).normalizer == f"{name} {find_normalizer(name).version}"
        capsys.readouterr()
        assert main(f"{common} -o {tmp_path / 'x'} --normalize plian".split()) == 2
        error = capsys.readouterr().err
        assert "got plian, expected one of none, plain" in error and error.count("\n") == 1
        assert main(f"{common} -o {tmp_path / 'x'} --language ko".split()) == 1
        assert "does not know the language: got ko" in capsys.readouterr().err
        assert main(f"{common} -o {tmp_path / 'x'} --normalize grid --beside {tmp_path / 'none'}".split()) == 1
        assert "scored with different normalisers: got grid 1 and none 1" in capsys.readouterr().err
        assert not (tmp_path / "x").exists()  # it fails before the work
        assert main(["compare", str(tmp_path / "none"), str(tmp_path / "grid")]) == 1
        assert "scored with different normalisers" in capsys.readouterr().err


def test_columns_are_aligned_whatever_the_script() -> None:
    lines = markdown(Table(["단어", "n"], [["a|b", "1"], ["한국어 ", "22"]], ["note"])).splitlines()
    assert lines == ["| 단어    | n   |", "|---------|-----|", "| a\\|b    | 1   |", "| 한국어  | 22  |", "", "note"]
