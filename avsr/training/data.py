"""From manifests to batches. An epoch is a pure function of (seed, epoch): a resumed run sees the same data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avsr.augment import audio, video
from avsr.datasets.manifest import Utterance, load_lips, load_samples, read_manifest
from avsr.decoding.tokenizer import Tokenizer
from avsr.errors import ConfigError, DataError
from avsr.grid import LIP_INPUT_PX, SAMPLE_RATE_HZ, SLOT_MS
from avsr.lips.crops import centre_crop
from avsr.noise.effects import VOICE_EFFECTS, apply_effects, draw_effects, parse_effects
from avsr.noise.folders import find_noises
from avsr.noise.library import (
    NoiseBank,
    held_out_hashes,
    pcm_of,
    read_noise_folder,
    read_pcm,
    require_disjoint,
    sound_hash,
)
from avsr.randomness import generator
from avsr.shipped import find_file
from avsr.training.config import AugmentConfig, CorpusConfig, TrainConfig

SLOT_SAMPLES = SAMPLE_RATE_HZ * SLOT_MS // 1000
IGNORED_FRAME = -100
AUDIBLE_SNR_DB = 8.0  # above it the sound alone can be followed, so a false face may be shown
MAX_BABBLE_VOICES = 200


class Item(NamedTuple):
    """One utterance in memory: samples [S] at 16 kHz, crops [T, 96, 96] and presence [T], or None; words with times."""

    samples: NDArray[np.float32] | None
    crops: NDArray[np.uint8] | None
    presence: NDArray[np.bool_] | None
    words: list[tuple[str, float, float]]
    text: str
    duration: float


@dataclasses.dataclass(frozen=True)
class Batch:
    """Padded utterances.

    samples [B, S], sample_counts [B]; lips uint8 [B, T, 88, 88], presence [B, T] bool; heard [B] bool: the sound is to
    be used; read [B] bool: the lips belong to the words; tokens [B, U] with token_counts [B]; frame_targets
    [B, T / 2] int64: unit at each 80 ms, -100 where not known; texts: the references; changes: what augmentation did
    to each sound, and under "lips" to its lips.
    """

    samples: Tensor
    sample_counts: Tensor
    lips: Tensor
    presence: Tensor
    heard: Tensor
    read: Tensor
    tokens: Tensor
    token_counts: Tensor
    frame_targets: Tensor
    texts: list[str]
    changes: list[dict[str, Any]]

    def to(self, device: torch.device) -> Batch:
        moved: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        return Batch(**moved)


class Example(NamedTuple):
    """One utterance ready for a batch; see `Batch`. effects: what was done to its lips; changes: to its sound."""

    samples: NDArray[np.float32]
    lips: NDArray[np.uint8] | None
    presence: NDArray[np.bool_]
    heard: bool
    read: bool
    tokens: list[int]
    frame_targets: NDArray[np.int64]
    text: str
    effects: Sequence[video.Effect]
    changes: dict[str, Any]


Key = tuple[int, tuple[int, ...]]
"""What names an example: the epoch and the utterances joined in it."""


class Corpus:
    """The utterances of one split of one manifest; none only where the split is optional.

    Raises DataError where the manifest cannot be read or does not have the split.
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
        crops = presence = samples = None
        if sound and utterance.audio is not None:
            samples = load_samples(utterance, self.root)
        if lips and utterance.video is not None:
            crops, presence = load_lips(utterance, self.root)
        words = [(word, float(start), float(end)) for word, start, end in utterance.words]
        return Item(samples, crops, presence, words, utterance.text, utterance.duration)


