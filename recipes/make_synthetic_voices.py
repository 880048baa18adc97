#!/usr/bin/env python3
"""Make a corpus of synthetic voices that speak random GRID sentences, to teach an audio encoder more than one talker.

    python recipes/make_synthetic_voices.py work/voices --count 3000 --seed 1 --exclude work/grid/manifest.jsonl

Writes OUT/audio/<id>.wav (16 kHz, mono, 16 bit, 3.0 s) and OUT/manifest.jsonl, the manifest of `avsr.datasets` plus the
times of the words. An utterance depends on the seed and on its index only. Needs the eSpeak NG library, see espeak.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import espeak
import numpy as np
from grid_sentences import DEMO_SENTENCE, SAMPLE_RATE, draw_sentence, read_excluded, record, resample, write_utterance

from avsr.cli.arguments import positive_integer
from avsr.cli.console import Console
from avsr.errors import AvsrError, DataError
from avsr.files import file_error, only_writer, write_bytes

DURATION_S = 3.0
_MARGIN_S = 0.04  # silence that is always left at the end

# "a" would be read as the article; the z of GRID is the British one for every accent.
_SPELLING = {"a": "eigh", "z": "zed"}
_ACCENTS = (
    *("en", "en", "en", "en-GB-x-rp", "en-GB-x-rp", "en-GB-scotland", "en-GB-x-gbclan", "en-GB-x-gbcwmd"),
    *("en-US", "en-US", "en-US-nyc", "en-029"),
)
# Left out: whispers, robots, croaking and joke voices.
_VARIANTS = (
    *("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"),
    *("klatt", "klatt2", "klatt3", "klatt4", "klatt5", "klatt6"),
    *("Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Lee", "Marco"),
    *("Mario", "Michael", "Mike", "Nguyen", "Storm", "Tweaky", "adam", "anika", "announcer", "antonio", "aunty"),
    *("belinda", "benjamin", "boris", "caleb", "david", "ed", "edward", "grandma", "grandpa", "gustave", "iven"),
    *("john", "kaukovalta", "linda", "marcelo", "max", "michel", "miguel", "norbert", "pablo", "paul", "pedro"),
    *("quincy", "rob", "robert", "sandro", "steph", "travis", "victor", "zac"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Utterance:
    """One synthetic recording. samples: int16 [S] at 16 kHz; words: (word, start_s, end_s)."""

    id: str
    voice: str
    words: tuple[tuple[str, float, float], ...]
    samples: np.ndarray

    @property
    def text(self) -> str:
        return " ".join(word for word, _, _ in self.words)


def make_utterance(index: int, seed: int, excluded: Collection[str] = frozenset()) -> Utterance:
    """Utterance `index` of the corpus with this seed. `excluded`: sentences never to be said, besides the demo's."""
    key = hashlib.sha256(f"{seed}/{index}/voice".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
    words = draw_sentence(rng, {DEMO_SENTENCE, *excluded})
    voice = f"{rng.choice(_ACCENTS)}+{rng.choice(_VARIANTS)}"
    say: Callable[..., espeak.Speech] = functools.partial(
        espeak.speak,
        [_SPELLING.get(word, word) for word in words],
        voice=voice,
        pitch=int(rng.integers(25, 76)),
        pitch_range=int(rng.integers(15, 86)),
        word_gap_ms=int(rng.integers(1, 7)) * 10 if rng.random() < 0.3 else 0,
        word_rates=list(np.exp(rng.normal(0, 0.15, len(words)).clip(-0.35, 0.35))),
        noise_seed=int(rng.integers(2**31)),
    )
    # Played faster by this factor, formants and pitch move together: a shorter or longer vocal tract.
    speed = float(np.exp(rng.uniform(-0.12, 0.12)))
    length_s = rng.uniform(1.2, 2.3)  # first to last word, the range of the GRID talkers
    rate_wpm = 175.0
    for _ in range(3):  # eSpeak's rate is not quite linear
        speech = say(rate_wpm=int(np.clip(rate_wpm, 80, 450)))
        rate_wpm *= (speech.words[-1].end - speech.words[0].start) / speed / length_s

    samples = _colour(resample(speech.samples, speech.sample_rate * speed, SAMPLE_RATE), rng)
    times = [(span.start / speed, span.end / speed) for span in speech.words]
    latest_s = DURATION_S - _MARGIN_S - times[-1][1]
    lead_s = min(rng.uniform(0.2, 0.8), latest_s)
    if lead_s < 0:
        raise DataError("a synthetic sentence does not fit", got=f"{times[-1][1]:.2f} s", expected=f"{DURATION_S} s")
    return Utterance(
        id=f"voice-{seed}-{index:06d}",
        voice=voice,
        words=tuple(
            (word, round(lead_s + start, 3), round(lead_s + end, 3))
            for word, (start, end) in zip(words, times, strict=True)
        ),
        samples=record(samples, lead_s, DURATION_S, rng),
    )


def _colour(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`samples` through a random smooth equaliser: a tilt of a few dB per octave and broad bumps."""
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE), 60) / 1000)
    gain_db = rng.uniform(-5.5, 1.0) * octaves  # eSpeak is some 8 dB brighter than people in front of a microphone
    for cycles_per_octave in (0.25, 0.5, 1.0):
        gain_db += rng.uniform(0, 2.5) * np.cos(2 * np.pi * (cycles_per_octave * octaves + rng.random()))
    return np.fft.irfft(np.fft.rfft(samples) * 10 ** (gain_db / 20), len(samples))


def _make_file(index: int, seed: int, excluded: Collection[str], folder: Path) -> dict[str, object]:
    utterance = make_utterance(index, seed, excluded)
    return write_utterance(
        folder,
        utterance.id,
        voice=utterance.voice,
        split="train",
        words=utterance.words,
        samples=utterance.samples,
    )


def make_corpus(
    folder: Path,
    count: int,
    seed: int,
    excluded: Collection[str] = frozenset(),
    workers: int = 1,
    on_progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write `count` utterances and their manifest to `folder`. Raises AvsrError when eSpeak NG is missing.

    on_progress: called with the number of utterances that are done.
    """
    # eSpeak remembers something of the sentence before: only a process a sentence makes each depend on nothing else.
    # Forking is cheap, and clean as long as this process has not used the library.
    with multiprocessing.get_context("fork").Pool(workers, maxtasksperchild=1) as pool:
        make = functools.partial(_make_file, seed=seed, excluded=frozenset(excluded), folder=folder)
        lines = []
        for entry in pool.imap(make, range(count), chunksize=1):
            lines.append(json.dumps(entry) + "\n")
            on_progress(len(lines))
    write_bytes(folder / "manifest.jsonl", "".join(lines).encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument(
        "--count", type=positive_integer, default=3000, help="number of utterances (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed (default %(default)s)")
    parser.add_argument(
        "--exclude",
        type=Path,
        metavar="FILE",
        help="sentences never to be said: one a line, or a manifest.jsonl, whose dev and test splits are meant",
    )
    parser.add_argument(
        "--workers", type=positive_integer, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    args = parser.parse_args()
    try:
        excluded = read_excluded(args.exclude) if args.exclude else set()
        args.out.mkdir(parents=True, exist_ok=True)
        with Console() as console, only_writer(args.out):

            def show(done: int) -> None:
                console.progress(done / args.count, f"{done}/{args.count} utterances")

            make_corpus(args.out, args.count, args.seed, excluded, args.workers, show)
    except (AvsrError, OSError) as error:
        print(f"{parser.prog}: {file_error(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 1
    print(args.out / "manifest.jsonl")
    return 0


if __name__ == "__main__":
    sys.exit(main())
