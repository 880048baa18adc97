"""The manifest: what a prepared data set holds, and how its sound and lips are read and written.

    OUT/manifest.jsonl         one utterance a line
    OUT/rejected.jsonl         one clip a line that could not be used: id, source, reason
    OUT/audio/<id>.wav         mono, 16 kHz, 16 bit
    OUT/lips/<id>.mp4          lip crops, 96x96 grey, one picture for each 40 ms slot

WAV because reading it takes a tenth of a millisecond, where FLAC takes 5. Lips are H.264 at CRF 10: 20 kB and a
millisecond to decode for a second of speech, 50 dB from the crops they were made of; absent slots are black and listed
in the manifest.
"""

from __future__ import annotations

import dataclasses
import json
import os
import wave
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from avsr.errors import DataError, nearest
from avsr.grid import CROP_PX, SAMPLE_RATE_HZ, SLOT_S

_LIPS_FPS = round(1 / SLOT_S)
# A key picture a second; fast to decode, as training reads each file many times.
_LIPS_OPTIONS = {"crf": "10", "g": "25", "bf": "0", "preset": "fast", "tune": "fastdecode", "threads": "1"}
_PEAK = 0.99


@dataclasses.dataclass(frozen=True, kw_only=True)
class Utterance:
    """One recorded sentence of a prepared data set.

    id: unique, "speaker/name"; a path without suffix. text: what is said. audio, video: files relative to the
    manifest's folder, None where there is no sound or no readable lips. duration: seconds. fps: of the lips (25),
    0 without. coverage: share of lip slots present. sha256: of the source file. words: (word, start, end) in seconds,
    empty where unknown. absent: (first slot, end slot, reason) of each run of slots without lips.
    """

    id: str
    speaker: str
    split: str
    text: str
    audio: str | None
    video: str | None
    duration: float
    fps: float
    coverage: float
    sha256: str
    words: tuple[tuple[str, float, float], ...] = ()
    absent: tuple[tuple[int, int, str], ...] = ()


def read_manifest(path: str | PathLike[str]) -> list[Utterance]:
    """All utterances of a manifest, in its order.

    Raises DataError naming file, line and key where it is missing, no JSON, or not of this form.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as lines:
            numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the manifest", got=error, remedy="make it with: avsr prepare") from error
    utterances: list[Utterance] = []
    lines_of_ids: dict[str, int] = {}
    for number, line in numbered:
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON", got=error) from error
        utterance = parse_utterance(row, where)
        if utterance.id in lines_of_ids:
            raise DataError(
                f"{where}: the id occurs twice", got=f"{utterance.id}, also in line {lines_of_ids[utterance.id]}"
            )
        lines_of_ids[utterance.id] = number
        utterances.append(utterance)
    return utterances


def write_manifest(path: str | PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Write `utterances` to `path`, whole or not at all."""
    write_json_lines(path, (dataclasses.asdict(utterance) for utterance in utterances))


