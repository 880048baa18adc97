"""Live words from a recogniser of whole sounds, on a toy that knows what is said and errs at the end of the sound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from avsr.arrays import Samples
from avsr.decoding.agreement import after_known, agreed, best_cut
from avsr.decoding.redecoding import RedecodingSearch, Window
from avsr.decoding.search import Spoken
from avsr.grid import FRAME_SAMPLES, SAMPLE_RATE_HZ
from avsr.sound.voice import WINDOW_SAMPLES, VoiceNetwork, VoiceState
from avsr.streaming.utterance import Said, Source, Utterance
from avsr.transcript import Word

FRAME_S = 0.08
WORD_S = 0.4


def spoken(text: str, step_s: float = 0.4) -> list[Spoken]:
    """Words one after the other."""
    return [Spoken(word, k * step_s, (k + 1) * step_s, 0.9) for k, word in enumerate(text.split())]


def texts(words: Sequence[Spoken]) -> str:
    return " ".join(word.word for word in words)


@pytest.mark.parametrize(
    ("before", "now", "count"),
    [
        ("a b c", "a b d", 2),
        ("Hello there.", "hello there my", 2),
        ("hello there", "hello there.", 1),  # the full stop may be there because the sound ends
        ("hello there.", "hello there.", 2),
        ("take 2", "take 26", 1),
        ("take 2", "take 2 6", 1),  # and "26" next
        ("take 2 now", "take 2 now", 3),
        ("", "a", 0),
    ],
)
def test_what_two_hypotheses_agree_on(before: str, now: str, count: int) -> None:
    assert agreed(spoken(before), spoken(now)) == count


@pytest.mark.parametrize(
    ("known", "words", "rest"),
    [
        ("a b", "a b c d", "c d"),
        ("the cat", "the hat sat", "sat"),  # written otherwise this time
        ("one two", "two three", "three"),  # the beginning is lost
        ("U M N", "U-M-N six", "six"),
        ("", "a b", "a b"),
        ("a b", "", ""),
        ("no", "no no no", "no no"),
        ("안녕하세요", "안녕하세요 여러분", "여러분"),
    ],
)
def test_known_words_are_found_again(known: str, words: str, rest: str) -> None:
    assert texts(after_known(spoken(known), spoken(words))) == rest


def test_of_equal_beginnings_the_time_decides() -> None:
    for end_s, rest in ((0.1, "b c"), (0.4, "c")):  # "b" is a new word, or the known one written otherwise
        assert texts(after_known([Spoken("a", 0.0, end_s, 0.9)], spoken("b c"))) == rest


def test_a_cut_is_at_the_longest_pause_of_the_second_half() -> None:
    words = spoken("a b c d e f")
    late = [word._replace(start_s=word.start_s + 0.3, end_s=word.end_s + 0.3) for word in words[4:]]
    assert best_cut([*words[:4], *late]) == 4
    assert best_cut(words[:1]) == 0


class LoudIsVoice(VoiceNetwork):
    """A detector for which every loud window is a voice."""

    def initial_state(self) -> VoiceState:
        return VoiceState(*np.zeros((3, 1), np.float32))

    def probabilities(self, samples_S: Samples, state: VoiceState) -> tuple[Samples, VoiceState]:
        peaks = np.abs(samples_S.reshape(-1, WINDOW_SAMPLES)).max(axis=1, initial=0.0)
        return (peaks > 0.05).astype(np.float32), state


@pytest.fixture(autouse=True)
def voice(monkeypatch: pytest.MonkeyPatch) -> None:
    network = LoudIsVoice(*[None] * len(VoiceNetwork._fields))  # type: ignore[arg-type]
    monkeypatch.setattr("avsr.sound.voice_track.voice_network", lambda: network)


def name(number: int) -> str:
    """A word without digits: digits are committed later."""
    return "".join("abcdefghij"[int(digit)] for digit in str(number)) + "!"


class Toy:
    """Recognises a level as a word: 0.107 for 0.4 s is word 7. The last word comes out wrong if it is cut."""

    def __init__(self, seed: int = 0, *, invents: bool = False) -> None:
        self._random, self._invents = np.random.default_rng(seed), invents
        self.calls: list[float] = []
        self.contexts: list[str] = []

    def __call__(self, samples: Samples, before: str, language: str | None) -> list[Spoken]:
        self.calls.append(len(samples) / SAMPLE_RATE_HZ)
        self.contexts.append(before)
        levels = np.round((samples - 0.1) * 1000).astype(int)
        edges = [0, *(np.flatnonzero(np.diff(levels)) + 1), len(levels)]
        words = []
        for start, end in zip(edges, edges[1:], strict=False):
            if levels[start] < 0 or end - start < 0.1 * SAMPLE_RATE_HZ:
                continue
            whole = end - start > 0.9 * WORD_S * SAMPLE_RATE_HZ
            is_right = whole or end < len(levels)
            text = name(levels[start]) if is_right else "x" + name(self._random.integers(1000))
            words.append(Spoken(text, start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ, 0.9, "en"))
        if self._invents:
            end_s = len(samples) / SAMPLE_RATE_HZ
            words.append(Spoken("Thanks.", end_s - 0.05, end_s, 0.9))
        return words


def sound(*parts: int | float) -> Samples:
    """A number is a word; a float is a pause in seconds."""
    pieces = [
        np.zeros(round(part * SAMPLE_RATE_HZ), np.float32)
        if isinstance(part, float)
        else np.full(round(WORD_S * SAMPLE_RATE_HZ), 0.1 + part / 1000, np.float32)
        for part in parts
    ]
    samples = np.concatenate(pieces)
    return np.pad(samples, (0, -len(samples) % FRAME_SAMPLES))


def rows_of(samples: Samples) -> Samples:
    return samples.reshape(-1, FRAME_SAMPLES)


def search_of(toy: Toy, look_ahead_s: float = 0.0, longest_s: float = 4.0) -> RedecodingSearch:
    return RedecodingSearch(recognize=toy, frame_s=FRAME_S, longest_s=longest_s, look_ahead_s=look_ahead_s)


def follow(search: RedecodingSearch, samples: Samples, step: int = 5) -> list[Window]:
    """The beams after each step of so many frames."""
    rows, beams = rows_of(samples), [search.initial_state()]
    for first in range(0, len(rows), step):
        beams.append(search.step(rows[first : first + step], beams[-1]))
    return beams


def test_words_are_committed_when_two_steps_agree() -> None:
    search = search_of(Toy())
    beams = follow(search, sound(1, 2, 3, 0.4))
    assert [search.committed(beam) for beam in beams[1:]] == sorted(search.committed(beam) for beam in beams[1:])
    assert texts(search.words(beams[-1])) == "b! c! d!"
    assert search.committed(beams[2]) == 1 and len(search.words(beams[2])) == 2


def test_a_look_ahead_waits_for_more_sound() -> None:
    at_once, patient = search_of(Toy()), search_of(Toy(), look_ahead_s=0.8)
    samples = sound(1, 2, 3, 4, 5)
    for early, late in zip(follow(at_once, samples), follow(patient, samples), strict=True):
        assert patient.committed(late) <= at_once.committed(early)
        end_s = late.frames * FRAME_S
        assert all(word.end_s <= end_s - 0.8 + 1e-6 for word in late.committed)


def test_a_given_beam_does_not_change() -> None:
    search = search_of(Toy())
    beam = follow(search, sound(1, 2))[-1]
    words = search.words(beam)
    search.step(rows_of(sound(3, 4)), beam)
    assert search.words(beam) == words


def test_nothing_is_recognised_while_nobody_speaks() -> None:
    toy = Toy(invents=True)
    search = search_of(toy)
    beams = follow(search, sound(10.0))
    assert toy.calls == [] and search.words(beams[-1]) == []
    assert search.pause(beams[-1]) == beams[-1].frames


def test_words_without_a_voice_are_dropped() -> None:
    search = search_of(Toy(invents=True))
    beams = follow(search, sound(1, 2, 3.0))
    assert texts(search.words(beams[-1])) == "b! c!"
    assert search.committed(beams[-1]) == 2
    assert search.pause(beams[-1]) == pytest.approx(3.0 / FRAME_S, abs=1.5)


def test_the_window_moves_on_and_its_text_becomes_context() -> None:
    toy = Toy()
    search = search_of(toy)
    beams = follow(search, sound(*range(1, 60), 0.4))
    assert texts(search.words(beams[-1])) == " ".join(name(k) for k in range(1, 60))
    assert max(toy.calls) <= 2 * 4.0 + 0.5
    assert toy.contexts[0] == "" and "b!" in " ".join(toy.contexts)
    assert max(map(len, toy.contexts)) <= 200


def test_a_sound_like_a_voice_without_words_does_not_fill_the_window() -> None:
    search = RedecodingSearch(recognize=lambda *_: [], frame_s=FRAME_S, longest_s=4.0)
    beams = follow(search, np.full(60 * FRAME_SAMPLES * 10, 0.2, np.float32))
    assert max(len(beam.samples_S) for beam in beams) <= 8.5 * SAMPLE_RATE_HZ


@pytest.mark.parametrize("look_ahead_s", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(6))
def test_what_was_committed_stays_in_any_chunks(seed: int, look_ahead_s: float) -> None:
    random = np.random.default_rng(seed)
    parts: list[int | float] = []
    for number in range(1, 110):
        parts.append(number)
        if random.random() < 0.15:
            parts.append(float(random.choice([0.16, 0.4, 1.2])))
    rows = rows_of(sound(*parts, 0.8))
    utterance = Utterance(search_of(Toy(seed, invents=True), look_ahead_s), FRAME_S, 0.7)
    done: list[Word] = []
    fixed: list[Word] = []

    def check(said: list[Said]) -> None:
        nonlocal fixed
        for one in said:
            words = [*done, *one.words]
            committed = len(done) + one.committed
            if one.ended:
                done.extend(one.words)
            same = min(len(words), len(fixed))
            assert words[:same] == fixed[:same]
            fixed = max(fixed, words[:committed], key=len)

    first = 0
    while first < len(rows):
        end = first + int(random.integers(2, 16))
        part = rows[first:end]
        silent_s = 1.0 if not part.any() else 0.0
        check(utterance.add(part, [Source("a", None)] * len(part), silent_s))
        first = end
    check(utterance.finish())
    assert done == fixed
    heard = [word.word for word in done]
    wanted = [name(number) for number in range(1, 110)]
    assert sum(word in heard for word in wanted) >= 0.95 * len(wanted)
