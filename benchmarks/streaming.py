"""Live sessions compared with one pass over whole clips and with audio only, and the stability of an hour.

    python benchmarks/streaming.py work/grid/manifest.jsonl --split dev --noise work/corpora/noise/noise_test
    python benchmarks/streaming.py work/grid/manifest.jsonl --only equal,soak --clips 10

equal: the largest difference between the log-probabilities of a session, which gets blocks of 20 ms, and of one masked
pass over the same clip; and the number of equal texts. For each chunk size, audio only and audio-visual.
chunks: WER of sessions at each chunk size and of whole recordings, audio only and audio-visual.
loss: WER of sessions that lose lips in many ways, compared with audio-only sessions, in noise. "worse" is the
difference with its 95 % interval over utterances; a case is worse beyond chance if the interval lies above 0. The
noise of a clip is babble of other clips or a recording of the folder, in turns, drawn by (seed, clip).
soak: an hour of simulated stream in one session: growth of memory, and the error of word times at the beginning and at
the end.
sessions: eight sessions at once on one model, each in a thread: whether the texts are right, and the speed of all.

Pictures are lip crops of the prepared corpus; no faces are found. One thread unless --threads gives more.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import avsr
from avsr.arrays import Crops, LogProbs, Samples
from avsr.datasets.manifest import Utterance, load_lips, load_samples, read_manifest
from avsr.decoding.search import Search
from avsr.errors import AvsrError, ConfigError
from avsr.evaluation.statistics import count_errors, paired_test, resampling, word_error_rate
from avsr.grid import SLOT_S, SLOT_SAMPLES
from avsr.noise.library import read_noise_folder
from avsr.noise.mixing import mix
from avsr.processes import map_in_order
from avsr.randomness import generator
from avsr.recognizer import Recognizer
from avsr.streaming import Session

BLOCK = 320  # samples: 20 ms
SNRS_DB = (None, 5.0, 0.0, -5.0)
BABBLE_VOICES = 8
PARTS = ("equal", "chunks", "loss", "soak", "sessions")


class Shown(NamedTuple):
    """A lip crop on its way to a session."""

    arrival_s: float

    time_s: float
    """Its time stamp."""

    crop: Crops | None
    """None for a picture without a face."""


Pattern = Callable[[Crops, np.random.Generator], Iterator[Shown]]


def as_filmed(crops: Crops) -> list[Shown]:
    return [Shown(SLOT_S * k, SLOT_S * k, crop) for k, crop in enumerate(crops)]


def without(is_lost: Callable[[float, np.random.Generator], bool]) -> Pattern:
    """A pattern that loses a picture if `is_lost` is true for its time."""

    def pattern(crops: Crops, random: np.random.Generator) -> Iterator[Shown]:
        for shown in as_filmed(crops):
            if not is_lost(shown.time_s, random):
                yield shown

    return pattern


def changed(change: Callable[[Shown, Crops, np.random.Generator], Shown]) -> Pattern:
    def pattern(crops: Crops, random: np.random.Generator) -> Iterator[Shown]:
        for shown in as_filmed(crops):
            yield change(shown, crops, random)

    return pattern


def frozen(shown: Shown, crops: Crops, random: np.random.Generator) -> Shown:
    return shown if shown.time_s < 1.0 else shown._replace(crop=crops[25])


def black(shown: Shown, crops: Crops, random: np.random.Generator) -> Shown:
    return shown if shown.time_s < 1.0 else shown._replace(crop=np.zeros_like(crops[0]))


def faceless(shown: Shown, crops: Crops, random: np.random.Generator) -> Shown:
    return shown._replace(crop=None) if 1.0 <= shown.time_s < 2.0 else shown


def jittered(shown: Shown, crops: Crops, random: np.random.Generator) -> Shown:
    return shown._replace(arrival_s=shown.arrival_s + float(random.exponential(0.06)))


PATTERNS: dict[str, Pattern] = {
    "intact": without(lambda time_s, random: False),
    "never": without(lambda time_s, random: True),
    "first second lost": without(lambda time_s, random: time_s < 1.0),
    "middle second lost": without(lambda time_s, random: 1.0 <= time_s < 2.0),
    "last second lost": without(lambda time_s, random: time_s >= 2.0),
    "lost every other half second": without(lambda time_s, random: time_s % 1.0 >= 0.5),
    "every second picture lost": without(lambda time_s, random: round(time_s / SLOT_S) % 2 == 1),
    "30 % of pictures lost": without(lambda time_s, random: bool(random.random() < 0.3)),
    "70 % of pictures lost": without(lambda time_s, random: bool(random.random() < 0.7)),
    "arriving 200 ms late": changed(lambda shown, *_: shown._replace(arrival_s=shown.arrival_s + 0.2)),
    "arriving 600 ms late": changed(lambda shown, *_: shown._replace(arrival_s=shown.arrival_s + 0.6)),
    "arriving in any order": changed(jittered),
    "clock 40 ms ahead": changed(lambda shown, *_: shown._replace(time_s=shown.time_s + 0.04)),
    "clock 80 ms behind": changed(lambda shown, *_: shown._replace(time_s=shown.time_s - 0.08)),
    "frozen after a second": changed(frozen),
    "black after a second": changed(black),
    "no face for a second": changed(faceless),
}


def listen(session: Session, samples: Samples, pictures: Sequence[Shown] = ()) -> str:
    """The text of a session that gets the sound in blocks of 20 ms, and each picture at its arrival."""
    waiting = sorted(pictures, key=lambda shown: shown.arrival_s)
    events, next_picture = [], 0
    for start in range(0, len(samples), BLOCK):
        while next_picture < len(waiting) and waiting[next_picture].arrival_s <= start / 16_000 + 1e-6:
            events += session.push_video(waiting[next_picture].crop, waiting[next_picture].time_s)
            next_picture += 1
        events += session.push_audio(samples[start : start + BLOCK], start / 16_000)
    for shown in waiting[next_picture:]:
        events += session.push_video(shown.crop, shown.time_s)
    events += session.finish()
    counters = events[-1].counters or {}
    fates = sum(counters[fate] for fate in ("used", "late", "absent", "duplicate", "pending"))
    assert counters["pictures"] == fates == len(waiting), counters
    return " ".join(event.text for event in events if event.event == "final")


class Clip(NamedTuple):
    utterance: Utterance
    samples: Samples
    crops: Crops  # an absent slot is a crop of zeros


def load(manifest: Path, split: str, count: int | None) -> list[Clip]:
    chosen = [u for u in read_manifest(manifest) if u.split == split and u.audio and u.video]
    if count is not None and count < len(chosen):
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, count).astype(int)]
    if not chosen:
        sys.exit(f"{manifest}: no utterance of split {split!r} with sound and lips")
    root = manifest.parent
    return [Clip(u, load_samples(u, root), load_lips(u, root)[0]) for u in chosen]


def equal(recognizer: Recognizer, clips: Sequence[Clip]) -> None:
    for chunk_ms in recognizer.card.chunks_ms:
        for video in (False, True):
            worst, same = 0.0, 0
            for clip in clips:
                parts: list[LogProbs] = []
                session = recognizer.stream(
                    chunk_ms=chunk_ms, video=video, origin_s=0.0, force=True, on_log_probs=parts.append
                )
                text = listen(session, clip.samples, as_filmed(clip.crops) if video else ())
                crops = [clip.crops] if video else None
                whole_TV = recognizer.log_probs([clip.samples], crops, chunk_ms=chunk_ms)[0]
                worst = max(worst, float(np.abs(np.concatenate(parts) - whole_TV).max()))
                same += text == text_of(recognizer, whole_TV)
            modality = "av" if video else "a"
            print(f"equal: {chunk_ms} ms, {modality}: largest difference {worst:.1e}, texts {same} of {len(clips)}")


def text_of(recognizer: Recognizer, log_probs_TV: LogProbs) -> str:
    """The text that greedy search finds. Raises ConfigError for a model that has no log-probabilities."""
    if recognizer.model.frames is None:
        raise ConfigError(f"model {recognizer.name} gives words alone", remedy="use a model with log-probabilities")
    search = recognizer.model.frames.frame_search(Search())
    return " ".join(word.word for word in search.words(search.step(log_probs_TV, search.initial_state())))


def chunks(recognizer: Recognizer, clips: Sequence[Clip]) -> None:
    references = [clip.utterance.text for clip in clips]
    for video in (False, True):
        modality = "av" if video else "a"
        offline = []
        for clip in clips:
            whole_TV = recognizer.log_probs([clip.samples], [clip.crops] if video else None)[0]
            offline.append(text_of(recognizer, whole_TV))
        print(f"chunks: {modality}, whole recordings: WER {word_error_rate(references, offline)}")
        for chunk_ms in recognizer.card.chunks_ms:
            texts = [
                listen(
                    recognizer.stream(chunk_ms=chunk_ms, video=video, origin_s=0.0, force=True),
                    clip.samples,
                    as_filmed(clip.crops) if video else (),
                )
                for clip in clips
            ]
            print(f"chunks: {modality}, {chunk_ms} ms: WER {word_error_rate(references, texts)}")


class LossTask(NamedTuple):
    model: str
    clip: int
    snr_db: float | None
    seed: int


class LossWork:
    """Texts of one clip in one noise: by name of the pattern, and audio only as "sound"."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.set_num_threads(1)
        self.recognizer = avsr.load(arguments.model)
        self.clips = load(arguments.manifest, arguments.split, arguments.clips)
        self.noise = list(read_noise_folder(arguments.noise).values())
        self.chunk_ms = arguments.chunk_ms

    def __call__(self, task: LossTask) -> dict[str, str]:
        clip = self.clips[task.clip]
        samples = self._in_noise(clip, task)
        texts: dict[str, str] = {}
        heard: list[LogProbs] = []
        session = self.recognizer.stream(chunk_ms=self.chunk_ms, video=False, origin_s=0.0, on_log_probs=heard.append)
        texts["sound"] = listen(session, samples)
        for name, pattern in PATTERNS.items():
            random = generator(task.seed, clip.utterance.id, name)
            parts: list[LogProbs] = []
            session = self.recognizer.stream(chunk_ms=self.chunk_ms, origin_s=0.0, on_log_probs=parts.append)
            texts[name] = listen(session, samples, list(pattern(clip.crops, random)))
            if name == "never":
                assert np.array_equal(np.concatenate(parts), np.concatenate(heard)), (
                    "without pictures it is not the sound alone"
                )
        return texts

    def _in_noise(self, clip: Clip, task: LossTask) -> Samples:
        if task.snr_db is None:
            return clip.samples
        random = generator(task.seed, clip.utterance.id, "noise")
        count = len(clip.samples)
        if task.clip % 2:
            others = [c.samples for c in self.clips if c.utterance.id != clip.utterance.id]
            chosen = random.permutation(len(others))[:BABBLE_VOICES]
            noise = np.sum([np.resize(np.roll(others[i], int(random.integers(count))), count) for i in chosen], axis=0)
        else:
            recording = self.noise[int(random.integers(len(self.noise)))]
            noise = np.resize(np.roll(recording, int(random.integers(len(recording)))), count)
        return mix(clip.samples, noise.astype(np.float32), task.snr_db).samples.astype(np.float32)


