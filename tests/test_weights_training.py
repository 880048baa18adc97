"""A training whose weights are no numbers any more says so, and its last good epoch stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsr.errors import ModelError
from avsr.families.own.checkpoint import load_checkpoint
from avsr.families.own.run_folder import epoch_checkpoints
from tests.corpus import make_corpus
from tests.trainings import write_config

pytest.importorskip("lightning", reason="training needs the extra 'train'")

from avsr.training import run as training_run  # noqa: E402


def test_weights_that_are_not_finite_are_never_a_finished_model(tmp_path: Path) -> None:
    config = write_config(make_corpus(tmp_path / "corpus"), tmp_path)
    output = tmp_path / "run"
    overrides = [f"output={output}", "optimizer.learning_rate=1e37", "optimizer.warmup_epochs=0"]
    with pytest.raises(ModelError, match="epoch-000.: weight .* is not finite; nothing is written; train with a lower"):
        training_run.train(config, overrides, on_message=lambda message: None)
    assert not (output / "model").exists()
    for folder in epoch_checkpoints(output):
        load_checkpoint(folder)  # refuses what is not finite
