"""Words of speech or noise that a model does not know: how they are told, and what becomes of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import avsr
from avsr.cli.main import main
from avsr.decoding.domain import Sentences, fit, utterances
from avsr.decoding.search import Spoken
from avsr.engine import Card
from avsr.errors import ConfigError
from avsr.families.external import write_wav
from avsr.grid import SAMPLE_RATE_HZ
from avsr.offline.chosen import choose_words
from avsr.transcript import Transcript
from tests.media import shared_corpus

PLACES = ("bin lay", "blue red", "at by", "f s", "two six", "now soon")
SENTENCE = "bin blue at f two now"
DEMO = Path(avsr.__file__).parent / "assets" / "demo.mp4"


def said(text: str, *, start_s: float = 0.0, gap_s: float = 0.0, confidence: float | None = 1.0) -> list[Spoken]:
    """Words of 0.25 s, with a gap after each."""
    step_s = 0.25 + gap_s
    return [
        Spoken(word, start_s + step_s * place, start_s + step_s * place + 0.25, confidence)
        for place, word in enumerate(text.split())
    ]


def noise(seconds: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.05, round(seconds * SAMPLE_RATE_HZ)).astype(np.float32)


def chords(seconds: int) -> np.ndarray:
    times_s = np.arange(seconds * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    tones = [
        np.sin(2 * np.pi * hz * harmonic * times_s) / harmonic for hz in (220, 277, 330) for harmonic in range(1, 6)
    ]
    return (0.05 * sum(tones) * np.exp(-3 * (times_s % 1.0))).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> avsr.Recognizer:
    return avsr.load("grid-tiny")


class TestFit:
    @pytest.mark.parametrize(
        ("text", "certainty"),
        [
            (SENTENCE, 1.0),
            (f"{SENTENCE} lay red by s six soon", 1.0),
            ("bin blue f two now", 5 / 6),  # a place without a word
            ("bin blue at at f two now", 6 / 7),  # a word too many
            ("bin blue at two two now", 5 / 7),  # a word in the place of another
            ("bin hello at f two now", 5 / 7),  # a word of no place
            ("f", 0.0),  # one word too many, rather than five places without a word
            ("bin blue at", 3 / 6),
            ("f two now bin blue at", 6 / 12),
        ],
    )
    def test_words_count_in_their_places_of_whole_sentences(self, text: str, certainty: float) -> None:
        assert fit(said(text), PLACES) == pytest.approx((2 * certainty + 1) / 3)

    def test_doubtful_words_fit_less(self) -> None:
        assert fit(said(SENTENCE, confidence=0.4), PLACES) == pytest.approx((2 * 0.4 + 1) / 3)

    def test_pauses_within_a_sentence_fit_less(self) -> None:
        assert fit(said(SENTENCE, gap_s=0.25), PLACES) == pytest.approx((2 + 6 / 11) / 3)

    def test_a_rest_between_two_sentences_costs_nothing(self) -> None:
        assert fit([*said(SENTENCE), *said(SENTENCE, start_s=2.1)], PLACES) == pytest.approx(1.0)

    def test_no_words_have_no_fit(self) -> None:
        with pytest.raises(ValueError, match="got no words"):
            fit([], PLACES)
        assert not Sentences(places=PLACES, least_fit=1.0).are_foreign([])

    def test_utterances_end_at_long_pauses(self) -> None:
        words = [*said("a b", gap_s=0.69), *said("c", start_s=3.0)]
        assert [[word.word for word in group] for group in utterances(words)] == [["a", "b"], ["c"]]
        assert utterances([]) == []

    @pytest.mark.parametrize(
        ("places", "least_fit", "message"),
        [
            ((), 0.5, "places"),
            (("a b", "b"), 0.5, "words that differ"),
            (("a", " "), 0.5, "places"),
            (("a",), 1.5, "least_fit: got 1.5"),
        ],
    )
    def test_sentences_that_cannot_be_are_refused(
        self, places: tuple[str, ...], least_fit: float, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            Sentences(places=places, least_fit=least_fit)


class TestChoice:
    card = Card("m", "own", ("a",), domain="the words of a test", sentences=Sentences(places=PLACES, least_fit=0.7))
    mixed = (*said(SENTENCE), *said("now f f", start_s=5.0))

    def test_only_the_foreign_utterance_is_left_out(self) -> None:
        chosen = choose_words(self.card, self.mixed, force=False, min_confidence=0.0)
        assert [word.word for word in chosen.words] == SENTENCE.split()
        assert (chosen.recognised, chosen.foreign, chosen.unsure) == (9, 3, 0)
        assert chosen.warnings == [
            "some of this does not sound like the words of a test: 3 of 9 words are left out (--force shows them)"
        ]

    def test_force_shows_and_marks_them(self) -> None:
        chosen = choose_words(self.card, self.mixed, force=True, min_confidence=0.0)
        assert chosen.words == list(self.mixed) and chosen.foreign == 3
        assert chosen.warnings == [
            "some of this does not sound like the words of a test: 3 of 9 words are shown because of --force"
        ]

    def test_force_counts_only_words_that_are_sure_enough_to_be_shown(self) -> None:
        words = [*said("now f", confidence=0.9), *said("f", start_s=0.6, confidence=0.3)]
        chosen = choose_words(self.card, words, force=True, min_confidence=0.6)
        assert (len(chosen.words), chosen.foreign, chosen.unsure) == (2, 3, 1)
        assert chosen.warnings == [
            "this does not sound like the words of a test: 2 of 3 words are shown because of --force",
            "1 of 3 words are left out: their confidence is below 0.6",
        ]

    def test_a_model_without_sentences_shows_all(self) -> None:
        chosen = choose_words(self.card._replace(sentences=None), self.mixed, force=False, min_confidence=0.0)
        assert (chosen.words, chosen.foreign, chosen.warnings) == (list(self.mixed), 0, [])

    def test_unsure_words_are_left_out_and_counted(self) -> None:
        words = [*said("bin blue", confidence=0.9), *said("at", start_s=0.5, confidence=0.59)]
        chosen = choose_words(self.card._replace(sentences=None), words, force=False, min_confidence=0.6)
        assert ([word.word for word in chosen.words], chosen.unsure) == (["bin", "blue"], 1)
        assert chosen.warnings == ["1 of 3 words are left out: their confidence is below 0.6"]

    def test_words_without_confidence_stay(self) -> None:
        words = said("bin blue", confidence=None)
        chosen = choose_words(self.card._replace(sentences=None), words, force=False, min_confidence=0.6)
        assert (chosen.words, chosen.unsure) == (words, 0)
        assert chosen.warnings == ["model m gives no confidences: --min-confidence has no effect"]


class TestFiles:
    @pytest.mark.parametrize("samples", [noise(5.0), chords(5)], ids=["noise", "chords"])
    def test_noise_gives_no_words(self, model: avsr.Recognizer, samples: np.ndarray) -> None:
        silent, forced = model.transcribe(samples), model.transcribe(samples, force=True)
        assert silent.words == () and silent.text == ""
        assert len(forced.words) == forced.foreign_words == silent.foreign_words > 0
        fate = "no words are shown (--force shows them)"
        assert silent.warnings[-1] == f"this does not sound like the 51 words of GRID: {fate}"
        assert forced.warnings[-1].endswith("words are shown because of --force")

    def test_its_own_speech_is_untouched(self, model: avsr.Recognizer) -> None:
        shown, forced = model.transcribe(DEMO), model.transcribe(DEMO, force=True)
        assert shown.foreign_words == 0 and shown == forced

    def test_a_confidence_out_of_range_is_refused(self, model: avsr.Recognizer) -> None:
        for wrong in (1.5, -0.1, float("nan"), "high", True):
            with pytest.raises(ConfigError, match="wrong min_confidence"):
                model.transcribe(noise(1.0), min_confidence=wrong)  # type: ignore[arg-type]

    def test_other_people_saying_other_things(self, model: avsr.Recognizer) -> None:
        lines = [json.loads(line) for line in shared_corpus("an4/an4.jsonl").read_text().splitlines()]
        paths = [shared_corpus(f"an4/{line['path']}") for line in lines if line["split"] == "dev"][::6]
        files = [model.transcribe(path) for path in paths]
        assert sum(is_marked(file) for file in files) >= 0.8 * len(files)

    def test_grid_is_not_marked(self, model: avsr.Recognizer) -> None:
        names = shared_corpus("grid/lists/dev.txt").read_text().split()[::25]
        names += shared_corpus("grid/lists/train_other.txt").read_text().split()[::2]
        for name in names:
            file = model.transcribe(shared_corpus(f"grid/video/{name}.mp4"))
            assert file.foreign_words == 0 and len(file.words) == 6

    def test_the_command_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "noise.wav"
        write_wav(path, noise(3.0))
        command = ["transcribe", str(path), "--model", "grid-tiny", "--format", "json"]
        assert main(command) == 0
        silent = json.loads(capsys.readouterr().out)
        assert (silent["text"], silent["unsure_words"]) == ("", 0) and silent["foreign_words"] > 0
        assert main([*command, "--force"]) == 0
        forced = json.loads(capsys.readouterr().out)
        count = len(forced["text"].split())
        assert count == forced["foreign_words"] == silent["foreign_words"]
        assert main([*command, "--force", "--min-confidence", "1"]) == 0
        unsure = json.loads(capsys.readouterr().out)
        assert (unsure["text"], unsure["unsure_words"]) == ("", count)
        assert f"{count} of {count} words are left out: their confidence is below 1" in unsure["warnings"]


class TestLive:
    def finals(self, model: avsr.Recognizer, samples: np.ndarray, *, force: bool) -> list[tuple[str, str]]:
        with model.stream(video=False, force=force) as session:
            events = [event for block in np.array_split(samples, 10) for event in session.push_audio(block)]
            events += session.finish()
        assert any(event.words for event in events if event.event == "partial")
        assert all(event.start <= event.end <= event.emitted for event in events)
        taken_back = [event for event in events if event.reason == "foreign"]
        assert all(event.start < event.end and event.latency_ms >= 0 for event in taken_back)
        return [(event.reason, event.text) for event in events if event.event == "final"]

    def test_the_final_of_noise_has_no_words(self, model: avsr.Recognizer) -> None:
        finals = self.finals(model, noise(5.01), force=False)
        assert finals and {final for final in finals} == {("foreign", "")}
        forced = self.finals(model, noise(5.01), force=True)
        assert all(text and reason != "foreign" for reason, text in forced)

    def test_captions_say_that_something_was_left_out(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "noise.wav"
        write_wav(path, noise(5.0))
        assert main(["stream", str(path), "--model", "grid-tiny", "--captions"]) == 0
        out, err = capsys.readouterr()
        assert out == ""
        assert re.search(r"avsr: left out at \d+\.\d-\d+\.\d s: it does not sound like the .*; --force keeps it\n", err)


def is_marked(file: Transcript) -> bool:
    """Whether a transcript has no words, or says that some are foreign."""
    return not file.words or file.foreign_words > 0
