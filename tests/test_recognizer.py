"""From files to transcripts: modalities, windows, times, and what cannot be transcribed."""

from __future__ import annotations

import dataclasses
import io
import os
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

import avsr
from avsr.decoding.search import Search
from avsr.errors import ConfigError, MediaError, ModelError
from avsr.grid import FRAME_SAMPLES
from avsr.lips.slots import LipSlot, Slot
from avsr.media import Tracks, read_audio
from avsr.offline import source as source_module
from avsr.offline import windows as windows_module
from avsr.offline.joining import window_log_probs
from avsr.offline.source import open_source
from avsr.offline.tape import Window
from avsr.offline.windows import windows
from avsr.recognizer import Recognizer
from tests.media import shared_clip
from tests.tiny import engine_of, live_network, own_recognizer, random_samples, tiny_network, tiny_tokenizer


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return own_recognizer(tiny_network(), tiny_tokenizer())


def write_wav(path: Path, samples: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def write_video(path: Path, seconds: float, *, sound: bool) -> Path:
    """Grey pictures without a face, and noise."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width = video.height = 64
        audio = container.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for _ in range(round(25 * seconds)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), format="rgb24")))
        container.mux(video.encode())
        if audio is not None:
            samples = random_samples(seconds)
            for first in range(0, len(samples), 1024):
                frame = av.AudioFrame.from_ndarray(samples[None, first : first + 1024], format="fltp", layout="mono")
                frame.sample_rate = 16_000
                frame.pts = first
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def test_batch_equals_single(recognizer: Recognizer) -> None:
    utterances = [random_samples(seconds, seed=index) for index, seconds in enumerate((1.3, 0.4, 2.0))]
    batch = recognizer.log_probs(utterances)
    for index, samples in enumerate(utterances):
        one = recognizer.log_probs([samples])
        np.testing.assert_allclose(one[0], batch[index], atol=5e-5, rtol=0)


def test_absent_lips_are_bit_for_bit_audio_only(recognizer: Recognizer) -> None:
    samples = [random_samples(1.0)]
    lips = [np.random.default_rng(0).integers(0, 255, (25, 96, 96), np.uint8)]
    alone = recognizer.log_probs(samples)
    absent = recognizer.log_probs(samples, lips, [np.zeros(25, bool)])
    present = recognizer.log_probs(samples, lips)
    assert np.array_equal(alone[0], absent[0])
    assert not np.allclose(alone[0], present[0])


def test_bfloat16_is_close() -> None:
    half = own_recognizer(tiny_network(), tiny_tokenizer(), dtype=torch.bfloat16)
    samples, lips = [random_samples(1.0)], [np.random.default_rng(0).integers(0, 255, (25, 96, 96), np.uint8)]
    got = half.log_probs(samples, lips)
    full = own_recognizer(tiny_network(), tiny_tokenizer()).log_probs(samples, lips)
    assert got[0].dtype == np.float32
    assert not np.array_equal(got[0], full[0])
    np.testing.assert_allclose(got[0], full[0], atol=0.3, rtol=0)


def test_wrong_arrays_are_refused(recognizer: Recognizer) -> None:
    with pytest.raises(ValueError, match=r"samples 0: got shape \(2, 3\)"):
        recognizer.log_probs([np.zeros((2, 3), np.float32)])
    with pytest.raises(ValueError, match="samples 0: got values up to 32768, expected .* divide by 32768"):
        recognizer.log_probs([np.full(1600, 32768.0, np.float32)])
    with pytest.raises(ValueError, match="not finite"):
        recognizer.log_probs([np.full(1600, np.nan, np.float32)])
    with pytest.raises(ValueError, match="expected uint8"):
        recognizer.log_probs([random_samples(1.0)], [np.zeros((25, 96, 96), np.float32)])
    with pytest.raises(ValueError, match="got 1 lips and 1 presences, expected 2"):
        recognizer.log_probs([random_samples(1.0)] * 2, [np.zeros((25, 96, 96), np.uint8)])
    with pytest.raises(ValueError, match="neither"):
        recognizer.log_probs(None)


def test_very_little_sound(recognizer: Recognizer, tmp_path: Path) -> None:
    for seconds in (0.0, 0.005, 0.012, 0.03):
        log_probs = recognizer.log_probs([random_samples(seconds)])
        assert len(log_probs) == 1 and log_probs[0].shape[1:] == (7,)
        if seconds:
            recognizer.transcribe(write_wav(tmp_path / "a.wav", random_samples(seconds)))
    with pytest.raises(ValueError, match="got no utterances"):
        recognizer.log_probs([])


def test_a_sound_file(recognizer: Recognizer, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", random_samples(2.5))
    done: list[float] = []
    transcript = recognizer.transcribe(path, on_progress=done.append)
    assert (transcript.modality, transcript.video, transcript.source) == ("a", None, str(path))
    assert transcript.duration == pytest.approx(2.5, abs=0.01)
    assert done == [pytest.approx(2.5, abs=0.01)]
    for word in transcript.words:
        assert 0 <= word.start < word.end <= 2.5
        assert 0 < word.confidence <= 1
        assert (word.modality, word.face) == ("a", None)
    assert all(a.end <= b.start + 1e-9 for a, b in zip(transcript.words, transcript.words[1:], strict=False))


def test_a_number_of_a_face_without_a_picture_has_no_effect_and_that_is_said(tmp_path: Path) -> None:
    recognizer = speaking()
    line = "there is no picture: face 3 has no effect"
    assert line in recognizer.transcribe(random_samples(1.0), face=3).warnings
    assert not any("no effect" in line for line in recognizer.transcribe(random_samples(1.0), face="largest").warnings)
    wall = write_video(tmp_path / "wall.mp4", 0.6, sound=True)
    line = "modality a leaves the picture unread: face 0 has no effect"
    assert line in recognizer.transcribe(wall, modality="a", face=0).warnings


def test_what_a_file_lacks_is_said(recognizer: Recognizer, tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "a.wav", random_samples(1.0))
    with pytest.raises(MediaError, match="a.wav: has no video: expected video for modality v; use modality a"):
        recognizer.transcribe(sound, modality="v")
    silent = write_video(tmp_path / "silent.mp4", 0.6, sound=False)
    with pytest.raises(MediaError, match="silent.mp4: has no sound: expected sound for modality a; use modality v"):
        recognizer.transcribe(silent, modality="a")
    with pytest.raises(MediaError, match="nothing to recognise: got no sound and no readable face.*film the speaker"):
        recognizer.transcribe(silent)
    with pytest.raises(ConfigError, match="unknown modality: got audio"):
        recognizer.transcribe(sound, modality="audio")  # type: ignore[arg-type]
    with pytest.raises(MediaError, match="no file: got ''"):
        recognizer.transcribe("")
    assert recognizer.transcribe(os.fsencode(sound)).source == str(sound)  # type: ignore[arg-type]
    with pytest.raises(MediaError, match="none.mp4"):
        recognizer.transcribe(tmp_path / "none.mp4")


def windows_of(path: Path, *, picture: bool) -> list[Window]:
    with open_source(path) as source:
        return list(windows(source, sound=True, picture=picture))


def log_probs_of(recognizer: Recognizer, window: Window) -> np.ndarray:
    """What transcription makes of a window."""
    assert recognizer.model.frames is not None
    return window_log_probs(recognizer.model.frames, recognizer.model.frames.frame_search(Search()), window)


def speaking(words: int = 3) -> Recognizer:
    """A model that says its words whatever it gets, as a trained one does with silence."""
    network = tiny_network()
    with torch.no_grad():
        network.audio_head.project.weight.normal_(std=3.0, generator=torch.Generator().manual_seed(1))
        network.audio_head.project.bias[-1] = -30.0
    return own_recognizer(network, tiny_tokenizer())


@pytest.mark.parametrize("peak", [0.0, 3.1e-5])
def test_no_words_from_silence(tmp_path: Path, peak: float) -> None:
    recognizer = speaking()
    silence = np.random.default_rng(0).uniform(-peak, peak, 32_000).astype(np.float32)
    assert recognizer.transcribe(write_wav(tmp_path / "a.wav", random_samples(2.0))).words
    path = write_wav(tmp_path / "silence.wav", silence)
    transcript = recognizer.transcribe(path)
    assert (transcript.text, transcript.segments, transcript.warnings) == ("", (), ("the sound is silent",))
    assert transcript.duration == pytest.approx(2.0)


def test_faint_sound_without_a_voice_is_said_once() -> None:
    hiss = np.random.default_rng(0).normal(0, 8e-4, 8000).astype(np.float32)
    (line,) = speaking().transcribe(hiss).warnings
    assert line.startswith("the sound is very quiet (-6") and line.endswith("it counts as silence")


def test_no_words_from_silence_beside_sound(tmp_path: Path) -> None:
    recognizer = speaking()
    sound = random_samples(2.0)
    samples = np.concatenate((np.zeros(32_000, np.float32), sound, np.zeros(32_000, np.float32)))
    transcript = recognizer.transcribe(write_wav(tmp_path / "a.wav", samples))
    assert transcript.warnings == ()
    assert transcript.words
    for word in transcript.words:
        assert 2.0 - 0.56 <= word.start < word.end <= 4.0 + 0.56
    # Frames within reach of sound are as they were.
    window = Window(0, (0, 75), samples, None, None, [], [])
    whole = recognizer.log_probs([samples])
    cut = log_probs_of(recognizer, window)
    assert np.array_equal(cut[19:56], whole[0][19:56])
    assert (cut[:19].argmax(-1) == recognizer.model.network.blank_id).all()


def test_lips_speak_where_the_sound_is_silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recognizer = speaking()
    crops = np.random.default_rng(0).integers(0, 255, (50, 96, 96), np.uint8)
    monkeypatch.setattr(windows_module, "iter_frames", lambda path, **_: iter(()))
    slots = [Slot(k, {7: LipSlot(k, crop, True, "ok", 7, width_px=100.0)}) for k, crop in enumerate(crops)]
    monkeypatch.setattr(windows_module, "slots_of", lambda frames, **options: iter(slots))
    path = write_video(tmp_path / "a.mp4", 2.0, sound=True)
    monkeypatch.setattr(source_module, "iter_audio", lambda path, **_: iter([np.zeros(32_000, np.float32)]))
    transcript = recognizer.transcribe(path)
    assert transcript.modality == "v"
    assert transcript.warnings == ("the sound is silent: recognised from the lips alone",)
    assert {word.modality for word in transcript.words} == {"v"}
    expected = recognizer.log_probs(None, [crops])
    (window,) = windows_of(path, picture=True)
    assert np.array_equal(log_probs_of(recognizer, window), expected[0])
    with_nothing = recognizer.transcribe(path, modality="a")
    assert (with_nothing.words, with_nothing.modality) == ((), "a")


def trained_for(*modalities: str, sides: bool = False) -> Recognizer:
    network = speaking().model.network
    network.config = dataclasses.replace(
        network.config,
        trained=modalities,  # type: ignore[arg-type]
        decodes="sides" if sides else "fused",
    )
    return own_recognizer(network, tiny_tokenizer())


def test_what_a_model_was_trained_for(tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "a.wav", random_samples(1.0))
    lips_only = trained_for("v", sides=True)
    with pytest.raises(ModelError, match="model tiny was not trained for modality a: expected v; use modality auto"):
        lips_only.transcribe(sound, modality="a")
    with pytest.raises(MediaError, match="use a model that hears; tiny only reads lips"):
        lips_only.transcribe(sound)
    samples, lips = [random_samples(1.0)], [np.zeros((26, 96, 96), np.uint8)]
    with pytest.raises(ModelError, match="not trained for modality av"):
        lips_only.log_probs(samples, lips)
    got = lips_only.log_probs(None, lips)
    assert lips_only.model.network.visual_head is not None
    crops, presence = engine_of(lips_only).lip_tensors(lips, [np.ones(26, bool)])
    with torch.inference_mode():
        output = lips_only.model.network(None, torch.tensor([104]), crops, presence)
    assert output.visual_log_probs is not None and np.array_equal(got[0], output.visual_log_probs[0].numpy())
    hears = trained_for("a", sides=True)
    got = hears.log_probs(samples)
    with torch.inference_mode():
        output = hears.model.network(*engine_of(hears).features(samples))
    assert output.audio_log_probs is not None and np.array_equal(got[0], output.audio_log_probs[0].numpy())
    assert hears.transcribe(write_video(tmp_path / "wall.mp4", 0.6, sound=True)).modality == "a"


def test_auto_keeps_to_what_a_model_was_trained_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    crop = np.zeros((96, 96), np.uint8)
    slots = [Slot(k, {7: LipSlot(k, crop, True, "ok", 7, width_px=100.0)}) for k in range(20)]
    monkeypatch.setattr(windows_module, "slots_of", lambda frames, **options: iter(slots))
    path = write_video(tmp_path / "a.mp4", 0.8, sound=True)
    transcript = trained_for("v", sides=True).transcribe(path)
    assert transcript.modality == "v"
    assert transcript.warnings[0] == "recognised from the lips alone: model tiny was not trained for sound"
    assert trained_for("a", "v", sides=True).transcribe(path).modality == "a"
    assert trained_for("av").transcribe(path).modality == "av"


def test_a_closed_domain_is_said_on_every_run(tmp_path: Path) -> None:
    network = speaking().model.network
    path = write_wav(tmp_path / "a.wav", random_samples(1.0))
    network.config = dataclasses.replace(network.config, domain="the six words of a test")
    transcript = own_recognizer(network, tiny_tokenizer()).transcribe(path)
    assert transcript.words
    assert transcript.warnings == ("model tiny knows only the six words of a test: other speech comes out as these",)
    network.config = dataclasses.replace(network.config, domain=None)  # as in checkpoints from before
    transcript = own_recognizer(network, tiny_tokenizer()).transcribe(path)
    assert transcript.warnings[0].startswith("model tiny knows only the 6 words of its vocabulary")


def test_a_model_that_recognises_nothing_says_so(tmp_path: Path) -> None:
    network = speaking().model.network
    with torch.no_grad():
        network.audio_head.project.bias[-1] = 1000.0  # as an untrained model: blank everywhere
    recognizer = own_recognizer(network, tiny_tokenizer())
    transcript = recognizer.transcribe(write_wav(tmp_path / "a.wav", random_samples(1.0)))
    assert (transcript.words, transcript.warnings) == ((), ("no words were recognised",))


def test_samples_and_open_files_are_transcribed_as_the_file_is(tmp_path: Path) -> None:
    recognizer = speaking()
    path = write_wav(tmp_path / "a.wav", random_samples(2.0))
    expected = recognizer.transcribe(path)
    assert expected.words
    with path.open("rb") as file:
        assert recognizer.transcribe(file) == expected
    from_bytes = recognizer.transcribe(io.BytesIO(path.read_bytes()))
    assert (from_bytes.source, from_bytes.segments) == ("the open file", expected.segments)
    from_samples = recognizer.transcribe(read_audio(path))
    assert (from_samples.source, from_samples.segments) == ("samples", expected.segments)


def test_damage_of_an_open_file_is_told_without_a_word_of_the_copy_that_is_read() -> None:
    path = shared_clip("truncated_faststart.mp4")
    recognizer = speaking()
    told = recognizer.transcribe(path, modality="a").warnings
    assert told[0].startswith("the sound is damaged at 1.2")
    with path.open("rb") as file:
        assert recognizer.transcribe(file, modality="a").warnings == told
    assert recognizer.transcribe(io.BytesIO(path.read_bytes()), modality="a").warnings == told


def test_an_error_while_an_open_file_is_read_has_its_name(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", random_samples(1.0))
    with pytest.raises(MediaError, match="^the open file: no sound$"), open_source(io.BytesIO(path.read_bytes())) as it:
        raise MediaError(f"{it.path}: no sound")


def test_what_cannot_be_transcribed_is_refused_in_one_line(tmp_path: Path) -> None:
    recognizer = speaking()
    for wrong, error, message in (
        (17, TypeError, "got int, expected a path, an open binary file, or samples"),
        (np.zeros(16_000, np.int16), ValueError, "samples: got int16, expected float32"),
        (np.zeros((2, 16_000), np.float32), ValueError, r"samples: got shape \(2, 16000\), expected one dimension"),
        (np.full(16_000, np.inf, np.float32), ValueError, "samples: got values that are not finite"),
        (random_samples(1.0) * 32768, ValueError, r"samples: got values up to \d+, expected .*; divide by 32768"),
        (np.full(16_000, -4.1), ValueError, "divide by 32768"),
        (io.StringIO("text"), TypeError, "got a file opened as text, expected one opened with mode 'rb'"),
        (io.BytesIO(b"text"), MediaError, "the open file: cannot be opened as media"),
    ):
        with pytest.raises(error, match=message):
            recognizer.transcribe(wrong)  # type: ignore[arg-type]


def test_a_codec_that_overshoots_and_a_loud_file_are_no_mistake(tmp_path: Path) -> None:
    recognizer = speaking()
    loud = random_samples(1.0)
    assert recognizer.transcribe(loud / np.abs(loud).max() * 3.9).words
    path = tmp_path / "float.wav"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_f32le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray((loud / np.abs(loud).max() * 30)[None], format="flt", layout="mono")
        frame.sample_rate = 16_000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    assert recognizer.transcribe(path).words


@pytest.mark.parametrize("tracks", [3, (2, None), {"audio": 2}, Tracks(audio="2"), Tracks(video=True)])  # type: ignore[arg-type]
def test_tracks_of_another_kind_are_refused_in_one_line(tmp_path: Path, tracks: Any) -> None:
    path = write_wav(tmp_path / "a.wav", random_samples(0.5))
    with pytest.raises(ConfigError, match=r"wrong tracks: got .*, expected avsr\.media\.Tracks\(audio=, video=\)"):
        speaking().transcribe(path, tracks=tracks)
    speaking().transcribe(path, tracks=Tracks(audio=1))


def test_a_search_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    recognizer = own_recognizer(live_network(), tiny_tokenizer())
    message = "model tiny has no such search: got beam, expected greedy"
    with pytest.raises(ConfigError, match=message):
        recognizer.transcribe(random_samples(1.0), search=Search("beam"))
    with pytest.raises(ConfigError, match=message):
        recognizer.stream(search=Search("beam"))


@pytest.mark.parametrize(
    ("search", "line"),
    [
        (Search(beam=0), "wrong beam of the search: got 0, expected a whole number from 1 on"),
        (Search(beam=2.5), "wrong beam of the search: got 2.5"),
        (Search(temperature=1.5), "wrong temperature of the search: got 1.5, expected 0 to 1"),
        (Search(temperature=float("nan")), "wrong temperature of the search: got nan"),
        (Search(task="sing"), "unknown task of the search: got 'sing', expected transcribe or translate"),
        (Search(language=3), "wrong language of the search: got 3"),
        ("ko", "search is no avsr.Search: got 'ko'; write avsr.Search\\(language=\"ko\"\\)"),
        ({}, "search is no avsr.Search: got {}"),
    ],
)
def test_wrong_searches_are_refused_in_one_line(search: Any, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        speaking().transcribe(random_samples(0.5), search=search)
    with pytest.raises(ConfigError, match=line):
        own_recognizer(live_network(), tiny_tokenizer()).stream(search=search)


def test_a_beam_that_the_model_does_not_use_is_said() -> None:
    recognizer = speaking()
    sound = random_samples(0.5)
    (line,) = recognizer.transcribe(sound, search=Search(beam=8)).warnings
    assert line == "model tiny does not search with a beam: beam 8 has no effect"
    (line,) = recognizer.transcribe(sound, search=Search(temperature=0.5)).warnings
    assert line == "model tiny does not search with a beam: temperature 0.5 has no effect"
    assert recognizer.transcribe(sound, search=Search()).warnings == ()


def test_repr_says_what_it_is() -> None:
    assert repr(speaking()) == "<Recognizer tiny: own, a, v, av, domain open>"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dtype": "banana"}, "unknown dtype: got 'banana', expected None, a torch.dtype, or auto"),
        ({"dtype": torch.int32}, "unknown dtype: got torch.int32"),
        ({"device": "mps"}, "device mps is not supported: expected auto, cpu, cuda"),
        ({"device": "meta"}, "device meta is not supported"),
        ({"device": "gpu"}, "unknown device: got 'gpu'"),
        ({"device": None}, "unknown device: got None"),
        ({"device": "cuda:99"}, "device cuda:99 is not there"),
    ],
)
def test_wrong_arguments_of_load(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        avsr.load("grid-tiny", **wrong)


def test_no_face_means_sound_alone_with_a_warning(recognizer: Recognizer, tmp_path: Path) -> None:
    path = write_video(tmp_path / "wall.mp4", 1.0, sound=True)
    seen = recognizer.transcribe(path)
    assert seen.modality == "a"
    assert seen.video is not None and seen.video.coverage == 0.0
    assert any("no readable face (no face found)" in warning for warning in seen.warnings)
    assert seen.segments == recognizer.transcribe(path, modality="a").segments


def test_a_model_that_only_hears(tmp_path: Path) -> None:
    hears = own_recognizer(tiny_network(lips=False), tiny_tokenizer())
    path = write_video(tmp_path / "wall.mp4", 0.6, sound=True)
    assert hears.transcribe(path).modality == "a"
    with pytest.raises(ModelError, match="model tiny only hears"):
        hears.transcribe(path, modality="av")
    silent = write_video(tmp_path / "silent.mp4", 0.6, sound=False)
    for modality in ("auto", "a"):
        with pytest.raises(MediaError, match="has no sound.*; use a model whose modalities have v.*; tiny only hears"):
            hears.transcribe(silent, modality=modality)


@pytest.mark.parametrize("seconds", [0.3, 15.0, 17.9, 18.1, 34.0, 52.3])
def test_windows_cover_a_file_once(tmp_path: Path, seconds: float) -> None:
    samples = random_samples(seconds)
    path = write_wav(tmp_path / "a.wav", samples)
    cut = list(windows_of(path, picture=False))
    frames = -(-(len(samples) // 160) // 8)
    assert [window.keep[0] for window in cut] == [0, *(window.keep[1] for window in cut[:-1])]
    assert cut[-1].keep[1] == frames
    for window in cut:
        assert window.samples is not None
        first = window.first * FRAME_SAMPLES
        np.testing.assert_allclose(window.samples, samples[first : first + len(window.samples)], atol=1e-4)
        assert len(window.samples) <= 250 * FRAME_SAMPLES


def test_a_window_decides_far_from_its_edges(recognizer: Recognizer, tmp_path: Path) -> None:
    """Cut into windows or not, the result is the same but for what reaches across 2 s."""
    samples = random_samples(40.0)
    path = write_wav(tmp_path / "a.wav", samples)
    parts = [log_probs_of(recognizer, window) for window in windows_of(path, picture=False)]
    rounded = ((samples * 32767).astype("<i2") / 32768).astype(np.float32)
    whole = recognizer.log_probs([rounded])
    assert len(parts) == 3
    np.testing.assert_allclose(np.concatenate(parts), whole[0], atol=2e-2, rtol=0)


def test_lips_longer_or_shorter_than_the_sound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def slots(count: int) -> list[Slot]:
        crops = [np.full((96, 96), k, np.uint8) for k in range(count)]
        return [Slot(k, {7: LipSlot(k, crop, True, "ok", 7, width_px=100.0)}) for k, crop in enumerate(crops)]

    path = write_wav(tmp_path / "a.wav", random_samples(1.0))

    def cut(count: int) -> Window:
        monkeypatch.setattr(windows_module, "iter_frames", lambda path, **_: iter(()))
        monkeypatch.setattr(windows_module, "slots_of", lambda frames, **options: iter(slots(count)))
        (window,) = windows_of(path, picture=True)
        return window

    shorter = cut(10)
    assert shorter.present is not None and shorter.present.tolist() == [True] * 10 + [False] * 16
    assert shorter.faces == [7] * 10
    longer = cut(60)
    assert longer.keep == (0, 30)
    assert longer.samples is not None and len(longer.samples) == 30 * FRAME_SAMPLES
    assert not longer.samples[16_000:].any()


def test_grid_clip_through_the_whole_path(recognizer: Recognizer) -> None:
    transcript = recognizer.transcribe(shared_clip("grid_swiz3n.mpg"))
    assert transcript.modality == "av"
    assert transcript.video is not None
    assert (transcript.video.faces, transcript.video.coverage) == (1, 1.0)
    assert transcript.warnings == ()
    assert {word.modality for word in transcript.words} <= {"av"}


def test_face_only_in_the_middle(recognizer: Recognizer) -> None:
    transcript = recognizer.transcribe(shared_clip("face_enters_leaves.mp4"))
    assert transcript.video is not None
    assert transcript.video.coverage == pytest.approx(0.6, abs=0.03)


def test_a_face_by_its_number(recognizer: Recognizer) -> None:
    path = shared_clip("shot_cut_two_speakers.mp4")
    coverage = {}
    for face in ("auto", "0", 1):
        transcript = recognizer.transcribe(path, face=face)
        assert transcript.video is not None
        coverage[str(face)] = transcript.video.coverage
        assert {word.face for word in transcript.words} <= ({0, 1, None} if face == "auto" else {int(face), None})
    assert coverage["auto"] == pytest.approx(1.0, abs=0.02)
    assert coverage["0"] == pytest.approx(0.4, abs=0.02)
    assert coverage["1"] == pytest.approx(0.6, abs=0.02)
    with pytest.raises(MediaError, match=r"face 7 is not in the picture: got faces 0 \(0.0-1.6 s\), 1 \(1.6-4.0 s\)"):
        recognizer.transcribe(path, face=7)


def test_whole_numbers_are_not_taken_for_sound() -> None:
    recognizer = own_recognizer(tiny_network(), tiny_tokenizer())
    with pytest.raises(ValueError, match="samples 0: got int16, expected float32"):
        recognizer.log_probs([np.zeros(16_000, np.int16)])


def test_a_file_may_be_named_by_its_address_and_content_is_not_a_name(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "two words.wav", random_samples(1.0))
    recognizer = speaking()
    expected = recognizer.transcribe(path)
    for address in (
        f"file://{path}".replace(" ", "%20"),
        f"FILE://localhost{path}".replace(" ", "%20"),
        f"file:{path}",
    ):
        assert recognizer.transcribe(address).segments == expected.segments
    with pytest.raises(MediaError, match="^https://a.example/x.wav: is an address, and only files on this machine"):
        recognizer.transcribe("https://a.example/x.wav")
    with pytest.raises(TypeError, match=r"got \d+ bytes, expected a path; give the content as io.BytesIO"):
        recognizer.transcribe(path.read_bytes())  # type: ignore[arg-type]
