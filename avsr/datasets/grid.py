"""Reader of the GRID corpus: clips of one talker who reads a six-word sentence of a fixed grammar.

Cooke, Barker, Cunningham and Shao, "An audio-visual corpus for speech perception and automatic speech recognition",
J. Acoust. Soc. Am. 120(5), 2006. The reader knows two layouts:

- the distribution: SRC/s1/*.mpg (or another video format, or a folder below, as s1/video/mpg_6000/), and the word times
  as SRC/s1/align/*.align, SRC/align/s1/*.align or SRC/alignments/s1/*.align. GRID has no splits; `split_clips` makes
  them;
- any other: SRC/clips.jsonl with one JSON object for each clip. "id" ("speaker/name", unique), "speaker" and "path"
  (of the media file, relative to SRC) are required. "split" is "train" if it is missing, "align" is the file of the
  word times, "words" is the sentence. Other keys are ignored.

The sentence comes from the word times, or else from "words", or else from the file name, which spells it. A clip
without any is used only if clips.jsonl gives it the split "unlabelled".
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from avsr.account import Account
from avsr.datasets.files import CorpusFiles, read_transcript_file
from avsr.datasets.manifest import WordTimes
from avsr.datasets.source import UNLABELLED, SourceClip
from avsr.errors import DataError
from avsr.media.folders import NO_MEDIA
from avsr.media.types import is_sound_name, media_stem
from avsr.untrusted.files import without_path
from avsr.untrusted.lines import json_lines

_COMMANDS = {"b": "bin", "l": "lay", "p": "place", "s": "set"}
_COLOURS = {"b": "blue", "g": "green", "r": "red", "w": "white"}
_PREPOSITIONS = {"a": "at", "b": "by", "i": "in", "w": "with"}
_LETTERS = {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"}  # GRID does not use the letter w
_DIGITS = dict(zip("z123456789", "zero one two three four five six seven eight nine".split(), strict=True))
_ADVERBS = {"a": "again", "n": "now", "p": "please", "s": "soon"}
_GRAMMAR = (_COMMANDS, _COLOURS, _PREPOSITIONS, _LETTERS, _DIGITS, _ADVERBS)

_ALIGN_UNITS_PER_S = 25_000  # 1000 units for each video frame, at 25 frames a second
_SILENCES = ("sil", "sp")


def read_grid(
    src: Path, held_out: Collection[str] = (), *, account: Account | None = None, without: Path | None = None
) -> Iterator[SourceClip]:
    """The clips of a copy of GRID, in the order of their ids.

    held_out: speakers for tests; `split_clips` explains it. account, without: `CorpusReader` explains them.

    Raises DataError if `src` is not a copy of GRID, if a held-out speaker is unknown, or if speakers are held out and
    clips.jsonl already has the splits.
    """
    if not src.exists():
        raise DataError(f"{src}: no such folder", expected="a copy of the GRID corpus")
    if not src.is_dir():
        raise DataError(f"{src}: is a file", expected="the folder of a copy of the GRID corpus")
    index = src / "clips.jsonl"
    files = CorpusFiles(src, account, without)
    if index.is_file():
        if held_out:
            raise DataError(f"{index} says the splits", got="held-out speakers", remedy="set split in it")
        clips = list(_indexed(src, index, files))
    else:
        clips = split_clips(_distributed(files), held_out)
    files.say_what_is_left_out()
    if not clips:
        raise DataError(f"{src}: no GRID clips found", expected="SRC/s1/*.mpg, SRC/s2/*.mpg ..., or SRC/clips.jsonl")
    return iter(sorted(clips, key=lambda clip: clip.id))


def split_clips(clips: Iterable[SourceClip], held_out: Collection[str] = ()) -> list[SourceClip]:
    """The same clips with splits.

    All clips of the speakers in `held_out` are "test_unseen". Of the usable clips of every other speaker, an eighth is
    "test_seen", 3 in 40 are "dev", and the rest is "train". A speaker with three clips or more has at least one clip in
    "test_seen" and in "dev". Unusable clips are "train".

    The clips of a speaker are ordered by the SHA-1 of "grid-split-1:" and the id, separately for each letter of the
    sentence, so that every split has all letters equally often. No two speakers of GRID share a sentence. The shipped
    model was not trained on the clips that are "dev" or "test_seen" in a complete copy of s1. Raises DataError for an
    unknown speaker.
    """
    by_speaker: dict[str, list[SourceClip]] = collections.defaultdict(list)
    for clip in clips:
        by_speaker[clip.speaker].append(clip)
    for speaker in held_out:
        if speaker not in by_speaker:
            raise DataError("no clips of a held-out speaker", got=speaker, expected=", ".join(by_speaker) or "s1")
    result = []
    for speaker, speaker_clips in by_speaker.items():
        if speaker in held_out:
            result += [dataclasses.replace(clip, split="test_unseen") for clip in speaker_clips]
            continue
        order = _in_even_order(clip for clip in speaker_clips if clip.problem is None)
        result += [dataclasses.replace(clip, split="train") for clip in speaker_clips if clip.problem is not None]
        minimum = 1 if len(order) >= 3 else 0
        num_test = max(len(order) // 8, minimum)
        num_dev = max(len(order) * 3 // 40, minimum)
        for position, clip in enumerate(order):
            split = "test_seen" if position < num_test else "dev" if position < num_test + num_dev else "train"
            result.append(dataclasses.replace(clip, split=split))
    return result


def _in_even_order(clips: Iterable[SourceClip]) -> list[SourceClip]:
    """The clips in an order that spreads each letter evenly: any part of the list has about as many of each letter."""

    def digest(clip: SourceClip) -> str:
        return hashlib.sha1(f"grid-split-1:{clip.id}".encode(errors="surrogateescape")).hexdigest()

    by_letter: dict[str, list[SourceClip]] = collections.defaultdict(list)
    for clip in clips:
        by_letter[clip.text.split()[3] if len(clip.text.split()) == len(_GRAMMAR) else ""].append(clip)
    placed = []
    for letter_clips in by_letter.values():
        for rank, clip in enumerate(sorted(letter_clips, key=digest)):
            # The rank within the letter, from 0 to 1, deals the letters out evenly; the hash breaks ties.
            placed.append((rank / len(letter_clips), digest(clip), clip))
    return [clip for _, _, clip in sorted(placed, key=lambda entry: entry[:2])]


def sentence_of_name(name: str) -> str:
    """The sentence that a six-letter file name spells ("bbaf2n": "bin blue at f two now"); empty if it spells none."""
    if len(name) != len(_GRAMMAR) or any(letter not in words for letter, words in zip(name, _GRAMMAR, strict=True)):
        return ""
    return " ".join(words[letter] for letter, words in zip(name, _GRAMMAR, strict=True))


def read_align(path: Path) -> WordTimes:
    """The words of a file of word times, without silences. Raises DataError with the number of a wrong line."""
    words = []
    try:
        lines = read_transcript_file(path).splitlines()
    except DataError as error:
        raise DataError(f"{path}: cannot read the word times", got=without_path(error, path)) from error
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


def _indexed(src: Path, index: Path, files: CorpusFiles) -> Iterator[SourceClip]:
    """The clips of a clips.jsonl. Raises DataError with the number of a wrong line."""
    named = [index]
    for where, row in json_lines(index):
        for key in ("id", "speaker", "path"):
            if key not in row:
                raise DataError(f"{where}: a key is missing", expected=key)
        for key in ("id", "speaker", "path", "split", "align", "words"):
            value = row.get(key, "")
            if not isinstance(value, str) and not (value is None and key in ("align", "words")):
                raise DataError(f"{where}: wrong value of {key}", got=json.dumps(value), expected="a string")
        path = src / row["path"]
        align = src / row["align"] if row.get("align") else None
        named += [path] if align is None else [path, align]
        yield _clip(row["id"], row["speaker"], row.get("split", "train"), path, align, row.get("words") or "")
    files.leave_out_all_but(named, f"in no line of {index.name}")


def _distributed(files: CorpusFiles) -> Iterator[SourceClip]:
    """The clips of the layout of the distribution, without splits."""
    aligns = _aligns(files)
    seen: set[tuple[str, str]] = set()
    # A film goes before the sound of the same clip.
    for path in sorted(files.media, key=lambda path: (is_sound_name(path.name), path)):
        speaker, name = _speaker(path.relative_to(files.src)), media_stem(path.name)
        if not speaker:
            files.leave_out(path, "outside of the folders of speakers")
        elif (speaker, name) in seen:
            # The distribution has each clip in two qualities, in two folders. The first one is used.
            files.leave_out(path, "the same clip in another quality")
        else:
            seen.add((speaker, name))
            yield _clip(f"{speaker}/{name}", speaker, "", path, aligns.get((speaker, name)))
    for path, problem in files.problems.items():
        yield _problem(path, files, problem)
    for (speaker, name), path in aligns.items():
        if (speaker, name) not in seen:
            yield _problem(path, files, f"word times without a video: expected {name}.mpg, or another video format")


def _aligns(files: CorpusFiles) -> dict[tuple[str, str], Path]:
    """The file of word times of each speaker and clip, as speaker/*.align, align/speaker/* or alignments/speaker/*."""
    aligns = {}
    folders = ("", "align", "alignments")
    found = []
    for path in files.others:
        first, *below = path.relative_to(files.src).parts
        inside = Path(*below) if first in folders and below else path.relative_to(files.src)
        speaker = _speaker(inside) if path.suffix.lower() == ".align" else ""
        if speaker:
            found.append((folders.index(first) if first in folders else 0, path, speaker))
        else:
            files.leave_out(path, NO_MEDIA)
    for _, path, speaker in sorted(found):
        aligns[speaker, path.stem] = path
    return aligns


def _speaker(inside: Path) -> str:
    """The speaker of a file, which is the first folder of its path below the corpus; empty if that names no speaker."""
    first = inside.parts[0]
    return first if len(inside.parts) > 1 and first[:1] == "s" and first[1:].isdecimal() else ""


def _problem(path: Path, files: CorpusFiles, problem: str) -> SourceClip:
    inside = path.relative_to(files.src)
    return SourceClip(id=inside.as_posix(), speaker=inside.parts[0], split="", path=path, text="", problem=problem)


def _clip(name: str, speaker: str, split: str, path: Path, align: Path | None, sentence: str = "") -> SourceClip:
    words: WordTimes = ()
    problem = None
    if align is not None:
        try:
            words = read_align(align)
        except DataError as error:
            problem = str(error)
    sentence = " ".join(sentence.lower().split())
    aligned = " ".join(word for word, _, _ in words)
    # The times belong to the words that they name, so their words go first.
    text = aligned or sentence or sentence_of_name(media_stem(path.name))
    if aligned and sentence and aligned != sentence:
        problem = f"word times and words differ: got {aligned!r} and {sentence!r}"
    # Faces without words still serve training, as lips that say something else.
    if not text and problem is None and split != UNLABELLED:
        problem = "the sentence is not known: no word times, no words, and the file name spells no sentence"
    return SourceClip(id=name, speaker=speaker, split=split, path=path, text=text, words=words, problem=problem)
