"""Prepare a corpus: from its published files to a manifest with 16 kHz sound and lip crops.

Each clip is prepared on its own, in one of several processes. Its files are written whole, and so is a record of their
input. If the record still fits, the clip is not prepared again. An interrupted preparation, or the preparation of a
corpus that has grown, therefore continues where it stopped.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from avsr.account import Account
from avsr.datasets.files import leads_out
from avsr.datasets.folder import read_folder
from avsr.datasets.grid import read_grid
from avsr.datasets.manifest import (
    Utterance,
    parse_utterance,
    save_lips,
    save_samples,
    write_json_lines,
    write_manifest,
)
from avsr.datasets.source import CorpusReader, SourceClip
from avsr.datasets.speech import read_speech
from avsr.errors import AvsrError, ConfigError, DataError, MediaError, nearest
from avsr.files import not_written, only_writer, remedy_for, remove_partial, write_text
from avsr.grid import SAMPLE_RATE_HZ, SLOT_S
from avsr.lips.faces import FaceFinder
from avsr.lips.slots import LipTrack
from avsr.lips.tracker import extract_lips
from avsr.lips.tracks import probe_faces
from avsr.media import read_audio
from avsr.media.container import check_is_file
from avsr.processes import Crew, Report, as_avsr_error, run
from avsr.untrusted.files import read_file
from avsr.untrusted.lines import MAX_LINE_BYTES
from avsr.untrusted.settings import parse_json

logger = logging.getLogger(__name__)

# A part of every record. Raise it if the same source gives other files than before.
PREPARATION_VERSION = 5

CORPORA: Mapping[str, CorpusReader] = {"grid": read_grid, "folder": read_folder, "speech": read_speech}
"""The reader of each kind of corpus."""

Progress = Callable[[int, int], None]
"""Called with the number of finished clips and the number of all clips."""


@dataclasses.dataclass(frozen=True)
class Preparation:
    """The result of a preparation."""

    manifest: Path
    """The manifest file."""
    splits: Mapping[str, int]
    """Number of utterances of each split."""
    rejections: Mapping[str, str]
    """Id of each unusable clip, and the reason."""
    new: int
    """Number of clips that this run decoded, prepared or rejected."""
    kept: int = 0
    """Number of clips that an earlier run had prepared or rejected."""
    account: Account = dataclasses.field(default_factory=Account)
    """The files and folders of the corpus: found, used for a clip, or left out, with a line for people."""

    @property
    def utterances(self) -> int:
        """Number of utterances in the manifest."""
        return sum(self.splits.values())

    @property
    def rejected(self) -> int:
        """Number of unusable clips."""
        return len(self.rejections)


def prepare(
    corpus: str,
    src: str | PathLike[str],
    out: str | PathLike[str],
    *,
    held_out: Collection[str] = (),
    language: str | None = None,
    workers: int = 1,
    on_progress: Progress | None = None,
) -> Preparation:
    """Prepare a copy of a corpus. Returns the manifest and counts; `avsr.datasets.manifest` lists all files in `out`.

    corpus: kind of corpus, a key of `CORPORA`.
    src: folder of the copy of the corpus, or a list of speech.
    out: folder for the prepared files. After an interruption its files are whole, and the next run continues.
    held_out: speakers for tests; all of their clips get a test split.
    language: code of the language of the clips, such as "ko", where the corpus does not say it.
    workers: processes. They are spawned, so a calling script needs the usual `if __name__ == "__main__":`.
    on_progress: called after each clip.

    Damaged clips are rejected, not repaired. Raises ConfigError for an unknown corpus, DataError if `src` is not a copy
    of it or if `out` cannot be written.
    """
    out = Path(out)
    _check_apart(Path(src), out)
    account = Account()
    # `out` may lie in the folder of the corpus. The files of an earlier preparation are not clips.
    clips = _with_unique_ids(map(_with_inner_id, _reader(corpus)(Path(src), held_out, account=account, without=out)))
    if not clips:
        raise DataError(f"{src}: no clips found", expected=f"a copy of the corpus outside of {out}")
    _check_ids(clips, src)
    clips = [dataclasses.replace(clip, language=clip.language or language) for clip in clips]
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file", expected="a folder for the prepared data")
    try:
        (out / "records").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written", got=error, remedy=remedy_for(error) or "give another folder"
        ) from error
    with only_writer(out):
        return _prepare(clips, out, workers, on_progress, account)


def _prepare(
    clips: list[SourceClip], out: Path, workers: int, on_progress: Progress | None, account: Account
) -> Preparation:
    """Prepare the clips into a folder that no other process writes to."""
    # Temporary files have random names, so no later run overwrites the ones that a killed run left. Without this they
    # would pile up.
    remove_partial(out)
    clips = [_with_fitting_name(clip, out) for clip in clips]
    usable = [clip for clip in clips if clip.problem is None]
    rejected = [_rejection(clip.id, clip.path, clip.problem) for clip in clips if clip.problem is not None]
    utterances: list[Utterance] = []
    num_new = 0
    with contextlib.closing(_records(usable, out, max(1, workers))) as records:
        for num_done, (record, is_new) in enumerate(records, start=len(rejected) + 1):
            if record["utterance"] is None:
                rejected.append(_rejection(record["id"], record["source"], record["reason"]))
            else:
                utterances.append(parse_utterance(record["utterance"], record["id"]))
            num_new += is_new
            if on_progress is not None:
                on_progress(num_done, len(clips))
    write_json_lines(out / "rejected.jsonl", sorted(rejected, key=lambda row: row["id"]))
    write_manifest(out / "manifest.jsonl", sorted(utterances, key=lambda utterance: utterance.id))
    splits = collections.Counter(utterance.split for utterance in utterances)
    reasons = {row["id"]: row["reason"] for row in rejected}
    return Preparation(
        out / "manifest.jsonl",
        dict(sorted(splits.items())),
        dict(sorted(reasons.items())),
        num_new,
        len(usable) - num_new,
        account,
    )


def prepare_clip(clip: SourceClip, out: Path, finder: FaceFinder) -> Utterance:
    """Write the sound and the lips of one clip below `out`. Raises AvsrError, with the reason, if it is unusable."""
    account = Account()
    info = probe_faces(clip.path, account=account)
    tracks = info.tracks
    samples = read_audio(clip.path, tracks=tracks, account=account) if info.audio is not None else None
    lips = None
    if info.video is not None:
        lips = extract_lips(clip.path, finder=finder, tracks=tracks, account=account)
    # The sound or the lips of a damaged clip may end before its text does.
    losses = account.losses()
    if losses:
        raise MediaError(losses[0])
    # A file of black crops would only take space and time.
    if lips is not None and not lips.present.any():
        lips = None
    if samples is None and lips is None:
        raise MediaError("neither sound nor readable lips")
    if samples is not None:
        save_samples(out / "audio" / f"{clip.id}.wav", samples)
    if lips is not None:
        save_lips(out / "lips" / f"{clip.id}.mp4", lips.crops)
    # A clip without sound lasts as long as its lips.
    duration_s = len(samples) / SAMPLE_RATE_HZ if samples is not None else len(lips.present) * SLOT_S if lips else 0.0
    return Utterance(
        id=clip.id,
        speaker=clip.speaker,
        split=clip.split,
        text=clip.text,
        audio=f"audio/{clip.id}.wav" if samples is not None else None,
        video=f"lips/{clip.id}.mp4" if lips is not None else None,
        duration=round(duration_s, 4),
        fps=1 / SLOT_S if lips is not None else 0.0,
        coverage=round(float(lips.present.mean()), 4) if lips is not None else 0.0,
        sha256=_sha256_of_file(clip.path),
        words=clip.words,
        language=clip.language,
        absent=_absent_runs(lips) if lips is not None else (),
    )


def _check_apart(src: Path, out: Path) -> None:
    """Raise DataError if the corpus lies in the folder of the prepared files, which is no part of a corpus."""
    corpus, prepared = Path(os.path.abspath(src)), Path(os.path.abspath(out))
    if src.exists() and prepared in (corpus, *corpus.parents):
        raise DataError(f"{src}: no clips found", expected=f"a copy of the corpus outside of {out}")


def _with_inner_id(clip: SourceClip) -> SourceClip:
    """The clip, with a problem if its id leads out of a folder: ids become paths."""
    if clip.problem is not None or not leads_out(clip.id):
        return clip
    problem = f"the id leads out of the folder: got {clip.id}, expected speaker/name"
    return dataclasses.replace(clip, problem=problem)


def _with_unique_ids(clips: Iterable[SourceClip]) -> list[SourceClip]:
    """The clips in the order of their ids. An unusable clip gets another id if a clip before it has the same id.

    Otherwise one reason would hide another in the list of rejected clips.
    """
    clips = sorted(clips, key=lambda clip: clip.problem is not None)
    ids = {clip.id for clip in clips if clip.problem is None}
    unique = []
    for clip in clips:
        clip_id = clip.id
        while clip.problem is not None and clip_id in ids:
            clip_id += "~"
        ids.add(clip_id)
        unique.append(dataclasses.replace(clip, id=clip_id))
    return sorted(unique, key=lambda clip: clip.id)


def _with_fitting_name(clip: SourceClip, out: Path) -> SourceClip:
    """The clip, with a problem if the names of its prepared files would be too long for the file system."""
    path = _record_path(clip, out)  # the longest of them
    max_bytes = os.pathconf(out, "PC_NAME_MAX"), os.pathconf(out, "PC_PATH_MAX") - 1
    num_bytes = max(len(os.fsencode(part)) for part in path.parts), len(os.fsencode(path.absolute()))
    for what, got, most in zip(("name", "path"), num_bytes, max_bytes, strict=True):
        if got > most and clip.problem is None:
            problem = f"its {what} would be too long: got {got} bytes with {path.suffix}, expected at most {most}"
            return dataclasses.replace(clip, problem=problem)
    return clip


def _check_ids(clips: Sequence[SourceClip], src: str | PathLike[str]) -> None:
    """Raise DataError if two clips have the same id."""
    ids = collections.Counter(clip.id for clip in clips)
    clip_id, count = ids.most_common(1)[0]
    if count > 1:
        raise DataError(f"{src}: clips have the same id", got=f"{clip_id}, {count} times")


def _reader(corpus: str) -> CorpusReader:
    if corpus in CORPORA:
        return CORPORA[corpus]
    close = nearest(corpus, CORPORA)
    raise ConfigError(
        "unknown corpus", got=corpus, expected=", ".join(CORPORA), remedy=f"did you mean {close}?" if close else None
    )


def _rejection(clip_id: str, source: object, reason: str) -> dict[str, str]:
    return {"id": clip_id, "source": str(source), "reason": reason}


def _records(clips: list[SourceClip], out: Path, workers: int) -> Generator[tuple[dict[str, Any], bool], None, None]:
    """The record of each clip, and whether it is new. Old records come first, new ones in any order."""
    missing = []
    for clip in clips:
        record = _read_record(clip, out)
        if record is None:
            missing.append(clip)
        else:
            yield record, False
    if missing:
        yield from _new_records(missing, out, workers)


def _new_records(
    missing: list[SourceClip], out: Path, workers: int
) -> Generator[tuple[dict[str, Any], bool], None, None]:
    """The records of clips that have none yet. Raises DataError, after all others, for clips that killed a process."""
    killed: list[str] = []
    crew = Crew(workers=min(workers, len(missing)), threads=1, explain=functools.partial(_explain, out), finishes=True)
    outcomes = run(functools.partial(_open_work, out), missing, crew)
    with contextlib.closing(outcomes):
        for index, outcome in outcomes:
            if isinstance(outcome, DataError):
                raise outcome
            if isinstance(outcome, AvsrError):  # its process died: the others go on
                killed.append(f"{missing[index].id} ({outcome.got})")
            else:
                yield outcome, True
    if killed:
        raise DataError(
            f"{out}: a process of the preparation was killed while it worked on {', '.join(killed)}",
            remedy="run it again, with fewer workers if memory was short; it goes on where it stopped",
        )


def _explain(out: Path, error: Exception) -> AvsrError:
    """What stops the whole preparation; a clip that cannot be used is a record and no error."""
    if isinstance(error, OSError):
        return not_written(error.filename or out, error, DataError)
    known = as_avsr_error(error)
    return DataError(known.what, got=known.got, expected=known.expected, remedy=known.remedy)


def _open_work(out: Path) -> Callable[[SourceClip, Report], dict[str, Any]]:
    # One finder a process: making its networks takes 40 ms, and they must stay in one thread.
    finder = FaceFinder()
    return lambda clip, report: _work(clip, out, finder)


def _work(clip: SourceClip, out: Path, finder: FaceFinder) -> dict[str, Any]:
    """Prepare a clip in a worker process and write its record, which is returned."""
    record: dict[str, Any] = {"id": clip.id, "source": str(clip.path), "utterance": None, "reason": None}
    try:
        check_is_file(clip.path)
        record["made_from"] = _made_from(clip)
        record["utterance"] = prepare_clip(clip, out, finder).document()
    except AvsrError as error:
        record["reason"] = str(error)
    content = json.dumps(record)
    # The record comes after the files: where it is, they are whole.
    write_text(_record_path(clip, out), content)
    return json.loads(content)  # lists in place of tuples, like a record that was read


def _read_record(clip: SourceClip, out: Path) -> dict[str, Any] | None:
    """The record of a clip that is ready: made from the same input by this version, with all files; otherwise None."""
    try:
        record = parse_json(read_file(_record_path(clip, out), MAX_LINE_BYTES), "record")
        fits = record["made_from"] == _made_from(clip)
        files = [(record["utterance"] or {}).get(key) for key in ("audio", "video")]
    # A record that is missing, damaged or of another version only means that the clip is prepared again.
    except (AvsrError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if fits and all((out / file).is_file() for file in files if file is not None) else None


def _record_path(clip: SourceClip, out: Path) -> Path:
    return out / "records" / f"{clip.id}.json"


def _made_from(clip: SourceClip) -> str:
    """A hash of everything that the files and the record of a clip depend on."""
    # The text and the split stand in the record, so a new transcript makes a new record.
    label = [PREPARATION_VERSION, clip.id, clip.speaker, clip.split, clip.text, clip.words]
    if clip.language is not None:  # records that were made before there were languages stay valid
        label.append(clip.language)
    return hashlib.sha256((json.dumps(label) + _sha256_of_file(clip.path)).encode()).hexdigest()


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _absent_runs(lips: LipTrack) -> tuple[tuple[int, int, str], ...]:
    """First slot, end slot and reason of each run of slots without lips."""
    runs = []
    edges = [0, *(np.flatnonzero(np.array(lips.reasons[1:]) != np.array(lips.reasons[:-1])) + 1), len(lips.reasons)]
    for first, end in itertools.pairwise(int(edge) for edge in edges):
        if not lips.present[first]:
            runs.append((first, end, lips.reasons[first]))
    return tuple(runs)
