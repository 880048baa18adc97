"""The measures of an evaluation beside error rates: how often lips help and hurt, and the rates of each person."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from avsr.datasets.manifest import read_manifest
from avsr.errors import DataError
from avsr.evaluation.conditions import CLEAN, INTACT, UNUSED, Condition
from avsr.evaluation.lips_effect import LipsEffect, LipsEffects
from avsr.evaluation.measure_tables import measure
from avsr.evaluation.opened import ModelSource
from avsr.evaluation.people import people_of
from avsr.evaluation.report import write_report
from avsr.evaluation.results import Results, Spoken, make_cell, read_results
from avsr.evaluation.results_file import write_results
from avsr.evaluation.runner import evaluate
from avsr.evaluation.tables import markdown
from tests.corpus import make_corpus
from tests.evaluations import evaluation, function, measured, tiny_model

A_CLEAN, AV_CLEAN = Condition("a", CLEAN, None, UNUSED, None), Condition("av", CLEAN, None, INTACT, None)
V_CLEAN = Condition("v", UNUSED, None, INTACT, None)
RUN = {
    "system": {"name": "some"}, "manifest": "corpus/manifest.jsonl", "finished": "then", "batch_size": 8,
    "machine": {"processor": "one", "workers": 1},
}  # fmt: skip


def results_of(
    references: Sequence[str], texts: Mapping[Condition, Sequence[str]], speakers: Sequence[str] = (), **run: object
) -> Results:
    speakers = speakers or ["one"] * len(references)
    spoken = [
        Spoken(f"u{number:04}", text, 1.0, name)
        for number, (text, name) in enumerate(zip(references, speakers, strict=True))
    ]
    size = len(spoken)
    cells = {c: make_cell(spoken, said, [c.snr_db] * size, [1.0] * size) for c, said in texts.items()}
    return Results.make({**RUN, **run}, spoken, cells)


def document(folder: Path, results: Results) -> dict[str, object]:
    write_results(folder, results)
    content: dict[str, object] = json.loads((folder / "results.json").read_text())
    return content


class TestLips:
    def test_counts_by_hand(self) -> None:
        references = ["a b c d", "e f g h", "i j k l", "m n"]
        alone = ["a x x d", "e f g h", "x j k l", "m n o"]
        with_lips = ["a b c x", "e f x h y", "i x k l", "m n"]
        effects = LipsEffects(results_of(references, {A_CLEAN: alone, AV_CLEAN: with_lips}))
        # By utterance the errors go from 2, 0, 1, 1 to 1, 2, 1, 0: the inserted words belong to no word of a reference.
        expected = LipsEffect(4, 2, 1, 14, words_helped=3, words_hurt=3, errors_removed=2, errors_added=2)
        found = effects.over([AV_CLEAN])
        assert found == expected and found is not None
        assert (found.utterances_unchanged, found.words_unchanged, found.net_points) == (1, 8, 0)
        assert effects.over([AV_CLEAN], [1]) == LipsEffect(1, 0, 1, 4, 0, 1, 0, 2)

    def test_net_is_the_difference_of_the_rates(self) -> None:
        references = ["a b c", "d e f g h"]
        texts = {A_CLEAN: ["a x c", "d e"], AV_CLEAN: ["a b c d", "d e f g"]}
        results = results_of(references, texts)
        effect = LipsEffects(results).over([AV_CLEAN])
        audio_only, audio_visual = results.rates([[A_CLEAN], [AV_CLEAN]])
        assert effect is not None
        assert effect.net_points == pytest.approx(audio_visual.percent - audio_only.percent)

    def test_each_seed_is_compared_with_the_same_sound(self) -> None:
        def noisy(modality: str, seed: int) -> Condition:
            return Condition(modality, "white", 0.0, UNUSED if modality == "a" else INTACT, seed)  # type: ignore[arg-type]

        random = [Condition("av", CLEAN, None, "random-50", seed) for seed in (1, 2)]
        texts = {
            A_CLEAN: ["a b"],
            noisy("a", 1): ["x x"],
            noisy("a", 2): ["a b"],
            random[0]: ["a x"],  # clean sound has no seed: both seeds of the lips stand against the one clean cell
            random[1]: ["a b"],
            noisy("av", 1): ["a x"],
            noisy("av", 2): ["a x"],
        }
        effects = LipsEffects(results_of(["a b"], texts))
        assert effects.over(random) == LipsEffect(1, 0, 0.5, 2, 0, 0.5, 0, 0.5)
        assert effects.over([noisy("av", 1), noisy("av", 2)]) == LipsEffect(1, 0.5, 0.5, 2, 0.5, 0.5, 0.5, 0.5)
        assert [len(group) for group in effects.conditions().values()] == [2, 2]

    def test_noises_weigh_as_in_the_mean_of_error_rates(self) -> None:
        texts = {}
        for noise, alone in (("babble", "x"), ("white", "a")):
            for level_db in (0.0, -5.0):
                texts[Condition("a", noise, level_db, UNUSED, 1)] = [alone]
                texts[Condition("av", noise, level_db, INTACT, 1)] = ["a"]
        effects = measure(results_of(["a"], texts)).by_level
        assert list(effects) == ["0 dB", "-5 dB", "all levels"]
        assert all(effect.utterances_helped == pytest.approx(2 / 3) for effect in effects.values())

    def test_a_score_without_words_counts_its_own_units(self) -> None:
        results = results_of(["가나 다"], {A_CLEAN: ["가다"], AV_CLEAN: ["가나다"]}, score="cer_no_spaces")
        assert LipsEffects(results).over([AV_CLEAN]) == LipsEffect(1, 1, 0, 3, 1, 0, 1, 0)
        table = measure(results).lips
        assert table is not None and table.titles[2].startswith("characters helped")

    def test_texts_may_be_empty(self) -> None:
        effects = LipsEffects(results_of(["", "a"], {A_CLEAN: ["b", ""], AV_CLEAN: ["", ""]}))
        assert effects.over([AV_CLEAN]) == LipsEffect(2, 1, 0, 1, 0, 0, 1, 0)

    @pytest.mark.parametrize("condition", [A_CLEAN, V_CLEAN, AV_CLEAN])
    def test_one_modality_has_nothing_to_compare(self, condition: Condition, tmp_path: Path) -> None:
        results = results_of(["a", "b"], {condition: ["a", "x"]}, ["s1", "s2"])
        write_report(tmp_path, results)
        for name in ("report.md", "report.html"):
            text = (tmp_path / name).read_text()
            assert "hurt" not in text and "s2" in text
        content = document(tmp_path, results)
        assert content["lips_effect"] == [] and len(content["people"]) == 2  # type: ignore[arg-type]
        assert not (tmp_path / "figures/lips-effect.png").exists()

    def test_damaged_lips_that_hurt_are_named(self, tmp_path: Path) -> None:
        covered = Condition("av", CLEAN, None, "occluder-50", 1)
        texts = {A_CLEAN: ["a b", "c x"], AV_CLEAN: ["a b", "c d"], covered: ["x x", "c d"]}
        results = results_of(["a b", "c d"], texts)
        write_report(tmp_path, results)
        report = (tmp_path / "report.md").read_text()
        assert "Lips add more errors than they remove: nowhere in this table." in report
        assert "Lips add more errors than they remove: occluder-50 (clean)." in report
        row = next(line for line in report.splitlines() if line.startswith("| occluder-50 "))
        assert [cell.strip() for cell in row.strip("|").split("|")] == ["occluder-50", "50.0 / 0.0 / 50.0", "+25.0"]
        rows = document(tmp_path, results)["lips_effect"]
        assert isinstance(rows, list) and [row["video"] for row in rows] == [INTACT, "occluder-50"]
        assert (rows[1]["errors_removed"], rows[1]["errors_added"], rows[1]["net_points"]) == (1, 2, 25)


class TestPeople:
    def test_rates_by_hand(self, tmp_path: Path) -> None:
        texts = {A_CLEAN: ["a x", "c d", "x x"], AV_CLEAN: ["a b", "c d", "e x"], V_CLEAN: ["x x"] * 3}
        results = results_of(["a b", "c d", "e f"], texts, ["s2", "s2", "s1"])
        people = people_of(results, LipsEffects(results))
        assert [(p.name, p.utterances, p.words) for p in people] == [("s1", 1, 2), ("s2", 2, 4)]
        assert [[rate.percent for rate in p.rates.values()] for p in people] == [[100, 50, 100], [25, 0, 100]]
        table = measure(results).people
        assert table is not None
        assert [row[:6] for row in table.rows] == [
            ["s1", "1", "2", "100.0", "50.0", "100.0"],
            ["s2", "2", "4", "25.0", "0.0", "100.0"],
        ]
        rows = document(tmp_path, results)["people"]
        assert isinstance(rows, list) and rows[0]["speaker"] == "s1"
        assert rows[0]["rates"][0] == {
            "modality": "a", "noise": CLEAN, "snr_db": None, "wer": 100.0, "wer_low": None, "wer_high": None,
        }  # fmt: skip
        assert rows[1]["lips_effect"][0]["utterances_helped"] == 1

    def test_intervals_need_enough_utterances(self, tmp_path: Path) -> None:
        names = ["s1"] * 19 + ["s2"] * 20
        results = results_of(["a b"] * 39, {A_CLEAN: ["a b", "a x", "x b"] * 13}, names)
        table = measure(results).people
        assert table is not None
        assert {row[0]: "[" in row[3] for row in table.rows} == {"s1": False, "s2": True}
        assert any("fewer than 20 utterances" in note for note in table.notes)
        rows = document(tmp_path, results)["people"]
        assert isinstance(rows, list) and rows[0]["rates"][0]["wer_low"] is None
        assert rows[1]["rates"][0]["wer_low"] < rows[1]["rates"][0]["wer"] < rows[1]["rates"][0]["wer_high"]

    def test_the_only_person_has_the_rates_of_all(self) -> None:
        results = results_of(["a b"] * 30, {A_CLEAN: ["a b", "a x", "x x"] * 10})
        (person,) = people_of(results, LipsEffects(results))
        assert list(person.rates.values()) == results.rates([[A_CLEAN]])
        assert measure(results).people is None

    @pytest.mark.parametrize(("count", "shown"), [(20, 20), (21, 21), (1000, 21)])
    def test_of_many_the_worst_and_the_best_are_shown(self, count: int, shown: int, tmp_path: Path) -> None:
        names = [f"s{number:04}" for number in range(count)]
        texts = [" ".join(["a"] * (count - number)) for number in range(count)]  # nobody has as many errors as another
        results = results_of(["b"] * count, {A_CLEAN: texts}, names)
        table = measure(results).people
        assert table is not None and len(table.rows) == shown
        assert (table.rows[0][0], table.rows[-1][0]) == (names[0], names[-1])
        assert any(f"10 best of {count} people" in note for note in table.notes) == (count > 20)
        assert len(document(tmp_path, results)["people"]) == count  # type: ignore[arg-type]

    def test_unknown_speakers_are_not_guessed(self, tmp_path: Path) -> None:
        nobody = results_of(["a", "b"], {A_CLEAN: ["a", "b"]}, ["", ""])
        assert measure(nobody).people is None
        assert document(tmp_path, nobody)["people"] == []
        table = measure(results_of(["a", "b"], {A_CLEAN: ["a", "x"]}, ["s1", ""])).people
        assert table is not None and [row[0] for row in table.rows] == ["(no name)", "s1"]

    def test_a_name_stays_in_its_cell(self) -> None:
        names = ["a|b\\|\nc", "<script>[x](http://y)", "n" * 5000]
        table = measure(results_of(["a"] * 3, {A_CLEAN: ["a"] * 3}, names)).people
        assert table is not None
        lines = markdown(table).splitlines()[:5]
        assert all(line.startswith("|") and line.endswith("|") and len(line) < 200 for line in lines)
        assert "\\<script>[x]\\(" in lines[2] and "a\\|b\\\\\\| c" in lines[3]

    def test_whoever_has_no_intact_lips_has_no_row(self) -> None:
        results = results_of(["a"], {Condition("av", CLEAN, None, "blur-3", None): ["a"]})
        assert people_of(results, LipsEffects(results)) == []


class TestOldResults:
    @pytest.fixture
    def manifest(self, tmp_path: Path) -> Path:
        return make_corpus(tmp_path / "corpus", count=4)

    def test_they_get_the_speakers_of_the_manifest(self, manifest: Path, tmp_path: Path) -> None:
        job = evaluation(manifest, function("loudest"), snrs_db=(None,))
        measured(job, tmp_path / "run")
        path = tmp_path / "run/results.json"
        new = path.read_text()
        content = json.loads(new)
        assert {row["speaker"] for row in content["utterances"]} == {u.speaker for u in read_manifest(manifest)}
        for row in content["utterances"]:
            del row["speaker"]
        del content["people"], content["lips_effect"]
        path.write_text(json.dumps(content))
        assert {spoken.speaker for spoken in read_results(path).utterances} == {""}
        again = evaluate(job, tmp_path / "run", workers=1)
        assert again.results == read_results(path) and path.read_text() == new

    def test_a_speaker_is_a_text(self, tmp_path: Path) -> None:
        content = document(tmp_path, results_of(["a"], {A_CLEAN: ["a"]}))
        content["utterances"][0]["speaker"] = ["s1"]  # type: ignore[index]
        (tmp_path / "results.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match="a speaker is list, not a string"):
            read_results(tmp_path)

    def test_a_real_evaluation_has_both(self, manifest: Path, tmp_path: Path) -> None:
        system = ModelSource(str(tiny_model(tmp_path / "tiny")), "cpu")
        results = measured(evaluation(manifest, system, ("a", "v", "av")), tmp_path / "run")
        write_report(tmp_path / "run", results)
        page = (tmp_path / "run/report.html").read_text()
        assert "Lips helped, changed nothing, hurt" in page and page.count("data:image/png") == 3
        content = json.loads((tmp_path / "run/results.json").read_text())
        absent = [row for row in content["lips_effect"] if row["video"] == "absent"]
        assert len(absent) == 2 and all(row["utterances_unchanged"] == 2 for row in absent)
