#!/usr/bin/env python3
"""Make the word pieces of an open vocabulary from the texts of a prepared corpus.

    python scripts/make_vocabulary.py work/lrs3/manifest.jsonl work/lrs3/pieces.model --pieces 1000 --split trainval

Writes a SentencePiece unigram model, which a configuration names as `vocabulary`, with `model.vocabulary_size` the
number of pieces. The same texts give the same file. Texts of development and test splits are refused: what is measured
with must not be known. A piece takes a frame of 80 ms at least; the note says how many texts have more than fit.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from avsr.datasets.manifest import Utterance, read_manifest
from avsr.decoding.tokenizer import SentencePieceTokenizer, Tokenizer
from avsr.errors import AvsrError, DataError
from avsr.files import write_bytes

FRAME_S = 0.08


def choose(utterances: Sequence[Utterance], splits: Sequence[str], manifest: Path) -> list[Utterance]:
    """The utterances of these training splits. Raises DataError for a split that is none, or has no utterance."""
    known = sorted({utterance.split for utterance in utterances})
    for split in splits:
        if split.startswith(("dev", "val", "test")):
            raise DataError(f"{split}: a vocabulary is made from training text", remedy="name training splits alone")
        if split not in known:
            expected = f"some of {', '.join(known)}" if known else "utterances, but the manifest is empty"
            raise DataError(f"{manifest}: no utterance of split {split!r}", expected=expected)
    return [utterance for utterance in utterances if utterance.split in splits]


def fits(utterance: Utterance, tokenizer: Tokenizer) -> bool:
    """Whether CTC can write its units in its frames: one each, and a blank between two that are equal."""
    units = tokenizer.encode(utterance.text)
    return len(units) + sum(a == b for a, b in itertools.pairwise(units)) <= utterance.duration / FRAME_S


def write(path: Path, content: bytes) -> None:
    """Whole or not at all. Raises DataError."""
    try:
        write_bytes(path, content)
    except OSError as error:
        raise DataError(f"{path}: cannot be written", got=error) from error


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="of a prepared corpus")
    parser.add_argument("out", type=Path, help="file to write, NAME.model")
    parser.add_argument("--pieces", type=int, default=1000, help="how many (default %(default)s)")
    parser.add_argument("--split", default="train", help="whose texts; several as in trainval,pretrain (default train)")
    arguments = parser.parse_args(words)
    try:
        if arguments.out.suffix != ".model":
            raise DataError(f"{arguments.out}: wrong name", expected="NAME.model, by which training knows it")
        splits = [name.strip() for name in arguments.split.split(",") if name.strip()]
        chosen = choose(read_manifest(arguments.manifest), splits, arguments.manifest)
        tokenizer = SentencePieceTokenizer.train((utterance.text for utterance in chosen), arguments.pieces)
        write(arguments.out, tokenizer.data())
    except AvsrError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    units = sum(len(tokenizer.encode(utterance.text)) for utterance in chosen)
    seconds = sum(utterance.duration for utterance in chosen)
    num_words = sum(len(utterance.text.split()) for utterance in chosen)
    dense = sum(not fits(utterance, tokenizer) for utterance in chosen)
    print(
        f"{len(tokenizer)} pieces of {len(chosen)} texts: {units / max(1, num_words):.2f} a word, "
        f"{units / max(seconds, 1e-9):.1f} a second; {dense} texts have more than fit in frames of 80 ms",
        file=sys.stderr,
    )
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
