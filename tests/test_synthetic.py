"""The synthetic voices and the demo clip, and the recipes that make them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from avsr.errors import AvsrError
from tests.corpus import make_corpus

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "avsr" / "assets" / "demo.mp4"
sys.path.insert(0, str(ROOT / "recipes"))

import espeak  # noqa: E402
import grid_sentences  # noqa: E402
import make_demo_clip  # noqa: E402

needs_espeak = pytest.mark.skipif(not espeak.available(), reason="libespeak-ng is not installed")


def make_voices(folder: Path, *options: str) -> list[dict]:
    """Run the script for two utterances and read its manifest."""
    script = ROOT / "recipes" / "make_synthetic_voices.py"
    subprocess.run(
        [sys.executable, str(script), str(folder), "--count", "2", "--seed", "5", *options],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voices")
    make_voices(folder, "--workers", "1")
    return folder


@needs_espeak
def test_words_are_where_the_manifest_says(voices: Path):
    for line in (voices / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        with wave.open(str(voices / entry["audio"])) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
        assert len(samples) == 16_000 * entry["duration"]
        assert grid_sentences.is_sentence(entry["text"])
        assert [word for word, _, _ in entry["words"]] == entry["text"].split()
        times = [time for _, start, end in entry["words"] for time in (start, end)]
        assert times == sorted(times)
        assert 0.2 <= times[0] and times[-1] <= entry["duration"]
        before, after = samples[: int(times[0] * 16_000)], samples[int((times[-1] + 0.02) * 16_000) :]
        quiet = max(np.abs(before).mean(), np.abs(after).mean())
        for _, start, end in entry["words"]:
            assert np.abs(samples[int(start * 16_000) : int(end * 16_000)]).mean() > 3 * quiet
        assert np.any(before)  # the hiss of a room, not digital silence


@needs_espeak
def test_same_seed_gives_the_same_files_whatever_the_workers(voices: Path, tmp_path: Path):
    make_voices(tmp_path, "--workers", "2")
    assert (tmp_path / "manifest.jsonl").read_bytes() == (voices / "manifest.jsonl").read_bytes()  # holds the checksums


@needs_espeak
def test_excluded_sentences_are_not_said(voices: Path, tmp_path: Path):
    said = [json.loads(line)["text"] for line in (voices / "manifest.jsonl").read_text().splitlines()]
    (tmp_path / "held_out.txt").write_text(said[0] + "\n")
    texts = [entry["text"] for entry in make_voices(tmp_path, "--exclude", str(tmp_path / "held_out.txt"))]
    assert said[0] not in texts
    assert texts[1] == said[1]  # an exclusion leaves the other utterances alone


def test_held_out_splits_of_a_manifest_are_excluded(tmp_path: Path):
    manifest = make_corpus(tmp_path)
    texts = {row["split"]: row["text"] for row in map(json.loads, manifest.read_text().splitlines())}
    excluded = grid_sentences.read_excluded(manifest)
    assert texts["dev"] in excluded and texts["train"] not in excluded


def test_draws_again_until_the_sentence_is_allowed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grid_sentences, "GRAMMAR", (("set",), ("red", "blue")))
    drawn = {" ".join(grid_sentences.draw_sentence(np.random.default_rng(seed), {"set red"})) for seed in range(20)}
    assert drawn == {"set blue"}


@needs_espeak
def test_letters_are_said_as_letters():
    for letter, sounds in (("eigh", ["eI"]), ("zed", ["z", "E", "d"]), ("h", ["eI", "tS"])):
        speech = espeak.speak(["lay", "blue", "with", letter, "nine", "soon"], voice="en")
        word = speech.words[3]
        heard = [phoneme.name for phoneme in speech.phonemes if word.start <= phoneme.start < word.end]
        assert heard == sounds


@needs_espeak
def test_unknown_voice_is_named():
    with pytest.raises(AvsrError, match="no such voice: got klingon-hoarse"):
        espeak.speak(["set"], voice="klingon-hoarse")


def test_mouth_shuts_for_b_and_rounds_for_o():
    sounds = [("a", 0.8, 1.0), ("b", 1.0, 1.08), ("i:", 1.08, 1.3), ("f", 1.3, 1.4), ("o@", 1.4, 1.7)]
    track = make_demo_clip.mouth_track([espeak.Span(name=name, start=start, end=end) for name, start, end in sounds])
    vowel, shut, wide, rounded = (track[frame] for frame in (21, 25, 29, 37))
    assert vowel.opening > 0.6 and shut.opening < 0.12
    assert shut.pressing > 0.5
    assert wide.width > 0.7 and wide.rounding < 0.1 and rounded.rounding > 0.6
    assert track[0].opening < 0.01


def test_demo_clip_is_what_it_says():
    assert grid_sentences.is_sentence(DEMO.with_suffix(".txt").read_text().strip())
    assert DEMO.stat().st_size < 400_000
    with av.open(str(DEMO)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.width, video.height, video.average_rate) == (640, 480, 25)
        frames = [frame.time for frame in container.decode(video)]
        container.seek(0)
        blocks = [block.to_ndarray() for block in container.decode(audio)]
    assert frames == pytest.approx(np.arange(len(frames)) / 25)
    sound = np.concatenate(blocks, axis=1)
    assert sound.shape[1] / audio.rate == pytest.approx(len(frames) / 25, abs=0.05)
    assert np.abs(sound).max() > 0.1
