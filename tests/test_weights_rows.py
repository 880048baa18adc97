"""Models whose weights are finite and broken give no words, and honest models keep theirs on every odd input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import avsr
from avsr import ModelError
from avsr.arrays import LogProbs, Samples
from avsr.cli.main import main
from avsr.datasets.manifest import Utterance, save_samples, write_manifest
from avsr.decoding.checked import RowsCheck, check_log_probs, checked_words
from avsr.decoding.search import Spoken
from avsr.engine import Card, Model
from avsr.families.own.checkpoint import save_checkpoint
from avsr.recognizer import Recognizer
from tests.test_recognizer import write_wav
from tests.test_toy_family import Toy
from tests.tiny import WORDS, live_network, own_recognizer, random_samples, tiny_tokenizer

NOISE = random_samples(2.5, seed=1)
RNG = np.random.default_rng(0)
CROPS = RNG.integers(0, 255, (60, 96, 96)).astype(np.uint8)

Break = Callable[[torch.nn.Module], None]


def everything(value: float) -> Break:
    def change(network: torch.nn.Module) -> None:
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.fill_(value)

    return change


def head_bias(value: float, unit: int) -> Break:
    def change(network: Any) -> None:
        network.audio_head.project.bias.data[unit] = value

    return change


def bias_alone(network: Any) -> None:
    network.audio_head.project.weight.data.zero_()


def times(factor: float) -> Break:
    def change(network: torch.nn.Module) -> None:
        for parameter in network.parameters():
            parameter.data.mul_(factor)

    return change


BROKEN: dict[str, Break] = {
    **{f"all {value:g}": everything(value) for value in (0.0, 1.0, -1.0, 1e-3, 6e4, 1e30)},
    **{f"bias {value:g} of {unit}": head_bias(value, unit) for value in (2e3, 6e4, 1e30) for unit in (0, -1)},
    "the bias alone": bias_alone,
    "times 1e3": times(1e3),
    "times 1e6": times(1e6),
}


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest) -> Recognizer:
    network = live_network()
    BROKEN[request.param](network)
    return own_recognizer(network, tiny_tokenizer())


REFUSED = "model tiny (does not react to its input|gives no log-probabilities): got .*, expected .*download the model"


def test_a_broken_model_gives_no_words_in_a_file(broken: Recognizer) -> None:
    with pytest.raises(ModelError, match=REFUSED):
        broken.transcribe(NOISE)


def test_a_broken_model_gives_no_words_live(broken: Recognizer) -> None:
    session = broken.stream(video=False)
    with pytest.raises(ModelError, match=REFUSED):
        for start in range(0, len(NOISE), 320):
            session.push_audio(NOISE[start : start + 320], start / 16_000)


def test_a_broken_model_gives_no_log_probs(broken: Recognizer) -> None:
    with pytest.raises(ModelError, match=REFUSED):
        broken.log_probs([NOISE])
    with pytest.raises(ModelError, match=REFUSED):
        broken.log_probs([NOISE], chunk_ms=320)
    with pytest.raises(ModelError, match=REFUSED):
        broken.log_probs(None, [CROPS])


@pytest.mark.parametrize("value", [0.0, 1e30])
def test_a_broken_model_has_no_error_rate(value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = live_network(lips=False)
    everything(value)(network)
    folder = save_checkpoint(tmp_path / "broken", network, tiny_tokenizer(), card="")
    save_samples(tmp_path / "a.wav", NOISE)
    utterance = Utterance(
        id="a", speaker="s", split="dev", text="bin", audio="a.wav", video=None, duration=2.5, fps=0.0, coverage=0.0,
        sha256="",
    )  # fmt: skip
    write_manifest(tmp_path / "manifest.jsonl", [utterance])
    words = f"evaluate {tmp_path / 'manifest.jsonl'} --model {folder} --snr clean --workers 1 --no-media"
    assert main([*words.split(), "--output-dir", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "model tiny" in error and "Traceback" not in error


def test_the_command_names_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = live_network()
    everything(6e4)(network)
    folder = save_checkpoint(tmp_path / "broken", network, tiny_tokenizer(), card="")
    path = write_wav(tmp_path / "a.wav", NOISE)
    for command in ("transcribe", "stream"):
        assert main([command, str(path), "--model", str(folder)]) == 1
        printed = capsys.readouterr()
        assert "got nan" in printed.err and "Traceback" not in printed.err
        assert not any(json.loads(line).get("text") for line in printed.out.splitlines())


# -- any family -------------------------------------------------------------------------------------------------------


class Scripted(Toy):
    """A toy whose rows come from a function of the number of frames."""

    def __init__(self, rows: Callable[[int], LogProbs]) -> None:
        self._rows = rows

    def log_probs(self, audio: Any, lips: None) -> list[LogProbs]:
        return [self._rows(len(peaks)) for peaks in audio]

    def step(self, chunk: Any, state: Any) -> Any:
        return self._rows(chunk.frames), super().step(chunk, state)[1]


def scripted(rows: Callable[[int], Any]) -> Recognizer:
    toy = Scripted(lambda frames: np.asarray(rows(frames), np.float32))
    card = Card(name="toy", family="toy", modalities=("a",), chunks_ms=(80, 320))
    return Recognizer(
        Model(
            card=card,
            engine=toy,
            frames=toy,
            stream=lambda chunk_ms, look_ahead_ms, *, lips, search: (toy, toy.frame_search(search)),
        )
    )


def every_way(recognizer: Recognizer, samples: Samples) -> list[Callable[[], Any]]:
    def live(chunk_ms: int) -> None:
        session = recognizer.stream(chunk_ms=chunk_ms)
        for start in range(0, len(samples), 1280):
            session.push_audio(samples[start : start + 1280], start / 16_000)
        session.finish()

    return [
        lambda: recognizer.transcribe(samples),
        lambda: recognizer.log_probs([samples]),
        lambda: live(320),
        lambda: live(80),
    ]


@pytest.mark.parametrize(
    "row",
    [
        [np.nan, -1, -1],
        [-1, np.nan, -1],
        [np.inf, -1, -1],
        [-np.inf, -np.inf, -np.inf],
        [3.0, 1.0, 2.0],  # logits
        [-1.0986123, -1.0986123, -1.0986123],
        [-1e-7, -17.0, -18.0],
        [-40.0, -40.0, 0.0],  # a certain blank
        [0.0, -np.inf, -np.inf],
    ],
)
def test_rows_of_any_family_are_checked(row: Sequence[float]) -> None:
    for action in every_way(scripted(lambda frames: [row] * frames), NOISE):
        with pytest.raises(ModelError, match="model toy"):
            action()


def test_one_bad_row_is_enough() -> None:
    def rows(frames: int) -> Any:
        made = np.log(np.random.default_rng(frames).dirichlet([1, 1, 1], frames))
        made[-1, 1] = np.nan
        return made

    for action in every_way(scripted(rows), NOISE):
        with pytest.raises(ModelError, match="as the largest of frame"):
            action()


def test_an_impossible_unit_and_a_blank_of_tiny_differences_are_honest() -> None:
    random = np.random.default_rng(0)

    def blank(frames: int) -> Any:
        others = -16 - 1e-3 * random.random((frames, 2))
        return np.concatenate((others, np.log1p(-np.exp(others).sum(1, keepdims=True))), axis=1)

    def impossible(frames: int) -> Any:
        share = random.random(frames)
        return np.stack((np.full(frames, -np.inf), np.log(share), np.log1p(-share)), axis=1)

    for rows in (blank, impossible):
        for action in every_way(scripted(rows), NOISE):
            action()


STEADY = 0.3 * np.sin(np.arange(48_000) * 2 * np.pi * 220 / 16_000).astype(np.float32)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(48_000, np.float32),
        np.full(48_000, 0.2, np.float32),
        STEADY,
        1e-4 * random_samples(3.0),
        NOISE[:1280],
        NOISE[:12_800],  # 0.8 s
        NOISE[:100],
        NOISE[:0],
    ],
    ids=["zeros", "constant", "tone", "faint", "one frame", "short", "less than a frame", "nothing"],
)
def test_the_same_row_for_input_that_does_not_vary_is_honest(samples: Samples) -> None:
    for action in every_way(scripted(lambda frames: [[-40.0, -40.0, 0.0]] * frames), samples):
        action()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_honest_networks_keep_working_on_odd_inputs(dtype: torch.dtype | None) -> None:
    recognizer = own_recognizer(live_network(), tiny_tokenizer(), dtype=dtype)
    for samples in (np.zeros(48_000, np.float32), np.full(48_000, 0.2, np.float32), STEADY, NOISE[:1280], NOISE[:0]):
        for action in every_way(recognizer, samples):
            action()
    still = np.full((60, 96, 96), 128, np.uint8)
    for crops, present in ((CROPS, np.ones(60, bool)), (still, np.ones(60, bool)), (CROPS, np.zeros(60, bool))):
        recognizer.log_probs(None, [crops], [present])
        recognizer.log_probs([NOISE], [crops], [present])
        recognizer.log_probs([np.zeros(32_000, np.float32)], [crops], [present])


def test_lips_that_move_are_input_too() -> None:
    same = np.tile(np.log(np.float32([0.5, 0.25, 0.25])), (30, 1))
    with pytest.raises(ModelError, match="the same row for all frames"):
        RowsCheck("x").add(same, None, CROPS, np.ones(60, bool))
    RowsCheck("x").add(same, None, CROPS, np.zeros(60, bool))
    RowsCheck("x").add(same, None, np.repeat(CROPS[:1], 60, axis=0), np.ones(60, bool))


def test_rows_are_judged_over_chunks_of_one_frame() -> None:
    check, row = RowsCheck("x"), np.log(np.float32([[0.5, 0.25, 0.25]]))
    frames = NOISE[: 20 * 1280].reshape(20, 1280)
    for samples in frames[:12]:
        check.add(row, samples)
    with pytest.raises(ModelError, match="does not react"):
        check.add(row, frames[12])


def test_check_log_probs_names_the_frame() -> None:
    check_log_probs(np.zeros((0, 3), np.float32), "x")
    rows = np.log(np.full((5, 3), 1 / 3, np.float32))
    rows[3, 0] = np.nan
    with pytest.raises(ModelError, match="model x gives no log-probabilities: got nan as the largest of frame 3"):
        check_log_probs(rows, "x")


def test_words_have_confidences_that_can_be() -> None:
    word = Spoken(WORDS[0], 0.0, 1.0, 1.0000002)
    assert checked_words([word, word._replace(confidence=None)], "x")[0].confidence == 1.0
    for wrong in ({"confidence": float("nan")}, {"confidence": 2.0}, {"confidence": -1.0}, {"end_s": float("nan")}):
        with pytest.raises(ModelError, match="model x gives a word that cannot be"):
            checked_words([word._replace(**wrong)], "x")


def test_the_shipped_model_still_answers() -> None:
    recognizer = avsr.load("grid-tiny")
    assert recognizer.log_probs([NOISE])[0].shape[1] == 52


def test_loading_does_not_import_the_compiler_of_torch() -> None:
    code = "import avsr, sys; avsr.load('grid-tiny'); print('torch._dynamo' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"  # it takes a second
