"""avsr evaluate: error rates of a recogniser under noise and damage to the picture."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avsr.cli.arguments import add_quiet, decibels, named_folder, positive_integer, whole_numbers, words
from avsr.cli.console import Console, UsageError

if TYPE_CHECKING:
    from avsr.evaluation.job import Evaluation
    from avsr.grid import Modality

SUMMARY = "error rates of a recogniser, by noise, level and what happens to the picture"
DESCRIPTION = (
    "Measure word and character error rates on the prepared data set MANIFEST: by sound (a), lips (v)\n"
    "and both (av), in noise of several kinds and levels, with lips that are lost, blurred, covered,\n"
    "late or frozen. Writes results.json, results.csv, report.html, report.md and figures into the\n"
    "output folder and prints its table. The same command goes on with an interrupted evaluation."
)
EXAMPLE = "avsr evaluate work/grid/manifest.jsonl --split dev --output runs/dev --noises white,pink --snr clean,0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr evaluate`."""
    add = parser.add_argument
    add("manifest", metavar="MANIFEST", help="manifest.jsonl of a prepared data set")
    add("--output", type=Path, metavar="DIR", help="folder for the results; default: evaluation/MODEL-SPLIT")
    add("--split", default="dev", help="which utterances; default %(default)s")
    add("--clips", type=positive_integer, metavar="N", help="only N of them, evenly spread")
    system = parser.add_argument_group("recogniser").add_mutually_exclusive_group()
    system.add_argument(
        "--model",
        default="grid-tiny",
        metavar="NAME|PATH",
        help="shipped model, checkpoint or .nemo; default grid-tiny",
    )
    system.add_argument(
        "--recognizer", metavar="MODULE:FUNCTION", help="Python function (or FILE.py:FUNCTION): samples in, text out"
    )
    system.add_argument("--command", metavar="WORDS", help="program that prints the text of the file {wav}")
    add("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="where the model computes; default auto")
    add(
        "--chunk-ms",
        type=positive_integer,
        metavar="MS",
        help="hear and see in such chunks, as live; default: whole utterances",
    )
    add("--normalize", action="store_true", help="letter case and punctuation do not count")
    grid = parser.add_argument_group("conditions, each a list joined by commas")
    grid.add_argument("--modalities", type=words, metavar="LIST", help="a, v, av; default: all that there are")
    grid.add_argument("--noises", type=words, metavar="LIST", help="kinds of noise, or none; default: the protocol's")
    grid.add_argument(
        "--snr", type=decibels, metavar="LIST", help="dB or clean, as in --snr=-5,0,clean; default: the protocol's"
    )
    grid.add_argument(
        "--video",
        type=words,
        metavar="LIST",
        help="what happens to the lips: intact, absent, random-50, ...",
    )
    grid.add_argument("--seed", type=whole_numbers, metavar="LIST", help="of what is random; default 1,2,3")
    noise = parser.add_argument_group("noise, as for avsr noise plan")
    noise.add_argument("--protocol", default="avsr", metavar="NAME", help="way of testing in noise; default avsr")
    noise.add_argument(
        "--noise",
        action="append",
        default=[],
        type=named_folder,
        metavar="KIND=FOLDER",
        help="recordings of a kind (environment, music, rir, ...); or musan, demand, noisex92, esc50, dns",
    )
    noise.add_argument("--effects", default="", metavar="LIST", help="room, microphone and line, as in reverb@0.5")
    noise.add_argument("--voices", metavar="SPLIT", help="split that babble is made of; default: the one evaluated")
    noise.add_argument(
        "--part", choices=("train", "valid", "test"), default="test", help="of a collection; default test"
    )
    noise.add_argument(
        "--training-noise",
        action="append",
        default=[],
        metavar="FOLDER",
        help="noise that the model was trained with; a recording in both is an error",
    )
    noise.add_argument("--plan", metavar="FILE", help="a noise plan that is there already, in place of all these")
    work = parser.add_argument_group("work")
    work.add_argument("--workers", type=positive_integer, metavar="N", help="processes; default: one a core")
    work.add_argument("--batch-size", type=positive_integer, default=8, metavar="N", help="utterances; default 8")
    work.add_argument(
        "--shard", metavar="I/N", help="do only the I-th of N parts; the last one done writes the results"
    )
    report = parser.add_argument_group("report")
    report.add_argument(
        "--beside", action="append", default=[], type=Path, metavar="DIR", help="another evaluation, for the same table"
    )
    report.add_argument("--no-media", action="store_true", help="a report without anybody's voice and lips in it")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate; 0 when all of it, or all of the shard, is done."""
    from avsr.evaluation.report import check_report_packages, write_report
    from avsr.evaluation.results import read_results
    from avsr.evaluation.runner import evaluate

    check_report_packages()  # now, and not after half an hour
    shard = _shard(arguments.shard)
    output = arguments.output or Path("evaluation", f"{_system_name(arguments)}-{arguments.split}")
    beside = [read_results(folder) for folder in arguments.beside]
    with Console(quiet=arguments.quiet) as console:
        evaluation = _evaluation(arguments, console)
        outcome = evaluate(
            evaluation,
            output,
            workers=arguments.workers,
            shard=shard,
            command=shlex.join(["avsr", *sys.argv[1:]]),
            on_progress=console.progress,
        )
        if outcome.results is None:
            console.note(
                f"part {shard[0]} of {shard[1]} is done; {output} lacks {outcome.missing} units of other parts: the"
                " same command without --shard does them, or puts together what others have done"
            )
            console.result(f"{output}\n")
            return 0
        media = None if arguments.no_media else evaluation
        table = write_report(output, outcome.results, beside=beside, media=media)
        console.note(f"wrote {output / 'report.html'}, results.json, results.csv, report.md and figures")
        console.result(table)
    return 0


def _evaluation(arguments: argparse.Namespace, console: Console) -> Evaluation:
    from avsr.evaluation.conditions import DEFAULT_PICTURES, DEFAULT_SEEDS, make_grid
    from avsr.evaluation.job import Evaluation
    from avsr.evaluation.opened import ModelSource
    from avsr.evaluation.sounds import NoiseSource, default_sounds

    system = ModelSource(_target(arguments), arguments.device, arguments.chunk_ms)
    source = NoiseSource(
        protocol=arguments.protocol,
        folders=tuple(arguments.noise),
        effects=arguments.effects,
        part=arguments.part,
        voices=arguments.voices,
        training=tuple(arguments.training_noise),
        plan=arguments.plan,
    )
    defaults = default_sounds(source)
    if arguments.noises is None and defaults.left_out:
        console.note(f"without {', '.join(defaults.left_out)} noise, for which no --noise KIND=FOLDER is given")
    grid = make_grid(
        _modalities(arguments.modalities) or system.open().card.modalities,
        defaults.noises if arguments.noises is None else [name for name in arguments.noises if name != "none"],
        defaults.snrs_db if arguments.snr is None else arguments.snr,
        DEFAULT_PICTURES if arguments.video is None else arguments.video,
        arguments.seed or defaults.seeds or DEFAULT_SEEDS,
        clean_is_random=defaults.clean_is_random,
    )
    return Evaluation(
        manifest=arguments.manifest,
        split=arguments.split,
        system=system,
        grid=grid,
        noise=source,
        clips=arguments.clips,
        batch_size=arguments.batch_size,
        normalize=arguments.normalize,
    )


def _target(arguments: argparse.Namespace) -> str:
    """The model as `avsr.load` takes it."""
    if arguments.recognizer is not None:
        return f"function:{arguments.recognizer}"
    if arguments.command is not None:
        return f"command:{arguments.command}"
    return arguments.model


def _modalities(chosen: Sequence[str] | None) -> list[Modality]:
    from avsr.evaluation.conditions import MODALITIES

    for name in chosen or ():
        if name not in MODALITIES:
            raise UsageError(f"--modalities: got {name!r}, expected some of {', '.join(MODALITIES)}")
    return [modality for modality in MODALITIES if modality in (chosen or ())]


def _shard(text: str | None) -> tuple[int, int]:
    if text is None:
        return 1, 1
    index, slash, count = text.partition("/")
    if slash and index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count):
        return int(index), int(count)
    raise UsageError(f"--shard: got {text!r}, expected I/N with I from 1 to N, as in 2/4")


def _system_name(arguments: argparse.Namespace) -> str:
    name = arguments.recognizer or (shlex.split(arguments.command) if arguments.command else [""])[0] or arguments.model
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(name).name)
