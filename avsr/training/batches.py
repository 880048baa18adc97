"""Examples and padded batches of them.

Letters: B batch, S samples at 16 kHz, T slots of 40 ms, F frames of 80 ms, U units of a text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsr.arrays import Present, Samples
from avsr.augment.video import HIDING_EFFECTS, Effect
from avsr.decoding.tokenizer import Units
from avsr.grid import FRAME_MS, FRAME_SLOTS, HOP_SAMPLES, LIP_INPUT_PX, SLOT_SAMPLES
from avsr.training.items import TimedWord

# The value that torch's losses ignore unless told otherwise.
IGNORED_FRAME = -100
_FRAME_HOPS = FRAME_SLOTS * SLOT_SAMPLES // HOP_SAMPLES


class Example(NamedTuple):
    """One utterance, or several joined ones, ready for a batch."""

    samples: Samples
    """[S]; zeros without sound."""
    crops: NDArray[np.uint8] | None
    """[T, 88, 88]; None without lips."""
    present: Present
    """[T]."""
    has_audio: bool
    """Whether the network may use the sound."""
    lips_match: bool
    """Whether the lips belong to the words. False for another utterance's lips, and without lips."""
    lips_whole: bool
    """Whether the lips match and no effect hides what they say."""
    tokens: list[int]
    """[U]: the units of the text."""
    frame_targets: NDArray[np.int64]
    """[F]: the unit at each frame, -100 if it is not known."""
    text: str
    effects: Sequence[Effect]
    """What augmentation did to the lips."""
    changes: dict[str, Any]
    """What augmentation did to the sound."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Padded examples."""

    samples: Tensor
    """float32 [B, S]."""
    sample_counts: Tensor
    """int64 [B]."""
    crops: Tensor
    """uint8 [B, T, 88, 88]."""
    present: Tensor
    """bool [B, T]."""
    has_audio: Tensor
    """bool [B]: whether the network may use the sound."""
    lips_match: Tensor
    """bool [B]: whether the lips belong to the words."""
    lips_whole: Tensor
    """bool [B]: whether the lips match and no effect hides what they say."""
    tokens: Tensor
    """int64 [B, U]."""
    token_counts: Tensor
    """int64 [B]."""
    frame_targets: Tensor
    """int64 [B, T / 2]: the unit at each frame of 80 ms, -100 if it is not known."""
    texts: list[str]
    """The references."""
    changes: list[dict[str, Any]]
    """What augmentation did to each sound, and under "lips" to its lips."""

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        moved: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        return Batch(**moved)


def make_example(
    samples: Samples,
    crops: NDArray[np.uint8] | None,
    present: Present,
    *,
    has_audio: bool,
    lips_match: bool,
    words: Sequence[TimedWord],
    text: str,
    tokenizer: Units,
    effects: Sequence[Effect] = (),
    changes: dict[str, Any] | None = None,
) -> Example:
    """An example with the units of its text, and with the unit of each frame if the words have times."""
    targets = np.full(frames_of(len(samples)), IGNORED_FRAME, np.int64)
    if words:
        middle_s = (np.arange(len(targets)) + 0.5) * FRAME_MS / 1000
        targets[:] = len(tokenizer)  # the blank, unless a word is spoken
        for word, start, end in words:
            inside = np.flatnonzero((middle_s >= start) & (middle_s < end))
            units = np.asarray(tokenizer.encode(word))
            # Where the units of a word lie inside it is not known: they share its frames evenly.
            targets[inside] = units[np.arange(len(inside)) * len(units) // max(1, len(inside))]
    return Example(
        samples,
        crops,
        present,
        has_audio,
        lips_match,
        lips_match and not any(effect["effect"] in HIDING_EFFECTS for effect in effects),
        tokenizer.encode(text),
        targets,
        text,
        effects,
        changes or {},
    )


def collate(examples: Sequence[Example]) -> Batch:
    """Examples padded to the longest."""
    B = len(examples)
    frames = max(frames_of(len(example.samples)) for example in examples)
    samples = np.zeros((B, max(len(example.samples) for example in examples)), np.float32)
    crops = np.zeros((B, FRAME_SLOTS * frames, LIP_INPUT_PX, LIP_INPUT_PX), np.uint8)
    present = np.zeros((B, FRAME_SLOTS * frames), bool)
    tokens = np.zeros((B, max(1, *(len(example.tokens) for example in examples))), np.int64)
    targets = np.full((B, frames), IGNORED_FRAME, np.int64)
    for index, example in enumerate(examples):
        samples[index, : len(example.samples)] = example.samples
        tokens[index, : len(example.tokens)] = example.tokens
        targets[index, : len(example.frame_targets)] = example.frame_targets
        if example.crops is not None:
            # Lips may outlast the sound: slots beyond its last frame belong to no frame of the network.
            slots = min(len(example.crops), len(example.present), FRAME_SLOTS * frames_of(len(example.samples)))
            crops[index, :slots] = example.crops[:slots]
            present[index, :slots] = example.present[:slots]
    return Batch(
        samples=torch.from_numpy(samples),
        sample_counts=torch.tensor([len(example.samples) for example in examples]),
        crops=torch.from_numpy(crops),
        present=torch.from_numpy(present),
        has_audio=torch.tensor([example.has_audio for example in examples]),
        lips_match=torch.tensor([example.lips_match for example in examples]),
        lips_whole=torch.tensor([example.lips_whole for example in examples]),
        tokens=torch.from_numpy(tokens),
        token_counts=torch.tensor([len(example.tokens) for example in examples]),
        frame_targets=torch.from_numpy(targets),
        texts=[example.text for example in examples],
        changes=[example.changes | {"lips": list(example.effects)} for example in examples],
    )


def frames_of(samples: int) -> int:
    """How many 80 ms frames the audio encoder makes of `samples`: whole 10 ms hops, eight a frame, rounded up."""
    return -(-(samples // HOP_SAMPLES) // _FRAME_HOPS)


def slots_of(samples: int) -> int:
    """How many 40 ms slots cover `samples`."""
    return -(-samples // SLOT_SAMPLES)
