"""avsr doctor: what a file offers to a recogniser, and its faults."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avsr.cli.arguments import add_max_hours, add_quiet, add_tracks, media_file, tracks_of
from avsr.cli.console import Console, UsageError, printable
from avsr.files import not_written, write_bytes
from avsr.text import escape_controls

if TYPE_CHECKING:
    from avsr.media import AudioStreamInfo, VideoStreamInfo
    from avsr.offline.advice import FaceReport
    from avsr.offline.diagnosis import Diagnosis

DESCRIPTION = (
    "Examine a video or sound file: its streams, its frame rate, its faces and which of them speaks, how far\n"
    "sound and lips are apart, and what to do about it. Reads the whole file, faster than it plays. Exit\n"
    "code 0: the file is fine (ok) or usable with a loss (warn); 1: it has a fault (bad) or cannot be read."
)
EXAMPLE = "avsr doctor talk.mp4 --sheet faces.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr doctor`."""
    add = parser.add_argument
    add("file", type=media_file, metavar="FILE", help="video or sound file")
    add("--json", action="store_true", help="print one JSON object instead of lines")
    add("--sheet", type=Path, metavar="OUT.png", help="write a picture with lip crops of each face; replaces OUT.png")
    add_tracks(parser)
    add_max_hours(parser)
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what the file offers; 0 if it can be used, 1 if it has a fault."""
    # A sheet that cannot be written fails now, before the whole file is read.
    if arguments.sheet is not None and arguments.sheet.suffix.lower() != ".png":
        raise UsageError(f"--sheet {arguments.sheet}: expected the name of a PNG file, such as sheet.png")
    if arguments.sheet is not None and not arguments.sheet.parent.is_dir():
        raise UsageError(f"--sheet {arguments.sheet}: no such folder; make it first")
    if arguments.sheet is not None and os.path.realpath(arguments.sheet) == os.path.realpath(arguments.file):
        raise UsageError(f"--sheet {arguments.sheet} is the file to examine itself; name another")
    with Console(quiet=arguments.quiet) as console:
        from avsr.media import probe
        from avsr.offline.diagnosis import diagnose

        total_s = probe(arguments.file, max_hours=arguments.max_hours).duration_s

        def show(done_s: float) -> None:
            if total_s:
                console.progress(min(1.0, done_s / total_s), f"{min(done_s, total_s):.0f}/{total_s:.0f} s")

        show(0.0)
        diagnosis = diagnose(
            arguments.file, tracks=tracks_of(arguments), max_hours=arguments.max_hours, on_progress=show
        )
        if arguments.sheet is not None:
            _write_sheet(diagnosis, arguments.sheet)
            console.note(f"wrote {arguments.sheet}")
        if arguments.json:
            text = json.dumps(diagnosis.document(), ensure_ascii=False, allow_nan=False)
            console.result(escape_controls(text) + "\n")
        else:
            console.result("\n".join(_lines(diagnosis)) + "\n")
    return 1 if diagnosis.severity == "bad" else 0


def _lines(diagnosis: Diagnosis) -> list[str]:
    info, sound, timing = diagnosis.info, diagnosis.sound, diagnosis.timing
    audio, video = info.audio, info.video
    lines = [f"{printable(diagnosis.source)}: {diagnosis.severity}"]
    if video is not None:
        picture = f"{video.codec}, {video.width}x{video.height}"
        picture += f", turned by {video.rotation_deg} degrees" if video.rotation_deg else ""
        if timing is not None:
            picture += f", {timing.fps:.2f} pictures a second (jitter {timing.jitter_ms:.1f} ms)"
        lines.append(f"  picture  {_which(video, info.video_tracks)}{picture}{_start(video.start_s)}")
    if audio is not None:
        text = f"{audio.codec}, {audio.sample_rate} Hz, {audio.channels} channel{'s' if audio.channels != 1 else ''}"
        if sound is not None:
            text += f", level {sound.level_db:.0f} dB"
            text += "" if sound.snr_db is None else f", about {sound.snr_db:.0f} dB above its quiet moments"
        lines.append(f"  sound    {_which(audio, info.audio_tracks)}{text}{_start(audio.start_s)}")
    lines += [
        f"  not read {kind} track {track.number}: {', '.join(filter(None, (track.codec, track.title)))}"
        for kind, tracks in (("video", info.video_tracks), ("sound", info.audio_tracks))
        for track in tracks
        if track not in (audio, video)
    ]
    if diagnosis.offset is not None:
        offset = diagnosis.offset
        later = "later" if offset.ms >= 0 else "earlier"
        lines.append(
            f"  offset   sound {abs(offset.ms):.0f} ms {later} than the lips (confidence {offset.confidence:.2f})"
        )
    for face in diagnosis.faces:
        lines.append(f"  face {face.quality.id:<3} {_describe(face)}")
    lines += [f"  -> {printable(text)}" for text in diagnosis.advice]
    return lines


def _which(track: AudioStreamInfo | VideoStreamInfo, tracks: Sequence[object]) -> str:
    """The number of a track, if there are several."""
    return f"track {track.number} of {len(tracks)}, " if len(tracks) > 1 else ""


def _describe(face: FaceReport) -> str:
    quality = face.quality
    spans = ", ".join(f"{start:.1f}-{end:.1f}" for start, end in quality.spans_s[:3])
    more = f" and {len(quality.spans_s) - 3} more" if len(quality.spans_s) > 3 else ""
    text = f"{quality.width_px:.0f} px wide, turned by {quality.yaw_deg:.0f} degrees, sharpness {quality.sharpness:.2f}"
    text += f", lips read for {quality.coverage:.0%} of the time"
    # Less would be printed as 0 %.
    text += "" if quality.covered < 0.005 else f", covered for {quality.covered:.0%} of the time it is seen"
    text += "" if face.speaking is None else f", fits {face.speaking:.0%} of the sound best"
    return f"{text}; seen {spans} s{more}"


def _start(start_s: float) -> str:
    # Less would be printed as 0.00 s.
    return f", begins at {start_s:.2f} s" if start_s >= 0.005 else ""


def _write_sheet(diagnosis: Diagnosis, target: Path) -> None:
    """Write the contact sheet. If that fails, no part of it is left behind."""
    import cv2

    labels = {face.quality.id: f"face {face.quality.id}: {_describe(face)}" for face in diagnosis.faces}
    data = cv2.imencode(".png", diagnosis.sheet.draw(labels))[1].tobytes()
    try:
        write_bytes(target, data)
    except OSError as error:
        raise not_written(target, error) from error
