"""Makes the vocabulary of a model from the texts of a prepared corpus."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from avsr.datasets.manifest import Utterance, read_manifest
from avsr.decoding.tokenizer import SentencePieceTokenizer, Tokenizer, WordTokenizer
from avsr.errors import ConfigError, DataError
from avsr.files import not_written, write_bytes

FRAME_S = 0.08
"""The shortest time that CTC needs for a unit: one frame of the audio encoder with its usual subsampling of 8."""

DEFAULT_PIECES = 1000


class VocabularySummary(NamedTuple):
    """What a new vocabulary holds, and how it fits the texts that it was made of."""

    units: int  # words, or pieces of words: what model.vocabulary_size must be
    texts: int
    units_a_word: float
    units_a_second: float
    too_dense: int  # texts with more units than their recordings have frames; CTC cannot write these


def make_vocabulary(
    manifest: str | PathLike[str], out: str | PathLike[str], *, splits: Sequence[str], pieces: int | None = None
) -> VocabularySummary:
    """Write the vocabulary of some splits of a manifest to `out`, whole or not at all.

    The same texts give the same file, in whatever order they come.

    out: NAME.model for a SentencePiece unigram model, an open vocabulary; NAME.txt for a list of the words, one a line,
        a closed vocabulary.
    splits: names of training splits. Development and test texts are refused: a model must not know what it is
        measured with.
    pieces: how many pieces a SentencePiece model has; None for 1000.

    Raises ConfigError for another name of `out`, and for pieces of a list of words; DataError if the manifest cannot be
    read, if a split has no utterance, if the texts do not give this number of pieces, and if `out` cannot be written.
    """
    manifest, out = Path(manifest), Path(out)
    if out.suffix not in (".model", ".txt"):
        raise ConfigError(f"{out}: wrong name", expected="NAME.model for word pieces, or NAME.txt for a list of words")
    if out.suffix == ".txt" and pieces is not None:
        raise ConfigError(f"{out}: a list of words has no pieces", remedy="name it .model, or leave the pieces out")
    utterances = _choose(read_manifest(manifest), splits, manifest)
    tokenizer: Tokenizer
    if out.suffix == ".model":
        tokenizer = SentencePieceTokenizer.train((utterance.text for utterance in utterances), pieces or DEFAULT_PIECES)
    else:
        tokenizer = _words(utterances)
    try:
        write_bytes(out, tokenizer.data())
    except OSError as error:
        raise not_written(out, error, DataError) from error
    units = sum(len(tokenizer.encode(utterance.text)) for utterance in utterances)
    words = sum(len(utterance.text.split()) for utterance in utterances)
    seconds = sum(utterance.duration for utterance in utterances)
    return VocabularySummary(
        units=len(tokenizer),
        texts=len(utterances),
        units_a_word=units / max(1, words),
        units_a_second=units / max(seconds, 1e-9),
        too_dense=sum(not _fits(utterance, tokenizer) for utterance in utterances),
    )


def _choose(utterances: Sequence[Utterance], splits: Sequence[str], manifest: Path) -> list[Utterance]:
    """The utterances of the training splits `splits`. Raises DataError for another split, or for an empty one."""
    known = sorted({utterance.split for utterance in utterances})
    for split in splits:
        if split.startswith(("dev", "val", "test")):
            raise DataError(f"{split}: a vocabulary is made from training text", remedy="name training splits alone")
        if split not in known:
            expected = f"some of {', '.join(known)}" if known else "utterances, but the manifest is empty"
            raise DataError(f"{manifest}: no utterance of split {split!r}", expected=expected)
    return [utterance for utterance in utterances if utterance.split in splits]


def _words(utterances: Sequence[Utterance]) -> WordTokenizer:
    words = sorted({word for utterance in utterances for word in utterance.text.split()})
    if not words:
        raise DataError("no text to make a vocabulary of")
    return WordTokenizer(words)


def _fits(utterance: Utterance, tokenizer: Tokenizer) -> bool:
    """Whether CTC can write the text in the frames of the recording: a frame a unit, and a blank between equal ones."""
    units = tokenizer.encode(utterance.text)
    return len(units) + sum(a == b for a, b in itertools.pairwise(units)) <= utterance.duration / FRAME_S
