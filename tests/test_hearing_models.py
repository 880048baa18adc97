"""Files through a model that hears whole stretches of speech: which sound it gets, and what becomes of its words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import avsr
from avsr import Recognizer, Search, Transcript
from avsr.arrays import Samples
from avsr.decoding.search import Spoken
from avsr.engine import Card, Model
from avsr.errors import ConfigError, MediaError
from avsr.grid import SAMPLE_RATE_HZ
from avsr.lips.slots import LipSlot, Slot
from avsr.media import read_audio
from avsr.offline import windows as windows_module
from tests.test_recognizer import write_video, write_wav
from tests.tiny import random_samples

Words = Callable[[Samples], list[Spoken]]


def spoken(word: str, start_s: float, end_s: float, language: str | None = "en") -> Spoken:
    return Spoken(word, start_s, end_s, 0.9, language)


class Hearing:
    """Keeps the sounds of each call; its words are what a function makes of a sound."""

    def __init__(self, words: Words) -> None:
        self.calls: list[list[Samples]] = []
        self.searches: list[Search] = []
        self._words = words

    def encode_audio(self, samples: Sequence[Samples]) -> list[Samples]:
        self.calls.append(list(samples))
        return self.calls[-1]

    def encode_lips(self, crops: Any, present: Any, audio: Any) -> None:
        raise AssertionError("it only hears")

    def decode(self, audio: list[Samples] | None, lips: Any, search: Search) -> list[list[Spoken]]:
        self.searches.append(search)
        return [self._words(samples) for samples in audio or ()]


def hearing(words: Words, *, batch: int = 1) -> tuple[Recognizer, Hearing]:
    engine = Hearing(words)
    card = Card(
        name="hearing", family="toy", modalities=("a",), languages=("en", "ko"), window_s=30.0, margin_s=0.0,
        cut_at_pauses=True, batch=batch,
    )  # fmt: skip
    return Recognizer(Model(card=card, engine=engine)), engine


def one_word(samples: Samples) -> list[Spoken]:
    """One word in the middle of the sound."""
    middle_s = len(samples) / SAMPLE_RATE_HZ / 2
    return [spoken("word", middle_s, middle_s + 0.2)]


@pytest.fixture(scope="module")
def sentence() -> Samples:
    """3.5 s: somebody speaks from 0.96 to 2.56 s."""
    return read_audio(Path(avsr.__file__).parent / "assets" / "demo.mp4")


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32)


class TestSound:
    def test_it_gets_stretches_of_speech_alone(self, sentence: Samples) -> None:
        recognizer, engine = hearing(one_word)
        samples = np.concatenate((silence(50), sentence, random_samples(40.0) / 20, sentence, silence(20)))
        transcript = recognizer.transcribe(samples)
        assert [len(call) for call in engine.calls] == [1, 1]
        assert all(1.6 < len(call[0]) / SAMPLE_RATE_HZ < 3.5 for call in engine.calls)
        assert transcript.duration == pytest.approx(117.0, abs=0.1)
        begins = (50.0, 50.0 + 3.52 + 40.0)
        assert [word.start for word in transcript.words] == [pytest.approx(t + 1.76, abs=0.2) for t in begins]

    def test_sound_without_speech_is_not_recognised(self) -> None:
        recognizer, engine = hearing(one_word)
        done: list[float] = []
        transcript = recognizer.transcribe(random_samples(65.0) / 20, on_progress=done.append)
        assert (transcript.text, engine.calls) == ("", [])
        assert transcript.warnings == ("no words were recognised",)
        assert done == [30.0, 60.0, 65.0]

    @pytest.mark.parametrize("batch", [1, 2, 8])
    def test_windows_are_recognised_together(self, batch: int, sentence: Samples) -> None:
        samples = np.concatenate([part for _ in range(5) for part in (sentence, silence(28))])
        recognizer, engine = hearing(one_word, batch=batch)
        transcript = recognizer.transcribe(samples)
        assert [len(call) for call in engine.calls] == {1: [1] * 5, 2: [2, 2, 1], 8: [5]}[batch]
        alone, _ = hearing(one_word)
        assert transcript.words == alone.transcribe(samples).words

    def test_settings_of_the_search_reach_the_engine(self, sentence: Samples) -> None:
        recognizer, engine = hearing(one_word)
        search = Search(language="ko", beam=2, temperature=0.3)
        recognizer.transcribe(sentence, search=search)
        assert engine.searches == [search]
        many = recognizer.card._replace(languages=tuple(f"x{letter}" for letter in "abcdefghijklmnopq"))
        with pytest.raises(ConfigError, match="got qq, expected one of its 17 codes, such as xa, xb, xc: avsr models"):
            many.require_search(Search(language="qq"))
        with pytest.raises(ConfigError, match="model hearing does not know the language: got de, expected en, ko"):
            recognizer.transcribe(sentence, search=Search(language="de"))
        with pytest.raises(ConfigError, match="hearing cannot translate: .*; use a model for many languages"):
            recognizer.transcribe(sentence, search=Search(task="translate"))


class TestWords:
    def test_words_where_nobody_speaks_are_dropped(self, sentence: Samples) -> None:
        """Two sentences share a window, with 3 s of silence between their voices; a word lies in it."""

        def words(samples: Samples) -> list[Spoken]:
            assert len(samples) > 6 * SAMPLE_RATE_HZ
            return [spoken("one", 0.4, 0.8), spoken("thanks", 2.9, 3.3), spoken("two", 5.2, 5.5)]

        recognizer, _ = hearing(words)
        samples = np.concatenate((sentence, silence(1.0), sentence))
        assert recognizer.transcribe(samples).text == "one two"

    def test_the_last_word_may_end_with_the_sound(self, sentence: Samples) -> None:
        def words(samples: Samples) -> list[Spoken]:
            end_s = len(samples) / SAMPLE_RATE_HZ
            return [spoken("end", end_s, end_s)]

        recognizer, _ = hearing(words)
        cut = sentence[: round(2.4 * SAMPLE_RATE_HZ)]
        (word,) = recognizer.transcribe(cut).words
        assert (word.start, word.end) == (pytest.approx(2.4), pytest.approx(2.4))

    def test_the_language_is_the_one_of_most_words(self, sentence: Samples) -> None:
        def words(samples: Samples) -> list[Spoken]:
            return [spoken("가", 0.5, 0.6, "ko"), spoken("나", 0.6, 0.7, "ko"), spoken("a", 0.8, 0.9, "en")]

        recognizer, _ = hearing(words)
        assert recognizer.transcribe(sentence).language == "ko"
        recognizer, _ = hearing(lambda samples: [spoken("a", 0.5, 0.6, None)])
        assert recognizer.transcribe(sentence).language is None

    def test_words_are_composed(self, sentence: Samples) -> None:
        recognizer, _ = hearing(lambda samples: [spoken("\u1112\u1161\u11ab", 0.5, 0.9, "ko")])
        assert recognizer.transcribe(sentence).text == "\ud55c"


def showing(monkeypatch: pytest.MonkeyPatch, path: Path, faces: Sequence[int | None], opening: float = 0.05) -> Path:
    """A video whose slots show these faces, one at a time, with lips that do not move."""

    def slot(index: int, face: int | None) -> Slot:
        if face is None:
            return Slot(index, {})
        crop = np.full((96, 96), face, np.uint8)
        return Slot(index, {face: LipSlot(index, crop, True, "ok", face, opening=opening, width_px=100.0)})

    slots = [slot(index, face) for index, face in enumerate(faces)]
    monkeypatch.setattr(windows_module, "slots_of", lambda frames, **options: iter(slots))
    return path


@pytest.fixture
def video(tmp_path: Path, sentence: Samples, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A video of 3.5 s with the sentence as its sound."""
    path = write_video(tmp_path / "talk.mp4", 3.5, sound=True)
    monkeypatch.setattr("avsr.offline.source.iter_audio", lambda path, **_: iter([sentence]))
    return path


