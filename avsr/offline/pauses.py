"""Windows for models that recognise whole stretches of speech: they begin and end in pauses.

A window holds as many stretches as fit into it, with the silence between them: Whisper pads each window to 30 s, so few
windows cost least, and words before a pause help with those after it. The rest of the sound is in windows too, so
that windows follow each other without a gap; but these say that nobody speaks in them.

Letters: B windows of the voice detector, T slots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from avsr.arrays import Present
from avsr.grid import FRAME_MS, FRAME_SAMPLES, FRAME_SLOTS, SLOT_SAMPLES
from avsr.lips.movement import follow_movement, initial_movement
from avsr.offline.tape import Tape, Window
from avsr.sound.speech import Stretch, follow_speech, initial_speech
from avsr.sound.voice import WINDOW_SAMPLES, voice_network

_STEP_FRAMES = 2000 // FRAME_MS  # read at once


def cut_at_pauses(tape: Tape, longest: int) -> Iterator[Window]:
    """The windows of a recording in order, which cover it once. Each has at most `longest` frames."""
    listener = _Listener(longest)
    group: list[Stretch] = []
    done = 0
    while not tape.has_ended:
        tape.read(tape.end + _STEP_FRAMES)
        stretches = listener.listen(tape)
        groups, group = pack(stretches, group, longest, listener.settled)
        if tape.has_ended and group:
            groups, group = [*groups, group], []
        for stretches in groups:
            # The last frame of a stretch may lie beyond the end of the recording.
            speech = [Stretch(start, min(end, tape.end)) for start, end in stretches]
            yield from _silence(tape, done, speech[0].start, longest)
            done = speech[-1].end
            yield tape.window(speech[0].start, (speech[0].start, done), done, speech)
        # Silence is cut into whole windows while nobody knows where it ends, so that it needs no memory.
        silent = group[0].start if group else listener.settled
        silent = tape.end if tape.has_ended else done + max(0, silent - done) // longest * longest
        yield from _silence(tape, done, silent, longest)
        done = max(done, silent)
        tape.drop(done)


def pack(
    stretches: Iterable[Stretch], group: Sequence[Stretch], longest: int, settled: int
) -> tuple[list[list[Stretch]], list[Stretch]]:
    """The groups of stretches that share a window and are complete, and the group that is not.

    group: the stretches that were not complete before. settled: no later stretch begins before this frame.
    """
    complete, group = [], list(group)
    for stretch in stretches:
        if group and stretch.end - group[0].start > longest:
            complete.append(group)
            group = []
        group.append(stretch)
    if group and settled - group[0].start > longest:  # no later stretch fits
        complete.append(group)
        group = []
    return complete, group


def _silence(tape: Tape, first: int, end: int, longest: int) -> Iterator[Window]:
    """Windows without speech from one frame to another."""
    for start in range(first, end, longest):
        stop = min(start + longest, end)
        yield tape.window(start, (start, stop), stop, ())


class _Listener:
    """Finds the stretches of speech on a tape while it is read."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._network = voice_network()
        self._voice = self._network.initial_state()
        self._movement = initial_movement()
        self._speech = initial_speech()
        self._windows = 0  # of the voice detector, so far
        self._moving_T: Present = np.zeros(0, bool)  # of all slots so far: a byte each

    @property
    def settled(self) -> int:
        """No later stretch begins before this frame."""
        return self._speech.settled

    def listen(self, tape: Tape) -> list[Stretch]:
        """The stretches that the sound and lips read since the last call complete."""
        seen = tape.held[len(self._moving_T) - tape.first * FRAME_SLOTS :]
        moving_T, self._movement = follow_movement(seen, self._movement)
        self._moving_T = np.concatenate((self._moving_T, moving_T))
        samples = tape.samples[self._windows * WINDOW_SAMPLES - tape.first * FRAME_SAMPLES :]
        if tape.has_ended:
            samples = np.pad(samples, (0, -len(samples) % WINDOW_SAMPLES))
        numbers_B = np.arange(self._windows, self._windows + len(samples) // WINDOW_SAMPLES)
        slots_B = (numbers_B * WINDOW_SAMPLES + WINDOW_SAMPLES // 2) // SLOT_SAMPLES
        if not tape.picture_has_ended:  # a window waits for its lips
            slots_B = slots_B[slots_B < len(self._moving_T)]
        samples = samples[: len(slots_B) * WINDOW_SAMPLES]
        voice_B, self._voice = self._network.probabilities(samples, self._voice)
        self._windows += len(slots_B)
        moving_B = np.concatenate((self._moving_T, [False]))[np.minimum(slots_B, len(self._moving_T))]
        stretches, self._speech = follow_speech(voice_B, moving_B, self._speech, self._longest, is_last=tape.has_ended)
        return stretches
