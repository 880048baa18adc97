"""`avsr bench`: latencies on a simulated timeline that can be worked out by hand, and the command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import avsr
from avsr.bench.latency import LiveClip, TimedWord, clip_of_utterance, measure, percentiles
from avsr.cli.main import main
from avsr.datasets.manifest import Utterance, save_lips, save_samples, write_manifest
from avsr.grid import SLOT_S
from avsr.streaming import Event
from avsr.streaming.events import Step
from avsr.streaming.source import LivePicture
from avsr.transcript import Word
from tests import fake_stream
from tests.tiny import live_network, own_recognizer, random_samples, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("grid_tiny")

DEMO = str(Path(__file__).resolve().parents[1] / "avsr/assets/demo.mp4")


def word(text: str, start: float, end: float) -> Word:
    return Word(word=text, start=start, end=end, confidence=0.9, modality="av")


def partial(*words: Word, changed: int = 0, committed: int = 0) -> Event:
    start, end = words[0].start, words[-1].end
    return Event(event="partial", start=start, end=end, emitted=0.0, words=words, changed=changed, committed=committed)


def final(*words: Word, reason: str = "pause") -> Event:
    return Event(event="final", start=words[0].start, end=words[-1].end, emitted=0.0, words=words, reason=reason)


class FakeSession:
    """Says what it is told to when so much sound was heard; its computing takes no time."""

    latency_ms, video = 200.0, True

    def __init__(self, script: dict[float, list[Event]], options: dict) -> None:
        self._script, self._options = dict(script), options
        self._heard_s = 0.0

    counters = {"steps_skipped": 3}

    def push_audio(self, samples: np.ndarray, t: float, *, waiting_s: float) -> list[Event]:
        self._heard_s = t + len(samples) / 16_000
        said = [self._script.pop(at_s) for at_s in sorted(self._script) if at_s <= self._heard_s + 1e-6]
        for _ in said:
            self._options["on_chunk"](Step(0.0, 0.0, True, (), 5.0))
        return [event for events in said for event in events]

    def push_video(self, picture: np.ndarray | None, t: float) -> list[Event]:
        return []

    def finish(self) -> list[Event]:
        return [event for events in self._script.values() for event in events]


class FakeRecognizer:
    name = "fake"

    def __init__(self, script: dict[float, list[Event]]) -> None:
        self._script = script

    def stream(self, **options: object) -> FakeSession:
        return FakeSession(self._script, options)


SCRIPT = {
    1.0: [partial(word("bin", 0.4, 0.8))],
    1.4: [partial(word("bin", 0.4, 0.8), word("red", 0.8, 1.3))],
    1.8: [partial(word("bin", 0.4, 0.8), word("blue", 0.8, 1.4), changed=1, committed=1)],
    2.6: [final(word("bin", 0.4, 0.8), word("blue", 0.8, 1.4))],
}


def measured(clip: LiveClip, script: dict[float, list[Event]] = SCRIPT) -> dict:
    result = measure(FakeRecognizer(script), [clip], chunk_ms=160)  # type: ignore[arg-type]
    return dataclasses.asdict(result)


def test_a_word_is_said_when_it_first_stands_at_its_place() -> None:
    result = measured(LiveClip(samples=np.zeros(48_000, np.float32)))
    assert result["word_ms"] == pytest.approx([200, 400], abs=30)
    assert result["commit_ms"] == pytest.approx([1000, 1200], abs=30)  # "blue" by the final only
    assert (result["steps_skipped"], result["model"]) == (3, "fake")
    assert result["last_word_ms"] == pytest.approx([400], abs=30)
    assert result["first_partial_ms"] == pytest.approx([600], abs=30)
    assert result["final_ms"] == pytest.approx([1200], abs=30)
    assert (result["words"], result["changed"], result["compute_ms"]) == (2, 1, (5.0,) * 4)
    assert result["finding_s"] is None


def test_word_times_of_the_corpus_count_and_wrong_words_do_not() -> None:
    samples = np.zeros(48_000, np.float32)
    words = (TimedWord("bin", 0.5, 0.7), TimedWord("green", 0.7, 1.0), TimedWord("blue", 1.0, 1.5))
    result = measured(LiveClip(samples=samples, words=words))
    assert result["word_ms"] == pytest.approx([300, 300], abs=30)
    assert result["first_partial_ms"] == pytest.approx([500], abs=30)
    wrong = measured(LiveClip(samples=samples, words=(*words[:2], TimedWord("now", 1.0, 1.5))))
    assert wrong["word_ms"] == pytest.approx([300], abs=30) and wrong["last_word_ms"] == ()


def test_a_final_at_the_end_of_the_clip_says_nothing_about_its_delay() -> None:
    script = {1.0: SCRIPT[1.0], 9.0: [final(word("bin", 0.4, 0.8), reason="end")]}
    result = measured(LiveClip(samples=np.zeros(32_000, np.float32)), script)
    assert result["final_ms"] == () and result["word_ms"] == pytest.approx([200], abs=30)


def test_percentiles_of_nothing_are_nothing() -> None:
    assert percentiles([]) == {50: None, 90: None, 99: None}
    assert percentiles([1.0, 3.0])[50] == 2.0


def test_every_step_is_measured_and_longer_chunks_are_fewer() -> None:
    recognizer = own_recognizer(live_network(), tiny_tokenizer())
    crops = np.random.default_rng(1).integers(0, 255, (50, 96, 96)).astype(np.uint8)
    pictures = tuple(LivePicture(SLOT_S * (k + 1), SLOT_S * k, crop) for k, crop in enumerate(crops))
    clip = LiveClip(samples=random_samples(2.0), pictures=pictures)
    short, long = (measure(recognizer, [clip], chunk_ms=chunk_ms) for chunk_ms in (80, 640))
    assert (len(short.compute_ms), len(long.compute_ms)) == (25, 4)
    assert long.algorithm_ms - short.algorithm_ms == pytest.approx(560)
    assert short.modality == "av" and 0 < short.real_time_factor


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two clips of noise with lips."""
    rows = []
    for number in range(2):
        save_samples(tmp_path / f"{number}.wav", random_samples(1.0, seed=number))
        crops = np.random.default_rng(number).integers(0, 255, (25, 96, 96)).astype(np.uint8)
        save_lips(tmp_path / f"{number}.mp4", crops)
        rows.append(
            Utterance(
                id=f"s/{number}", speaker="s", split="dev", text="bin now", audio=f"{number}.wav",
                video=f"{number}.mp4", duration=1.0, fps=25.0, coverage=0.8, sha256="", absent=((5, 10, "no_face"),),
                words=(("bin", 0.1, 0.4), ("now", 0.4, 0.8)),
            )
        )  # fmt: skip
    write_manifest(tmp_path / "manifest.jsonl", rows)
    clip = clip_of_utterance(rows[0], tmp_path, lips=True)
    assert clip.pictures is not None
    assert [k for k, picture in enumerate(clip.pictures) if picture.rgb is None] == [5, 6, 7, 8, 9]
    return tmp_path / "manifest.jsonl"


