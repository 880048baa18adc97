"""The latency of a live session: from the end of a word to its caption, and the share of each step.

Time is simulated, so that a clip takes no longer than its computing. Sound arrives in blocks of 20 ms, each when its
last sample was spoken. A lip crop arrives when it was found. The session works on one arrival after the other; the time
of this work is measured and added to the simulated clock. The result is the latency of this machine in real time if
sound and faces each have a core of their own and nothing else runs.

A word is emitted by the first partial or final that has it at the place at which the final has it. It is committed by
the first one after which it cannot change. The end of a word is
the corpus's word time if the manifest has word times and the word is right, else the end that the final itself gives.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsr.datasets.manifest import Utterance, load_lips, load_samples
from avsr.evaluation.statistics import aligned_words
from avsr.grid import SAMPLE_RATE_HZ, SLOT_S
from avsr.lips.choice import face_choice
from avsr.lips.slots import LipSlot
from avsr.lips.tracker import LipTracker
from avsr.media import iter_frames, probe, read_audio
from avsr.streaming.events import Event, Step
from avsr.streaming.source import LivePicture, blocks, in_order
from avsr.transcript import Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from avsr.recognizer import Recognizer

PERCENTILES = (50, 90, 99)
BIN_MS = 40


class TimedWord(NamedTuple):
    """A word of the reference."""

    word: str
    start: float
    """Media seconds."""
    end: float
    """Media seconds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveClip:
    """The input of a session."""

    samples: NDArray[np.float32]
    pictures: tuple[LivePicture, ...] | None = None
    """Lip crops with the times of their arrival; None for sound alone."""
    words: tuple[TimedWord, ...] | None = None
    """The reference; None if it is not known."""
    finding_s: float | None = None
    """Time it took to find the lips; None if the corpus has them."""
    finding_cpu_s: float = 0.0
    """CPU time of finding the lips, decoding of the video included."""

    @property
    def seconds(self) -> float:
        """Duration of the sound."""
        return len(self.samples) / SAMPLE_RATE_HZ


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """The latencies of all clips at one chunk size."""

    model: str
    """Its name."""
    chunk_ms: int
    look_ahead_ms: int
    modality: str
    """Modality: "av" if any clip has lips and the model uses them, else "a"."""
    algorithm_ms: float
    """`Session.latency_ms`: the latency if computing took no time."""
    compute_ms: tuple[float, ...]
    """Time of each step of the network, decoding included."""
    word_ms: tuple[float, ...]
    """From the end of each word to its emission."""
    commit_ms: tuple[float, ...]
    """From the end of each word to the moment after which it cannot change."""
    last_word_ms: tuple[float, ...]
    """`word_ms` of the last words of utterances.

    The percentiles of these are the PR50 and PR90 of the literature (partial recognition latency).
    """
    first_partial_ms: tuple[float, ...]
    """From the beginning of the first word to the first partial."""
    final_ms: tuple[float, ...]
    """From the end of the last word to the final, for finals that follow a pause."""
    words: int
    """Words of all finals."""
    changed: int
    """Words of partials that a later partial took back."""
    steps_skipped: int
    """Updates that were left out, because the work was behind the sound."""
    media_s: float
    """Duration of all clips."""
    busy_s: float
    """Time of recognition."""
    cpu_s: float
    """CPU time of recognition."""
    finding_s: float | None
    """Time of finding the lips; None if the corpus has them."""
    finding_cpu_s: float
    """CPU time of finding the lips."""

    @property
    def real_time_factor(self) -> float:
        """Time of recognition by duration."""
        return self.busy_s / self.media_s

    @property
    def with_faces(self) -> float | None:
        """Time of recognition and of finding the lips together, by duration."""
        return None if self.finding_s is None else (self.busy_s + self.finding_s) / self.media_s

    @property
    def cpu_share(self) -> float:
        """The share of one core that a stream in real time uses."""
        return (self.cpu_s + self.finding_cpu_s) / self.media_s

    def document(self) -> dict[str, Any]:
        """The figures as JSON."""
        return {
            "chunk_ms": self.chunk_ms,
            "look_ahead_ms": self.look_ahead_ms,
            "modality": self.modality,
            "algorithm_ms": round(self.algorithm_ms, 1),
            **{
                name: {f"p{p}": value for p, value in percentiles(getattr(self, name)).items()}
                | {"count": len(getattr(self, name))}
                for name in ("compute_ms", "word_ms", "commit_ms", "last_word_ms", "first_partial_ms", "final_ms")
            },
            "words": self.words,
            "changed": self.changed,
            "steps_skipped": self.steps_skipped,
            "media_s": round(self.media_s, 3),
            "real_time_factor": round(self.real_time_factor, 4),
            "real_time_factor_with_faces": None if self.with_faces is None else round(self.with_faces, 4),
            "cpu_share": round(self.cpu_share, 4),
        }


