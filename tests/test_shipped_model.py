"""The model that comes with the package: it recognises, from one file to all formats, with lips, sound or both."""

from __future__ import annotations

from pathlib import Path

import jiwer
import pytest

import avsr
from avsr.datasets.grid import read_align
from tests.media import shared_corpus

ASSETS = Path(avsr.__file__).parent / "assets"
MAX_BYTES = 25_000_000


@pytest.fixture(scope="module")
def model() -> avsr.Recognizer:
    return avsr.load("grid-tiny")


def dev_clips(count: int) -> list[tuple[Path, str, Path]]:
    """Clips of the development split: video, sentence, word times."""
    names = shared_corpus("grid/lists/dev.txt").read_text().split()[::12][:count]
    clips = []
    for name in names:
        align = shared_corpus(f"grid/align/{name}.align")
        clips.append((shared_corpus(f"grid/video/{name}.mp4"), " ".join(w for w, _, _ in read_align(align)), align))
    return clips


def test_it_is_small() -> None:
    size = sum(path.stat().st_size for path in (ASSETS / "grid-tiny").iterdir())
    assert size <= MAX_BYTES
    assert (ASSETS / "grid-tiny" / "README.md").read_text().startswith("# grid-tiny")


def test_it_transcribes_the_demo_clip(model: avsr.Recognizer) -> None:
    sentence = (ASSETS / "demo.txt").read_text().strip()
    transcript = model.transcribe(ASSETS / "demo.mp4")
    assert (transcript.text, transcript.modality) == (sentence, "av")
    # The synthetic voice alone is harder: its letter is taken for one that sounds like it.
    heard = model.transcribe(ASSETS / "demo.mp4", modality="a")
    assert heard.modality == "a"
    assert jiwer.wer(sentence, heard.text) <= 0.17


@pytest.mark.parametrize(("modality", "highest"), [("av", 0.1), ("a", 0.15), ("v", 0.4)])
def test_it_recognises_its_speaker(model: avsr.Recognizer, modality: str, highest: float) -> None:
    clips = dev_clips(6)
    texts = [model.transcribe(path, modality=modality).text for path, _, _ in clips]
    assert jiwer.wer([sentence for _, sentence, _ in clips], texts) <= highest


def test_word_times_are_true(model: avsr.Recognizer) -> None:
    errors = []
    for path, sentence, align in dev_clips(6):
        transcript = model.transcribe(path)
        if transcript.text != sentence:
            continue
        for word, (_, start, end) in zip(transcript.words, read_align(align), strict=True):
            errors += [abs(word.start - start), abs(word.end - end)]
            assert 0 < word.confidence <= 1
    assert len(errors) >= 40
    assert sorted(errors)[len(errors) // 2] <= 0.08


def test_absent_lips_are_bit_for_bit_sound_alone(model: avsr.Recognizer) -> None:
    import numpy as np

    from avsr.media import read_audio

    samples = [read_audio(ASSETS / "demo.mp4")]
    alone = model.log_probs(samples)
    lips = [np.random.default_rng(0).integers(0, 256, (88, 96, 96), np.uint8)]
    absent = model.log_probs(samples, lips, [np.zeros(88, bool)])
    assert np.array_equal(alone[0], absent[0])
