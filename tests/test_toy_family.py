"""A family is one class and one row of the table: then files, streams, evaluation and the page work with it."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import avsr
from avsr import families
from avsr.arrays import Crops, LogProbs, Present, Samples
from avsr.cli.main import main
from avsr.datasets.manifest import Utterance, save_samples, write_manifest
from avsr.decoding.greedy import GreedySearch
from avsr.decoding.search import Search, Spoken
from avsr.decoding.tokenizer import WordTokenizer
from avsr.engine import Card, Chunk, Model, StreamPlan
from avsr.families import Family
from tests.test_recognizer import write_wav
from tests.test_serving import STOP, events_until_closed, open_socket, running

FRAME = 1280  # samples: 80 ms
WORDS = ("low", "high")


class ToyState(NamedTuple):
    """A toy stream remembers the samples of a frame that is not full yet, and how many frames it gave."""

    rest: Samples
    frames: int


class Toy:
    """Says "low" for a quiet tone and "high" for a loud one, with pauses of silence between; by sound alone."""

    frame_ms = 80
    plan = StreamPlan(
        frame_ms=80, chunk_frames=4, step_frames=4, edge_samples=0, look_ahead_samples=0, look_ahead_slots=0
    )

    def encode_audio(self, samples: Sequence[Samples]) -> list[np.ndarray]:
        return [_peaks(item) for item in samples]

    def encode_lips(self, crops: Sequence[Crops], present: Sequence[Present], audio: Any | None) -> None:
        raise AssertionError("a toy has no eyes")

    def log_probs(self, audio: list[np.ndarray] | None, lips: None) -> list[LogProbs]:
        return [_rows(peaks) for peaks in audio or ()]

    def frame_search(self, search: Search) -> GreedySearch:
        return GreedySearch(WordTokenizer(WORDS), frame_s=0.08)

    def decode(self, audio: list[np.ndarray] | None, lips: None, search: Search) -> list[list[Spoken]]:
        found = self.frame_search(search)
        return [found.words(found.step(rows, found.initial_state())) for rows in self.log_probs(audio, lips)]

    def initial_state(self) -> ToyState:
        return ToyState(np.zeros(0, np.float32), 0)

    def step(self, chunk: Chunk, state: ToyState) -> tuple[LogProbs, ToyState]:
        samples = np.concatenate((state.rest, chunk.samples))
        used = samples[: chunk.frames * FRAME]
        return _rows(_peaks(used)), ToyState(samples[len(used) :], state.frames + chunk.frames)


def _peaks(samples: Samples) -> np.ndarray:
    padded = np.pad(samples, (0, -len(samples) % FRAME))
    return np.abs(padded).reshape(-1, FRAME).max(axis=1)


def _rows(peaks: np.ndarray) -> LogProbs:
    units = np.where(peaks > 0.5, 1, np.where(peaks > 0.05, 0, 2))
    return np.log(np.where(np.arange(3) == units[:, None], 0.98, 0.01)).astype(np.float32)


def open_toy(target: str, device: str, dtype: str) -> Model:
    toy = Toy()
    card = Card(name=Path(target).stem, family="toy", modalities=("a",), domain="open", chunks_ms=(320,))
    return Model(
        card=card,
        engine=toy,
        frames=toy,
        stream=lambda chunk_ms, look_ahead_ms, *, lips, search: (toy, toy.frame_search(search)),
    )


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The path of a toy; the one line that a new family needs."""
    row = Family("toy", lambda target: target.endswith(".toy"), open_toy)
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, row))
    path = tmp_path / "tones.toy"
    path.touch()
    return str(path)


def tones(*peaks: float) -> Samples:
    """Half a second of tone each, with half a second of silence before and after."""
    parts = [np.zeros(8000, np.float32)]
    for peak in peaks:
        tone = peak * np.sin(np.arange(8000) * 2 * np.pi * 220 / 16_000)
        parts += [tone.astype(np.float32), np.zeros(8000, np.float32)]
    return np.concatenate(parts)


