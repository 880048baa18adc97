"""Published lip readers in use: files to text, error rates, and what they cannot do, for every kind of fixture."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

import avsr
from avsr.arrays import Crops, Present
from avsr.cli.main import main
from avsr.decoding.search import Search, Spoken
from avsr.engine import Card, Model
from avsr.errors import ConfigError, MediaError
from avsr.families.auto_avsr.family import MARGIN_S, WINDOW_S
from avsr.offline.joining import joiner
from avsr.offline.tape import Window
from tests.corpus import make_corpus
from tests.media import shared_clip, shared_lip_model
from tests.published_models import KINDS, build_model, tiny_folder

MODALITIES = {"a": ("a",), "av": ("av",), "usr": ("av", "a", "v"), "avhubert": ("av", "a", "v")}


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(shared_lip_model(request.param), tmp_path_factory.mktemp("model") / request.param)


def test_a_film_becomes_text(folder: Path) -> None:
    recognizer = avsr.load(folder)
    assert recognizer.model.card.modalities == MODALITIES.get(folder.name, ("v",))
    for modality in recognizer.model.card.modalities:
        transcript = recognizer.transcribe(shared_clip("grid_bbaf2n.mpg"), modality=modality, search=Search(beam=3))
        words = transcript.words
        assert words and [word.start for word in words] == sorted(word.start for word in words)
        for word in words:
            assert 0 <= word.start <= word.end <= transcript.duration + 0.04
            assert word.confidence is not None and 0 <= word.confidence <= 1


def test_a_film_without_a_face_or_without_sound(folder: Path) -> None:
    recognizer = avsr.load(folder)
    modalities = recognizer.model.card.modalities
    search = Search(kind="greedy")
    if "v" in modalities:
        assert recognizer.transcribe(shared_clip("video_only.mp4"), modality="v", search=search).duration > 0
    if modalities == ("v",):
        with pytest.raises(MediaError, match="no sound and no readable face"):
            recognizer.transcribe(shared_clip("no_face_brick_wall_no_audio.mp4"), search=search)
    else:
        transcript = recognizer.transcribe(shared_clip("audio_only.mp4"), search=search)
        assert transcript.words and all(word.start >= 0 for word in transcript.words)


def test_error_rates_and_what_a_file_offers(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = make_corpus(tmp_path / "corpus")
    evaluate = ["evaluate", str(manifest), "--split", "dev", "--noise-kinds", "none", "--video", "intact", "--no-media"]
    assert main([*evaluate, "-m", str(folder), "--beam", "2", "-o", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["run"]["search"]["beam"] == 2
    capsys.readouterr()
    for command in (["stream", str(shared_clip("grid_bbaf2n.mpg"))], ["serve", "--port", "0"]):
        assert main([*command, "-m", str(folder)]) == 1
        assert f"model {folder.name} cannot stream" in capsys.readouterr().err


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "lips")


def test_it_does_not_work_live(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "model lips cannot stream: expected a model that works in chunks; use transcribe"
    with pytest.raises(ConfigError, match=line):
        avsr.load(tiny).stream()
    film = str(shared_clip("grid_bbaf2n.mpg"))
    for command in (["stream", film], ["serve", "--port", "0"]):
        assert main([*command, "-m", str(tiny)]) == 1
        assert line in capsys.readouterr().err


def test_every_format_and_a_folder(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = str(shared_clip("grid_bbaf2n.mpg"))
    assert main(["transcribe", film, "-m", str(tiny), "-f", "srt,vtt,json,txt", "-o", str(tmp_path / "out")]) == 0
    assert {path.suffix for path in (tmp_path / "out").iterdir()} >= {".srt", ".vtt", ".json", ".txt"}
    (document,) = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    assert "recognised from the lips alone" in " ".join(document["warnings"])
    capsys.readouterr()
    assert main(["transcribe", film, "-m", str(tiny), "--modality", "a"]) == 1
    assert "was not trained for modality a" in capsys.readouterr().err


def still(path: Path, pictures: int) -> Path:
    """A silent film of so many pictures of a face."""
    with av.open(str(shared_clip("grid_bbaf2n.mpg"))) as source, av.open(str(path), "w") as out:
        frame = next(iter(source.decode(video=0)))
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
        picture = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")
        for number in range(pictures):
            picture.pts = number
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize("pictures", [1, 2, 11])
def test_films_of_a_few_pictures(tiny: Path, tmp_path: Path, pictures: int) -> None:
    transcript = avsr.load(tiny).transcribe(still(tmp_path / "short.mp4", pictures))
    assert all(word.end <= pictures / 25 + 0.2 for word in transcript.words)


SENTENCE = [Spoken(f"w{number}", 0.9 * number + 0.2, 0.9 * number + 0.9, 1.0) for number in range(80)]
"""72 s of words; the joints of windows of 15 s fall between two words, into words, and onto their beginnings."""


class Reader:
    """A lip reader of `SENTENCE`. Each crop is its number; what a window shows cut off at its edges is misread."""

    def __init__(self, shifts_s: tuple[float, ...]) -> None:
        self.shifts_s = shifts_s
        self.windows = 0

    def encode_lips(self, crops: list[Crops], present: list[Present], audio: None) -> list[tuple[int, int]]:
        return [(int(item[0, 0, 0]), len(item)) for item in crops]

    def decode(self, audio: None, lips: list[tuple[int, int]], search: Search) -> list[list[Spoken]]:
        return [self._words(*window) for window in lips]

    def _words(self, first: int, slots: int) -> list[Spoken]:
        shift_s = self.shifts_s[self.windows % len(self.shifts_s)]
        self.windows += 1
        begin_s, end_s = first * 0.04, (first + slots) * 0.04
        return [
            Spoken(
                word.word if word.start_s >= begin_s and word.end_s <= end_s else "cut",
                max(0.0, word.start_s - begin_s + shift_s),
                min(word.end_s - begin_s + shift_s, end_s - begin_s),
                1.0,
            )
            for word in SENTENCE
            if word.end_s > begin_s + 0.1 and word.start_s < end_s - 0.1
        ]


@pytest.mark.parametrize("shifts_s", [(0.0,), (0.12, -0.12), (-0.15, 0.0, 0.15)])
@pytest.mark.parametrize("core", [180, 187, 184])
def test_long_films_lose_and_double_no_word(core: int, shifts_s: tuple[float, ...]) -> None:
    card = Card("reader", "test", ("v",), window_s=WINDOW_S, margin_s=MARGIN_S)
    put_together = joiner(Model(card, Reader(shifts_s)), Search())
    frames, margin = 910, round(MARGIN_S / 0.08)
    for start in range(0, frames, core):
        first, end = max(0, start - margin), min(start + core + margin, frames)
        crops = np.arange(2 * first, 2 * end, dtype=np.uint16)[:, None, None]
        shown = np.ones(2 * (end - first), bool)
        keep = (start, min(start + core, frames))
        put_together.add(Window(first, keep, None, crops, shown, [0] * len(shown), ["ok"] * len(shown)))
    assert [word.word for word in put_together.words()] == [word.word for word in SENTENCE]
