"""Reader of recorded speech with its text: files of sound, or of sound and picture, in one of three layouts.

- A list SRC/NAME.jsonl, or SRC is such a file: a JSON object for each clip. Only "path" is required: the file, relative
  to the folder of the list. "id" is the path without suffix if it is missing, "speaker" the name of the folder that has
  the file, "split" is "test". "words" is the text; null means that the text is not known. "word_times" is a list of
  [start, end, word] in seconds, "language" a code such as "ko". "mixed": true says that the text mixes languages; the
  clip moves to the split with "_mixed" at its end, so that it is measured apart. Other keys are ignored.
- Lists of texts anywhere below SRC: files called `text` (Kaldi) or `*.trans.txt` (LibriSpeech). A line is NAME, a blank
  and the text. NAME is the name without suffix of a file in the folder of the list or below it. The speaker comes from
  the Kaldi file `utt2spk` beside `text`, or is the first part of a LibriSpeech name such as 84-121123-0001.
- NAME.txt beside NAME.flac or another media file.

In the last two layouts the speaker is otherwise the name of the folder that has the file. The split is the first folder
on the way from SRC to the file that is called train, dev, val or test or begins so ("dev-clean"), or else "test". The
reader makes no splits, so no speaker can come into a training split that the corpus does not name.

Texts keep case and punctuation. Only blanks and Unicode's form (NFC) change: `avsr evaluate` says how it compares them.
A clip without a known text gets the split "unlabelled".
"""

from __future__ import annotations

import collections
import json
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from avsr.account import Account
from avsr.datasets.files import (
    CorpusFiles,
    is_text,
    leads_out,
    one_form,
    read_transcript_file,
)
from avsr.datasets.folder import normalise_text
from avsr.datasets.manifest import WordTimes
from avsr.datasets.source import UNLABELLED, SourceClip
from avsr.errors import DataError
from avsr.media.folders import NO_MEDIA
from avsr.media.types import media_stem, media_suffix
from avsr.text import one_line
from avsr.untrusted.lines import json_lines, numbered_lines

DEFAULT_SPLIT = "test"

_SPLIT_FOLDER = re.compile(r"(train|dev|test|val|valid|validation)([-_].*)?")
_DEV_NAMES = ("val", "valid", "validation")
_EXPECTED = "SRC/NAME.jsonl, or media files with NAME.txt beside each, or with lists of texts (text, *.trans.txt)"
_MAX_TIME_S = 1e6


def read_speech(
    src: Path, held_out: Collection[str] = (), *, account: Account | None = None, without: Path | None = None
) -> Iterator[SourceClip]:
    """The clips of a folder of speech, or of a list of it, in the order of their ids.

    account, without: `CorpusReader` explains them.

    Raises DataError if there is nothing to read, if the folder has several lists, if a line of a list is wrong, if a
    clip has two texts, or if speakers are held out: the corpus or the list names the splits.
    """
    if held_out:
        raise DataError(
            f"{src}: speech is split as the corpus says", got="held-out speakers", remedy="name the splits in a list"
        )
    index = _json_list(src)
    # If the list itself is named, the files around it are no part of the corpus.
    files = CorpusFiles(src, account, without) if src.is_dir() else None
    if index is not None:
        clips = [_listed_clip(index.parent, *line) for line in json_lines(index)]
        if files is not None:
            files.leave_out_all_but([index, *(clip.path for clip in clips)], f"in no line of {index.name}")
    else:
        assert files is not None, "_json_list refuses what is neither a list nor a folder"
        clips = _found_clips(files)
    if files is not None:
        files.say_what_is_left_out()
    if not clips:
        raise DataError(f"{index or src}: no speech found", expected=_EXPECTED)
    return iter(sorted(clips, key=lambda clip: clip.id))


