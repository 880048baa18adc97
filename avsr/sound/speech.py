"""Stretches of sound in which somebody may speak, from the voice detector and from moving lips.

A stretch begins where a voice is likely and ends where it has been unlikely for a pause. Lost speech costs words, and
sound without speech costs some time only, because recognisers have checks of their own. So the thresholds are low and
the edges are wide.

Letters: B windows of 32 ms.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Present
from avsr.grid import FRAME_SAMPLES, SAMPLE_RATE_HZ
from avsr.sound.voice import VOICE_FROM, WINDOW_SAMPLES

GOES_ON_FROM = 0.1
"""A stretch goes on while the probability of a voice reaches this: faint ends of words stay above it."""
WITH_LIPS_FROM = 0.02
"""Enough while lips move. In noise at -5 dB, 1 word in 200 stays below it; 4 in 5 windows of noise alone do too."""
LEAST_WINDOWS = 6
"""A stretch has at least this many windows with a voice: 0.19 s. The shortest words of AN4, such as "go", have 10 in
noise at 0 dB. Of 100 recordings without speech 9 have 2 or more, and 4 have 6."""
EDGE_S = 0.3
"""Sound on either side that belongs to a stretch: the detector misses faint first and last sounds."""
PAUSE_WINDOWS = 24
"""Windows without a voice that end a stretch: 0.77 s. Two edges, rounded to frames of 80 ms, fit between stretches."""

_EDGE_SAMPLES = round(EDGE_S * SAMPLE_RATE_HZ)
_QUIET_WINDOWS = 7  # a cut lies in the middle of the quietest 0.22 s, which is longer than the closure of a consonant

Bools = NDArray[np.bool_]


class Stretch(NamedTuple):
    """Frames of 80 ms [start, end) in which somebody may speak."""

    start: int
    end: int


class SpeechState(NamedTuple):
    """The windows of a recording that no complete stretch holds yet and that may begin one."""

    first: int
    """The number of the first of them. If there are others, a stretch is open from here."""
    voice_B: NDArray[np.float32]
    """The probability of a voice."""
    begins_B: Bools
    """Whether a stretch may begin in a window."""
    goes_on_B: Bools
    """Whether a stretch goes on in a window."""
    after_cut: bool
    """Whether the stretch before was too long and was cut here."""

    @property
    def settled(self) -> int:
        """No later stretch begins before this frame."""
        return _first_frame(self.first, after_cut=self.after_cut)

    def after(self, count: int, *, cut: bool = False) -> SpeechState:
        """The state without its first windows."""
        return SpeechState(self.first + count, self.voice_B[count:], self.begins_B[count:], self.goes_on_B[count:], cut)


def initial_speech() -> SpeechState:
    """The state before the first window."""
    return SpeechState(0, np.zeros(0, np.float32), np.zeros(0, bool), np.zeros(0, bool), after_cut=False)


def follow_speech(
    voice_B: NDArray[np.float32], moving_B: Present, state: SpeechState, longest: int, *, is_last: bool = False
) -> tuple[list[Stretch], SpeechState]:
    """The stretches that the next windows complete, in order and apart from each other, and the next state.

    voice_B: the probability of a voice in each window. moving_B: whether lips move in it.
    longest: frames; a longer stretch is cut at its quietest place. is_last: whether the sound ends with these windows.

    Any cutting into blocks gives the same stretches.
    """
    lips_B = moving_B & (voice_B >= WITH_LIPS_FROM)
    state = state._replace(
        voice_B=np.concatenate((state.voice_B, voice_B)),
        begins_B=np.concatenate((state.begins_B, lips_B | (voice_B >= VOICE_FROM))),
        goes_on_B=np.concatenate((state.goes_on_B, lips_B | (voice_B >= GOES_ON_FROM))),
    )
    stretches = []
    while len(state.voice_B):
        begins = np.flatnonzero(state.begins_B)
        # Speech goes on after a cut, even where a voice is too unlikely for a beginning.
        state = state if state.after_cut else state.after(int(begins[0]) if len(begins) else len(state.voice_B))
        stretch, after = _first_stretch(state, longest, is_last=is_last)
        if after is state:
            break
        state = after
        if stretch is not None:
            stretches.append(stretch)
    return stretches, state


def _first_stretch(state: SpeechState, longest: int, *, is_last: bool) -> tuple[Stretch | None, SpeechState]:
    """The stretch that begins with the state, and the state after it; the same state if the stretch is still open.

    No stretch, but another state, for a click.
    """
    on = np.concatenate(([0], np.flatnonzero(state.goes_on_B)))
    pauses = np.flatnonzero(np.diff(on) > PAUSE_WINDOWS)
    last = int(on[pauses[0]] if len(pauses) else on[-1])
    start = _first_frame(state.first, after_cut=state.after_cut)
    end = _end_frame(state.first + last + 1)
    # All places for a cut must be there, or it would depend on the blocks.
    known = _frame(state.first + len(state.voice_B) - _QUIET_WINDOWS)
    if end - start > longest and (is_last or known > start + longest):
        cut = _quietest(state, start, longest)
        return Stretch(start, _frame(state.first + cut)), state.after(cut, cut=True)
    if not (is_last or len(pauses) or len(state.voice_B) - 1 - last >= PAUSE_WINDOWS):
        return None, state
    is_speech = state.after_cut or np.count_nonzero(state.begins_B[: last + 1]) >= LEAST_WINDOWS
    return Stretch(start, end) if is_speech else None, state.after(last + 1)


def _quietest(state: SpeechState, start: int, longest: int) -> int:
    """The window before which a stretch is cut: where a voice is least likely in the last third of the longest one."""
    places = np.array([place for place in range(len(state.voice_B)) if _is_last_third(state, place, start, longest)])
    half = _QUIET_WINDOWS // 2
    padded_B = np.pad(state.voice_B, half, mode="edge")
    around_B = np.convolve(padded_B, np.ones(_QUIET_WINDOWS), mode="valid")
    return int(places[np.argmin(around_B[places])])


def _is_last_third(state: SpeechState, place: int, start: int, longest: int) -> bool:
    return 2 * longest / 3 <= _frame(state.first + place) - start <= longest


def _frame(window: int) -> int:
    """The frame that begins nearest to the beginning of a window."""
    return round(window * WINDOW_SAMPLES / FRAME_SAMPLES)


def _first_frame(window: int, *, after_cut: bool) -> int:
    """The first frame of a stretch that begins with a window: sound before a cut belongs to the stretch before."""
    return _frame(window) if after_cut else max(0, (window * WINDOW_SAMPLES - _EDGE_SAMPLES) // FRAME_SAMPLES)


def _end_frame(windows: int) -> int:
    """The end of a stretch that ends with this many windows of the recording."""
    return -(-(windows * WINDOW_SAMPLES + _EDGE_SAMPLES) // FRAME_SAMPLES)