class TestCommand:
    @pytest.fixture(autouse=True)
    def model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def load(name: str, *, device: str) -> avsr.Recognizer:
            recognizer = fake_stream.load(name, device=device)
            card = recognizer.card._replace(name=name)
            return avsr.Recognizer(recognizer.model._replace(card=card))

        monkeypatch.setattr(avsr, "load", load)

    def test_latency_of_a_corpus(self, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
        plot = corpus.parent / "latency.png"
        assert main(["bench", "latency", str(corpus), "--plot", str(plot)]) == 0
        out, err = capsys.readouterr()
        lines = out.splitlines()
        assert [line.split()[0] for line in lines[2:7]] == ["80", "160", "320", "640", "1600"]
        assert lines[7].startswith("av, 2.0 s of sound, ")
        assert err == f"avsr: wrote {plot}\n" and plot.read_bytes()[:4] == b"\x89PNG"

    def test_models_are_compared_in_one_table(self, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "latency", str(corpus), "-m", "a", "--beside", "b", "--chunk-ms", "160,320"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[:2] for line in lines[2:6]] == [["a", "160"], ["a", "320"], ["b", "160"], ["b", "320"]]
        assert [line.split()[0] for line in lines[6:]] == ["a:", "b:"]

    def test_latency_of_a_file_as_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = "--chunk-ms 160 --look-ahead-ms 160 --json --threads 1".split()
        assert main(["bench", "latency", DEMO, *words]) == 0
        document = json.loads(capsys.readouterr().out)
        (result,) = document["latency"]
        assert (document["schema"], document["threads"], result["chunk_ms"], result["modality"]) == (1, 1, 160, "av")
        assert result["real_time_factor_with_faces"] > result["real_time_factor"] > 0
        assert result["compute_ms"]["count"] > result["media_s"] / 0.16 - 1

    def test_speed(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = "--seconds 2 --runs 1 --size 320x240 --json".split()
        assert main(["bench", "speed", DEMO, *words]) == 0
        document = json.loads(capsys.readouterr().out)
        assert list(document["steps"]) == ["decode", "faces", "network", "whole"]
        assert all(step["real_time_factor"] > 0 for step in document["steps"].values())
        assert main(["bench", "speed", DEMO, "--seconds", "2", "--runs", "1", "--modality", "a"]) == 0
        out = capsys.readouterr().out
        assert [line.split()[0] for line in out.splitlines()] == ["step", "decode", "network", "whole", "2"]

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            ("latency --runs 3", "--runs is an option of avsr bench speed, not of avsr bench latency"),
            ("speed --split dev", "--split is an option of avsr bench latency, not of avsr bench speed"),
            ("speed a.mp4 b.mp4", "one file at a time: got 2"),
            ("latency --plot x.pdf", "--plot x.pdf: expected the name of a PNG file"),
            ("latency --chunk-ms fast", "argument --chunk-ms: got 'fast', expected milliseconds, as in 160,320"),
            ("speed --size 5", "argument --size: got '5', expected even WIDTHxHEIGHT"),
        ],
    )
    def test_wrong_usage(self, words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", *words.split()]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"avsr: {line}") and err.count("\n") == 1

    def test_chunks_that_the_model_does_not_know(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "latency", "--chunk-ms", "240"]) == 1
        assert capsys.readouterr().err.count("\n") == 1

    def test_split_that_is_not_there(self, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "latency", str(corpus), "--split", "test"]) == 1
        assert capsys.readouterr().err == (
            f"avsr: {corpus}: no utterance of split 'test' with sound; name another with --split\n"
        )