def percentiles(values: Sequence[float]) -> dict[int, float | None]:
    """The median, the 90th and the 99th percentile; None for each without values."""
    return {p: round(float(np.percentile(values, p)), 1) if len(values) else None for p in PERCENTILES}


def clip_of_file(path: str | PathLike[str], *, lips: bool, face: str = "auto") -> LiveClip:
    """A whole file, with its lips, each when face finding in real time finds it.

    lips: find lips, if the file has video.
    face: which face to choose.
    """
    samples = read_audio(path)
    if not lips or probe(path).video is None:
        return LiveClip(samples=samples)
    started_cpu_s = time.process_time()
    pictures: list[LivePicture] = []
    now_s = total_s = 0.0
    choice = face_choice(face)
    last_s, step_s = 0.0, SLOT_S

    def found(slots: Iterable[LipSlot]) -> None:
        pictures.extend(LivePicture(now_s, SLOT_S * slot.index, slot.crop if slot.present else None) for slot in slots)

    with LipTracker() as tracker:
        for frame in iter_frames(path):
            started_s = time.perf_counter()
            lips_of_slots = [lips for slot in tracker.push(frame) for lips in choice.push(slot)]
            taken_s = time.perf_counter() - started_s
            total_s += taken_s
            # A picture waits until the picture before it is done, as in a thread of its own.
            now_s = max(now_s, frame.time_s) + taken_s
            found(lips_of_slots)
            # The same bounds as in `LipBuffer`: the last picture lasts as long as the one before it, at most 0.2 s.
            last_s, step_s = frame.time_s, min(max(frame.time_s - last_s, 0.001), 0.2)
        found([*(lips for slot in tracker.finish(last_s + step_s) for lips in choice.push(slot)), *choice.finish()])
    cpu_s = time.process_time() - started_cpu_s  # with the decoding of the video
    return LiveClip(samples=samples, pictures=tuple(pictures), finding_s=total_s, finding_cpu_s=cpu_s)


def clip_of_utterance(utterance: Utterance, root: Path, *, lips: bool) -> LiveClip:
    """A clip of a prepared corpus. Each lip crop arrives when the next slot begins, as crops from video do.

    lips: use the lips, if the clip has any.
    """
    crops, present = load_lips(utterance, root)
    pictures = None
    if lips and len(crops):
        shown = enumerate(zip(crops, present, strict=True))
        pictures = tuple(
            LivePicture(SLOT_S * (k + 1), SLOT_S * k, crop if there else None) for k, (crop, there) in shown
        )
    words = tuple(TimedWord(*word) for word in utterance.words) or None
    return LiveClip(samples=load_samples(utterance, root), pictures=pictures, words=words)


