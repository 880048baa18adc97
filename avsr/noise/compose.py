"""The steps that planning and rendering share: effects on the voice, the sum of the noise, effects on the mixture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsr.noise.effects import VOICE_EFFECTS, Record, apply_effects
from avsr.noise.library import Pcm, pcm_of
from avsr.noise.mixing import FULL_SCALE, fitting_scale_db, linear
from avsr.noise.plan import NoisePart


def change_voice(
    speech: Pcm, records: Sequence[Record], impulse_response: Callable[[str], Pcm] | None
) -> tuple[Pcm, float]:
    """Speech after the effects on the voice, and the gain in dB that made it fit into 16 bits (0.0 or negative)."""
    return _apply(speech, [record for record in records if record["effect"] in VOICE_EFFECTS], impulse_response)


def change_mixture(mixture: Pcm, records: Sequence[Record]) -> tuple[Pcm, float]:
    """A mixture after all other effects, and the gain in dB that made it fit into 16 bits (0.0 or negative)."""
    return _apply(mixture, [record for record in records if record["effect"] not in VOICE_EFFECTS], None)


def _apply(samples: Pcm, records: Sequence[Record], impulse_response: Callable[[str], Pcm] | None) -> tuple[Pcm, float]:
    if not records:
        return samples, 0.0
    changed = apply_effects((samples / FULL_SCALE).astype(np.float32), records, impulse_response)
    return pcm_of(changed), fitting_scale_db(changed.astype(np.float64) * FULL_SCALE)


def loop_recording(recording: Pcm, offset: int, count: int) -> Pcm:
    """`count` samples of a recording from `offset` on; it is repeated if it is too short."""
    return recording[np.arange(offset, offset + count) % len(recording)]


def sum_noise(recordings: Sequence[NDArray[Any]], parts: Sequence[NoisePart]) -> NDArray[np.float64]:
    """The noise of a mixture, float [S]: the recordings, int16 or float, times the gains of their parts.

    They are added one by one in the order of `parts`, because another order would change the last bits.
    """
    total = np.zeros(len(recordings[0]))
    for samples, part in zip(recordings, parts, strict=True):
        scale = FULL_SCALE if samples.dtype == np.int16 else 1.0
        total += samples * (linear(part.gain_db) / scale)
    return total
