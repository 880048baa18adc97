"""How noise tests are done: our own protocol, and those of the literature by name.

    avsr           level of active speech; babble of other voices, environment, coloured noise
    avhubert       facebookresearch/av_hubert: MUSAN babble, speech, music, noise; N-WER is the mean over noisy cells
    auto-avsr      mpc001/auto_avsr: one babble recording, random offset
    torchaudio     pytorch/audio examples/avsr: no noise
    fixed-babble   roudimit/whisper-flamingo: one babble recording, always from its start

What those do is kept: which noise, its offset, which level counts, which SNRs. What keeps them from being repeated is
not: draws come from the plan's seed, MUSAN is split by recording, 0 dB is 0 dB, and mixtures are rounded to 16 bits and
turned down where they do not fit (avhubert truncates; auto-avsr keeps floats of any size and normalises them).
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
    """One way of testing in noise.

    noises: kinds of noise. snrs_db: None is clean. level: how speech is measured. babble: made of voices of the corpus,
    of recordings of the kind "speech", or a recording of its own. babble_voices: how many. offset: where in a recording
    noise begins. loop: repeat recordings that are shorter than the speech. pieces: cut recordings into 10 s first, and
    leave out those of 10 s or less.
    """

    name: str
    noises: tuple[str, ...]
    snrs_db: tuple[float | None, ...]
    level: Level = "whole"
    babble: Literal["voices", "speech", "recording"] = "recording"
    babble_voices: int = 8
    offset: Literal["random", "start"] = "random"
    loop: bool = True
    pieces: bool = False


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="avsr",
            noises=("babble", "environment", *COLOURS),
            snrs_db=(None, 20.0, 10.0, 5.0, 0.0, -5.0, -10.0),
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