def loss(arguments: argparse.Namespace, clips: Sequence[Clip]) -> None:
    tasks = [
        LossTask(arguments.model, clip, snr_db, seed)
        for snr_db in SNRS_DB
        for seed in (arguments.seeds if snr_db is not None else arguments.seeds[:1])
        for clip in range(len(clips))
    ]
    results = list(map_in_order(functools.partial(LossWork, arguments), tasks, arguments.workers))
    weights = resampling(len(clips))
    words = np.array([count_errors(clip.utterance.text, "").words for clip in clips], float)
    worse_beyond_chance = 0
    for snr_db in SNRS_DB:
        here = [(task, texts) for task, texts in zip(tasks, results, strict=True) if task.snr_db == snr_db]
        seeds = len({task.seed for task, _ in here})

        def errors(name: str) -> NDArray[np.float64]:
            sums = np.zeros(len(clips))
            for task, texts in here:  # noqa: B023
                sums[task.clip] += count_errors(clips[task.clip].utterance.text, texts[name]).errors / seeds  # noqa: B023
            return sums

        sound = errors("sound")
        level = "clean" if snr_db is None else f"{snr_db:g} dB"
        print(f"loss: {level}, {arguments.chunk_ms} ms, {len(clips)} clips, {seeds} seeds: sound alone")
        print(f"loss:   WER {100 * sound.sum() / words.sum():.2f}")
        for name in PATTERNS:
            both = errors(name)
            test = paired_test(sound[None], both[None], words, weights)
            low, high = float(test.low[0]), float(test.high[0])
            difference = 100 * (both.sum() - sound.sum()) / words.sum()
            mark = "  WORSE" if low > 0 else ""
            worse_beyond_chance += low > 0
            print(
                f"loss:   {name:30} WER {100 * both.sum() / words.sum():6.2f}"
                f"  worse by {difference:+6.2f} [{low:+.2f}, {high:+.2f}]{mark}"
            )
    print(f"loss: worse than the sound alone beyond chance: {worse_beyond_chance} of {len(PATTERNS) * len(SNRS_DB)}")


