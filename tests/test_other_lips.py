"""Lips that do not belong to the sound: whose they are, and what an evaluation says without any."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from avsr.datasets.manifest import load_lips, read_manifest, write_manifest
from avsr.errors import DataError
from avsr.evaluation.conditions import LipCondition, make_grid
from avsr.evaluation.other_lips import LipSource
from tests.corpus import make_corpus
from tests.evaluations import evaluation, function, measured


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers; the first has two utterances of one sentence and one of another."""
    folder = tmp_path_factory.mktemp("corpus")
    path = make_corpus(folder)
    with_lips = [u for u in read_manifest(path) if u.video and u.audio][:5]
    names = [("ann", "red"), ("ann", "red"), ("ann", "blue"), ("bob", "red"), ("eve", "green")]
    renamed = [
        dataclasses.replace(u, id=f"{speaker}/{index}", speaker=speaker, text=text, words=(), split="test")
        for index, (u, (speaker, text)) in enumerate(zip(with_lips, names, strict=True))
    ]
    write_manifest(folder / "people.jsonl", renamed)
    return folder / "people.jsonl"


def test_wrong_lips_say_something_else_and_follow_from_the_seed(manifest: Path) -> None:
    source, utterances = LipSource(manifest), {u.id: u for u in read_manifest(manifest)}
    ann, bob = utterances["ann/0"], utterances["bob/3"]
    sentence = {source.other(LipCondition("other-sentence", seed), ann).id for seed in range(20)}
    assert sentence == {"ann/2"}  # not itself, and not the other one that says the same
    speaker = {source.other(LipCondition("other-speaker", seed), ann).id for seed in range(20)}
    assert speaker == {"eve/4"}  # bob says the same sentence
    assert {source.other(LipCondition("other-speaker", seed), bob).id for seed in range(20)} == {"ann/2", "eve/4"}
    condition = LipCondition("other-speaker", 3)
    crops, present = source.under(condition, bob, source.own(bob))
    expected, expected_present = load_lips(source.other(condition, bob), manifest.parent)
    np.testing.assert_array_equal(crops, expected)
    np.testing.assert_array_equal(present, expected_present)
    intact, _ = source.under(LipCondition("intact"), bob, source.own(bob))
    np.testing.assert_array_equal(intact, load_lips(bob, manifest.parent)[0])


def test_an_evaluation_shows_them_and_records_the_condition(manifest: Path, tmp_path: Path) -> None:
    grid = make_grid(("a", "v", "av"), (), (None,), ("intact", "other-speaker"), (1, 2))
    job = dataclasses.replace(evaluation(manifest, function("both")), split="test", grid=grid)
    results = measured(job, tmp_path / "out")
    cells = [(c.modality, c.video, c.seed) for c in results.cells]
    assert (
        ("av", "other-speaker", 1) in cells and ("v", "other-speaker", 2) in cells and ("av", "intact", None) in cells
    )


def test_nobody_else_is_said_before_any_work(manifest: Path, tmp_path: Path) -> None:
    write_manifest(manifest.parent / "alone.jsonl", [u for u in read_manifest(manifest) if u.speaker == "ann"])
    for name, wanted in (("other-speaker", "another speaker"), ("other-sentence", None)):
        grid = make_grid(("av",), (), (None,), (name,), (1,))
        job = dataclasses.replace(
            evaluation(manifest.parent / "alone.jsonl", function("both")), split="test", grid=grid
        )
        if wanted is None:
            assert measured(job, tmp_path / name).cells
        else:
            with pytest.raises(DataError, match=f"lips {name}: ann/0 has no such .*expected lips of {wanted}"):
                measured(job, tmp_path / name)
