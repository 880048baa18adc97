"""What happens around the training steps: checkpoints and a record of what was measured."""

from __future__ import annotations

import json
import os
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

from avsr.decoding.tokenizer import Tokenizer
from avsr.families.own.checkpoint import save_checkpoint


class KeepEpochWeights(lightning.Callback):
    """After each epoch: everything needed to go on (`last.ckpt`), and the weights of the last few epochs."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, keep: int) -> None:
        self.folder, self.tokenizer, self.keep = folder, tokenizer, keep

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        epoch = trainer.current_epoch
        save_checkpoint(
            self.folder / f"epoch-{epoch:04d}", module.network, self.tokenizer, card="One epoch's weights.\n"
        )
        for old in sorted(self.folder.glob("epoch-*"))[: -self.keep]:
            shutil.rmtree(old)
        temporary = self.folder / "last.partial"
        trainer.save_checkpoint(temporary)
        os.replace(temporary, self.folder / "last.ckpt")


class StopBetweenBatches(lightning.Callback):
    """Ctrl-C takes effect before the next batch.

    Raised wherever it strikes, it is lost when that is the tear-down of a worker process, at the end of each epoch. A
    second Ctrl-C strikes at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self.previous: Any = None

    def __enter__(self) -> StopBetweenBatches:
        if threading.current_thread() is threading.main_thread():  # only there can signals be handled
            self.previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)

    def _ask(self, *_: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self.previous)

    def _check(self, *_: Any, **__: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt

    on_train_batch_start = on_validation_batch_start = _check


class Narrator(lightning.Callback):
    """Says how long it will take, shows progress on a terminal, and appends each epoch's figures to metrics.jsonl."""

    def __init__(self, path: Path, on_message: Callable[[str], None], estimate_after: int) -> None:
        self.path, self.say, self.estimate_after = path, on_message, estimate_after
        self.bar: tqdm | None = None
        self.steps = 0

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        self.epochs = module.config.optimizer.epochs
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
            self.say(f"estimate: {each:.2f} s a batch, about {each * left / 60:.0f} min in all")

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        from avsr.training.run import describe

        if self.bar is not None:
            self.bar.close()
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch + 1
        seconds = time.monotonic() - self.epoch_started
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, "seconds": round(seconds, 1), **figures}) + "\n")
        done = epoch - self.first_epoch
        left_min = (time.monotonic() - self.started) / done * (self.epochs - epoch) / 60
        facts = [
            f"loss {figures.get('train/loss', float('nan')):.3f}",
            describe(figures),
            f"{seconds:.0f} s",
            f"{left_min:.0f} min left",
        ]
        self.say(f"epoch {epoch}/{self.epochs}: " + ", ".join(filter(None, facts)))
