"""Two models as one: the search of equal units, the choice between texts of both, and the pairs that are refused."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import avsr
from avsr.arrays import Crops, Present, Samples
from avsr.decoding.ctc_texts import ctc_log_prob, ctc_texts
from avsr.decoding.joint import JointSettings, joint_search_by
from avsr.decoding.plain import Plain, plain, writings
from avsr.decoding.scorers import WeightedSum, mixed
from avsr.decoding.search import Search, Spoken
from avsr.engine import Card, Model
from avsr.errors import ConfigError, ModelError
from avsr.families import open_model
from avsr.families.auto_avsr.tokens import UnitList
from avsr.families.together import Judged, Together, search_together, searched_together, weight_of
from avsr.grid import SLOT_SAMPLES
from tests.media import installed_model, shared_clip
from tests.published_models import TINY_UNITS, tiny_config, tiny_folder, tiny_weights, write_units

FRAMES = 30


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two published models with the same units: one hears, one reads lips."""
    folder = tmp_path_factory.mktemp("pair")
    lips = tiny_folder(folder / "lips")
    config = tiny_config()
    config = replace(config, sound=config.lips, lips=None)
    (folder / "sound").mkdir()
    torch.save(tiny_weights(config), folder / "sound" / "model.pth")
    write_units(folder / "sound" / "unigram5000_units.txt", TINY_UNITS)
    return folder / "sound", lips


def some_input(seed: int = 0) -> tuple[Samples, Crops, Present]:
    random = np.random.default_rng(seed)
    samples = 0.1 * random.standard_normal(FRAMES * SLOT_SAMPLES).astype(np.float32)
    return samples, random.integers(0, 256, (FRAMES, 96, 96), np.uint8), np.ones(FRAMES, bool)


def engine_of(model: Model) -> Together:
    assert isinstance(model.engine, Together)
    return model.engine


def words_with(pair: tuple[Path, Path], weight: float, seed: int = 0) -> list[Spoken]:
    both = engine_of(open_model(f"together:{pair[0]},{pair[1]}"))
    engine = Together(both.sound, both.lips, lambda words: weight)
    samples, crops, present = some_input(seed)
    (words,) = engine.decode(engine.encode_audio([samples]), engine.encode_lips([crops], [present]), Search())
    return words


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_search_with_all_weight_on_one_model_equals_that_model(pair: tuple[Path, Path], seed: int) -> None:
    samples, crops, present = some_input(seed)
    sound, lips = open_model(pair[0]).engine, open_model(pair[1]).engine
    (heard,) = sound.decode(sound.encode_audio([samples]), None, Search())
    (seen,) = lips.decode(None, lips.encode_lips([crops], [present], None), Search())
    assert words_with(pair, 1.0, seed) == heard
    assert words_with(pair, 0.0, seed) == seen


def test_a_search_of_both_finds_the_text_with_the_highest_sum(pair: tuple[Path, Path]) -> None:
    both = engine_of(open_model(f"together:{pair[0]},{pair[1]}"))
    assert search_together(both.sound, both.lips)
    samples, crops, present = some_input()
    assert both.sound.steps is not None and both.lips.steps is not None
    (heard,) = both.sound.steps.scored(both.encode_audio([samples]), None, Search(beam=50))
    (seen,) = both.lips.steps.scored(None, both.encode_lips([crops], [present]).encoded, Search(beam=50))
    assert heard is not None and seen is not None
    scores = {}
    for name, side in (("sound", heard), ("lips", seen)):
        found = joint_search_by(side.decoder, side.ctc, 6, FRAMES, JointSettings(beam=50)).hypotheses
        scores[name] = {hypothesis.units: hypothesis.score for hypothesis in found}
    common = scores["sound"].keys() & scores["lips"].keys()
    assert len(common) > 5
    together = joint_search_by(
        mixed([heard.decoder, seen.decoder], [0.3, 0.7]),
        mixed([heard.ctc, seen.ctc], [0.3, 0.7]),
        6,
        FRAMES,
        JointSettings(beam=50),
    ).hypotheses
    for hypothesis in together:
        if hypothesis.units in common:
            expected = 0.3 * scores["sound"][hypothesis.units] + 0.7 * scores["lips"][hypothesis.units]
            assert hypothesis.score == pytest.approx(expected, abs=1e-4)
    best = max(common, key=lambda units: 0.3 * scores["sound"][units] + 0.7 * scores["lips"][units])
    assert together[0].score >= 0.3 * scores["sound"][best] + 0.7 * scores["lips"][best] - 1e-4
    assert searched_together(heard, seen, 0.3) == seen.spoken(together[0].text_units)


