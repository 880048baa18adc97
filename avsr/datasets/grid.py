"""Reader of the GRID corpus: clips of one talker each reading a six-word sentence of a fixed grammar.

Cooke, Barker, Cunningham and Shao, "An audio-visual corpus for speech perception and automatic speech recognition",
J. Acoust. Soc. Am. 120(5), 2006. Two layouts are understood:

- the distribution: SRC/s1/*.mpg (or another video format, also deeper down as in s1/video/mpg_6000/), and the word
  times as SRC/s1/align/*.align, SRC/align/s1/*.align or SRC/alignments/s1/*.align. GRID has no splits of its own:
  `split_clips` gives them;
- any other: SRC/clips.jsonl with one JSON object a clip. "id" ("speaker/name", unique), "speaker" and "path" (of the
  media file, relative to SRC) are needed; "split" is "train" where not given, "align" is the file of word times, and
  "words" the sentence. Other keys are left alone.

The sentence is taken from the word times, from "words", or from the file name, which spells it.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from avsr.datasets.source import SourceClip
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


def read_grid(src: Path, held_out: Collection[str] = ()) -> Iterator[SourceClip]:
    """The clips of a copy of GRID, in order of their ids. held_out: speakers to test with, see `split_clips`.

    Raises DataError where `src` is not a copy, or has no such speaker or splits already.
    """
    if not src.exists():
        raise DataError(f"{src}: no such folder", expected="a copy of the GRID corpus")
    if not src.is_dir():
        raise DataError(f"{src}: is a file", expected="the folder of a copy of the GRID corpus")
    index = src / "clips.jsonl"
    if index.is_file():
        if held_out:
            raise DataError(f"{index} says the splits", got="held-out speakers", remedy="set split in it")
        clips = list(_indexed(src, index))
    else:
        clips = split_clips(_distributed(src), held_out)
    if not clips:
        raise DataError(f"{src}: no GRID clips found", expected="SRC/s1/*.mpg and so on, or SRC/clips.jsonl")
    return iter(sorted(clips, key=lambda clip: clip.id))


def split_clips(clips: Iterable[SourceClip], held_out: Collection[str] = ()) -> list[SourceClip]:
    """The same clips with splits: all of the speakers in `held_out` are "test_unseen"; of each other speaker's usable
    clips an eighth is "test_seen", 3 in 40 are "dev" (one each at least where there are three), the rest "train".

    A speaker's clips are dealt out in the order of the SHA-1 of "grid-split-1:" and the id, letter by letter of the
    grammar, so that each split has every letter equally often; no two speakers share a sentence. What of a whole s1 is
    "dev" or "test_seen" here, the shipped model was not trained on. Raises DataError for an unknown speaker.
    """
    of_speakers: dict[str, list[SourceClip]] = collections.defaultdict(list)
    for clip in clips:
        of_speakers[clip.speaker].append(clip)
    for speaker in held_out:
        if speaker not in of_speakers:
            raise DataError("no clips of a held-out speaker", got=speaker, expected=", ".join(of_speakers) or "s1")
    result = []
    for speaker, its_clips in of_speakers.items():
        if speaker in held_out:
            result += [dataclasses.replace(clip, split="test_unseen") for clip in its_clips]
            continue
        order = _dealt_out(clip for clip in its_clips if clip.problem is None)
        result += [dataclasses.replace(clip, split="train") for clip in its_clips if clip.problem is not None]
        enough = len(order) >= 3
        num_test = max(len(order) // 8, int(enough))
        num_dev = max(len(order) * 3 // 40, int(enough))
        for position, clip in enumerate(order):
            split = "test_seen" if position < num_test else "dev" if position < num_test + num_dev else "train"
            result.append(dataclasses.replace(clip, split=split))
    return result


def _dealt_out(clips: Iterable[SourceClip]) -> list[SourceClip]:
    """In an order any stretch of which has about as many clips of each letter as the whole."""

    def digest(clip: SourceClip) -> str:
        return hashlib.sha1(f"grid-split-1:{clip.id}".encode(errors="surrogateescape")).hexdigest()

    of_letters: dict[str, list[SourceClip]] = collections.defaultdict(list)
    for clip in clips:
        of_letters[clip.text.split()[3] if len(clip.text.split()) == len(_GRAMMAR) else ""].append(clip)
    placed = []
    for its_clips in of_letters.values():
        for rank, clip in enumerate(sorted(its_clips, key=digest)):
            placed.append((rank / len(its_clips), digest(clip), clip))
    return [clip for _, _, clip in sorted(placed, key=lambda entry: entry[:2])]


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
    try:
        lines = index.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{index}: cannot be read", got=error) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{index}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON", got=error) from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: not a JSON object", got=type(row).__name__)
        for key in ("id", "speaker", "path"):
            if key not in row:
                raise DataError(f"{where}: a key is missing", expected=key)
        for key in ("id", "speaker", "path", "split", "align", "words"):
            value = row.get(key, "")
            if not isinstance(value, str) and not (value is None and key in ("align", "words")):
                raise DataError(f"{where}: wrong value of {key}", got=json.dumps(value), expected="a string")
        align = src / row["align"] if row.get("align") else None
        yield _clip(
            row["id"], row["speaker"], row.get("split", "train"), src / row["path"], align, row.get("words") or ""
        )


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
                yield _clip(f"{speaker}/{path.stem}", speaker, "", path, aligns.get(path.stem))


def _clip(name: str, speaker: str, split: str, path: Path, align: Path | None, said: str = "") -> SourceClip:
    words: tuple[tuple[str, float, float], ...] = ()
    problem = None
    if align is not None:
        try:
            words = read_align(align)
        except DataError as error:
            problem = str(error)
    said = " ".join(said.lower().split())
    timed = " ".join(word for word, _, _ in words)
    text = timed or said or sentence_of_name(path.stem)
    if timed and said and timed != said:
        problem = f"word times and words differ: got {timed!r} and {said!r}"
    if not text and problem is None:
        problem = "what is said is not known: no word times, no words, and the file name spells no sentence"
    return SourceClip(id=name, speaker=speaker, split=split, path=path, text=text, words=words, problem=problem)
