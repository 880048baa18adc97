"""Preparing a corpus: from its files to a manifest with 16 kHz sound and lip crops.

Every clip is prepared by itself, in one of several processes, into files that are written whole and a record of what
they were made from. A clip whose record still fits is not done again, so a preparation that was interrupted, or whose
corpus has grown, goes on where it stopped.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from avsr.datasets.manifest import (
    Utterance,
    parse_utterance,
    save_lips,
    save_samples,
    temporary_path,
    write_json_lines,
    write_manifest,
)
from avsr.errors import AvsrError, ConfigError, DataError, MediaError, nearest
from avsr.features.faces import FaceFinder
from avsr.features.lips import SLOT_S, LipTrack, extract_lips
from avsr.media import SAMPLE_RATE, probe, read_audio

logger = logging.getLogger(__name__)

# Part of every record: raise it when the same source would give other files.
PREPARATION_VERSION = 1

CORPORA = ("grid",)

Progress = Callable[[int, int], None]
"""Called with the number of clips done and of all clips."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceClip:
    """One clip of a corpus as its reader found it. text: None where nobody knows what is said. words: in seconds."""

    id: str
    speaker: str
    split: str
    path: Path
    text: str | None
    words: tuple[tuple[str, float, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What a preparation gave. new: clips done in this run; the others were already there."""

    manifest: Path
    utterances: int
    rejected: int
    new: int


def prepare(
    corpus: str,
    src: str | PathLike[str],
    out: str | PathLike[str],
    *,
    workers: int = 1,
    on_progress: Progress | None = None,
) -> Preparation:
    """Prepare the copy of `corpus` under `src` into the folder `out`; see `avsr.datasets.manifest` for what is there then.

    workers: processes. Interrupting it leaves whole files, and running it again goes on. Processes are spawned: a script
    that calls this needs the usual `if __name__ == "__main__":`.
    Raises ConfigError for an unknown corpus, DataError where `src` is not a copy of it.
    """
    clips = list(_read_corpus(corpus, Path(src)))
    ids = [clip.id for clip in clips]
    if len(set(ids)) < len(ids):
        raise DataError(f"{src}: two clips have the same id", got=next(i for i in ids if ids.count(i) > 1))
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    new = 0
    for record, is_new in _records(clips, out, max(1, workers)):
        records.append(record)
        new += is_new
        if on_progress is not None:
            on_progress(len(records), len(clips))
    records.sort(key=lambda record: record["id"])
    utterances = [parse_utterance(r["utterance"], r["id"]) for r in records if r["utterance"] is not None]
    rejected = [
        {"id": r["id"], "source": r["source"], "reason": r["reason"]} for r in records if r["utterance"] is None
    ]
    write_json_lines(out / "rejected.jsonl", rejected)
    write_manifest(out / "manifest.jsonl", utterances)
    return Preparation(out / "manifest.jsonl", len(utterances), len(rejected), new)


def prepare_clip(clip: SourceClip, out: Path, finder: FaceFinder) -> Utterance:
    """Write sound and lips of one clip under `out`. Raises AvsrError with the reason where the clip is of no use."""
    if clip.text is None:
        raise DataError("what is said is not known", remedy="give it a label")
    info = probe(clip.path)
    samples = None
    if info.audio is not None:
        samples = read_audio(clip.path)
    lips = None
    if info.video is not None:
        lips = extract_lips(clip.path, finder=finder)
        if not lips.present.any():
            lips = None
    if samples is None and lips is None:
        raise MediaError("neither sound nor readable lips")
    if samples is not None:
        save_samples(out / "audio" / f"{clip.id}.wav", samples)
    if lips is not None:
        save_lips(out / "lips" / f"{clip.id}.mp4", lips.crops)
    duration_s = len(samples) / SAMPLE_RATE if samples is not None else len(lips.present) * SLOT_S if lips else 0.0
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
        absent=_absent_runs(lips) if lips is not None else (),
    )


def _read_corpus(corpus: str, src: Path) -> Iterator[SourceClip]:
    match corpus:
        case "grid":
            from avsr.datasets.grid import read_grid

            return read_grid(src)
    close = nearest(corpus, CORPORA)
    raise ConfigError(
        "unknown corpus", got=corpus, expected=", ".join(CORPORA), remedy=f"did you mean {close}?" if close else None
    )


def _records(clips: list[SourceClip], out: Path, workers: int) -> Iterator[tuple[dict[str, Any], bool]]:
    """A record for each clip, in any order, and whether it is new. Clips that have one come first."""
    missing = []
    for clip in clips:
        record = _read_record(clip, out)
        if record is None:
            missing.append(clip)
        else:
            yield record, False
    if not missing:
        return
    # Spawned, because a process that was forked after a face graph ran hangs in its own graphs.
    with concurrent.futures.ProcessPoolExecutor(
        min(workers, len(missing)), mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    ) as pool:
        waiting: set[concurrent.futures.Future[dict[str, Any]]] = set()
        source = iter(missing)
        try:
            while True:
                waiting |= {
                    pool.submit(_work, clip, out) for clip in itertools.islice(source, workers + 2 - len(waiting))
                }
                if not waiting:
                    return
                done, waiting = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    yield future.result(), True
        finally:  # interrupted: each process finishes the clip it is at
            pool.shutdown(wait=True, cancel_futures=True)


_finder: FaceFinder | None = None


def _start_worker() -> None:
    global _finder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    _finder = FaceFinder()


def _work(clip: SourceClip, out: Path) -> dict[str, Any]:
    assert _finder is not None
    record: dict[str, Any] = {
        "id": clip.id,
        "source": str(clip.path),
        "made_from": None,
        "utterance": None,
        "reason": None,
    }
    try:
        record["made_from"] = _made_from(clip)
        record["utterance"] = dataclasses.asdict(prepare_clip(clip, out, _finder))
    except AvsrError as error:
        record["reason"] = str(error)
    except OSError as error:
        if error.filename is None or Path(error.filename) != clip.path:
            raise  # not the clip's fault: a full disk
        record["reason"] = str(error)
    path = _record_path(clip, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    temporary.write_text(json.dumps(record), encoding="utf-8")
    os.replace(temporary, path)
    return json.loads(json.dumps(record))


def _read_record(clip: SourceClip, out: Path) -> dict[str, Any] | None:
    """The record of a clip that needs no work: made from the same input by this version, and its files are there."""
    try:
        record = json.loads(_record_path(clip, out).read_text(encoding="utf-8"))
        if record["made_from"] is None or record["made_from"] != _made_from(clip):
            return None
        utterance = record["utterance"]
        files = (
            [] if utterance is None else [utterance[key] for key in ("audio", "video") if utterance[key] is not None]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if all((out / file).is_file() for file in files) else None


def _record_path(clip: SourceClip, out: Path) -> Path:
    return out / "records" / f"{clip.id}.json"


def _made_from(clip: SourceClip) -> str:
    """Hash of all that decides what is written for a clip."""
    label = [PREPARATION_VERSION, clip.id, clip.speaker, clip.split, clip.text, clip.words]
    return hashlib.sha256((json.dumps(label) + _sha256_of_file(clip.path)).encode()).hexdigest()


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _absent_runs(lips: LipTrack) -> tuple[tuple[int, int, str], ...]:
    """Runs of absent slots with the same reason: (first slot, end slot, reason)."""
    runs = []
    edges = [0, *(np.flatnonzero(np.array(lips.reasons[1:]) != np.array(lips.reasons[:-1])) + 1), len(lips.reasons)]
    for first, end in itertools.pairwise(int(edge) for edge in edges):
        if not lips.present[first]:
            runs.append((first, end, lips.reasons[first]))
    return tuple(runs)
