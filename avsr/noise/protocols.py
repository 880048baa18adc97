"""Protocols for tests in noise: our own, and the protocols of the literature by name.

    avsr           level of active speech; babble of other voices, environment, coloured noise
    avhubert       facebookresearch/av_hubert: MUSAN babble, speech, music, noise; N-WER is the mean over noisy cells
    auto-avsr      mpc001/auto_avsr: one babble recording, random offset
    torchaudio     pytorch/audio examples/avsr: no noise
    fixed-babble   roudimit/whisper-flamingo: one babble recording, always from its start

The protocols of the literature keep their noise, its offset, the measured level and the SNRs. Four deviations make them
repeatable: draws depend on the seed of the plan, MUSAN is split by recording, 0 dB means 0 dB, and mixtures are rounded
to 16 bits and turned down if they do not fit. (avhubert truncates its mixtures; auto-avsr keeps floats of any size and
normalises them.)
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from avsr.errors import ConfigError, nearest
from avsr.noise.filters import NoiseColour
from avsr.noise.mixing import Level

COLOURS: tuple[str, ...] = get_args(NoiseColour)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How one test in noise is made."""

    name: str
    noises: tuple[str, ...]
    """Kinds of noise."""
    snrs_db: tuple[float | None, ...]
    """Levels of noise; None is clean."""
    level: Level = "whole"
    """How the level of speech is measured."""
    babble: Literal["voices", "speech", "recording"] = "recording"
    """Source of babble: other utterances of the corpus, recordings of the kind "speech", or recordings of babble."""
    babble_voices: int = 8
    """Number of voices that are added up to babble."""
    offset: Literal["random", "start"] = "random"
    """Where in a recording the noise begins."""
    loop: bool = True
    """Repeat a recording that is shorter than the speech. If False, such a recording is an error."""
    pieces: bool = False
    """Use pieces of 10 s of the recordings, and no recording of 10 s or less."""


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="avsr",
            noises=("babble", "environment", *COLOURS),
            snrs_db=(None, 20.0, 10.0, 5.0, 0.0, -5.0, -10.0),
            # Counting pauses, as the others do, would give a clip with 40 % of silence 2.2 dB less noise than its label
            # says.
            level="active",
            babble="voices",
        ),
        Protocol(
            name="avhubert",
            noises=("babble", "speech", "music", "noise"),
            snrs_db=(None, 10.0, 5.0, 0.0, -5.0, -10.0),
            babble="speech",
            babble_voices=30,
            offset="start",
            pieces=True,
        ),
        Protocol(
            name="auto-avsr",
            noises=("babble",),
            snrs_db=(None, 20.0, 15.0, 10.0, 5.0, 0.0, -5.0),
            loop=False,
        ),
        Protocol(name="torchaudio", noises=(), snrs_db=(None,)),
        Protocol(name="fixed-babble", noises=("babble",), snrs_db=(None, 10.0, 5.0, 0.0, -5.0, -10.0), offset="start"),
    )
}


def find_protocol(name: str) -> Protocol:
    """A protocol by its name. Raises ConfigError naming the nearest one."""
    if name not in PROTOCOLS:
        close = nearest(name, PROTOCOLS)
        remedy = f"did you mean {close}?" if close else None
        raise ConfigError("unknown noise protocol", got=name, expected=", ".join(PROTOCOLS), remedy=remedy)
    return PROTOCOLS[name]
