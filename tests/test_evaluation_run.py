"""Evaluations as a whole: the same numbers however the work is cut, results that hold all, reports, comparisons."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
from pathlib import Path

import jiwer
import numpy as np
import pytest
import torch

import avsr
from avsr.cli.main import main
from avsr.datasets.manifest import load_lips, load_samples, read_manifest, write_manifest
from avsr.decoding.greedy import greedy
from avsr.errors import AvsrError, ConfigError, DataError, ModelError
from avsr.evaluation.compare import compare
from avsr.evaluation.conditions import Condition
from avsr.evaluation.job import make_batches
from avsr.evaluation.opened import ModelSource
from avsr.evaluation.results import COLUMNS, Results, read_results
from avsr.evaluation.runner import evaluate
from avsr.evaluation.statistics import count_errors
from tests.corpus import make_corpus
from tests.evaluations import FUNCTIONS, all_modalities, evaluation, function, measured, tiny_model
from tests.tiny import engine_of


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), count=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def without_times(folder: Path) -> object:
    content = json.loads((folder / "results.json").read_text())
    for cell in content["cells"]:
        del cell["latency_ms"], cell["latencies_ms"]
    return content["utterances"], content["cells"], content["lips_effect"], content["people"]


@pytest.fixture(scope="module")
def whole(manifest: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the evaluation of the tiny model by all modalities, done in one go."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    measured(all_modalities(manifest, model), output, command="avsr evaluate it")
    return output


class TestNumbers:
    def test_texts_are_those_of_log_probs(self, manifest: Path, model: Path, whole: Path) -> None:
        results = read_results(whole)
        recognizer = avsr.load(model, device="cpu")
        utterances = sorted((u for u in read_manifest(manifest) if u.split == "train"), key=lambda u: u.id)
        assert [u.id for u in results.utterances] == [u.id for u in utterances]
        texts: dict[str, list[str]] = {"a": [], "v": [], "av": []}
        for first in range(0, len(utterances), 2):
            batch = utterances[first : first + 2]
            samples = [load_samples(u, manifest.parent) for u in batch]
            lips, presence = zip(*(load_lips(u, manifest.parent) for u in batch), strict=True)
            for modality, out in (
                ("a", recognizer.log_probs(samples)),
                ("v", recognizer.log_probs(None, lips, presence)),
                ("av", recognizer.log_probs(samples, lips, presence)),
            ):
                for item in out:
                    units = greedy(item, recognizer.model.network.blank_id)
                    texts[modality].append(engine_of(recognizer).tokenizer.decode(units))
        clean = {"a": ("clean", "unused"), "v": ("unused", "intact"), "av": ("clean", "intact")}
        for modality, (noise, video) in clean.items():
            cell = results.cells[Condition(modality, noise, None, video, None)]  # type: ignore[arg-type]
            assert list(cell.hypotheses) == texts[modality]
        assert len({text for found in texts.values() for text in found}) > 5  # they are not all alike

    def test_absent_lips_are_the_sound_alone(self, whole: Path) -> None:
        results = read_results(whole)
        absent = [c for c in results.cells if c.video == "absent"]
        assert len(absent) == 3
        for condition in absent:
            alone = results.cells[Condition("a", condition.noise, condition.snr_db, "unused", condition.seed)]
            assert results.cells[condition].hypotheses == alone.hypotheses

    def test_noise_is_at_its_level(self, whole: Path) -> None:
        for condition, cell in read_results(whole).cells.items():
            for achieved in cell.achieved_snr_db:
                assert (achieved is None) == (condition.snr_db is None)
                if achieved is not None and condition.snr_db is not None:
                    assert achieved == pytest.approx(condition.snr_db, abs=0.01)

    def test_rates_are_jiwers_over_the_rows(self, whole: Path) -> None:
        results = read_results(whole)
        rows = list(results.rows())
        assert len(rows) == len(results.cells) * len(results.utterances)
        table = list(csv.DictReader((whole / "results.csv").read_text().splitlines()))
        assert list(table[0]) == COLUMNS
        assert len(table) == len(results.cells)
        for line, condition in zip(table, results.cells, strict=True):
            mine = [row for row in rows if all(row[key] == value for key, value in condition._asdict().items())]
            references, hypotheses = [row["reference"] for row in mine], [row["hypothesis"] for row in mine]
            assert float(line["wer"]) == pytest.approx(100 * jiwer.wer(references, hypotheses), abs=1e-4)
            assert float(line["cer"]) == pytest.approx(100 * jiwer.cer(references, hypotheses), abs=1e-4)
            assert float(line["wer_low"]) <= float(line["wer"]) <= float(line["wer_high"])
            assert (int(line["clips"]), int(line["words"])) == (6, 18)
            for row in mine:
                counts = count_errors(row["reference"], row["hypothesis"])
                assert (row["hits"], row["insertions"]) == (counts.hits, counts.insertions)

    def test_n_wer_is_the_mean_over_noises_and_levels(self, manifest: Path, tmp_path: Path) -> None:
        levels = (None, 20.0, 10.0, 5.0, 0.0, -5.0, -10.0)
        results = measured(
            evaluation(manifest, function("loudest"), noises=("white", "pink"), snrs_db=levels), tmp_path / "run"
        )
        rows = list(csv.DictReader((tmp_path / "run/results.csv").read_text().splitlines()))
        wanted = [float(row["wer"]) for row in rows if row["snr_db"] in ("-10", "-5", "0", "5", "10")]
        assert len(wanted) == 2 * 5 * 2  # noises, levels, seeds
        found = results.n_wer("a")
        assert found is not None
        assert found[0].percent == pytest.approx(np.mean(wanted), abs=1e-3)
        assert found[1] == ("white", "pink")
        assert results.n_wer("av") is None


class TestWork:
    def test_shards_give_the_same(self, manifest: Path, model: Path, whole: Path, tmp_path: Path) -> None:
        job = all_modalities(manifest, model)
        first = evaluate(job, tmp_path / "run", workers=1, shard=(1, 2))
        assert first.results is None and first.missing > 0
        assert not (tmp_path / "run/results.json").exists()
        assert evaluate(job, tmp_path / "run", workers=1, shard=(2, 2)).results is not None
        assert without_times(tmp_path / "run") == without_times(whole)

    def test_shards_of_several_machines_are_put_together(
        self, manifest: Path, model: Path, whole: Path, tmp_path: Path
    ) -> None:
        job = all_modalities(manifest, model)
        for index in (1, 2, 3):
            evaluate(job, tmp_path / f"host{index}", workers=1, shard=(index, 3))
        for index in (2, 3):
            shutil.copy(tmp_path / f"host{index}/units/shard-{index}-of-3.jsonl", tmp_path / "host1/units")
        steps: list[str] = []
        measured(job, tmp_path / "host1", on_progress=lambda _, what: steps.append(what))
        assert steps == []  # nothing was left to do
        assert without_times(tmp_path / "host1") == without_times(whole)

    @pytest.mark.slow
    def test_processes_give_the_same(self, manifest: Path, model: Path, whole: Path, tmp_path: Path) -> None:
        assert evaluate(all_modalities(manifest, model), tmp_path / "run", workers=2).results is not None
        assert without_times(tmp_path / "run") == without_times(whole)

    def test_order_of_the_manifest_does_not_matter(
        self, manifest: Path, model: Path, whole: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(manifest.parent, tmp_path / "corpus")
        write_manifest(tmp_path / "corpus/manifest.jsonl", reversed(read_manifest(manifest)))
        measured(all_modalities(tmp_path / "corpus/manifest.jsonl", model), tmp_path / "run")
        assert without_times(tmp_path / "run") == without_times(whole)

    @pytest.mark.parametrize("after", [1, 4, 9])
    def test_interrupted_goes_on_with_the_same_numbers(
        self, after: int, manifest: Path, model: Path, whole: Path, tmp_path: Path
    ) -> None:
        class Interruption(BaseException):  # noqa: N818
            pass

        steps = 0

        def interrupt(fraction: float, what: str) -> None:
            nonlocal steps
            steps += "steps" in what
            if steps == after:
                raise Interruption

        job = all_modalities(manifest, model)
        with pytest.raises(Interruption):
            evaluate(job, tmp_path / "run", workers=1, on_progress=interrupt)
        units = tmp_path / "run/units/shard-1-of-1.jsonl"
        done = units.read_bytes()
        units.write_bytes(done + b'{"batch": 0, "un')  # as a kill leaves it
        fractions: list[float] = []
        measured(job, tmp_path / "run", on_progress=lambda fraction, _: fractions.append(fraction))
        assert units.read_bytes().startswith(done)
        assert without_times(tmp_path / "run") == without_times(whole)
        assert fractions == sorted(fractions) and fractions[-1] == 1.0

    def test_finished_is_left_as_it_is(self, manifest: Path, model: Path, whole: Path) -> None:
        before = (whole / "results.json").read_bytes()
        measured(all_modalities(manifest, model), whole)
        assert (whole / "results.json").read_bytes() == before

    def test_the_record_names_the_build_of_torch(self, whole: Path) -> None:
        assert read_results(whole).run["versions"]["torch"] == torch.__version__

    def test_a_folder_belongs_to_one_evaluation(self, manifest: Path, model: Path, whole: Path, tmp_path: Path) -> None:
        other = dataclasses.replace(all_modalities(manifest, model), batch_size=3)
        with pytest.raises(ConfigError, match="holds another evaluation: batch_size: got 3, expected 2"):
            evaluate(other, whole, workers=1)
        (tmp_path / "letters").mkdir()
        (tmp_path / "letters/dear.txt").touch()
        with pytest.raises(ConfigError, match="holds no evaluation"):
            evaluate(other, tmp_path / "letters", workers=1)

        with pytest.raises(ConfigError, match="is a file, not a folder"):
            evaluate(other, tmp_path / "letters/dear.txt", workers=1)

    def test_two_runs_in_one_folder_are_refused(self, manifest: Path, tmp_path: Path) -> None:
        job = evaluation(manifest, function("loudest"))

        def start_another(fraction: float, what: str) -> None:
            if "steps" in what:
                evaluate(job, tmp_path / "run", workers=1)

        with pytest.raises(ConfigError, match="another run is writing"):
            evaluate(job, tmp_path / "run", workers=1, on_progress=start_another)

    def test_damaged_units_are_named(self, manifest: Path, tmp_path: Path) -> None:
        job = evaluation(manifest, function("loudest"))
        measured(job, tmp_path / "run")
        path = tmp_path / "run/units/shard-1-of-1.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([lines[0], "nonsense\n", *lines[2:]]))
        with pytest.raises(DataError, match="shard-1-of-1.jsonl:2: damaged"):
            measured(job, tmp_path / "run")

    def test_nothing_is_left_behind_where_it_cannot_start(self, manifest: Path, tmp_path: Path) -> None:
        for job, message in (
            (evaluation(manifest, function("loudest"), noises=("traffic",)), "no recordings for the noise 'traffic'"),
            (evaluation(manifest, function("loudest"), split="tarin"), "did you mean train"),
            (evaluation(manifest, function("loudest"), ("av",)), "cannot do modality av"),
            (evaluation(tmp_path / "none.jsonl", function("loudest")), "cannot read the manifest"),
        ):
            with pytest.raises(AvsrError, match=message):
                evaluate(job, tmp_path / "run", workers=1)
            assert not (tmp_path / "run").exists()

    def test_a_part_gets_the_noise_it_gets_in_all(self, manifest: Path, tmp_path: Path) -> None:
        every = measured(evaluation(manifest, function("loudest")), tmp_path / "every")
        some = measured(evaluation(manifest, function("loudest"), clips=3), tmp_path / "some")
        assert len((tmp_path / "some/noise.jsonl").read_text().splitlines()) == 1 + 3 * 3  # clean, two seeds
        for condition, cell in some.cells.items():
            assert cell.hypotheses == every.cells[condition].hypotheses[::2]

    def test_clips_are_evenly_spread_and_batches_do_not_mix(self, manifest: Path, tmp_path: Path) -> None:
        results = measured(evaluation(manifest, function("loudest"), clips=3), tmp_path / "run")
        assert [u.id for u in results.utterances] == ["t1/u0", "t1/u2", "t1/u4"]
        some = read_manifest(manifest)[:5]
        some[3:] = [dataclasses.replace(u, audio=None) for u in some[3:]]
        assert make_batches(some, 4) == [[0, 1, 2], [3, 4]]
        long = [dataclasses.replace(u, duration=70.0) for u in some[:2]]
        assert make_batches(long, 4) == [[0], [1]]


class TestSystems:
    def test_nobody_is_dropped_for_lack_of_sound_or_lips(self, manifest: Path, tmp_path: Path) -> None:
        shutil.copytree(manifest.parent, tmp_path / "corpus")
        utterances = read_manifest(manifest)[:3]
        utterances[0] = dataclasses.replace(utterances[0], audio=None)
        utterances[1] = dataclasses.replace(utterances[1], video=None, fps=0.0, coverage=0.0)
        utterances[2] = dataclasses.replace(utterances[2], absent=((0, 30, "no_face"),))
        write_manifest(tmp_path / "corpus/manifest.jsonl", utterances)
        job = evaluation(
            tmp_path / "corpus/manifest.jsonl",
            function("both"),
            ("a", "v", "av"),
            snrs_db=(None,),
            pictures=("intact",),
        )
        results = measured(job, tmp_path / "run")
        texts = {condition.modality: cell.hypotheses for condition, cell in results.cells.items()}
        assert texts == {
            "a": ("", "19200 none", "19200 none"),
            "v": ("none 30 30", "", ""),
            "av": ("none 30 30", "19200 none", "19200 30 0"),
        }
        assert len(results.utterances) == 3

    def test_empty_texts_are_deletions(self, manifest: Path, tmp_path: Path) -> None:
        results = measured(evaluation(manifest, function("nothing"), snrs_db=(None,)), tmp_path / "run")
        assert results.rates([list(results.cells)])[0] == (100.0, 100.0, 100.0)

    def test_a_command_gets_a_wav_file(self, manifest: Path, tmp_path: Path) -> None:
        script = tmp_path / "recogniser.py"
        script.write_text(
            "import sys, wave\nw = wave.open(sys.argv[2])\n"
            "print('It is,', w.getframerate(), w.getnchannels(), w.getsampwidth())\nprint(w.getnframes())\n"
        )
        command = ModelSource(f"command:{sys.executable} {script} --file {{wav}}")
        results = measured(evaluation(manifest, command, snrs_db=(None,), clips=1), tmp_path / "run")
        assert next(iter(results.cells.values())).hypotheses == ("It is, 16000 1 2 19200",)
        plain = measured(
            evaluation(manifest, command, snrs_db=(None,), clips=1, normalizer="plain"), tmp_path / "normalised"
        )
        assert next(iter(plain.cells.values())).hypotheses == ("it is 16000 1 2 19200",)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            (function("broken"), "other_recognizers:broken failed: got RuntimeError: out of order"),
            (function("number"), "wrong result: got int, expected a string"),
            (function("absent"), "no function 'absent'"),
            (function("not_callable"), "no function 'not_callable'"),
            (ModelSource("function:nowhere_to_be_found:f"), "cannot be imported"),
            (ModelSource("function:nowhere.py:f"), "no such file"),
            (ModelSource("function:noname"), "expected module:function"),
            (
                ModelSource("command:no-such-program-here"),
                "cannot be run: got No such file or directory; check the name",
            ),
            (ModelSource("command:sh -c 'echo oh dear >&2; exit 3'"), r"exit code 3 \(oh dear\)"),
            (ModelSource("command:'"), "is not understood"),
            (ModelSource("command: "), "the command is empty"),
            (ModelSource("no-such-model"), "no model 'no-such-model'"),
        ],
    )
    def test_failures_are_one_line(self, source: ModelSource, message: str, manifest: Path, tmp_path: Path) -> None:
        with pytest.raises((ConfigError, ModelError), match=message) as caught:
            evaluate(evaluation(manifest, source, snrs_db=(None,)), tmp_path / "run", workers=1)
        assert "\n" not in str(caught.value)


class TestComparison:
    def test_the_same_does_not_differ(self, whole: Path) -> None:
        results = read_results(whole)
        comparison = compare(results, results)
        assert {d.verdict for d in comparison.conditions} == {""}
        assert len(comparison.conditions) == len(results.by_condition())
        assert comparison.overall.difference == 0.0

    def test_a_better_one_is_found(self, manifest: Path, tmp_path: Path) -> None:
        (tmp_path / "many").mkdir()
        many = make_corpus(tmp_path / "many", count=30)
        job = evaluation(many, function("nothing"), pictures=("intact",))
        nothing = measured(job, tmp_path / "nothing")
        cheat = tmp_path / "cheat.py"
        texts = [u.text for u in sorted(read_manifest(many), key=lambda u: u.id) if u.split == "train"]
        in_turn = [text for first in range(0, len(texts), 2) for text in texts[first : first + 2] * 3]  # three sounds
        cheat.write_text(f"texts = iter({in_turn!r})\ndef right(samples):\n    return next(texts)\n")
        right = measured(dataclasses.replace(job, system=ModelSource(f"function:{cheat}:right")), tmp_path / "right")
        comparison = compare(nothing, right)
        assert {d.verdict for d in comparison.conditions} == {"better"}
        assert {d.verdict for d in compare(right, nothing).conditions} == {"worse"}
        assert (comparison.overall.a, comparison.overall.b, comparison.overall.difference) == (100.0, 0.0, -100.0)

    def test_modalities_of_one_run(self, whole: Path) -> None:
        results = read_results(whole)
        comparison = compare(results, results, modality_a="a", modality_b="av")
        assert len(comparison.conditions) == 2 * 3  # sounds, pictures; seeds together
        for difference in comparison.conditions:
            if difference.condition.video == "absent":
                assert difference.difference == 0.0
        seen = compare(results, results, modality_a="v", modality_b="av")
        assert len(seen.conditions) == 2 * 2
        with pytest.raises(DataError, match="no condition in common"):
            compare(results, measured_nothing(results))


def measured_nothing(results: Results) -> Results:
    return Results.make(results.run, results.utterances, {})


class TestCommand:
    def test_it_evaluates_and_compares(
        self, manifest: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = f"evaluate {manifest} --split train --model {model} --noise-kinds white --snr clean,0 --seed 1"
        words += f" --video intact,absent --workers 1 --output-dir {tmp_path / 'run'}"
        assert main(words.split()) == 0
        first = capsys.readouterr()
        titles = [cell.strip() for cell in first.out.splitlines()[0].split("|")[1:-1]]
        assert titles == ["", "audio only", "lips only", "audio-visual"]
        assert (
            first.err
            == f"avsr: wrote {tmp_path / 'run/report.html'}, results.json, results.csv, report.md and figures\n"
        )
        assert main(words.split()) == 0
        assert capsys.readouterr().out == first.out
        assert main(["compare", f"{tmp_path / 'run'}:a", f"{tmp_path / 'run'}:av", "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        assert {"noise", "snr_db", "video", "a", "b", "difference", "p", "p_family", "verdict"} <= set(
            content["conditions"][0]
        )
        assert main(["compare", str(tmp_path / "run"), str(tmp_path / "run"), "--all"]) == 0
        assert "0 of 7 conditions: B is better beyond chance" in capsys.readouterr().out

    def test_a_plan_says_what_is_mixed(
        self, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        common = f"evaluate {manifest} --split train --recognizer {FUNCTIONS}:loudest --workers 1 --quiet"
        assert main(f"{common} --noise-kinds pink --snr=-5 --seed 4 --output-dir {tmp_path / 'planned'}".split()) == 0
        first = capsys.readouterr().out
        plan = tmp_path / "planned/noise.jsonl"
        assert main(f"{common} --plan {plan} --output-dir {tmp_path / 'again'}".split()) == 0
        assert capsys.readouterr().out == first
        assert main(f"{common} --plan {plan} --split dev --output-dir {tmp_path / 'split'}".split()) == 1
        assert "does not plan for t1/u6: got 2 of 2 utterances" in capsys.readouterr().err
        assert main(f"{common} --plan {plan} --noise-kinds white --output-dir {tmp_path / 'lacking'}".split()) == 1
        assert "has no white at -5 dB" in capsys.readouterr().err

    def test_too_few_voices_for_babble_names_what_to_do(
        self, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        common = f"evaluate {manifest} --split train --recognizer {FUNCTIONS}:loudest --workers 1 --quiet --seed 1"
        assert main(f"{common} --snr 0 --output-dir {tmp_path / 'few'}".split()) == 1
        error = capsys.readouterr().err
        assert "not enough to make babble of: got 5 recordings with sound, expected 8" in error  # 6 clips, not its own
        assert "; leave babble out of --noise-kinds, or name a larger split by --voices SPLIT" in error
        assert error.count("\n") == 1
        without = f"{common} --snr 0 --noise-kinds white --output-dir {tmp_path / 'without'}"
        assert main(without.split()) == 0  # the remedy in the message works

    def test_a_wrong_manifest_or_split_is_said_before_anything_else(
        self, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        common = f"--recognizer {FUNCTIONS}:loudest --output-dir {tmp_path / 'run'}"
        assert main(f"evaluate {manifest} {common} --split nowhere".split()) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.endswith("; choose it with --split NAME\n")
        notes = tmp_path / "notes.txt"
        notes.write_text("no manifest\n")
        assert main(f"evaluate {notes} {common}".split()) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.endswith("expected the manifest.jsonl that avsr prepare writes\n")

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            ("--shard 3/2", 2, "expected I/N with I from 1 to N"),
            ("--modalities x", 2, "got 'x', expected some of a, v, av"),
            ("--snr loud", 2, "expected dB from -60 to 60, or clean"),
            ("--seed one", 2, "expected whole numbers"),
            ("--video sideways", 1, "unknown condition of the lips 'sideways'"),
            ("--protocol mine", 1, "unknown noise protocol"),
            ("--split nowhere", 1, "no utterance of split 'nowhere'"),
            ("--beside nowhere", 1, "no results; make them with: avsr evaluate"),
            ("--model grid-tiny --command x", 2, "not allowed with"),
        ],
    )
    @pytest.mark.usefixtures("grid_tiny")
    def test_mistakes_are_one_line(
        self, words: str, code: int, message: str, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*f"evaluate {manifest} --output-dir {tmp_path / 'run'}".split(), *words.split()]) == code
        errors = capsys.readouterr().err.splitlines()
        assert message in errors[-1]
        assert not (tmp_path / "run").exists()
