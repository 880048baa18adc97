"""Reader of the GRID corpus: clips of one talker each reading a six-word sentence of a fixed grammar.

Cooke, Barker, Cunningham and Shao, "An audio-visual corpus for speech perception and automatic speech recognition",
J. Acoust. Soc. Am. 120(5), 2006. Two layouts are understood:

- the distribution: SRC/s1/*.mpg (or another video format, also deeper down as in s1/video/mpg_6000/), and the word
  times as SRC/s1/align/*.align, SRC/align/s1/*.align or SRC/alignments/s1/*.align; the split is "train" for all;
- a repackaged one: SRC/clips.jsonl with id, speaker, split, path and align (relative to SRC) of each clip.

The sentence is taken from the word times, or from the file name, which spells it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from avsr.datasets.prepare import SourceClip
from avsr.errors import DataError

_COMMANDS = {"b": "bin", "l": "lay", "p": "place", "s": "set"}
_COLOURS = {"b": "blue", "g": "green", "r": "red", "w": "white"}
_PREPOSITIONS = {"a": "at", "b": "by", "i": "in", "w": "with"}
_LETTERS = {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"}  # no w
_DIGITS = dict(zip("z123456789", "zero one two three four five six seven eight nine".split(), strict=True))
_ADVERBS = {"a": "again", "n": "now", "p": "please", "s": "soon"}
_GRAMMAR = (_COMMANDS, _COLOURS, _PREPOSITIONS, _LETTERS, _DIGITS, _ADVERBS)

_ALIGN_UNITS_PER_S = 25_000  # 1000 units a video frame, at 25 frames a second
_SILENCES = ("sil", "sp")
_VIDEO_SUFFIXES = (".mpg", ".mp4", ".mkv", ".avi", ".webm", ".mov")


def read_grid(src: Path) -> Iterator[SourceClip]:
    """The clips of a copy of GRID, in order of their ids. Raises DataError where `src` is not one."""
    if not src.is_dir():
        raise DataError(f"{src}: no such folder", expected="a copy of the GRID corpus")
    index = src / "clips.jsonl"
    clips = list(_indexed(src, index) if index.is_file() else _distributed(src))
    if not clips:
        raise DataError(f"{src}: no GRID clips found", expected="SRC/s1/*.mpg and so on, or SRC/clips.jsonl")
    return iter(sorted(clips, key=lambda clip: clip.id))


def sentence_of_name(name: str) -> str:
    """What a six-character file name spells ("bbaf2n": "bin blue at f two now"); empty where it spells no sentence."""
    if len(name) != len(_GRAMMAR) or any(letter not in words for letter, words in zip(name, _GRAMMAR, strict=True)):
        return ""
    return " ".join(words[letter] for letter, words in zip(name, _GRAMMAR, strict=True))


def read_align(path: Path) -> tuple[tuple[str, float, float], ...]:
    """Words with start and end in seconds, without silences. Raises DataError naming the line that is wrong."""
    words = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the word times", got=error) from error
    for number, line in enumerate(lines, start=1):
        parts = line.split()
        if not parts:
            continue
        try:
            start, end, word = parts
            times_s = int(start) / _ALIGN_UNITS_PER_S, int(end) / _ALIGN_UNITS_PER_S
        except ValueError as error:
            raise DataError(f"{path}:{number}: wrong word time", got=line, expected="START END WORD") from error
        if word.lower() not in _SILENCES:
            words.append((word.lower(), *times_s))
    return tuple(words)


def _indexed(src: Path, index: Path) -> Iterator[SourceClip]:
    for number, line in enumerate(index.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, path, align = row["id"], src / row["path"], row.get("align")
            speaker, split = row["speaker"], row.get("split", "train")
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{index}:{number}: wrong entry", got=error, expected="id, speaker, path, align") from error
        yield _clip(name, speaker, split, path, src / align if align else None)


def _distributed(src: Path) -> Iterator[SourceClip]:
    for folder in sorted(src.iterdir()):
        speaker = folder.name
        if not (folder.is_dir() and speaker[:1] == "s" and speaker[1:].isdecimal()):
            continue
        aligns = {path.stem: path for path in folder.rglob("*.align")}
        for beside in ("align", "alignments"):
            aligns |= {path.stem: path for path in (src / beside / speaker).rglob("*.align")}
        seen: set[str] = set()
        for path in sorted(folder.rglob("*")):
            # The distribution has each clip at two qualities in folders of their own: the first one counts.
            if path.suffix.lower() in _VIDEO_SUFFIXES and path.is_file() and path.stem not in seen:
                seen.add(path.stem)
                yield _clip(f"{speaker}/{path.stem}", speaker, "train", path, aligns.get(path.stem))


def _clip(name: str, speaker: str, split: str, path: Path, align: Path | None) -> SourceClip:
    words: tuple[tuple[str, float, float], ...] = ()
    problem = None
    if align is not None and align.is_file():
        try:
            words = read_align(align)
        except DataError as error:
            problem = str(error)
    text = " ".join(word for word, _, _ in words) or sentence_of_name(path.stem)
    if not text and problem is None:
        problem = "what is said is not known: no word times, and the file name spells no sentence"
    return SourceClip(id=name, speaker=speaker, split=split, path=path, text=text, words=words, problem=problem)
