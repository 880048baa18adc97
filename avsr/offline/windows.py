"""A media file as overlapping windows of sound and lips, so that memory does not grow with its length."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

import numpy as np

from avsr.arrays import Crops, Present, Samples
from avsr.grid import CROP_PX, FRAME_MS, FRAME_SAMPLES, FRAME_SLOTS, HOP_SAMPLES
from avsr.lips.choice import FaceChoice, face_choice
from avsr.lips.faces import import_mediapipe
from avsr.lips.slots import LipSlot, Slot
from avsr.lips.tracker import slots_of
from avsr.media import iter_frames, read_ahead
from avsr.offline.source import Source
from avsr.speakers.speaking_face import SpeakingFace

MAX_FRAMES = 1 << 40  # more than any recording has
SLOTS_IN_FLIGHT = 50  # lips found ahead of the network: 2 s


class Window(NamedTuple):
    """A stretch of a recording. Frames are 80 ms long and counted from media time 0, whatever a model's frames are."""

    first: int
    """Its first frame."""
    keep: tuple[int, int]
    """The frames [start, end) that this window decides on; the others are the margin."""
    samples: Samples | None
    """None if the sound is not used."""
    crops: Crops | None
    """None if the picture is not used."""
    present: Present | None
    faces: list[int | None]
    """The face in each slot, as far as the picture goes; None in slots without lips."""
    reasons: list[str]
    """Why each slot has no lips, as in `LipSlot`; "ok" if it has."""


def windows(
    source: Source,
    *,
    sound: bool,
    picture: bool,
    face: str = "auto",
    core_s: float = 16.0,
    margin_s: float = 2.0,
    on_slot: Callable[[Slot], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Generator[Window, None, None]:
    """The windows of a recording in order. Decoding, face finding and the caller's work run side by side.

    sound, picture: which streams to read; the recording must have them.
    face: the face to read lips from, as `face_choice` takes it; with sound, "auto" is the face that speaks.
    core_s: the length that a window decides on; infinity for one window of the whole recording.
    margin_s: how much a window holds on either side of it.
    on_slot: called, in another thread, with the lips of all faces, slot by slot.
    on_warning: called with a line for each thing that is wrong with the file.

    Raises MediaError when a stream holds nothing readable, ConfigError for another `face`.
    """
    choice: FaceChoice = face_choice(face)
    audio_blocks = source.blocks(on_warning) if sound else iter(())
    # The choice reads the sound a second time, in another thread and a second or two away; that costs 5 ms a second.
    audio_of_choice: Iterator[Samples] = iter(())
    if face == "auto" and sound and picture:
        audio_of_choice = source.blocks(None)  # the other reader reports damage
        choice = SpeakingFace(audio_of_choice)
    slots: Iterator[LipSlot] = iter(())
    if picture:
        assert source.path is not None
        import_mediapipe()
        # Two threads use most of two cores. Two processes for parts of a file did 1.25 times as much, and starting one
        # takes 4 s.
        frames = read_ahead(iter_frames(source.path, on_warning=on_warning))
        everybody = _watched(slots_of(frames, end_s=source.duration_s or 0.0), on_slot)
        slots = read_ahead(choice.follow(everybody), SLOTS_IN_FLIGHT)
    core = MAX_FRAMES if math.isinf(core_s) else max(1, round(1000 * core_s / FRAME_MS))
    margin = 0 if math.isinf(core_s) else round(1000 * margin_s / FRAME_MS)
    try:
        yield from _cut(audio_blocks, slots, core, margin, sound=sound, picture=picture)
    finally:
        # The slots go first: their threads still read the sound for the choice.
        for reader in (slots, audio_of_choice, audio_blocks):
            close = getattr(reader, "close", None)
            if close is not None:
                close()


def _cut(
    audio_blocks: Iterator[Samples],
    slots: Iterator[LipSlot],
    core_frames: int,
    margin_frames: int,
    *,
    sound: bool,
    picture: bool,
) -> Iterator[Window]:
    samples = np.zeros(0, np.float32)  # from frame `first` on
    held: list[LipSlot] = []
    first = core = 0
    audio_ended, video_ended = not sound, not picture
    while True:
        wanted = core + core_frames + 2 * margin_frames - first  # enough to know whether another core follows
        blocks = [samples]
        count = len(samples)
        while not audio_ended and count < wanted * FRAME_SAMPLES:
            block = next(audio_blocks, None)
            if block is None:
                audio_ended = True
            else:
                blocks.append(block)
                count += len(block)
        samples = np.concatenate(blocks)
        while not video_ended and len(held) < wanted * FRAME_SLOTS:
            slot = next(slots, None)
            if slot is None:
                video_ended = True
            else:
                held.append(slot)
        # The longer stream decides, so that the end of the other is not lost.
        available = max(_whole_frames(len(samples)) if sound else 0, -(-len(held) // FRAME_SLOTS))
        if available == 0:
            return
        is_last = audio_ended and video_ended and first + available <= core + core_frames + margin_frames
        end = first + available if is_last else core + core_frames + margin_frames
        keep = (core, end if is_last else core + core_frames)
        yield _window(first, keep, end, samples if sound else None, held, picture=picture)
        if is_last:
            return
        core += core_frames
        # The margin before the next core is kept: an encoder needs the past of the frames that it decides on.
        drop = max(0, core - margin_frames - first)
        samples = samples[drop * FRAME_SAMPLES :]
        held = held[drop * FRAME_SLOTS :]
        first += drop


def _window(
    first: int,
    keep: tuple[int, int],
    end: int,
    samples: Samples | None,
    held: list[LipSlot],
    *,
    picture: bool,
) -> Window:
    frames = end - first
    if samples is not None:
        samples = samples[: frames * FRAME_SAMPLES]
        if _whole_frames(len(samples)) < frames:  # the picture goes on after the sound
            samples = np.concatenate((samples, np.zeros(frames * FRAME_SAMPLES - len(samples), np.float32)))
    if not picture:
        return Window(first, keep, samples, None, None, [], [])
    held = held[: frames * FRAME_SLOTS]
    missing = frames * FRAME_SLOTS - len(held)  # the sound goes on after the picture
    crops = np.zeros((frames * FRAME_SLOTS, CROP_PX, CROP_PX), np.uint8)
    for index, slot in enumerate(held):
        crops[index] = slot.crop
    present = np.array([slot.present for slot in held] + [False] * missing, bool)
    faces = [slot.face if slot.present else None for slot in held]
    reasons = [slot.reason for slot in held]
    return Window(first, keep, samples, crops, present, faces, reasons)


def _whole_frames(samples: int) -> int:
    """How many 80 ms frames the samples fill. The last one counts if at least one 10 ms hop of it is there."""
    return -(-(samples // HOP_SAMPLES) * HOP_SAMPLES // FRAME_SAMPLES)


def _watched(slots: Iterator[Slot], on_slot: Callable[[Slot], None] | None) -> Iterator[Slot]:
    for slot in slots:
        if on_slot is not None:
            on_slot(slot)
        yield slot