def test_an_item_without_lips_is_decoded_from_its_sound_alone(pair: tuple[Path, Path]) -> None:
    model = open_model(f"together:{pair[0]},{pair[1]}")
    samples, crops, present = some_input()
    audio = model.engine.encode_audio([samples, samples])
    lips = model.engine.encode_lips([crops, crops], [present, np.zeros(FRAMES, bool)], audio)
    _, unseen = model.engine.decode(audio, lips, Search())
    assert unseen == model.engine.decode(audio, None, Search())[1]
    with pytest.raises(ValueError, match="neither"):
        model.engine.decode(None, None, Search())


def test_only_pairs_that_do_not_search_together_have_a_greedy_search(pair: tuple[Path, Path]) -> None:
    assert open_model(f"together:{pair[0]},{pair[1]}").card.searches == ("beam",)
    assert "greedy" in open_model("together:grid-tiny,grid-tiny").card.searches


def test_other_units_are_no_obstacle(pair: tuple[Path, Path]) -> None:
    model = open_model(f"together:grid-tiny,{pair[1]}")
    samples, crops, present = some_input()
    audio, lips = model.engine.encode_audio([samples]), model.engine.encode_lips([crops], [present], None)
    (judged,) = engine_of(model).judged(audio, lips, Search())
    assert len(judged.texts) == len(judged.by_sound) == len(judged.by_lips) > 1
    assert max(judged.by_lips) > -np.inf and max(judged.by_sound) > -np.inf
    assert len(model.engine.decode(audio, lips, Search())) == 1


def test_a_mixture_leaves_out_what_has_no_weight() -> None:
    class Nobody:
        def initial_state(self, batch: int) -> None:
            raise AssertionError("it was asked")

        def score(self, last_B: Any, state: None) -> Any:
            raise AssertionError("it was asked")

        def select(self, state: None, kept_B: Any) -> None:
            raise AssertionError("it was asked")

    first, second = Nobody(), Nobody()
    assert mixed([first, second], [1.0, 0.0]) is first and mixed([first, second], [0.0, 1.0]) is second
    assert isinstance(mixed([first, second], [0.5, 0.5]), WeightedSum)


def spoken(text: str, confidence: float | None = 0.5) -> list[Spoken]:
    return [Spoken(word, 0.1 * place, 0.1 * place + 0.1, confidence) for place, word in enumerate(text.split())]


JUDGED = Judged(
    heard=[spoken("Pin blue"), spoken("Bin blue.")],
    seen=[spoken("bin blew"), spoken("bin blue")],
    texts=[("pin", "blue"), ("bin", "blue"), ("bin", "blew")],
    by_sound=[-1.0, -1.5, -9.0],
    by_lips=[-8.0, -1.2, -1.0],
)


def test_the_choice_between_texts_has_the_same_two_limits() -> None:
    assert JUDGED.chosen(1.0) == spoken("Pin blue")
    assert JUDGED.chosen(0.0) == spoken("bin blew")
    assert JUDGED.chosen(0.5) == spoken("bin blue"), "the second of both is the best of all, as the lips spell it"


def test_beside_a_closed_model_words_have_its_spelling() -> None:
    found_by_sound = Judged([[Spoken("F2.", 1.0, 1.8, 0.5)]], [spoken("g two")], [("f", "two")], [-1.0], [-1.0])
    assert found_by_sound.chosen(0.5) == [Spoken("F2.", 1.0, 1.8, 0.5)]
    closed = found_by_sound._replace(is_closed=True).chosen(0.5)
    assert [(word.word, round(word.start_s, 3), round(word.end_s, 3)) for word in closed] == [
        ("f", 1.0, 1.2),
        ("two", 1.2, 1.8),
    ]


def test_a_text_that_one_model_cannot_write_is_not_chosen() -> None:
    judged = JUDGED._replace(by_lips=[-np.inf, -np.inf, -1.0])
    assert judged.chosen(0.9) == spoken("bin blew")
    nothing = JUDGED._replace(by_lips=[-np.inf] * 3)
    assert nothing.chosen(0.6) == JUDGED.heard[0] and nothing.chosen(0.4) == JUDGED.seen[0]


