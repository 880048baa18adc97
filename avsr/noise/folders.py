"""Folders of noise recordings: any folder, and the published collections in the layouts in which they come.

    musan      music/ noise/ speech/, each with folders of WAV files
    demand     DKITCHEN/ch01.wav ... NRIVER/ch16.wav: 18 places, 16 channels, of which the first is used
    noisex92   babble.wav factory1.wav volvo.wav ...: each file is a kind of its own
    esc50      audio/1-100032-A-0.wav, fold first; folds 1-4 are for training, 5 is for testing
    dns        noise/ or noise_fullband/ anywhere below, files named after what they were cut from

Training and test parts never share a recording: pieces of one are kept together. Collections that have no split of
their own are split by a hash of the recording's name, 80 % train, 10 % valid, 10 % test; NOISEX-92 and DEMAND, which
are too small for that, are test noise whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from avsr.errors import DataError

NOISE_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
Part = Literal["train", "valid", "test"]


@dataclasses.dataclass(frozen=True)
class NoiseFile:
    """One recording: path, name relative to its folder ("/" between parts), kind of noise, and which part it is for."""

    path: Path
    name: str
    kind: str
    part: Part


def find_noises(name: str, folder: Path, part: Part | None = None) -> list[NoiseFile]:
    """The recordings below `folder`, by name: read as the collection `name`, or as plain files of the kind `name`.

    part: only those of one part of a collection; a plain folder has none and is taken whole. Raises DataError where
    there is nothing, or nothing of that layout.
    """
    files = _sound_files(folder)
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
        raise DataError(what, expected=f"a folder with {', '.join(NOISE_SUFFIXES)} files")
    return chosen


def _sound_files(folder: Path) -> list[Path]:
    # In the order of names, not of the file system, and not of the locale.
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in NOISE_SUFFIXES and path.is_file())


Label = tuple[str, Part] | None


def _musan(path: Path) -> Label:
    # music/fma/music-fma-0000.wav; some copies have a folder musan/ around it.
    kinds = [part for part in path.parts[:-1] if part in ("music", "noise", "speech")]
    return (kinds[0], _hashed_part(path.stem)) if kinds else None


def _demand(path: Path) -> Label:
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
    tenth = int.from_bytes(hashlib.sha256(recording.encode()).digest()[:8], "big") % 10
    return "test" if tenth == 9 else "valid" if tenth == 8 else "train"
