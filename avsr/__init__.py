"""Audio-visual speech recognition: a video of a talking face in, a transcript with times out.

    import avsr

    model = avsr.load("grid-tiny")
    print(model.transcribe("talk.mp4").text)

    async for event in model.astream("talk.mp4"):
        print(event.text)

Importing this package imports nothing heavy: torch and the rest are loaded by the first `load()`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from avsr.errors import AvsrError, ConfigError, DataError, MediaError, ModelError
from avsr.transcript import Segment, Transcript, VideoSummary, Word

if TYPE_CHECKING:
    from os import PathLike

    import torch

    from avsr import models as models
    from avsr.decoding.search import Search
    from avsr.engine import Card, Model
    from avsr.recognizer import Recognizer
    from avsr.streaming.events import Event
    from avsr.streaming.session import Session

__version__ = "0.2.0"

__all__ = [
    "AvsrError",
    "Card",
    "ConfigError",
    "DataError",
    "Event",
    "MediaError",
    "Model",
    "ModelError",
    "Recognizer",
    "Search",
    "Segment",
    "Session",
    "Transcript",
    "VideoSummary",
    "Word",
    "load",
    "models",
]


def load(
    name: str | PathLike[str] | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
) -> Recognizer:
    """A recogniser, ready to transcribe.

    name: of a model in the package or an installed one (avsr.models); a checkpoint folder; a `.nemo` file; a model
        of the Hugging Face hub, as in "hf:nvidia/parakeet-ctc-1.1b" (fetched with huggingface_hub, if that is
        installed); or another recogniser, as in "command:whisper-cli {wav}" and "function:my_module:recognise". None
        for the best installed model, as avsr.models.default() chooses it.
    device: "auto" for the first GPU if there is one and the CPU otherwise, "cpu", "cuda" or "cuda:N".
    dtype: "bfloat16" or "float16" computes in that precision where it pays; None for float32. As in torch, or as text.

    Raises ModelError when the model cannot be found or read, ConfigError for a device or dtype that is not there.
    """
    from avsr.families import open_model
    from avsr.models import default
    from avsr.recognizer import Recognizer

    return Recognizer(open_model(default() if name is None else name, device=device, dtype=dtype))


_LAZY = {
    "Card": "avsr.engine",
    "Event": "avsr.streaming.events",
    "Model": "avsr.engine",
    "Recognizer": "avsr.recognizer",
    "Search": "avsr.decoding.search",
    "Session": "avsr.streaming.session",
}


def __getattr__(name: str) -> Any:
    # Without importing numpy and the rest for those who never ask for them (PEP 562).
    if name == "models":
        return importlib.import_module("avsr.models")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
