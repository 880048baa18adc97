"""What `avsr doctor` reports: how well a file suits speech recognition, by its sound, its picture and its faces.

The whole file is read once. Memory holds some numbers for each 40 ms, about 120 MB an hour with one face, and a few
crops.

Letters: T slots of 40 ms, D embedding.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsr.account import Account
from avsr.arrays import Samples
from avsr.errors import MediaError
from avsr.grid import MAX_HOURS, SLOT_MS, SLOT_S, SLOT_SAMPLES
from avsr.lips.contact_sheet import SheetRecord
from avsr.lips.faces import import_mediapipe
from avsr.lips.quality import QualityRecord
from avsr.lips.tracker import slots_of
from avsr.lips.tracks import probe_faces
from avsr.media import MediaInfo, Tracks, VideoFrame, iter_audio, iter_frames, read_ahead
from avsr.offline.advice import (
    SEVERITIES,
    SURE,
    FaceReport,
    PictureTiming,
    Severity,
    SoundQuality,
    advise,
    advise_account,
)
from avsr.sound.level import raised
from avsr.speakers.offset import MAX_OFFSET_SLOTS, Offset, estimate_offset, lag_evidence
from avsr.speakers.speaking_face import SpeakerPath, sizes_of
from avsr.speakers.synchrony import SlotEvidence, SynchronyStream
from avsr.surroundings import start_computing

SCHEMA = 1
"""Version of the JSON document."""

_CHUNK_SLOTS = 250  # 10 s; in each chunk the face that fits best gives the evidence for the offset
_MIN_NOISE_SLOTS = 25  # a noise floor cannot be measured on less


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The findings on one file."""

    source: str
    """The path of the file, as given."""
    info: MediaInfo
    sound: SoundQuality | None
    """None without sound."""
    timing: PictureTiming | None
    """None with fewer than two pictures."""
    offset: Offset | None
    """None unless the file has sound and lips."""
    faces: tuple[FaceReport, ...]
    advice: tuple[str, ...]
    """What to do, one line each, the gravest first."""
    severity: Severity
    """The gravest severity of the advice."""
    sheet: SheetRecord
    """Some lip crops of each face."""
    account: Account
    """What was decoded, used and left out."""

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        video = self.info.video
        return {
            "schema": SCHEMA,
            "source": self.source,
            "streams": self._streams(),
            "video": None
            if video is None
            else {
                "fps": _number(self.timing.fps if self.timing is not None else video.average_fps, 3),
                "jitter_ms": _number(None if self.timing is None else self.timing.jitter_ms, 1),
                "rotation": video.rotation_deg,
                "width": video.width,
                "height": video.height,
            },
            "offset_ms": None
            if self.offset is None
            else {"value": _number(self.offset.ms, 1), "confidence": _number(self.offset.confidence, 3)},
            "faces": [
                {
                    "id": face.quality.id,
                    "coverage": _number(face.quality.coverage, 3),
                    "covered": _number(face.quality.covered, 3),
                    "width_px": _number(face.quality.width_px, 1),
                    "sharpness": _number(face.quality.sharpness, 3),
                    "yaw_deg": _number(face.quality.yaw_deg, 1),
                    "speaking": _number(face.speaking, 3),
                    "spans": [[round(start, 3), round(end, 3)] for start, end in face.quality.spans_s],
                }
                for face in self.faces
            ],
            "account": self.account.document(),
            "advice": list(self.advice),
            "severity": self.severity,
        }

    def _streams(self) -> list[dict[str, Any]]:
        """The tracks; the ones that are read come first, the sound with its quality."""
        streams: list[dict[str, Any]] = []
        for video in self.info.video_tracks:
            is_read = video is self.info.video
            streams.append(_stream("video", video.number, video.codec, video.start_s, video.title, is_read=is_read))
        for audio in self.info.audio_tracks:
            is_read = audio is self.info.audio
            stream = _stream("audio", audio.number, audio.codec, audio.start_s, audio.title, is_read=is_read)
            stream |= {"sample_rate": audio.sample_rate, "channels": audio.channels}
            if is_read and self.sound is not None:
                stream |= {name: _number(value, 4) for name, value in dataclasses.asdict(self.sound).items()}
            streams.append(stream)
        return sorted(streams, key=lambda stream: not stream["read"])


def _stream(kind: str, number: int, codec: str, start_s: float, title: str, *, is_read: bool) -> dict[str, Any]:
    return {
        "kind": kind,
        "number": number,
        "read": is_read,
        "codec": codec,
        "title": title,
        "start": round(start_s, 3),
    }