def test_it_transcribes_a_file_of_any_length(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_wav(tmp_path / "a.wav", tones(0.9, 0.2, 0.9, *[0.2] * 30))  # longer than one window
    assert main(["transcribe", str(path), "--model", model, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["text"] == " ".join(["high low high", *["low"] * 30])
    assert document["model"] == "tones"
    first = document["segments"][0]["words"][0]
    assert first["start"] == pytest.approx(0.5, abs=0.081) and first["end"] == pytest.approx(1.0, abs=0.081)
    assert document["warnings"] == []


def test_it_streams(model: str) -> None:
    recognizer = avsr.load(model)
    session = recognizer.stream(chunk_ms=320)
    events = []
    samples = tones(0.9, 0.2)
    for start in range(0, len(samples), 320):
        events += session.push_audio(samples[start : start + 320], start / 16_000)
    events += session.finish()
    assert [event.text for event in events if event.event == "final"] == ["high low"]

    async def listen() -> list[str]:
        return [event.text async for event in recognizer.astream(samples) if event.event == "final"]

    assert asyncio.run(listen()) == ["high low"]


def test_only_the_chunk_with_the_end_of_the_sound_is_the_last() -> None:
    class Patient(Toy):
        """Reads a frame past the end of each chunk, so that two chunks are left when the sound ends."""

        plan = Toy.plan._replace(look_ahead_samples=FRAME)

        def __init__(self) -> None:
            self.chunks: list[tuple[int, bool]] = []

        def step(self, chunk: Chunk, state: ToyState) -> tuple[LogProbs, ToyState]:
            self.chunks.append((chunk.frames, chunk.is_last))
            return super().step(chunk, state)

    patient = Patient()
    card = Card(name="patient", family="toy", modalities=("a",), chunks_ms=(320,))
    model = Model(
        card=card,
        engine=patient,
        frames=patient,
        stream=lambda chunk_ms, look_ahead_ms, *, lips, search: (patient, patient.frame_search(search)),
    )
    session = avsr.Recognizer(model).stream(chunk_ms=320)
    session.push_audio(np.full(8 * FRAME + FRAME // 2, 0.2, np.float32))
    session.finish()
    assert patient.chunks == [(4, False), (4, False), (1, True)]


def test_it_is_evaluated(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    utterances = []
    for number, (text, peaks) in enumerate([("high low", (0.9, 0.2)), ("low low", (0.2, 0.9))]):
        samples = tones(*peaks)
        save_samples(tmp_path / f"{number}.wav", samples)
        utterances.append(
            Utterance(
                id=str(number), speaker="s", split="dev", text=text, audio=f"{number}.wav", video=None,
                duration=len(samples) / 16_000, fps=0.0, coverage=0.0, sha256="",
            )
        )  # fmt: skip
    write_manifest(tmp_path / "manifest.jsonl", utterances)
    words = f"evaluate {tmp_path / 'manifest.jsonl'} --model {model} --snr clean --workers 1 --no-media"
    assert main([*words.split(), "--output-dir", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["run"]["system"]["kind"] == "toy"
    assert "25.0" in capsys.readouterr().out  # one word of four is wrong


def test_it_serves(model: str) -> None:
    samples = tones(0.9, 0.2)
    with running(avsr.load(model)) as served, open_socket(served) as client:  # type: ignore[arg-type]
        for start in range(0, len(samples), 1600):  # a little faster than speech, as the server allows
            block = np.round(32767 * samples[start : start + 1600]).astype("<i2")
            client.send(struct.pack("<Bd", 1, start / 16_000) + block.tobytes())
        client.send(STOP)
        events = events_until_closed(client)
    assert events[0]["model"] == "tones"
    assert [event["text"] for event in events if event["event"] == "final"] == ["high low"]


def test_the_command_line_streams_it(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_wav(tmp_path / "a.wav", tones(0.9, 0.2))
    assert main(["stream", str(path), "--model", model]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["text"] for event in events if event["event"] == "final"] == ["high low"]
