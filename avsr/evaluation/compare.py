"""Comparison of two evaluations of the same utterances: which differences are more than chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from avsr.errors import DataError
from avsr.evaluation.conditions import UNUSED, Condition
from avsr.evaluation.results import Results
from avsr.evaluation.scores import Score
from avsr.evaluation.statistics import TEST_RESAMPLES, PairedTest, paired_test, resampling
from avsr.grid import Modality

CHANCE = 0.05
FEW = 20  # utterances


@dataclasses.dataclass(frozen=True)
class Difference:
    """B against A under one condition, all seeds together."""

    condition: Condition
    a: float
    """Error rate of A in percent."""
    b: float
    """Error rate of B in percent."""
    difference: float
    """B minus A."""
    low: float
    """Lower end of the 95 % interval of the difference."""
    high: float
    """Upper end of the 95 % interval of the difference."""
    p: float
    """Of this condition by itself."""
    p_family: float
    """Probability that chance alone makes any of the conditions differ as much."""

    @property
    def verdict(self) -> str:
        """Whether B is "better" or "worse" than A; "" if the difference may be chance."""
        if self.p_family > CHANCE:
            return ""
        return "better" if self.difference < 0 else "worse"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """B against A under all conditions that both have."""

    conditions: tuple[Difference, ...]
    overall: Difference
    """All conditions taken as one. Its own `condition` has no meaning."""
    score: Score
    """The score of all these rates."""
    notes: tuple[str, ...]
    """What a reader should know, one line each."""


def compare(
    a: Results, b: Results, *, modality_a: Modality | None = None, modality_b: Modality | None = None
) -> Comparison:
    """B against A in every condition that both have, paired by utterance.

    modality_a, modality_b: compare A by one modality with B by another; None compares each modality with itself.
    Raises DataError if the utterances or the normalisers differ, or no condition is shared.
    """
    require_comparable(a, b)
    groups_a = {c: g for c, g in a.by_condition().items() if modality_a in (None, c.modality)}
    groups_b = {c: g for c, g in b.by_condition().items() if modality_b in (None, c.modality)}
    like_with_like = modality_a is None and modality_b is None
    # Two modalities need not share conditions: lips only has no noise, so it stands against every noise.
    pairs = [
        (_joined(one, other), groups_a[one], groups_b[other])
        for one in groups_a
        for other in ([one] if like_with_like and one in groups_b else () if like_with_like else groups_b)
        if like_with_like or _compatible(one, other)
    ]
    if not pairs:
        raise DataError(
            f"{a.name} and {b.name} have no condition in common",
            got=f"{_some(groups_a)} against {_some(groups_b)}",
            remedy="give both the same --noise-kinds, --snr and --video, or name modalities, as in RUN:a RUN:av",
        )
    tested = test_groups(a, [pair[1] for pair in pairs], b, [pair[2] for pair in pairs])
    every_a = [condition for pair in pairs for condition in pair[1]]
    every_b = [condition for pair in pairs for condition in pair[2]]
    rates_a = a.rates([*(pair[1] for pair in pairs), every_a])
    rates_b = b.rates([*(pair[2] for pair in pairs), every_b])
    together = test_groups(a, [every_a], b, [every_b])
    differences = [
        Difference(
            condition,
            rates_a[index].percent,
            rates_b[index].percent,
            *(float(values[row]) for values in test),
        )
        for condition, index, test, row in [
            *((pair[0], index, tested, index) for index, pair in enumerate(pairs)),
            (Condition("av", UNUSED, None, UNUSED, None), len(pairs), together, 0),
        ]
    ]
    count = len(a.utterances)
    notes = [
        f"Paired bootstrap over {count} utterances, {TEST_RESAMPLES} resamples. Better and worse: p <= {CHANCE} for all"
        f" {len(pairs)} conditions together (max-T), not for each by itself."
    ]
    if count < FEW:
        notes.append(f"{count} utterances are few: a bootstrap over so few is too sure of itself.")
    plans = [results.run.get("noise", {}).get("plan_sha256") for results in (a, b)]
    if plans[0] != plans[1]:
        notes.append("The two were not given the same mixtures of noise: some of the difference is that.")
    seeds = [{condition.seed for condition in results.cells} for results in (a, b)]
    if seeds[0] != seeds[1]:
        notes.append("The two were not run with the same seeds.")
    left_out = len(groups_a) + len(groups_b) - 2 * len(pairs)
    if like_with_like and left_out:
        notes.append(f"{left_out} conditions that only one of them has are left out.")
    return Comparison(tuple(differences[:-1]), differences[-1], a.score, tuple(notes))


def test_groups(
    a: Results, groups_a: Sequence[Sequence[Condition]], b: Results, groups_b: Sequence[Sequence[Condition]]
) -> PairedTest:
    """Paired tests of B against A, one for each pair of groups of conditions; each group counts as its mean.

    groups_a: groups of conditions of `a`.
    groups_b: the groups of `b` to compare them with, in the same order.
    Both must hold the same utterances.
    """
    places = {spoken.id: index for index, spoken in enumerate(b.utterances)}
    # Errors are paired by utterance, and B may have the utterances in another order.
    order = [places[spoken.id] for spoken in a.utterances]
    # Each group counts as its mean, because A and B may have been run with different numbers of seeds.
    errors_a = np.stack([a.errors_of_each(group) / len(group) for group in groups_a])
    errors_b = np.stack([b.errors_of_each(group)[order] / len(group) for group in groups_b])
    return paired_test(errors_a, errors_b, a.units_of_each, resampling(len(a.utterances), TEST_RESAMPLES))


def require_normalizer(results: Results, label: str, name: str) -> None:
    """Raise DataError unless the texts of the results went through this normaliser.

    label: name and version of the normaliser. name: of the recogniser whose results have it.
    """
    # Two normalisers may give the same references and yet forgive different errors.
    if results.normalizer != label:
        raise DataError(
            f"{name} and {results.name} are scored with different normalisers",
            got=f"{label} and {results.normalizer}",
            remedy="evaluate both with the same --normalize, and with the same version of avsr",
        )


def require_comparable(one: Results, other: Results) -> None:
    """Raise DataError unless both evaluations have the same normaliser, utterances and references."""
    require_normalizer(other, one.normalizer, one.name)
    texts = [{spoken.id: spoken.reference for spoken in results.utterances} for results in (one, other)]
    if texts[0] != texts[1]:
        differing = sorted(i for i in texts[0].keys() | texts[1].keys() if texts[0].get(i) != texts[1].get(i))
        raise DataError(
            f"{one.name} and {other.name} were not evaluated on the same utterances",
            got=f"{len(differing)} that differ, such as {differing[0]}",
            remedy="evaluate both with the same manifest, --split, --clips and --normalize",
        )


def _compatible(one: Condition, other: Condition) -> bool:
    """Whether two conditions of different modalities have the same sound and lips, as far as both use them."""
    same_sound = UNUSED in (one.noise, other.noise) or (one.noise, one.snr_db) == (other.noise, other.snr_db)
    return same_sound and (UNUSED in (one.video, other.video) or one.video == other.video)


def _joined(one: Condition, other: Condition) -> Condition:
    """The condition of a comparison: the sound from the side that uses sound, the lips from the side that uses lips."""
    with_sound = other if one.noise == UNUSED else one
    with_lips = other if one.video == UNUSED else one
    return Condition(other.modality, with_sound.noise, with_sound.snr_db, with_lips.video, None)


def _some(groups: dict[Condition, list[Condition]]) -> str:
    names = [str(condition) for condition in groups]
    return f"{len(names)} such as {names[0]}" if names else "none of that modality"
