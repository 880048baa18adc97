"""Random changes for training: noise at exact levels, repetition, and ranges."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from avsr.augment import audio, video
from avsr.datasets.manifest import save_samples
from avsr.errors import DataError
from avsr.lips.crops import centre_crop
from avsr.noise import filters, mixing
from avsr.noise.library import NoiseBank, read_noise_folder
from avsr.randomness import generator, stable_seed
from tests.tiny import random_samples


def decibels(ratio: float) -> float:
    return 20 * float(np.log10(ratio))


@pytest.mark.parametrize("snr_db", [-20.0, -5.0, 0.0, 7.3, 30.0])
def test_snr_is_met_on_active_speech(snr_db: float) -> None:
    speech = random_samples(2.0)
    speech[8000:24_000] = 0  # a pause must not count
    noise = random_samples(2.0, seed=1) * 7
    mixed = audio.mix_at_snr(speech, noise, snr_db)
    added = (mixed - speech).astype(np.float64)
    active = np.concatenate((speech[:8000], speech[24_000:])).astype(np.float64)
    achieved = decibels(np.sqrt((active**2).mean()) / np.sqrt((added**2).mean()))
    assert achieved == pytest.approx(snr_db, abs=0.01)


def test_silence_cannot_be_mixed() -> None:
    speech, silence = random_samples(0.5), np.zeros(8000, np.float32)
    with pytest.raises(DataError, match="noise is digital silence"):
        audio.mix_at_snr(speech, silence, 0.0)
    with pytest.raises(DataError, match="level of digital silence"):
        audio.mix_at_snr(silence, speech, 0.0)
    with pytest.raises(DataError, match="got 10 samples, expected 8000"):
        audio.mix_at_snr(speech, speech[:10], 0.0)
    with pytest.raises(DataError, match="empty"):
        mixing.active_rms(np.zeros(0, np.float32))


@pytest.mark.parametrize(("colour", "fall_db"), [("white", 0), ("pink", 3), ("brown", 6)])
def test_coloured_noise_falls_by_its_decibels_an_octave(colour: filters.NoiseColour, fall_db: float) -> None:
    noise = filters.coloured_noise(160_000, colour, 1)
    power = np.abs(np.fft.rfft(noise)) ** 2
    low, high = power[5000:10_000].mean(), power[20_000:40_000].mean()  # two octaves apart
    assert 10 * np.log10(low / high) == pytest.approx(2 * fall_db, abs=0.5)
    assert noise.std() == pytest.approx(1.0, abs=0.05)


def test_speed_moves_pitch() -> None:
    tone = np.sin(2 * np.pi * 500 * np.arange(16_000) / 16_000).astype(np.float32)
    faster = audio.change_speed(tone, 1.25)
    assert len(faster) == pytest.approx(12_800, abs=1)
    assert np.abs(np.fft.rfft(faster)).argmax() * 16_000 / len(faster) == pytest.approx(625, abs=2)


def test_channel_stays_within_its_depth() -> None:
    noise = random_samples(2.0)
    coloured = audio.colour_channel(noise, 6.0, generator("channel"))
    assert coloured.shape == noise.shape
    bands = zip(
        np.array_split(np.abs(np.fft.rfft(noise)), 40), np.array_split(np.abs(np.fft.rfft(coloured)), 40), strict=True
    )
    gains = [decibels(float(np.sqrt((b**2).mean() / (a**2).mean()))) for a, b in bands]
    assert max(map(abs, gains)) < 6.5
    assert np.std(gains) > 0.5


def test_noise_bank_draws_any_length_and_repeats(tmp_path: Path) -> None:
    save_samples(tmp_path / "a" / "short.wav", random_samples(0.3))
    save_samples(tmp_path / "silent.wav", np.zeros(1000, np.float32))
    noises = read_noise_folder(tmp_path)
    assert list(noises) == ["a/short.wav"]
    bank = NoiseBank(list(noises.values()), [random_samples(1.0, seed=s) for s in range(3)])
    kinds = set()
    for index in range(60):
        noise, kind = bank.draw(20_000, generator("draw", index))
        again, _ = bank.draw(20_000, generator("draw", index))
        np.testing.assert_array_equal(noise, again)
        assert noise.shape == (20_000,) and noise.any()
        kinds.add(kind)
    assert kinds == {"environment", "babble", "coloured"}
    assert NoiseBank([], []).draw(100, generator("x"))[1] == "coloured"
    for share in (0.0, 0.6, 1.0):
        bank = NoiseBank(bank.environment, bank.voices, share)
        drawn = [bank.draw(100, generator("share", index))[1] for index in range(200)]
        assert drawn.count("babble") == pytest.approx(200 * share, abs=25)
        assert (drawn.count("environment") > drawn.count("coloured") > 0) == (share < 1)
    with pytest.raises(DataError, match="no noise"):
        read_noise_folder(tmp_path / "nothing")


def test_seeds_depend_on_every_part_and_on_nothing_else() -> None:
    assert stable_seed(1, "a", "noise") == 2270531152551601419
    assert (
        len({stable_seed(1, "a", "x"), stable_seed(2, "a", "x"), stable_seed(1, "b", "x"), stable_seed(1, "a", "y")})
        == 4
    )


def test_lips_vary_alike_in_every_frame() -> None:
    crop = np.zeros((96, 96), np.uint8)
    crop[40:60, 30:70] = 200
    clip = np.repeat(crop[None], 5, axis=0)
    varied, done = video.vary_lips(clip, 1.0, generator("lips", 3))
    assert varied.shape == (5, 88, 88) and varied.dtype == np.uint8
    assert (varied == varied[:1]).all()
    again, done_again = video.vary_lips(clip, 1.0, generator("lips", 3))
    np.testing.assert_array_equal(varied, again)
    assert done == done_again
    assert not np.array_equal(varied, video.vary_lips(clip, 1.0, generator("lips", 4))[0])


def test_a_view_is_what_its_record_says() -> None:
    clip = np.zeros((1, 96, 96), np.uint8)
    clip[0, 58:63, 28:33] = 250  # about x 30, y 60
    seen = 0
    for index in range(12):
        varied, done = video.vary_lips(clip, 1.0, generator("view", index))
        x, y = (95 - 30 if done["mirrored"] else 30) - 47.5, 60 - 47.5
        angle, scale = np.radians(float(done["angle_deg"])), float(done["scale"])  # clockwise, as pictures have it
        shift_x, shift_y = done["shift_px"]
        expected_x = 47.5 + scale * (np.cos(angle) * x - np.sin(angle) * y) + shift_x - 4
        expected_y = 47.5 + scale * (np.sin(angle) * x + np.cos(angle) * y) + shift_y - 4
        weights = np.where(varied[0] > 40, varied[0], 0).astype(float)
        rows, columns = np.indices(weights.shape)
        if "side_px" not in done:
            seen += 1
            assert (columns * weights).sum() / weights.sum() == pytest.approx(expected_x, abs=0.5)
            assert (rows * weights).sum() / weights.sum() == pytest.approx(expected_y, abs=0.5)
    assert seen > 5


def test_centre_crop_and_hidden_slots() -> None:
    clip = np.arange(96 * 96).reshape(1, 96, 96).astype(np.uint8)
    np.testing.assert_array_equal(centre_crop(clip), clip[:, 4:92, 4:92])
    np.testing.assert_array_equal(centre_crop(centre_crop(clip)), clip[:, 4:92, 4:92])
    for index in range(30):
        presence, done = video.hide_slots(np.ones(50, bool), 10, generator(index))
        hidden = ~presence
        assert hidden[int(done["first"]) : int(done["last"]) + 1].sum() == hidden.sum()
        assert hidden.sum() <= 10
        assert np.abs(np.diff(hidden.astype(int))).sum() <= 2  # one stretch


def talking(slots: int = 30) -> np.ndarray:
    """Crops with detail at all scales, another picture each slot."""
    random = np.random.default_rng(9)
    smooth = np.cumsum(np.cumsum(random.standard_normal((slots, 96, 96)), axis=1), axis=2)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return (200 * smooth + 40 * random.random((slots, 96, 96))).astype(np.uint8)


def sharpness(clip: np.ndarray) -> float:
    return float(np.diff(clip.astype(float), axis=2).std())


def test_blur_spreads_a_point_by_its_deviation() -> None:
    clip = np.zeros((2, 96, 96), np.uint8)
    clip[:, 48, 48] = 255
    column = video.blur(np.maximum(clip, clip.max(axis=1, keepdims=True)), 3.0)[0].astype(float).mean(axis=0)
    x = np.arange(96)
    assert (column * x).sum() / column.sum() == pytest.approx(48, abs=0.1)
    assert np.sqrt((column * (x - 48) ** 2).sum() / column.sum()) == pytest.approx(3.0, abs=0.3)
    np.testing.assert_array_equal(video.blur(clip, 0), clip)


def test_degradations_grow_with_their_parameter_and_keep_the_clip() -> None:
    clip = talking(4)
    before = clip.copy()
    for change, values in (
        (video.blur, (0.5, 1.0, 2.0, 4.0)),
        (video.low_resolution, (90, 48, 24, 8)),
        (video.compress, (100, 40, 15, 1)),
    ):
        errors = [np.abs(change(clip, value).astype(float) - clip).mean() for value in values]
        assert errors == sorted(errors) and errors[0] < errors[-1], change.__name__
        again = change(clip, values[1])
        assert again.dtype == np.uint8 and again.shape == clip.shape
        np.testing.assert_array_equal(again[2:3], change(clip[2:3], values[1]))  # each crop by itself
        assert change(clip[:0], values[1]).shape == (0, 96, 96)
    assert sharpness(video.low_resolution(clip, 24)) < 0.5 * sharpness(clip)
    np.testing.assert_array_equal(video.low_resolution(clip, 96), clip)
    np.testing.assert_array_equal(video.relight(clip, 0.0, 1.0), clip)
    assert video.relight(clip, 0.2, 1.0).mean() > clip.mean() + 30
    np.testing.assert_array_equal(clip, before)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6, 1.0])
def test_occluder_covers_its_share(share: float) -> None:
    black, white = np.zeros((40, 96, 96), np.uint8), np.full((40, 96, 96), 255, np.uint8)
    kinds = set()
    for seed in range(12):
        over_black, over_white = (
            video.occlude(clip, generator("occluder", seed), share).astype(int) for clip in (black, white)
        )
        cover_T = 1 - (over_white - over_black).mean(axis=(1, 2)) / 255  # share of each crop that is covered
        assert cover_T.max() == pytest.approx(share, abs=0.12)  # swaying moves a part of it out of the picture
        assert np.median(cover_T) == pytest.approx(share, abs=0.06)
        kinds.add(video._occluded(black, generator("occluder", seed), share)[1]["kind"])
    assert kinds == set(video.OCCLUDERS)


def test_dropped_slots_are_exactly_the_share_of_present_ones() -> None:
    presence = np.ones(100, bool)
    presence[:20] = False
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        kept = video.drop_slots(presence, generator("drop"), share)
        assert kept.sum() == 80 - round(80 * share)
        assert not kept[:20].any()
    assert presence.sum() == 80
    assert not np.array_equal(
        video.drop_slots(presence, generator("a"), 0.5), video.drop_slots(presence, generator("b"), 0.5)
    )


@pytest.mark.parametrize("slots", [-40, -30, -3, 0, 1, 7, 30, 99])
def test_shifted_slots_arrive_later_and_ends_are_absent(slots: int) -> None:
    clip, presence = talking(30), np.ones(30, bool)
    presence[4] = False
    moved, moved_presence = video.shift_slots(clip, presence, slots)
    for index in range(30):
        source = index - slots
        if 0 <= source < 30:
            np.testing.assert_array_equal(moved[index], clip[source])
            assert moved_presence[index] == presence[source]
        else:
            assert not moved[index].any() and not moved_presence[index]


def test_a_frozen_picture_stays() -> None:
    clip, presence = talking(30), np.ones(30, bool)
    presence[12] = False
    frozen, kept = video.freeze(clip, presence, 10, 19)
    assert (frozen[10:20] == clip[10]).all() and kept[10:20].all()
    np.testing.assert_array_equal(frozen[20:], clip[20:])
    np.testing.assert_array_equal(frozen[:10], clip[:10])
    assert not video.freeze(clip, presence, 12, 15)[1][12:16].any()


def test_impossible_degradations_are_refused() -> None:
    clip, presence, random = talking(3), np.ones(3, bool), generator("x")
    for refused in (
        lambda: video.blur(clip, -1),
        lambda: video.blur(clip, float("nan")),
        lambda: video.low_resolution(clip, 0),
        lambda: video.low_resolution(clip, 97),
        lambda: video.compress(clip, 0),
        lambda: video.relight(clip, 0.0, 1.0, 0.0),
        lambda: video.relight(clip, float("inf"), 1.0),
        lambda: video.occlude(clip, random, 1.5),
        lambda: video.drop_slots(presence, random, -0.1),
        lambda: video.freeze(clip, presence, 2, 3),
    ):
        with pytest.raises(ValueError, match="got .*, expected"):
            refused()


EVERYTHING = video.LipEffects(**{field.name: 1.0 for field in dataclasses.fields(video.LipEffects)})


def test_effects_repeat_are_recorded_and_leave_the_input_alone() -> None:
    clip, presence = talking(40), np.ones(40, bool)
    presence[:3] = False
    before, presence_before = clip.copy(), presence.copy()
    one = video.apply_effects(clip, presence, EVERYTHING, generator("effects", 1))
    again = video.apply_effects(clip, presence, EVERYTHING, generator("effects", 1))
    other = video.apply_effects(clip, presence, EVERYTHING, generator("effects", 2))
    np.testing.assert_array_equal(one[0], again[0])
    np.testing.assert_array_equal(one[1], again[1])
    assert one[2] == again[2] != other[2]
    assert not np.array_equal(one[0], other[0])
    assert [done["effect"] for done in one[2]] == [field.name for field in dataclasses.fields(video.LipEffects)]
    json.dumps(one[2])  # can be written down
    np.testing.assert_array_equal(clip, before)
    np.testing.assert_array_equal(presence, presence_before)
    without_shift = dataclasses.replace(EVERYTHING, late=0.0)
    kept = video.apply_effects(clip, presence, without_shift, generator("effects", 1))[1]
    assert not (kept & ~presence).any()


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(video.LipEffects)])
def test_each_effect_alone_does_what_its_record_says(name: str) -> None:
    clip, presence = talking(40), np.ones(40, bool)
    for seed in range(8):
        effects = video.LipEffects(**{name: 1.0})
        crops, kept, (done,) = video.apply_effects(clip, presence, effects, generator(name, seed))
        match name:
            case "light":
                expected = video.relight(clip, done["brightness"], done["contrast"], done["gamma"])
            case "low_resolution":
                expected = video.low_resolution(clip, done["side_px"])
            case "blur":
                expected = video.blur(clip, done["sigma_px"])
            case "compression":
                expected = video.compress(clip, done["quality"])
            case "frozen":
                expected = video.freeze(clip, presence, done["first"], done["last"])[0]
                assert 2 <= done["last"] - done["first"] + 1 <= 20 or done["last"] == 39
            case "face":
                expected = crops
                assert crops.shape == clip.shape and not np.array_equal(crops, clip)
                # The same change in every crop: equal pictures stay equal.
                twice = video.another_face(np.stack([clip[0], clip[0]]), generator(name, seed))[0]
                np.testing.assert_array_equal(twice[0], twice[1])
            case "late":
                expected, moved = video.shift_slots(clip, presence, done["slots"])
                assert 5 <= abs(done["slots"]) <= 15
                np.testing.assert_array_equal(kept, moved)
            case "dropped":
                expected = clip
                assert kept.sum() == 40 - round(40 * done["share"])
            case "occluder" | "time_mask":
                spans = done["spans"] if name == "time_mask" else [(done["first"], done["last"])]
                expected = clip.copy()
                for first, last in spans:
                    assert 0 <= first <= last < 40
                    expected[first : last + 1] = crops[first : last + 1]
        np.testing.assert_array_equal(crops, expected)
        assert kept.all() or name in ("dropped", "late")


def test_effects_come_as_often_as_asked() -> None:
    clip, presence = talking(4), np.ones(4, bool)
    effects = video.LipEffects(light=0.25, dropped=0.5)
    names = [
        done["effect"]
        for index in range(400)
        for done in video.apply_effects(clip, presence, effects, generator("often", index))[2]
    ]
    assert set(names) == {"light", "dropped"}
    assert 70 <= names.count("light") <= 130 and 165 <= names.count("dropped") <= 235
    assert video.apply_effects(clip, presence, video.LipEffects(), generator("none"))[2] == []
    crops, kept, _ = video.apply_effects(clip[:0], presence[:0], EVERYTHING, generator("empty"))
    assert len(crops) == len(kept) == 0
    one, _, done = video.apply_effects(clip[:1], presence[:1], EVERYTHING, generator("single"))
    assert one.shape == (1, 96, 96) and len(done) == 10


def test_another_face_has_another_mouth() -> None:
    crops = np.full((1, 96, 96), 180, np.uint8)
    crops[0, 43:53, 30:66] = 40  # a dark mouth
    widths, heights, beards = [], [], 0
    for seed in range(60):
        changed, done = video.another_face(crops, generator("face", seed))
        dark = changed[0] < 100
        if done["hair"] == "none":
            widths.append(dark[48 - 6 : 48 + 6].any(0).sum() / 36)
            heights.append(dark[:, 48 - 6 : 48 + 6].any(1).sum() / 10)
            near = float(done["wide"])  # type: ignore[arg-type]
            assert widths[-1] == pytest.approx(near, abs=0.25)
        else:
            beards += 1
            chin = changed[0, 80:95, 30:66].astype(float)
            assert done["hair"] == "moustache" or chin.std() > 1
    assert min(widths) < 0.9 and max(widths) > 1.1 and min(heights) < 0.95 and max(heights) > 1.1
    assert 10 < beards < 45


def test_a_share_of_an_effect_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="blur: got 1.5, expected 0 to 1"):
        video.LipEffects(blur=1.5)
