"""Audio-visual speech recognition: a video of a talking face in, a transcript with times out.

    import avsr
    model = avsr.load("grid-tiny")
    print(model.transcribe("talk.mp4").text)

Importing this package imports nothing heavy: torch and the rest are loaded by the first `load()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from avsr.errors import AvsrError, ConfigError, DataError, MediaError, ModelError
from avsr.transcript import Segment, Transcript, VideoSummary, Word

if TYPE_CHECKING:
    from os import PathLike

    import torch

    from avsr.recognizer import Recognizer

__version__ = "0.1.0"

__all__ = [
    "AvsrError",
    "ConfigError",
    "DataError",
    "MediaError",
    "ModelError",
    "Recognizer",
    "Segment",
    "Transcript",
    "VideoSummary",
    "Word",
    "load",
]


def load(
    name_or_path: str | PathLike[str] = "grid-tiny",
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
) -> Recognizer:
    """A recogniser, ready to transcribe.

    name_or_path: the name of a shipped model, a checkpoint folder, a `.nemo` file, or the id of a model on the Hugging
    Face hub (fetched with huggingface_hub, where that is installed). device: as in torch, or "auto" for the first
    GPU if there is one and the CPU otherwise. dtype: of the weights and the arithmetic; None for float32.

    Raises ModelError when the checkpoint cannot be found or read.
    """
    from avsr.recognizer import load as load_recognizer

    return load_recognizer(name_or_path, device=device, dtype=dtype)


def __getattr__(name: str) -> Any:
    # `avsr.Recognizer` without importing torch for those who never ask for it (PEP 562).
    if name == "Recognizer":
        from avsr.recognizer import Recognizer

        return Recognizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
