"""The layout of a training run's folder, and which checkpoint in it is the finished model.

RUN/config.yaml               the configuration of the run
RUN/checkpoints/epoch-0007    the weights after each of the last few epochs, each a checkpoint folder
RUN/checkpoints/last.ckpt     the state to resume from: weights, optimiser, epoch
RUN/model                     the finished model: the mean of the last epochs' weights
"""

from __future__ import annotations

from pathlib import Path

from avsr.families.own.checkpoint import CONFIG_NAME, WEIGHTS_NAME

MODEL_NAME = "model"
EPOCHS_NAME = "checkpoints"
RESUME_NAME = "last.ckpt"


def finished_checkpoint(folder: Path) -> Path | None:
    """The checkpoint folder of the finished model in a run folder, `folder/model`.

    None if the run has not finished, or if `folder` is no run folder (a checkpoint folder is not one).
    """
    # A checkpoint folder is renamed into place as a whole, so its files need no further check.
    checkpoint = folder / MODEL_NAME
    files = (folder / CONFIG_NAME, checkpoint / CONFIG_NAME, checkpoint / WEIGHTS_NAME)
    return checkpoint if all(file.is_file() for file in files) else None


def epoch_checkpoint(folder: Path, epoch: int) -> Path:
    """Where a run folder holds the weights after `epoch`, counted from 0."""
    return folder / EPOCHS_NAME / f"epoch-{epoch:04d}"


def epoch_checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders of single epochs in a run folder, oldest first. An unfinished run may have them only."""
    return sorted((folder / EPOCHS_NAME).glob("epoch-*"))
