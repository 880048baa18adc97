"""The sound and the lips of a recording, read step by step and held for as long as a window needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from avsr.arrays import Crops, Present, Samples
from avsr.grid import CROP_PX, FRAME_SAMPLES, FRAME_SLOTS, HOP_SAMPLES
from avsr.lips.slots import LipSlot
from avsr.sound.speech import Stretch


class Window(NamedTuple):
    """A part of a recording. Frames are 80 ms long and counted from media time 0, whatever a model's frames are."""

    first: int
    """Its first frame."""
    keep: tuple[int, int]
    """The frames [start, end) that this window decides on; the others are the margin."""
    samples: Samples | None
    """None if the sound is not used."""
    crops: Crops | None
    """None if the lips are not read."""
    present: Present | None
    faces: list[int | None]
    """The face in each slot, as far as the picture goes; None in slots without lips."""
    reasons: list[str]
    """Why each slot has no lips, as in `LipSlot`; "ok" if it has."""
    speech: tuple[Stretch, ...] | None = None
    """Where somebody may speak; empty: nowhere, and nothing has to be recognised. None: not looked for."""


class Tape:
    """Reads sound and picture side by side.

    audio_blocks, slots: the recording from media time 0.
    sound, picture: whether it has them.
    lips: whether windows hold the crops of the lips; without them the picture only tells who is seen.
    """

    def __init__(
        self, audio_blocks: Iterator[Samples], slots: Iterator[LipSlot], *, sound: bool, picture: bool, lips: bool
    ) -> None:
        self._audio_blocks, self._slots = audio_blocks, slots
        self._sound, self._picture, self._lips = sound, picture, lips
        self._audio_ended, self._video_ended = not sound, not picture
        self.first = 0
        """The first frame that is held."""
        self.samples = np.zeros(0, np.float32)
        """The sound that is held, from frame `first` on."""
        self.held: list[LipSlot] = []
        """The lips that are held, from frame `first` on."""

    @property
    def end(self) -> int:
        """The end of the held frames. The longer stream decides, so that the end of the other is not lost."""
        heard = _whole_frames(len(self.samples)) if self._sound else 0
        return self.first + max(heard, -(-len(self.held) // FRAME_SLOTS))

    @property
    def has_ended(self) -> bool:
        """Whether the whole recording is read."""
        return self._audio_ended and self._video_ended

    @property
    def picture_has_ended(self) -> bool:
        """Whether the whole picture is read; True without one."""
        return self._video_ended

    def read(self, end: int) -> None:
        """Read both streams as far as frame `end`, if the recording is so long."""
        blocks = [self.samples]
        count = len(self.samples)
        while not self._audio_ended and count < (end - self.first) * FRAME_SAMPLES:
            block = next(self._audio_blocks, None)
            if block is None:
                self._audio_ended = True
            else:
                blocks.append(block)
                count += len(block)
        self.samples = np.concatenate(blocks)
        while not self._video_ended and len(self.held) < (end - self.first) * FRAME_SLOTS:
            slot = next(self._slots, None)
            if slot is None:
                self._video_ended = True
            else:
                self.held.append(slot)

    def drop(self, first: int) -> None:
        """Forget the frames before `first`."""
        drop = max(0, first - self.first)
        self.samples = self.samples[drop * FRAME_SAMPLES :]
        self.held = self.held[drop * FRAME_SLOTS :]
        self.first += drop

    def window(self, first: int, keep: tuple[int, int], end: int, speech: Sequence[Stretch] | None = None) -> Window:
        """The window of the frames [first, end), which are held."""
        samples = self._samples_of(first, end) if self._sound else None
        stretches = None if speech is None else tuple(speech)
        if not self._picture:
            return Window(first, keep, samples, None, None, [], [], stretches)
        start = (first - self.first) * FRAME_SLOTS
        slots = self.held[start : start + (end - first) * FRAME_SLOTS]
        crops, present = self._crops_of(slots, end - first) if self._lips else (None, None)
        faces = [slot.face if slot.present else None for slot in slots]
        reasons = [slot.reason for slot in slots]
        return Window(first, keep, samples, crops, present, faces, reasons, stretches)

    def _samples_of(self, first: int, end: int) -> Samples:
        samples = self.samples[(first - self.first) * FRAME_SAMPLES : (end - self.first) * FRAME_SAMPLES]
        if _whole_frames(len(samples)) < end - first:  # the picture goes on after the sound
            silence = np.zeros((end - first) * FRAME_SAMPLES - len(samples), np.float32)
            samples = np.concatenate((samples, silence))
        return samples

    def _crops_of(self, slots: list[LipSlot], frames: int) -> tuple[Crops, Present]:
        missing = frames * FRAME_SLOTS - len(slots)  # the sound goes on after the picture
        crops = np.zeros((frames * FRAME_SLOTS, CROP_PX, CROP_PX), np.uint8)
        for index, slot in enumerate(slots):
            crops[index] = slot.crop
        present = np.array([slot.present for slot in slots] + [False] * missing, bool)
        return crops, present


def _whole_frames(samples: int) -> int:
    """How many 80 ms frames the samples fill. The last one counts if at least one 10 ms hop of it is there."""
    return -(-(samples // HOP_SAMPLES) * HOP_SAMPLES // FRAME_SAMPLES)