def measure(
    recognizer: Recognizer, clips: Iterable[LiveClip], *, chunk_ms: int, look_ahead_ms: int = 0, **options: Any
) -> Latency:
    """The latencies of clips, each in a session of its own.

    chunk_ms, look_ahead_ms: of the session.
    options: further options of `Session`.
    Raises the errors of `Recognizer.stream`.
    """
    compute_ms: list[float] = []
    emissions = _Emissions()
    media_s = busy_s = cpu_s = finding_s = finding_cpu_s = algorithm_ms = 0.0
    steps_skipped = 0
    finds = reads = False

    def on_chunk(step: Step) -> None:
        compute_ms.append(step.compute_ms)

    for clip in clips:
        session = recognizer.stream(
            chunk_ms=chunk_ms,
            look_ahead_ms=look_ahead_ms,
            video=clip.pictures is not None,
            # Word times of the reference are media seconds, so the stream begins at 0.
            origin_s=0.0,
            on_chunk=on_chunk,
            force=True,  # the latency of all words is measured, whatever is said
            **options,
        )
        algorithm_ms = session.latency_ms
        reads = reads or session.video
        emissions.begin(clip)
        now_s = 0.0
        used_s = time.process_time()
        for item in in_order(blocks([clip.samples]), clip.pictures or ()):
            started_s = time.perf_counter()
            if isinstance(item, LivePicture):
                events = session.push_video(item.rgb, item.time_s)
            else:
                waiting_s = max(0.0, min(now_s, clip.seconds) - item.arrival_s)
                events = session.push_audio(item.samples, item.time_s, waiting_s=waiting_s)
            taken_s = time.perf_counter() - started_s
            busy_s += taken_s
            now_s = max(now_s, item.arrival_s) + taken_s
            emissions.add(events, now_s)
        started_s = time.perf_counter()
        events = session.finish()
        taken_s = time.perf_counter() - started_s
        busy_s += taken_s
        # A stream is known to end when its last sample has been spoken, not before.
        emissions.add(events, max(now_s, clip.seconds) + taken_s)
        emissions.end()
        steps_skipped += session.counters["steps_skipped"]
        cpu_s += time.process_time() - used_s
        media_s += clip.seconds
        finds = finds or clip.finding_s is not None
        finding_s, finding_cpu_s = finding_s + (clip.finding_s or 0.0), finding_cpu_s + clip.finding_cpu_s
    return Latency(
        model=recognizer.name,
        chunk_ms=chunk_ms,
        look_ahead_ms=look_ahead_ms,
        modality="av" if reads else "a",
        algorithm_ms=algorithm_ms,
        compute_ms=tuple(compute_ms),
        word_ms=tuple(emissions.word_ms),
        commit_ms=tuple(emissions.commit_ms),
        last_word_ms=tuple(emissions.last_word_ms),
        first_partial_ms=tuple(emissions.first_partial_ms),
        final_ms=tuple(emissions.final_ms),
        words=emissions.words,
        changed=emissions.changed,
        steps_skipped=steps_skipped,
        media_s=max(media_s, 1e-9),
        busy_s=busy_s,
        cpu_s=cpu_s,
        finding_s=finding_s if finds else None,
        finding_cpu_s=finding_cpu_s,
    )


class _Final(NamedTuple):
    words: tuple[Word, ...]
    emissions_s: tuple[float, ...]  # when each word was emitted
    commits_s: tuple[float, ...]  # when each word was committed
    emitted_s: float
    reason: str


class _Emissions:
    """Collects the words of one clip after the other, with the times at which they were emitted."""

    def __init__(self) -> None:
        self.word_ms: list[float] = []
        self.commit_ms: list[float] = []
        self.last_word_ms: list[float] = []
        self.first_partial_ms: list[float] = []
        self.final_ms: list[float] = []
        self.words = self.changed = 0

    def begin(self, clip: LiveClip) -> None:
        """Start a clip."""
        self._clip = clip
        self._finals: list[_Final] = []
        # Words, committed words and time of each event since the last final.
        self._shown: list[tuple[tuple[str, ...], int, float]] = []
        self._first: tuple[float, float] | None = None  # beginning of the first word, time of the first partial

    def add(self, events: Iterable[Event], now_s: float) -> None:
        """Add the events that a session returned at simulated time `now_s`."""
        for event in events:
            if event.event not in ("partial", "final"):
                continue
            self.changed += event.changed
            committed = len(event.words) if event.event == "final" else event.committed
            self._shown.append((tuple(word.word for word in event.words), committed, now_s))
            if self._first is None and event.words:
                self._first = (event.start, now_s)
            if event.event == "final":
                emissions_s = tuple(self._first_with(place, word.word) for place, word in enumerate(event.words))
                commits_s = tuple(self._first_committed(place) for place in range(len(event.words)))
                self._finals.append(_Final(event.words, emissions_s, commits_s, now_s, event.reason))
                self._shown = []

    def end(self) -> None:
        """Add the latencies of the clip to the lists."""
        ends_s = self._ends_s()
        reference = self._clip.words
        if self._first is not None:
            self.first_partial_ms.append(
                1000 * (self._first[1] - (reference[0].start if reference else self._first[0]))
            )
        place = 0
        for number, final in enumerate(self._finals):
            self.words += len(final.words)
            known_s = ends_s[place : place + len(final.words)]
            place += len(final.words)
            for end_s, emission_s, commit_s in zip(known_s, final.emissions_s, final.commits_s, strict=True):
                if end_s is not None:
                    self.word_ms.append(1000 * (emission_s - end_s))
                    self.commit_ms.append(1000 * (commit_s - end_s))
            last_s = known_s[-1]
            if last_s is None or (reference and number < len(self._finals) - 1):
                continue  # an utterance of the corpus has one last word, even if pauses cut it into several finals
            self.last_word_ms.append(1000 * (final.emissions_s[-1] - last_s))
            if final.reason == "pause":  # the end of a clip forces a final, with no latency of its own
                self.final_ms.append(1000 * (final.emitted_s - last_s))

    def _first_with(self, place: int, word: str) -> float:
        return next(now_s for words, _, now_s in self._shown if len(words) > place and words[place] == word)

    def _first_committed(self, place: int) -> float:
        return next(now_s for _, committed, now_s in self._shown if committed > place)

    def _ends_s(self) -> list[float | None]:
        """The end of each word of the finals; None for a word that is not in the reference."""
        words = [word for final in self._finals for word in final.words]
        if self._clip.words is None:
            return [word.end for word in words]
        reference = iter(self._clip.words)
        ends_s: list[float | None] = []
        for spoken, written in aligned_words(
            " ".join(word.word for word in self._clip.words), " ".join(word.word for word in words)
        ):
            timed = next(reference) if spoken else None
            if written:
                ends_s.append(timed.end if timed is not None and spoken == written else None)
        return ends_s


