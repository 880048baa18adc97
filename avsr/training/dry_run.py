"""An estimate of the memory and time of a training run, measured on two of its own batches."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from avsr.errors import AvsrError
from avsr.training.run import Message, Ready, announce, check_output, precision, set_up

if TYPE_CHECKING:
    import torch

    from avsr.training.data import Key, TrainingSet

BYTES_A_WEIGHT = 4
BYTES_A_TRAINED_WEIGHT = 16  # the weight, its gradient and the two moments of AdamW, in float32


class Step(NamedTuple):
    """One training step."""

    load_s: float
    """Time to load the batch in one process."""
    learn_s: float
    """Time to compute the gradient and update the weights."""
    loss: float


def dry_run(config_path: str | os.PathLike[str], overrides: Sequence[str] = (), *, on_message: Message) -> None:
    """Report sizes, memory and time of a training run, from the smallest and the largest batch of its first epoch.

    The time of an epoch is extrapolated from the largest batch by the lengths of all batches, without the development
    set. Writes nothing. Raises as `train` does, and AvsrError if the largest batch does not fit into the memory.

    config_path, overrides: as for `train`.
    on_message: receives one line at a time.
    """
    ready = set_up(config_path, overrides)
    config, data = ready.config, ready.data
    resumes = check_output(Path(config.output), config)
    announce(ready, on_message)
    batches = data.epoch(0)
    # A batch is padded to its longest example, so its cost grows with this product.
    padded_s = [len(batch) * _longest_s(data, batch) for batch in batches]
    largest = max(range(len(batches)), key=padded_s.__getitem__)
    smallest = min(range(len(batches)), key=padded_s.__getitem__)
    on_message(
        f"schedule: {config.optimizer.epochs} epochs of {len(batches)} batches, {config.optimizer.accumulate} a weight "
        f"update{'; goes on with a run that is there' if resumes else ''}"
    )
    step, peak = _measure(ready, batches, smallest, largest)
    on_message(
        f"largest batch: {len(batches[largest])} examples of up to {_longest_s(data, batches[largest]):.1f} s: "
        f"{step.load_s:.2f} s to load in one process, {step.learn_s:.2f} s to learn from, loss {step.loss:.2f}"
    )
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in ready.network.parameters()]
    held = sum(size * (BYTES_A_TRAINED_WEIGHT if trained else BYTES_A_WEIGHT) for size, trained in sizes)
    on_message(f"memory: {held / 1e9:.2f} GB for weights, gradients and optimiser; {peak}")
    learn_s = step.learn_s * sum(padded_s) / padded_s[largest]
    load_s = step.load_s * sum(_spoken_s(data, batch) for batch in batches) / _spoken_s(data, batches[largest])
    # Worker processes load the next batches while this process computes.
    epoch_s = max(learn_s, load_s / config.workers) if config.workers else learn_s + load_s
    limit = "; loading is the limit: raise workers" if config.workers and epoch_s > learn_s else ""
    on_message(
        f"estimate: {_duration(epoch_s)} an epoch, {_duration(epoch_s * config.optimizer.epochs)} in all, without "
        f"the development set{limit}"
    )


def _measure(ready: Ready, batches: Sequence[list[Key]], smallest: int, largest: int) -> tuple[Step, str]:
    """The step of the largest batch, and the peak memory as a phrase."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = ready.module.to(device).train()
    module.on_train_epoch_start()
    optimizer = module.configure_optimizers()["optimizer"]
    try:
        for index in (smallest, largest):  # the smallest warms up: a first step is slow
            step = _step(ready, optimizer, batches[index], index, device)
    except torch.OutOfMemoryError as error:
        raise AvsrError(
            "the largest batch does not fit into the memory of the GPU",
            got=str(error).partition(".")[0],
            remedy="lower optimizer.batch_size (and raise accumulate), or the max_duration_s of its corpus",
        ) from None
    if device.type == "cuda":
        return step, f"{torch.cuda.max_memory_reserved() / 1e9:.2f} GB of the GPU at most"
    return step, f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB in this process at most"


def _step(ready: Ready, optimizer: torch.optim.Optimizer, keys: list[Key], index: int, device: torch.device) -> Step:
    import torch

    from avsr.training.batches import collate

    started = time.perf_counter()
    batch = collate([ready.data[key] for key in keys])
    loaded = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision(ready.config) == "bf16-mixed"):
        loss, _ = ready.module.loss(batch.to(device), index)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(ready.network.parameters(), ready.config.optimizer.clip)
    optimizer.step()
    optimizer.zero_grad()
    value = float(loss.detach())  # waits for the GPU
    if device.type == "cuda":
        torch.cuda.synchronize()
    return Step(loaded - started, time.perf_counter() - loaded, value)


def _spoken_s(data: TrainingSet, batch: list[Key]) -> float:
    return sum(data.duration_s(key) for key in batch)


def _longest_s(data: TrainingSet, batch: list[Key]) -> float:
    return max(data.duration_s(key) for key in batch)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
