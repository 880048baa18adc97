"""The state that an interrupted run goes on from, `checkpoints/last.ckpt`, as Lightning writes and reads it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection

from avsr.errors import ModelError
from avsr.files import write_whole
from avsr.untrusted.torch_file import read_torch_file


class ResumeFile(TorchCheckpointIO):
    """Writes whole files, beside the file itself, and reads them as files of strangers: no pickle is run.

    Lightning's own writer goes through the folder for temporary files, which may lie on another, smaller disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with write_whole(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """The state. Raises ModelError if it is damaged, or holds anything but tensors and plain values."""
        try:
            content = read_torch_file(Path(path), str(path))
        except ModelError as error:
            raise unusable(Path(path), error.got) from None
        # The tensors are mapped from the file, which is replaced after the next epoch: its room would not become free.
        copies: dict[int, torch.Tensor] = {}

        def copied(tensor: torch.Tensor) -> torch.Tensor:
            # A tensor that stands in many places is copied once: a small file may name one thousands of times.
            if id(tensor) not in copies:
                copies[id(tensor)] = tensor.clone()
            return copies[id(tensor)]

        state: dict[str, Any] = apply_to_collection(content, torch.Tensor, copied)
        return state


def unusable(path: Path, got: object) -> ModelError:
    """The error for a state that a run cannot go on from."""
    return ModelError(
        f"{path}: the run cannot go on from this file",
        got=got,
        expected="the state of this run",
        remedy="delete it to begin the run again",
    )
