"""Lightning callbacks of a training run: checkpoints, Ctrl-C, progress and the record of each epoch."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
from tqdm import tqdm

from avsr.errors import DataError
from avsr.families.own.run_folder import EPOCHS_NAME, RESUME_NAME, epoch_checkpoint, epoch_checkpoints
from avsr.files import write_text
from avsr.training.metrics import describe
from avsr.untrusted.files import read_file
from avsr.untrusted.lines import MAX_LIST_BYTES


class KeepEpochWeights(lightning.Callback):
    """Saves after each epoch what a resumed run needs (`last.ckpt`), and keeps the weights of the last epochs.

    run_folder: the folder of the run; the checkpoints go into its folder `checkpoints`.
    save: writes the weights with the text of a card to a folder.
    keep: of how many epochs the weights are kept.
    """

    def __init__(self, run_folder: Path, save: Callable[[Path, str], Path], keep: int) -> None:
        self.run_folder, self.save, self.keep = run_folder, save, keep

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        folder = epoch_checkpoint(self.run_folder, trainer.current_epoch)
        self.save(folder, "One epoch's weights.\n")
        for old in epoch_checkpoints(self.run_folder)[: -self.keep]:
            shutil.rmtree(old)
        # Written last: a run that is killed before repeats this epoch and gets the same weights again.
        trainer.save_checkpoint(self.run_folder / EPOCHS_NAME / RESUME_NAME)


class StopBetweenBatches(lightning.Callback):
    """Makes Ctrl-C raise KeyboardInterrupt before the next batch; a second Ctrl-C raises it at once.

    An exception raised in the middle of the tear-down of a worker process, at the end of each epoch, would be lost.
    """

    def __init__(self) -> None:
        self.requested = False
        self.previous: Any = None

    def __enter__(self) -> StopBetweenBatches:
        if threading.current_thread() is threading.main_thread():  # Python handles signals in no other thread
            self.previous = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)

    def _request(self, *_: object) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, self.previous)

    def _check(self, *_: Any, **__: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt

    on_train_batch_start = on_validation_batch_start = _check


class RecordFigures(lightning.Callback):
    """Writes a line of figures for each epoch to metrics.jsonl, the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.figures: dict[str, float] = {}
        """Of the last epoch that ended."""
        self.measured = False
        """Whether the development set was measured in this epoch."""
        self.epoch_started = 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        self.epoch_started, self.measured = time.monotonic(), False

    def on_validation_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        self.measured = True

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not self.measured:  # Lightning keeps the figures of the last measurement, which are not this epoch's
            figures = {name: value for name, value in figures.items() if not name.startswith("dev/")}
        self.figures = figures
        epoch = trainer.current_epoch + 1
        seconds = time.monotonic() - self.epoch_started
        line = json.dumps({"epoch": epoch, "seconds": round(seconds, 1), **figures})
        # An epoch is repeated if the run ended before its weights were saved: then this line takes the other's place.
        write_text(self.path, "".join(f"{line}\n" for line in (*_lines_before(self.path, epoch), line)))


class Narrator(lightning.Callback):
    """Reports an estimate of the duration and each epoch's figures; draws a progress bar if stderr is a terminal.

    record: has the figures.
    on_message: receives one line at a time.
    estimate_after: the number of batches after which the duration is estimated.
    """

    def __init__(self, record: RecordFigures, on_message: Callable[[str], None], estimate_after: int) -> None:
        self.record, self.on_message, self.estimate_after = record, on_message, estimate_after
        self.bar: tqdm | None = None
        self.steps = 0
        self.has_started = False
        """Whether the state of an interrupted run was taken over, if there was one."""

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        self.epochs = module.config.optimizer.epochs
        self.has_started = True
        self.started, self.first_epoch = time.monotonic(), trainer.current_epoch

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        self.epoch_started = time.monotonic()
        if sys.stderr.isatty():
            self.bar = tqdm(total=trainer.num_training_batches, desc=f"epoch {trainer.current_epoch + 1}", leave=False)

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        if self.bar is not None:
            self.bar.update()
        self.steps += 1
        if self.steps == self.estimate_after:
            each = (time.monotonic() - self.epoch_started) / self.estimate_after
            left = trainer.num_training_batches * (self.epochs - trainer.current_epoch)
            self.on_message(f"estimate: {each:.2f} s a batch, about {each * left / 60:.0f} min left at this pace")

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        if self.bar is not None:
            self.bar.close()
        figures = self.record.figures
        epoch = trainer.current_epoch + 1
        seconds = time.monotonic() - self.epoch_started
        done = epoch - self.first_epoch
        left_min = (time.monotonic() - self.started) / done * (self.epochs - epoch) / 60
        facts = [
            f"loss {figures.get('train/loss', float('nan')):.3f}",
            describe(figures),
            f"{seconds:.0f} s",
            f"{left_min:.0f} min left",
        ]
        self.on_message(f"epoch {epoch}/{self.epochs}: " + ", ".join(filter(None, facts)))


def _lines_before(path: Path, epoch: int) -> list[str]:
    """The lines of metrics.jsonl on earlier epochs. What is cut off or damaged is left out."""
    lines = []
    text = read_file(path, MAX_LIST_BYTES, DataError).decode("utf-8", "replace") if path.exists() else ""
    for line in text.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            if json.loads(line)["epoch"] < epoch:
                lines.append(line)
    return lines
