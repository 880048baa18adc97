"""avsr prepare: a published corpus to a folder that training reads."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable

from avsr.cli.arguments import add_old_place, add_output_dir, add_quiet, positive_integer, words
from avsr.cli.command import Action
from avsr.cli.console import Console
from avsr.errors import DataError

DESCRIPTION = (
    "Cut the lips out of a corpus's videos and write them with sound, text and a manifest into a folder.\n"
    "Clips that cannot be used are listed with the reason in rejected.jsonl in that folder. The same\n"
    "command continues an interrupted preparation. Prints the path of the manifest."
)
EXAMPLE = "avsr prepare folder ~/corpora/lrs3 --output-dir work/lrs3 --workers 8"

HELD_OUT = "Held-out speakers, if the corpus has no splits of its own, become the split test_unseen."
FOLDER_DESCRIPTION = (
    "Prepare any folder of videos with NAME.txt beside NAME.mp4 (or another video format). The text\n"
    "is plain, or as in LRS2 and LRS3, whose word times are kept. The speaker is the folder that holds the\n"
    "video.\n\n"
    "Splits come from SRC/train.txt, val.txt, test.txt and pretrain.txt (LRS2), or from the name of the\n"
    "first folder below SRC (LRS3); without either, everything is train. val is called dev. If there is no\n"
    "dev, a fixed draw of speakers with a twentieth of the clips of train (of trainval, of pretrain) becomes\n"
    "dev; the clips of these speakers in other training splits become dev_pretrain. If there is only one\n"
    f"speaker, clips are drawn instead of speakers.\n\n{HELD_OUT}\n"
    "Prints the path of the manifest."
)
GRID_DESCRIPTION = (
    "Prepare the GRID corpus. As distributed it is split by a fixed rule: of each speaker an eighth of the\n"
    "clips is test_seen, 3 in 40 are dev, the rest is train. A folder with a clips.jsonl names its own\n"
    f"splits.\n\n{HELD_OUT}\n"
    "Prints the path of the manifest."
)
GRID_EXAMPLE = "avsr prepare grid work/corpora/grid --output-dir work/grid --held-out-speakers s2,s22"
SPEECH_DESCRIPTION = (
    "Prepare recordings of speech with texts, of sound alone or with a picture: a folder with one list\n"
    "NAME.jsonl (or that list itself), with NAME.txt beside each file, or with lists of texts as Kaldi\n"
    "(text) and LibriSpeech (*.trans.txt) have them. Texts stay as they are published.\n\n"
    "A line of a list is a JSON object: path, and if known id, speaker, split, words, word_times, language\n"
    "and mixed. The list names the splits, or folders called train, dev or test do; everything else is\n"
    "test. Lines with mixed: true get a split of their own, test_mixed. Clips whose words are not known\n"
    "(words: null) become the split unlabelled.\n\n"
    "Prints the path of the manifest."
)
SPEECH_EXAMPLE = "avsr prepare speech ~/corpora/korean --output-dir work/korean --language ko"

MAX_REASONS = 5
"""Rejected clips that are named on the console; rejected.jsonl has all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr prepare folder` and `avsr prepare grid`."""
    parser.add_argument("src", metavar="SRC", help="folder that holds the corpus")
    _add_common(parser)
    parser.add_argument(
        "--held-out-speakers",
        type=words,
        default=(),
        metavar="S,S,...",
        help="speakers to keep for tests, as in s2,s22",
    )


def add_speech_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr prepare speech`, which never makes splits."""
    parser.add_argument("src", metavar="SRC", help="folder that holds the speech, or a list of it, NAME.jsonl")
    _add_common(parser)
    parser.set_defaults(held_out_speakers=())


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    output = add_output_dir(parser, "folder for the prepared data", required=True)
    add_old_place(parser, output)
    add("-l", "--language", metavar="CODE", help="language of the clips, as in ko, where the corpus does not say it")
    add("--workers", type=positive_integer, default=os.cpu_count() or 1, metavar="N", help="processes; default: cores")
    add_quiet(parser)


def run(corpus: str, arguments: argparse.Namespace) -> int:
    """Prepare a corpus; 0 if a clip is ready, also if others were rejected: each has its reason."""
    from avsr.datasets.prepare import prepare

    with Console(quiet=arguments.quiet) as console:
        prepared = prepare(
            corpus,
            arguments.src,
            arguments.output_dir,
            held_out=tuple(dict.fromkeys(arguments.held_out_speakers)),
            language=arguments.language,
            workers=arguments.workers,
            on_progress=lambda done, total: console.progress(done / total, f"{done}/{total} clips"),
        )
        rejected = prepared.manifest.with_name("rejected.jsonl")
        for clip_id, reason in itertools.islice(prepared.rejections.items(), MAX_REASONS):
            console.note(f"rejected {clip_id}: {reason}")
        if prepared.rejected > MAX_REASONS:
            console.note(f"rejected {prepared.rejected - MAX_REASONS} more, listed in {rejected}")
        for line in prepared.account.lines():
            console.note(line)
        splits = ", ".join(f"{split} {count}" for split, count in prepared.splits.items())
        ready = f"{prepared.utterances} clips ready" + (f" ({splits})" if splits else "")
        earlier = f"; {prepared.kept} of them by an earlier run" if prepared.kept else ""
        console.note(f"{ready}, {prepared.rejected} rejected{earlier}")
        if not prepared.utterances:
            raise DataError(f"{arguments.src}: no clip could be used", remedy=f"{rejected} has the reasons")
        console.result(f"{prepared.manifest}\n")
    return 0


def _run_for(corpus: str) -> Callable[[argparse.Namespace], int]:
    return lambda arguments: run(corpus, arguments)


ACTIONS = {
    "folder": Action(
        "any folder of videos with a text beside each, LRS2 and LRS3 too",
        FOLDER_DESCRIPTION,
        EXAMPLE,
        add_arguments,
        _run_for("folder"),
    ),
    "grid": Action("the GRID corpus as distributed", GRID_DESCRIPTION, GRID_EXAMPLE, add_arguments, _run_for("grid")),
    "speech": Action(
        "recordings of speech with lists or files of texts: AN4, TIMIT, LibriSpeech, Kaldi",
        SPEECH_DESCRIPTION,
        SPEECH_EXAMPLE,
        add_speech_arguments,
        _run_for("speech"),
    ),
}
