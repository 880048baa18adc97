"""Published lip readers give what the original code gives: front ends, encoders, decoder, language model, search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import avsr
from avsr.decoding.joint import JointSettings
from avsr.decoding.scorers import Scorer
from avsr.decoding.search import Search
from avsr.errors import ConfigError, ModelError
from avsr.families.auto_avsr.engine import PublishedEngine
from avsr.families.auto_avsr.inputs import TRACKER_SCALE, published_geometry, sound_input, video_input
from avsr.families.auto_avsr.network import modality_of
from avsr.families.auto_avsr.tokens import UnitList
from avsr.families.auto_avsr.weights import Opened, open_weights
from avsr.grid import Modality
from tests.media import shared_lip_model
from tests.published_models import KINDS, TINY_UNITS, build_model, read_info, reference, tiny_folder

CASES = ("short", "medium", "long")
ENCODER, LOG_PROBS, SCORES = 5e-5, 1e-4, 1e-3
"""The largest differences from the original."""
Arrays = dict[str, NDArray[Any]]


class Original:
    """A model with what the original gave for it."""

    def __init__(self, folder: Path, target: Path) -> None:
        self.opened: Opened = open_weights(build_model(folder, target))
        self.info, self.arrays = read_info(folder), reference(folder)
        self.engine = PublishedEngine(
            self.opened.network,
            self.opened.units,
            self.opened.language_model,
            name=folder.name,
            device=torch.device("cpu"),
        )

    def video(self, case: str) -> Tensor | None:
        crops = self.arrays.get(f"{case}.video")
        return None if crops is None else video_input(torch.from_numpy(crops), self.engine.code)

    def sound(self, case: str) -> Tensor | None:
        samples = self.arrays.get(f"{case}.audio")
        if samples is None:
            return None
        return sound_input(torch.from_numpy(samples.astype(np.float32) / 32768), self.engine.code)

    def memory(self, case: str, modality: Modality) -> Tensor:
        """The encoded case."""
        sides, video, sound = self.opened.network.sides, self.video(case), self.sound(case)
        lips = sides.lips(video) if video is not None and "v" in modality else None
        heard = sides.sound(sound) if sound is not None and "a" in modality else None
        assert modality_of(lips, heard) == modality
        return sides.join(lips, heard)

    def modes(self) -> Sequence[tuple[str, Modality]]:
        """Parts of the names in the reference, and the modality of each."""
        if self.engine.code == "usr":
            return [(".v", "v"), (".a", "a"), (".av", "av")]
        return [("", self.engine.modalities[0])]


@pytest.fixture(scope="module", params=KINDS)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Original:
    return Original(shared_lip_model(request.param), tmp_path_factory.mktemp("model") / request.param)


def near(got: object, expected: NDArray[Any], most: float) -> None:
    array = np.asarray(got)
    assert array.shape == expected.shape
    assert np.abs(array - expected).max() <= most


def log_probs(scorer: Scorer[Any], units: NDArray[np.int64], start: int) -> NDArray[Any]:
    """The scores after the start and after each unit."""
    state, rows = scorer.initial_state(1), []
    for unit in (start, *units.tolist()):
        scores, state = scorer.score(np.array([unit]), state)
        rows.append(scores[0])
    return np.stack(rows)


@torch.inference_mode()
def test_inputs_equal_the_original(original: Original) -> None:
    found = 0
    for name, expected in original.arrays.items():
        case, _, what = name.partition(".")
        if what in ("transformed_video", "transformed_audio", "features_audio"):
            got = original.video(case) if what.endswith("video") else original.sound(case)
            assert got is not None
            near(got, expected[: len(got)], 1e-5)
            found += 1
    assert found


@torch.inference_mode()
def test_front_ends_equal_the_original(original: Original) -> None:
    encoder: Any = original.opened.network.encoder
    for case in CASES:
        video, sound = original.video(case), original.sound(case)
        if video is not None:
            front = encoder.lips_branch.front if hasattr(encoder, "lips_branch") else encoder.lips_front
            near(front(video), original.arrays[f"{case}.frontend_video"], ENCODER)
        if sound is not None and original.engine.code != "avhubert":
            front = encoder.sound_branch.front if hasattr(encoder, "sound_branch") else encoder.sound_front
            near(front(sound), original.arrays[f"{case}.frontend_audio"], ENCODER)


@torch.inference_mode()
def test_encoders_and_heads_equal_the_original(original: Original) -> None:
    network = original.opened.network
    for case in CASES:
        for part, modality in original.modes():
            memory_TD = original.memory(case, modality)
            near(memory_TD, original.arrays[f"{case}{part}.encoder"], ENCODER)
            ctc_TV = network.ctc_log_probs(memory_TD, modality)
            near(ctc_TV, original.arrays[f"{case}{part}.ctc_log_probs"], LOG_PROBS)
            scorer = network.decoder.scorer(memory_TD, network.head(modality))
            target = original.arrays[f"{case}.target"]
            expected = original.arrays[f"{case}{part}.decoder_log_probs"]
            near(log_probs(scorer, target, network.config.end_id), expected, LOG_PROBS)


@torch.inference_mode()
def test_an_absent_modality_and_a_language_model_equal_the_original(original: Original) -> None:
    for name, expected in original.arrays.items():
        case, _, what = name.partition(".")
        if what in ("encoder_only_audio", "encoder_only_video"):
            near(original.memory(case, "a" if what.endswith("audio") else "v"), expected, ENCODER)
        if what == "lm_log_probs":
            model = original.opened.language_model
            assert model is not None
            target = original.arrays[f"{case}.target"]
            near(log_probs(model, target, original.opened.network.config.end_id), expected, LOG_PROBS)


@torch.inference_mode()
def test_every_search_equals_the_original(original: Original) -> None:
    for name, search in original.info["search"].items():
        modality = dict(original.modes()).get(f".{name}", original.modes()[0][1])  # type: ignore[call-overload]
        given = search["settings"]
        settings = JointSettings(given["beam_size"], given["ctc_weight"], given["lm_weight"], given["penalty"])
        for case, expected in search["cases"].items():
            memory_TD = original.memory(case, modality)
            ctc_TV = original.engine.ctc_log_probs(memory_TD, modality)
            found = original.engine.search(memory_TD, modality, ctc_TV, settings)
            best = found.hypotheses[:10]
            assert [list(one.units) for one in best] == [one["yseq"] for one in expected["nbest"]]
            assert (found.steps, len(found.hypotheses)) == (expected["steps"], expected["ended"])
            assert original.opened.units.text(best[0].units) == expected["text"]
            for one, theirs in zip(best, expected["nbest"], strict=True):
                assert one.score == pytest.approx(theirs["score"], abs=SCORES)
                for scorer, score in one.scores.items():
                    assert score == pytest.approx(theirs["scores"][scorer], abs=SCORES)


def test_many_hypotheses_equal_each_alone(original: Original) -> None:
    network, modality = original.opened.network, original.modes()[0][1]
    with torch.inference_mode():
        memory_TD = original.memory("short", modality)
    scorers: list[Scorer[Any]] = [network.decoder.scorer(memory_TD, network.head(modality))]
    scorers += [] if original.opened.language_model is None else [original.opened.language_model]
    texts_BU = np.array([[3, 1, 2, 5], [3, 1, 4, 5], [3, 2, 2, 2]])
    for scorer in scorers:
        alone = np.stack([log_probs(scorer, text, network.config.end_id)[-1] for text in texts_BU])
        _, state = scorer.score(np.array([network.config.end_id]), scorer.initial_state(1))
        _, state = scorer.score(np.array([3]), state)
        _, state = scorer.score(np.array([1, 2]), scorer.select(state, np.array([0, 0])))
        _, state = scorer.score(np.array([2, 4, 2]), scorer.select(state, np.array([0, 0, 1])))
        kept, _ = scorer.score(np.array([5, 5, 2]), state)
        np.testing.assert_allclose(kept, alone, atol=1e-5)


def tiny_input(frames: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (frames, 96, 96), dtype=np.uint8), np.ones(frames, bool)


def test_a_model_opens_by_its_folder_and_reads_lips(tmp_path: Path) -> None:
    recognizer = avsr.load(tiny_folder(tmp_path / "lips"))
    card = recognizer.card
    assert (card.name, card.family, card.modalities) == ("lips", "auto_avsr", ("v",))
    crops, present = tiny_input(12)
    engine = recognizer.model.engine
    for search in (Search(), Search(kind="greedy"), Search(beam=1)):
        first, second = engine.decode(
            None, engine.encode_lips([crops, crops[:5]], [present, present[:5]], None), search
        )
        alone = engine.decode(None, engine.encode_lips([crops[:5]], [present[:5]], None), search)
        assert second == alone[0]
        for word in (*first, *second):
            assert set(word.word) <= set("HELLOYOU<unk>") and 0 <= word.start_s < word.end_s <= 12 * 0.04 + 0.04
    assert engine.decode(None, engine.encode_lips([crops], [~present], None), Search()) == [[]]
    with pytest.raises(ModelError, match="only reads lips"):
        engine.encode_audio([np.zeros(16000, np.float32)])
    with pytest.raises(ConfigError, match="does not compute in bfloat16"):
        avsr.load(tmp_path / "lips", dtype="bfloat16")


def test_a_slot_without_lips_shows_those_before_it(tmp_path: Path) -> None:
    engine = avsr.load(tiny_folder(tmp_path / "lips")).model.engine
    crops, present = tiny_input(8)
    present[[0, 3, 4]] = False
    shown = crops[[1, 1, 2, 2, 2, 5, 6, 7]]
    hidden = engine.encode_lips([crops], [present], None)[0].encoded
    whole = engine.encode_lips([shown], [np.ones(8, bool)], None)[0].encoded
    assert torch.equal(hidden, whole)


def test_lips_are_as_long_as_the_sound_beside_them(original: Original) -> None:
    if "av" not in original.engine.modalities:
        pytest.skip("the model does not take both")
    engine = original.engine
    crops, present = tiny_input(12)
    samples = np.random.default_rng(0).normal(0, 0.1, 15 * 640 + 100).astype(np.float32)
    heard = engine.encode_audio([samples])
    longer = engine.encode_lips([crops], [present], heard)
    held = engine.encode_lips([crops[[*range(12), 11, 11, 11]]], [np.ones(15, bool)], heard)
    first, second = engine.memory(heard[0], longer[0]), engine.memory(heard[0], held[0])
    assert first is not None and second is not None and first[1] == "av" and torch.equal(first[0], second[0])
    assert engine.memory(heard[0], engine.encode_lips([crops], [~present], heard)[0]) is not None
    assert engine.memory(None, engine.encode_lips([crops], [~present])[0]) is None
    assert engine.decode(engine.encode_audio([samples[:600]]), None, Search()) == [[]]
    if "v" in engine.modalities:
        alone, before = engine.memory(None, longer[0]), engine.memory(None, engine.encode_lips([crops], [present])[0])
        assert alone is not None and before is not None and torch.equal(alone[0], before[0])
    with pytest.raises(ValueError, match="got sound of 10 frames, lips of 15"):
        engine.memory(engine.encode_audio([samples[:6400]])[0], longer[0])


def test_our_crops_get_the_size_that_the_models_expect() -> None:
    # A face in the crop: two dots, 26 pixels to the left and right of the middle.
    crop = np.zeros((1, 96, 96), np.uint8)
    crop[0, 47:49, 20:24] = crop[0, 47:49, 72:76] = 255
    scaled = published_geometry(torch.from_numpy(crop))[0].double()
    columns = scaled.sum(dim=0)
    at = torch.arange(96, dtype=torch.float64) + 0.5
    left = float((columns[:48] * at[:48]).sum() / columns[:48].sum())
    right = float((columns[48:] * at[48:]).sum() / columns[48:].sum())
    assert right - left == pytest.approx(52 * TRACKER_SCALE, abs=0.05)
    assert (left + right) / 2 == pytest.approx(48, abs=0.01)


def test_sound_of_no_length_and_of_silence_stays_finite() -> None:
    for code in ("auto_avsr", "vsr_ml", "usr", "avhubert"):
        for samples in (0, 1, 640, 1000):
            assert bool(sound_input(torch.zeros(samples), code).isfinite().all())


def test_words_of_units() -> None:
    units = UnitList(TINY_UNITS)
    assert units.text([5, 2, 3, 4, 5, 5]) == "HELLO YOU"
    assert units.words([2, 3, 4]) == [("HELLO", 0, 2), ("YOU", 2, 3)]
    letters = UnitList(["<blank>", "<space>", "A", "B", "<eos>"])
    assert letters.text([1, 2, 3, 1, 2, 1]) == "AB A"
    assert letters.words([1, 2, 3, 1, 2, 1]) == [("AB", 1, 3), ("A", 4, 5)]
    assert letters.words([]) == []


def test_a_search_without_a_beam_takes_the_one_of_the_authors(tmp_path: Path) -> None:
    model = avsr.load(tiny_folder(tmp_path / "lips")).model
    assert model.card.beam == model.engine.settings(Search()).beam == 40
    assert model.engine.settings(Search(beam=7)).beam == 7
    assert model.card.settled(Search()) == Search("beam", beam=40)
