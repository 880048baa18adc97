"""The manifest of a prepared data set, and the files of its sound and lips.

    OUT/manifest.jsonl         one utterance a line
    OUT/rejected.jsonl         one unusable clip a line: id, source, reason
    OUT/audio/<id>.wav         mono, 16 kHz, 16 bit
    OUT/lips/<id>.mp4          lip crops, 96x96 grey, one picture for each 40 ms slot

Sound is WAV because a file is read in a tenth of a millisecond; FLAC takes 5 ms. Lips are H.264 at CRF 10: a second of
speech takes 20 kB and a millisecond to decode, with a peak signal-to-noise ratio of 50 dB. Slots without lips are black
and listed in the manifest.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import wave
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Crops, Present, Samples
from avsr.errors import DataError, nearest
from avsr.files import write_whole
from avsr.grid import CROP_PX, SAMPLE_RATE_HZ, SLOT_S
from avsr.untrusted.files import open_file, without_path
from avsr.untrusted.lines import json_lines
from avsr.untrusted.values import shown

_LIPS_FPS = round(1 / SLOT_S)
# A key frame each second, and fast decoding, because training reads each file many times.
_LIPS_OPTIONS = {"crf": "10", "g": "25", "bf": "0", "preset": "fast", "tune": "fastdecode", "threads": "1"}
_LIPS_PX = str(128**2)  # codecs work in blocks of 16 pixels, and some tests of ours have larger pictures
_LIPS_READING = {"protocol_whitelist": "file", "format_whitelist": "mov", "max_pixels": _LIPS_PX}
_PEAK = 0.99
_MANIFEST = "the manifest.jsonl that avsr prepare writes"
MAX_PREPARED_BYTES = 1 << 30

WordTimes = tuple[tuple[str, float, float], ...]
"""Each word with its start and end in seconds; empty if the times are unknown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Utterance:
    """One recorded sentence of a prepared data set."""

    id: str
    """Unique, "speaker/name": a path without suffix."""
    speaker: str
    """Name of the speaker."""
    split: str
    """Name of the split, such as "train", "dev" or "test"."""
    text: str
    """Transcript of the utterance; empty if it is not known."""
    audio: str | None
    """File of the sound, relative to the folder of the manifest; None if there is no sound."""
    video: str | None
    """File of the lips, relative to the folder of the manifest; None if there are no readable lips."""
    duration: float
    """Seconds."""
    fps: float
    """Lip crops a second: 25, or 0 if there are no lips."""
    coverage: float
    """Share of the slots with lips, 0 to 1."""
    sha256: str
    """Hash of the source file."""
    words: WordTimes = ()
    """The words of the text with their times."""
    absent: tuple[tuple[int, int, str], ...] = ()
    """First slot, end slot and reason of each run of slots without lips."""
    language: str | None = None
    """Code of the language, such as "ko"; None if the corpus does not say."""

    def document(self) -> dict[str, Any]:
        """The utterance as a JSON object. A language that is not known is left out."""
        row = dataclasses.asdict(self)
        # Manifests made before there were languages keep their bytes, and so the hashes in noise plans.
        if self.language is None:
            del row["language"]
        return row


def read_manifest(path: str | PathLike[str]) -> list[Utterance]:
    """All utterances of a manifest, in its order.

    Raises DataError, with file, line and key, if the file is missing, is not JSON or lacks a key.
    """
    utterances: list[Utterance] = []
    places_of_ids: dict[str, str] = {}
    for where, row in json_lines(Path(path), "manifest", "make it with: avsr prepare", _MANIFEST):
        utterance = parse_utterance(row, where)
        if utterance.id in places_of_ids:
            first, name = places_of_ids[utterance.id].rpartition(":")[2], shown(utterance.id).strip("'")
            raise DataError(f"{where}: the id occurs twice", got=f"{name}, also in line {first}")
        places_of_ids[utterance.id] = where
        utterances.append(utterance)
    return utterances


