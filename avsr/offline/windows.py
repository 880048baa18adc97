"""A media file as overlapping windows of sound and lips, so that memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from os import PathLike
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.grid import CROP_PX, FRAME_SAMPLES, FRAME_SLOTS
from avsr.lips.choice import FaceChoice, face_choice
from avsr.lips.faces import import_mediapipe
from avsr.lips.slots import LipSlot, Slot
from avsr.lips.tracker import slots_of
from avsr.media import iter_audio, iter_frames, read_ahead
from avsr.speakers.speaking_face import SpeakingFace

CORE_FRAMES = 200  # 16 s: what a window decides on
MARGIN_FRAMES = 25  # 2 s: what it sees on either side besides
SLOTS_IN_FLIGHT = 50  # lips found ahead of the network: 2 s


class Window(NamedTuple):
    """A stretch of a file. Frames are 80 ms long and counted from media time 0.

    first: its first frame. keep: the frames [start, end) whose result counts. samples [S] at 16 kHz, or None without
    sound. crops [T, 96, 96] uint8 with present [T], or None where no picture is looked at; faces and reasons, one a
    slot as far as the picture goes, say whose lips these are and why there are none.
    """

    first: int
    keep: tuple[int, int]
    samples: NDArray[np.float32] | None
    crops: NDArray[np.uint8] | None
    present: NDArray[np.bool_] | None
    faces: list[int | None]
    reasons: list[str]


def windows(
    path: str | PathLike[str],
    *,
    sound: bool,
    picture: bool,
    face: str = "auto",
    end_s: float = 0.0,
    on_slot: Callable[[Slot], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Generator[Window, None, None]:
    """The windows of a file in order. Decoding, face finding and the caller's work run side by side.

    sound, picture: which streams to read; the file must have them. end_s: where the picture ends at the latest, by the
    container. face: whose lips the windows hold, as `face_choice` takes it; with sound, "auto" is who speaks. on_slot:
    called, in another thread, with the lips of all faces, slot by slot. Raises MediaError when a stream holds nothing
    readable, ConfigError for another `face`.
    """
    choice: FaceChoice = face_choice(face)
    audio_blocks = iter_audio(path, on_warning=on_warning) if sound else iter(())
    # Read a second time, by another thread and a second or two away from the first; that costs 5 ms a second.
    heard_by_choice: Iterator[NDArray[np.float32]] = iter(())
    if face == "auto" and sound and picture:
        heard_by_choice = iter_audio(path, on_warning=None)  # the other reader reports
        choice = SpeakingFace(heard_by_choice)
    slots: Iterator[LipSlot] = iter(())
    if picture:
        import_mediapipe()
        frames = read_ahead(iter_frames(path, on_warning=on_warning))
        everybody = _watched(slots_of(frames, end_s=end_s), on_slot)
        slots = read_ahead(choice.follow(everybody), SLOTS_IN_FLIGHT)
    try:
        yield from _cut(audio_blocks, slots, sound=sound, picture=picture)
    finally:
        for source in (slots, heard_by_choice, audio_blocks):
            close = getattr(source, "close", None)
            if close is not None:
                close()


def _cut(
    audio_blocks: Iterator[NDArray[np.float32]], slots: Iterator[LipSlot], *, sound: bool, picture: bool
) -> Iterator[Window]:
    samples = np.zeros(0, np.float32)  # from frame `first` on
    held: list[LipSlot] = []
    first = core = 0
    audio_ended, video_ended = not sound, not picture
    while True:
        wanted = core + CORE_FRAMES + 2 * MARGIN_FRAMES - first  # enough to know whether another core follows
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
        available = max(_whole_frames(len(samples)) if sound else 0, -(-len(held) // FRAME_SLOTS))
        if available == 0:
            return
        is_last = audio_ended and video_ended and first + available <= core + CORE_FRAMES + MARGIN_FRAMES
        end = first + available if is_last else core + CORE_FRAMES + MARGIN_FRAMES
        keep = (core, end if is_last else core + CORE_FRAMES)
        yield _window(first, keep, end, samples if sound else None, held, picture=picture)
        if is_last:
            return
        core += CORE_FRAMES
        drop = core - MARGIN_FRAMES - first
        samples = samples[drop * FRAME_SAMPLES :]
        held = held[drop * FRAME_SLOTS :]
        first += drop


def _window(
    first: int,
    keep: tuple[int, int],
    end: int,
    samples: NDArray[np.float32] | None,
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
    """80 ms frames of so many samples, the last one begun by at least one 10 ms hop."""
    return -(-(samples // 160) // 8)


def _watched(slots: Iterator[Slot], on_slot: Callable[[Slot], None] | None) -> Iterator[Slot]:
    for slot in slots:
        if on_slot is not None:
            on_slot(slot)
        yield slot
