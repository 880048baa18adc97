"""Raises sound that is too quiet for a recogniser, if it holds a voice.

Features and thresholds are made for speech at a usual level. Quieter speech drowns in them, though 16 bit still hold
its words. Sound at a usual level passes unchanged. Room tone and hiss must not become loud: very quiet sound without a
voice becomes silence.

Letters: S samples, T slots of 20 ms, B windows of the voice detector.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from avsr.account import Account
from avsr.arrays import Samples
from avsr.grid import SAMPLE_RATE_HZ
from avsr.sound.voice import WINDOW_SAMPLES, VoiceState, voice_network

QUIET_DB = -50.0
"""Sound below this level is raised if it holds a voice."""
USUAL_DB = -20.0
"""The level that it is raised to."""
NOT_HEARD_DB = -55.0
"""Sound below this level without a voice counts as silence: with lips it would only disturb them."""
MOST_DB = 75.0
"""It is raised by at most this: a voice that peaks at 4 steps of 16 bit needs 74 dB."""
STEADY_DB = 6.0
"""While the right gain differs from the present one by no more than this, the gain stays."""
VOICE_FROM = 0.8
"""A window of the voice detector counts if the probability of a voice reaches this."""
LEAST_WINDOWS = 5
"""Quiet sound is raised if at least this many windows around it hold a voice: 0.16 s. At a level of -60 dB that is true
of all sentences of GRID and AN4 (`dev`), and of 1 in 100 recordings of noise, in which somebody laughs."""

VERY_QUIET = "very quiet sound"
"""The key in the account of sound that was raised."""
NOT_HEARD = "very quiet sound without a voice"
"""The key in the account of sound that counts as silence from beginning to end."""
COUNTS_AS_SILENCE = "it counts as silence"
"""The end of its line."""

PIECE_SAMPLES = SAMPLE_RATE_HZ // 2
"""The gain holds for at least this long."""
AROUND = 60
"""The level is taken over this many pieces before and after a piece: 30 s. If one speaker in them has a usual level,
the faint voice of another is not raised, nor is the silence before the first word."""
VOICE_BEFORE, VOICE_AFTER = 16, 8
"""A voice makes this many pieces after and before it worth raising: 8 s and 4 s."""

FAINT_PIECES = 4
"""A very quiet voice beside a louder one is told if 2 s hold nothing louder."""

_SLOT_SAMPLES = SAMPLE_RATE_HZ // 50
_LOUD_SLOTS = 12  # 0.24 s of sound make the level, so that a click does not
_LOUD_SHARE = 8  # of a short sound: one slot in this many
_SILENCE_DB = -110.0  # digital silence
_DITHER_DB = -90.0  # the noise of 16 bit is quieter


def raised(blocks: Iterable[Samples], account: Account | None = None) -> Iterator[Samples]:
    """The same sound, raised where it is very quiet and holds a voice, and silent where it is and holds none.

    Sound is held back by 30 s.

    blocks: float32 [S] at 16 kHz; the result has blocks of other lengths. account: is told of it.
    """
    level = _Level(Account() if account is None else account)
    waiting: deque[_Piece] = deque()
    for piece in itertools.chain(_pieces(blocks), [None] * AROUND):
        if piece is not None:
            waiting.append(piece)
        if waiting and (piece is None or len(waiting) > AROUND):
            yield level.raise_first(waiting)
            waiting.popleft()
    level.say_if_not_heard()


class LiveGain:
    """Raises the sound of a live stream. The gain depends on the past alone, so nothing waits."""

    def __init__(self) -> None:
        self._level = _Level(Account())
        self._held: list[Samples] = []
        self._count = 0
        self.most_db = 0.0
        """By how much the sound was raised at most."""

    def push(self, samples: Samples) -> Samples:
        """The same samples [S], raised by the gain of this moment."""
        # Louder speech must not be clipped until the next piece. It has a usual level, so it is not raised at all.
        if self._level.gain_db and len(samples) and np.abs(samples).max() > 10 ** (-self._level.gain_db / 20):
            self._level.gain_db = 0.0
        result = _amplified(samples, self._level.gain_db)
        self._held.append(samples)
        self._count += len(samples)
        if self._count >= PIECE_SAMPLES:
            self._level.raise_first([_piece(np.concatenate(self._held))])
            self._held, self._count = [], 0
            self.most_db = max(self.most_db, self._level.gain_db)
        return result


@dataclasses.dataclass
class _Piece:
    samples_S: Samples
    powers_T: NDArray[np.float64]
    """Without a constant offset, which is no sound."""
    whole_powers_T: NDArray[np.float64]
    """With it."""
    voiced: int | None = None
    """Windows with a voice; None: not counted yet."""


class _Level:
    """The level of a stream, and the gain that follows from it."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._past: deque[_Piece] = deque(maxlen=AROUND)
        self._voice: VoiceState | None = None
        self._rest = np.zeros(0, np.float32)  # of the voice detector: shorter than a window
        self._is_said = False
        self._reached = 0  # pieces so far
        self._is_heard = False
        self._loudest_db = -math.inf
        self.gain_db = 0.0

    def raise_first(self, pieces: Iterable[_Piece]) -> Samples:
        """The samples of the first piece, with the gain that follows from all of them and from those before."""
        pieces = list(pieces)
        span = [*self._past, *pieces]
        level_db = _level_db(np.concatenate([piece.powers_T for piece in span]))
        whole_db = _level_db(np.concatenate([piece.whole_powers_T for piece in span]))
        self._loudest_db = max(self._loudest_db, whole_db)
        has_voice = level_db < QUIET_DB and self._has_voice(pieces, level_db)
        gain_db = float(round(_gain_db(level_db))) if has_voice else 0.0
        if not gain_db or not self.gain_db or abs(gain_db - self.gain_db) > STEADY_DB:
            self.gain_db = gain_db
        if has_voice and not self._is_said:
            self._is_said = True
            line = f"the sound is very quiet ({level_db:.0f} dB of full scale): raised by {self.gain_db:.0f} dB"
            self._account.note(VERY_QUIET, line)
        self._account.most("raised_db", round(self.gain_db))
        if level_db >= QUIET_DB:
            self._say_if_faint(pieces)
        self._reached += 1
        is_heard = has_voice or whole_db >= NOT_HEARD_DB
        self._is_heard |= is_heard
        samples_S = pieces[0].samples_S
        # Only numbers of the past are kept.
        self._past.append(dataclasses.replace(pieces[0], samples_S=samples_S[:0]))
        if not is_heard:
            return np.zeros_like(samples_S)
        return _amplified(_centred(samples_S), self.gain_db) if self.gain_db else samples_S

    def say_if_not_heard(self) -> None:
        """Say it if the whole sound was too quiet. Silence is said elsewhere."""
        if not self._is_heard and self._loudest_db > _DITHER_DB:
            level = f"{self._loudest_db:.0f} dB of full scale"
            line = f"the sound is very quiet ({level}), and no voice is heard in it: {COUNTS_AS_SILENCE}"
            self._account.note(NOT_HEARD, line)

    def _say_if_faint(self, pieces: Sequence[_Piece]) -> None:
        """Say it if a voice is very quiet and is not raised, because a louder one is within 30 s."""
        near = pieces[:FAINT_PIECES]
        level_db = _level_db(np.concatenate([piece.powers_T for piece in near]))
        # A live stream does not know what follows, and has no line for it.
        if len(near) < FAINT_PIECES or not _DITHER_DB < level_db < NOT_HEARD_DB:
            return
        self._count_voices(near, _gain_db(level_db))
        if sum(piece.voiced or 0 for piece in near) >= LEAST_WINDOWS:
            at_s = self._reached * PIECE_SAMPLES / SAMPLE_RATE_HZ
            line = (
                f"a voice after {at_s:.1f} s is very quiet ({level_db:.0f} dB of full scale), and is not raised:"
                " a louder one is near"
            )
            self._account.note("faint voice beside a louder one", line, cause=self._reached // FAINT_PIECES)

    def _has_voice(self, pieces: Sequence[_Piece], level_db: float) -> bool:
        """Whether there is a voice near the first piece."""
        if level_db <= _SILENCE_DB:
            return False
        near = pieces[: VOICE_AFTER + 1]
        self._count_voices(near, _gain_db(level_db))
        before = list(self._past)[-VOICE_BEFORE:]
        return sum(piece.voiced or 0 for piece in [*before, *near]) >= LEAST_WINDOWS

    def _count_voices(self, pieces: Iterable[_Piece], gain_db: float) -> None:
        """Count the windows with a voice in pieces that follow each other. The detector needs a usual level too."""
        network = voice_network()
        for piece in pieces:
            if piece.voiced is None:
                samples = np.concatenate((self._rest, _amplified(_centred(piece.samples_S), gain_db)))
                whole = len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES
                state = network.initial_state() if self._voice is None else self._voice
                voice_B, self._voice = network.probabilities(samples[:whole], state)
                piece.voiced = int((voice_B >= VOICE_FROM).sum())
                self._rest = samples[whole:]


def _pieces(blocks: Iterable[Samples]) -> Iterator[_Piece]:
    """The sound in pieces of half a second, the last one shorter."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate((rest, block))
        while len(rest) >= PIECE_SAMPLES:
            yield _piece(rest[:PIECE_SAMPLES])
            rest = rest[PIECE_SAMPLES:]
    if len(rest):
        yield _piece(rest)


def _piece(samples_S: Samples) -> _Piece:
    slots = max(1, len(samples_S) // _SLOT_SAMPLES)
    inside = samples_S[: slots * _SLOT_SAMPLES].reshape(slots, -1)
    whole_powers_T = np.square(inside, dtype=np.float64).mean(axis=1)
    return _Piece(samples_S, np.square(inside - np.median(inside), dtype=np.float64).mean(axis=1), whole_powers_T)


def _level_db(powers_T: NDArray[np.float64]) -> float:
    """The level in dB of full scale that the sound reaches for 0.24 s in all."""
    rank = max(1, min(_LOUD_SLOTS, len(powers_T) // _LOUD_SHARE))
    return float(10 * np.log10(max(np.partition(powers_T, -rank)[-rank], 1e-12)))


def _gain_db(level_db: float) -> float:
    return min(MOST_DB, USUAL_DB - level_db)


def _amplified(samples_S: Samples, gain_db: float) -> Samples:
    if not gain_db or not len(samples_S):
        return samples_S  # equal to the bit
    return np.clip(samples_S * np.float32(10 ** (gain_db / 20)), -1, 1)


def _centred(samples_S: Samples) -> Samples:
    """The sound of a piece without its constant offset, which would clip if it were raised too."""
    return samples_S - np.median(samples_S)  # a click moves the mean
