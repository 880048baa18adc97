"""The speed of sound augmentation on one thread, and the speed of audiomentations at the same task in the same run.

    pip install --target work/audiomentations -c constraints.txt audiomentations fast-mp3-augment
    PYTHONPATH=work/audiomentations python benchmarks/augmentation.py

audiomentations is no dependency of avsr; without it the table has our figures alone. Both get the same 40 utterances of
3 s, the same noises and impulse responses (made here, in a temporary folder), the same ranges, and p = 1. Figures are
seconds of sound per second of CPU time, the median over rounds in which both take turns. Both fill their caches
(noises, impulse responses, filters) before the first round, except for some of the simulated rooms.

The chain is a typical training example: reverberation, noise at -5 to 20 dB, band limits, clipping, gain. The methods
differ: our SNR counts active speech only, and our filters are linear-phase with the same bytes on every machine, while
the filters of audiomentations are recursive.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsr.augment.audio import mix_at_snr
from avsr.datasets.manifest import save_samples
from avsr.noise.effects import apply_effects, draw_effects, parse_effects
from avsr.noise.filters import coloured_noise
from avsr.noise.library import NoiseBank, read_noise_folder, read_pcm

RATE = 16_000
SECONDS, UTTERANCES = 3, 40

Samples = NDArray[np.float32]
Change = Callable[[Samples, np.random.Generator], Samples]

# Name of a step -> our effect, and class and arguments of audiomentations; None if it has no such step.
STEPS: dict[str, tuple[str, tuple[str, dict[str, object]] | None]] = {
    "reverb": ("reverb", ("ApplyImpulseResponse", {})),
    "noise": ("", ("AddBackgroundNoise", {"min_snr_db": -5.0, "max_snr_db": 20.0})),
    "highpass": ("highpass=100..400", ("HighPassFilter", {"min_cutoff_freq": 100.0, "max_cutoff_freq": 400.0})),
    "lowpass": ("lowpass=2500..7500", ("LowPassFilter", {"min_cutoff_freq": 2500.0, "max_cutoff_freq": 7500.0})),
    "clip": ("clip=3..15", ("ClippingDistortion", {"min_percentile_threshold": 0, "max_percentile_threshold": 20})),
    "gain": ("gain=-10..10", ("Gain", {"min_gain_db": -10.0, "max_gain_db": 10.0})),
    "microphone": ("microphone=6", ("SevenBandParametricEQ", {"min_gain_db": -6.0, "max_gain_db": 6.0})),
    "pitch": ("pitch=-3..3", ("PitchShift", {"min_semitones": -3.0, "max_semitones": 3.0})),
    "mp3": ("mp3=16..48", ("Mp3Compression", {"min_bitrate": 16, "max_bitrate": 48})),
    "opus": ("opus=8..24", None),
    "mulaw": ("mulaw", None),
    "loss": ("loss=0.02..0.1", None),
    "room": ("room=0.2..0.6", None),
}
CHAIN = ("reverb", "noise", "highpass", "lowpass", "clip", "gain")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(8):
            save_samples(folder / f"noise/{index}.wav", 0.1 * coloured_noise(5 * RATE, "pink", index))
        fade = (0.9995 ** np.arange(RATE)).astype(np.float32)
        for index in range(3):
            response = 0.05 * coloured_noise(RATE, "white", 10 + index) * fade
            response[0] = 0.9
            save_samples(folder / f"rir/{index}.wav", response)
        pauses = np.repeat(np.arange(SECONDS * 10) % 4 > 0, RATE // 10)
        speech = [0.05 * coloured_noise(SECONDS * RATE, "pink", 100 + i) * pauses for i in range(UTTERANCES)]
        speech = [samples.astype(np.float32) for samples in speech]
        ours = our_changes(folder)
        theirs = their_changes(folder)
        print(f"{'':12}{'avsr':>10}{'audiomentations':>18}{'ratio':>8}   (times real time, one thread)")
        for step in ("chain", *STEPS):
            try:
                rates = measure(ours[step], theirs.get(step), speech, arguments.rounds)
            except Exception as error:
                print(f"{step:12}{error!r}")
                continue
            text = f"{step:12}{rates[0]:10.0f}"
            print(
                text + (f"{rates[1]:18.0f}{rates[0] / rates[1]:8.2f}" if len(rates) > 1 else f"{'-':>18}"), flush=True
            )
    return 0


def our_changes(folder: Path) -> dict[str, Change]:
    """Our function for each step, and for the chain."""
    responses = {path.name: read_pcm(path) for path in sorted((folder / "rir").iterdir())}
    bank = NoiseBank(list(read_noise_folder(folder / "noise").values()), [])

    def noise(samples: Samples, random: np.random.Generator) -> Samples:
        environment = bank.environment[random.integers(len(bank.environment))]
        offset = int(random.integers(len(environment) - len(samples)))
        return mix_at_snr(samples, environment[offset : offset + len(samples)], float(random.uniform(-5, 20)))

    def effect(words: str) -> Change:
        effects = parse_effects(words)

        def change(samples: Samples, random: np.random.Generator) -> Samples:
            records = draw_effects(effects, lambda bound, *what: int(random.integers(bound)), list(responses))
            return apply_effects(samples, records, responses.__getitem__)

        return change

    changes = {step: effect(words) if words else noise for step, (words, _) in STEPS.items()}
    room, line = effect("reverb"), effect(",".join(STEPS[step][0] for step in CHAIN[2:]))
    return changes | {"chain": lambda samples, random: line(noise(room(samples, random), random), random)}


def their_changes(folder: Path) -> dict[str, Change]:
    """The function of audiomentations for each step that it has, and for the chain; empty if it is not installed."""
    try:
        import audiomentations
    except ImportError:
        return {}
    transforms = {}
    for step, (_, described) in STEPS.items():
        if described is not None:
            kind, options = described
            sources = {"reverb": {"ir_path": folder / "rir"}, "noise": {"sounds_path": folder / "noise"}}.get(step, {})
            transforms[step] = getattr(audiomentations, kind)(**options, **sources, p=1.0)
    composed = transforms | {"chain": audiomentations.Compose([transforms[step] for step in CHAIN])}

    def change(transform: Callable[[Samples, int], Samples]) -> Change:
        return lambda samples, random: transform(samples, RATE)

    return {step: change(transform) for step, transform in composed.items()}


def measure(ours: Change, theirs: Change | None, speech: list[Samples], rounds: int) -> list[float]:
    """Speeds of both in times real time, median over the rounds; without `theirs`, ours alone."""
    changes = [change for change in (ours, theirs) if change is not None]
    rates: list[list[float]] = [[] for _ in changes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(rounds + 1):
            for change, measured in zip(changes, rates, strict=True):
                random = np.random.default_rng(number)
                start_s = time.process_time()
                for samples in speech:
                    change(samples, random)
                if number:  # the first round fills the caches
                    measured.append(SECONDS * len(speech) / (time.process_time() - start_s))
    return [statistics.median(measured) for measured in rates]


if __name__ == "__main__":
    raise SystemExit(main())