def latency_figure(results: Sequence[Latency]) -> Figure:
    """A histogram of word latencies for each chunk size, with their percentiles."""
    from matplotlib.figure import Figure

    shown = [result for result in results if result.word_ms] or list(results)
    figure = Figure(figsize=(7.0, 1.15 * len(shown) + 1.1), layout="constrained")
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False).ravel()
    everything = [value for result in shown for value in result.word_ms] or [0.0]
    low = min(0.0, float(np.floor(np.percentile(everything, 0.5) / BIN_MS)) * BIN_MS)
    edges = np.arange(low, float(np.percentile(everything, 99.5)) + 2 * BIN_MS, BIN_MS)
    for panel, result in zip(panels, shown, strict=True):
        values = np.clip(result.word_ms, edges[0], edges[-1] - 1e-6)  # the last bar holds the few values beyond it
        counts, _ = np.histogram(values, edges)
        panel.bar(edges[:-1], counts / max(1, len(values)), BIN_MS, align="edge", color="#8fb4e3", linewidth=0)
        panel.axvline(0, color="#333333", lw=0.8)
        texts = []
        for (p, value), style in zip(_shown_percentiles(result), ("-", "--", ":"), strict=False):
            panel.axvline(min(value, edges[-1]), color="#c2571a", ls=style, lw=1.4, label=f"p{p}")
            texts.append(f"p{p} {value:.0f}")
        panel.set_title("   ".join(texts), loc="right", fontsize=8, color="#8f3d0e", pad=2)
        ahead = f" + {result.look_ahead_ms}" if result.look_ahead_ms else ""
        panel.set_ylabel(f"{result.chunk_ms}{ahead} ms", rotation=0, ha="right", va="center", fontsize=9)
        panel.set_yticks([])
        panel.grid(axis="x", alpha=0.25)
        panel.tick_params(axis="x", labelsize=8)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
    panels[-1].set_xlabel("from the end of a word to the moment it is shown, ms", fontsize=9)
    panels[-1].set_xlim(edges[0], edges[-1])
    lines = panels[0].get_legend_handles_labels()
    panels[0].legend(*lines, loc="upper right", fontsize=7.5, frameon=False, ncols=3)
    figure.suptitle(f"Latency of words by chunk size: {_what(shown)}", fontsize=10)
    return figure


def _shown_percentiles(result: Latency) -> Iterator[tuple[int, float]]:
    for p, value in percentiles(result.word_ms).items():
        if value is not None:
            yield p, value


def _what(results: Sequence[Latency]) -> str:
    modality = "sound and lips" if results[0].modality == "av" else "sound"
    return f"{modality}, {max(len(result.word_ms) for result in results)} words"
