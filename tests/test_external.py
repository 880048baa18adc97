"""Other people's recognisers, and engines that give words only: their windows, their times, their mistakes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import avsr
from avsr.arrays import Crops, Present, Samples
from avsr.cli.main import main
from avsr.decoding.search import Search, Spoken
from avsr.engine import Card, Model
from avsr.errors import ConfigError, ModelError
from avsr.families.external import spread
from tests.test_recognizer import write_wav

FUNCTION = "def count(samples):\n    return f'{len(samples)} samples heard'\n"


@pytest.fixture
def function(tmp_path: Path) -> str:
    """The target of a Python function that gives three words."""
    path = tmp_path / "counter.py"
    path.write_text(FUNCTION)
    return f"function:{path}:count"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "a.wav", 0.1 * np.ones(32_000, np.float32))


def test_a_function_is_a_model(function: str, sound: Path) -> None:
    recognizer = avsr.load(function)
    assert (recognizer.name, recognizer.card.family) == ("counter:count", "external")
    transcript = recognizer.transcribe(sound)
    assert transcript.text == "32000 samples heard"
    assert transcript.warnings == ("model counter:count gives text alone: word times are spread evenly over the sound",)
    assert [word.confidence for word in transcript.words] == [None] * 3
    assert [word.start for word in transcript.words] == pytest.approx([0.0, 2.0 * 6 / 20, 2.0 * 14 / 20])
    assert transcript.words[-1].end == pytest.approx(2.0)
    assert len(recognizer.model.identity()["sha256"]) == 64
    with pytest.raises(ConfigError, match="counter:count gives words, not log-probabilities; use transcribe"):
        recognizer.log_probs([np.zeros(16_000, np.float32)])
    with pytest.raises(ConfigError, match="model counter:count cannot stream"):
        recognizer.stream()


def test_a_program_transcribes_by_the_command_line(
    tmp_path: Path, sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "listen.py"
    script.write_text("import sys, wave\nprint('frames', wave.open(sys.argv[1]).getnframes())\n")
    assert main(["transcribe", str(sound), "--model", f"command:{sys.executable} {script}", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["text"] == "frames 32000"
    assert {word["confidence"] for segment in document["segments"] for word in segment["words"]} == {None}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("command:", "the command is empty"),
        ("command:'", "is not understood"),
        ("function:nowhere.py:f", "no such file"),
        ("function:json:nothing", "no function 'nothing' in it"),
        ("function:json", "expected module:function"),
    ],
)
def test_a_wrong_target_is_refused_in_one_line(target: str, message: str) -> None:
    with pytest.raises((ConfigError, ModelError), match=message) as caught:
        avsr.load(target)
    assert "\n" not in str(caught.value)


def test_words_are_spread_by_their_letters() -> None:
    assert spread("a bc", 5.0) == [Spoken("a", 0.0, 2.0, None), Spoken("bc", 2.0, 5.0, None)]
    assert spread("  ", 5.0) == []
    assert spread("word", 0.0) == [Spoken("word", 0.0, 0.0, None)]


class Teller:
    """Says the number of each whole second of a recording whose first sample carries it: an engine of words only."""

    def __init__(self) -> None:
        self.lengths_s: list[float] = []

    def encode_audio(self, samples: Sequence[Samples]) -> Sequence[Samples]:
        return samples

    def encode_lips(self, crops: Sequence[Crops], present: Sequence[Present], audio: Any | None) -> None:
        raise AssertionError("nobody asked for lips")

    def decode(self, audio: Sequence[Samples] | None, lips: None, search: Search) -> list[list[Spoken]]:
        assert audio is not None
        items = []
        for samples in audio:
            self.lengths_s.append(len(samples) / 16_000)
            marks = np.flatnonzero(samples > 0.005)
            items.append(
                [
                    Spoken(str(round(float(samples[mark]) * 100)), mark / 16_000, mark / 16_000 + 0.3, 0.5)
                    for mark in marks
                ]
            )
        return items


def test_words_of_overlapping_windows_come_once_and_in_order() -> None:
    teller = Teller()
    card = Card(name="teller", family="test", modalities=("a",), window_s=8.0, margin_s=2.0)
    samples = np.full(30 * 16_000, 0.004, np.float32)
    samples[::16_000] = np.arange(1, 31) / 100
    transcript = avsr.Recognizer(Model(card=card, engine=teller)).transcribe(samples)
    assert transcript.text == " ".join(map(str, range(1, 31)))
    assert [round(word.start) for word in transcript.words] == list(range(30))
    assert max(teller.lengths_s) == pytest.approx(12.0)  # eight seconds and two on either side
    assert len(teller.lengths_s) == 4


def test_an_engine_that_wants_the_whole_recording_gets_it() -> None:
    teller = Teller()
    card = Card(name="teller", family="test", modalities=("a",), window_s=float("inf"), margin_s=0.0)
    samples = np.full(60 * 16_000, 0.004, np.float32)
    avsr.Recognizer(Model(card=card, engine=teller)).transcribe(samples)
    assert teller.lengths_s == [60.0]


def test_words_that_an_engine_invents_for_silence_are_dropped() -> None:
    class Inventor(Teller):
        def decode(self, audio: Sequence[Samples] | None, lips: None, search: Search) -> list[list[Spoken]]:
            return [[Spoken("thanks", 3.0, 3.5, 0.9), Spoken("hello", 0.2, 0.6, 0.9)]]

    card = Card(name="inventor", family="test", modalities=("a",))
    samples = np.zeros(5 * 16_000, np.float32)
    samples[:16_000] = 0.1
    transcript = avsr.Recognizer(Model(card=card, engine=Inventor())).transcribe(samples)
    assert transcript.text == "hello"


def test_words_without_times_survive_a_long_silence(tmp_path: Path) -> None:
    path = tmp_path / "counter.py"
    path.write_text("def count(samples):\n    return 'one two three four five six'\n")
    recognizer = avsr.load(f"function:{path}:count")
    samples = np.zeros(10 * 16_000, np.float32)
    samples[:16_000] = samples[-16_000:] = 0.1  # eight seconds of silence between the first word and the last
    assert recognizer.transcribe(samples).text == "one two three four five six"
    assert recognizer.transcribe(np.zeros_like(samples)).text == ""  # silence throughout still gives no words


def test_a_word_of_no_length_is_kept() -> None:
    class Instant(Teller):
        def decode(self, audio: Sequence[Samples] | None, lips: None, search: Search) -> list[list[Spoken]]:
            return [[Spoken("now", 1.6, 1.6, 0.9)]]  # at the edge of a frame

    card = Card(name="instant", family="test", modalities=("a",))
    transcript = avsr.Recognizer(Model(card=card, engine=Instant())).transcribe(np.full(48_000, 0.1, np.float32))
    assert transcript.text == "now"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python3 listen.py {wav}", "listen.py"),
        ("/usr/bin/python3.11 -m listen {wav}", "python3.11"),
        ("bash {wav}", "bash"),
        ("whisper-cli -f {wav}", "whisper-cli"),
    ],
)
def test_a_program_is_called_by_its_script_and_not_by_the_interpreter(command: str, name: str) -> None:
    assert avsr.load(f"command:{command}").name == name
