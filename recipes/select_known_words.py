#!/usr/bin/env python3
"""Keep the utterances of a prepared corpus whose words a model knows, with the times of the words.

    avsr prepare speech ~/corpora/an4 -o work/an4
    python recipes/select_known_words.py work/an4/manifest.jsonl work/an4-known --vocabulary data/grid/vocabulary.txt

Writes OUT/manifest.jsonl: texts in lower case, word times by forced alignment with a model, and the splits of the
corpus. The sound and the lips stay in their folder, and the new manifest names them there. Says on standard error how
many utterances of each split were kept, and how many were left out for which reason.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from word_times import Aligner

from avsr.cli.console import Console
from avsr.datasets.manifest import Utterance, load_samples, read_manifest, write_manifest
from avsr.decoding.tokenizer import WordTokenizer
from avsr.errors import AvsrError, DataError
from avsr.files import file_error
from avsr.shipped import find_file


def reason_against(utterance: Utterance, vocabulary: Collection[str]) -> str | None:
    """Why an utterance is left out; None if it is kept."""
    words = utterance.text.lower().split()
    if utterance.audio is None:
        return "without sound"
    if not words:
        return "without text"
    return None if set(words) <= set(vocabulary) else "with unknown words"


def with_times(utterance: Utterance, root: Path, aligner: Aligner) -> Utterance:
    """The utterance with its text in lower case and its word times. root: folder of its manifest.

    Raises DataError if the sound cannot be read or is too short for the words.
    """
    words = utterance.text.lower().split()
    times = aligner.word_times(load_samples(utterance, root), words)
    return dataclasses.replace(utterance, text=" ".join(words), words=tuple(times))


def moved(utterance: Utterance, root: Path, folder: Path) -> Utterance:
    """The utterance with its files named from another folder of a manifest."""

    def place(name: str | None) -> str | None:
        return None if name is None else os.path.relpath((root / name).resolve(), folder.resolve())

    return dataclasses.replace(utterance, audio=place(utterance.audio), video=place(utterance.video))


def select(manifest: Path, folder: Path, vocabulary: Collection[str], aligner: Aligner, console: Console) -> None:
    """Write FOLDER/manifest.jsonl, and say on the console what was kept of each split, and what was left out why.

    Raises DataError if nothing is left, if the folder is the one of the corpus, or for a word that the aligner does not
    know.
    """
    root, target = manifest.parent, folder / "manifest.jsonl"
    if target.exists() and target.samefile(manifest):
        raise DataError(f"{target}: is the manifest to read", expected="another folder to write to")
    aligner.units(sorted(vocabulary))  # the words that it must know, before the work begins
    kept: list[Utterance] = []
    fates: dict[str, collections.Counter[str]] = {}
    utterances = read_manifest(manifest)
    for done, utterance in enumerate(utterances, 1):
        reason = reason_against(utterance, vocabulary)
        if reason is None:
            try:
                kept.append(moved(with_times(utterance, root, aligner), root, folder))
            except DataError as error:
                console.note(f"{utterance.id}: left out: {error}")
                reason = "not alignable"
        fates.setdefault(utterance.split, collections.Counter())[reason or "kept"] += 1
        console.progress(done / len(utterances), f"{done}/{len(utterances)} utterances")
    lines = [_line(split, fates[split]) for split in sorted(fates)]
    if not kept:
        raise DataError(f"{manifest}: no utterance is left", got="; ".join(lines) or "no utterances")
    write_manifest(target, kept)
    for line in lines:
        console.note(line)


def _line(split: str, fates: collections.Counter[str]) -> str:
    left_out = [f"{count} {reason}" for reason, count in sorted(fates.items()) if reason != "kept"]
    return f"{split}: {fates['kept']} of {fates.total()} kept; left out: {', '.join(left_out) or 'none'}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="manifest of a prepared corpus")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--vocabulary", type=Path, required=True, metavar="FILE", help="the words, one a line")
    parser.add_argument("--aligner", default="grid-tiny", help="model that finds the word times (default %(default)s)")
    args = parser.parse_args(arguments)
    try:
        vocabulary = WordTokenizer.read(find_file(args.vocabulary)).words
        with Console() as console:
            select(args.manifest, args.out, vocabulary, Aligner(args.aligner), console)
    except (AvsrError, OSError) as error:
        print(f"{parser.prog}: {file_error(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 1
    print(args.out / "manifest.jsonl")
    return 0


if __name__ == "__main__":
    sys.exit(main())
