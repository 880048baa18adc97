"""Error rates and the effect of lips for each person of the test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from avsr.evaluation.compare import FEW
from avsr.evaluation.conditions import LIPS, UNUSED, Condition
from avsr.evaluation.lips_effect import LipsEffect, LipsEffects
from avsr.evaluation.noise_mean import SoundGroup, group_conditions, sound_groups
from avsr.evaluation.results import Results
from avsr.evaluation.statistics import Array, Rate, intervals
from avsr.grid import Modality

PersonKey = tuple[Modality, SoundGroup | None]
"""A modality and its sound; None by lips only."""


class Person(NamedTuple):
    """One speaker under all sounds with intact lips."""

    name: str
    """Empty for utterances without a speaker, if others have one."""
    utterances: int
    words: int
    """Words, or the units of the score that leads."""
    rates: Mapping[PersonKey, Rate]
    lips: Mapping[SoundGroup, LipsEffect]
    """Empty without audio only or without audio-visual."""

    @property
    def has_intervals(self) -> bool:
        """Whether the intervals of the rates mean anything: a bootstrap over few utterances is too sure of itself."""
        return self.utterances >= FEW


def people_of(results: Results, effects: LipsEffects) -> list[Person]:
    """Every speaker, in the order of the names; none if no speaker is known, or intact lips were not measured."""
    places: dict[str, list[int]] = {}
    for place, spoken in enumerate(results.utterances):
        places.setdefault(spoken.speaker, []).append(place)
    conditions = _conditions(results)
    if not any(places) or not conditions:
        return []
    # The errors of all utterances are counted once, and not once a person.
    errors_CN = np.stack([results.errors_of_each(group) / len(group) for group in conditions.values()])
    people = []
    for name in sorted(places):
        rates = _rates(results, errors_CN, places[name])
        of_lips = {
            key[1]: effect
            for key, group in conditions.items()
            if key[0] == "av" and key[1] is not None and (effect := effects.over(group, places[name])) is not None
        }
        words = int(results.units_of_each[places[name]].sum())
        people.append(Person(name, len(places[name]), words, dict(zip(conditions, rates, strict=True)), of_lips))
    return people


def leading_key(people: Sequence[Person]) -> PersonKey:
    """The rate that people are ranked by: by av, else a, else v, in all noise, or clean without noise."""
    keys = list(people[0].rates)
    modality = next(m for m in ("av", "a", "v") if any(key[0] == m for key in keys))
    return [key for key in keys if key[0] == modality][-1]


def _conditions(results: Results) -> dict[PersonKey, list[Condition]]:
    """The conditions of each rate of a person, without those that were not measured."""
    found: dict[PersonKey, list[Condition]] = {}
    for modality in results.modalities:
        if modality == "v":
            found[modality, None] = results.find("v", UNUSED, None, LIPS["v"])
        else:
            for group in sound_groups(results):
                found[modality, group] = group_conditions(results, modality, group, LIPS[modality])
    return {key: conditions for key, conditions in found.items() if conditions}


def _rates(results: Results, errors_CN: Array, places: Sequence[int]) -> list[Rate]:
    """The rates of one person. Each resample is of the whole test set; this person's part of it counts."""
    errors_CP, units_P, weights_RP = errors_CN[:, places], results.units_of_each[places], results.weights_RN[:, places]
    low_C, high_C = intervals(errors_CP, units_P, weights_RP)
    percent_C = 100 * errors_CP.sum(axis=1) / max(1.0, float(units_P.sum()))
    return [Rate(*map(float, values)) for values in zip(percent_C, low_C, high_C, strict=True)]
