"""The noise and the rooms that training sound is varied with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Samples
from avsr.datasets.manifest import load_samples
from avsr.errors import DataError
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
from avsr.training.config import AugmentConfig
from avsr.training.items import Corpus

MAX_BABBLE_VOICES = 200


def noise_bank(augment: AugmentConfig, corpora: Sequence[Corpus], seed: int) -> NoiseBank:
    """The noise to train with: recordings of the noise folder, and babble of the corpora's own voices.

    seed: of the choice of voices, if there are more than 200.
    Raises DataError naming the recording if one is held out for tests.
    """
    environment: dict[str, Samples] = {}
    if augment.noise_folder and augment.noise_share:
        if not Path(augment.noise_folder).is_dir():
            raise DataError(
                f"augment.noise_folder: got {augment.noise_folder}, which is no folder",
                expected="a folder of noise recordings",
                remedy="name yours with augment.noise_folder=DIR, or train without with augment.noise_folder=null",
            )
        environment = read_noise_folder(Path(augment.noise_folder))
    voices: dict[str, Samples] = {}
    if augment.babble and augment.noise_share:
        # A corpus that lends its voices to lips only would crowd out the voices that babble is wanted of.
        talking = [corpus for corpus in corpora if corpus.config.per_epoch != 0]
        spoken = [(corpus, u) for corpus in talking for u in corpus.utterances if u.audio is not None]
        chosen = generator(seed, "babble voices").permutation(len(spoken))[:MAX_BABBLE_VOICES]
        voices = {
            f"{spoken[i][0].config.manifest}: {spoken[i][1].id}": load_samples(spoken[i][1], spoken[i][0].root)
            for i in chosen
        }
    for held_out in augment.held_out_noise:
        trained = {sound_hash(pcm_of(samples)): name for name, samples in (environment | voices).items()}
        trained |= {sound_hash(samples): name for name, samples in impulse_responses(augment).items()}
        require_disjoint(trained, held_out_hashes(Path(held_out)))
    return NoiseBank(list(environment.values()), list(voices.values()), augment.babble_share)


def impulse_responses(augment: AugmentConfig) -> dict[str, NDArray[np.int16]]:
    """The recordings of rooms for reverb, by file name; empty if no folder is configured."""
    if augment.impulse_responses is None:
        return {}
    return {file.name: read_pcm(file.path) for file in find_noises("rir", Path(augment.impulse_responses))}
