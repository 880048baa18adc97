"""The data sets of a training run. An epoch is a pure function of (seed, epoch): a resumed run gets the same data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset

from avsr.arrays import Crops, Present, Samples
from avsr.augment import audio, video
from avsr.decoding.tokenizer import Units
from avsr.errors import ConfigError, DataError
from avsr.grid import SAMPLE_RATE_HZ, Modality
from avsr.lips.crops import centre_crop
from avsr.noise.effects import VOICE_EFFECTS, apply_effects, draw_effects, parse_effects
from avsr.noise.library import NoiseBank
from avsr.randomness import generator
from avsr.training.batches import Example, collate, make_example, slots_of
from avsr.training.config import RunConfig
from avsr.training.items import Corpus, Item, cut_start, dub, join, splice
from avsr.training.noise import impulse_responses, noise_bank

Key = tuple[int, tuple[int, ...]]
"""The name of an example: the epoch, and the numbers of the utterances that are joined in it."""


class TrainingSet(Dataset[Example]):
    """Augmented training examples, by `Key`.

    Raises DataError and ConfigError if a corpus or a recording is missing, or a text cannot be encoded.
    """

    def __init__(self, config: RunConfig, tokenizer: Units) -> None:
        self.config, self.augment, self.tokenizer = config, config.augment, tokenizer
        self.corpora = [corpus for corpus in map(Corpus, config.train) if corpus.utterances]
        if not self.corpora:
            raise DataError("train: no utterances to train on", expected="a manifest and a split of it")
        self.entries = [(corpus, utterance) for corpus in self.corpora for utterance in corpus.utterances]
        # A text that cannot be encoded must fail now, and not in the middle of an epoch.
        for corpus, utterance in self.entries:
            try:
                tokenizer.encode(utterance.text)
            except DataError as error:
                raise DataError(f"{corpus.config.manifest}: {utterance.id}: {error}") from None
        self._alike: dict[tuple[Any, ...], list[int]] = {}
        for index in range(len(self.entries)):
            self._alike.setdefault(self._kind(index), []).append(index)
        self._voices: dict[str, list[int]] = {}
        self._faces: dict[tuple[str, str], list[int]] = {}
        for index, (_, utterance) in enumerate(self.entries):
            if utterance.audio is not None and utterance.video is None:
                self._voices.setdefault(utterance.text, []).append(index)
            if utterance.video is not None:
                self._faces.setdefault(self._face(index), []).append(index)
        self.noise = noise_bank(self.augment, self.corpora, config.seed)
        self.effects = parse_effects(self.augment.effects)
        self.impulse_responses = impulse_responses(self.augment)
        if any(effect.name == "reverb" for effect in self.effects) and not self.impulse_responses:
            raise ConfigError("augment.effects: reverb needs recordings", remedy="set augment.impulse_responses")

    @property
    def hours(self) -> float:
        """Duration of all utterances."""
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
        # Joined utterances are twice as long: they get batches of their own, with half as many in each.
        for groups, size in (
            (single, self.config.optimizer.batch_size),
            (joined, max(1, self.config.optimizer.batch_size // 2)),
        ):
            batches += [[(epoch, group) for group in groups[i : i + size]] for i in range(0, len(groups), size)]
        random.shuffle(batches)
        return batches

    def duration_s(self, key: Key) -> float:
        """Duration of an example before its speed is changed."""
        return sum(self.entries[index][1].duration for index in key[1])

    def __getitem__(self, key: Key) -> Example:
        epoch, indices = key
        name = "+".join(self.entries[index][1].id for index in indices)
        random = generator(self.config.seed, epoch, name, "augment")
        changes: dict[str, Any] = {}
        item = self._item(key, name, random, changes)
        has_audio = item.samples is not None
        samples = _samples_or_silence(item)
        stretch = round(float(random.uniform(1 - self.augment.speed, 1 + self.augment.speed)), 2)
        if self.augment.speed:
            samples = audio.change_speed(samples, stretch)
            changes = {"speed": stretch, **changes}
        snr_db: float | None = None
        if has_audio:
            samples, snr_db = self._vary_sound(samples, random, changes)
        crops, present, lips_match = None, np.zeros(slots_of(len(samples)), bool), False
        effects: list[video.Effect] = []
        if item.crops is not None and item.present is not None:
            all_crops, present = item.crops, item.present
            lips_match = True
            is_audible = has_audio and (snr_db is None or snr_db >= self.augment.wrong_lips_snr_db)
            # Wrong lips teach the fusion to doubt. Without another utterance with lips, the draw would never end.
            if is_audible and random.random() < self.augment.wrong_lips and self._others_have_lips(indices):
                all_crops, present = self._lips_of_another(indices, random)
                lips_match = False
            if has_audio and self.augment.offset_slots:
                slots = int(random.integers(-self.augment.offset_slots, self.augment.offset_slots + 1))
                all_crops, present = video.shift_slots(all_crops, present, slots)
                effects.append({"effect": "offset", "slots": slots})
            all_crops, present = _stretch(all_crops, present, stretch, slots_of(len(samples)))
            # These effects have a generator of their own: switching one on does not change any other draw.
            chance = generator(self.config.seed, epoch, name, "lip effects")
            all_crops, present, done = video.apply_effects(all_crops, present, self.augment.lip_effects, chance)
            effects += done
            if self.augment.lips:
                crops, view = video.vary_lips(all_crops, self.augment.lips, random)
                effects.append(view)
            else:
                crops = centre_crop(all_crops)
            if self.augment.hidden_slots:
                present, hidden = video.hide_slots(present, self.augment.hidden_slots, random)
                effects.append(hidden)
        return make_example(
            samples,
            crops,
            present,
            has_audio=has_audio,
            lips_match=lips_match,
            words=[(word, start / stretch, end / stretch) for word, start, end in item.words],
            text=item.text,
            tokenizer=self.tokenizer,
            effects=effects,
            changes=changes,
        )

    def _item(self, key: Key, name: str, random: np.random.Generator, changes: dict[str, Any]) -> Item:
        """The utterances of an example by a random modality, spliced and joined.

        random: of the modality and the starts.
        changes: gets the ids of the utterances that were spliced in.
        """
        epoch, indices = key
        modality = self._draw_modality(random)
        # A generator of its own: switching `spliced` on changes no other draw.
        splices = generator(self.config.seed, epoch, name, "splice")
        items, spliced = [], []
        dubs = generator(self.config.seed, epoch, name, "dub")
        for index in indices:
            item = self._load(index, modality)
            voices = self._voices.get(item.text, [])
            if voices and modality == "av" and item.crops is not None and dubs.random() < self.augment.dubbed:
                voice = voices[int(dubs.integers(len(voices)))]
                changes.setdefault("dubbed", []).append(self.entries[voice][1].id)
                items.append(cut_start(dub(item, self._load(voice, "a")), random))
                continue
            if splices.random() < self.augment.spliced:
                alike = self._alike[self._kind(index)]
                other = alike[int(splices.integers(len(alike)))]
                spliced.append(self.entries[other][1].id)
                item = splice(item, self._load(other, modality), splices)
            items.append(cut_start(item, random))
        if spliced:
            changes["spliced"] = spliced
        return items[0] if len(items) == 1 else join(items)

    def _load(self, index: int, modality: Modality) -> Item:
        """The sound and lips that `modality` needs; an utterance that has only one of them keeps it."""
        corpus, utterance = self.entries[index]
        return corpus.load(
            utterance,
            sound=modality != "v" or utterance.video is None,
            lips=modality != "a" or utterance.audio is None,
        )

    def _kind(self, index: int) -> tuple[Any, ...]:
        """Utterances of one kind may be spliced: same corpus, same speaker, both with sound, both with lips."""
        corpus, utterance = self.entries[index]
        return id(corpus), utterance.speaker, utterance.audio is None, utterance.video is None

    def _draw_modality(self, random: np.random.Generator) -> Modality:
        odds = self.config.modalities
        total = odds.a + odds.v + odds.av
        modalities: tuple[Modality, ...] = ("a", "v", "av")
        return modalities[int(random.choice(3, p=[odds.a / total, odds.v / total, odds.av / total]))]

    def _vary_sound(
        self, samples: Samples, random: np.random.Generator, changes: dict[str, Any]
    ) -> tuple[Samples, float | None]:
        """Sound in a random room, through a random channel, with noise, at a random level; and its SNR in dB.

        The SNR is None without noise. `changes` gets a record of every change.
        """
        augment = self.augment
        records: list[dict[str, Any]] = []
        if self.effects:
            records = draw_effects(
                self.effects, lambda bound, *purpose: int(random.integers(bound)), list(self.impulse_responses)
            )
            changes["effects"] = records
        # A room changes the voice before the noise is added; a microphone or a line changes both.
        on_voice = [record for record in records if record["effect"] in VOICE_EFFECTS]
        if on_voice:
            samples = apply_effects(samples, on_voice, self.impulse_responses.__getitem__)
        if augment.channel_db:
            samples = audio.colour_channel(samples, augment.channel_db, random)
        snr_db: float | None = None
        # Digital silence has no level that noise could be mixed against.
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

    def _others_have_lips(self, indices: Sequence[int]) -> bool:
        return any(index not in indices for faces in self._faces.values() for index in faces)

    def _lips_of_another(self, indices: Sequence[int], random: np.random.Generator) -> tuple[Crops, Present]:
        """The lips of another utterance than `indices`: in half of the cases of the same speaker.

        Otherwise of any speaker, each equally often.
        """
        # Of joined utterances one may have no lips.
        own = next(face for face in map(self._face, indices) if face in self._faces)
        speakers = list(self._faces)
        while True:
            speaker = own if random.random() < 0.5 else speakers[int(random.integers(len(speakers)))]
            faces = self._faces[speaker]
            index = faces[int(random.integers(len(faces)))]
            if index not in indices:
                corpus, utterance = self.entries[index]
                item = corpus.load(utterance, sound=False, lips=True)
                assert item.crops is not None and item.present is not None
                return item.crops, item.present

    def _face(self, index: int) -> tuple[str, str]:
        corpus, utterance = self.entries[index]
        return corpus.config.manifest, utterance.speaker


class EvaluationSet(Dataset[Example]):
    """Utterances without augmentation, by index.

    noise: mixed in, the same for an utterance each time; None for clean sound.
    snr_db: of the noise; None for clean sound.
    """

    def __init__(
        self, corpus: Corpus, tokenizer: Units, *, noise: NoiseBank | None = None, snr_db: float | None = None
    ) -> None:
        self.corpus, self.tokenizer, self.noise, self.snr_db = corpus, tokenizer, noise, snr_db

    def __len__(self) -> int:
        return len(self.corpus.utterances)

    def __getitem__(self, index: int) -> Example:
        utterance = self.corpus.utterances[index]
        item = self.corpus.load(utterance, sound=True, lips=True)
        has_audio = item.samples is not None
        samples = _samples_or_silence(item)
        if has_audio and self.snr_db is not None and self.noise is not None:
            noise, _ = self.noise.draw(len(samples), generator("evaluation", utterance.id, self.snr_db))
            samples = audio.mix_at_snr(samples, noise, self.snr_db)
        crops, present = None, np.zeros(slots_of(len(samples)), bool)
        if item.crops is not None and item.present is not None:
            crops, present = centre_crop(item.crops), item.present
        return make_example(
            samples,
            crops,
            present,
            has_audio=has_audio,
            lips_match=crops is not None,
            words=item.words,
            text=item.text,
            tokenizer=self.tokenizer,
        )


def training_batches(dataset: TrainingSet, epoch: int, workers: int) -> DataLoader[Example]:
    """A loader of the batches of one epoch.

    workers: processes that prepare batches; 0 prepares them in this one.
    """
    return DataLoader(
        dataset,
        batch_sampler=dataset.epoch(epoch),
        num_workers=workers,
        collate_fn=collate,
        # torch refuses a prefetch factor without workers.
        prefetch_factor=4 if workers else None,
        worker_init_fn=_without_threads,
    )


def _without_threads(_: int) -> None:
    # OpenCV's own threads would crowd the other workers, and do not survive a fork.
    cv2.setNumThreads(0)


def _samples_or_silence(item: Item) -> Samples:
    if item.samples is not None:
        return item.samples
    return np.zeros(round(item.duration_s * SAMPLE_RATE_HZ), np.float32)


def _stretch(crops: Crops, present: Present, factor: float, slots: int) -> tuple[Crops, Present]:
    """`slots` slots of lips that move `factor` times as fast; slots beyond the last crop are absent."""
    source = np.rint(np.arange(slots) * factor).astype(np.int64)
    inside = source < len(crops)
    source = np.minimum(source, len(crops) - 1)
    return crops[source], present[source] & inside
