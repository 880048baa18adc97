"""Channels become one: their mean, or the one channel that the mean would spoil.

The mean is right for nearly all recordings. It is wrong for channels that cancel each other, as when one cable of two
is wired the other way round, and for a voice beside a channel that holds nothing but loud hum or noise.

Letters: C channels, S samples, T slots of 40 ms.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.account import Account

Floats = NDArray[np.float32]

PIECE_S = 0.5
"""A choice holds for at least this long."""
MOST_VALUES = 1 << 20
"""A piece with more values than this is complete before its time, so that many channels need no more memory."""
BEFORE, AFTER = 3, 4
"""Pieces before and after a piece that its choice depends on. So sound is held back by about 2 s."""

CANCELS_BELOW = 0.25
"""The mean of channels that are not related has 1, and equal channels have C: see `_Powers.kept`."""
CANCELS_ALSO_BELOW = 0.4
"""Enough if it is so for all pieces that a choice depends on, taken together."""
HEARD_FROM = 0.1
"""A piece is judged by itself if it has at least this share of the usual power of voices around it."""
MEAN_AGAIN_FROM = 0.8
"""A chosen channel is left if the mean keeps this much."""

NOISE_SPOILS_BELOW_DB = 25.0
"""Noise further below the voice does no harm, and the mean stays."""
NOISE_GAIN_DB = 6.0
"""One channel must be this much better than the mean."""
AS_GOOD_DB = 3.0
"""Of channels that differ by less, the louder one is used, and the first of equal ones."""
STEADY_BELOW = 0.25
"""A channel holds only hum or hiss if less than this share of its power is above its floor."""

VOICE_FROM = 0.01
"""Less than this share of the power of the loudest channel is no voice: 20 dB below the noise."""

CLIPPED = "clipped sound"
"""The key in the account of clipped sound."""
CLIPPED_FROM = 0.999
"""A sample this near to the edge of the range is clipped."""
SAID_CLIPPED = 0.01
"""People are told if this share of a channel is clipped."""

# Sound changes over 0.5 ms hold voices, and little of the hum and rumble below them.
_LAG_HZ = 2000
# Powers need no more samples than this, even though the frequencies above half of it are folded.
_POWERS_HZ = 8000
_SLOT_SAMPLES = _POWERS_HZ // 25
_FLOOR_PERCENT = 10
_STEADY_WEIGHT = 0.01  # steady tones are judged too if nothing else is heard
_TINY = 1e-12


class Downmix:
    """Makes one channel of the channels of one track. All choices are said in its account, each once."""

    def __init__(self, account: Account | None = None) -> None:
        self._account = Account() if account is None else account
        self._said: set[str] = set()
        self._form: tuple[int, int] | None = None  # channels and rate
        self._open: list[_Block] = []  # the piece that is not complete yet
        self._open_samples = 0
        self._pieces: deque[_Piece] = deque()  # those before the next choice, and those that wait for theirs
        self._chosen = 0  # how many of them have been chosen for
        self._channel: int | None = None
        self._clipped: NDArray[np.int64] = np.zeros(0, np.int64)
        self._samples = 0

    def push(self, values_CS: Floats, rate: int) -> list[Floats]:
        """The blocks [S] that are complete with this one: one for each block that was given, in order and as long.

        values_CS: the channels, finite, in [-1, 1] unless a codec overshoots. rate: Hz.
        Channels and rate may change on the way.
        """
        ready = []
        if self._form != (len(values_CS), rate):
            ready = self._end()
            self._form = (len(values_CS), rate)
            self._clipped, self._samples = np.zeros(len(values_CS), np.int64), 0
        self._open.append(_Block(values_CS, mean_of(values_CS)))
        self._open_samples += values_CS.shape[1]
        if len(values_CS) == 1:  # nothing to choose
            ready.append(self._open[-1].mean_S)
        if self._open_samples >= min(PIECE_S * rate, MOST_VALUES / len(values_CS)):
            self._close_piece()
            ready += self._choose(AFTER)
        return ready

    def finish(self) -> list[Floats]:
        """The other blocks. Says in the account how much was clipped."""
        return self._end()

    def _end(self) -> list[Floats]:
        """The other blocks of these channels."""
        self._close_piece()
        ready = self._choose(0)
        self._pieces.clear()
        self._chosen, self._channel = 0, None
        clipped = self._clipped.max(initial=0) / max(1, self._samples)
        if clipped >= SAID_CLIPPED:
            line = f"{clipped:.0%} of the sound is clipped, and words may be wrong there: record it at a lower level"
            self._account.note(CLIPPED, line)
        return ready

    def _close_piece(self) -> None:
        blocks, self._open, self._open_samples = self._open, [], 0
        if not blocks or self._form is None:
            return
        values_CS = np.concatenate([block.values_CS for block in blocks], axis=1)
        self._samples += values_CS.shape[1]
        if values_CS.max(initial=0) >= CLIPPED_FROM or values_CS.min(initial=0) <= -CLIPPED_FROM:
            self._clipped += (np.abs(values_CS) >= CLIPPED_FROM).sum(axis=1)
        if len(values_CS) > 1:
            self._pieces.append(_Piece(blocks, _powers(values_CS, self._form[1])))

    def _choose(self, after: int) -> list[Floats]:
        """The blocks of the pieces that at least `after` others follow."""
        ready: list[Floats] = []
        while len(self._pieces) - self._chosen > after:
            piece = self._pieces[self._chosen]
            span = [other.powers_CT for other in self._pieces]
            self._channel = self._next_channel(_Powers(piece.powers_CT), _Powers(np.concatenate(span, axis=1)))
            channel = self._channel
            ready += [block.mean_S if channel is None else block.values_CS[channel] for block in piece.blocks]
            self._pieces[self._chosen] = _Piece([], piece.powers_CT)
            self._chosen += 1
            if self._chosen > BEFORE:
                self._pieces.popleft()
                self._chosen -= 1
        return ready

    def _next_channel(self, piece: _Powers, span: _Powers) -> int | None:
        """The channel for a piece, None for the mean. span: the pieces around it too."""
        if not span.loudest > _TINY:  # silence, or values without meaning
            return self._channel
        # The noise of a pause may have any phase.
        is_heard = piece.voices > span.voices * HEARD_FROM
        if (is_heard and piece.kept < CANCELS_BELOW) or span.kept < CANCELS_ALSO_BELOW:
            why, channel = "the channels cancel each other when they are mixed", span.best(self._channel)
        elif (alone := span.beside_noise()) is not None:
            why, channel = "the other channels hold only hum or noise", alone
        elif self._channel is not None and (span.kept < MEAN_AGAIN_FROM or not (span.with_voice - {self._channel})):
            return self._channel  # in a pause nothing speaks for the mean either
        else:
            return None
        self._say(f"{why}: channel {channel + 1} of {span.channels} is used alone")
        return channel

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._account.note(line, line)


class _Block(NamedTuple):
    values_CS: Floats
    mean_S: Floats


class _Piece(NamedTuple):
    blocks: list[_Block]
    """None are left once the choice is made."""
    powers_CT: Floats


class _Powers:
    """What the powers [C + 1, T] of some slots tell: of each channel, and of the mean in the last row."""

    def __init__(self, powers_CT: Floats) -> None:
        self.channels = len(powers_CT) - 1
        self._mean_C = powers_CT.mean(axis=1, dtype=np.float64)
        # The floor is what hum and hiss have at all times; voices come and go.
        place = powers_CT.shape[1] * _FLOOR_PERCENT // 100
        self._floor_C = np.partition(powers_CT, place, axis=1)[:, place].astype(np.float64)
        self._alive_C = np.maximum(self._mean_C - self._floor_C, 0) + _STEADY_WEIGHT * self._mean_C

    @property
    def loudest(self) -> float:
        """The power of the loudest channel."""
        return float(self._mean_C[:-1].max())

    @property
    def voices(self) -> float:
        """The power of the voices in all channels."""
        return float(self._alive_C[:-1].sum())

    @property
    def kept(self) -> float:
        """How much of the voices the mean keeps: 0 for channels that cancel, 1 for different voices or for one channel
        beside silent ones, C for equal channels."""
        return float(self._alive_C[-1] * self.channels**2 / max(self.voices, _TINY))

    @property
    def with_voice(self) -> set[int]:
        """The channels that hold more than hum and hiss."""
        share_C = self._alive_C[:-1] / np.maximum(self._mean_C[:-1], _TINY)
        voices = np.flatnonzero((share_C >= STEADY_BELOW) & (self._alive_C[:-1] > VOICE_FROM * self.loudest))
        return set(voices.tolist())

    def best(self, now: int | None) -> int:
        """The channel that holds the voices best. now: the channel of the piece before; it stays if it is as good."""
        # A louder channel is better, and a channel with less noise.
        alive_C = self._alive_C[:-1]
        ratio_C = np.where(alive_C >= alive_C.max() / 4, self._ratio_db[:-1], -np.inf)
        if now is not None and ratio_C[now] > ratio_C.max() - NOISE_GAIN_DB:
            return now
        alive_C = np.where(ratio_C >= ratio_C.max() - AS_GOOD_DB, alive_C, 0)
        return int(np.flatnonzero(alive_C >= alive_C.max() / 2)[0])

    def beside_noise(self) -> int | None:
        """The channel that holds a voice, if the noise of the others would spoil it in the mean."""
        if len(self.with_voice) != 1:
            return None
        (alone,), mean_db = self.with_voice, self._ratio_db[-1]
        is_better = mean_db < NOISE_SPOILS_BELOW_DB and self._ratio_db[alone] > mean_db + NOISE_GAIN_DB
        return alone if is_better else None

    @property
    def _ratio_db(self) -> NDArray[np.float64]:
        """From the floor to the voices, in dB: [C + 1]."""
        ratio: NDArray[np.float64] = 10 * np.log10((self._alive_C + _TINY) / (self._floor_C + _TINY))
        return ratio


def mean_of(values_CS: Floats) -> Floats:
    """The mean [S] of channels."""
    if len(values_CS) > 2:
        return values_CS.mean(axis=0, dtype=np.float32)
    # The same to the bit, in a third of the time. Zero is added as `mean` does: it makes 0 of -0.
    mean_S = values_CS[0] + np.float32(0)
    return (mean_S + values_CS[1]) * np.float32(0.5) if len(values_CS) == 2 else mean_S


def _powers(values_CS: Floats, rate: int) -> Floats:
    """The power of each channel and of the mean in each slot, where voices are: [C + 1, T], T at least 1."""
    lag, step = max(1, rate // _LAG_HZ), max(1, rate // _POWERS_HZ)
    if values_CS.shape[1] <= lag:
        return np.zeros((len(values_CS) + 1, 1), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # values without meaning give powers without meaning
        change_CS: NDArray[Any] = values_CS[:, lag::step] - values_CS[:, :-lag:step]
        change_CS = np.concatenate((change_CS, change_CS.mean(axis=0, keepdims=True)))
        slots = max(1, change_CS.shape[1] // _SLOT_SAMPLES)
        count = min(slots * _SLOT_SAMPLES, change_CS.shape[1])
        return np.square(change_CS[:, :count]).reshape(len(change_CS), slots, -1).mean(axis=2, dtype=np.float32)
