"""The recipe that keeps the utterances whose words a model knows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from avsr.datasets.manifest import Utterance, load_samples, read_manifest, write_manifest, write_wav
from avsr.media import read_audio

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "avsr" / "assets" / "demo.mp4"
VOCABULARY = ROOT / "data" / "grid" / "vocabulary.txt"
sys.path.insert(0, str(ROOT / "recipes"))

import select_known_words  # noqa: E402
import word_times  # noqa: E402

TEXT = "place blue by r nine again"


def make_corpus(folder: Path, *rows: tuple[str, str, str]) -> Path:
    """A prepared corpus of (id, split, text), each with the sound of the demo clip; "short" has 0.2 s of it."""
    samples = read_audio(DEMO)
    utterances = []
    for id, split, text in rows:
        pcm = np.round(samples * 32767).astype(np.int16)[: 3200 if id == "short" else None]
        write_wav(folder / f"audio/{id}.wav", pcm)
        audio = None if id == "silent" else f"audio/{id}.wav"
        utterances.append(
            Utterance(
                id=id, speaker="a", split=split, text=text, audio=audio, video=None, duration=len(pcm) / 16_000,
                fps=0.0, coverage=0.0, sha256="0",
            )
        )  # fmt: skip
    write_manifest(folder / "manifest.jsonl", utterances)
    return folder / "manifest.jsonl"


def select(manifest: Path, out: Path, *options: str) -> int:
    return select_known_words.main([str(manifest), str(out), "--vocabulary", str(VOCABULARY), *options])


def test_known_utterances_are_kept_with_their_sound_and_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    manifest = make_corpus(
        tmp_path / "corpus",
        *[("one", "train", TEXT.upper()), ("two", "dev", TEXT), ("other", "dev", "place blue by r nine tomorrow")],
        *[("short", "train", TEXT), ("silent", "train", TEXT), ("empty", "train", "")],
    )
    assert select(manifest, tmp_path / "deep" / "known") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'deep' / 'known' / 'manifest.jsonl'}\n"
    assert captured.err.splitlines() == [
        "avsr: short: left out: too short for its words: got alignment: got 3 frames, expected at least 6",
        "avsr: dev: 1 of 2 kept; left out: 1 with unknown words",
        "avsr: train: 1 of 4 kept; left out: 1 not alignable, 1 without sound, 1 without text",
    ]
    kept = read_manifest(tmp_path / "deep" / "known" / "manifest.jsonl")
    assert [(utterance.id, utterance.split, utterance.text) for utterance in kept] == [
        ("one", "train", TEXT),
        ("two", "dev", TEXT),
    ]
    before = load_samples(read_manifest(manifest)[0], manifest.parent)
    assert np.array_equal(load_samples(kept[0], tmp_path / "deep" / "known"), before)
    assert [word for word, _, _ in kept[0].words] == TEXT.split()
    times = [time for _, start, end in kept[0].words for time in (start, end)]
    # The speech of the demo clip begins at 0.8 s and ends at 2.9 s.
    assert times == sorted(times) and 0.7 < times[0] < 1.1 and 2.4 < times[-1] < 3.1


def test_times_move_with_the_sound():
    aligner = word_times.Aligner("grid-tiny")
    samples = read_audio(DEMO)
    first = aligner.word_times(samples, TEXT.split())
    later = aligner.word_times(np.pad(samples, (4800, 0)), TEXT.split())
    moves = [b - a for (_, *old), (_, *new) in zip(first, later, strict=True) for a, b in zip(old, new, strict=True)]
    assert moves == pytest.approx([0.3] * 12, abs=0.05)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("good morning", (), "no utterance is left: got train: 0 of 1 kept; left out: 1 with unknown words"),
        (TEXT, ("--aligner", "nothing-of-the-kind"), "nothing-of-the-kind"),
        (TEXT, ("--vocabulary", "missing.txt"), "missing.txt"),
        (TEXT, ("--vocabulary", "{folder}/foreign.txt"), "word 'tomorrow' is not in the vocabulary of 51 words"),
    ],
)
def test_bad_input_is_one_line(
    text: str, options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    manifest = make_corpus(tmp_path, ("one", "train", text))
    (tmp_path / "foreign.txt").write_text("blue\ntomorrow\n")
    assert select(manifest, tmp_path / "out", *(option.format(folder=tmp_path) for option in options)) == 1
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_corpus_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    manifest = make_corpus(tmp_path, ("one", "train", TEXT), ("other", "train", "good morning"))
    before = manifest.read_bytes()
    assert select(manifest, tmp_path) == 1
    assert "another folder" in capsys.readouterr().err
    assert manifest.read_bytes() == before and len([json.loads(line) for line in before.splitlines()]) == 2
