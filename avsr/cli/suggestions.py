"""What somebody may have meant by an option, command or value that does not exist.

A name is suggested if it means the same, if one of the two names begins with the other, or if it is spelled almost the
same. No suggestion is better than a wrong one: `--language` must not lead to `--face`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

Meanings = Mapping[str, str]
"""Words that people use for a thing, to the names that it has here, the best first; both separated by blanks."""

OPTIONS: Meanings = {
    "o out outdir out-dir output outputs output-dir output-folder dest destination directory folder save": (
        "output-dir output sheet plot"
    ),
    "l lang language languages locale": "language",
    "f fmt format formats type subtitles srt vtt": "format json",
    "m model models checkpoint weights network": "model",
    "gpu cuda cpu device devices": "device",
    "j jobs threads workers processes procs cores parallel": "workers threads",
    "fp16 bf16 half dtype compute-type": "precision",
    "force yes replace clobber": "overwrite",
    "silent no-progress": "quiet",
    "v verbose traceback log-level": "debug",
    "lips audio-only video-only modality modalities": "modality modalities",
    "speaker": "face",
    "r subfolders": "recursive",
    "live real-time": "realtime",
    "microphone": "mic",
    "webcam": "camera",
    "listen bind address": "host",
    "password secret": "token",
    "browser": "open",
    "noise noises noise-type noise-types kind kinds": "noise-kinds",
    "noise-dir noise-path musan": "noise-folder",
    "random-seed seeds": "seed",
    "subset limit utterances": "clips",
    "asr system": "recognizer",
}

COMMANDS: Meanings = {
    "recognize recognise asr stt caption captions subtitle subtitles run file": "transcribe",
    "live listen mic microphone": "stream",
    "check diagnose inspect info probe": "doctor",
    "server web page gui ui": "serve",
    "dataset data preprocess corpus": "prepare",
    "fit finetune fine-tune": "train",
    "mix augment": "noise",
    "test score wer": "evaluate",
    "diff": "compare",
    "speed latency profile time": "bench",
    "convert nemo": "import",
    "model list ls": "models",
}

ACTIONS: Meanings = {
    "make create": "plan render",
    "mix write": "render",
    "delay live": "latency",
    "throughput time files": "speed",
    "ls all": "list",
    "info describe cat": "show",
    "download install fetch get add": "pull",
    "delete uninstall rm": "remove",
    "lrs2 lrs3 lrs dir directory": "folder",
}

FORMATS: Meanings = {
    "text plain": "txt",
    "subrip": "srt",
    "webvtt": "vtt",
    "jsonl": "json",
}

MIN_SIMILARITY = 0.7  # of letters; "versoin" and "version" have 0.86, "language" and "face" have 0.33


def suggest(name: str, known: Iterable[str], meanings: Meanings) -> str | None:
    """The known name that `name` most likely stands for, or None if nothing fits.

    name: as it was typed, with its dashes if it is an option.
    known: the names that exist here.
    meanings: the words that people use for such names.
    """
    by_letters = {_letters(candidate): candidate for candidate in known}
    wanted = _letters(name)
    for synonyms, names in meanings.items():
        if wanted in synonyms.split():
            # The meaning is certain: if this command has no such thing, a name that only looks similar would mislead.
            return next((by_letters[candidate] for candidate in names.split() if candidate in by_letters), None)
    longer = [candidate for candidate in by_letters if candidate.startswith(wanted)]
    # A name of one or two letters begins too many other words to tell anything.
    shorter = [candidate for candidate in by_letters if len(candidate) > 2 and wanted.startswith(candidate)]
    if len(wanted) == 1:  # a single letter is too little to choose between several names
        return by_letters[longer[0]] if len(longer) == 1 else None
    nearest = (
        difflib.get_close_matches(wanted, longer or shorter, n=1, cutoff=0.0)
        or difflib.get_close_matches(wanted, by_letters, n=1, cutoff=MIN_SIMILARITY)
    )  # fmt: skip
    return by_letters[nearest[0]] if wanted and nearest else None


def _letters(name: str) -> str:
    """A name without what people vary: leading dashes, letter case, and _ for -."""
    return name.lstrip("-").lower().replace("_", "-")
