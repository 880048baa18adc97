"""avsr prepare: a corpus as it was published to a folder that training reads."""

from __future__ import annotations

import argparse
import os

from avsr.cli.arguments import add_quiet, positive_integer
from avsr.cli.console import Console

SUMMARY = "a corpus to sound, lip crops and a manifest, ready for training"
DESCRIPTION = (
    "Cut the lips out of a corpus's videos and write them with sound, text and a manifest into\n"
    "OUT. Clips that are of no use are listed in OUT/rejected.jsonl with the reason. The same\n"
    "command goes on with an interrupted preparation. Prints the path of the manifest."
)
EXAMPLE = "avsr prepare grid ~/corpora/grid work/grid --workers 8"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr prepare`."""
    add = parser.add_argument
    add("corpus", metavar="CORPUS", help="kind of corpus: grid")
    add("src", metavar="SRC", help="folder that holds the corpus")
    add("out", metavar="OUT", help="folder for the prepared data")
    add("--workers", type=positive_integer, default=os.cpu_count() or 1, metavar="N", help="processes; default: cores")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prepare the corpus; 0 when every clip was either prepared or rejected for a reason."""
    from avsr.datasets.prepare import prepare

    with Console(quiet=arguments.quiet) as console:
        prepared = prepare(
            arguments.corpus,
            arguments.src,
            arguments.out,
            workers=arguments.workers,
            on_progress=lambda done, total: console.progress(done / total, f"{done}/{total} clips"),
        )
        reasons = f" (see {prepared.manifest.with_name('rejected.jsonl')})" if prepared.rejected else ""
        console.note(
            f"{prepared.utterances} clips ready, {prepared.rejected} rejected{reasons}; {prepared.new} done now"
        )
        console.result(f"{prepared.manifest}\n")
    return 0
