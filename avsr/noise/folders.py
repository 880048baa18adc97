"""Find noise recordings in a folder: in any folder, or in a published collection with its original layout.

    musan      music/ noise/ speech/, each with folders of WAV files
    demand     DKITCHEN/ch01.wav ... NRIVER/ch16.wav: 18 places with 16 channels; only the first channel is used
    noisex92   babble.wav factory1.wav volvo.wav ...: every file is a kind of noise
    esc50      audio/1-100032-A-0.wav; the name begins with the fold: 1-4 are for training, 5 is for tests
    dns        noise/ or noise_fullband/ anywhere below; the name of a file is the name of its recording and a number

Training and test parts never share a recording: all pieces of a recording are in one part. A collection without a
published split is split by a hash of the recording's name: 80 % train, 10 % valid, 10 % test. NOISEX-92 and DEMAND are
too small for a split and belong to the test part as a whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from avsr.errors import DataError
from avsr.media.types import SOUND_SUFFIXES

Part = Literal["train", "valid", "test"]


@dataclasses.dataclass(frozen=True)
class NoiseFile:
    """One noise recording."""

    path: Path
    name: str
    """Path relative to the searched folder, with "/" between the parts on every system."""
    kind: str
    """Kind of noise, such as "environment" or "music"."""
    part: Part
    """The part of its collection: for training, validation or tests."""


def find_noises(name: str, folder: Path, part: Part | None = None) -> list[NoiseFile]:
    """The recordings below `folder` in the order of their paths.

    name: a collection of `LAYOUTS`, or the kind of noise of every sound file in the folder.
    part: the part of a collection to return; None returns all. A plain folder has no parts, so all of it is returned.

    Raises DataError if the folder has no sound file, or no file that fits the layout and the part.
    """
    files = sound_files(folder)
    layout = LAYOUTS.get(name)
    found = [
        NoiseFile(path, path.relative_to(folder).as_posix(), *label)
        for path in files
        if (label := layout(path.relative_to(folder)) if layout else (name, part or "test")) is not None
    ]
    if not found and files:
        expected = f"the layout of {name} (see avsr.noise.folders)"
        raise DataError(f"{folder}: no noise of {name}", got=f"{len(files)} other files", expected=expected)
    chosen = [file for file in found if part in (None, file.part)]
    if not chosen:
        what = f"{folder}: no noise" if not found else f"{folder}: no noise of the part {part!r}"
        raise DataError(what, expected=SOUND_FOLDER)
    return chosen


SOUND_FOLDER = "a folder with sound files, such as .wav, .flac or .mp3"
"""The `expected` of an error about a folder without noise."""


def sound_files(folder: Path) -> list[Path]:
    """All sound files below `folder`, sorted by path: in the same order on every file system and in every locale."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES and path.is_file())


Label = tuple[str, Part] | None
"""Kind of noise and part of a file of a collection; None if the file does not belong to it."""


def _musan(path: Path) -> Label:
    # music/fma/music-fma-0000.wav; in some copies it lies in a folder musan/.
    kinds = [part for part in path.parts[:-1] if part in ("music", "noise", "speech")]
    return (kinds[0], _hashed_part(path.stem)) if kinds else None


def _demand(path: Path) -> Label:
    # The 16 channels record the same noise at the same time.
    if re.fullmatch(r"ch01", path.stem) and re.fullmatch(r"[A-Z]+(_\d+k)?", path.parent.name):
        return "environment", "test"
    return None


def _noisex92(path: Path) -> Label:
    return f"noisex92-{path.stem.lower()}", "test"


def _esc50(path: Path) -> Label:
    match = re.search(r"(?:^|_)([1-5])-\d+-[A-Z](-\d+)?$", path.stem)
    if match is None:
        return None
    return "environment", "test" if match[1] == "5" else "train"


def _dns(path: Path) -> Label:
    if not {"noise", "noise_fullband"} & set(path.parts[:-1]) and len(path.parts) > 1:
        return None
    # door_Freesound_validated_410247_0.wav: piece 0 of recording 410247; fan_12.wav: piece 12 of "fan".
    return "environment", _hashed_part(re.sub(r"[_-]\d{1,3}$", "", path.stem))


LAYOUTS: dict[str, Callable[[Path], Label]] = {
    "musan": _musan,
    "demand": _demand,
    "noisex92": _noisex92,
    "esc50": _esc50,
    "dns": _dns,
}


def _hashed_part(recording: str) -> Part:
    # By the name alone, so that a recording stays in its part when a collection grows.
    tenth = int.from_bytes(hashlib.sha256(recording.encode()).digest()[:8], "big") % 10
    return "test" if tenth == 9 else "valid" if tenth == 8 else "train"
