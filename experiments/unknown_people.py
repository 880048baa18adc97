"""How well models recognise people they never met: a measure to choose by, without a test clip.

    python experiments/unknown_people.py MODEL ... --noise work/corpora/noise/noise_train

Word error rates in percent. The first table has the sound alone: the development clips of GRID's speaker, held-out
neural voices and the people of AN4's development split (letters and digits); clean, in noise, and live in chunks of
320 ms.
The second has both sides on the development clips of GRID, the lips whole and changed: as another face, of another
sentence, of other people, late, covered, still, lost. Where lips are wrong, nothing above the sound alone is wanted.
Noise is the recordings of the training folder, coloured noise, and babble of the training voices; "babble -5" is babble
of GRID's own speaker at -5 dB. Everything is drawn by fixed seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import jiwer

import avsr
from avsr.arrays import Crops, Present, Samples
from avsr.augment import video
from avsr.augment.audio import mix_at_snr
from avsr.datasets.manifest import Utterance, load_lips, load_samples, read_manifest
from avsr.decoding.search import Search
from avsr.errors import AvsrError
from avsr.families.own.engine import EncodedAudio, EncodedLips, OwnEngine
from avsr.noise.library import NoiseBank, read_noise_folder
from avsr.randomness import generator

LEVELS_DB = (None, 5.0, 0.0, -5.0)
VOICES = (("GRID dev", "grid", "dev"), ("held-out voices", "neural", "dev"), ("AN4 dev", "an4-known", "dev"))
LIPS = (
    *("none", "whole", "another face", "another sentence", "other people"),
    *("late 0.4 s", "covered", "still", "half lost"),
)


class Data:
    """The clips of a folder of prepared corpora, and the noise."""

    def __init__(self, work: Path, noise: Path) -> None:
        self.work = work
        train = self.of("grid", "train")[::8]
        speaker = [load_samples(u, work / "grid") for u in train]
        others = [load_samples(u, work / "an4-known") for u in self.of("an4-known", "train")[::4]]
        self.noise = NoiseBank(list(read_noise_folder(noise).values()), speaker + others)
        self.babble = NoiseBank([], speaker, babble_share=1.0)
        self.strangers = [u for u in read_manifest(work / "grid" / "manifest.jsonl") if u.split == "video_only_other"]

    def of(self, corpus: str, split: str) -> list[Utterance]:
        return [u for u in read_manifest(self.work / corpus / "manifest.jsonl") if u.split == split and u.audio]

    def sounds(self, corpus: str, utterance: Utterance) -> list[Samples]:
        """Clean, at each level, and in babble of GRID's speaker at -5 dB."""
        samples = load_samples(utterance, self.work / corpus)
        mixed = []
        for level_db in LEVELS_DB:
            if level_db is not None:
                noise, _ = self.noise.draw(len(samples), generator("unknown people", utterance.id, level_db))
            mixed.append(samples if level_db is None else mix_at_snr(samples, noise, level_db))
        babble, _ = self.babble.draw(len(samples), generator("unknown people", "babble", utterance.id))
        return [*mixed, mix_at_snr(samples, babble, -5.0)]

    def lips(self, kind: str, index: int, utterances: Sequence[Utterance]) -> tuple[Crops, Present]:
        random = generator("unknown people", kind, utterances[index].id)
        crops, present = load_lips(utterances[index], self.work / "grid")
        match kind:
            case "another face":
                return video.another_face(crops, random)[0], present
            case "another sentence":
                return load_lips(utterances[(index + 7) % len(utterances)], self.work / "grid")
            case "other people":
                return load_lips(self.strangers[index % len(self.strangers)], self.work / "grid")
            case "late 0.4 s":
                return video.shift_slots(crops, present, 10)
            case "covered":
                return video.occlude(crops, random, 0.5), present
            case "still":
                return video.freeze(crops, present, 0, len(crops) - 1)
            case "half lost":
                return crops, video.drop_slots(present, random, 0.5)
        return crops, present


def text(engine: OwnEngine, audio: EncodedAudio | None, lips: EncodedLips | None) -> str:
    (words,) = engine.decode(audio, lips, Search())
    return " ".join(word.word for word in words)


def row(name: str, references: Sequence[str], texts: Sequence[Sequence[str]]) -> str:
    return f"| {name} | " + " | ".join(f"{100 * jiwer.wer(list(references), list(t)):.1f}" for t in texts) + " |"


def table_of_sound(engine: OwnEngine, live: OwnEngine, data: Data) -> None:
    levels = ["clean", *(f"{level:g} dB" for level in LEVELS_DB[1:]), "babble -5"]
    print("\n| sound alone | " + " | ".join([*levels, "live", "live 0 dB"]) + " |")
    print("|---" * (len(levels) + 3) + "|")
    for name, corpus, split in VOICES:
        utterances = data.of(corpus, split)
        texts: list[list[str]] = [[] for _ in range(len(levels) + 2)]
        for utterance in utterances:
            sounds = data.sounds(corpus, utterance)
            for column, samples in enumerate(sounds):
                texts[column].append(text(engine, engine.encode_audio([samples]), None))
            for column, samples in ((-2, sounds[0]), (-1, sounds[LEVELS_DB.index(0.0)])):
                texts[column].append(text(live, live.encode_audio([samples]), None))
        print(row(f"{name}, {len(utterances)}", [u.text for u in utterances], texts), flush=True)


def table_of_lips(engine: OwnEngine, data: Data) -> None:
    utterances = data.of("grid", "dev")
    levels = ["clean", *(f"{level:g} dB" for level in LEVELS_DB[1:]), "babble -5"]
    texts: dict[str, list[list[str]]] = {kind: [[] for _ in range(len(levels) + 1)] for kind in LIPS}
    for index, utterance in enumerate(utterances):
        audios = [engine.encode_audio([samples]) for samples in data.sounds("grid", utterance)]
        for kind in LIPS:
            lips = None
            if kind != "none":
                crops, present = data.lips(kind, index, utterances)
                lips = engine.encode_lips([crops], [present], audios[0])
            for column, audio in enumerate(audios):
                texts[kind][column].append(text(engine, audio, lips))
            texts[kind][-1].append("" if lips is None else text(engine, None, lips))
    print("\n| lips | " + " | ".join([*levels, "lips alone"]) + " |")
    print("|---" * (len(levels) + 2) + "|")
    for kind in LIPS:
        print(row(kind, [u.text for u in utterances], texts[kind]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="checkpoints or shipped models")
    parser.add_argument("--work", type=Path, default=Path("work"), help="folder of the prepared corpora")
    parser.add_argument("--noise", type=Path, required=True, help="folder of training noise")
    parser.add_argument("--only", choices=("sound", "lips"), help="one of the two tables")
    arguments = parser.parse_args()
    data = Data(arguments.work, arguments.noise)
    for name in arguments.models:
        model = avsr.load(name).model
        engine = cast(OwnEngine, model.engine)
        print(f"\n{name}")
        if arguments.only != "lips":
            assert model.in_chunks is not None
            table_of_sound(engine, cast(OwnEngine, model.in_chunks(320)), data)
        if arguments.only != "sound" and "av" in model.card.modalities:
            table_of_lips(engine, data)


if __name__ == "__main__":
    try:
        main()
    except AvsrError as error:
        sys.exit(f"unknown_people.py: {error}")
