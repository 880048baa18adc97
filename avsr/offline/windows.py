"""A recording as windows of sound and lips, so that memory does not grow with its length."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator

from avsr.arrays import Samples
from avsr.errors import MediaError
from avsr.grid import FRAME_MS, SLOT_S
from avsr.lips.choice import FaceChoice, face_choice
from avsr.lips.faces import import_mediapipe
from avsr.lips.slots import LipSlot, Slot
from avsr.lips.tracker import slots_of
from avsr.media import VideoFrame, iter_frames, read_ahead
from avsr.offline.pauses import cut_at_pauses
from avsr.offline.source import Source
from avsr.offline.tape import Tape, Window
from avsr.speakers.moving_face import MovingFace
from avsr.speakers.speaking_face import SpeakingFace

MAX_FRAMES = 1 << 40  # more than any recording has
SLOTS_IN_FLIGHT = 50
"""Lips found ahead of the engine: 2 s. For windows that are cut at pauses it is one window, because the engine takes
that much at once."""


def windows(
    source: Source,
    *,
    sound: bool,
    picture: bool,
    face: str = "auto",
    core_s: float = 16.0,
    margin_s: float = 2.0,
    lips: bool = True,
    at_pauses: bool = False,
    on_slot: Callable[[Slot], None] | None = None,
) -> Generator[Window, None, None]:
    """The windows of a recording in order. Decoding, face finding and the caller's work run side by side.

    The account of the recording counts what is read, and says what is wrong with the file.

    sound, picture: which streams to read; the recording must have them.
    face: the face to read lips from, as `face_choice` takes it; "auto" is the face that speaks: that fits the
        sound, or without sound that moves its lips.
    core_s: the length that a window decides on; infinity for one window of the whole recording.
    margin_s: how much a window holds on either side of it.
    lips: whether windows hold the crops of the lips. False: the picture only tells who is seen, and when.
    at_pauses: windows of at most `core_s` begin and end in pauses; some of them hold no speech. It needs the sound.
    on_slot: called, in another thread, with the lips of all faces, slot by slot.

    Raises MediaError when a stream holds nothing readable, ConfigError for another `face`.
    """
    choice: FaceChoice = face_choice(face)
    audio_blocks = source.blocks(source.account) if sound else iter(())
    # The choice reads the sound a second time, in another thread and a second or two away; that costs 5 ms a second.
    audio_of_choice: Iterator[Samples] = iter(())
    if face == "auto" and sound and picture:
        audio_of_choice = source.blocks(None)  # the other reader counts
        choice = SpeakingFace(audio_of_choice)
    elif face == "auto":
        choice = MovingFace()
    slots: Iterator[LipSlot] = iter(())
    if picture:
        assert source.path is not None
        import_mediapipe()
        # Two threads use most of two cores. Two processes for parts of a file did 1.25 times as much, and starting one
        # takes 4 s.
        path, account = source.path, source.account
        pictures = iter_frames(path, tracks=source.tracks, account=account, max_hours=source.max_hours)
        frames = read_ahead(pictures if lips else _while_readable(pictures, source))
        everybody = _watched(slots_of(frames, end_s=source.duration_s or 0.0, account=source.account), on_slot)
        slots = read_ahead(choice.follow(everybody), round(core_s / SLOT_S) if at_pauses else SLOTS_IN_FLIGHT)
    core = MAX_FRAMES if math.isinf(core_s) else max(1, round(1000 * core_s / FRAME_MS))
    margin = 0 if math.isinf(core_s) else round(1000 * margin_s / FRAME_MS)
    tape = Tape(audio_blocks, slots, sound=sound, picture=picture, lips=picture and lips)
    try:
        yield from cut_at_pauses(tape, core) if at_pauses else _cut(tape, core, margin)
    finally:
        # The slots go first: their threads still read the sound for the choice.
        for reader in (slots, audio_of_choice, audio_blocks):
            close = getattr(reader, "close", None)
            if close is not None:
                close()


def _cut(tape: Tape, core_frames: int, margin_frames: int) -> Iterator[Window]:
    """Windows of equal length, which overlap by their margins."""
    core = 0
    while True:
        tape.read(core + core_frames + 2 * margin_frames)  # enough to know whether another core follows
        if tape.end == tape.first:
            return
        last = core + core_frames + margin_frames
        is_last = tape.has_ended and tape.end <= last
        end = tape.end if is_last else last
        yield tape.window(tape.first, (core, end if is_last else core + core_frames), end)
        if is_last:
            return
        core += core_frames
        # The margin before the next core is kept: an encoder needs the past of the frames that it decides on.
        tape.drop(core - margin_frames)


def _while_readable(frames: Iterator[VideoFrame], source: Source) -> Iterator[VideoFrame]:
    """The pictures, if any can be read: words that come from the sound do not need them."""
    try:
        yield from frames
    except MediaError as error:
        source.account.note("no pictures", str(error).removeprefix(f"{source.path}: "))


def _watched(slots: Iterator[Slot], on_slot: Callable[[Slot], None] | None) -> Iterator[Slot]:
    for slot in slots:
        if on_slot is not None:
            on_slot(slot)
        yield slot