def write_json_lines(path: str | PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line to `path`, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    with temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(temporary, path)


def temporary_path(path: Path) -> Path:
    """Where to write what is to become `path`. The same each time: the next run overwrites what a killed one left."""
    return path.with_name(f".{path.name}.tmp")


def load_samples(utterance: Utterance, root: str | PathLike[str]) -> npt.NDArray[np.float32]:
    """The sound of `utterance`, float32 [S] in [-1, 1] at 16 kHz; empty where it has none. root: the manifest's folder.

    Raises DataError where the file is missing or not as `save_samples` writes it.
    """
    if utterance.audio is None:
        return np.zeros(0, np.float32)
    path = Path(root) / utterance.audio
    try:
        with wave.open(str(path), "rb") as file:
            form = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise DataError(
            f"{path}: cannot read the sound of {utterance.id}", got=error, remedy="prepare it again"
        ) from error
    if form != (1, 2, SAMPLE_RATE_HZ):
        raise DataError(
            f"{path}: wrong form of sound",
            got=f"{form[0]} channels, {8 * form[1]} bit, {form[2]} Hz",
            expected=f"1 channel, 16 bit, {SAMPLE_RATE_HZ} Hz",
            remedy="prepare it again",
        )
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768


def save_samples(path: Path, samples: npt.NDArray[np.float32]) -> None:
    """Write samples [S] at 16 kHz as 16-bit WAV, whole or not at all.

    Lossy codecs overshoot: where samples go beyond the range, all of them are scaled down rather than some clipped.
    """
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > _PEAK:
        samples = samples * (_PEAK / peak)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    with wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(np.round(samples * 32768).astype("<i2").tobytes())
    os.replace(temporary, path)


def load_lips(utterance: Utterance, root: str | PathLike[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Lip crops uint8 [T, 96, 96] and presence bool [T] of `utterance`; T = 0 where it has none.

    root: the manifest's folder. Absent slots are zeros. Raises DataError where the file is missing or damaged.
    """
    if utterance.video is None:
        return np.zeros((0, CROP_PX, CROP_PX), np.uint8), np.zeros(0, np.bool_)
    path = Path(root) / utterance.video
    try:
        with av.open(f"file:{path.absolute()}") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # threads cost more than they save on so small pictures
            crops = np.stack([_luma(frame) for frame in container.decode(stream)])
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise DataError(
            f"{path}: cannot read the lips of {utterance.id}", got=error, remedy="prepare it again"
        ) from error
    if crops.shape[1:] != (CROP_PX, CROP_PX):
        raise DataError(f"{path}: wrong size of lips", got=crops.shape[1:], expected=(CROP_PX, CROP_PX))
    present = np.ones(len(crops), np.bool_)
    for first, end, _ in utterance.absent:
        present[first:end] = False
    crops[~present] = 0  # the codec leaves traces
    return crops, present


def save_lips(path: Path, crops: npt.NDArray[np.uint8]) -> None:
    """Write lip crops [T, 96, 96], T > 0, as a small video, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    with av.open(f"file:{temporary.absolute()}", "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=_LIPS_FPS, options=_LIPS_OPTIONS)
        stream.width = stream.height = CROP_PX
        stream.pix_fmt = "gray"
        for crop in crops:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(crop, format="gray")))
        container.mux(stream.encode())
    os.replace(temporary, path)


def parse_utterance(row: object, where: str) -> Utterance:
    """An utterance from one JSON object. Raises DataError beginning with `where`."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object", got=type(row).__name__)
    fields = {field.name: field for field in dataclasses.fields(Utterance)}
    for key in row:
        if key not in fields:
            close = nearest(key, fields)
            raise DataError(f"{where}: unknown key", got=key, remedy=f"did you mean {close}?" if close else None)
    for key, field in fields.items():
        if key not in row and field.default is dataclasses.MISSING:
            raise DataError(f"{where}: a key is missing", expected=key)
    values: dict[str, Any] = dict(row)
    for key in ("id", "speaker", "split", "text", "sha256"):
        _require(isinstance(row[key], str), where, key, row[key], "a string")
    for key in ("audio", "video"):
        _require(row[key] is None or isinstance(row[key], str), where, key, row[key], "a file name or null")
    for key in ("duration", "fps", "coverage"):
        _require(_is_number(row[key]) and row[key] >= 0, where, key, row[key], "a number not below 0")
        values[key] = float(row[key])
    words, absent = row.get("words", []), row.get("absent", [])
    _require(isinstance(words, list), where, "words", words, "a list")
    for word in words:
        good = isinstance(word, list) and len(word) == 3 and isinstance(word[0], str)
        _require(good and all(map(_is_number, word[1:])), where, "words", word, "[word, start, end]")
    _require(isinstance(absent, list), where, "absent", absent, "a list")
    for run in absent:
        good = isinstance(run, list) and len(run) == 3 and isinstance(run[2], str)
        good = good and all(isinstance(slot, int) and slot >= 0 for slot in run[:2])
        _require(good, where, "absent", run, "[first slot, end slot, reason]")
    values["words"] = tuple((word, float(start), float(end)) for word, start, end in words)
    values["absent"] = tuple((first, end, reason) for first, end, reason in absent)
    return Utterance(**values)


def _luma(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    plane = frame.planes[0]
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(good: bool, where: str, key: str, got: object, expected: str) -> None:
    if not good:
        raise DataError(f"{where}: wrong value of {key}", got=json.dumps(got), expected=expected)