def test_the_weight_of_the_sound_grows_with_its_confidence() -> None:
    weights = [weight_of(spoken("a b", confidence)) for confidence in (0.0, 0.3, 0.6, 0.9, 1.0)]
    assert weights == sorted(weights) and 0 < weights[0] < weights[-1] < 1
    assert weight_of([]) == 0.0, "a sound without words is as if there were none"
    assert weight_of(spoken("a b", None)) == 0.5


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Bin blue at F2 now.", "bin blue at f two now"),
        ("BIN BLUE AT F TWO NOW", "bin blue at f two now"),
        ("Well-known, don't -- 25!", "well known dont 25"),
        ("25 of 7", "25 of seven"),
        ("\u0928\u092e\u0938\u094d\u0924\u0947", "\u0928\u092e\u0938\u094d\u0924\u0947"),
        ("...", ""),
    ],
)
def test_plain_words(written: str, expected: str) -> None:
    assert " ".join(plain(written.split())) == expected


def test_plain_words_are_written_in_two_ways() -> None:
    words = plain("bin blue at f two now".split())
    assert writings(words) == ["Bin blue at f two now.", "Bin blue at F2 now."]
    assert writings(("hello", "there")) == ["Hello there."] and writings(()) == []
    for text in writings(words):
        assert plain(text.split()) == words


def every_text(log_probs: np.ndarray, blank: int) -> dict[tuple[int, ...], float]:
    """The probability of each text, by all paths."""
    frames, units = log_probs.shape
    sums: dict[tuple[int, ...], float] = {}
    for path in np.ndindex(*(units,) * frames):
        text = tuple(
            unit for place, unit in enumerate(path) if unit != blank and (place == 0 or path[place - 1] != unit)
        )
        sums[text] = sums.get(text, 0.0) + float(np.exp(sum(log_probs[t, unit] for t, unit in enumerate(path))))
    return {text: float(np.log(value)) for text, value in sums.items()}


