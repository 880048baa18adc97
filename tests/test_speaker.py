"""Who speaks, and how far sound and lips are apart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import avsr
from avsr.grid import SLOT_SAMPLES
from avsr.lips.faces import FaceFinder
from avsr.lips.slots import LipSlot, Slot
from avsr.lips.tracker import extract_lips
from avsr.media import iter_frames, read_audio
from avsr.speakers.offset import MAX_OFFSET_SLOTS, estimate_offset, lag_evidence
from avsr.speakers.speaking_face import KEEP_SLOTS, SpeakerPath, SpeakingFace
from avsr.speakers.synchrony import (
    CHOICE_LAG_SLOTS,
    DIM,
    SynchronyHead,
    SynchronyStream,
    choice_evidence,
    loud_slots,
    mouth_pixels,
    synchrony_head,
)
from tests.media import shared_clip

LAGS = range(-CHOICE_LAG_SLOTS, CHOICE_LAG_SLOTS + 1)


def choose(
    evidence: list[dict[int, float]], sizes: list[dict[int, float]] | dict[int, float], look_ahead: int = 25
) -> list[int | None]:
    path = SpeakerPath(look_ahead)
    chosen: list[int | None] = []
    for slot, nats in enumerate(evidence):
        chosen += path.push(nats, sizes[slot] if isinstance(sizes, list) else sizes)
    return chosen + path.finish()


class TestSpeakerPath:
    def test_without_evidence_it_is_the_largest_face(self) -> None:
        assert choose([{}] * 40, {3: 90.0, 7: 120.0}) == [7] * 40

    def test_evidence_overrules_size_from_the_beginning(self) -> None:
        assert choose([{3: 0.3, 7: -0.5}] * 40, {3: 90.0, 7: 120.0}) == [3] * 40

    def test_the_change_is_where_the_evidence_changes(self) -> None:
        evidence = [{0: 0.5, 1: -0.5}] * 50 + [{0: -0.5, 1: 0.5}] * 50
        assert choose(evidence, {0: 100.0, 1: 100.0}) == [0] * 50 + [1] * 50

    def test_a_few_slots_do_not_change_the_speaker(self) -> None:
        evidence = [{0: 0.5, 1: -0.5}] * 50 + [{0: -0.5, 1: 0.5}] * 4 + [{0: 0.5, 1: -0.5}] * 50
        assert choose(evidence, {0: 100.0, 1: 100.0}) == [0] * 104

    def test_silence_keeps_the_speaker(self) -> None:
        assert choose([{0: 0.5, 1: -0.5}] * 20 + [{}] * 200, {0: 80.0, 1: 100.0}) == [0] * 220

    def test_a_cut_changes_the_face_at_once(self) -> None:
        sizes = [{0: 100.0}] * 50 + [{1: 100.0}] * 50
        assert choose([{}] * 100, sizes) == [0] * 50 + [1] * 50

    def test_a_face_out_of_sight_for_a_moment_comes_back(self) -> None:
        sizes = [{0: 100.0, 1: 100.0}] * 50 + [{1: 100.0}] * 5 + [{0: 100.0, 1: 100.0}] * 50
        evidence = [{0: 0.5, 1: -0.5}] * 50 + [{1: -0.5}] * 5 + [{0: 0.5, 1: -0.5}] * 50
        assert choose(evidence, sizes) == [0] * 105

    def test_nobody_is_nobody(self) -> None:
        sizes: list[dict[int, float]] = [{}] * 10 + [{0: 50.0}] * 10 + [{}] * (2 * KEEP_SLOTS) + [{5: 50.0}] * 10
        chosen = choose([{}] * len(sizes), sizes)
        assert chosen[:20] == [None] * 10 + [0] * 10
        assert chosen[-11:] == [None] + [5] * 10

    def test_a_change_is_placed_in_a_pause(self) -> None:
        """The last slots before the pause seem to fit the other face already; the first slots after it do not yet."""
        path, chosen = SpeakerPath(), []
        for slot in range(100):
            is_pause, fits_first = 40 <= slot < 50, slot < 38
            nats = {} if is_pause else {0: 0.5, 1: -0.5} if fits_first else {0: -0.5, 1: 0.5}
            chosen += path.push(nats, {0: 100.0, 1: 100.0}, is_pause=is_pause)
        chosen += path.finish()
        assert chosen[:40] == [0] * 40
        assert chosen[50:] == [1] * 50

    def test_the_lag_with_the_most_evidence_decides(self) -> None:
        """At the first lag face 1 fits a little, at the second lag face 0 fits well."""
        evidence = {0: np.array([0.0, 0.4]), 1: np.array([0.1, 0.0])}
        path, chosen = SpeakerPath(10, lag_costs=(0.0, 3.0)), []
        for _ in range(60):
            chosen += path.push(evidence, {0: 100.0, 1: 100.0})
        assert chosen + path.finish() == [0] * 60

    def test_a_lag_must_be_worth_its_cost(self) -> None:
        evidence = {0: np.array([0.0, 0.4]), 1: np.array([0.1, 0.0])}
        path, chosen = SpeakerPath(10, lag_costs=(0.0, 30.0)), []
        for _ in range(60):
            chosen += path.push(evidence, {0: 100.0, 1: 100.0})
        assert chosen + path.finish() == [1] * 60

    def test_decisions_come_in_order_and_not_later_than_declared(self) -> None:
        path = SpeakerPath(look_ahead_slots=7)
        counts = [len(path.push({}, {0: 1.0})) for _ in range(30)]
        assert counts == [0] * 7 + [1] * 23
        assert len(path.finish()) == 7


def still_head() -> SynchronyHead:
    """An untrained head: what follows holds for any weights."""
    torch.manual_seed(0)
    return SynchronyHead().eval()


def noise(slots: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(slots * SLOT_SAMPLES, np.float32) * np.float32(0.1)


def crops(slots: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (slots, 96, 96), np.uint8)


class TestHead:
    def test_absent_slots_give_nothing_and_change_nothing(self) -> None:
        head = still_head()
        pictures = torch.from_numpy(crops(30))[None]
        present = torch.ones(1, 30, dtype=torch.bool)
        present[0, 10:14] = False
        other = pictures.clone()
        other[0, 10:14] = 77
        with torch.inference_mode():
            first, second = head.embed_lips(pictures, present), head.embed_lips(other, present)
        assert torch.equal(first, second)
        assert not first[0, 10:14].any()
        assert first.shape == (1, 30, DIM)

    def test_brightness_and_loudness_hardly_matter(self) -> None:
        head = still_head()
        pictures = torch.from_numpy(crops(30)).float()[None] / 2
        present = torch.ones(1, 30, dtype=torch.bool)
        samples = torch.from_numpy(noise(30))[None]
        with torch.inference_mode():
            lips = head.embed_lips(pictures, present)
            brighter = head.embed_lips(pictures + 50, present)
            sound = head.embed_sound(samples)
            louder = head.embed_sound(samples * 4)
        torch.testing.assert_close(lips, brighter, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(sound, louder, atol=1e-2, rtol=1e-2)

    def test_mouth_pixels_are_means_of_four(self) -> None:
        crop = torch.zeros(96, 96)
        crop[16:18, 16:18] = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
        small = mouth_pixels(crop)
        assert small.shape == (32, 32)
        assert small[0, 0] == 3.0
        assert small.sum() == 3.0


class TestStream:
    def test_a_short_gap_in_the_sound_is_no_pause(self) -> None:
        stream, samples = SynchronyStream(head=still_head()), noise(60).reshape(60, SLOT_SAMPLES)
        samples[10:13] = samples[30:50] = 0
        evidence = [seen for sound in samples for seen in stream.push({0: crops(1)[0]}, sound)] + stream.finish()
        assert [seen.slot for seen in evidence if seen.is_pause] == list(range(34, 46))

    def test_order_delay_and_count(self) -> None:
        stream = SynchronyStream(head=still_head(), hop_slots=10)
        pictures, samples = crops(47), noise(47)
        slots = []
        for index in range(47):
            final = stream.push({4: pictures[index]}, samples[index * SLOT_SAMPLES : (index + 1) * SLOT_SAMPLES])
            slots += [seen.slot for seen in final]
            assert index - (slots[-1] if slots else -1) <= stream.look_ahead_slots
        slots += [seen.slot for seen in stream.finish()]
        assert slots == list(range(47))

    def test_first_block_equals_the_head_on_it(self) -> None:
        head = still_head()
        stream = SynchronyStream(head=head)
        pictures, samples = crops(20), noise(20)
        for index in range(20):
            assert not stream.push({4: pictures[index]}, samples[index * SLOT_SAMPLES :][:SLOT_SAMPLES])
        evidence = stream.finish()
        with torch.inference_mode():
            lips = head.embed_lips(torch.from_numpy(pictures)[None], torch.ones(1, 20, dtype=torch.bool))[0]
            sound = head.embed_sound(torch.from_numpy(samples)[None])[0]
        np.testing.assert_allclose([seen.lips[4] for seen in evidence], lips, atol=1e-5)
        np.testing.assert_allclose([seen.sound for seen in evidence], sound, atol=1e-5)
        at_random = float(lips.mean(0) @ sound.mean(0))  # white noise is loud everywhere
        expected = [float(lips[7] @ sound[7 + lag]) - at_random if 0 <= 7 + lag < 20 else 0.0 for lag in LAGS]
        np.testing.assert_allclose(evidence[7].nats[4], expected, atol=1e-4)

    def test_a_photograph_gives_no_evidence(self) -> None:
        """The same embedding in all slots says nothing about the moment, however well it fits the sound."""
        sound = np.random.default_rng(0).standard_normal((40, DIM), np.float32)
        photograph = np.repeat(sound.mean(0)[None] * 9, 40, axis=0)
        nats = choice_evidence(np.stack([photograph, sound]), sound, np.ones(40, bool))[:, :, CHOICE_LAG_SLOTS].sum(1)
        assert abs(nats[0]) < 1e-2
        assert nats[1] > 100

    def test_a_single_face_costs_nothing_when_only_choices_count(self) -> None:
        class Untouched(SynchronyHead):
            def embed_moving(self, moving_BTHW: torch.Tensor, present_BT: torch.Tensor) -> torch.Tensor:
                raise AssertionError("computed for nothing")

        stream = SynchronyStream(head=Untouched(), only_choices=True)
        samples = noise(1)
        evidence = [seen for crop in crops(60) for seen in stream.push({1: crop}, samples)] + stream.finish()
        assert len(evidence) == 60
        assert not any(seen.nats[1].any() for seen in evidence)

    def test_samples_of_another_length_are_refused(self) -> None:
        with pytest.raises(ValueError, match="expected \\(640,\\)"):
            SynchronyStream(head=still_head()).push({}, np.zeros(100, np.float32))


class TestOffset:
    def moved(self, lag: int, slots: int = 80) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Lips and sound embeddings that agree when the sound is `lag` slots late."""
        signal = np.random.default_rng(1).standard_normal((slots + 100, DIM)).astype(np.float32)
        return signal[50 : 50 + slots], signal[50 - lag : 50 - lag + slots]

    @pytest.mark.parametrize("lag", [-MAX_OFFSET_SLOTS + 1, -3, 0, 5, MAX_OFFSET_SLOTS - 1])
    def test_sound_that_comes_later_is_positive(self, lag: int) -> None:
        lips, sound = self.moved(lag)
        everywhere = np.ones(len(lips), bool)
        offset = estimate_offset(lag_evidence(lips, everywhere, sound))
        assert abs(offset.ms - 40 * lag) <= 10
        assert offset.confidence > 0.95

    def test_absent_lips_do_not_count(self) -> None:
        lips, sound = self.moved(3)
        present = np.ones(len(lips), bool)
        present[20:40] = False
        broken = lips.copy()
        broken[20:40] = np.nan
        np.testing.assert_array_equal(lag_evidence(lips, present, sound), lag_evidence(broken, present, sound))

    def test_nothing_to_go_by_is_no_confidence(self) -> None:
        nothing = np.zeros((40, DIM), np.float32)
        nowhere, everywhere = np.zeros(40, bool), np.ones(40, bool)
        assert estimate_offset(lag_evidence(nothing, nowhere, nothing)).confidence == 0.0
        assert estimate_offset(lag_evidence(nothing, everywhere, nothing)).confidence == 0.0

    def test_shorter_than_the_longest_lag(self) -> None:
        lips, sound = self.moved(0, slots=6)
        everywhere = np.ones(6, bool)
        offset = estimate_offset(lag_evidence(lips, everywhere, sound))
        assert math.isfinite(offset.ms) and 0 <= offset.confidence <= 1

    def test_loud_slots(self) -> None:
        samples = np.concatenate([noise(3), noise(2) * 1e-3, np.zeros(SLOT_SAMPLES, np.float32)])
        assert loud_slots(samples).tolist() == [True] * 3 + [False] * 3
        assert not loud_slots(np.zeros(5 * SLOT_SAMPLES, np.float32)).any()


