"""What can be transcribed: a file by its path, an open binary file, or samples in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np

from avsr.account import Account
from avsr.arrays import Samples, check_samples
from avsr.errors import AvsrError, ConfigError, MediaError
from avsr.files import DISK_FULL, local_path, temporary_folder
from avsr.grid import MAX_HOURS, SAMPLE_RATE_HZ
from avsr.lips.tracks import probe_faces
from avsr.media import Tracks, iter_audio
from avsr.sound.level import raised

SourceLike = str | PathLike[str] | IO[bytes] | Samples
"""A path, an open binary file, or samples: float32 [S] in [-1, 1], mono, 16 kHz."""

_MAX_PATH_BYTES = 4096  # more bytes are the content of a file, not its name


@dataclasses.dataclass(frozen=True)
class Source:
    """One recording to transcribe."""

    name: str
    """As messages and transcripts call it."""
    path: str | None
    """The media file; None for samples in memory."""
    samples: Samples | None
    """The sound in memory; None for a file."""
    has_sound: bool
    has_picture: bool
    duration_s: float | None
    """None if the container does not say."""
    fps: float | None
    """Pictures a second; None without a picture."""
    tracks: Tracks = Tracks()
    """The tracks that are read."""
    account: Account = dataclasses.field(default_factory=Account)
    """What was found in the recording, used, and left out."""

    max_hours: float = MAX_HOURS
    """How much of a file is read."""

    def blocks(self, account: Account | None) -> Iterator[Samples]:
        """The sound in blocks, at a usual level. account: counts the samples; None for a second reader of the same."""
        if self.samples is not None:
            return raised([self.samples], account)
        assert self.path is not None
        return raised(iter_audio(self.path, tracks=self.tracks, account=account, max_hours=self.max_hours), account)


@contextlib.contextmanager
def open_source(source: SourceLike, tracks: Tracks | None = None, *, max_hours: float = MAX_HOURS) -> Iterator[Source]:
    """The recording that `source` stands for, as long as the block runs.

    tracks: the tracks of a file that were asked for. Of several video tracks, the one with faces is read by default.
    max_hours: a file that states a longer time is refused, and one that turns out to be longer is cut; the account says
        so.

    Raises MediaError for a file that cannot be read, ConfigError for tracks that are no `Tracks` or for hours that are
    not above 0, ValueError for an array that is no sound, TypeError for anything else.
    """
    _check_tracks(tracks)
    if not max_hours > 0:
        raise ConfigError("wrong max_hours", got=max_hours, expected="hours above 0")
    if isinstance(source, np.ndarray):
        yield _in_memory(source)
    elif isinstance(source, str | bytes | PathLike):
        path = _path(source)
        yield _from_file(path, path, tracks, max_hours)
    elif hasattr(source, "read"):
        # Containers are read back and forth, which a pipe or a download cannot do. A copy on the disk can.
        with temporary_folder() as folder:
            copy = folder / "source"
            _copy(source, copy)
            name = getattr(source, "name", None)
            name = name if isinstance(name, str) else "the open file"
            try:
                yield _from_file(str(copy), name, tracks, max_hours)
            except MediaError as error:  # also from the block, which reads the copy
                if str(copy) not in str(error):
                    raise
                raise MediaError(str(error).replace(str(copy), name)) from None
    else:
        raise TypeError(
            f"transcribe: got {type(source).__name__}, expected a path, an open binary file, or samples as float32 [S]"
        )


def _path(source: str | bytes | PathLike[str]) -> str:
    if isinstance(source, bytes) and len(source) > _MAX_PATH_BYTES:
        raise TypeError(
            f"transcribe: got {len(source)} bytes, expected a path; give the content as io.BytesIO(content)"
        )
    path = os.fsdecode(source)
    if not path:
        raise MediaError("no file", got=repr(path), expected="the path of a video or sound file")
    try:
        return local_path(path) if isinstance(source, str) else path
    except AvsrError as error:
        raise MediaError(f"{path}: {error}") from None


def _check_tracks(tracks: object) -> None:
    # In Python True is an int.
    if tracks is not None and not (
        isinstance(tracks, Tracks)
        and all(number is None or (isinstance(number, int) and not isinstance(number, bool)) for number in tracks)
    ):
        expected = "avsr.media.Tracks(audio=, video=) with the numbers of tracks, as avsr doctor lists them"
        raise ConfigError("wrong tracks", got=f"{tracks!r:.80}", expected=expected)


def _in_memory(samples: Samples) -> Source:
    check_samples(samples)
    duration_s = len(samples) / SAMPLE_RATE_HZ
    sound = np.ascontiguousarray(samples, np.float32)
    return Source("samples", None, sound, has_sound=True, has_picture=False, duration_s=duration_s, fps=None)


def _from_file(path: str, name: str, tracks: Tracks | None, max_hours: float) -> Source:
    account = Account()
    info = probe_faces(path, tracks=tracks, account=account, max_hours=max_hours)
    return Source(
        name,
        path,
        None,
        has_sound=info.audio is not None,
        has_picture=info.video is not None,
        # An estimate would cut off the times of the last words.
        duration_s=None if info.is_estimated or not math.isfinite(info.duration_s or math.inf) else info.duration_s,
        fps=None if info.video is None else info.video.average_fps,
        tracks=info.tracks,
        account=account,
        max_hours=max_hours,
    )


def _copy(source: Any, path: Path) -> None:
    try:
        with path.open("wb") as file:
            shutil.copyfileobj(source, file)
    except OSError as error:
        remedy = "set TMPDIR to a folder with room for it" if error.errno in DISK_FULL else None
        raise MediaError("the open file cannot be copied", got=error, remedy=remedy) from None
    except TypeError:  # a file that was opened as text gives str
        raise TypeError("transcribe: got a file opened as text, expected one opened with mode 'rb'") from None
