"""avsr evaluate: error rates of a recogniser in noise and with damaged pictures."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avsr.cli.arguments import (
    DEFAULT_SEEDS,
    add_device,
    add_language,
    add_model,
    add_old_name,
    add_output_dir,
    add_quiet,
    add_search,
    add_seeds,
    decibels,
    model_name,
    positive_integer,
    search_of,
    words,
)
from avsr.cli.console import Console, UsageError
from avsr.cli.noise import add_noise
from avsr.errors import ConfigError
from avsr.evaluation.normalizers import DEFAULT, NORMALIZERS, find_normalizer, label_of

if TYPE_CHECKING:
    from avsr.evaluation.job import Evaluation
    from avsr.grid import Modality

DESCRIPTION = (
    "Measure word and character error rates on the prepared data set MANIFEST: by sound (a), lips (v) and\n"
    "both (av), in noise of several kinds and levels, with lips that are lost, blurred, covered, late or\n"
    "frozen. Writes results.json, results.csv, report.html, report.md and figures into the output folder and\n"
    "prints the table. The same command continues an interrupted evaluation."
)
EXAMPLE = (
    "avsr evaluate work/grid/manifest.jsonl --split dev --noise-kinds white,pink --snr clean,0 --output-dir runs/dev"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr evaluate`."""
    add = parser.add_argument
    add("manifest", metavar="MANIFEST", help="manifest.jsonl of a prepared data set")
    output = add_output_dir(parser, "folder for the results; default: evaluation/MODEL-SPLIT")
    add_old_name(parser, "--output", output)
    add("--split", default="dev", metavar="NAME", help="which utterances; default %(default)s")
    add("--clips", type=positive_integer, metavar="N", help="only N of them, evenly spread")
    _add_recogniser(parser.add_argument_group("recogniser"))
    _add_conditions(parser.add_argument_group("conditions, each a list joined by commas"))
    noise = parser.add_argument_group("noise, as for avsr noise plan")
    noise.add_argument("--protocol", default="avsr", metavar="NAME", help="way of testing in noise; default avsr")
    add_noise(noise)
    noise.add_argument("--voices", metavar="SPLIT", help="split whose voices make babble; default: the one of --split")
    noise.add_argument(
        "--plan",
        metavar="PLAN",
        help="take the mixtures from this plan of avsr noise plan; --noise-kinds, --snr and --seed choose some of them",
    )
    work = parser.add_argument_group("work")
    work.add_argument("--workers", type=positive_integer, metavar="N", help="processes; default: number of cores")
    work.add_argument(
        "--batch-size", type=positive_integer, default=8, metavar="N", help="utterances at a time; default 8"
    )
    work.add_argument(
        "--shard", metavar="I/N", help="do only the I-th of N parts; the part that ends last writes the results"
    )
    report = parser.add_argument_group("scores and report")
    report.add_argument(
        "--normalize",
        nargs="?",
        const="plain",
        default=DEFAULT,
        type=_normalizer,
        metavar="NAME",
        help=f"make texts alike before errors are counted: {_described()}; default %(default)s, without NAME %(const)s",
    )
    report.add_argument(
        "--beside",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="folder of another evaluation that is shown in the same table; repeatable",
    )
    report.add_argument("--no-media", action="store_true", help="leave recordings and pictures of people out")
    add_quiet(parser)


def _described() -> str:
    return ", ".join(f"{name} ({normalizer.what})" for name, normalizer in NORMALIZERS.items())


