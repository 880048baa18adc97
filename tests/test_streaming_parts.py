"""The parts of a live session, each by itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import avsr
from avsr.arrays import LogProbs
from avsr.decoding.greedy import GreedySearch
from avsr.media import read_audio
from avsr.nn.context import AttentionContext
from avsr.nn.convolution import ConvolutionModule
from avsr.sound.mel import LOOK_AHEAD_SAMPLES, PAST_FRAMES, LogMel
from avsr.sound.mel_config import MelConfig
from avsr.sound.voice import VoiceActivity
from avsr.streaming.clock import RESTART_S, ClockAligner
from avsr.streaming.lips import LipBuffer
from avsr.streaming.policy import IN_TIME_SLOTS, LOSE_SLOTS, REGAIN_SLOTS, LipPolicy
from avsr.streaming.sound import SoundBuffer
from avsr.streaming.utterance import Said, Source, Utterance, has_ended
from avsr.transcript import Word
from tests.tiny import (
    LIVE_CHUNKS,
    WORDS,
    live_config,
    live_network,
    random_lips,
    random_mel,
    random_samples,
    tiny_tokenizer,
)

# -- network --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("context", LIVE_CHUNKS, ids=lambda context: f"{80 * context.chunk} ms")
def test_chunks_equal_one_masked_pass(context: AttentionContext, packed: bool) -> None:
    network = live_network()
    assert network.look_ahead_slots == 2  # of the stem: lips run ahead of the sound
    if packed:
        network.pack()
    frames, chunk, ahead = 47, context.right + 1, network.look_ahead_slots
    mel, lips = random_mel(1, 8 * frames), random_lips(1, 2 * frames)
    presence = torch.rand(1, 2 * frames, generator=torch.Generator().manual_seed(1)) > 0.3
    with torch.inference_mode():
        whole = network(mel, torch.tensor([8 * frames]), lips, presence, attention=context).log_probs
        for step in (chunk, 2 * chunk):
            state, parts, had = network.initial_state(1, attention=context), [], 0
            for first in range(0, frames, step):
                end = min(frames, first + step)
                wanted = min(2 * frames, 2 * end + ahead)
                output = network(
                    mel[:, :, 8 * first : 8 * end],
                    torch.tensor([8 * (end - first)]),
                    lips[:, had:wanted],
                    presence[:, had:wanted],
                    state,
                    attention=context,
                )
                state, had = output.state, wanted
                parts.append(output.log_probs)
            torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=5e-5, rtol=0)


def test_a_chunked_convolution_is_symmetric_inside_a_chunk_and_blind_behind_it() -> None:
    torch.manual_seed(0)
    module = ConvolutionModule(4, 5, context="chunked").eval()
    symmetric = ConvolutionModule(4, 5, context="symmetric").eval()
    symmetric.load_state_dict(module.state_dict())
    x = torch.randn(1, 12, 4)
    with torch.inference_mode():
        torch.testing.assert_close(module(x, None)[0], symmetric(x, None)[0])
        chunked, _ = module(x, None, chunk=4)
        changed = x.clone()
        changed[:, 8:] += 1.0
        torch.testing.assert_close(module(changed, None, chunk=4)[0][:, :8], chunked[:, :8])
        assert not torch.allclose(module(changed, None)[0][:, :8], symmetric(x, None)[0][:, :8])
        padded = symmetric(torch.nn.functional.pad(x[:, :4], (0, 0, 0, 4)), torch.arange(8)[None] < 4)[0]
        torch.testing.assert_close(chunked[:, :4], padded[:, :4])
    with pytest.raises(ValueError, match="in chunks only"):
        module(x, None, module.initial_state(1, x.device, x.dtype))


def test_the_window_of_the_lips_is_rounded_up_to_whole_chunks() -> None:
    fusion = live_config().fusion
    assert fusion is not None
    assert fusion.contexts(None) == (fusion.attention, fusion.lips)
    sound, lips = fusion.contexts(LIVE_CHUNKS[2])
    assert sound == LIVE_CHUNKS[2]
    assert lips == AttentionContext(style="chunked", left=4, right=3)
    assert fusion.contexts(LIVE_CHUNKS[4])[1] == AttentionContext(style="chunked", left=20, right=19)


def test_features_in_pieces_equal_those_of_the_whole() -> None:
    config = MelConfig(normalize="fixed", mean=-10.0, std=4.0)
    log_mel, samples = LogMel(config), torch.from_numpy(random_samples(1.5))[None]
    whole, _ = log_mel(samples, torch.tensor([samples.shape[1]]))
    for first, end in ((0, 8), (8, 40), (40, 150)):
        keep_from = max(0, first - PAST_FRAMES)
        until = min(samples.shape[1], 160 * end + LOOK_AHEAD_SAMPLES)
        piece = log_mel.piece(samples[:, 160 * keep_from : until], first - keep_from, end - keep_from)
        assert torch.equal(piece, whole[:, :, first:end])
    with pytest.raises(ValueError, match="per_feature needs the whole utterance"):
        LogMel(MelConfig()).piece(samples, 0, 8)


# -- policy -----------------------------------------------------------------------------------------------------------


def follow(policy: LipPolicy, reasons: str) -> tuple[str, LipPolicy]:
    """reasons: "+" with lips, "-" without. Returns what was used as a string of the same length."""
    used = ""
    for reason in reasons:
        is_used, policy = policy.decide("ok" if reason == "+" else "no_face")
        used += "+" if is_used else "-"
    return used, policy


def test_a_short_loss_changes_nothing() -> None:
    reasons = "+++" + "-" * (LOSE_SLOTS - 1) + "+++"
    used, policy = follow(LipPolicy(), reasons)
    assert used == reasons
    assert policy.has_lips and policy.reason == "ok"


def test_lips_that_were_lost_must_stay_for_a_while() -> None:
    used, policy = follow(LipPolicy(), "++" + "-" * LOSE_SLOTS)
    assert not policy.has_lips and policy.reason == "no_face"
    back, policy = follow(policy, "+-+-" + "+" * (REGAIN_SLOTS + 1))
    assert back == "----" + "-" * (REGAIN_SLOTS - 1) + "++"
    assert policy.has_lips


def test_flapping_lips_are_never_used() -> None:
    _, policy = follow(LipPolicy(), "-" * LOSE_SLOTS)
    used, _ = follow(policy, "+-" * 50)
    assert "+" not in used


def test_sound_stops_waiting_for_lips_and_begins_again() -> None:
    policy = LipPolicy().missed()
    assert not policy.waits
    for _ in range(IN_TIME_SLOTS - 1):
        policy = policy.came(in_time=True)
    policy = policy.came(in_time=False)
    assert not policy.waits
    for _ in range(IN_TIME_SLOTS):
        policy = policy.came(in_time=True)
    assert policy.waits


# -- clock ------------------------------------------------------------------------------------------------------------


def test_two_clocks_that_differ_and_drift_are_aligned() -> None:
    random = np.random.default_rng(0)
    aligner, errors = ClockAligner(), []
    for tick in range(3600 * 5):
        now_s = tick / 5
        camera_s = (now_s - 0.06) * (1 + 80e-6) - 123.0  # taken 60 ms ago, on a clock of its own
        aligner.reference(now_s - 0.06, now_s + random.exponential(0.004))
        aligned_s = aligner.align(camera_s, now_s + random.exponential(0.004))
        errors.append(abs(aligned_s - (now_s - 0.06)))
    assert max(errors[50:]) < 0.02


def test_a_stalled_camera_is_late_and_a_restarted_one_is_not() -> None:
    aligner = ClockAligner()
    for tick in range(100):
        aligner.reference(tick / 25, tick / 25)
        aligner.align(tick / 25, tick / 25)
    aligner.reference(7.0, 7.0)
    assert aligner.align(4.0, 7.0) == pytest.approx(4.0, abs=0.08)  # 3 s late
    aligner.reference(7.1, 7.1)
    restarted = aligner.align(0.0, 7.1)  # the clock began anew
    assert restarted == pytest.approx(7.1, abs=0.01)
    aligner.reference(7.2, 7.2)
    assert aligner.align(RESTART_S + 5.0, 7.2) == pytest.approx(7.2, abs=0.01)  # and again


# -- sound ------------------------------------------------------------------------------------------------------------


def test_gaps_and_overlaps_of_the_sound() -> None:
    sound = SoundBuffer()
    sound.receive(np.ones(1600, np.float32), 0.0)
    sound.receive(np.ones(1600, np.float32), 0.03)  # jitter
    assert sound.end == 3200 and sound.lost == 0
    sound.receive(np.ones(1600, np.float32), 0.1)
    assert sound.end == 6400 and sound.lost == 1600
    assert sound.lost_share(3200, 6400) == 0.5
    np.testing.assert_array_equal(sound.between(3200, 4800), 0.0)
    sound.receive(np.ones(1600, np.float32), -0.05)
    assert sound.end == 7200 and sound.late == 800 and sound.received == 6400
    sound.forget(6400)
    assert sound.end == 7200
    np.testing.assert_array_equal(sound.between(6400, 7200), 1.0)
    assert sound.lost_share(6400, 7200) == 0.0


def test_the_voice_is_heard() -> None:
    voice = VoiceActivity()
    voice.push(random_samples(1.0))
    assert voice.last_voice_s == float("-inf")
    sound = np.concatenate((random_samples(1.0), read_audio(Path(avsr.__file__).parent / "assets" / "demo.mp4")))
    voice = VoiceActivity()
    voice.push(sound)
    assert 3.2 < voice.last_voice_s < 4.4
    for size in (100, 7000):  # however the sound is cut
        other = VoiceActivity()
        for block in np.split(sound, range(size, len(sound), size)):
            other.push(block)
        assert other.last_voice_s == voice.last_voice_s
    assert has_ended(blank_s=0.7, since_voice_s=float("inf"), pause_s=0.7)
    assert not has_ended(blank_s=0.7, since_voice_s=0.1, pause_s=0.7)
    assert has_ended(blank_s=2.1, since_voice_s=0.1, pause_s=0.7)
    assert not has_ended(blank_s=0.6, since_voice_s=float("inf"), pause_s=0.7)


# -- lips -------------------------------------------------------------------------------------------------------------

CROP = np.full((96, 96), 90, np.uint8)


def add_up(lips: LipBuffer) -> int:
    return lips.used + lips.late + lips.absent + lips.duplicate + lips.pending


def test_every_picture_is_counted_once() -> None:
    lips = LipBuffer("largest", 0.3, reads=True)
    heard_s = 0.0
    for time_s in (0.0, 0.04, 0.041, 0.12, 0.08, 0.08, 30.0, -1.0):
        index = lips.register(time_s, heard_s, is_crop=True)
        if index is not None:
            lips.add(lips.give(index, CROP), heard_s)
        assert add_up(lips) == lips.received
    taken, policy = lips.take(6)
    assert [one.used for one in taken] == [True, True, True, True, False, False]
    lips.commit(taken, policy)
    assert lips.register(0.04, heard_s, is_crop=True) is None
    lips.end()
    assert (lips.used, lips.late, lips.absent, lips.duplicate, lips.pending) == (4, 2, 1, 2, 0)
    assert add_up(lips) == lips.received == 9


def test_pictures_that_nobody_reads_are_absent() -> None:
    lips = LipBuffer("largest", 0.3, reads=False)
    assert lips.register(0.0, 0.0, is_crop=True) is None
    assert lips.absent == 1


# -- utterances -------------------------------------------------------------------------------------------------------


@pytest.fixture
def utterance() -> Utterance:
    return Utterance(GreedySearch(tiny_tokenizer(), frame_s=0.08), frame_s=0.08, pause_s=0.4)


def frames_of(text: str) -> LogProbs:
    """Log-probabilities that say so: a digit is the number of a word, a dot the blank."""
    log_probs_TV = np.full((len(text), len(WORDS) + 1), -8.0, np.float32)
    for frame, letter in enumerate(text):
        log_probs_TV[frame, len(WORDS) if letter == "." else int(letter)] = -0.01
    return log_probs_TV


def feed(utterance: Utterance, text: str, since_voice_s: float = 1.0) -> list[tuple[str, str, int]]:
    said = utterance.add(frames_of(text), [Source("a", None)] * len(text), since_voice_s)
    return [(one.ended or "partial", " ".join(word.word for word in one.words), one.changed) for one in said]


def test_words_grow_and_end_at_a_pause(utterance: Utterance) -> None:
    assert feed(utterance, "....") == []
    assert feed(utterance, ".00.") == [("partial", "bin", 0)]
    assert feed(utterance, "11..") == [("partial", "bin blue", 0)]
    assert feed(utterance, "...") == [("pause", "bin blue", 0)]
    assert feed(utterance, "2...", since_voice_s=0.0) == [("partial", "at", 0)]
    assert feed(utterance, "......", since_voice_s=0.0) == []  # somebody still speaks
    assert feed(utterance, "........", since_voice_s=0.0) == [("pause", "at", 0)]  # or it is noise
    assert utterance.finish() == []


def test_times_are_those_of_the_stream(utterance: Utterance) -> None:
    feed(utterance, "." * 100)
    (said,) = utterance.add(frames_of(".33.."), [Source("av", 2)] * 5, 1.0)
    (word,) = said.words
    assert (word.start, word.end) == (pytest.approx(101 * 0.08), pytest.approx(103 * 0.08))
    assert (word.modality, word.face) == ("av", 2)


def test_an_endless_utterance_is_cut_at_a_blank(utterance: Utterance) -> None:
    said = []
    for _ in range(80):
        said += feed(utterance, "0.1.")
    finals = [text for kind, text, _ in said if kind == "length"]
    assert finals
    text = " ".join(
        [*finals, *(text for said in utterance.finish() for text in [" ".join(w.word for w in said.words)])]
    )
    assert text == " ".join(["bin", "blue"] * 80)


def test_a_word_is_committed_when_it_has_ended(utterance: Utterance) -> None:
    said = utterance.add(frames_of("0011"), [Source("a", None)] * 4, 0.0)
    assert [(len(one.words), one.committed) for one in said] == [(2, 1)]
    said = utterance.add(frames_of(".."), [Source("a", None)] * 2, 0.0)  # no new word, and "blue" has ended
    assert [(len(one.words), one.committed, one.changed) for one in said] == [(2, 2, 0)]
    assert utterance.add(frames_of("."), [Source("a", None)], 0.0) == []
    said = utterance.add(frames_of("......"), [Source("a", None)] * 6, 1.0)
    assert [(one.ended, one.committed) for one in said] == [("pause", 2)]


@pytest.mark.parametrize("seed", range(6))
def test_what_was_committed_stays(utterance: Utterance, seed: int) -> None:
    """In any chunks, with beginnings of chunks that turn out otherwise, over pauses and cuts."""
    random = np.random.default_rng(seed)
    text = "".join(random.choice(list("...0123445")) * int(random.integers(1, 4)) for _ in range(300))
    done: list[Word] = []
    fixed: list[Word] = []

    def check(said: list[Said]) -> None:
        nonlocal fixed
        for one in said:
            words = [*done, *one.words]
            if one.ended:  # after a cut, the words of the rest come in the next partial
                assert one.committed == len(one.words)
                done.extend(one.words)
            else:
                assert len(words) >= len(fixed)
            same = min(len(words), len(fixed))
            assert words[:same] == fixed[:same]
            fixed = max(fixed, words[: len(words) - len(one.words) + one.committed], key=len)

    first = 0
    while first < len(text):
        end = first + int(random.integers(1, 9))
        shown = utterance.show(frames_of("2" * int(random.integers(1, 4))), [Source("a", None)] * 3)
        check([] if shown is None else [shown])
        part = text[first:end]
        check(utterance.add(frames_of(part), [Source("a", None)] * len(part), 0.0))
        first = end
    check(utterance.finish())
    assert done == fixed and len(done) > 50


def test_a_beginning_that_turns_out_otherwise_is_counted(utterance: Utterance) -> None:
    shown = utterance.show(frames_of("0011"), [Source("a", None)] * 4)
    assert shown is not None and [word.word for word in shown.words] == ["bin", "blue"]
    assert utterance.show(frames_of("0011"), [Source("a", None)] * 4) is None
    assert feed(utterance, "0033") == [("partial", "bin f", 1)]


def test_a_lip_policy_is_a_value() -> None:
    policy = LipPolicy()
    with pytest.raises(AttributeError):
        policy.waits = False  # type: ignore[misc]
    assert dataclasses.is_dataclass(live_config())
