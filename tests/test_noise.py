"""Noise plans do not depend on workers or order, and rendering gives exactly the planned samples or an error."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import logging
import math
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

import avsr
from avsr.cli.main import main
from avsr.datasets.manifest import Utterance, read_manifest, save_samples, write_manifest
from avsr.decoding.tokenizer import WordTokenizer
from avsr.errors import ConfigError, DataError, MediaError
from avsr.evaluation.conditions import DEFAULT_SEEDS
from avsr.evaluation.sounds import NoiseSource, make_plan, planned_sounds
from avsr.noise.filters import coloured_noise
from avsr.noise.folders import find_noises
from avsr.noise.library import NoiseLibrary, noise_hashes, read_pcm, require_disjoint
from avsr.noise.plan import NoisePlan, describe_other_manifest, read_plan, write_plan
from avsr.noise.planning import plan_noise
from avsr.noise.protocols import PROTOCOLS
from avsr.noise.render import Renderer, render_plan
from avsr.training.batches import collate
from avsr.training.config import AugmentConfig, CorpusConfig, ModalityConfig, OptimizerConfig, TrainConfig
from avsr.training.data import TrainingSet
from avsr.training.items import Corpus
from avsr.training.noise import noise_bank
from tests.corpus import make_corpus
from tests.tiny import WORDS, tiny_config

EFFECTS = "pitch@0.5,reverb@0.5,highpass=100..300,mulaw@0.3,loss=0.1@0.5"


def speech(seed: int, count: int = 16_000) -> np.ndarray:
    """Pink noise with pauses in place of speech, float32 [S]."""
    samples = coloured_noise(count, "pink", seed) * 0.05
    return (samples * np.repeat(np.arange(count // 1600 + 1) % 3 > 0, 1600)[:count]).astype(np.float32)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A manifest of ten utterances of two speakers, split "test", and one of another split."""
    rows = []
    for index in range(11):
        name = f"s{index % 2}/u{index}"
        save_samples(tmp_path / f"corpus/audio/{name}.wav", speech(index, 16_000 + 500 * index))
        rows.append(
            Utterance(
                id=name,
                speaker=name[:2],
                split="train" if index == 10 else "test",
                text="one two",
                audio=f"audio/{name}.wav",
                video=f"lips/{name}.mp4",
                duration=1.0,
                fps=25.0,
                coverage=1.0,
                sha256="",
            )
        )
    write_manifest(tmp_path / "corpus/manifest.jsonl", rows)
    return tmp_path / "corpus/manifest.jsonl"


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Three recordings: a long one, a short one, and one with sound at its beginning only."""
    folder = tmp_path / "noise"
    save_samples(folder / "rain.wav", coloured_noise(48_000, "white", 20) * 0.1)
    save_samples(folder / "deep/click.wav", coloured_noise(4_000, "brown", 21) * 0.01)
    knock = coloured_noise(80_000, "white", 22) * 0.1
    knock[8_000:] = 0
    save_samples(folder / "knock.wav", knock)
    return folder


@pytest.fixture
def hall(tmp_path: Path) -> Path:
    folder = tmp_path / "rir"
    save_samples(folder / "hall.wav", coloured_noise(3_000, "white", 9) * (np.arange(3000, 0, -1) / 6000) ** 4)
    return folder


def plan_of(corpus: Path, environment: Path, hall: Path, **options: object) -> NoisePlan:
    options = {"folders": {"environment": environment, "rir": hall}, "effects": EFFECTS, "seeds": (1, 2)} | options
    return plan_noise(corpus, "test", **options)  # type: ignore[arg-type]


def test_plans_and_mixtures_are_the_same_for_any_number_of_workers(
    corpus: Path, environment: Path, hall: Path, tmp_path: Path
) -> None:
    few = {"noises": ("babble", "environment", "white"), "snrs_db": (None, -5.0)}
    plans = [plan_of(corpus, environment, hall, workers=workers, **few) for workers in (0, 1, 4, 0)]
    files = []
    for index, plan in enumerate(plans):
        write_plan(tmp_path / f"{index}.jsonl", plan)
        files.append((tmp_path / f"{index}.jsonl").read_bytes())
    assert files[0] == files[1] == files[2] == files[3]
    for index, workers in enumerate((0, 4)):
        render_plan(read_plan(tmp_path / f"{index}.jsonl"), tmp_path / f"out{index}", workers=workers)
    rendered = [
        {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        for out in (tmp_path / "out0", tmp_path / "out1")
    ]
    assert rendered[0] == rendered[1]
    assert len([path for path in rendered[0] if path.suffix == ".wav"]) == len(plans[0].lines) == 10 * 2 * 4


def test_a_line_depends_on_nothing_but_itself(corpus: Path, environment: Path, hall: Path) -> None:
    whole = plan_of(corpus, environment, hall)
    write_manifest(corpus, reversed(read_manifest(corpus)))
    part = plan_of(corpus, environment, hall, noises=("environment", "babble"), snrs_db=(5, None, -10), seeds=(2,))
    chosen = {line for line in map(str, whole.lines)}
    assert {str(line) for line in part.lines} <= chosen
    renderer = Renderer(whole)
    for line in whole.lines[::-7]:
        assert renderer.render(line).line == line


def test_achieved_snr_is_measured_on_the_rendered_files(corpus: Path, environment: Path, hall: Path) -> None:
    snrs_db = (None, 20.0, 0.0, -10.0)
    plan = plan_noise(corpus, "test", folders={"environment": environment}, snrs_db=snrs_db)
    renderer = Renderer(plan)
    for line in plan.lines:
        mixture = renderer.render(line).samples.astype(np.float64)
        utterance = renderer.utterances[line.utterance]
        assert utterance.audio is not None
        clean = read_pcm(corpus.parent / utterance.audio).astype(np.float64)
        if line.snr_db is None:
            np.testing.assert_array_equal(mixture, clean)
            continue
        assert np.abs(mixture).max() <= 32_767
        added = mixture / 10 ** (line.scale_db / 20) - clean
        active = clean[np.repeat(np.arange(20) % 3 > 0, 1600)[: len(clean)]]
        snr_db = 10 * math.log10(np.mean(active**2) / np.mean(added**2))
        assert snr_db == pytest.approx(line.snr_db, abs=0.01)
        assert line.achieved_snr_db == pytest.approx(line.snr_db, abs=0.01)
    clean_lines = [line for line in plan.lines if line.condition == "clean"]
    assert len(clean_lines) == 10 and {line.gain_db for line in clean_lines} == {None}
    assert [line.snr_db for line in plan.lines if line.condition == "babble_0"] == [0.0] * 10


def test_one_noise_for_all_snrs_of_an_utterance_and_another_for_each_seed(corpus: Path, environment: Path) -> None:
    plan = plan_noise(corpus, "test", noises=("babble", "white"), seeds=(1, 2))
    for noise in ("babble", "white"):
        lines = [line for line in plan.lines if line.noise == noise and line.utterance == "s0/u0"]
        assert len({line.noises for line in lines if line.seed == 1}) == 1
        assert len({line.noises for line in lines}) == 2
    voices = [[plan.noises[part.noise_sha256] for part in line.noises] for line in plan.lines if line.noise == "babble"]
    for line, names in zip([line for line in plan.lines if line.noise == "babble"], voices, strict=True):
        assert len(set(names)) == 8 and f"voice/{line.utterance}" not in names


def test_stretches_of_silence_are_not_drawn(corpus: Path, environment: Path) -> None:
    plan = plan_noise(corpus, "test", folders={"environment": environment}, noises=("environment",), seeds=range(5))
    used = {plan.noises[part.noise_sha256] for line in plan.lines for part in line.noises}
    assert used == {"environment/deep/click.wav", "environment/knock.wav", "environment/rain.wav"}
    knock = [part.offset for line in plan.lines for part in line.noises if "knock" in plan.noises[part.noise_sha256]]
    assert max(knock) < 8_000


def test_unusable_utterances_are_listed_and_not_dropped(corpus: Path, environment: Path) -> None:
    rows = read_manifest(corpus)
    save_samples(corpus.parent / "audio/s0/u0.wav", np.zeros(16_000, np.float32))
    rows[1] = dataclasses.replace(rows[1], audio=None)
    faint = np.zeros(16_000, np.float32)
    faint[100] = 1 / 32_768
    save_samples(corpus.parent / "audio/s0/u2.wav", faint)
    write_manifest(corpus, rows)
    plan = plan_noise(corpus, "test", noises=("white",), snrs_db=(30.0, 0.0))
    assert plan.unusable.pop("s0/u2").startswith("white at 30 dB: the speech is too faint for this SNR")
    assert plan.unusable == {"s0/u0": "digital silence, which has no level", "s1/u1": "has no sound"}
    assert {line.utterance for line in plan.lines} == {row.id for row in rows[3:10]}


def test_changed_files_are_noticed(corpus: Path, environment: Path, tmp_path: Path) -> None:
    plan = plan_noise(corpus, "test", folders={"environment": environment}, noises=("environment", "babble"))
    rain = next(line for line in plan.lines if "rain" in " ".join(plan.noises[p.noise_sha256] for p in line.noises))
    save_samples(environment / "rain.wav", coloured_noise(48_000, "white", 99) * 0.1)
    with pytest.raises(DataError, match=r"rain.wav: is not the recording that was planned with: got SHA-256 \w+\.\.\."):
        Renderer(plan).render(rain)
    save_samples(corpus.parent / f"audio/{rain.utterance}.wav", speech(77))
    clean = next(line for line in plan.lines if line.utterance == rain.utterance and line.snr_db is None)
    with pytest.raises(DataError, match="clean: the mixture is not the planned one"):
        Renderer(plan).render(clean)
    with pytest.raises(DataError, match="has no utterance x/y"):
        render_plan(dataclasses.replace(plan, lines=(dataclasses.replace(clean, utterance="x/y"),)), tmp_path / "o")
    with pytest.raises(DataError, match="leads out of the folder"):
        render_plan(dataclasses.replace(plan, lines=(dataclasses.replace(clean, condition="../x"),)), tmp_path / "o")


def test_rendering_goes_on_where_it_stopped(corpus: Path, tmp_path: Path) -> None:
    plan = plan_noise(corpus, "test", noises=("pink",), snrs_db=(None, 0.0))
    manifests = render_plan(plan, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").parent.as_posix() for path in manifests] == [
        "seed1/clean",
        "seed1/pink_0",
    ]
    wavs = sorted((tmp_path / "out").rglob("*.wav"))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in wavs}
    wavs[0].unlink()
    wavs[1].write_bytes(wavs[1].read_bytes()[:1000])
    render_plan(plan, tmp_path / "out")
    assert [path.read_bytes() for path in wavs] == [before[path][0] for path in wavs]
    assert [path.stat().st_mtime_ns for path in wavs[2:]] == [before[path][1] for path in wavs[2:]]
    noisy = read_manifest(manifests[1])
    assert [row.text for row in noisy] == ["one two"] * 10
    assert (manifests[1].parent / str(noisy[0].video)).resolve() == (corpus.parent / "lips/s0/u0.mp4").resolve()


def test_plans_are_read_back_and_wrong_ones_refused(
    corpus: Path, environment: Path, hall: Path, tmp_path: Path
) -> None:
    plan, path = plan_of(corpus, environment, hall), tmp_path / "plan.jsonl"
    write_plan(path, plan)
    assert read_plan(path) == plan
    lines = path.read_text().splitlines()
    for content, message in (
        ("", "is no noise plan"),
        ("no json", "plan.jsonl:1: not JSON"),
        (lines[1], "is no noise plan"),
        (lines[0].replace('"plan": 2', '"plan": 9'), "newer version"),
        (lines[0] + "\n" + json.dumps(json.loads(lines[1]) | {"more": 1}), "plan.jsonl:2: wrong keys: got .*more"),
        (lines[0] + "\n" + json.dumps(json.loads(lines[1]) | {"noises": 3}), "wrong value of noises"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            read_plan(path)


def test_a_plan_says_what_it_was_made_for_and_old_plans_are_read(
    corpus: Path, environment: Path, tmp_path: Path
) -> None:
    plan, path = plan_noise(corpus, "test", noises=("pink",), snrs_db=(0.0,)), tmp_path / "plan.jsonl"
    write_plan(path, plan)
    header, *lines = path.read_text().splitlines()
    row = json.loads(header)
    made_for = {"split": "test", "protocol": "avsr", "avsr_version": avsr.__version__}
    made_for["manifest_sha256"] = hashlib.sha256(corpus.read_bytes()).hexdigest()
    assert made_for.items() <= row.items()
    del row["avsr_version"], row["manifest_sha256"]
    path.write_text("\n".join([json.dumps(row | {"plan": 1}), *lines]))
    old = read_plan(path)
    assert old == dataclasses.replace(plan, avsr_version=None, manifest_sha256=None)
    write_manifest(corpus, read_manifest(corpus)[:-1])
    assert describe_other_manifest(old, corpus) is None  # an old plan cannot tell
    assert len(render_plan(old, tmp_path / "out")) == 1
    del row["split"]
    path.write_text(json.dumps(row | {"plan": 1}))
    with pytest.raises(DataError, match="plan.jsonl:1: wrong keys"):
        read_plan(path)


def test_a_changed_manifest_is_noticed(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = plan_noise(corpus, "test", noises=("pink",), snrs_db=(0.0,))
    render_plan(plan, tmp_path / "out")
    assert not caplog.records
    rows = read_manifest(corpus)
    write_manifest(corpus, rows[:-1])  # without the utterance of another split
    render_plan(plan, tmp_path / "out")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "has changed: got a plan for split 'test' of" in record.message and "by protocol avsr" in record.message
    write_manifest(corpus, rows[1:])
    with pytest.raises(DataError, match=r"has no utterance s0/u0: got a plan for split 'test' of .*, not [0-9a-f]{12}"):
        render_plan(plan, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_plan_is_evaluated_on_a_copy_of_its_manifest_and_warns_of_another(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_noise(corpus, "test", noises=("pink",), snrs_db=(0.0,))
    source, sounds = NoiseSource(plan=str(tmp_path / "plan.jsonl")), tuple(planned_sounds(plan))
    write_plan(tmp_path / "plan.jsonl", plan)
    ids = [line.utterance for line in plan.lines]
    copy = tmp_path / "copy/manifest.jsonl"
    shutil.copytree(corpus.parent, copy.parent)
    shutil.rmtree(corpus.parent)  # as on another machine
    made = make_plan(source, str(copy), "test", sounds, ids, workers=0)
    assert made == dataclasses.replace(plan, manifest=str(copy)) and not caplog.records
    assert Renderer(made).render(made.lines[0]).line == plan.lines[0]

    rows = read_manifest(copy)
    write_manifest(copy, [dataclasses.replace(row, text="three") for row in rows])
    made = make_plan(source, str(copy), "test", sounds, ids, workers=0)
    (record,) = caplog.records
    assert "plan.jsonl: got a plan for split 'test' of" in record.message
    assert made is not None and Renderer(made).render(made.lines[0]).line == plan.lines[0]
    save_samples(copy.parent / f"audio/{ids[0]}.wav", speech(99))
    with pytest.raises(DataError, match="the mixture is not the planned one"):
        Renderer(made).render(made.lines[0])

    with pytest.raises(
        DataError, match="does not plan for s9/new: got 1 of 11 utterances .* and a plan for split 'test'"
    ):
        make_plan(source, str(copy), "test", sounds, [*ids, "s9/new"], workers=0)


def test_protocols_of_the_literature(corpus: Path, environment: Path, tmp_path: Path) -> None:
    clean = plan_noise(corpus, "test", protocol="torchaudio")
    assert {line.condition for line in clean.lines} == {"clean"}
    babble = tmp_path / "babble"
    save_samples(babble / "babble.wav", coloured_noise(40_000, "pink", 5) * 0.1)
    fixed = plan_noise(corpus, "test", protocol="fixed-babble", folders={"babble": babble})
    assert {part.offset for line in fixed.lines for part in line.noises} == {0}
    assert fixed.level == "whole" and len(fixed.lines) == 10 * 6
    auto = plan_noise(corpus, "test", protocol="auto-avsr", folders={"babble": babble})
    offsets = {part.offset for line in auto.lines for part in line.noises}
    assert len(offsets) == 10 and max(offsets) <= 40_000 - 16_000
    assert {line.snr_db for line in auto.lines} == {None, 20, 15, 10, 5, 0, -5}
    save_samples(babble / "babble.wav", coloured_noise(4_000, "pink", 5) * 0.1)
    with pytest.raises(DataError, match=r"babble.wav: the noise is shorter than s0/u0: got 4000 samples"):
        plan_noise(corpus, "test", protocol="auto-avsr", folders={"babble": babble})


def test_avhubert_protocol_cuts_musan_into_pieces(corpus: Path, tmp_path: Path) -> None:
    for kind, count in (("music", 12), ("noise", 12), ("speech", 45)):
        for index in range(count):
            seconds = 4 if index % 5 == 0 else 23
            path = tmp_path / f"musan/{kind}/us/{kind}-us-{index:04}.wav"
            save_samples(path, np.tile(coloured_noise(16_000, "pink", index) * 0.05, seconds))
    folders = {"musan": tmp_path / "musan"}
    with pytest.raises(DataError, match="not enough to make babble of: got"):
        plan_noise(corpus, "test", protocol="avhubert", folders=folders, noises=("babble",))
    plan = plan_noise(corpus, "test", protocol="avhubert", folders=folders, part="train", snrs_db=(0.0,))
    assert {line.condition for line in plan.lines} == {"babble_0", "speech_0", "music_0", "noise_0"}
    for line in plan.lines:
        assert len(line.noises) == (30 if line.noise == "babble" else 1)
        for part in line.noises:
            assert part.offset == 0 and part.gain_db == 0.0
            assert plan.noises[part.noise_sha256].partition("#")[2] in "012"
    rendered = Renderer(plan).render(plan.lines[0])
    assert len(rendered.samples) == 16_000


def test_wrong_requests_are_explained(corpus: Path, environment: Path) -> None:
    with pytest.raises(ConfigError, match="unknown noise protocol: got avhuber, .*did you mean avhubert?"):
        plan_noise(corpus, "test", protocol="avhuber")
    with pytest.raises(ConfigError, match="no recordings for the noise 'environment'"):
        plan_noise(corpus, "test")
    with pytest.raises(ConfigError, match="'bable': .*did you mean babble?"):
        plan_noise(corpus, "test", noises=("bable",))
    with pytest.raises(DataError, match="no utterance of split 'tset'"):
        plan_noise(corpus, "tset")
    with pytest.raises(ConfigError, match="no impulse responses for reverb"):
        plan_noise(corpus, "test", noises=("white",), effects="reverb")
    with pytest.raises(DataError, match="not enough to make babble of: got 0 recordings"):
        plan_noise(corpus, "train", noises=("babble",))
    with pytest.raises(ConfigError, match="nothing to plan"):
        plan_noise(corpus, "test", noises=(), snrs_db=(0.0,))
    assert len(plan_noise(corpus, "test", noises=("white", "white"), snrs_db=(0, 0.0), seeds=(1, 1)).lines) == 10
    with pytest.raises(DataError, match="nowhere: no noise"):
        plan_noise(corpus, "test", folders={"environment": environment / "nowhere"})


LAYOUTS = {
    "musan": ["musan/music/fma/music-fma-{:04}.wav", "musan/noise/sound-bible/noise-sound-bible-{:04}.wav"],
    "demand": ["DKITCHEN/ch01.wav", "DKITCHEN/ch02.wav", "SPSQUARE/ch01.wav"],
    "noisex92": ["babble.wav", "volvo.wav"],
    "esc50": ["audio/1-100032-A-0.wav", "audio/5-9032-A-0.wav", "meta/notes-5.wav"],
    "dns": ["noise/door_Freesound_validated_{}_0.wav", "noise/door_Freesound_validated_{}_1.wav", "clean/p_{}.wav"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_collections_are_read_in_their_layout_and_split_by_recording(layout: str, tmp_path: Path) -> None:
    for pattern in LAYOUTS[layout]:
        for index in range(60 if "{" in pattern else 1):
            save_samples(tmp_path / pattern.format(index), np.full(10, 0.1, np.float32))
    files = find_noises(layout, tmp_path)
    kinds = {
        "musan": {"music", "noise"},
        "noisex92": {"noisex92-babble", "noisex92-volvo"},
    }.get(layout, {"environment"})
    assert {file.kind for file in files} == kinds
    expected = {"musan": 120, "demand": 2, "noisex92": 2, "esc50": 2, "dns": 120}
    assert len(files) == expected[layout]
    by_part = {part: [f for f in files if f.part == part] for part in ("train", "valid", "test")}
    assert sum(map(len, by_part.values())) == len(files)
    if layout in ("musan", "dns"):
        assert len(by_part["train"]) > 70 and by_part["valid"] and by_part["test"]
    if layout == "dns":  # pieces of a recording stay together
        recordings = [{f.path.stem.rpartition("_")[0] for f in part} for part in by_part.values()]
        assert not (recordings[0] & recordings[1] or recordings[0] & recordings[2] or recordings[1] & recordings[2])
    if layout == "esc50":
        assert [f.path.name for f in by_part["test"]] == ["5-9032-A-0.wav"]
        assert find_noises(layout, tmp_path, "test") == by_part["test"]
        with pytest.raises(DataError, match="no noise of the part 'valid'"):
            find_noises(layout, tmp_path, "valid")
    with pytest.raises(DataError, match="no noise of esc50: got 1 other files"):
        save_samples(tmp_path / "else/x.wav", np.full(10, 0.1, np.float32))
        find_noises("esc50", tmp_path / "else")


def test_test_noise_in_training_is_an_error_that_names_it(corpus: Path, environment: Path, tmp_path: Path) -> None:
    training = tmp_path / "training"
    save_samples(training / "other.wav", coloured_noise(4_000, "white", 1))
    require_disjoint(noise_hashes(training), noise_hashes(environment))
    (training / "renamed.wav").write_bytes((environment / "rain.wav").read_bytes())
    with pytest.raises(DataError, match="noise/rain.wav: this test noise is used in training: got the same .*renamed"):
        require_disjoint(noise_hashes(training), noise_hashes(environment))


def test_training_takes_the_same_effects_and_records_them(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path)
    save_samples(tmp_path / "rir/hall.wav", coloured_noise(2000, "white", 3) * 0.1)
    (tmp_path / "vocabulary.txt").write_text("".join(f"{word}\n" for word in WORDS))
    augment = AugmentConfig(
        noise_share=1.0,
        babble=False,
        snr_db=(0.0, 0.0),
        effects="reverb,loss=0.1,mulaw@0.5",
        impulse_responses=str(tmp_path / "rir"),
    )
    config = TrainConfig(
        output="run",
        vocabulary=str(tmp_path / "vocabulary.txt"),
        model=tiny_config(),
        train=(CorpusConfig(manifest=str(manifest)),),
        dev=CorpusConfig(manifest=str(manifest), split="dev"),
        optimizer=OptimizerConfig(epochs=1, batch_size=4),
        modalities=ModalityConfig(a=1, v=0, av=0),
        augment=augment,
    )
    tokenizer = WordTokenizer(WORDS)
    batch, again = (collate([TrainingSet(config, tokenizer)[(0, (i,))] for i in range(4)]) for _ in range(2))
    np.testing.assert_array_equal(batch.samples, again.samples)
    assert batch.changes == again.changes
    names = [[record["effect"] for record in change["effects"]] for change in batch.changes]
    assert all(change["snr_db"] == 0.0 and change["noise"] == "coloured" for change in batch.changes)
    assert sorted({*map(tuple, names)}) == [("reverb", "loss"), ("reverb", "loss", "mulaw")]
    with pytest.raises(ConfigError, match="reverb needs recordings"):
        TrainingSet(
            dataclasses.replace(config, augment=dataclasses.replace(augment, impulse_responses=None)), tokenizer
        )


def test_training_refuses_held_out_noise(tmp_path: Path, corpus: Path, environment: Path) -> None:
    write_plan(tmp_path / "plan.jsonl", plan_noise(corpus, "test", folders={"environment": environment}))
    training = Corpus(CorpusConfig(manifest=str(corpus), split="train"))
    for held_out in (tmp_path / "plan.jsonl", environment):
        augment = AugmentConfig(noise_folder=str(environment), noise_share=0.5, held_out_noise=(str(held_out),))
        with pytest.raises(
            DataError, match="click.wav: this test noise is used in training: got the same sound as deep"
        ):
            noise_bank(augment, [training], 1)
    other = tmp_path / "other"
    save_samples(other / "hum.wav", coloured_noise(4_000, "brown", 1))
    held_out = (str(tmp_path / "plan.jsonl"), str(environment))
    noise_bank(AugmentConfig(noise_folder=str(other), noise_share=0.5, held_out_noise=held_out), [training], 1)
    same_voices = Corpus(CorpusConfig(manifest=str(corpus), split="test"))
    with pytest.raises(DataError, match="voice/s0/u0: this test noise is used in training"):
        noise_bank(AugmentConfig(noise_share=0.5, held_out_noise=held_out), [same_voices], 1)


def imports(folder: str) -> dict[str, set[str]]:
    """The modules of avsr that each module in a folder of the package imports, anywhere in its code."""
    root = Path(avsr.__file__).parent
    found = {}
    for path in sorted((root / folder).glob("*.py")):
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("avsr."):
                names.add(node.module)
        found[f"avsr.{folder}.{path.stem}"] = names
    return found


def test_noise_imports_lower_parts_only_and_no_circle() -> None:
    noise, allowed = (
        imports("noise"),
        {"account", "grid", "arrays", "errors", "files", "randomness", "media", "processes", "untrusted"},
    )
    for module, names in noise.items():
        others = {name for name in names if not name.startswith("avsr.noise.")} - {"avsr.datasets.manifest"}
        assert {name.split(".")[1] for name in others} <= allowed, module
    assert not any("avsr.noise" in name for names in imports("datasets").values() for name in names)
    order: list[str] = []  # each module after the modules that it imports
    while len(order) < len(noise):
        ready = [m for m in noise if m not in order and {n for n in noise[m] if n in noise} <= set(order)]
        assert ready, f"a circle among {sorted(noise.keys() - set(order))}"
        order += ready


def test_library_reads_a_recording_by_name(environment: Path) -> None:
    library = NoiseLibrary({"environment": environment})
    assert library.kinds == ["environment"]
    assert library.samples("environment/rain.wav").dtype == np.int16
    with pytest.raises(DataError, match="no such noise"):
        library.samples("environment/snow.wav")


def test_command_line(corpus: Path, environment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.jsonl"
    words = ["noise", "plan", str(corpus), "-o", str(plan), "--split", "test", "--workers", "0"]
    words += ["--noise-folder", f"environment={environment}", "--snr", "clean,-5", "--seed", "1"]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{plan}\n"
    assert main(words) == 2
    assert "is there already; --overwrite replaces it" in capsys.readouterr().err
    assert main(["noise", "render", str(plan), "-o", str(tmp_path / "out"), "--workers", "0"]) == 0
    manifests = capsys.readouterr().out.split()
    assert len(manifests) == 6 and all(len(read_manifest(path)) == 10 for path in manifests)
    with wave.open(str(tmp_path / "out/seed1/environment_-5/audio/s0/u0.wav")) as file:
        assert file.getparams()[:4] == (1, 2, 16_000, 16_000)
    words += ["--overwrite", "--training-noise", str(environment)]
    assert main(words) == 1
    assert "this test noise is used in training" in capsys.readouterr().err


def test_a_plan_has_the_seeds_of_an_evaluation_by_default(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.jsonl"
    words = f"noise plan {corpus} -o {plan} --split test --noise-kinds white,none --snr 0 --workers 0".split()
    assert main(words) == 0
    assert {(line.noise, line.seed) for line in read_plan(plan).lines} == {("white", seed) for seed in DEFAULT_SEEDS}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "m", "-o", "p"], "the following arguments are required: --split"),
        (["plan", "m", "--split", "x"], "the following arguments are required: -o/--output"),
        (["render", "p"], "the following arguments are required: -o/--output-dir"),
        (["plan", "m", "-o", "p", "--split", "x", "--snr", "loud"], "expected dB from -60 to 60, or clean"),
        (["plan", "m", "-o", "p", "--split", "x", "--noise-folder", "folder"], "expected KIND=FOLDER"),
        (
            ["plan", "m", "-o", "p", "--split", "x", "--noise-folder", "a=b", "--noise-folder", "a=c"],
            "--noise-folder a= is given twice",
        ),
        (["plan", "m", "-o", "p", "--split", "x", "--seed", "a"], "expected whole numbers"),
        (["plan", "m", "-o", "p", "--split", "x", "--workers", "-1"], "expected a whole number from 0 on"),
        (["render", "p", "-o", "o", "--snr", "0"], "--snr is an option of avsr noise plan, not of avsr noise render"),
        (["mix", "p", "-o", "o"], "noise has no action mix; did you mean render?"),
        ([], "noise needs an action: plan, render"),
    ],
)
def test_wrong_usage_is_told(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["noise", *words]) == 2
    assert message in capsys.readouterr().err


def test_every_protocol_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["noise", "plan", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in PROTOCOLS)


def test_a_recording_that_can_be_read_in_part_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rain.wav"
    save_samples(path, np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32))
    data = path.read_bytes()
    path.write_bytes(data + data)
    with pytest.raises(MediaError, match=r"rain\.wav: another recording begins at byte 32044 .* take it out of the"):
        read_pcm(path)