def two_faces(clip: NDArray[np.uint8], other: NDArray[np.uint8]) -> Iterator[Slot]:
    """A speaking face 2, and a larger one 5 with other pictures."""
    for index, (crop, beside) in enumerate(zip(clip, other, strict=True)):
        yield Slot(
            index,
            {
                2: LipSlot(index, crop, True, "ok", 2, width_px=90.0),
                5: LipSlot(index, beside, True, "ok", 5, width_px=120.0),
            },
        )


class TestShippedHead:
    def test_it_is_small(self) -> None:
        assert sum(parameter.numel() for parameter in synchrony_head().parameters()) < 75_000
        assert not synchrony_head().training

    def test_real_clip(self) -> None:
        """The speaker is told from the same mouth at another time, and the offset is that of the sound."""
        path = shared_clip("grid_lwbsza.mpg")
        lips = extract_lips(path)
        samples = read_audio(path)
        slots = len(lips.crops)
        samples = np.pad(samples, (0, max(0, slots * SLOT_SAMPLES - len(samples))))[: slots * SLOT_SAMPLES]
        blocks = iter(np.array_split(samples, 7))
        chosen = list(SpeakingFace(blocks).follow(two_faces(lips.crops, np.roll(lips.crops[::-1], 9, axis=0))))
        assert len(chosen) == slots
        assert np.mean([slot.face == 2 for slot in chosen]) > 0.9
        # As live: sound comes in its own blocks, and decisions are the same.
        live = SpeakingFace()
        decided = []
        for slot in two_faces(lips.crops, np.roll(lips.crops[::-1], 9, axis=0)):
            decided += live.push(slot)
            live.push_sound(samples[slot.index * SLOT_SAMPLES : (slot.index + 1) * SLOT_SAMPLES])
        decided += live.finish()
        assert [slot.face for slot in decided] == [slot.face for slot in chosen]

        for shift_ms in (-160, 120):
            moved = np.roll(samples, shift_ms * 16)
            stream = SynchronyStream()
            evidence = []
            for index, crop in enumerate(lips.crops):
                evidence += stream.push({0: crop}, moved[index * SLOT_SAMPLES : (index + 1) * SLOT_SAMPLES])
            evidence += stream.finish()
            everywhere = np.ones(slots, bool)
            found = estimate_offset(
                lag_evidence(
                    np.stack([seen.lips[0] for seen in evidence]),
                    everywhere,
                    np.stack([seen.sound for seen in evidence]),
                )
            )
            assert abs(found.ms - shift_ms) <= 40


def test_words_say_who_speaks() -> None:
    """Two people whose mouths both move: the words are read from the lips of the one who is heard, on the left."""
    path: Path = shared_clip("two_people_left_speaks_720p.mp4")
    with FaceFinder() as finder:
        faces = finder.follow(next(iter_frames(path)))
    left = min(faces, key=lambda face: face.box.left)
    assert len(faces) == 2
    transcript = avsr.load("grid-tiny").transcribe(path)
    assert transcript.words
    assert {word.face for word in transcript.words} == {left.id}
