"""avsr vocabulary: the units of a model, from the texts of a prepared corpus."""

from __future__ import annotations

import argparse

from avsr.cli.arguments import add_output_file, add_quiet, positive_integer, words
from avsr.cli.console import Console

DESCRIPTION = (
    "Make the vocabulary that a training configuration names as `vocabulary`, from the texts of a\n"
    "prepared corpus. NAME.model becomes a SentencePiece unigram model, whose pieces can spell any\n"
    "word; NAME.txt becomes a list of the words, one a line, and the model will know no others.\n\n"
    "Set model.vocabulary_size to the number that it prints. Texts of development and\n"
    "test splits are refused. The same texts give the same file. Prints its path."
)
EXAMPLE = "avsr vocabulary work/lrs3/manifest.jsonl --output work/lrs3/pieces.model --split trainval,pretrain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr vocabulary`."""
    add = parser.add_argument
    add("manifest", metavar="MANIFEST", help="manifest of a prepared corpus")
    add_output_file(parser, "file to write: NAME.model or NAME.txt", metavar="FILE")
    add("--pieces", type=positive_integer, metavar="N", help="number of word pieces of NAME.model (default 1000)")
    add(
        "--split",
        type=words,
        default=("train",),
        metavar="S,S,...",
        help="training splits to take the texts of (default train)",
    )
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the vocabulary; 0 when it is written."""
    from avsr.training.vocabulary import make_vocabulary

    with Console(quiet=arguments.quiet) as console:
        made = make_vocabulary(arguments.manifest, arguments.output, splits=arguments.split, pieces=arguments.pieces)
        kind = "words" if arguments.output.suffix == ".txt" else "pieces"
        console.note(
            f"{made.units} {kind} of {made.texts} texts: {made.units_a_word:.2f} a word, {made.units_a_second:.1f} a"
            f" second; {made.too_dense} texts have more units than frames of 80 ms"
        )
        console.result(f"{arguments.output}\n")
    return 0
