"""A model that hears and a model that reads lips, as one model without any training.

    together:SOUND,LIPS        such as together:whisper-base,grid-tiny

Models with the same units search together: each unit gets the weighted sum of both. Others list their likely texts,
each judges the texts of both, and the text with the highest weighted sum is taken (decision fusion; Potamianos et al.,
Proc. IEEE 91(9), 2003, section IV-B). The weight of the sound follows how sure its model is of its own words.

Letters: B items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from avsr.arrays import Crops, Present, Samples
from avsr.decoding.joint import joint_search_by
from avsr.decoding.plain import Plain, plain
from avsr.decoding.scorers import mixed
from avsr.decoding.search import Search, Spoken
from avsr.engine import Card, Model, StepScores, Told
from avsr.errors import ConfigError
from avsr.grid import Modality

PREFIX = "together:"
SURE, STEEPNESS = 0.75, 6.0
"""The mean confidence at which the sound weighs as much as the lips, and how fast its weight grows with it. Of 168
pairs they make the fewest errors with the two sides of `grid-tiny` on GRID `dev` (`benchmarks/two_models.py --fit`)."""
CANDIDATES = 10
"""How many texts each model lists."""


class BothLips(NamedTuple):
    """The encoded lips of a batch."""

    encoded: Any
    seen: tuple[bool, ...]
    """Of each item: whether any slot shows lips."""


class Together:
    """The engine of two models.

    weight_of: the weight of the sound, in [0, 1], for its own best words. on_weight: called with each weight that is
    used.
    """

    def __init__(
        self,
        sound: Model,
        lips: Model,
        weight_of: Callable[[Sequence[Spoken]], float],
        on_weight: Callable[[float], None] = lambda weight: None,
    ) -> None:
        self.sound, self.lips, self.weight_of, self._on_weight = sound, lips, weight_of, on_weight

    def encode_audio(self, samples: Sequence[Samples]) -> Any:
        """See `avsr.engine.Engine`."""
        return self.sound.engine.encode_audio(samples)

    def encode_lips(self, crops: Sequence[Crops], present: Sequence[Present], audio: Any | None = None) -> BothLips:
        """See `avsr.engine.Engine`. The lips do not depend on the sound: they are read alone."""
        encoded = self.lips.engine.encode_lips(crops, present, None)
        return BothLips(encoded, tuple(bool(np.any(item)) for item in present))

    def decode(self, audio: Any | None, lips: BothLips | None, search: Search) -> list[list[Spoken]]:
        """See `avsr.engine.Engine`. An item without lips is decoded from the sound, one without words from the lips."""
        if audio is None and lips is None:
            raise ValueError("decode: got neither samples nor lips, expected at least one")
        if lips is None:
            return self.sound.engine.decode(audio, None, search)
        if audio is None:
            return self.lips.engine.decode(None, lips.encoded, self._lips_search(search))
        if search_together(self.sound, self.lips):
            return self._joint(audio, lips, search)
        return self._chosen(audio, lips, search)

    def _lips_search(self, search: Search) -> Search:
        """The search of the lips: language and kind were asked of the sound."""
        return Search(beam=search.beam)

    def _weight(self, words: Sequence[Spoken], seen: bool) -> float:
        weight = self.weight_of(words) if seen else 1.0
        self._on_weight(weight)
        return weight

    def _joint(self, audio: Any, lips: BothLips, search: Search) -> list[list[Spoken]]:
        assert self.sound.steps is not None and self.lips.steps is not None
        heard = self.sound.steps.scored(audio, None, search)
        seen = self.lips.steps.scored(None, lips.encoded, search)
        quick = self.sound.engine.decode(audio, None, search._replace(kind="greedy"))
        return [
            searched_together(ear, eye, self._weight(words, has_lips))
            for ear, eye, words, has_lips in zip(heard, seen, quick, lips.seen, strict=True)
        ]

    def _chosen(self, audio: Any, lips: BothLips, search: Search) -> list[list[Spoken]]:
        return [
            item.chosen(self._weight(item.heard[0], has_lips))
            for item, has_lips in zip(self.judged(audio, lips, search), lips.seen, strict=True)
        ]

    def judged(self, audio: Any, lips: BothLips, search: Search) -> list[Judged]:
        """Of each item: the texts that either model lists, as both judge them."""
        assert self.sound.texts is not None and self.lips.texts is not None
        lips_search = self._lips_search(search)
        heard = self.sound.texts.candidates(audio, None, search, CANDIDATES)
        seen = self.lips.texts.candidates(None, lips.encoded, lips_search, CANDIDATES)
        texts = [
            list(dict.fromkeys(_plain(words) for words in (*ears, *eyes)))
            for ears, eyes in zip(heard, seen, strict=True)
        ]
        by_sound = self.sound.texts.log_probs_of(audio, None, search, texts)
        by_lips = self.lips.texts.log_probs_of(None, lips.encoded, lips_search, texts)
        items = zip(heard, seen, texts, by_sound, by_lips, strict=True)
        return [Judged(*item, self.lips.card.is_closed) for item in items]


class Judged(NamedTuple):
    """The texts of one item with their natural log-probabilities."""

    heard: list[list[Spoken]]
    """The texts of the sound, its best first."""
    seen: list[list[Spoken]]
    """The texts of the lips, their best first."""
    texts: list[Plain]
    by_sound: list[float]
    by_lips: list[float]
    is_closed: bool = False
    """Whether the model of the lips has a closed vocabulary: all words then come out in its spelling."""

    def chosen(self, weight: float) -> list[Spoken]:
        """The words of the best text. weight: of the sound, in [0, 1]; the lips have the rest of 1.

        With weight 1 they are what the sound gives alone, with 0 what the lips give. A text that both found has the
        words of the lips, because a closed model has one spelling only. If no text can be written by both, the
        model with the greater weight decides alone.
        """
        if weight in (0.0, 1.0):
            return self.heard[0] if weight else self.seen[0]
        sums = weight * np.array(self.by_sound) + (1 - weight) * np.array(self.by_lips)
        if not np.isfinite(sums).any():
            return self.heard[0] if weight >= 0.5 else self.seen[0]
        text = self.texts[int(np.argmax(sums))]
        words = next(words for words in (*self.seen, *self.heard) if _plain(words) == text)
        return plain_words(words) if self.is_closed else words


def searched_together(sound: StepScores | None, lips: StepScores | None, weight: float) -> list[Spoken]:
    """The words of one item by a search of both models. weight: of the sound, in [0, 1]; the lips have the rest of 1.

    With weight 1, a model finds the same words as without the other, to the bit.
    """
    sides = [(side, share) for side, share in ((sound, weight), (lips, 1 - weight)) if side is not None and share]
    if not sides:
        return []
    if len(sides) == 1:
        sides = [(sides[0][0], 1.0)]
    parts, shares = [side for side, _ in sides], [share for _, share in sides]
    leader = parts[int(np.argmax(shares))]
    with_lm = [(part.language_model, share * part.settings.lm_weight) for part, share in sides if part.language_model]
    lm_weight = sum(share for _, share in with_lm)
    found = joint_search_by(
        mixed([part.decoder for part in parts], shares),
        mixed([part.ctc for part in parts], shares),
        leader.vocabulary,
        min(part.frames for part in parts),
        leader.settings._replace(lm_weight=lm_weight),
        mixed([lm for lm, _ in with_lm], [share / lm_weight for _, share in with_lm]) if lm_weight else None,
    ).hypotheses
    return leader.spoken(found[0].text_units) if found else []


def weight_of(words: Sequence[Spoken], sure: float = SURE, steepness: float = STEEPNESS) -> float:
    """The weight of the sound, in [0, 1], by the mean confidence of its own best words; 0 if it has no words.

    Words without confidences say nothing of the sound: it then weighs as much as the lips.
    """
    if not words:
        return 0.0
    confidences = [word.confidence for word in words if word.confidence is not None]
    if not confidences:
        return 0.5
    return 1 / (1 + math.exp(-steepness * (float(np.mean(confidences)) - sure)))


def search_together(sound: Model, lips: Model) -> bool:
    """Whether two models have the same units and score them one by one."""
    return sound.steps is not None and lips.steps is not None and sound.steps.units == lips.steps.units


def open_model(target: str, device: str, dtype: str, open_part: Callable[[str, str, str], Model]) -> Model:
    """The model of a target. open_part: opens each of the two by its name. Raises ModelError, ConfigError."""
    names = target.removeprefix(PREFIX).split(",")
    if len(names) != 2 or not all(names) or any(name.startswith(PREFIX) for name in names):
        raise ConfigError(f"{target!r} are not two models", expected=f"{PREFIX}SOUND,LIPS, two names or paths")
    sound, lips = (open_part(name, device, dtype) for name in names)
    _check(sound, "a", "hears")
    _check(lips, "v", "reads lips")
    if not search_together(sound, lips):
        for model in (sound, lips):
            if model.texts is None:
                raise ConfigError(
                    f"model {model.card.name} gives one text without probabilities",
                    expected="a model that judges texts of others",
                    remedy="use this model alone, or another one beside it",
                )
    return Model(
        card=make_card(sound.card, lips.card, has_joint_search=search_together(sound, lips)),
        engine=Together(sound, lips, weight_of),
        for_recording=lambda: told(sound, lips),
        identity=lambda: {
            f"{side}_{name}": value
            for side, model in (("sound", sound), ("lips", lips))
            for name, value in model.identity().items()
        },
        device=sound.device,
    )


def told(sound: Model, lips: Model) -> Told:
    """The engine for one recording, and a line about the weights there."""
    weights: list[float] = []

    def lines() -> list[str]:
        if not weights:
            return []
        how = "units" if search_together(sound, lips) else "texts"
        spread = f"{min(weights):.2f} to {max(weights):.2f}, {np.mean(weights):.2f} on average"
        return [f"{sound.card.name} and {lips.card.name} chose {how} together: weight of the sound {spread}"]

    return Told(Together(sound, lips, weight_of, weights.append), lines)


def _check(model: Model, modality: Modality, what: str) -> None:
    if modality not in model.card.modalities:
        place = "first" if modality == "a" else "second"
        raise ConfigError(
            f"model {model.card.name} is named {place} and does not do this", expected=f"a model that {what}"
        )


def make_card(sound: Card, lips: Card, *, has_joint_search: bool) -> Card:
    """What callers may know of both. The sound decides about language and search, the shorter window about the cut."""
    # A greedy search would leave out the decoders, which are a part of the sum.
    searches = tuple(kind for kind in sound.searches if kind != "greedy") if has_joint_search else sound.searches
    return Card(
        name=f"{sound.name}+{lips.name}",
        family="together",
        modalities=("a", "v", "av"),
        languages=sound.languages,
        domain=lips.domain if lips.is_closed else sound.domain,
        licence=" and ".join(dict.fromkeys(filter(None, (sound.licence, lips.licence)))),
        window_s=min(sound.window_s, lips.window_s),
        margin_s=min(sound.margin_s, lips.margin_s),
        searches=searches,
        cut_at_pauses=sound.cut_at_pauses or lips.cut_at_pauses,
        has_times=sound.has_times and lips.has_times,
    )


def plain_words(words: Sequence[Spoken]) -> list[Spoken]:
    """The words in their plain form. Parts of one word share its time by their letters."""
    parted = []
    for word in words:
        parts = plain([word.word])
        ends = np.cumsum([0, *map(len, parts)]) / max(1, sum(map(len, parts)))
        times_s = word.start_s + (word.end_s - word.start_s) * ends
        parted += [
            word._replace(word=part, start_s=float(times_s[place]), end_s=float(times_s[place + 1]))
            for place, part in enumerate(parts)
        ]
    return parted


def _plain(words: Sequence[Spoken]) -> Plain:
    return plain(word.word for word in words)
