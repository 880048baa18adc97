"""Utterances in memory: reading them from a corpus, cutting, splicing and joining them.

Letters: S samples at 16 kHz, T slots of 40 ms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Crops, Present, Samples
from avsr.datasets.manifest import Utterance, load_lips, load_samples, read_manifest
from avsr.errors import DataError
from avsr.grid import CROP_PX, SLOT_MS, SLOT_SAMPLES
from avsr.shipped import find_file
from avsr.training.config import CorpusConfig

MAX_CUT_SLOTS = 5

TimedWord = tuple[str, float, float]
"""A word, its start and its end in seconds."""


class Item(NamedTuple):
    """One utterance in memory."""

    samples: Samples | None
    """[S]; None without sound."""
    crops: Crops | None
    """[T, 96, 96]; None without lips."""
    present: Present | None
    """[T]; None without lips."""
    words: list[TimedWord]
    """Empty if the corpus has no word times."""
    text: str
    duration_s: float


class Corpus:
    """The utterances of one split of one manifest. Only an optional split may be empty.

    Raises DataError if the manifest cannot be read or does not have the split.
    """

    def __init__(self, config: CorpusConfig) -> None:
        self.config = config
        if not Path(config.manifest).exists():
            # A word such as recipes/make_synthetic_voices.py becomes the path of the shipped file.
            command = " ".join(str(find_file(word)) for word in (config.made_with or "avsr prepare").split())
            raise DataError(f"{config.manifest}: no such manifest", remedy=f"make it with: {command}")
        self.root = Path(config.manifest).parent
        all_utterances = read_manifest(Path(config.manifest))
        in_split = [utterance for utterance in all_utterances if utterance.split == config.split]
        longest_s = config.max_duration_s or math.inf
        self.utterances = [utterance for utterance in in_split if utterance.duration <= longest_s]
        self.too_long = len(in_split) - len(self.utterances)
        if in_split and not self.utterances:
            shortest_s = min(utterance.duration for utterance in in_split)
            raise DataError(
                f"{config.manifest}: all utterances of split {config.split!r} are too long",
                got=f"{shortest_s:.1f} s at least",
                expected=f"max_duration_s {longest_s} at most",
                remedy="raise max_duration_s",
            )
        if not in_split and not config.optional:
            splits = sorted({utterance.split for utterance in all_utterances})
            raise DataError(
                f"{config.manifest}: no utterance of split {config.split!r}",
                expected=f"one of {', '.join(splits)}" if splits else None,
                remedy="change split, or set optional: true where it may be missing"
                if splits
                else "the manifest is empty",
            )

    def load(self, utterance: Utterance, *, sound: bool, lips: bool) -> Item:
        """Read an utterance from disk.

        sound: read the sound, if there is any.
        lips: read the lip crops, if there are any.
        """
        crops = present = samples = None
        if sound and utterance.audio is not None:
            samples = load_samples(utterance, self.root)
        if lips and utterance.video is not None:
            crops, present = load_lips(utterance, self.root)
        words = [(word, float(start), float(end)) for word, start, end in utterance.words]
        return Item(samples, crops, present, words, utterance.text, utterance.duration)


def cut_start(item: Item, random: np.random.Generator) -> Item:
    """An utterance without up to five random slots before its first word; unchanged without word times.

    A model then cannot learn anything from the moment at which a recording begins.
    """
    if not item.words:
        return item
    # One slot stays before the first word.
    spare = int((item.words[0][1] - 0.04) * 1000 // SLOT_MS)
    slots = int(random.integers(0, max(0, min(spare, MAX_CUT_SLOTS)) + 1))
    seconds = slots * SLOT_MS / 1000
    return Item(
        None if item.samples is None else item.samples[slots * SLOT_SAMPLES :],
        None if item.crops is None else item.crops[slots:],
        None if item.present is None else item.present[slots:],
        [(word, start - seconds, end - seconds) for word, start, end in item.words],
        item.text,
        item.duration_s - seconds,
    )


def splice(item: Item, other: Item, random: np.random.Generator) -> Item:
    """The first n words of one utterance, then another utterance from its word n on, for a random n.

    Both are cut in the middle between two words. `item` itself if either has fewer than two words with times.
    """
    count = min(len(item.words), len(other.words))
    if count < 2:
        return item
    word = int(random.integers(1, count))

    def cut(utterance: Item) -> int:
        return round((utterance.words[word - 1][2] + utterance.words[word][1]) / 2 * 1000 / SLOT_MS)

    return join(
        [_part(item, 0, cut(item), item.words[:word]), _part(other, cut(other), _slots(other), other.words[word:])]
    )


def dub(item: Item, voice: Item) -> Item:
    """The lips of `item` with the sound of `voice`, which says the same words.

    The lips are stretched so that the middle of each word meets the middle of the same word in the sound. `item` itself
    if either has no word times.
    """
    if item.crops is None or item.present is None or voice.samples is None or not item.words:
        return item
    if [word for word, *_ in item.words] != [word for word, *_ in voice.words]:
        return item
    # Before the first word and after the last one time goes on as it does in the recording of the lips.
    far_s = item.duration_s + voice.duration_s
    middles_s, wanted_s = (
        np.array([words[0][1] - far_s, *((start + end) / 2 for _, start, end in words), words[-1][2] + far_s])
        for words in (item.words, voice.words)
    )
    slots = math.ceil(len(voice.samples) / SLOT_SAMPLES)
    source_T = np.rint(np.interp(np.arange(slots) * SLOT_MS / 1000, wanted_s, middles_s) * 1000 / SLOT_MS).astype(int)
    inside_T = (source_T >= 0) & (source_T < len(item.crops))
    source_T = source_T.clip(0, len(item.crops) - 1)
    return voice._replace(crops=item.crops[source_T], present=item.present[source_T] & inside_T)


def join(items: Sequence[Item]) -> Item:
    """Utterances one after the other, each cut to whole slots.

    An utterance without sound becomes silence if another one has sound, and its lips become absent slots likewise.
    All word times are dropped if one utterance lacks them.
    """
    samples, crops, present, words = [], [], [], []
    offset_s = 0.0
    with_sound = any(item.samples is not None for item in items)
    with_lips = any(item.crops is not None for item in items)
    for item in items:
        slots = _slots(item)
        samples.append(_fitted(item.samples, slots * SLOT_SAMPLES, (), np.float32))
        crops.append(_fitted(item.crops, slots, (CROP_PX, CROP_PX), np.uint8))
        present.append(_fitted(item.present, slots, (), bool))
        words += [(word, start + offset_s, end + offset_s) for word, start, end in item.words]
        offset_s += slots * SLOT_MS / 1000
    return Item(
        np.concatenate(samples) if with_sound else None,
        np.concatenate(crops) if with_lips else None,
        np.concatenate(present) if with_lips else None,
        # With the words of some utterances only, the frames of the others would be taught as blank.
        words if all(item.words for item in items) else [],
        " ".join(item.text for item in items),
        offset_s,
    )


def _part(item: Item, first: int, end: int, words: list[TimedWord]) -> Item:
    """The slots from `first` to before `end`, and the `words` in them."""
    start_s = first * SLOT_MS / 1000
    return Item(
        None if item.samples is None else item.samples[first * SLOT_SAMPLES : end * SLOT_SAMPLES],
        None if item.crops is None else item.crops[first:end],
        None if item.present is None else item.present[first:end],
        [(word, start - start_s, end - start_s) for word, start, end in words],
        " ".join(word for word, _, _ in words),
        (end - first) * SLOT_MS / 1000,
    )


def _slots(item: Item) -> int:
    """Whole slots of an utterance."""
    # A duration in seconds may lie a rounding error below a whole number of slots.
    return int((item.duration_s * 1000 + 1e-6) // SLOT_MS)


def _fitted(array: NDArray | None, count: int, shape: tuple[int, ...], dtype: type) -> NDArray:
    """`array` cut or filled with zeros to [count, *shape]; zeros if it is None."""
    fitted: NDArray = np.zeros((count, *shape), dtype)
    if array is not None:
        fitted[: len(array)] = array[:count]
    return fitted
