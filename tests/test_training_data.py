"""Training data: an epoch is a function of its seed and number, and augmentation does what is configured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

from avsr.config import build, read_yaml
from avsr.datasets.manifest import read_manifest, write_manifest
from avsr.errors import DataError
from avsr.shipped import find_configuration, find_file
from avsr.training.config import AugmentConfig, CorpusConfig, ModalityConfig, TrainConfig
from avsr.training.data import TrainingSet
from avsr.training.items import Item, dub
from tests.corpus import make_corpus
from tests.tiny import WORDS, tiny_tokenizer
from tests.trainings import load_config, overridden, write_config


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def config_file(manifest: Path, tmp_path: Path) -> Path:
    return write_config(manifest, tmp_path)


def test_a_missing_manifest_names_the_command_that_makes_it(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config_file.parent)
    voices = read_yaml(find_configuration("grid-tiny-audio"))["train"][2]
    assert voices["manifest"] == "work/voices/manifest.jsonl"
    content = overridden(config_file, [f"train={[voices]}"])
    with pytest.raises(DataError) as error:
        TrainingSet(build(TrainConfig, content, "here"), tiny_tokenizer())
    recipe = find_file("recipes/make_synthetic_voices.py")
    assert recipe.is_file()
    assert str(error.value) == (
        f"work/voices/manifest.jsonl: no such manifest; make it with: python {recipe} work/voices --count 3000 --seed 1"
        " --exclude work/grid/manifest.jsonl"
    )
    for corpus, command in (({"manifest": "none.jsonl"}, "avsr prepare"), (content["dev"], None)):
        content["train"] = [corpus]
        if command is None:
            assert TrainingSet(build(TrainConfig, content, "here"), tiny_tokenizer()).entries
        else:
            with pytest.raises(DataError, match=f"^none.jsonl: no such manifest; make it with: {command}$"):
                TrainingSet(build(TrainConfig, content, "here"), tiny_tokenizer())


def test_the_command_that_makes_a_manifest_does_not_change_a_run() -> None:
    assert CorpusConfig(manifest="m", made_with="avsr prepare") == CorpusConfig(manifest="m")


def test_a_missing_noise_folder_names_the_setting(config_file: Path) -> None:
    content = overridden(config_file, ["augment={noise_folder: nowhere, noise_share: 0.5}"])
    with pytest.raises(DataError, match="augment.noise_folder: got nowhere, .*augment.noise_folder=DIR"):
        TrainingSet(build(TrainConfig, content, "here"), tiny_tokenizer())


def test_an_epoch_is_a_function_of_seed_and_number(config_file: Path) -> None:
    config = load_config(config_file)
    first, again = TrainingSet(config, tiny_tokenizer()), TrainingSet(config, tiny_tokenizer())
    assert first.epoch(3) == again.epoch(3)
    assert first.epoch(3) != first.epoch(4)
    keys = [key for batch in first.epoch(3) for key in batch]
    reverse = {key: again[key] for key in reversed(keys)}
    for key in keys:
        one, other = first[key], reverse[key]
        np.testing.assert_array_equal(one.samples, other.samples)
        np.testing.assert_array_equal(one.present, other.present)
        assert one.effects == other.effects
        assert (one.crops is None) == (other.crops is None) == (not one.effects)
        if one.crops is not None and other.crops is not None:
            np.testing.assert_array_equal(one.crops, other.crops)
        assert (one.text, one.has_audio, one.lips_match) == (other.text, other.has_audio, other.lips_match)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_every_utterance_comes_once_an_epoch_joined_or_not(config_file: Path, batch_size: int) -> None:
    overrides = [f"optimizer.batch_size={batch_size}"]
    data = TrainingSet(build(TrainConfig, overridden(config_file, overrides), "here"), tiny_tokenizer())
    assert all(data.epoch(0))
    indices = sorted(index for batch in data.epoch(0) for _, group in batch for index in group)
    assert indices == [0, 1, 2, 3]
    assert any(len(group) == 2 for batch in data.epoch(0) for _, group in batch)


def test_word_times_follow_joining_and_speed(config_file: Path) -> None:
    config = load_config(config_file)
    config = dataclasses.replace(
        config, augment=AugmentConfig(joined=1.0, speed=0.2), modalities=ModalityConfig(a=1, v=0, av=0)
    )
    data = TrainingSet(config, tiny_tokenizer())
    for batch in data.epoch(0):
        for key in batch:
            example = data[key]
            spoken = [int(target) for target in example.frame_targets if target != len(WORDS)]
            in_order = [word for n, word in enumerate(spoken) if n == 0 or word != spoken[n - 1]]
            assert [WORDS[word] for word in in_order] == example.text.split()
            # Where a word is said, its tone sounds: the frame is louder than the floor.
            frames = example.samples[: len(example.samples) // 1280 * 1280].reshape(-1, 1280)
            loud = np.sqrt((frames**2).mean(1)) > 0.05
            targets = example.frame_targets[: len(loud)] != len(WORDS)
            agreement = [(np.roll(loud, shift) == targets).mean() for shift in (-1, 0, 1)]
            assert agreement[1] > 0.7  # half a frame is lost at either end of a word
            assert agreement[1] == max(agreement)


def test_spliced_utterances_are_one_and_then_another(config_file: Path) -> None:
    config = load_config(config_file)
    plain = dataclasses.replace(config, augment=AugmentConfig(), modalities=ModalityConfig(a=0, v=0, av=1))
    data = TrainingSet(dataclasses.replace(plain, augment=AugmentConfig(spliced=1.0)), tiny_tokenizer())
    all_words = [utterance.text.split() for _, utterance in data.entries]  # of one speaker
    changed = 0
    for epoch in range(6):
        for index, own in enumerate(all_words):
            example = data[epoch, (index,)]
            words = example.text.split()
            assert any(words == own[:n] + other[n:] for other in all_words for n in range(1, len(own)))
            changed += words != own
            assert len(example.changes["spliced"]) == 1
            # Sound, lips and word times were cut at the same place: each word shows and sounds as it does alone.
            assert (
                example.crops is not None and len(example.crops) == len(example.present) == len(example.samples) // 640
            )
            columns = example.crops[:, 30:60].mean(axis=1)
            spectra = np.abs(np.fft.rfft(example.samples[: len(example.crops) * 640].reshape(-1, 640)))
            heard, seen = spectra.argmax(axis=1) * 25 / 300 - 1, (columns.argmax(axis=1) + 4 - 10) // 12
            for slot in np.flatnonzero((columns.max(axis=1) > 200) & (spectra.max(axis=1) > 60)):
                assert heard[slot] == seen[slot] and WORDS[seen[slot]] in words
            spoken = [int(target) for target in example.frame_targets if target != len(WORDS)]
            in_order = [WORDS[unit] for n, unit in enumerate(spoken) if n == 0 or unit != spoken[n - 1]]
            assert in_order == [word for n, word in enumerate(words) if n == 0 or word != words[n - 1]]
    assert changed


def test_an_optional_split_may_be_missing(config_file: Path) -> None:
    content = yaml.safe_load(config_file.read_text())
    content["train"].insert(0, {**content["train"][0], "split": "train_other", "optional": True})
    config_file.write_text(yaml.safe_dump(content))
    assert len(TrainingSet(load_config(config_file), tiny_tokenizer()).entries) == 4


def test_modality_dropout_shares(config_file: Path) -> None:
    config = dataclasses.replace(load_config(config_file), augment=AugmentConfig())
    data = TrainingSet(config, tiny_tokenizer())
    kinds = [(e.has_audio, bool(e.present.any())) for e in (data[epoch, (0,)] for epoch in range(120))]
    assert (False, False) not in kinds
    assert 0.1 < kinds.count((True, False)) / 120 < 0.4
    assert 0.1 < kinds.count((False, True)) / 120 < 0.4
    assert 0.35 < kinds.count((True, True)) / 120 < 0.65


def test_wrong_lips_where_nobody_else_has_any(config_file: Path, manifest: Path, tmp_path: Path) -> None:
    utterances = [u for u in read_manifest(manifest) if u.split == "train"][:1]
    write_manifest(manifest.parent / "single.jsonl", utterances)
    overrides = [f"train=[{{manifest: {manifest.parent / 'single.jsonl'}}}]", "augment={wrong_lips: 1.0}"]
    config = build(TrainConfig, overridden(config_file, overrides), "here")
    data = TrainingSet(config, tiny_tokenizer())
    assert all(data[epoch, (0,)].lips_match == (data[epoch, (0,)].crops is not None) for epoch in range(6))


def test_wrong_lips_beside_a_joined_voice_without_lips(config_file: Path, manifest: Path) -> None:
    train = [u for u in read_manifest(manifest) if u.split == "train" and u.video and u.audio]
    voice = dataclasses.replace(train[0], id="voice/1", speaker="voice", video=None)
    write_manifest(manifest.parent / "mixed.jsonl", [voice, *train])
    overrides = [f"train=[{{manifest: {manifest.parent / 'mixed.jsonl'}}}]", "modalities={a: 0.0, v: 0.0, av: 1.0}"]
    config = build(TrainConfig, overridden(config_file, [*overrides, "augment={wrong_lips: 1.0}"]), "here")
    data = TrainingSet(config, tiny_tokenizer())
    for epoch in range(4):
        example = data[epoch, (0, 1)]
        assert example.present.any() and not example.lips_match


def item_of(words: list[tuple[str, float, float]], duration_s: float, *, lips: bool) -> Item:
    """An utterance. Each pixel is the number of its slot, and each sample the number of the sample."""
    slots = round(duration_s / 0.04)
    crops = np.repeat(np.arange(slots, dtype=np.uint8), 96 * 96).reshape(-1, 96, 96)
    samples = np.arange(round(duration_s * 16_000), dtype=np.float32)
    text = " ".join(word for word, *_ in words)
    return Item(samples, crops if lips else None, np.ones(slots, bool) if lips else None, words, text, duration_s)


def test_lips_are_stretched_to_the_words_of_another_voice() -> None:
    face = item_of([("red", 0.4, 0.8), ("blue", 1.2, 1.6)], 2.0, lips=True)
    voice = item_of([("red", 0.8, 1.0), ("blue", 1.0, 1.2)], 2.4, lips=False)
    dubbed = dub(face, voice)
    assert dubbed.samples is voice.samples and dubbed.words == voice.words and dubbed.duration_s == 2.4
    assert dubbed.crops is not None and dubbed.present is not None and len(dubbed.crops) == len(dubbed.present) == 60
    shown = dubbed.crops[:, 0, 0].astype(int)
    # The middles of the words, 0.6 and 1.4 s, are now at 0.9 and 1.1 s: slots 15 and 35 at 22.5 and 27.5.
    np.testing.assert_allclose(np.interp([22.5, 27.5], np.arange(60), shown), [15, 35], atol=1)
    assert (np.diff(shown) >= 0).all()
    # Before and after them time goes on as before: 0.3 s are missing at the start, and the clip ends 0.3 s earlier.
    assert dubbed.present[:7].sum() <= 1 and not dubbed.present[-17:].any() and dubbed.present[8:42].all()
    np.testing.assert_array_equal(shown[8:20], np.arange(8, 20) - 8 + shown[8])


def test_only_the_same_words_are_dubbed() -> None:
    face = item_of([("red", 0.4, 0.8), ("blue", 1.2, 1.6)], 2.0, lips=True)
    other = item_of([("red", 0.4, 0.8), ("green", 1.2, 1.6)], 2.0, lips=False)
    assert dub(face, other) is face
    assert dub(face._replace(words=[]), other._replace(words=[])) == face._replace(words=[])
    assert dub(other, face) is other  # no lips to stretch


def test_a_corpus_of_none_lends_its_voices_and_its_lips(config_file: Path, manifest: Path) -> None:
    train = [u for u in read_manifest(manifest) if u.split == "train" and u.video and u.audio and u.words]
    voices = [dataclasses.replace(u, id=f"voice/{i}", speaker="voice", video=None) for i, u in enumerate(train)]
    stranger = dataclasses.replace(train[-1], id="stranger/1", speaker="stranger", audio=None, text="", words=())
    write_manifest(manifest.parent / "own.jsonl", train[:1])
    write_manifest(manifest.parent / "lent.jsonl", [*voices, stranger])
    corpora = [{"manifest": str(manifest.parent / name)} for name in ("own.jsonl", "lent.jsonl")]
    corpora[1]["per_epoch"] = 0  # type: ignore[assignment]
    overrides = [f"train={corpora}", "modalities={a: 0.0, v: 0.0, av: 1.0}", "augment={dubbed: 0.5, wrong_lips: 0.5}"]
    data = TrainingSet(build(TrainConfig, overridden(config_file, overrides), "here"), tiny_tokenizer())
    assert [key for batch in data.epoch(0) for key in batch] == [(0, (0,))]
    examples = [data[epoch, (0,)] for epoch in range(80)]
    dubbed = [e for e in examples if "dubbed" in e.changes]
    assert 20 < len(dubbed) < 60 and {e.text for e in examples} == {train[0].text}
    same = {v.id for v in voices if v.text == train[0].text}
    assert {name for e in dubbed for name in e.changes["dubbed"]} <= same
    assert 20 < sum(not e.lips_match for e in examples) < 60  # nobody but the stranger has other lips
    # Lent voices make no babble: the only one left is the utterance itself.
    assert len(data.noise.voices) <= 1
