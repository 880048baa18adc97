"""avsr noise: repeatable mixtures of speech and noise."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from avsr.cli.arguments import (
    DEFAULT_SEEDS,
    add_old_name,
    add_old_place,
    add_output_dir,
    add_output_file,
    add_quiet,
    add_seeds,
    decibels,
    named_folder,
    non_negative_integer,
    words,
)
from avsr.cli.command import Action
from avsr.cli.console import Console, UsageError

DESCRIPTION = (
    "Mix speech with noise in a way that anyone can repeat: the same plan gives the same bytes on every\n"
    "machine, or an error."
)
EXAMPLE = "avsr noise render plan.jsonl --output-dir work/noisy"

PLAN_DESCRIPTION = (
    "Write down which noise each utterance of a prepared corpus gets, where the noise begins and how loud\n"
    "it is, as JSON lines with the hash of every mixture. Prints the path of the plan.\n"
    "\n"
    "Protocols: avsr (ours), avhubert (needs --noise-folder musan=FOLDER), auto-avsr and fixed-babble\n"
    "(need --noise-folder babble=FOLDER with one recording), torchaudio (clean only)."
)
PLAN_EXAMPLE = (
    "avsr noise plan work/grid/manifest.jsonl --split test_seen "
    "--noise-folder environment=work/corpora/noise/noise_test --output plan.jsonl"
)
RENDER_DESCRIPTION = (
    "Make the mixtures of a plan: one folder with sound and a manifest for each condition. Prints the\n"
    "paths of the manifests."
)


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr noise plan`."""
    add = parser.add_argument
    add("manifest", metavar="MANIFEST", help="manifest of a prepared corpus")
    output = add_output_file(parser, "file for the plan", metavar="PLAN")
    add_old_place(parser, output)
    add("--split", required=True, metavar="NAME", help="which utterances, as in --split test")
    add(
        "--protocol",
        default="avsr",
        metavar="NAME",
        help="avsr (default), avhubert, auto-avsr, torchaudio, fixed-babble",
    )
    add_noise(parser)
    add("--snr", metavar="LIST", type=decibels, help="dB or clean, as in clean,10,0; default: the protocol's")
    add_seeds(parser)
    add("--voices", metavar="SPLIT", help="split whose voices make babble and talkers; default: the one of --split")
    add("--overwrite", action="store_true", help="replace PLAN if it exists")
    _add_workers(parser)
    add_quiet(parser)


def add_noise(options: argparse._ActionsContainer) -> None:
    """Declare the options about noise that `avsr noise plan` and `avsr evaluate` share."""
    kinds = options.add_argument(
        "--noise-kinds", metavar="LIST", type=words, help="kinds of noise, or none; default: the protocol's"
    )
    add_old_name(options, "--noises", kinds)
    folders = options.add_argument(
        "--noise-folder",
        metavar="KIND=FOLDER",
        action="append",
        default=[],
        type=named_folder,
        help="recordings of one kind (environment, music, rir, ...), or of musan, demand, noisex92, esc50, dns",
    )
    add_old_name(options, "--noise", folders)
    options.add_argument(
        "--effects",
        default="",
        metavar="LIST",
        help="room, microphone and line, as in reverb@0.5,lowpass=3400,loss=0.02..0.1",
    )
    options.add_argument(
        "--part",
        choices=("train", "valid", "test"),
        default="test",
        help="which part of a noise collection to draw from; default test",
    )
    options.add_argument(
        "--training-noise",
        metavar="FOLDER",
        action="append",
        default=[],
        help="noise that the model was trained with; the same recording in both is an error",
    )


def add_render_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr noise render`."""
    parser.add_argument("plan", metavar="PLAN", help="plan that avsr noise plan wrote")
    output = add_output_dir(parser, "folder for the mixtures", required=True)
    add_old_place(parser, output)
    _add_workers(parser)
    add_quiet(parser)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=non_negative_integer,
        default=os.cpu_count() or 1,
        metavar="N",
        help="additional processes; 0 does all work in this one; default: number of cores",
    )


def plan(arguments: argparse.Namespace) -> int:
    """Write the plan; 0 if every utterance is in it, 1 if some could not be used."""
    from avsr.noise.library import noise_hashes, open_library, require_disjoint
    from avsr.noise.plan import write_plan
    from avsr.noise.planning import plan_noise

    folders: dict[str, str] = {}
    for kind, folder in arguments.noise_folder:
        if kind in folders:
            raise UsageError(
                f"--noise-folder {kind}= is given twice; put both under one folder, or name them differently"
            )
        folders[kind] = folder
    kinds = arguments.noise_kinds
    out: Path = arguments.output
    if out.exists() and not arguments.overwrite:
        raise UsageError(f"{out} is there already; --overwrite replaces it")
    out.parent.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made fails now, before all the work
    with Console(quiet=arguments.quiet) as console:
        noise_plan = plan_noise(
            arguments.manifest,
            arguments.split,
            protocol=arguments.protocol,
            folders=folders,
            part=arguments.part,
            voices=arguments.voices,
            noises=None if kinds is None else [kind for kind in kinds if kind != "none"],
            snrs_db=arguments.snr,
            effects=arguments.effects,
            seeds=arguments.seed or DEFAULT_SEEDS,
            workers=arguments.workers,
            on_progress=lambda done, total: console.progress(done / total, f"{done}/{total} utterances"),
        )
        # Checked before the plan is written: no plan may mix in noise that the model was trained with.
        library = open_library(noise_plan)
        planned = {sha256: library.path(name) for sha256, name in noise_plan.noises.items()}
        for folder in arguments.training_noise:
            require_disjoint(noise_hashes(Path(folder)), planned)
        write_plan(out, noise_plan)
        for utterance, reason in noise_plan.unusable.items():
            console.error(f"{utterance}: left out: {reason}")
        turned_down = sum(line.scale_db < 0 for line in noise_plan.lines)
        console.note(f"{len(noise_plan.lines)} mixtures, {turned_down} of them turned down to fit 16 bits")
        console.result(f"{out}\n")
    return 1 if noise_plan.unusable else 0


def render(arguments: argparse.Namespace) -> int:
    """Make the mixtures and print the manifest of each condition."""
    from avsr.noise.plan import read_plan
    from avsr.noise.render import render_plan

    with Console(quiet=arguments.quiet) as console:
        manifests = render_plan(
            read_plan(arguments.plan),
            arguments.output_dir,
            workers=arguments.workers,
            on_progress=lambda done, total: console.progress(done / total, f"{done}/{total} mixtures"),
        )
        for manifest in manifests:
            console.result(f"{manifest}\n")
    return 0


ACTIONS = {
    "plan": Action(
        "write down which noise, where and how loud each utterance gets",
        PLAN_DESCRIPTION,
        PLAN_EXAMPLE,
        add_plan_arguments,
        plan,
    ),
    "render": Action("make the mixtures of a plan", RENDER_DESCRIPTION, EXAMPLE, add_render_arguments, render),
}