def _json_list(src: Path) -> Path | None:
    """The list of JSON lines; None if there is no list."""
    if src.is_file() and src.suffix == ".jsonl":
        return src
    if not src.is_dir():
        raise DataError(f"{src}: {'is a file' if src.exists() else 'no such folder'}", expected=_EXPECTED)
    lists = sorted(path for path in src.glob("*.jsonl") if path.is_file() and not path.name.startswith("."))
    if len(lists) > 1:
        names = ", ".join(path.name for path in lists)
        raise DataError(f"{src}: several lists", got=names, expected="one", remedy="name one of them as SRC")
    return lists[0] if lists else None


def _listed_clip(root: Path, where: str, row: Mapping[str, Any]) -> SourceClip:
    """The clip of one line of a list of JSON lines."""
    name = _string(row, "path", where)
    if not name:
        raise DataError(f"{where}: a key is missing", expected="path")
    path = root / name
    text = one_line(_string(row, "words", where))
    split = _string(row, "split", where) or DEFAULT_SPLIT
    mixed = row.get("mixed")
    if not isinstance(mixed, bool | None):
        raise DataError(f"{where}: wrong value of mixed", got=json.dumps(mixed), expected="true or false")
    words = _word_times(row.get("word_times"), where)
    clip_id = _string(row, "id", where) or media_stem(PurePosixPath(name).as_posix())
    problem = _problem(clip_id, name, path, text, words)
    return SourceClip(
        id=clip_id,
        speaker=_string(row, "speaker", where) or path.parent.name or path.resolve().parent.name,
        split=UNLABELLED if not text else f"{split}_mixed" if mixed else split,
        path=path,
        text=text,
        words=words,
        language=_string(row, "language", where) or None,
        problem=f"{where}: {problem}" if problem else None,
    )


def _problem(clip_id: str, name: str, path: Path, text: str, words: WordTimes) -> str | None:
    """Why a clip of a list cannot be used."""
    if leads_out(name):
        return f"the path leads out of the folder of the list: got {name}"
    if leads_out(clip_id):
        return f"the id leads out of the folder: got {clip_id}, expected speaker/name"
    if not path.is_file():
        return f"no such file: got {name}"
    timed = " ".join(word for word, _, _ in words)
    # Published word times are often in lower case and without punctuation, beside a text that has both.
    if words and normalise_text(timed) != normalise_text(text):
        return f"word times and words differ: got {timed!r} and {text!r}"
    return None


def _string(row: Mapping[str, Any], key: str, where: str) -> str:
    """The value of a key that may be missing or null, which gives an empty string."""
    value = row.get(key)
    if value is None:
        return ""
    # Names become file names, and every text is written as UTF-8, which has no lone surrogates (category Cs).
    refused = ("Cs",) if key == "words" else ("Cs", "Cc")
    if not isinstance(value, str) or any(unicodedata.category(letter) in refused for letter in value):
        raise DataError(f"{where}: wrong value of {key}", got=json.dumps(value), expected="a string of letters")
    return value


def _word_times(rows: Any, where: str) -> WordTimes:
    times = []
    for row in [] if rows is None else rows if isinstance(rows, list) else [rows]:
        match row:
            case [int() | float() as start_s, int() | float() as end_s, str() as word] if (
                0 <= start_s <= end_s <= _MAX_TIME_S and word.isprintable()
            ):
                times.append((one_line(word), float(start_s), float(end_s)))
            case _:
                raise DataError(
                    f"{where}: wrong value of word_times", got=json.dumps(row)[:80], expected="[start, end, word]"
                )
    return tuple(times)


class _Text(NamedTuple):
    """The text of a clip, as a list of texts or a file beside it gives it."""

    text: str
    origin: str
    """File, and line if it is a list."""
    speaker: str = ""
    problem: str | None = None


