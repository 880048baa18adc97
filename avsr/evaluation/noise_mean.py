"""The mean over kinds of noise: one definition for the report, its figures and the page of results.

Every kind of recorded noise counts the same; white and pink noise count half each, as one kind together. Brown noise
is left out: its energy lies below most of speech, so that it masks little and would only lower the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from avsr.evaluation.conditions import CLEAN, UNUSED, Condition
from avsr.evaluation.results import Results
from avsr.grid import Modality

RECORDED_WEIGHT = 2
COLOUR_WEIGHTS = {"white": 1, "pink": 1, "brown": 0}
MEAN = "mean"


class SoundGroup(NamedTuple):
    """Clean sound, or the mean over the kinds of noise at these levels."""

    levels_db: tuple[float | None, ...]
    """SNRs; None alone for clean sound."""

    @property
    def noise(self) -> str:
        return CLEAN if self.levels_db == (None,) else MEAN

    @property
    def snr_db(self) -> float | None:
        """None for clean sound, and for several levels together."""
        return self.levels_db[0] if len(self.levels_db) == 1 else None

    def __str__(self) -> str:
        if self.levels_db == (None,):
            return CLEAN
        return "all levels" if self.snr_db is None else f"{self.snr_db:g} dB"


def noise_weights(results: Results) -> dict[str, int]:
    """The weight of each kind of noise in the mean, without the kinds that are left out.

    An evaluation with no noise but brown has brown noise in its mean.
    """
    weights = {noise: COLOUR_WEIGHTS.get(noise, RECORDED_WEIGHT) for noise in results.noises}
    return {noise: weight for noise, weight in weights.items() if weight} or dict.fromkeys(results.noises, 1)


def mean_conditions(
    results: Results,
    modality: Modality,
    snr_db: float | None,
    video: str,
    weights: Mapping[str, int] | None = None,
) -> list[Condition]:
    """The conditions that a mean over noises is taken of, all seeds, each as often as its noise weighs.

    snr_db: level of the noise; None for clean sound.
    video: name of a condition of the lips, or "unused".
    weights: of the kinds of noise; None for the weights of these results. Another evaluation in the same table takes
    the weights of the first.
    """
    if modality == "v":  # noise does not change the lips
        return results.find("v", UNUSED, None, video)
    if snr_db is None:
        return results.find(modality, CLEAN, None, video)
    return [
        condition
        for noise, weight in (noise_weights(results) if weights is None else weights).items()
        for condition in results.find(modality, noise, snr_db, video) * weight
    ]


def sound_groups(results: Results) -> list[SoundGroup]:
    """Clean sound if it was measured, each level of the noise, and at last all levels together if there are several."""
    has_clean = any(condition.noise == CLEAN for condition in results.cells)
    groups = [SoundGroup((snr_db,)) for snr_db in [*([None] if has_clean else []), *results.levels_db]]
    return groups + ([SoundGroup(results.levels_db)] if len(results.levels_db) > 1 else [])


def group_conditions(results: Results, modality: Modality, group: SoundGroup, video: str) -> list[Condition]:
    """The conditions of all levels of a group, as `mean_conditions` has them for one level."""
    return [c for snr_db in group.levels_db for c in mean_conditions(results, modality, snr_db, video)]


def describe_mean(results: Results) -> str:
    """The mean as one phrase, as in "mean of babble, environment, and white and pink together, without brown"."""
    weights = noise_weights(results)
    colours = [noise for noise in weights if noise in COLOUR_WEIGHTS]
    recorded = [noise for noise in weights if noise not in COLOUR_WEIGHTS]
    text = f"mean of {', '.join(recorded or colours)}"
    if recorded and colours:
        text += f", and {' and '.join(colours)} {'together' if len(colours) > 1 else 'with half the weight'}"
    left_out = [noise for noise in results.noises if noise not in weights]
    return text + (f", without {', '.join(left_out)}" if left_out else "")
