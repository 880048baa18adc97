"""Reader of a folder of talking-face videos with transcripts, such as LRS2 and LRS3.

A video NAME.mp4 (or another video format of `avsr.media.types`) anywhere below SRC has its transcript NAME.txt in the
same folder. The transcript is plain text or has the form of LRS2 and LRS3 (Afouras et al., arXiv 1809.00496): a first
line "Text:" with the transcript, other lines that are ignored ("Conf:", face boxes), and in some parts of the corpus a
table WORD START END ASDSCORE with the times of the words. The speaker of a clip is the name of its folder. The split of
a clip is

- the name of the list that has the clip, if SRC has train.txt, val.txt, test.txt or pretrain.txt (LRS2). A line of a
  list begins with the clip as "folder/number", relative to SRC, to SRC/main or to the folder with the name of the list;
- otherwise the first folder below SRC, if one of these folders is called train, trainval, pretrain, dev, val or test
  (LRS3);
- otherwise "train".

"val", "valid" and "validation" become "dev". If there is no such split, `carve_dev` makes one. A video without a
transcript, a transcript without a video, a sound, a second name of a video and a folder that cannot be read are clips
with a problem.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from avsr.account import Account
from avsr.datasets.files import CorpusFiles, is_text, one_form, read_transcript_file
from avsr.datasets.manifest import WordTimes
from avsr.datasets.source import SourceClip
from avsr.errors import DataError
from avsr.media.folders import NO_MEDIA
from avsr.media.types import is_sound_name, media_stem, media_suffix
from avsr.untrusted.lines import numbered_lines

DEV_SHARE = 1 / 20

_TRAINING_SPLITS = ("train", "trainval", "pretrain")
_SPLITS = {name: name for name in (*_TRAINING_SPLITS, "dev", "test")} | dict.fromkeys(
    ("val", "valid", "validation"), "dev"
)


def read_folder(
    src: Path, held_out: Collection[str] = (), *, account: Account | None = None, without: Path | None = None
) -> Iterator[SourceClip]:
    """The clips of a folder, in the order of their ids. An id is the path below `src` without suffix.

    held_out: speakers for tests, if the folder has no splits; their clips are "test_unseen".
    account, without: `CorpusReader` explains them.

    Raises DataError if the folder is missing or has no video, if a clip is in two lists, if a held-out speaker is
    unknown, or if speakers are held out and the folder has splits.
    """
    if not src.is_dir():
        problem = "is a file" if src.exists() else "no such folder"
        raise DataError(f"{src}: {problem}", expected="a folder of videos with transcripts")
    files = CorpusFiles(src, account, without)
    videos: dict[str, list[Path]] = collections.defaultdict(list)
    sounds: dict[str, list[Path]] = collections.defaultdict(list)
    for path in [*files.media, *(path for path in files.problems if media_suffix(path.name))]:
        (sounds if is_sound_name(path.name) else videos)[files.key(path)].append(path)
    if not videos:
        raise DataError(
            f"{src}: no videos found",
            got=f"{len(files.media)} files of sound" if sounds else None,
            expected="NAME.txt beside NAME.mp4, or another video format",
            remedy="prepare sound with: avsr prepare speech" if sounds else None,
        )
    transcripts = _transcripts(files)
    # A list is no list if there is a video of its name: then it is that video's transcript.
    lists = [name for name in _SPLITS if (src / f"{name}.txt").is_file() and name not in videos]
    first_folders = {name.partition("/")[0] for name in videos if "/" in name}
    if held_out and (lists or first_folders & _SPLITS.keys()):
        raise DataError(f"{src} has splits of its own", got="held-out speakers", remedy="leave them out")
    listed = _read_lists(src, lists, videos)
    clips = []
    for name, (path, *doubles) in videos.items():
        split, problem = "train", files.problems.get(path, "")
        if lists:
            split = listed.pop(name, "")
            if not split and not problem:
                problem = f"is in none of the lists {', '.join(f'{list}.txt' for list in lists)}"
        elif first_folders & _SPLITS.keys() and "/" in name:
            first = name.partition("/")[0]
            split = _SPLITS.get(first, first)
        clips.append(_clip(files.id(path), split, path, src, problem, transcripts.get(name, [])))
        for double in doubles:
            # An id with the suffix, because the id without it is taken.
            problem = files.problems.get(double, f"{path.name} has the same name")
            clips.append(_clip(double.relative_to(src).as_posix(), split, double, src, problem))
    for name, split in listed.items():
        clips.append(_clip(name, split, src / name, src, "is in a list, but there is no such video"))
    clips += _without_use(files, videos, sounds, transcripts, {*listed, *lists})
    files.say_what_is_left_out()
    return iter(sorted(carve_dev(_hold_out(clips, held_out)), key=lambda clip: clip.id))


def _transcripts(files: CorpusFiles) -> dict[str, list[Path]]:
    """The texts of the folder by the key of their videos. All other files are left out."""
    transcripts: dict[str, list[Path]] = collections.defaultdict(list)
    for path in files.others:
        if is_text(path):
            transcripts[files.key(path)].append(path)
        else:
            files.leave_out(path, NO_MEDIA)
    return transcripts


def _without_use(
    files: CorpusFiles,
    videos: Mapping[str, list[Path]],
    sounds: Mapping[str, list[Path]],
    transcripts: Mapping[str, list[Path]],
    listed: Collection[str],
) -> Iterator[SourceClip]:
    """A clip with a problem for each folder, sound and transcript that belongs to no video; a pair has one."""
    for path, problem in files.problems.items():
        if not media_suffix(path.name):
            yield _clip(path.relative_to(files.src).as_posix(), "", path, files.src, f"the folder {problem}")
    for name, paths in sounds.items():
        for path in paths:
            if name in videos and path not in files.problems:
                files.leave_out(path, "sound beside a video of the same name")
                continue
            problem = files.problems.get(path, "is sound without a picture; avsr prepare speech takes it")
            yield _clip(path.relative_to(files.src).as_posix(), "", path, files.src, problem)
    for name, (path, *doubles) in transcripts.items():
        if name not in {*videos, *sounds, *listed}:  # the line of a sound stands for its text too
            problem = f"transcript without a video: expected {path.stem}.mp4, or another video format, beside it"
            yield _clip(files.id(path), "", path, files.src, problem)
        for double in doubles:
            yield _clip(
                double.relative_to(files.src).as_posix(), "", double, files.src, f"{path.name} has the same name"
            )


def carve_dev(clips: Iterable[SourceClip]) -> list[SourceClip]:
    """The same clips; if no split is "dev", some speakers of the training split become "dev".

    The training split is "train", or else "trainval", or else "pretrain". Speakers move to "dev" in the order of the
    SHA-1 of "folder-dev-1:" and their name, until "dev" has a twentieth of the clips; one speaker always stays. The
    clips of the moved speakers in other training splits get the split "dev_" and the old name, so that nobody trains
    with these speakers by accident. If there is only one speaker, single clips move, in the order of the hashes of
    their ids.
    """
    clips = list(clips)
    splits = {clip.split for clip in clips}
    source = next((name for name in _TRAINING_SPLITS if name in splits), None)
    if source is None or "dev" in splits:
        return clips
    by_speaker = len({clip.speaker for clip in clips if clip.split == source and clip.problem is None}) > 1

    def group(clip: SourceClip) -> str:
        return clip.speaker if by_speaker else clip.id

    def digest(name: str) -> str:
        return hashlib.sha1(f"folder-dev-1:{name}".encode(errors="surrogateescape")).hexdigest()

    sizes = collections.Counter(group(clip) for clip in clips if clip.split == source and clip.problem is None)
    taken: set[str] = set()
    count = 0
    # By a hash, because names are often in an order that means something. The last speaker stays for training.
    for name in sorted(sizes, key=digest)[:-1]:
        if count >= DEV_SHARE * sum(sizes.values()):
            break
        taken.add(name)
        count += sizes[name]
    return [
        dataclasses.replace(clip, split="dev" if clip.split == source else f"dev_{clip.split}")
        # Published test clips keep their split, or results could not be compared.
        if group(clip) in taken and not clip.split.startswith("test")
        else clip
        for clip in clips
    ]


def normalise_text(text: str) -> str:
    """The words of a text in lower case, with single spaces between them.

    A word has letters, digits and apostrophes. Every other character separates words.
    """
    # Texts of different sources write the same letter in one character or two, and apostrophes in two ways.
    text = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    # Category M: marks, which are a part of the letters of many scripts.
    kept = "".join(letter if letter == "'" or unicodedata.category(letter)[0] in "LMN" else " " for letter in text)
    return " ".join(word for word in kept.split() if word.strip("'"))


def read_transcript(path: Path) -> tuple[str, WordTimes]:
    """The normalised text of a transcript, and its words with their times.

    There are no words if the transcript has no times, or if the times are for another text. Raises DataError if the
    file is missing, longer than a MiB or not UTF-8.
    """
    content = read_transcript_file(path)
    head, _, rest = content.strip().partition("\n")
    if not head.startswith("Text:"):
        return normalise_text(content), ()
    text = normalise_text(head.removeprefix("Text:"))
    words = _word_times(rest.splitlines())
    return text, words if " ".join(word for word, _, _ in words) == text else ()


def _word_times(lines: list[str]) -> WordTimes:
    """The rows of the table of word times; empty if there is no table or if one of its rows is wrong."""
    rows = [line.split() for line in lines if line.strip()]
    heads = [index for index, row in enumerate(rows) if row[:3] == ["WORD", "START", "END"]]
    words = []
    for row in rows[heads[0] + 1 :] if heads else []:
        try:
            word, start_s, end_s = normalise_text(row[0]), float(row[1]), float(row[2])
        # One wrong row leaves out the table, because the other rows would not be the text.
        except (ValueError, IndexError):
            return ()
        if not 0 <= start_s <= end_s < math.inf:
            return ()
        if word:
            words.append((word, start_s, end_s))
    return tuple(words)


def _read_lists(src: Path, lists: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """The split of each clip in a list, by the id of the clip; an unknown clip has its entry in the list as id."""
    splits: dict[str, str] = {}
    origins: dict[str, str] = {}
    for name in lists:
        path = src / f"{name}.txt"
        lines = [line for _, line in numbered_lines(path)]
        # pretrain/ and main/ may have the same "folder/number" with different parts of the same recording.
        folders = [f"{name}/", ""] if name == "pretrain" else [f"{name}/", "main/", ""]
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            # The first word is the clip; a name with blanks is the whole line.
            entries = [one_form(media_stem(entry)) for entry in (line.split()[0], line.strip())]
            ids = (folder + entry for entry in entries for folder in folders)
            clip_id = next((clip_id for clip_id in ids if clip_id in known), entries[0])
            where = f"{path.name}:{number}"
            if splits.setdefault(clip_id, _SPLITS[name]) != _SPLITS[name]:
                raise DataError(
                    f"{src / where}: a clip is in two lists",
                    got=f"{clip_id}, also in {origins[clip_id]}",
                    expected="one split for each clip",
                )
            origins.setdefault(clip_id, where)
    return splits


def _hold_out(clips: list[SourceClip], held_out: Collection[str]) -> list[SourceClip]:
    """The clips with the split "test_unseen" for held-out speakers. Raises DataError for an unknown speaker."""
    speakers = sorted({clip.speaker for clip in clips})
    for speaker in held_out:
        if speaker not in speakers:
            some = ", ".join(speakers[:10]) + (f" and {len(speakers) - 10} more" if len(speakers) > 10 else "")
            raise DataError("no clips of a held-out speaker", got=speaker, expected=some)
    return [dataclasses.replace(clip, split="test_unseen") if clip.speaker in held_out else clip for clip in clips]


def _clip(
    name: str, split: str, path: Path, src: Path, problem: str = "", transcripts: Sequence[Path] = ()
) -> SourceClip:
    text = ""
    words: WordTimes = ()
    if not problem:
        try:
            beside = path.with_name(f"{media_stem(path.name)}.txt")
            text, words = read_transcript(transcripts[0] if transcripts else beside)
        except DataError as error:
            problem = str(error)
        else:
            problem = "" if text else "transcript has no words"
    speaker = path.parent.name or src.resolve().name
    return SourceClip(id=name, speaker=speaker, split=split, path=path, text=text, words=words, problem=problem or None)
