"""The conditions of an evaluation: modality, noise and its level, damage to the lips, seed.

A damage to the lips is named by its kind and amount, as in `random-30` or `late-120`; see `FORMS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from avsr.arrays import Crops, Present
from avsr.augment import video
from avsr.errors import ConfigError, nearest
from avsr.grid import CROP_PX, SLOT_MS, Modality
from avsr.randomness import generator

MODALITIES: tuple[Modality, ...] = ("a", "v", "av")
MODALITY_NAMES: dict[Modality, str] = {"a": "audio only", "v": "lips only", "av": "audio-visual"}
"""How tables and figures call the modalities."""

CLEAN = "clean"
UNUSED = "unused"  # the noise of a condition by lips only, the picture of a condition by audio only
INTACT = "intact"
ABSENT = "absent"
LIPS: dict[Modality, str] = {"a": UNUSED, "v": INTACT, "av": INTACT}
"""The condition of intact lips in each modality."""

OTHER_SENTENCE = "other-sentence"
"""Lips of another sentence of the same speaker."""
OTHER_SPEAKER = "other-speaker"
"""Lips of another speaker, who says another sentence."""

DEFAULT_SEEDS = (1, 2, 3)
DEFAULT_PICTURES = (
    INTACT,
    ABSENT,
    "lost-first-third",
    "lost-middle-third",
    "lost-last-third",
    "random-10",
    "random-30",
    "random-50",
    "random-70",
    "random-90",
    "blur-3",
    "blur-8",
    "low-resolution-16",
    "low-resolution-8",
    "occluder-25",
    "occluder-50",
    "late-40",
    "late-120",
    "late-200",
    "late-400",
    "early-40",
    "early-120",
    "early-200",
    "early-400",
    "frozen-50",
)


class SoundCondition(NamedTuple):
    """One condition of the sound: clean, or a kind of noise at an SNR."""

    noise: str = CLEAN
    snr_db: float | None = None
    """None for clean sound."""
    seed: int | None = None
    """Of the draw; None if nothing about the sound is random."""

    def __str__(self) -> str:
        level = "" if self.snr_db is None else f" at {self.snr_db:g} dB"
        return f"{self.noise}{level}" + ("" if self.seed is None else f" with seed {self.seed}")


class LipCondition(NamedTuple):
    """One condition of the lips."""

    name: str = INTACT
    seed: int | None = None
    """Of the draw; None if nothing about the lips is random."""


class Condition(NamedTuple):
    """One cell of the grid, for which a word error rate is measured."""

    modality: Modality
    noise: str
    """Kind of noise, "clean" or "unused"."""
    snr_db: float | None
    """None without noise."""
    video: str
    """Name of a condition of the lips, or "unused"."""
    seed: int | None
    """None if nothing is random."""

    @property
    def without_seed(self) -> Condition:
        """The condition that all seeds share."""
        return self._replace(seed=None)

    def __str__(self) -> str:
        level = "" if self.snr_db is None else f" {self.snr_db:g} dB"
        parts = [MODALITY_NAMES[self.modality]]
        parts += [self.noise + level] if self.noise != UNUSED else []
        parts += [f"lips {self.video}"] if self.video != UNUSED else []
        return ", ".join(parts)


class Grid(NamedTuple):
    """All conditions of an evaluation: by each modality, every sound with every picture.

    A random sound meets only the random pictures of its own seed.
    """

    modalities: tuple[Modality, ...]
    sounds: tuple[SoundCondition, ...]
    pictures: tuple[LipCondition, ...]

    def audio_only(self, sound: SoundCondition) -> Condition:
        """A sound by audio only."""
        return Condition("a", sound.noise, sound.snr_db, UNUSED, sound.seed)

    def lips_only(self, picture: LipCondition) -> Condition:
        """A picture by lips only."""
        return Condition("v", UNUSED, None, picture.name, picture.seed)

    def audio_visual(self, sound: SoundCondition, picture: LipCondition) -> Condition:
        """A sound and a picture together."""
        seed = picture.seed if sound.seed is None else sound.seed
        return Condition("av", sound.noise, sound.snr_db, picture.name, seed)

    def pictures_with(self, sound: SoundCondition) -> list[LipCondition]:
        """The pictures that a sound is combined with."""
        return [p for p in self.pictures if None in (p.seed, sound.seed) or p.seed == sound.seed]

    @property
    def visible_pictures(self) -> list[LipCondition]:
        """The pictures in which there are lips."""
        return [picture for picture in self.pictures if picture.name != ABSENT]

    def conditions(self) -> Iterator[Condition]:
        """The cells, in the order of the results."""
        # Finished units name a cell by its place in this order: another order would make half-done evaluations wrong.
        if "a" in self.modalities:
            yield from map(self.audio_only, self.sounds)
        if "v" in self.modalities:
            yield from map(self.lips_only, self.visible_pictures)
        if "av" in self.modalities:
            for sound in self.sounds:
                for picture in self.pictures_with(sound):
                    yield self.audio_visual(sound, picture)


def make_grid(
    modalities: Sequence[Modality],
    noises: Sequence[str],
    snrs_db: Sequence[float | None],
    pictures: Sequence[str],
    seeds: Sequence[int],
    *,
    clean_is_random: bool = False,
) -> Grid:
    """The grid of these lists.

    modalities: some of "a", "v", "av".
    noises: kinds of noise; without any, the sound is clean.
    snrs_db: levels of the noise; None for clean sound.
    pictures: names of conditions of the lips.
    seeds: of everything random.
    clean_is_random: clean sound depends on the seed too, because random effects are applied to it.
    Raises ConfigError for an unknown name, an empty list, and a list that holds a value twice.
    """
    lists: list[tuple[str, Sequence[object]]] = [("noise", noises), ("SNR", snrs_db), ("picture", pictures)]
    for name, values in [*lists, ("seed", seeds), ("modality", modalities)]:
        if len(set(values)) != len(values) or not (values or name == "noise"):
            raise ConfigError(f"{name}: got {', '.join(map(str, values)) or 'none'}, expected one or more, each once")
    levels = [snr_db for snr_db in snrs_db if snr_db is not None]
    if not all(math.isfinite(snr_db) for snr_db in levels):
        raise ConfigError("SNR", got=", ".join(map(str, levels)), expected="numbers in dB, or clean")
    sounds = []
    if None in snrs_db or not noises:
        sounds += [SoundCondition(seed=seed) for seed in (seeds if clean_is_random else (None,))]
    sounds += [SoundCondition(noise, snr_db, seed) for noise in noises for snr_db in levels for seed in seeds]
    # If nothing is random, every seed would give the same numbers again.
    seeded = [LipCondition(name, seed) for name in pictures for seed in (seeds if is_random(name) else (None,))]
    grid = Grid(tuple(modalities), tuple(sounds), tuple(seeded))
    if next(grid.conditions(), None) is None:
        raise ConfigError("nothing to evaluate: lips alone cannot be read where they are absent")
    return grid


class Form(NamedTuple):
    """One kind of damage to the lips."""

    amount: str | None
    """Meaning of the number in the name; None if the name has no number."""
    fits: Callable[[float], bool]
    """Whether a number is allowed."""
    random: bool = False
    """Whether another seed gives other lips."""


FORMS: dict[str, Form] = {
    INTACT: Form(None, lambda _: True),
    ABSENT: Form(None, lambda _: True),
    "lost-first-third": Form(None, lambda _: True),
    "lost-middle-third": Form(None, lambda _: True),
    "lost-last-third": Form(None, lambda _: True),
    "random": Form("percent of the slots lost, 1 to 99", lambda n: 1 <= n <= 99, random=True),
    "blur": Form("deviation in pixels of the 96, more than 0", lambda n: n > 0),
    "low-resolution": Form("pixels a side in place of 96, a whole number", lambda n: 1 <= n < CROP_PX and n == int(n)),
    "compressed": Form("JPEG quality, 1 to 100", lambda n: 1 <= n <= 100 and n == int(n)),
    "occluder": Form("percent of the picture covered, 1 to 99", lambda n: 1 <= n <= 99, random=True),
    "late": Form(f"milliseconds, a multiple of {SLOT_MS}", lambda n: n > 0 and n % SLOT_MS == 0),
    "early": Form(f"milliseconds, a multiple of {SLOT_MS}", lambda n: n > 0 and n % SLOT_MS == 0),
    OTHER_SENTENCE: Form(None, lambda _: True, random=True),
    OTHER_SPEAKER: Form(None, lambda _: True, random=True),
    "frozen": Form("percent of the time, at the end, that the picture stands still, 1 to 100", lambda n: 1 <= n <= 100),
}
_THIRDS = {"lost-first-third": 0, "lost-middle-third": 1, "lost-last-third": 2}


def is_random(name: str) -> bool:
    """Whether another seed gives other lips. Raises ConfigError for an unknown name."""
    return FORMS[_parse(name)[0]].random


def change_picture(picture: LipCondition, crops: Crops, present: Present, utterance: str) -> tuple[Crops, Present]:
    """Lips under a condition that changes the utterance's own. `LipSource` has those that belong to another one.

    crops: [T, 96, 96].
    present: [T].
    utterance: its id, on which random changes depend.
    Returns crops and presence of the same shapes.
    """
    kind, amount = _parse(picture.name)
    # Seeded by the utterance and not by its batch, so that shards and processes damage its lips alike.
    random = generator("evaluation lips", picture.seed, utterance, picture.name)
    T = len(crops)
    if T == 0 or kind == INTACT:
        return crops, present
    match kind:
        case "absent":
            return crops, np.zeros_like(present)
        case "random":
            return crops, video.drop_slots(present, random, amount / 100)
        case "blur":
            return video.blur(crops, amount), present
        case "low-resolution":
            return video.low_resolution(crops, int(amount)), present
        case "compressed":
            return video.compress(crops, int(amount)), present
        case "occluder":
            return video.occlude(crops, random, amount / 100), present
        case "late" | "early":
            return video.shift_slots(crops, present, int(amount) // SLOT_MS * (1 if kind == "late" else -1))
        case "frozen":
            return video.freeze(crops, present, min(T - 1, round(T * (1 - amount / 100))), T - 1)
    third = _THIRDS[kind]
    lost = present.copy()
    lost[round(T * third / 3) : round(T * (third + 1) / 3)] = False
    return crops, lost


def describe_pictures() -> str:
    """The names of conditions of the lips, for an error message."""
    return ", ".join(name if form.amount is None else f"{name}-N" for name, form in FORMS.items())


def _parse(name: str) -> tuple[str, float]:
    form = FORMS.get(name)
    if form is not None and form.amount is None:
        return name, 0.0
    kind, _, text = name.rpartition("-")
    form = FORMS.get(kind)
    if form is not None and form.amount is not None:
        try:
            amount = float(text)
        except ValueError:
            amount = math.nan
        if text == f"{amount:g}" and form.fits(amount):  # 010 and 1e1 would be second names of 10
            return kind, amount
        raise ConfigError(f"condition of the lips {name!r}", got=text, expected=form.amount)
    if name in FORMS:
        raise ConfigError(f"condition of the lips {name!r}", expected=f"{name}-N, where N is {FORMS[name].amount}")
    close = nearest(kind or name, FORMS) or nearest(name, FORMS)
    raise ConfigError(
        f"unknown condition of the lips {name!r}",
        expected=f"one of {describe_pictures()}",
        remedy=f"did you mean {close}?" if close else None,
    )