def diagnose(
    path: str | PathLike[str],
    *,
    tracks: Tracks | None = None,
    max_hours: float = MAX_HOURS,
    on_progress: Callable[[float], None] | None = None,
) -> Diagnosis:
    """Examine a video or sound file.

    path: the file.
    tracks: which tracks to examine; None for the ones that transcription would read.
    max_hours: how long the file may be, as `open_source` takes it.
    on_progress: called with the media seconds done so far.

    Raises MediaError if the file cannot be opened or is too long, or if neither its sound nor its picture can be
    decoded. Raises AvsrError in a process that was forked after its parent had used a model.
    """
    start_computing()
    account = Account()
    info = probe_faces(path, tracks=tracks, account=account, max_hours=max_hours)
    damage: list[str] = []
    reader = None
    if info.audio is not None:
        sound_blocks = iter_audio(path, tracks=info.tracks, account=account, max_hours=max_hours)
        reader = _SoundReader(path, sound_blocks, account, damage.append)
    times_s: list[float] = []
    record, sheet, stream = QualityRecord(), SheetRecord(), SynchronyStream()
    evidence: list[SlotEvidence] = []
    sizes: list[dict[int, float]] = []
    if info.video is not None:
        import_mediapipe()
        pictures = iter_frames(path, tracks=info.tracks, account=account, max_hours=max_hours)
        frames = read_ahead(_timed(pictures, times_s))
        with contextlib.closing(frames):  # stops its thread also if the work ends in an error or Ctrl-C
            try:
                for slot in slots_of(frames, end_s=info.duration_s or math.inf, account=account):
                    record.add(slot)
                    sheet.add(slot)
                    if reader is not None:
                        crops = {number: lips.crop for number, lips in slot.lips.items() if lips.present}
                        evidence += stream.push(crops, reader.next_slot())
                        sizes.append(sizes_of(slot))
                    if on_progress is not None:
                        on_progress(slot.index * SLOT_S)
            except MediaError as error:
                if reader is None:
                    raise
                damage.append(_without_path(error, path))  # the sound may still be good
    evidence += stream.finish()
    if reader is not None:
        while not reader.ended:  # the sound may be longer than the picture
            reader.next_slot()
            if on_progress is not None:
                on_progress(reader.num_slots * SLOT_S)
    sound = None if reader is None else reader.quality()
    if sound is None and not times_s:
        raise MediaError(f"{path}: {damage[-1] if damage else 'nothing can be decoded'}")
    offset, speaking = _offset_and_speaking(evidence, sizes)
    faces = tuple(
        FaceReport(quality, None if speaking is None else speaking.get(quality.id, 0.0)) for quality in record.faces()
    )
    timing = _timing(times_s)
    advice = sorted(
        [*advise_account(account, damage), *advise(info, sound, timing, offset, faces, account)],
        key=lambda item: SEVERITIES.index(item[0]),
        reverse=True,
    )
    return Diagnosis(
        source=str(path),
        info=info,
        sound=sound,
        timing=timing,
        offset=offset,
        faces=faces,
        advice=tuple(text for _, text in advice),
        severity=advice[0][0] if advice else "ok",
        sheet=sheet,
        account=account,
    )