def _found_clips(files: CorpusFiles) -> list[SourceClip]:
    """The clips of the two layouts without JSON lines."""
    media: dict[str, list[Path]] = collections.defaultdict(list)
    for path in [*files.media, *(path for path in files.problems if media_suffix(path.name))]:
        media[files.key(path)].append(path)
    lists: list[Path] = []
    texts_beside: dict[str, list[Path]] = collections.defaultdict(list)
    for path in files.others:
        if path.name == "text" or path.name.endswith(".trans.txt"):
            lists.append(path)
        elif is_text(path):
            texts_beside[files.key(path)].append(path)
        elif path.name != "utt2spk":
            files.leave_out(path, NO_MEDIA)
    texts = _listed_texts(files.src, lists, media)
    clips = []
    for name, (path, *doubles) in texts_beside.items():
        _check_new(name, str(path), texts)
        texts[name] = _text_beside(path)
        clips += [_unused(files, double, f"{path.name} has the same name") for double in doubles if media]
    for name, (path, *doubles) in media.items():
        text = texts.get(name)
        if path in files.problems:
            text = _Text("", "", "", files.problems[path])
        clips.append(_found_clip(files.id(path), path, text, files.src))
        # An id with the suffix, because the id without it is taken.
        clips += [
            _unused(files, double, files.problems.get(double, f"{path.name} has the same name")) for double in doubles
        ]
    for name in texts.keys() - media.keys() if media else ():
        problem = texts[name].problem or "text without a media file"
        clips.append(_found_clip(name, Path(texts[name].origin), texts[name]._replace(problem=problem), files.src))
    for path, problem in files.problems.items():
        if not media_suffix(path.name):
            clips.append(_unused(files, path, f"the folder {problem}"))
    return clips


def _unused(files: CorpusFiles, path: Path, problem: str) -> SourceClip:
    return _found_clip(path.relative_to(files.src).as_posix(), path, _Text("", "", "", problem), files.src)


def _found_clip(clip_id: str, path: Path, text: _Text | None, src: Path) -> SourceClip:
    beside = f"{media_stem(path.name)}.txt"
    text = text or _Text("", "", "", f"no text: expected {beside} beside it, or a line in a list of texts")
    return SourceClip(
        id=clip_id,
        speaker=text.speaker or path.parent.name or src.resolve().name,
        split=_split_of(PurePosixPath(clip_id).parent),
        path=path,
        text=text.text,
        problem=text.problem or (None if text.text else "transcript has no words"),
    )


def _split_of(folder: PurePosixPath) -> str:
    names = (part for part in folder.parts if _SPLIT_FOLDER.fullmatch(part))
    name = next(names, DEFAULT_SPLIT)
    return "dev" if name in _DEV_NAMES else name


def _text_beside(path: Path) -> _Text:
    try:
        return _Text(one_line(read_transcript_file(path)), str(path))
    except DataError as error:
        return _Text("", str(path), "", str(error))


def _listed_texts(src: Path, lists: list[Path], media: Collection[str]) -> dict[str, _Text]:
    """The texts of all lists, by the id of the clip. Raises DataError if a clip has two."""
    ids: dict[str, list[str]] = collections.defaultdict(list)
    for name in media:
        ids[PurePosixPath(name).name].append(name)
    texts: dict[str, _Text] = {}
    for path in lists:
        folder = path.parent.relative_to(src)
        speakers = _speakers(path.with_name("utt2spk")) if path.name == "text" else None
        for where, line in numbered_lines(path):
            # Only the text may change its form: the name must stay the name of the file.
            name, *text = line.split(maxsplit=1)
            speaker = name.partition("-")[0] if speakers is None else speakers.get(name, "")
            found = [
                clip_id for clip_id in ids.get(one_form(name), []) if PurePosixPath(clip_id).is_relative_to(folder)
            ]
            problem = f"{where} names several files" if len(found) > 1 else None
            for clip_id in found or [(folder / name).as_posix()]:
                _check_new(clip_id, where, texts)
                texts[clip_id] = _Text(one_line(" ".join(text)), where, speaker, problem)
    return texts


def _check_new(clip_id: str, origin: str, texts: Mapping[str, _Text]) -> None:
    if clip_id in texts:
        raise DataError(f"{origin}: the clip has two texts", got=f"{clip_id}, also in {texts[clip_id].origin}")


def _speakers(path: Path) -> dict[str, str]:
    """The speaker of each name in a Kaldi utt2spk; empty without the file."""
    if not path.is_file():
        return {}
    return {name: speaker for name, _, speaker in (line.partition(" ") for _, line in numbered_lines(path))}
