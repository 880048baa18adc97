"""avsr prepare: a corpus as it was published to a folder that training reads."""

from __future__ import annotations

import argparse
import itertools
import os

from avsr.cli.arguments import add_quiet, positive_integer
from avsr.cli.console import Console
from avsr.errors import DataError

SUMMARY = "a corpus to sound, lip crops and a manifest, ready for training"
DESCRIPTION = (
    "Cut the lips out of a corpus's videos and write them with sound, text and a manifest into\n"
    "OUT. Clips that are of no use are listed in OUT/rejected.jsonl with the reason. The same\n"
    "command goes on with an interrupted preparation. Prints the path of the manifest.\n\n"
    "folder: any folder of videos with NAME.txt beside NAME.mp4 (or mkv, mov, webm, avi, mpg),\n"
    "plain text or as in LRS2 and LRS3, whose word times are kept. The speaker is the folder\n"
    "that holds the video. Split by SRC/train.txt, val.txt, test.txt and pretrain.txt (LRS2) or\n"
    "by the first folder below SRC, if one is called so (LRS3); else all is train. val is called\n"
    "dev. Where there is no dev, a fixed draw of speakers with a twentieth of the clips of train\n"
    "(of trainval, of pretrain) becomes dev; what they say in other training splits becomes\n"
    "dev_pretrain. Of a single speaker clips are drawn.\n\n"
    "grid: GRID as distributed is split by a fixed rule: of each speaker an eighth of the clips\n"
    "is test_seen, 3 in 40 are dev, the rest train. A folder with a clips.jsonl says its own\n"
    "splits.\n\n"
    "Held-out speakers, of a corpus without splits of its own, are test_unseen."
)
EXAMPLE = "avsr prepare folder ~/corpora/lrs3 work/lrs3 --workers 8"

MAX_REASONS = 5
"""Rejected clips that are named on the console; all are in rejected.jsonl."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr prepare`."""
    add = parser.add_argument
    add("corpus", metavar="CORPUS", help="kind of corpus: grid or folder")
    add("src", metavar="SRC", help="folder that holds the corpus")
    add("out", metavar="OUT", help="folder for the prepared data")
    add(
        "--held-out-speakers",
        type=_names,
        default=(),
        metavar="S,S,...",
        help="speakers to keep for tests, as in s2,s22; their split is test_unseen",
    )
    add("--workers", type=positive_integer, default=os.cpu_count() or 1, metavar="N", help="processes; default: cores")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prepare the corpus; 0 when every clip was either prepared or rejected for a reason, and some were prepared."""
    from avsr.datasets.prepare import prepare

    with Console(quiet=arguments.quiet) as console:
        prepared = prepare(
            arguments.corpus,
            arguments.src,
            arguments.out,
            held_out=arguments.held_out_speakers,
            workers=arguments.workers,
            on_progress=lambda done, total: console.progress(done / total, f"{done}/{total} clips"),
        )
        rejected = prepared.manifest.with_name("rejected.jsonl")
        for clip_id, reason in itertools.islice(prepared.rejections.items(), MAX_REASONS):
            console.note(f"rejected {clip_id}: {reason}")
        if prepared.rejected > MAX_REASONS:
            console.note(f"rejected {prepared.rejected - MAX_REASONS} more, listed in {rejected}")
        splits = ", ".join(f"{split} {count}" for split, count in prepared.splits.items())
        console.note(
            f"{prepared.utterances} clips ready{f' ({splits})' if splits else ''}, {prepared.rejected} rejected; "
            f"{prepared.new} done now"
        )
        if not prepared.utterances:
            raise DataError(f"{arguments.src}: no clip could be used", remedy=f"{rejected} has the reasons")
        console.result(f"{prepared.manifest}\n")
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
