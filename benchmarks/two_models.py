"""Two models together, each trained alone: error rates of the sound, of the lips, and of both.

    python benchmarks/two_models.py --noise work/corpora/noise/noise_train
    python benchmarks/two_models.py --noise work/corpora/noise/noise_train --sound grid-tiny

Clips of the development split of s1, clean and in noise of the training folder at 10, 5, 0 and -5 dB; each clip gets
another draw of noise, the same at every level. Both models list and judge the texts of a clip once; then every weight
of the sound is tried. "followed" is the weight by the confidence of the sound, as `together:SOUND,LIPS` has it.
--fit also finds the constants of that weight on the clips with odd numbers, and shows them on the others.
"""

from __future__ import annotations

import argparse
import itertools
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import jiwer
import numpy as np

import avsr
from avsr.augment.audio import mix_at_snr
from avsr.datasets.manifest import load_lips, load_samples, read_manifest
from avsr.decoding.plain import plain
from avsr.decoding.search import Search, Spoken
from avsr.errors import AvsrError
from avsr.families import open_model
from avsr.families.together import Judged, Together, weight_of
from avsr.randomness import generator
from avsr.training.config import AugmentConfig, CorpusConfig
from avsr.training.items import Corpus
from avsr.training.noise import noise_bank

LEVELS_DB = (None, 10.0, 5.0, 0.0, -5.0)
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SURE, STEEPNESS = np.arange(0.0, 1.01, 0.05), (0.0, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 20.0)


class Clip(NamedTuple):
    """One clip at one level of noise."""

    number: int
    level_db: float | None
    said: str
    judged: Judged
    fused: str
    """What the trained fusion of the lips' model reads."""


def measured(arguments: argparse.Namespace) -> list[Clip]:
    """All clips at all levels, as both models judge them."""
    root = Path(arguments.manifest).parent
    voices = Corpus(CorpusConfig(manifest=arguments.manifest, split="train"))
    noise = noise_bank(AugmentConfig(noise_folder=arguments.noise), [voices], 1)
    both = cast(Together, open_model(f"together:{arguments.sound},{arguments.lips}").engine)
    fusion = avsr.load(arguments.lips).model.engine
    search = Search(language=arguments.language)
    clips = [u for u in read_manifest(Path(arguments.manifest)) if u.split == "dev" and u.audio and u.video]
    found = []
    for number, utterance in enumerate(clips[: arguments.clips]):
        clean_S = load_samples(utterance, root)
        crops, present = load_lips(utterance, root)
        lips = both.encode_lips([crops], [present])
        drawn_S, _ = noise.draw(len(clean_S), generator("two models", utterance.id))
        for level_db in LEVELS_DB:
            samples_S = clean_S if level_db is None else mix_at_snr(clean_S, drawn_S, level_db)
            (judged,) = both.judged(both.encode_audio([samples_S]), lips, search)
            audio = fusion.encode_audio([samples_S])
            (fused,) = fusion.decode(audio, fusion.encode_lips([crops], [present], audio), Search())
            found.append(Clip(number, level_db, utterance.text, judged, written(fused)))
        print(f"{number + 1}/{min(arguments.clips, len(clips))}", end="\r", file=sys.stderr, flush=True)
    return found


def print_time(arguments: argparse.Namespace) -> None:
    """Print the processor time of a clip by the sound alone and by both, in turns."""
    root = Path(arguments.manifest).parent
    engine = open_model(f"together:{arguments.sound},{arguments.lips}").engine
    search = Search(language=arguments.language)
    clips = [u for u in read_manifest(Path(arguments.manifest)) if u.split == "dev" and u.audio and u.video]
    spent_s: dict[bool, list[float]] = {False: [], True: []}
    for utterance in clips[: arguments.clips]:
        samples_S, lips = load_samples(utterance, root), load_lips(utterance, root)
        for with_lips, times_s in spent_s.items():
            began = time.process_time()
            audio = engine.encode_audio([samples_S])
            seen = engine.encode_lips([lips[0]], [lips[1]], audio) if with_lips else None
            engine.decode(audio, seen, search)
            times_s.append(time.process_time() - began)
    print(f"sound alone {np.median(spent_s[False]):.2f} s a clip, both {np.median(spent_s[True]):.2f} s")


def written(words: Sequence[Spoken]) -> str:
    """The plain form of words, as one text."""
    return " ".join(plain(word.word for word in words))