class TrainingSet(Dataset[Example]):
    """Augmented training examples, by `Key`."""

    def __init__(self, config: TrainConfig, tokenizer: Tokenizer) -> None:
        self.config, self.augment, self.tokenizer = config, config.augment, tokenizer
        self.corpora = [corpus for corpus in map(Corpus, config.train) if corpus.utterances]
        if not self.corpora:
            raise DataError("train: no utterances to train on", expected="a manifest and a split of it")
        self.entries = [(corpus, utterance) for corpus in self.corpora for utterance in corpus.utterances]
        for corpus, utterance in self.entries:
            try:
                tokenizer.encode(utterance.text)
            except DataError as error:
                raise DataError(f"{corpus.config.manifest}: {utterance.id}: {error}") from None
        self._kin: dict[tuple[Any, ...], list[int]] = {}
        for index in range(len(self.entries)):
            self._kin.setdefault(self._kind(index), []).append(index)
        self.noise = noise_bank(self.augment, self.corpora, config.seed)
        self.effects = parse_effects(self.augment.effects)
        self.impulse_responses = _impulse_responses(self.augment)
        if any(effect.name == "reverb" for effect in self.effects) and not self.impulse_responses:
            raise ConfigError("augment.effects: reverb needs recordings", remedy="set augment.impulse_responses")

    @property
    def hours(self) -> float:
        return sum(utterance.duration for _, utterance in self.entries) / 3600

    def epoch(self, epoch: int) -> list[list[Key]]:
        """The batches of one epoch: drawn, joined, shuffled."""
        random = generator(self.config.seed, epoch, "order")
        chosen: list[int] = []
        first = 0
        for corpus in self.corpora:
            size = len(corpus.utterances)
            drawn = random.permutation(size)[: corpus.config.per_epoch]
            chosen.extend(int(first + index) for index in drawn)
            first += size
        random.shuffle(chosen)
        pairs = int(len(chosen) * self.augment.joined / 2)
        joined = [(chosen[2 * index], chosen[2 * index + 1]) for index in range(pairs)]
        single = [(index,) for index in chosen[2 * pairs :]]
        batches: list[list[Key]] = []
        # Joined ones are twice as long: batches of their own, half as many in each.
        for groups, size in (
            (single, self.config.optimizer.batch_size),
            (joined, max(1, self.config.optimizer.batch_size // 2)),
        ):
            batches += [[(epoch, group) for group in groups[i : i + size]] for i in range(0, len(groups), size)]
        random.shuffle(batches)
        return batches

    def duration_s(self, key: Key) -> float:
        """How long an example is before its speed is changed."""
        return sum(self.entries[index][1].duration for index in key[1])

    def __getitem__(self, key: Key) -> Example:
        epoch, indices = key
        name = "+".join(self.entries[index][1].id for index in indices)
        random = generator(self.config.seed, epoch, name, "augment")
        modality = self._draw_modality(random)
        splices = generator(self.config.seed, epoch, name, "splice")
        items, others = [], []
        for index in indices:
            item = self._load(index, modality)
            if splices.random() < self.augment.spliced:
                kin = self._kin[self._kind(index)]
                other = kin[int(splices.integers(len(kin)))]
                others.append(self.entries[other][1].id)
                item = _splice(item, self._load(other, modality), splices)
            items.append(_change_start(item, random))
        item = items[0] if len(items) == 1 else _join(items)
        heard = item.samples is not None
        samples = (
            item.samples if item.samples is not None else np.zeros(round(item.duration * SAMPLE_RATE_HZ), np.float32)
        )
        stretch = round(float(random.uniform(1 - self.augment.speed, 1 + self.augment.speed)), 2)
        if self.augment.speed:
            samples = audio.change_speed(samples, stretch)
        snr_db = -float("inf")
        changes: dict[str, Any] = {"speed": stretch} if self.augment.speed else {}
        if others:
            changes["spliced"] = others
        if heard:
            samples, snr_db = self._vary_sound(samples, random, changes)
        lips, presence, read = None, np.zeros(_slots(samples), bool), False
        effects: list[video.Effect] = []
        if item.crops is not None and item.presence is not None:
            crops, presence = item.crops, item.presence
            read = True
            if snr_db >= AUDIBLE_SNR_DB and random.random() < self.augment.wrong_lips and self._others(indices):
                crops, presence, read = self._other_lips(indices, random)
            if heard and self.augment.offset_slots:
                slots = int(random.integers(-self.augment.offset_slots, self.augment.offset_slots + 1))
                crops, presence = video.shift_slots(crops, presence, slots)
                effects.append({"effect": "offset", "slots": slots})
            crops, presence = _stretch(crops, presence, stretch, _slots(samples))
            # Random numbers of their own: switching one on leaves everything else as it was.
            chance = generator(self.config.seed, epoch, name, "lip effects")
            crops, presence, done = video.apply_effects(crops, presence, self.augment.lip_effects, chance)
            effects += done
            if self.augment.lips:
                lips, view = video.vary_lips(crops, self.augment.lips, random)
                effects.append(view)
            else:
                lips = centre_crop(crops)
            if self.augment.hidden_slots:
                presence, hidden = video.hide_slots(presence, self.augment.hidden_slots, random)
                effects.append(hidden)
        words = [(word, start / stretch, end / stretch) for word, start, end in item.words]
        return _example(samples, lips, presence, heard, read, words, item.text, self.tokenizer, effects, changes)

    def _load(self, index: int, modality: str) -> Item:
        """What `modality` needs of an utterance, or all that it has."""
        corpus, utterance = self.entries[index]
        return corpus.load(
            utterance,
            sound=modality != "v" or utterance.video is None,
            lips=modality != "a" or utterance.audio is None,
        )

    def _kind(self, index: int) -> tuple[Any, ...]:
        """What utterances have in common that one could go on as another: corpus, speaker, and what there is."""
        corpus, utterance = self.entries[index]
        return id(corpus), utterance.speaker, utterance.audio is None, utterance.video is None

    def _draw_modality(self, random: np.random.Generator) -> str:
        odds = self.config.modalities
        total = odds.a + odds.v + odds.av
        return str(random.choice(["a", "v", "av"], p=[odds.a / total, odds.v / total, odds.av / total]))

    def _vary_sound(
        self, samples: NDArray[np.float32], random: np.random.Generator, changes: dict[str, Any]
    ) -> tuple[NDArray[np.float32], float]:
        """Sound in a random room, through a random channel, with noise, at a random level; its SNR (infinite without).

        What was done is noted in `changes`.
        """
        augment = self.augment
        records: list[dict[str, Any]] = []
        if self.effects:
            records = draw_effects(
                self.effects, lambda bound, *purpose: int(random.integers(bound)), list(self.impulse_responses)
            )
            changes["effects"] = records
        on_voice = [record for record in records if record["effect"] in VOICE_EFFECTS]
        if on_voice:
            samples = apply_effects(samples, on_voice, self.impulse_responses.__getitem__)
        if augment.channel_db:
            samples = audio.colour_channel(samples, augment.channel_db, random)
        snr_db = float("inf")
        if random.random() < augment.noise_share and np.any(samples):
            snr_db = float(random.uniform(*augment.snr_db))
            noise, changes["noise"] = self.noise.draw(len(samples), random)
            changes["snr_db"] = snr_db
            samples = audio.mix_at_snr(samples, noise, snr_db)
        if len(on_voice) < len(records):
            samples = apply_effects(samples, [record for record in records if record not in on_voice])
        if augment.gain_db:
            changes["gain_db"] = float(random.uniform(-augment.gain_db, augment.gain_db))
            samples = samples * np.float32(10 ** (changes["gain_db"] / 20))
        return samples, snr_db

    def _others(self, indices: Sequence[int]) -> bool:
        """Whether any other utterance has lips."""
        return any(u.video is not None and index not in indices for index, (_, u) in enumerate(self.entries))

    def _other_lips(
        self, indices: Sequence[int], random: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], bool]:
        while True:
            index = int(random.integers(len(self.entries)))
            corpus, utterance = self.entries[index]
            if utterance.video is not None and index not in indices:
                item = corpus.load(utterance, sound=False, lips=True)
                assert item.crops is not None and item.presence is not None
                return item.crops, item.presence, False


class EvaluationSet(Dataset[Example]):
    """Utterances as they are, by index; optionally with repeatable noise at one SNR."""

    def __init__(
        self, corpus: Corpus, tokenizer: Tokenizer, *, noise: NoiseBank | None = None, snr_db: float | None = None
    ) -> None:
        self.corpus, self.tokenizer, self.noise, self.snr_db = corpus, tokenizer, noise, snr_db

    def __len__(self) -> int:
        return len(self.corpus.utterances)

    def __getitem__(self, index: int) -> Example:
        utterance = self.corpus.utterances[index]
        item = self.corpus.load(utterance, sound=True, lips=True)
        heard = item.samples is not None
        samples = (
            item.samples if item.samples is not None else np.zeros(round(item.duration * SAMPLE_RATE_HZ), np.float32)
        )
        if heard and self.snr_db is not None and self.noise is not None:
            noise, _ = self.noise.draw(len(samples), generator("evaluation", utterance.id, self.snr_db))
            samples = audio.mix_at_snr(samples, noise, self.snr_db)
        lips, presence = None, np.zeros(_slots(samples), bool)
        if item.crops is not None and item.presence is not None:
            lips, presence = centre_crop(item.crops), item.presence
        return _example(samples, lips, presence, heard, lips is not None, item.words, item.text, self.tokenizer)


def training_batches(dataset: TrainingSet, epoch: int, workers: int) -> DataLoader[Example]:
    """A loader of the batches of one epoch."""
    return DataLoader(
        dataset,
        batch_sampler=dataset.epoch(epoch),
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_without_threads,
    )


def _without_threads(_: int) -> None:
    """OpenCV's own threads would crowd the other workers, and do not survive a fork."""
    cv2.setNumThreads(0)


def collate(examples: Sequence[Example]) -> Batch:
    """Pad to the longest."""
    B = len(examples)
    frames = max(_frames(len(example.samples)) for example in examples)
    samples = np.zeros((B, max(len(example.samples) for example in examples)), np.float32)
    lips = np.zeros((B, 2 * frames, LIP_INPUT_PX, LIP_INPUT_PX), np.uint8)
    presence = np.zeros((B, 2 * frames), bool)
    tokens = np.zeros((B, max(1, *(len(example.tokens) for example in examples))), np.int64)
    targets = np.full((B, frames), IGNORED_FRAME, np.int64)
    for index, example in enumerate(examples):
        samples[index, : len(example.samples)] = example.samples
        tokens[index, : len(example.tokens)] = example.tokens
        targets[index, : len(example.frame_targets)] = example.frame_targets
        if example.lips is not None:
            slots = min(len(example.lips), len(example.presence), 2 * _frames(len(example.samples)))
            lips[index, :slots] = example.lips[:slots]
            presence[index, :slots] = example.presence[:slots]
    return Batch(
        samples=torch.from_numpy(samples),
        sample_counts=torch.tensor([len(example.samples) for example in examples]),
        lips=torch.from_numpy(lips),
        presence=torch.from_numpy(presence),
        heard=torch.tensor([example.heard for example in examples]),
        read=torch.tensor([example.read for example in examples]),
        tokens=torch.from_numpy(tokens),
        token_counts=torch.tensor([len(example.tokens) for example in examples]),
        frame_targets=torch.from_numpy(targets),
        texts=[example.text for example in examples],
        changes=[example.changes | {"lips": list(example.effects)} for example in examples],
    )


def _example(
    samples: NDArray[np.float32],
    lips: NDArray[np.uint8] | None,
    presence: NDArray[np.bool_],
    heard: bool,
    read: bool,
    words: Sequence[tuple[str, float, float]],
    text: str,
    tokenizer: Tokenizer,
    effects: Sequence[video.Effect] = (),
    changes: dict[str, Any] | None = None,
) -> Example:
    targets = np.full(_frames(len(samples)), IGNORED_FRAME, np.int64)
    if words:
        middle_s = (np.arange(len(targets)) + 0.5) * 2 * SLOT_MS / 1000
        targets[:] = len(tokenizer)  # the blank, unless a word is spoken
        for word, start, end in words:
            inside = np.flatnonzero((middle_s >= start) & (middle_s < end))
            units = np.asarray(tokenizer.encode(word))
            targets[inside] = units[np.arange(len(inside)) * len(units) // max(1, len(inside))]
    return Example(samples, lips, presence, heard, read, tokenizer.encode(text), targets, text, effects, changes or {})


def noise_bank(augment: AugmentConfig, corpora: Sequence[Corpus], seed: int) -> NoiseBank:
    """The noise to train with. Raises DataError naming a recording that is held out for tests."""
    environment: dict[str, NDArray[np.float32]] = {}
    if augment.noise_folder and augment.noise_share:
        if not Path(augment.noise_folder).is_dir():
            raise DataError(
                f"augment.noise_folder: got {augment.noise_folder}, which is no folder",
                expected="a folder of noise recordings",
                remedy="name yours with augment.noise_folder=DIR, or train without with augment.noise_folder=null",
            )
        environment = read_noise_folder(Path(augment.noise_folder))
    voices: dict[str, NDArray[np.float32]] = {}
    if augment.babble and augment.noise_share:
        spoken = [(corpus, u) for corpus in corpora for u in corpus.utterances if u.audio is not None]
        chosen = generator(seed, "babble voices").permutation(len(spoken))[:MAX_BABBLE_VOICES]
        voices = {
            f"{spoken[i][0].config.manifest}: {spoken[i][1].id}": load_samples(spoken[i][1], spoken[i][0].root)
            for i in chosen
        }
    for held_out in augment.held_out_noise:
        trained = {sound_hash(pcm_of(samples)): name for name, samples in (environment | voices).items()}
        trained |= {sound_hash(samples): name for name, samples in _impulse_responses(augment).items()}
        require_disjoint(trained, held_out_hashes(Path(held_out)))
    return NoiseBank(list(environment.values()), list(voices.values()))


def _impulse_responses(augment: AugmentConfig) -> dict[str, NDArray[np.int16]]:
    if augment.impulse_responses is None:
        return {}
    return {file.name: read_pcm(file.path) for file in find_noises("rir", Path(augment.impulse_responses))}


def _frames(samples: int) -> int:
    """80 ms frames of so many samples as the audio encoder counts them: whole 10 ms hops, eight a frame, rounded up."""
    return -(-(samples // 160) // 8)


def _slots(samples: NDArray[np.float32]) -> int:
    return -(-len(samples) // SLOT_SAMPLES)


def _change_start(item: Item, random: np.random.Generator) -> Item:
    """Cut up to five slots before the first word, so that nothing can be learnt from when a recording begins."""
    if not item.words:
        return item
    spare = int((item.words[0][1] - 0.04) * 1000 // SLOT_MS)
    slots = int(random.integers(0, max(0, min(spare, 5)) + 1))
    seconds = slots * SLOT_MS / 1000
    return Item(
        None if item.samples is None else item.samples[slots * SLOT_SAMPLES :],
        None if item.crops is None else item.crops[slots:],
        None if item.presence is None else item.presence[slots:],
        [(word, start - seconds, end - seconds) for word, start, end in item.words],
        item.text,
        item.duration - seconds,
    )


def _splice(item: Item, other: Item, random: np.random.Generator) -> Item:
    """One utterance up to a word, then another from the word of that number on. `item` where words have no times."""
    count = min(len(item.words), len(other.words))
    if count < 2:
        return item
    word = int(random.integers(1, count))

    def cut(of: Item) -> int:
        return round((of.words[word - 1][2] + of.words[word][1]) / 2 * 1000 / SLOT_MS)

    return _join(
        [_part(item, 0, cut(item), item.words[:word]), _part(other, cut(other), _slots_of(other), other.words[word:])]
    )


def _part(item: Item, first: int, end: int, words: list[tuple[str, float, float]]) -> Item:
    """The slots from `first` to before `end`, in which `words` lie."""
    start_s = first * SLOT_MS / 1000
    return Item(
        None if item.samples is None else item.samples[first * SLOT_SAMPLES : end * SLOT_SAMPLES],
        None if item.crops is None else item.crops[first:end],
        None if item.presence is None else item.presence[first:end],
        [(word, start - start_s, end - start_s) for word, start, end in words],
        " ".join(word for word, _, _ in words),
        (end - first) * SLOT_MS / 1000,
    )


def _slots_of(item: Item) -> int:
    """Whole slots of an utterance, which a duration in seconds may miss by a rounding."""
    return int((item.duration * 1000 + 1e-6) // SLOT_MS)


def _join(items: Sequence[Item]) -> Item:
    """Utterances one after the other; a side that one of them lacks is silent or absent there."""
    samples, crops, presence, words = [], [], [], []
    offset_s = 0.0
    with_sound = any(item.samples is not None for item in items)
    with_lips = any(item.crops is not None for item in items)
    for item in items:
        slots = _slots_of(item)
        samples.append(_fit(item.samples, slots * SLOT_SAMPLES, (), np.float32))
        crops.append(_fit(item.crops, slots, (96, 96), np.uint8))
        presence.append(_fit(item.presence, slots, (), bool))
        words += [(word, start + offset_s, end + offset_s) for word, start, end in item.words]
        offset_s += slots * SLOT_MS / 1000
    return Item(
        np.concatenate(samples) if with_sound else None,
        np.concatenate(crops) if with_lips else None,
        np.concatenate(presence) if with_lips else None,
        words if all(item.words for item in items) else [],
        " ".join(item.text for item in items),
        offset_s,
    )


def _fit(array: NDArray | None, count: int, shape: tuple[int, ...], dtype: type) -> NDArray:
    fitted: NDArray = np.zeros((count, *shape), dtype)
    if array is not None:
        fitted[: len(array)] = array[:count]
    return fitted


def _stretch(
    crops: NDArray[np.uint8], presence: NDArray[np.bool_], factor: float, slots: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Lips on a clock that runs `factor` times faster, cut or repeated to so many slots (what is missing is absent)."""
    source = np.rint(np.arange(slots) * factor).astype(np.int64)
    inside = source < len(crops)
    source = np.minimum(source, len(crops) - 1)
    return crops[source], presence[source] & inside
