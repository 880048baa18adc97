"""Small evaluations for tests: of the tiny model, and of functions in `tests.other_recognizers`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avsr.evaluation.conditions import make_grid
from avsr.evaluation.job import Evaluation
from avsr.evaluation.opened import ModelSource
from avsr.evaluation.results import Results
from avsr.evaluation.runner import evaluate
from avsr.evaluation.sounds import NoiseSource
from avsr.families.own.checkpoint import save_checkpoint
from avsr.grid import Modality
from tests.tiny import tiny_network, tiny_tokenizer

FUNCTIONS = "tests.other_recognizers"


def tiny_model(folder: Path) -> Path:
    """A checkpoint of the tiny model in `folder`."""
    return save_checkpoint(folder, tiny_network(seed=3), tiny_tokenizer(), card="# tiny\n")


def evaluation(
    manifest: Path,
    system: ModelSource,
    modalities: Sequence[Modality] = ("a",),
    noises: Sequence[str] = ("white",),
    snrs_db: Sequence[float | None] = (None, 0.0),
    pictures: Sequence[str] = ("intact", "absent", "random-50"),
    seeds: Sequence[int] = (1, 2),
    **more: object,
) -> Evaluation:
    """An evaluation of the training split of a corpus of `make_corpus`, two utterances a batch."""
    grid = make_grid(modalities, noises, snrs_db, pictures, seeds)
    values = {"split": "train", "batch_size": 2, "noise": NoiseSource(), **more}
    return Evaluation(str(manifest), system=system, grid=grid, **values)  # type: ignore[arg-type]


def function(name: str) -> ModelSource:
    """A function of `tests.other_recognizers` as the recogniser."""
    return ModelSource(f"function:{FUNCTIONS}:{name}")


def measured(evaluation: Evaluation, output: Path, **how: object) -> Results:
    """The results of an evaluation, run in this process."""
    results = evaluate(evaluation, output, workers=1, **how).results  # type: ignore[arg-type]
    assert results is not None
    return results


def all_modalities(manifest: Path, model: Path) -> Evaluation:
    """An evaluation of a model by audio only, lips only and audio-visual."""
    return evaluation(manifest, ModelSource(str(model), "cpu"), ("a", "v", "av"))
