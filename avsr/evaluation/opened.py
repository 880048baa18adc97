"""Opens the model that is evaluated, in whichever process needs it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

from avsr.decoding.checked import CheckedFrames
from avsr.engine import Card, Engine
from avsr.errors import ConfigError
from avsr.evaluation.long_sounds import with_long_sounds
from avsr.families import open_model


class Opened(NamedTuple):
    """A model that is evaluated."""

    name: str
    """As tables call it."""
    card: Card
    engine: Engine[Any, Any]
    device: str
    record: dict[str, str]
    """What identifies it in the results."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from; may be sent to another process."""

    target: str
    """Whatever `avsr.load` takes: a name, a path, "function:MODULE:NAME" or "command:PROGRAM"."""
    device: str = "auto"
    chunk_ms: int | None = None
    """The chunks of a stream in which it works; None for whole utterances."""

    def open(self) -> Opened:
        """The model; within a process the same one each time. Raises ModelError or ConfigError."""
        return _open(self)


# The settings and the work open the same model, one after the other; more than one would only fill the memory.
@functools.lru_cache(maxsize=1)
def _open(source: ModelSource) -> Opened:
    model = open_model(source.target, device=source.device)
    record = {"kind": model.card.family, "target": source.target, **model.identity()}
    if source.chunk_ms is None:
        if model.frames is not None:
            model = model._replace(engine=CheckedFrames(model.frames, model.card.name))
        return Opened(model.card.name, model.card, with_long_sounds(model), model.device, record)
    if model.in_chunks is None:
        raise ConfigError(f"{model.card.name} cannot stream", remedy="leave out --chunk-ms")
    return Opened(
        f"{model.card.name}, {source.chunk_ms} ms",
        model.card,
        CheckedFrames(model.in_chunks(source.chunk_ms), model.card.name),
        model.device,
        record | {"chunk_ms": str(source.chunk_ms)},
    )