class TestFaces:
    def words(self, samples: Samples) -> list[Spoken]:
        return [spoken(f"w{index}", 0.2 + 0.3 * index, 0.5 + 0.3 * index) for index in range(6)]

    def transcribe(self, path: Path, **options: Any) -> Transcript:
        recognizer, _ = hearing(self.words)
        return recognizer.transcribe(path, **options)

    def test_faces_tell_who_speaks(self, monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
        transcript = self.transcribe(showing(monkeypatch, video, [4] * 88))
        assert (transcript.modality, transcript.warnings) == ("a", ())
        assert {(word.modality, word.face) for word in transcript.words} == {("a", 4)}
        assert transcript.video is not None and transcript.video.faces == 1
        assert transcript.video.coverage == pytest.approx(1.0)

    def test_sound_alone_reads_no_picture(self, monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
        monkeypatch.setattr(windows_module, "iter_frames", lambda *args, **options: pytest.fail("read the picture"))
        transcript = self.transcribe(video, modality="a")
        assert transcript.video is None and {word.face for word in transcript.words} == {None}

    def test_another_face_begins_a_segment(self, monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
        faces = [1] * 30 + [None] * 16 + [2] * 42  # nobody is seen from 1.2 to 1.84 s
        transcript = self.transcribe(showing(monkeypatch, video, faces))
        seen = [[word.face for word in segment.words] for segment in transcript.segments]
        assert len(seen) == 2 and set(seen[0]) == {1, None} and set(seen[1]) == {2}

    def test_a_picture_without_faces_is_no_warning(self, monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
        transcript = self.transcribe(showing(monkeypatch, video, [None] * 88))
        assert transcript.warnings == () and len(transcript.words) == 6
        assert transcript.video is not None and transcript.video.coverage == 0.0
        with pytest.raises(MediaError, match="face 3 is not in the picture: got no faces"):
            self.transcribe(video, face=3)

    def test_a_picture_that_cannot_be_read_is_a_warning(self, monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
        def broken(path: str, **_: Any) -> Any:
            raise MediaError(f"{path}: no picture can be decoded")
            yield

        monkeypatch.setattr(windows_module, "iter_frames", broken)
        transcript = self.transcribe(video)
        assert transcript.warnings == ("no picture can be decoded",)
        assert len(transcript.words) == 6


def test_a_sound_file_needs_no_face_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sentence: Samples) -> None:
    monkeypatch.setattr(windows_module, "import_mediapipe", lambda: pytest.fail("loaded the face models"))
    recognizer, _ = hearing(one_word)
    assert recognizer.transcribe(write_wav(tmp_path / "a.wav", np.clip(sentence, -1, 0.99))).text == "word"