def soak(recognizer: Recognizer, clips: Sequence[Clip], seconds: float, chunk_ms: int) -> None:
    session = recognizer.stream(chunk_ms=chunk_ms, origin_s=0.0)
    started, memory_mib, after_minute, finals = time.monotonic(), 0.0, None, []
    stream_s, index = 0.0, 0
    while stream_s < seconds:
        clip = clips[index % len(clips)]
        slots = len(clip.crops)
        samples = np.zeros(slots * SLOT_SAMPLES, np.float32)
        samples[: min(len(clip.samples), len(samples))] = clip.samples[: len(samples)]
        for slot in range(slots):
            events = session.push_video(clip.crops[slot], stream_s + SLOT_S * slot)
            events += session.push_audio(
                samples[SLOT_SAMPLES * slot : SLOT_SAMPLES * (slot + 1)], stream_s + SLOT_S * slot
            )
            finals += [(event.end, event.text, index, stream_s) for event in events if event.event == "final"]
        stream_s += SLOT_S * slots
        index += 1
        if index % 10 == 0 or after_minute is None:
            memory_mib = resident_mib()
            if after_minute is None and stream_s >= 60:
                after_minute = memory_mib
    counters = session.finish()[-1].counters or {}
    fates = sum(counters[fate] for fate in ("used", "late", "absent", "duplicate", "pending"))
    wall_s = time.monotonic() - started
    # The error of a final is the distance of its end from the corpus's end of the last word of its clip.
    errors_ms = []
    for end_s, text, number, begun_s in finals:
        for back in (0, 1):  # the final came during its own clip, or during the next one
            if number - back < 0:
                continue
            utterance = clips[(number - back) % len(clips)].utterance
            offset_s = begun_s - (0 if back == 0 else SLOT_S * len(clips[(number - back) % len(clips)].crops))
            if text == utterance.text:
                errors_ms.append((end_s, 1000 * (end_s - offset_s - utterance.words[-1][2])))
                break
    early = [error for end_s, error in errors_ms if end_s < seconds / 4]
    late = [error for end_s, error in errors_ms if end_s > 3 * seconds / 4]
    print(
        f"soak: {stream_s:.0f} s of stream in {wall_s:.0f} s: {memory_mib - (after_minute or memory_mib):+.1f} MiB"
        f" after the first minute, {len(finals)} finals, {len(errors_ms)} of them word for word a clip's;"
        f" these end {np.median(early):+.0f} ms from the corpus's word times in the first quarter of the stream, and"
        f" {np.median(late):+.0f} ms in the last"
    )
    print(f"soak: {counters}, add up: {fates == counters['pictures']}")


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def sessions(recognizer: Recognizer, clips: Sequence[Clip], chunk_ms: int, count: int = 8) -> None:
    used = clips[: min(10, len(clips))]

    def texts() -> list[str]:
        return [
            listen(recognizer.stream(chunk_ms=chunk_ms, origin_s=0.0), clip.samples, as_filmed(clip.crops))
            for clip in used
        ]

    alone = texts()
    together: dict[int, list[str]] = {}

    def work(number: int) -> None:
        together[number] = texts()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_s = time.monotonic() - started
    media_s = count * sum(len(clip.samples) for clip in used) / 16_000
    right = sum(together.get(number) == alone for number in range(count))
    print(f"sessions: {right} of {count} gave the texts of one alone; together {media_s / wall_s:.1f} times real time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--clips", type=int, help="number of clips, evenly spread; default all")
    parser.add_argument("--model", default="grid-tiny")
    parser.add_argument("--noise", type=Path, help="folder of recordings, for loss")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, joined by commas")
    parser.add_argument("--chunk-ms", type=int, default=320, help="for loss, soak and sessions")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[1, 2, 3])
    parser.add_argument("--seconds", type=float, default=3600.0, help="of soak")
    parser.add_argument("--workers", type=int, default=2, help="processes, for loss; 0: none but this one")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    if not set(parts) <= set(PARTS):
        sys.exit(f"--only: got {arguments.only}, expected some of {', '.join(PARTS)}")
    if "loss" in parts and arguments.noise is None:
        sys.exit("loss needs --noise FOLDER; or leave it out with --only equal,chunks,soak,sessions")
    torch.set_num_threads(arguments.threads)
    clips = load(arguments.manifest, arguments.split, arguments.clips)
    recognizer = avsr.load(arguments.model)
    print(f"{recognizer.name}, {len(clips)} clips of {arguments.split}, {arguments.threads} threads")
    if "equal" in parts:
        equal(recognizer, clips)
    if "chunks" in parts:
        chunks(recognizer, clips)
    if "sessions" in parts:
        sessions(recognizer, clips, arguments.chunk_ms)
    if "loss" in parts:
        loss(arguments, clips)
    if "soak" in parts:
        soak(recognizer, clips, arguments.seconds, arguments.chunk_ms)


if __name__ == "__main__":
    try:
        main()
    except AvsrError as error:
        sys.exit(f"streaming.py: {error}")
