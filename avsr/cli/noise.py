"""avsr noise: repeatable mixtures of speech and noise."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from avsr.cli.arguments import add_quiet, decibels, named_folder, whole_numbers, words
from avsr.cli.console import Console, UsageError

SUMMARY = "speech in noise that anyone can make again: plan it, render it"
DESCRIPTION = (
    "plan MANIFEST OUT   write down which noise, where and how loud each utterance of a prepared\n"
    "                    corpus gets, as JSON lines with the hash of every mixture\n"
    "render PLAN OUT     make the mixtures: a folder and a manifest for each condition\n"
    "\n"
    "The same plan gives the same bytes on every machine, or an error. Protocols: avsr (ours),\n"
    "avhubert (needs --noise musan=FOLDER), auto-avsr and fixed-babble (need --noise\n"
    "babble=FOLDER with one recording), torchaudio (clean only). Prints what was written."
)
EXAMPLE = (
    "avsr noise plan work/grid/manifest.jsonl plan.jsonl --split test_seen "
    "--noise environment=work/corpora/noise/noise_test"
)

_PLAN_ONLY = {"--split", "--protocol", "--noise", "--noises", "--snr", "--seed", "--effects", "--voices", "--part"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr noise`."""
    add = parser.add_argument
    add("action", metavar="plan|render", choices=("plan", "render"), help="what to do")
    add("src", metavar="MANIFEST|PLAN", help="manifest of a prepared corpus, or plan")
    add("out", metavar="OUT", help="file for the plan, or folder for the mixtures")
    add("--split", metavar="NAME", help="plan: utterances of this split")
    add("--protocol", metavar="NAME", help="plan: avsr (default), avhubert, auto-avsr, torchaudio, fixed-babble")
    add(
        "--noise",
        metavar="KIND=FOLDER",
        action="append",
        type=named_folder,
        help="plan: recordings of a kind (environment, music, rir, ...); or musan, demand, noisex92, esc50, dns",
    )
    add("--noises", metavar="LIST", type=words, help="plan: kinds of noise, if not those of the protocol")
    add("--snr", metavar="LIST", type=decibels, help="plan: dB or clean, as in clean,10,0,-5; default: the protocol's")
    add("--seed", metavar="LIST", type=whole_numbers, help="plan: of the draws; several make several sets; default: 1")
    add(
        "--effects",
        metavar="LIST",
        help="plan: room, microphone and line, as in reverb@0.5,lowpass=3400,loss=0.02..0.1",
    )
    add("--voices", metavar="SPLIT", help="plan: split that babble and talkers come from; default: that of --split")
    add("--part", choices=("train", "valid", "test"), help="plan: which part of a collection; default: test")
    add(
        "--training-noise",
        metavar="FOLDER",
        action="append",
        default=[],
        help="plan: noise that the model was trained with; a recording in both is an error",
    )
    add(
        "--workers",
        type=_count,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes besides this one; default: cores",
    )
    add("--overwrite", action="store_true", help="plan: replace OUT if it is there")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Plan or render; 0 when each utterance is in it, 1 when some could not be."""
    with Console(quiet=arguments.quiet) as console:
        return _plan(arguments, console) if arguments.action == "plan" else _render(arguments, console)


def _plan(arguments: argparse.Namespace, console: Console) -> int:
    from avsr.noise.library import noise_hashes, open_library, require_disjoint
    from avsr.noise.plan import write_plan
    from avsr.noise.planning import plan_noise

    if arguments.split is None:
        raise UsageError("noise plan needs --split, as in --split test (avsr noise --help explains)")
    folders: dict[str, str] = {}
    for kind, folder in arguments.noise or ():
        if kind in folders:
            raise UsageError(f"--noise {kind}= is given twice; put both under one folder, or name them differently")
        folders[kind] = folder
    out = Path(arguments.out)
    if out.exists() and not arguments.overwrite:
        raise UsageError(f"{out} is there already; --overwrite replaces it")
    out.parent.mkdir(parents=True, exist_ok=True)  # now, and not after all the work
    plan = plan_noise(
        arguments.src,
        arguments.split,
        protocol=arguments.protocol or "avsr",
        folders=folders,
        part=arguments.part or "test",
        voices=arguments.voices,
        noises=arguments.noises,
        snrs_db=arguments.snr,
        effects=arguments.effects or "",
        seeds=arguments.seed or (1,),
        workers=arguments.workers,
        on_progress=lambda done, total: console.progress(done / total, f"{done}/{total} utterances"),
    )
    library = open_library(plan)
    planned = {sha256: library.path(name) for sha256, name in plan.noises.items()}
    for folder in arguments.training_noise:
        require_disjoint(noise_hashes(Path(folder)), planned)
    write_plan(out, plan)
    for utterance, reason in plan.unusable.items():
        console.error(f"{utterance}: left out: {reason}")
    turned_down = sum(line.scale_db < 0 for line in plan.lines)
    console.note(f"{len(plan.lines)} mixtures, {turned_down} of them turned down to fit 16 bits")
    console.result(f"{out}\n")
    return 1 if plan.unusable else 0


def _render(arguments: argparse.Namespace, console: Console) -> int:
    from avsr.noise.plan import read_plan
    from avsr.noise.render import render_plan

    for option in sorted(_PLAN_ONLY):
        if getattr(arguments, option[2:]) is not None:
            raise UsageError(f"{option} is for noise plan; a plan is rendered as it is")
    manifests = render_plan(
        read_plan(arguments.src),
        arguments.out,
        workers=arguments.workers,
        on_progress=lambda done, total: console.progress(done / total, f"{done}/{total} mixtures"),
    )
    for manifest in manifests:
        console.result(f"{manifest}\n")
    return 0


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 0 on")
    return int(text)
