"""A stand-in for `avsr.load` whose transcripts follow from the files: it needs no model, and misbehaves when asked to.

A file's transcript is its content, one word a second. Its name can ask for more: `bad` raises MediaError, `bug` raises
RuntimeError, `interrupted` raises KeyboardInterrupt, `slow` takes a while, `forever` never ends, `killed` kills its
process, `search` has the settings of the search for words.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from avsr import MediaError, ModelError, Search, Segment, Transcript, Word
from avsr.media import Tracks


class FakeRecognizer:
    def transcribe(
        self,
        path: str,
        *,
        modality: str,
        face: str,
        search: Search,
        tracks: Tracks,
        force: bool,
        min_confidence: float,
        max_hours: float,
        on_progress: Callable[[float], None] | None,
    ) -> Transcript:
        name = Path(path).name
        if "bad" in name:
            raise MediaError(f"{path}: cannot be opened as media", got="text", expected="a video", remedy="convert it")
        if "bug" in name:
            raise RuntimeError("two and two is five")
        if "interrupted" in name:
            raise KeyboardInterrupt
        if "killed" in name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "slow" in name:
            time.sleep(0.5)
        if "forever" in name:
            Path(path).with_suffix(".started").touch()
            time.sleep(600)
        texts = Path(path).read_text(encoding="utf-8").split()
        if "search" in name:
            texts = [f"{field}={value}" for field, value in search._asdict().items()]
        if on_progress is not None:
            for number in range(len(texts)):
                on_progress(number + 1.0)
        words = tuple(
            Word(word=text, start=float(second), end=second + 0.5, confidence=0.9, modality="a")
            for second, text in enumerate(texts)
        )
        return Transcript(
            source=path,
            duration=float(len(texts)),
            model=f"fake in process {os.getpid()}",
            modality="a",
            segments=(Segment(words=words),) if words else (),
            warnings=("the sound is faint",) if "faint" in name else (),
        )


def load(name: str, *, device: str, dtype: object) -> FakeRecognizer:
    """Takes the place of avsr.load."""
    if name == "missing":
        raise ModelError("no such model", got="missing", expected="grid-tiny")
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return FakeRecognizer()