def write_manifest(path: str | PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Write `utterances` to `path`, whole or not at all."""
    write_json_lines(path, (utterance.document() for utterance in utterances))


def write_json_lines(path: str | PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line to `path`, whole or not at all."""
    # A file name that is not UTF-8 has lone surrogates in Python; escaped with a backslash they are JSON.
    with write_whole(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def load_samples(utterance: Utterance, root: str | PathLike[str]) -> Samples:
    """The sound of `utterance`, float32 [S] in [-1, 1] at 16 kHz; S = 0 if it has no sound.

    root: folder of the manifest. Raises DataError if the file is missing or in another format than `write_wav` writes.
    """
    if utterance.audio is None:
        return np.zeros(0, np.float32)
    path = Path(root) / utterance.audio
    try:
        # The manifest may name a pipe, which would block.
        with open_file(path, MAX_PREPARED_BYTES, DataError) as data_file, wave.open(data_file) as file:
            form = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            data = file.readframes(file.getnframes())
    except (DataError, OSError, EOFError, wave.Error) as error:
        raise DataError(
            f"{path}: cannot read the sound of {utterance.id}", got=without_path(error, path), remedy="prepare it again"
        ) from error
    if form != (1, 2, SAMPLE_RATE_HZ):
        raise DataError(
            f"{path}: wrong form of sound",
            got=f"{form[0]} channels, {8 * form[1]} bit, {form[2]} Hz",
            expected=f"1 channel, 16 bit, {SAMPLE_RATE_HZ} Hz",
            remedy="prepare it again",
        )
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768


def save_samples(path: Path, samples: Samples) -> None:
    """Write samples [S] at 16 kHz as 16-bit WAV, whole or not at all.

    Lossy codecs overshoot. If the peak exceeds 0.99, all samples are turned down instead of clipped.
    """
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > _PEAK:
        samples = samples * (_PEAK / peak)
    write_wav(path, np.round(samples * 32768).astype(np.int16))


def write_wav(path: Path, pcm: NDArray[np.int16]) -> None:
    """Write 16-bit samples [S] at 16 kHz as WAV, whole or not at all."""
    with write_whole(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(pcm.astype("<i2").tobytes())


def load_lips(utterance: Utterance, root: str | PathLike[str]) -> tuple[Crops, Present]:
    """Lip crops uint8 [T, 96, 96] and present bool [T] of `utterance`; T = 0 if it has no lips.

    root: folder of the manifest. Crops of slots without lips are zeros. Raises DataError if the file is missing or
    damaged.
    """
    if utterance.video is None:
        return np.zeros((0, CROP_PX, CROP_PX), np.uint8), np.zeros(0, np.bool_)
    path = Path(root) / utterance.video
    try:
        open_file(path, MAX_PREPARED_BYTES, DataError).close()
        # Only what `save_lips` writes is read: no list of other files, no larger pictures, and no more of them.
        most = int(utterance.duration * _LIPS_FPS) + _LIPS_FPS
        with av.open(f"file:{path.absolute()}", options=_LIPS_READING) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # for such small pictures threads cost more than they save
            stream.codec_context.options = {"max_pixels": _LIPS_PX}
            crops = np.stack([_luma(frame) for frame in itertools.islice(container.decode(stream), most)])
    except (DataError, av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise DataError(
            f"{path}: cannot read the lips of {utterance.id}", got=without_path(error, path), remedy="prepare it again"
        ) from error
    if crops.shape[1:] != (CROP_PX, CROP_PX):
        raise DataError(f"{path}: wrong size of lips", got=crops.shape[1:], expected=(CROP_PX, CROP_PX))
    present = np.ones(len(crops), np.bool_)
    for first, end, _ in utterance.absent:
        present[first:end] = False
    crops[~present] = 0  # the codec leaves traces of the neighbouring pictures
    return crops, present


def save_lips(path: Path, crops: Crops) -> None:
    """Write lip crops [T, 96, 96], T > 0, as a small video, whole or not at all."""
    with write_whole(path) as temporary, av.open(f"file:{temporary.absolute()}", "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=_LIPS_FPS, options=_LIPS_OPTIONS)
        stream.width = stream.height = CROP_PX
        stream.pix_fmt = "gray"
        for crop in crops:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(crop, format="gray")))
        # The encoder holds the last pictures back until it is told that there are no more.
        container.mux(stream.encode())


def parse_utterance(row: object, where: str) -> Utterance:
    """The utterance of one JSON object of a manifest. Raises DataError that begins with `where`."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object", got=type(row).__name__)
    fields = {field.name: field for field in dataclasses.fields(Utterance)}
    # An unknown key is refused, because it may be a misspelt optional one that would be ignored in silence.
    for key in row:
        if key not in fields:
            close = nearest(key, fields)
            raise DataError(
                f"{where}: unknown key", got=shown(key).strip("'"), remedy=f"did you mean {close}?" if close else None
            )
    for key, field in fields.items():
        if key not in row and field.default is dataclasses.MISSING:
            raise DataError(f"{where}: a key is missing", expected=key)
    values: dict[str, Any] = dict(row)
    for key in ("id", "speaker", "split", "text", "sha256"):
        _require(_is_text(row[key]), where, key, row[key], "a string")
    language = row.get("language")
    _require(language is None or isinstance(language, str), where, "language", language, "a string or null")
    for key in ("audio", "video"):
        _require(row[key] is None or _is_text(row[key]), where, key, row[key], "a file name or null")
    for key in ("duration", "fps", "coverage"):
        _require(_is_number(row[key]) and row[key] >= 0, where, key, row[key], "a number not below 0")
        values[key] = float(row[key])
    words, absent = row.get("words", []), row.get("absent", [])
    _require(isinstance(words, list), where, "words", words, "a list")
    for word in words:
        is_valid = isinstance(word, list) and len(word) == 3 and isinstance(word[0], str)
        _require(is_valid and all(map(_is_number, word[1:])), where, "words", word, "[word, start, end]")
    _require(isinstance(absent, list), where, "absent", absent, "a list")
    for run in absent:
        is_valid = isinstance(run, list) and len(run) == 3 and isinstance(run[2], str)
        is_valid = is_valid and all(isinstance(slot, int) and slot >= 0 for slot in run[:2])
        _require(is_valid, where, "absent", run, "[first slot, end slot, reason]")
    values["words"] = tuple((word, float(start), float(end)) for word, start, end in words)
    values["absent"] = tuple((first, end, reason) for first, end, reason in absent)
    return Utterance(**values)


def _luma(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The brightness of a frame, [H, W], without the padding at the end of its lines."""
    plane = frame.planes[0]
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]


def _is_number(value: object) -> bool:
    # In Python True is an int.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: object) -> bool:
    """Whether a value is a text that can be written, with undecodable bytes of a file name as Python has them."""
    try:
        return isinstance(value, str) and value.encode("utf-8", "surrogateescape") is not None
    except UnicodeEncodeError:  # half of a character beyond 16 bit
        return False


def _require(is_valid: bool, where: str, key: str, got: object, expected: str) -> None:
    if not is_valid:
        raise DataError(f"{where}: wrong value of {key}", got="null" if got is None else shown(got), expected=expected)