def test_texts_of_a_ctc_network_have_the_probability_of_all_their_paths() -> None:
    logits = np.random.default_rng(0).standard_normal((5, 3))
    log_probs = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    expected = every_text(log_probs, 2)
    for text, log_prob in expected.items():
        assert ctc_log_prob(log_probs, 2, text) == pytest.approx(log_prob, abs=1e-5)
    found = ctc_texts(log_probs, 2, 5)
    assert [text.units for text in found] == sorted(expected, key=lambda text: -expected[text])[:5]
    assert ctc_log_prob(log_probs, 2, (0,) * 9) < -1e6, "nine units need more than five frames"
    sentences = ctc_texts(log_probs, 2, 5, places=[[0], [1]])
    allowed = [text for text in expected if len(text) % 2 == 0 and text == (0, 1) * (len(text) // 2)]
    assert [text.units for text in sentences] == sorted(allowed, key=lambda text: -expected[text])


def test_units_spell_words() -> None:
    units = UnitList(["<blank>", "<unk>", "\u2581HE", "LLO", "\u2581HELLO", "L", "O", "<eos>"])
    assert units.spelled(("hello", "he")) == [4, 2] and units.spelled(("help",)) is None
    letters = UnitList(["<blank>", "<space>", "A", "B", "<eos>"])
    assert letters.spelled(("ab", "b")) == [2, 3, 1, 3]
    for words in (("hello", "he"), ("hello",)):
        ids = units.spelled(words)
        assert ids is not None and units.text(ids).casefold().split() == list(words)


def test_published_models_list_the_text_that_they_decode_and_judge_all(pair: tuple[Path, Path]) -> None:
    model = open_model(pair[1])
    assert model.texts is not None
    _, crops, present = some_input()
    lips = model.engine.encode_lips([crops], [present], None)
    (listed,) = model.texts.candidates(None, lips, Search(), 5)
    assert listed[0] == model.engine.decode(None, lips, Search())[0] and 1 < len(listed) <= 5
    (log_probs,) = model.texts.log_probs_of(None, lips, Search(), [[("hello", "you"), ("nobody",)]])
    assert -np.inf < log_probs[0] < 0 and log_probs[1] == -np.inf


class Rival:
    """A model that hears: it lists two texts, and likes texts that begin with "pin" best."""

    def encode_audio(self, samples: Sequence[Samples]) -> int:
        return len(samples)

    def encode_lips(self, crops: Sequence[Crops], present: Sequence[Present], audio: Any) -> None:
        raise ModelError("it only hears")

    def decode(self, audio: int | None, lips: None, search: Search) -> list[list[Spoken]]:
        return [spoken("Pin blue at F4 please.", 0.3)] * (audio or 0)

    def candidates(self, audio: int, lips: None, search: Search, count: int) -> list[list[list[Spoken]]]:
        return [[words, spoken("Bin blue at F4, please.")] for words in self.decode(audio, lips, search)]

    def log_probs_of(self, audio: int, lips: None, search: Search, texts: Sequence[Sequence[Plain]]) -> Any:
        return [[-3.0 if text[:1] == ("pin",) else -5.0 for text in own] for own in texts]


def beside_lips(rival: Model) -> Together:
    return Together(rival, open_model("grid-tiny"), weight_of)


def test_the_lips_of_the_shipped_model_judge_the_texts_of_another_model() -> None:
    rival = Rival()
    engine = beside_lips(Model(Card("rival", "toy", ("a",)), cast(Any, rival), texts=cast(Any, rival)))
    samples, crops, present = some_input()
    (judged,) = engine.judged(engine.encode_audio([samples]), engine.encode_lips([crops], [present]), Search())
    of = dict(zip(judged.texts, judged.by_lips, strict=True))
    assert of["pin", "blue", "at", "f", "four", "please"] == -np.inf, "pin is no word of GRID"
    assert np.isfinite(of["bin", "blue", "at", "f", "four", "please"])
    lips = engine.lips.engine
    assert judged.seen[0] == lips.decode(None, lips.encode_lips([crops], [present], None), Search())[0]
    grammar = [[word.word for word in words] for words in judged.seen[1:]]
    assert grammar and all(len(words) % 6 == 0 for words in grammar)
    for text, log_prob in of.items():
        assert (log_prob > -np.inf) == (text in [*map(tuple, grammar), ("bin", "blue", "at", "f", "four", "please")])


def test_wrong_pairs_are_refused_in_one_line(pair: tuple[Path, Path]) -> None:
    for target, message in (
        ("together:grid-tiny", "two models"),
        ("together:grid-tiny,", "two models"),
        ("together:grid-tiny,together:a,b", "two models"),
        (f"together:{pair[1]},grid-tiny", "a model that hears"),
        (f"together:grid-tiny,{pair[0]}", "reads lips"),
        ("together:command:true,grid-tiny", "without probabilities"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_model(target)
    with pytest.raises(ModelError, match="no model"):
        open_model("together:no-such-model,grid-tiny")


def test_a_film_is_transcribed_by_two_models_and_the_weight_is_told() -> None:
    clip = shared_clip("grid_bbaf2n.mpg")
    recognizer = avsr.load("together:grid-tiny,grid-tiny")
    transcript = recognizer.transcribe(clip)
    assert plain(transcript.text.split()) == ("bin", "blue", "at", "f", "two", "now")
    assert transcript.modality == "av" and transcript.model == "grid-tiny+grid-tiny"
    (line,) = [line for line in transcript.warnings if "chose texts together" in line]
    assert "weight of the sound" in line and "weight" not in " ".join(
        recognizer.transcribe(clip, modality="v").warnings
    )


def test_whisper_judges_texts_as_its_own_search_does() -> None:
    model = open_model(str(installed_model("whisper-tiny.en")))
    assert model.texts is not None
    with wave.open(str(shared_clip("grid_swiz3n_16k.wav"))) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    audio = model.engine.encode_audio([samples])
    (listed,) = model.texts.candidates(audio, None, Search(), 4)
    assert listed[0] == model.engine.decode(audio, None, Search())[0] and 1 < len(listed) <= 4
    said = plain(word.word for word in listed[0])
    (log_probs,) = model.texts.log_probs_of(audio, None, Search(), [[said, said[::-1], ("tomato", "soup"), ()]])
    assert log_probs[0] > max(log_probs[1:3]) + 5 and log_probs[3] == -np.inf