def by_weight(weight: Callable[[Sequence[Spoken]], float]) -> Callable[[Clip], str]:
    """What both give with this weight of the sound."""
    return lambda clip: written(clip.judged.chosen(weight(clip.judged.heard[0])))


def errors(clips: Sequence[Clip], text: Callable[[Clip], str], level_db: float | None) -> float:
    """The word error rate at a level, in percent."""
    chosen = [clip for clip in clips if clip.level_db == level_db]
    return 100 * jiwer.wer([clip.said for clip in chosen], [text(clip) for clip in chosen])


def row(name: str, clips: Sequence[Clip], text: Callable[[Clip], str]) -> float:
    """Print a row of the table; returns the mean over all levels."""
    rates = [errors(clips, text, level_db) for level_db in LEVELS_DB]
    mean = float(np.mean(rates))
    print(f"| {name} | " + " | ".join(f"{rate:.1f}" for rate in (*rates, mean)) + " |")
    return mean


def table(clips: Sequence[Clip], title: str) -> None:
    """Print error rates by level and weight."""
    print(f"\n{title}, {len({clip.number for clip in clips})} clips, WER\n")
    print("| | clean | 10 dB | 5 dB | 0 dB | -5 dB | mean |\n|---|---|---|---|---|---|---|")
    row("sound alone", clips, lambda clip: written(clip.judged.heard[0]))
    row("lips alone", clips, lambda clip: written(clip.judged.seen[0]))
    row("the best listed text, if somebody told it", clips, best_listed)
    # A weight next to none leaves the choice to one model, among texts that both can write.
    row("lips, among texts of both", clips, by_weight(lambda words: 1e-6))
    row("sound, among texts of both", clips, by_weight(lambda words: 1 - 1e-6))
    for weight in WEIGHTS[1:-1]:
        row(f"together, weight {weight:g}", clips, by_weight(lambda words, weight=weight: weight))  # type: ignore[misc]
    row("together, followed", clips, by_weight(weight_of))
    row("trained fusion", clips, lambda clip: clip.fused)


def best_listed(clip: Clip) -> str:
    """The listed text with the fewest errors."""
    return min((" ".join(text) for text in clip.judged.texts), key=lambda text: jiwer.wer(clip.said, text))


def fitted(clips: Sequence[Clip]) -> Callable[[Sequence[Spoken]], float]:
    """The weight with the constants that make the fewest errors on these clips."""

    def made(sure: float, steepness: float) -> Callable[[Sequence[Spoken]], float]:
        return lambda words: weight_of(words, sure, steepness)

    def cost(constants: tuple[float, float]) -> float:
        return sum(errors(clips, by_weight(made(*constants)), level_db) for level_db in LEVELS_DB)

    costs = {constants: cost(constants) for constants in itertools.product(SURE.tolist(), STEEPNESS)}
    for constants in sorted(costs, key=lambda constants: costs[constants])[:8]:
        print(f"sure {constants[0]:.2f}, steepness {constants[1]:g}: mean {costs[constants] / len(LEVELS_DB):.2f}")
    return made(*min(costs, key=lambda constants: costs[constants]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", default="work/grid/manifest.jsonl")
    parser.add_argument("--noise", required=True, help="folder of training noise")
    parser.add_argument("--sound", default="whisper-base")
    parser.add_argument("--lips", default="grid-tiny")
    parser.add_argument("--language", default="en", help="of the sound; empty for a model that has no choice")
    parser.add_argument("--clips", type=int, default=75)
    parser.add_argument("--keep", type=Path, help="a file of this script that holds or gets what the models gave")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--time", action="store_true", help="measure the processor time of clean clips, and no errors")
    arguments = parser.parse_args()
    arguments.language = arguments.language or None
    if arguments.time:
        return print_time(arguments)
    if arguments.keep is not None and arguments.keep.exists():
        clips = pickle.loads(arguments.keep.read_bytes())
    else:
        clips = measured(arguments)
        if arguments.keep is not None:
            arguments.keep.write_bytes(pickle.dumps(clips))
    table(clips, f"{arguments.sound} and {arguments.lips}")
    if arguments.fit:
        weight = fitted([clip for clip in clips if clip.number % 2])
        others = [clip for clip in clips if not clip.number % 2]
        table(others, "the clips that were not fitted on")
        row("together, as fitted", others, by_weight(weight))


if __name__ == "__main__":
    try:
        main()
    except AvsrError as error:
        sys.exit(f"two_models.py: {error}")