def _normalizer(text: str) -> str:
    """Type of --normalize."""
    try:
        find_normalizer(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _add_recogniser(options: argparse._ArgumentGroup) -> None:
    one_of = options.add_mutually_exclusive_group()
    add_model(one_of)
    one_of.add_argument(
        "--recognizer",
        metavar="MODULE:FUNCTION",
        help="Python function, or FILE.py:FUNCTION, that takes samples and returns text",
    )
    one_of.add_argument("--command", metavar="WORDS", help="program that prints the text of the file {wav}")
    add_device(options)
    options.add_argument(
        "--chunk-ms",
        type=positive_integer,
        metavar="MS",
        help="recognise in chunks of this length, as live; default: whole utterances",
    )
    add_language(options)
    add_search(options)


def _add_conditions(options: argparse._ArgumentGroup) -> None:
    options.add_argument("--modalities", type=words, metavar="LIST", help="a, v, av; default: all that it has")
    options.add_argument(
        "--snr", type=decibels, metavar="LIST", help="dB or clean, as in --snr=-5,0,clean; default: the protocol's"
    )
    options.add_argument(
        "--video",
        type=words,
        metavar="LIST",
        help="what happens to the lips: intact, absent, random-50, ...",
    )
    add_seeds(options)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate; 0 when the whole evaluation, or the whole part of --shard, is done."""
    from avsr.evaluation.compare import require_normalizer
    from avsr.evaluation.report import check_report_packages, write_report
    from avsr.evaluation.results import read_results
    from avsr.evaluation.runner import evaluate

    check_report_packages()  # a missing package fails now, and not after half an hour
    shard = _shard(arguments.shard)
    if arguments.recognizer is None and arguments.command is None:
        arguments.model = model_name(arguments, Console(quiet=arguments.quiet).note)
    output = arguments.output_dir or Path("evaluation", f"{_system_name(arguments)}-{arguments.split}")
    # A folder without results, or with other normalisers, fails now and not after the evaluation.
    beside = [read_results(folder) for folder in arguments.beside]
    with Console(quiet=arguments.quiet) as console:
        evaluation = _evaluation(arguments, console)
        for other in beside:
            require_normalizer(other, label_of(evaluation.normalizer), evaluation.system.open().name)
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
                " same command without --shard does the missing ones and writes the results"
            )
            console.result(f"{output}\n")
            return 0
        media = None if arguments.no_media else evaluation
        table = write_report(output, outcome.results, beside=beside, media=media)
        console.note(f"wrote {output / 'report.html'}, results.json, results.csv, report.md and figures")
        console.result(table)
    return 0


def _evaluation(arguments: argparse.Namespace, console: Console) -> Evaluation:
    from avsr.evaluation.conditions import DEFAULT_PICTURES, make_grid
    from avsr.evaluation.job import Evaluation, chosen_utterances
    from avsr.evaluation.opened import ModelSource
    from avsr.evaluation.sounds import NoiseSource, default_sounds

    system = ModelSource(_target(arguments), arguments.device, arguments.chunk_ms)
    source = NoiseSource(
        protocol=arguments.protocol,
        folders=tuple(arguments.noise_folder),
        effects=arguments.effects,
        part=arguments.part,
        voices=arguments.voices,
        training=tuple(arguments.training_noise),
        plan=arguments.plan,
    )
    defaults = default_sounds(source)
    kinds = arguments.noise_kinds
    grid = make_grid(
        _modalities(arguments.modalities) or system.open().card.modalities,
        defaults.noises if kinds is None else [kind for kind in kinds if kind != "none"],
        defaults.snrs_db if arguments.snr is None else arguments.snr,
        DEFAULT_PICTURES if arguments.video is None else arguments.video,
        arguments.seed or defaults.seeds or DEFAULT_SEEDS,
        clean_is_random=defaults.clean_is_random,
    )
    evaluation = Evaluation(
        manifest=arguments.manifest,
        split=arguments.split,
        system=system,
        grid=grid,
        noise=source,
        clips=arguments.clips,
        batch_size=arguments.batch_size,
        normalizer=arguments.normalize,
        search=search_of(arguments),
    )
    chosen_utterances(evaluation)  # before the note, so that an error stands alone
    if kinds is None and defaults.left_out:
        console.note(
            f"without {', '.join(defaults.left_out)} noise: no --noise-folder KIND=FOLDER has recordings of it"
        )
    return evaluation


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
    # In one order, because a folder refuses the same modalities in another order as another evaluation.
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
    # The name becomes the name of a folder.
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(name).name)
