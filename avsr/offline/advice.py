"""What to do about a file, from what `avsr doctor` found in it: one line each, with its gravity."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

from avsr.account import Account
from avsr.lips.quality import FaceQuality
from avsr.media import MediaInfo
from avsr.media.channels import CLIPPED
from avsr.sound.level import COUNTS_AS_SILENCE, NOT_HEARD, VERY_QUIET
from avsr.speakers.offset import Offset

SURE = 0.8
"""Confidence from which an offset is worth acting on."""

# Thresholds of the advice, by rule of thumb.
_SMALL_PX, _SMALLISH_PX = 60, 90  # width of a face
_BLURRED = 0.03
_TURNED_DEG = 30
_LATE_MS, _VERY_LATE_MS = 80, 200
_LOW_FPS = 20
_JITTER_MS = 15
_FAINT_DB = -45
_NOISY_DB = 10
_CLIPPED = 0.001
_RARELY = 0.5
_OFTEN_COVERED = 0.1

Severity = Literal["ok", "warn", "bad"]
SEVERITIES: tuple[Severity, ...] = ("ok", "warn", "bad")
"""The gravest last."""


@dataclasses.dataclass(frozen=True)
class SoundQuality:
    """The decoded sound. Levels are in dB of full scale, over 40 ms each."""

    level_db: float
    """The level that a tenth of the time exceeds."""
    snr_db: float | None
    """From the noise floor, the level that nine tenths of the time exceed, to `level_db`. None if less than 1 s of the
    file is more than digital silence."""
    clipped: float
    """Share of samples at the edge of the range."""
    silent: float
    """Share of the time below -60 dB."""


@dataclasses.dataclass(frozen=True)
class PictureTiming:
    """The times of the pictures, as decoded."""

    fps: float
    """Pictures a second, measured: the file may state another rate."""
    jitter_ms: float
    """Standard deviation of the steps between pictures."""


@dataclasses.dataclass(frozen=True)
class FaceReport:
    """One face of the file."""

    quality: FaceQuality
    speaking: float | None
    """Share of the loud time in which this face fits the sound best of all faces; with `--face auto` its lips are read
    then. None without sound."""


Advice = Iterator[tuple[Severity, str]]


def advise_account(account: Account, damage: list[str]) -> Advice:
    """What was left out, chosen or repaired. damage: errors that ended the sound or the picture."""
    lost = account.losses("sound packets", "picture packets")
    for line in [*lost, *damage]:
        yield "bad", f"{line}; repair or export the file again"
    for line in account.lines():
        if line.endswith(COUNTS_AS_SILENCE):
            yield "bad", f"{line}; check the microphone"
        elif line not in lost:
            # The choice of a track is no fault of the file.
            yield "ok" if " track " in line and line not in account.losses("tracks") else "warn", line


def advise(
    info: MediaInfo,
    sound: SoundQuality | None,
    timing: PictureTiming | None,
    offset: Offset | None,
    faces: tuple[FaceReport, ...],
    account: Account | None = None,
) -> Advice:
    """What to do about the file, in any order; nothing for a good one. account: what it says is not said again."""
    if info.audio is None:
        yield "warn", "no sound: only lips can be read (--modality v)"
    if info.video is None:
        yield "warn", "no picture: the sound is all there is (--modality a)"
    if sound is not None:
        yield from _advise_sound(sound, account or Account(), _other_track(info))
    if info.video is None:
        return
    if timing is not None and timing.fps < _LOW_FPS:
        yield "warn", f"{timing.fps:.0f} pictures a second: lips move faster than that; 25 or more are wanted"
    if timing is not None and timing.jitter_ms > _JITTER_MS:
        yield "warn", f"pictures come irregularly (by {timing.jitter_ms:.0f} ms): film at a constant rate if you can"
    if not faces:
        # Without sound and lips there is nothing to recognise from; with sound the lips are only missed.
        yield "bad" if info.audio is None else "warn", "no face in the picture: lips cannot help"
        return
    yield from _advise_faces(faces)
    if offset is not None and offset.confidence >= SURE and abs(offset.ms) > _LATE_MS:
        later = "later" if offset.ms > 0 else "earlier"
        yield (
            "bad" if abs(offset.ms) > _VERY_LATE_MS else "warn",
            f"the sound comes {abs(offset.ms):.0f} ms {later} than the lips: move the sound by {-offset.ms:+.0f} ms",
        )


def _other_track(info: MediaInfo) -> str:
    """How to read another sound track, at the end of a line; empty if there is none."""
    others = [f"--audio-track {track.number}" for track in info.audio_tracks if track != info.audio]
    return f", or read another track: {' or '.join(others)}" if others else ""


def _advise_sound(sound: SoundQuality, account: Account, other_track: str) -> Advice:
    if VERY_QUIET in account:  # it is raised
        return
    if NOT_HEARD in account:  # the account says it
        if other_track:
            yield "warn", f"another track may have the voice{other_track}"
        return
    if sound.level_db < -60:
        yield "bad", f"the sound is silent: check the microphone{other_track}"
    elif sound.level_db < _FAINT_DB:
        yield "warn", f"the sound is faint ({sound.level_db:.0f} dB of full scale): record it louder"
    if sound.clipped > _CLIPPED and CLIPPED not in account:
        yield "warn", f"{sound.clipped:.1%} of the sound is clipped: record it at a lower level"
    # A silent file has its own advice already.
    if sound.snr_db is not None and sound.level_db >= -60 and sound.snr_db < _NOISY_DB:
        line = f"noisy, or never a pause: quiet moments are only {sound.snr_db:.0f} dB below loud ones"
        yield "warn", line + other_track


def _advise_faces(faces: tuple[FaceReport, ...]) -> Advice:
    # One face is judged: the one that speaks most, or that is seen most if none speaks.
    main = max(faces, key=lambda face: (face.speaking or 0.0, face.quality.coverage)).quality
    subject = "the face" if len(faces) == 1 else f"face {main.id}"
    if main.width_px < _SMALL_PX:
        yield "warn", f"{subject} is {main.width_px:.0f} px wide: video will hardly help; film closer or larger"
    elif main.width_px < _SMALLISH_PX:
        yield "warn", f"{subject} is {main.width_px:.0f} px wide: video will help less than it could; film closer"
    if main.sharpness < _BLURRED:
        yield "warn", f"{subject} is blurred: clean the lens, add light, or use less compression"
    if main.yaw_deg > _TURNED_DEG:
        yield "warn", f"{subject} is turned away by {main.yaw_deg:.0f} degrees: film from the front"
    for quality in (face.quality for face in faces):
        if quality.covered >= _OFTEN_COVERED:
            yield (
                "warn",
                f"the mouth of face {quality.id} is covered {quality.covered:.0%} of the time: keep hands, cups and "
                "microphones away from it",
            )
    # The speaker may have several ids over a film, so the faces count together.
    readable = sum(face.quality.coverage for face in faces)
    if readable < _RARELY:
        yield "warn", f"lips can be read for only {readable:.0%} of the time"