class _SoundReader:
    """The sound of a file, slot by slot, and its quality. Sound that cannot be decoded ends there, with a warning."""

    def __init__(
        self,
        path: str | PathLike[str],
        blocks: Iterator[Samples],
        account: Account,
        on_warning: Callable[[str], None],
    ) -> None:
        # The sound is measured as recorded, and the faces are judged by what a model would get.
        self._blocks = raised(self._measured(blocks), account)
        self._on_warning = on_warning
        self._path = path
        self._held = np.zeros(0, np.float32)  # decoded, but not in a slot yet
        self._powers: list[float] = []
        self._num_clipped = 0
        self._num_samples = 0
        self.num_slots = 0
        self.ended = False

    def next_slot(self) -> Samples:
        """The next samples [640]; silence after the end."""
        while not self.ended and len(self._held) < SLOT_SAMPLES:
            try:
                block = next(self._blocks, None)
            except MediaError as error:
                self._on_warning(_without_path(error, self._path))
                block = None
            if block is None:
                self.ended = True
            else:
                self._held = np.concatenate((self._held, block))
        samples, self._held = self._held[:SLOT_SAMPLES], self._held[SLOT_SAMPLES:]
        self.num_slots += len(samples) > 0
        return np.pad(samples, (0, SLOT_SAMPLES - len(samples)))

    def _measured(self, blocks: Iterator[Samples]) -> Iterator[Samples]:
        """The same blocks. Their quality is measured in slots, the last one shorter."""
        rest = np.zeros(0, np.float32)
        for block in blocks:
            rest = np.concatenate((rest, block))
            for _ in range(len(rest) // SLOT_SAMPLES):
                self._measure(rest[:SLOT_SAMPLES])
                rest = rest[SLOT_SAMPLES:]
            yield block
        if len(rest):
            self._measure(rest)

    def _measure(self, samples: Samples) -> None:
        self._powers.append(float(np.square(samples, dtype=np.float64).mean()))
        self._num_clipped += int((np.abs(samples) >= 0.999).sum())
        self._num_samples += len(samples)

    def quality(self) -> SoundQuality | None:
        """The quality of the sound so far, None if no sample was decoded."""
        if not self._powers:
            return None
        level_db = 10 * np.log10(np.maximum(self._powers, 1e-12))
        audible_db = level_db[level_db > -100]  # digital silence is no noise floor
        loud_db = float(np.percentile(level_db, 90))
        snr_db = None
        if len(audible_db) >= _MIN_NOISE_SLOTS:
            snr_db = loud_db - float(np.percentile(audible_db, 10))
        return SoundQuality(
            level_db=loud_db,
            snr_db=snr_db,
            clipped=self._num_clipped / self._num_samples,
            silent=float((level_db < -60).mean()),
        )


def _without_path(error: Exception, path: str | PathLike[str]) -> str:
    """The message of an error about a file without the file's name in front."""
    return str(error).removeprefix(f"{Path(path)}: ")


def _timed(frames: Iterator[VideoFrame], times_s: list[float]) -> Iterator[VideoFrame]:
    """The same pictures; their times are added to `times_s`."""
    for frame in frames:
        times_s.append(frame.time_s)
        yield frame


def _timing(times_s: list[float]) -> PictureTiming | None:
    if len(times_s) < 2:
        return None
    steps_s = np.diff(times_s)
    return PictureTiming(fps=float(1 / steps_s.mean()), jitter_ms=float(1000 * steps_s.std()))


def _offset_and_speaking(
    evidence: list[SlotEvidence], sizes: list[dict[int, float]]
) -> tuple[Offset | None, dict[int, float] | None]:
    """The offset between sound and lips, and by face id the share of the loud slots in which this face speaks.

    evidence, sizes: one for each slot; sizes as `SpeakerPath.push` takes them.

    Both results are None if the file has no slot with lips, or no sound.
    """
    faces = sorted({face for of_slot in evidence for face in of_slot.lips})
    num_loud = sum(of_slot.is_loud for of_slot in evidence)
    if not faces or not num_loud:
        return None, None
    offset = estimate_offset(_best_lag_evidence(evidence))
    # An unsure offset could move the sound away from its lips.
    lag = round(offset.ms / SLOT_MS) if offset.confidence >= SURE else 0

    def lagged(slot: int) -> SlotEvidence | None:
        """The evidence that holds the sound of a slot, by the offset. None in silence."""
        inside = 0 <= slot + lag < len(evidence)
        return evidence[slot + lag] if inside and evidence[slot + lag].is_loud else None

    # The evidence in the slots allows for small lags only. The inner products are taken again at the lag of the file.
    path = SpeakerPath()
    chosen: list[int | None] = []
    for slot, of_slot in enumerate(evidence):
        sound = lagged(slot)
        nats = {} if sound is None else {face: float(lips @ sound.sound) for face, lips in of_slot.lips.items()}
        chosen += path.push(nats, sizes[slot])
    chosen += path.finish()
    num_slots = Counter(
        face for slot, face in enumerate(chosen) if face in evidence[slot].lips and lagged(slot) is not None
    )
    return offset, {face: num_slots[face] / num_loud for face in faces}


def _best_lag_evidence(evidence: list[SlotEvidence]) -> NDArray[np.float64]:
    """Evidence [31] for each lag, as in `lag_evidence`, summed over chunks of 10 s.

    Only the face that fits the sound best counts in each chunk, because it is the one that speaks.
    """
    by_lag = np.zeros(2 * MAX_OFFSET_SLOTS + 1)
    for first in range(0, len(evidence), _CHUNK_SLOTS):
        chunk = evidence[first : first + _CHUNK_SLOTS]
        sound_TD = np.stack([of_slot.sound for of_slot in chunk])
        absent_D = np.zeros_like(chunk[0].sound)
        of_faces = []
        for face in sorted({face for of_slot in chunk for face in of_slot.lips}):
            lips_TD = np.stack([of_slot.lips.get(face, absent_D) for of_slot in chunk])
            present_T = np.array([face in of_slot.lips for of_slot in chunk])
            of_faces.append(lag_evidence(lips_TD, present_T, sound_TD))
        if of_faces:
            by_lag += max(of_faces, key=lambda nats: nats.max())
    return by_lag


def _number(value: float | None, digits: int) -> float | None:
    """The rounded value; None, as JSON knows no NaN, if it is not finite."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)
