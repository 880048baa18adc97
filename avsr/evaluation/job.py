"""The job of an evaluation, its utterances, and the batches they are recognised in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from avsr.datasets.manifest import Utterance, read_manifest
from avsr.decoding.search import Search
from avsr.errors import DataError, nearest
from avsr.evaluation.conditions import Grid
from avsr.evaluation.normalizers import DEFAULT
from avsr.evaluation.opened import ModelSource
from avsr.evaluation.sounds import NoiseSource

BATCH_SIZE = 8
BATCH_SECONDS = 120.0  # bounds the memory of long utterances


@dataclass(frozen=True)
class Evaluation:
    """One evaluation; may be sent to another process."""

    manifest: str
    split: str
    system: ModelSource
    grid: Grid
    noise: NoiseSource
    clips: int | None = None
    """How many utterances of the split, evenly spread; None for all."""
    batch_size: int = BATCH_SIZE
    normalizer: str = DEFAULT
    """Name of the normaliser of references and hypotheses."""
    search: Search = Search()
    """How the recogniser looks for words."""


def chosen_utterances(evaluation: Evaluation) -> list[Utterance]:
    """The utterances of an evaluation, by length and id, so that a batch needs little padding.

    Utterances without sound stand apart, and so do those without lips: in a batch all have sound or none has, and so
    with lips. Raises DataError if the split has no utterance, or no utterance with a text.
    """
    everything = read_manifest(evaluation.manifest)
    splits = sorted({utterance.split for utterance in everything})
    utterances = [u for u in everything if u.split == evaluation.split]
    if not utterances:
        close = nearest(evaluation.split, splits)
        raise DataError(
            f"{evaluation.manifest}: no utterance of split {evaluation.split!r}",
            expected=f"one of {', '.join(splits)}" if splits else "utterances",
            remedy=(f"did you mean {close}? " if close else "") + "choose it with --split NAME",
        )
    if not any(utterance.text for utterance in utterances):
        raise DataError(
            f"{evaluation.manifest}: no text is known in split {evaluation.split!r}",
            expected="texts to compare with",
            remedy="choose another split",
        )
    # Chosen in the order of ids, so that the choice does not depend on the order of the manifest.
    utterances.sort(key=lambda u: u.id)
    if evaluation.clips is not None and evaluation.clips < len(utterances):
        utterances = [utterances[len(utterances) * k // evaluation.clips] for k in range(evaluation.clips)]
    return sorted(utterances, key=lambda u: (u.audio is None, u.video is None, u.duration, u.id))


def make_batches(utterances: Sequence[Utterance], batch_size: int) -> list[list[int]]:
    """The numbers of the utterances that are recognised together."""
    batches: list[list[int]] = []
    for number, utterance in enumerate(utterances):
        if batches:
            first = utterances[batches[-1][0]]
            alike = (first.audio is None, first.video is None) == (utterance.audio is None, utterance.video is None)
            seconds = utterance.duration * (len(batches[-1]) + 1)
            if alike and len(batches[-1]) < batch_size and seconds <= BATCH_SECONDS:
                batches[-1].append(number)
                continue
        batches.append([number])
    return batches
