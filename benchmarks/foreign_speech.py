"""How well a model with a closed domain tells its own sentences from other speech and from noise.

    python benchmarks/foreign_speech.py grid-tiny --own work/grid/manifest.jsonl --own-split dev,train_other \\
        --noise corpora/noise/noise_train --foreign corpora/an4/an4.jsonl --foreign-split train,dev

Own clips come from a manifest of `avsr prepare` and are recognised from the sound, the lips and both, clean and in the
recordings of --noise; the noise of a clip is drawn by its id and the SNR. Foreign clips come from lists of JSON objects
with `path` and `split`, and are recognised as files. The recordings of --noise are foreign too.

A file is marked if one of its utterances fits the sentences of the model less than the limit. The table shows the
lowest fit of each group of files (0 for a file without words). Then it shows how many files each of several limits
would mark; the limit of the model is among them. The last column counts the words that are still shown at that limit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lost_speech import noise_for

import avsr
from avsr.arrays import Crops, Present, Samples
from avsr.datasets.manifest import load_lips, load_samples, read_manifest
from avsr.decoding.domain import Sentences, fit, utterances
from avsr.decoding.search import Search, Spoken
from avsr.errors import AvsrError, ConfigError, DataError
from avsr.media import SOUND_SUFFIXES, read_audio
from avsr.noise.mixing import mix
from avsr.recognizer import Recognizer

SNRS_DB = (None, 5.0, 0.0, -5.0)
LIMIT_STEPS = (-0.02, 0.0, 0.02, 0.04, 0.06, 0.08)


class Row(NamedTuple):
    """The files of one line of the table, each with its recognised words."""

    name: str
    files: list[list[Spoken]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--own", type=Path, help="manifest of clips that the model knows")
    parser.add_argument("--own-split", default="dev", help="splits, joined by commas; default dev")
    parser.add_argument("--noise", type=Path, help="folder of recordings without speech")
    parser.add_argument("--foreign", type=Path, nargs="*", default=[], help="lists of clips of other speech")
    parser.add_argument("--foreign-split", help="splits, joined by commas; default all")
    arguments = parser.parse_args()
    recognizer = avsr.load(arguments.model)
    sentences = recognizer.card.sentences
    if sentences is None:
        raise ConfigError(f"model {recognizer.name} states no sentences", remedy="use grid-tiny")
    limits = [sentences.least_fit + step for step in LIMIT_STEPS]
    print("| files | number | lowest fit: least, 5 %, median, 95 %, most | ", end="")
    print(" | ".join(f"below {limit:.2f}" for limit in limits) + " | words shown |")
    print("|---" * (4 + len(limits)) + "|")
    for row in rows(recognizer, arguments):
        print_row(row, sentences, limits)


def rows(recognizer: Recognizer, arguments: argparse.Namespace) -> Iterator[Row]:
    """All lines of the table."""
    paths = []
    if arguments.noise is not None:
        paths = [path for path in sorted(arguments.noise.iterdir()) if path.suffix in SOUND_SUFFIXES]
    noises = [read_audio(path) for path in paths]
    if arguments.own is not None:
        for split in arguments.own_split.split(","):
            yield from own_rows(recognizer, arguments.own, split, noises)
    if paths:
        yield Row(arguments.noise.name, [words_of(recognizer, path) for path in paths])
    splits = None if arguments.foreign_split is None else arguments.foreign_split.split(",")
    for listed in arguments.foreign:
        lines = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()]
        chosen = [listed.parent / line["path"] for line in lines if splits is None or line["split"] in splits]
        yield Row(listed.stem, [words_of(recognizer, path) for path in chosen])


def own_rows(recognizer: Recognizer, manifest: Path, split: str, noises: Sequence[Samples]) -> Iterator[Row]:
    """The clips of a split: the lips, and the sound with and without them, at each SNR."""
    clips = [clip for clip in read_manifest(manifest) if clip.split == split and clip.audio and clip.video]
    if not clips:
        raise DataError("--own-split", got=split, expected="a split with clips that have sound and lips")
    sounds = [load_samples(clip, manifest.parent) for clip in clips]
    lips = [load_lips(clip, manifest.parent) for clip in clips]
    yield Row(f"{split}, lips", [from_arrays(recognizer, None, seen) for seen in lips])
    for snr_db in SNRS_DB if noises else (None,):
        noisy = [
            sound
            if snr_db is None
            else mixed(sound, noise_for(len(sound), list(noises), f"{clip.id} {snr_db}"), snr_db)
            for clip, sound in zip(clips, sounds, strict=True)
        ]
        level = "clean" if snr_db is None else f"{snr_db:g} dB"
        yield Row(f"{split}, sound, {level}", [from_arrays(recognizer, sound, None) for sound in noisy])
        both = [from_arrays(recognizer, sound, seen) for sound, seen in zip(noisy, lips, strict=True)]
        yield Row(f"{split}, both, {level}", both)


def mixed(sound: Samples, noise: Samples, snr_db: float) -> Samples:
    return np.asarray(mix(sound, noise, snr_db).samples, np.float32)


def from_arrays(recognizer: Recognizer, sound: Samples | None, lips: tuple[Crops, Present] | None) -> list[Spoken]:
    """The words of an utterance."""
    assert recognizer.model.frames is not None
    search = recognizer.model.frames.frame_search(Search())
    crops, present = ([lips[0]], [lips[1]]) if lips else (None, None)
    (log_probs_TV,) = recognizer.log_probs(None if sound is None else [sound], crops, present)
    return search.words(search.step(log_probs_TV, search.initial_state()))


def words_of(recognizer: Recognizer, path: Path) -> list[Spoken]:
    """The words of a file, foreign ones too."""
    words = recognizer.transcribe(path, force=True).words
    return [Spoken(word.word, word.start, word.end, word.confidence) for word in words]


def print_row(row: Row, sentences: Sentences, limits: Sequence[float]) -> None:
    groups = [utterances(words) for words in row.files]
    fits = [min((fit(group, sentences.places) for group in file), default=0.0) for file in groups]
    spread = ", ".join(f"{value:.2f}" for value in np.quantile(fits, [0, 0.05, 0.5, 0.95, 1]))
    marked = " | ".join(str(sum(value < limit for value in fits)) for limit in limits)
    shown = sum(len(group) for file in groups for group in file if not sentences.are_foreign(group))
    print(f"| {row.name} | {len(fits)} | {spread} | {marked} | {shown} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except AvsrError as error:
        sys.exit(f"foreign_speech.py: {error}")
