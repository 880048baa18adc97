"""Accuracy of the choice of the speaking face, and of the estimated offset between sound and lips, on prepared clips.

    python benchmarks/speaker.py work/grid/manifest.jsonl --split dev
    python benchmarks/speaker.py work/grid/manifest.jsonl --split test_unseen --videos work/corpora/grid/video
    python benchmarks/speaker.py --files one.mp4 another.mp4 third.mp4

Choice: two faces are put side by side, with the sound of one of them, the speaking face. The other is at rest (a still
picture, or the part of its clip before the first word, repeated) or speaks a sentence of its own without sound.
`SpeakingFace` chooses slot by slot as in `avsr transcribe`. The silent face is larger, so that it is chosen without
evidence. Shares are of the slots inside the words of the sound; intervals are 95 %, by a bootstrap over clips (seed 1).
With --videos the videos of the clips are put side by side and faces are found in them; else the prepared lip crops are
used.

Offsets: the sound is moved by -200 to 200 ms, and the end filled with silence. The correlation of mouth motion with
loudness, which needs no trained head, is measured for comparison.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import avsr
from avsr.datasets.manifest import Utterance, load_lips, load_samples, read_manifest
from avsr.grid import SLOT_S, SLOT_SAMPLES
from avsr.lips.faces import Face, FaceFinder
from avsr.lips.slots import LipSlot, Slot
from avsr.lips.tracker import LipTracker, extract_lips
from avsr.media import VideoFrame, iter_frames, read_audio
from avsr.randomness import generator
from avsr.speakers.offset import estimate_offset, lag_evidence
from avsr.speakers.speaking_face import SpeakingFace
from avsr.speakers.synchrony import SynchronyStream, loud_slots, mouth_pixels

HEARD, SILENT = 0, 1


class Clip:
    """A prepared clip: crops [T, 96, 96], present [T], samples [640 T], and `speech` [T], True inside words."""

    def __init__(self, utterance: Utterance, root: Path) -> None:
        self.speaker = utterance.speaker
        self.id = utterance.id
        self.crops, self.present = load_lips(utterance, root)
        samples = load_samples(utterance, root)[: len(self.crops) * SLOT_SAMPLES]
        self.samples = np.pad(samples, (0, len(self.crops) * SLOT_SAMPLES - len(samples)))
        slot_s = (np.arange(len(self.crops)) + 0.5) * SLOT_S
        self.speech = np.zeros(len(self.crops), bool)
        for _, start, end in utterance.words:
            self.speech |= (slot_s >= start) & (slot_s < end)

    def at_rest(self, how: str) -> NDArray[np.intp]:
        """Numbers of T slots with the mouth at rest.

        how: "still" repeats the first slot; anything else plays the slots before the first word forth and back.
        """
        slots = len(self.crops)
        if how == "still":
            return np.zeros(slots, np.intp)
        lead = max(3, int(np.argmax(self.speech)) - 2)  # a mouth opens before its first word
        there_and_back = np.r_[np.arange(lead), np.arange(lead)[::-1]]
        return np.resize(there_and_back, slots)


def slots_of_crops(heard: Clip, other: Clip, order: NDArray[np.intp], first_slot: int = 0) -> list[Slot]:
    """Slots with two faces: HEARD with the slots of one clip, SILENT with the slots `order` of another, repeated."""
    slots = []
    for index in range(len(heard.crops)):
        source = order[index % len(order)]
        lips = {
            HEARD: _slot(first_slot + index, heard, index, HEARD, 100.0),
            SILENT: _slot(first_slot + index, other, source, SILENT, 110.0),
        }
        slots.append(Slot(first_slot + index, lips))
    return slots


def _slot(index: int, clip: Clip, source: int, face: int, width_px: float) -> LipSlot:
    present = bool(clip.present[source])
    return LipSlot(index, clip.crops[source], present, "ok" if present else "no_face", face, width_px=width_px)


class PlacedFaces(FaceFinder):
    """A face finder that remembers on which side of the picture each face is."""

    def __init__(self) -> None:
        super().__init__()
        self.on_left: dict[int, bool] = {}

    def follow(self, frame: VideoFrame) -> list[Face]:
        faces = super().follow(frame)
        for face in faces:
            self.on_left[face.id] = face.box.left + face.box.right < frame.rgb.shape[1]
        return faces


def slots_of_videos(heard: Clip, other: Clip, order: NDArray[np.intp], finder: PlacedFaces, videos: Path) -> list[Slot]:
    """Slots with two faces, found in the videos of two clips side by side; see `slots_of_crops`.

    The heard clip is on the left, the other on the right and 10 % larger. Faces on the left are renamed HEARD, faces
    on the right SILENT.
    """
    ours, theirs = ([frame.rgb for frame in iter_frames(videos / f"{clip.id}.mp4")] for clip in (heard, other))
    height, width = ours[0].shape[:2]
    slots: list[Slot] = []
    finder.on_left.clear()
    with LipTracker(finder=finder) as tracker:
        for index, rgb in enumerate(ours):
            beside = cv2.resize(theirs[min(order[index % len(order)], len(theirs) - 1)], None, fx=1.1, fy=1.1)
            frame = np.zeros((len(beside), width + beside.shape[1], 3), np.uint8)
            frame[:height, :width] = rgb
            frame[:, width:] = beside
            slots += tracker.push(VideoFrame(index * SLOT_S, frame))
        slots += tracker.finish(len(ours) * SLOT_S)
    renamed = []
    for slot in slots:
        lips = {}
        for number, face in slot.lips.items():
            name = HEARD if finder.on_left[number] else SILENT
            lips[name] = dataclasses.replace(face, face=name)
        renamed.append(Slot(slot.index, lips, slot.reason))
    return renamed


def chosen(slots: Sequence[Slot], samples: NDArray[np.float32]) -> list[int | None]:
    return [lips.face for lips in SpeakingFace(iter([samples])).follow(slots)]


def measure_choice(clips: Sequence[Clip], partners: Sequence[Sequence[int]], videos: Path | None) -> None:
    """Print the accuracy of the choice for each behaviour of the silent face."""
    finder = PlacedFaces() if videos is not None else None
    for how in ("still", "quiet", "speaks too"):
        right, total, changes = [], [], 0
        for index, clip in enumerate(clips):
            for partner in partners[index]:
                other = clips[partner]
                order = np.arange(len(other.crops)) if how == "speaks too" else other.at_rest(how)
                if finder is not None and videos is not None:
                    slots = slots_of_videos(clip, other, order, finder, videos)
                else:
                    slots = slots_of_crops(clip, other, order)
                faces = np.array([-1 if face is None else face for face in chosen(slots, clip.samples)])
                speech = clip.speech[: len(faces)]
                right.append(int((faces == HEARD)[speech].sum()))
                total.append(int(speech.sum()))
                changes += int((np.diff(faces) != 0).sum())
        share, low, high = interval(np.array(right), np.array(total))
        whole = np.mean(np.array(right) > 0.5 * np.array(total))
        print(
            f"  other face {how:10}: {share:6.1%} [{low:.1%}, {high:.1%}] of the speech, "
            f"{whole:6.1%} of clips by majority; {len(right)} pairs, {sum(total) * SLOT_S:.0f} s of speech, "
            f"{changes} changes of face"
        )


def measure_turns(clips: Sequence[Clip], partners: Sequence[Sequence[int]], count: int = 6) -> None:
    """Print the accuracy for two faces that take turns, a clip each.

    The other face is at rest, or speaks without sound. count: turns in a recording.
    """
    if len(clips) < count:
        return
    for how in ("quiet", "speaks too"):
        right = total = changes = 0
        for start in range(0, len(clips) - count + 1, count):
            slots: list[Slot] = []
            samples, speech, truth = [], [], []
            for turn in range(count):
                clip, other = clips[start + turn], clips[partners[start + turn][0]]
                order = np.arange(len(other.crops)) if how == "speaks too" else other.at_rest(how)
                for slot in slots_of_crops(clip, other, order, first_slot=len(slots)):
                    if turn % 2:
                        swapped = {
                            HEARD: dataclasses.replace(slot.lips[SILENT], face=HEARD),
                            SILENT: dataclasses.replace(slot.lips[HEARD], face=SILENT),
                        }
                        slot = Slot(slot.index, swapped)
                    slots.append(slot)
                samples.append(clip.samples)
                speech.append(clip.speech)
                truth.append(np.full(len(clip.crops), SILENT if turn % 2 else HEARD))
            faces = np.array(chosen(slots, np.concatenate(samples)))
            inside = np.concatenate(speech)
            right += int((faces == np.concatenate(truth))[inside].sum())
            total += int(inside.sum())
            changes += int((np.diff(faces) != 0).sum())
        ideal = len(clips) // count * (count - 1)
        print(
            f"  in turns, other {how:10}: {right / max(1, total):6.1%} of {total * SLOT_S:.0f} s of speech; "
            f"{changes} changes of face, {ideal} turns"
        )


def embeddings(clip: Clip, samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings of lips and sound by the trained head, [T, D] each."""
    stream = SynchronyStream()
    evidence = []
    for index, crop in enumerate(clip.crops):
        crops = {0: crop} if clip.present[index] else {}
        evidence += stream.push(crops, samples[index * SLOT_SAMPLES : (index + 1) * SLOT_SAMPLES])
    evidence += stream.finish()
    absent = np.zeros_like(evidence[0].sound)
    return np.stack([seen.lips.get(0, absent) for seen in evidence]), np.stack([seen.sound for seen in evidence])


def motion_and_loudness(clip: Clip, samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The baseline's embeddings of lips and sound, [T, 1] each: motion of the mouth and loudness, standardised."""
    pixels = mouth_pixels(torch.from_numpy(clip.crops)).numpy()
    motion = np.abs(np.diff(pixels, axis=0, prepend=pixels[:1])).mean((1, 2))
    loudness = np.log(np.square(samples.reshape(-1, SLOT_SAMPLES)).mean(1) + 1e-6)
    standardised = [((signal - signal.mean()) / (signal.std() + 1e-6))[:, None] for signal in (motion, loudness)]
    return standardised[0].astype(np.float32), standardised[1].astype(np.float32)


def measure_offsets(clips: Sequence[Clip], repeats: int) -> None:
    print("audio/video offset, sound moved by a whole number of ms in -200 ... 200:")
    for name, embed in (("head", embeddings), ("motion and loudness", motion_and_loudness)):
        for seconds in (1.0, 2.0, 3.0) if name == "head" else (3.0,):
            errors, confident = [], []
            for clip in clips:
                for repeat in range(repeats):
                    random = generator(1, clip.id, repeat, "offset")
                    shift_ms = int(random.integers(-200, 201))
                    part, samples = _moved(clip, shift_ms, round(seconds / SLOT_S), random)
                    lips, sound = embed(part, samples)
                    offset = estimate_offset(lag_evidence(lips, part.present, sound))
                    errors.append(abs(offset.ms - shift_ms))
                    confident.append(offset.confidence)
            error, confidence = np.array(errors), np.array(confident)
            good = error <= 40
            share, low, high = interval(good.reshape(len(clips), -1).sum(1), np.full(len(clips), repeats))
            line = (
                f"  {name}, {seconds:.0f} s: {share:6.1%} [{low:.1%}, {high:.1%}] within 40 ms, "
                f"median error {np.median(error):.0f} ms; {len(clips)} clips x {repeats}"
            )
            if name == "head":
                sure = confidence >= 0.8
                line += f"; confidence {confidence.mean():.2f} in the mean, >= 0.8 in {sure.mean():.0%}"
                line += f", of these {good[sure].mean():.1%} within 40 ms" if sure.any() else ""
            print(line)


def measure_strangers(clips: Sequence[Clip], partners: Sequence[Sequence[int]]) -> None:
    """Print the confidence of the offset if the sound belongs to another clip; it should be low."""
    confidence = []
    for index, clip in enumerate(clips):
        for partner in partners[index]:
            samples = np.resize(clips[partner].samples, len(clip.samples))
            lips, sound = embeddings(clip, samples)
            confidence.append(estimate_offset(lag_evidence(lips, clip.present, sound)).confidence)
    sure = np.mean(np.array(confidence) >= 0.8)
    print(f"  sound of another clip: confidence {np.mean(confidence):.2f} in the mean, >= 0.8 in {sure:.0%}")


def measure_files(paths: Sequence[Path]) -> None:
    """Print offsets for videos of one talker each, and how often a mouth matches its own sound better than another."""
    towers = []
    for path in paths:
        track, samples = extract_lips(path), read_audio(path)
        slots = len(track.crops)
        samples = np.pad(samples, (0, max(0, slots * SLOT_SAMPLES - len(samples))))[: slots * SLOT_SAMPLES]
        film = Clip.__new__(Clip)
        film.crops, film.present = track.crops, track.present
        towers.append((*embeddings(film, samples), loud_slots(samples)))
        offset = estimate_offset(lag_evidence(towers[-1][0], track.present, towers[-1][1]))
        print(f"  {path.name}: offset {offset.ms:+.0f} ms, confidence {offset.confidence:.2f}")
    for count in (25, 50):
        wins = []
        for lips, sound, is_loud in towers:
            for other, _, _ in towers:
                if other is lips:
                    continue
                slots = min(len(lips), len(other))
                more = ((lips[:slots] - other[:slots]) * sound[:slots]).sum(1) * is_loud[:slots]
                for first in range(0, slots - count + 1, count):
                    if is_loud[first : first + count].sum() >= count // 3:
                        wins.append(more[first : first + count].sum() > 0)
        print(f"  right mouth of two in {count * SLOT_S:.0f} s: {np.mean(wins):.0%} of {len(wins)} stretches")


def _moved(clip: Clip, shift_ms: int, slots: int, random: np.random.Generator) -> tuple[Clip, NDArray[np.float32]]:
    """`slots` slots of the clip around its speech, and their sound, `shift_ms` later."""
    moved = _later(clip.samples, shift_ms)
    words = np.flatnonzero(clip.speech)
    slots = min(slots, len(clip.crops))
    middle = (words[0] + words[-1]) // 2 if slots >= len(words) else int(random.choice(words))
    first = int(np.clip(middle - slots // 2, 0, len(clip.crops) - slots))
    part = copy.copy(clip)
    part.crops, part.present = clip.crops[first : first + slots], clip.present[first : first + slots]
    part.speech = clip.speech[first : first + slots]
    return part, moved[first * SLOT_SAMPLES : (first + slots) * SLOT_SAMPLES]


def _later(samples: NDArray[np.float32], shift_ms: int) -> NDArray[np.float32]:
    """The sound moved by `shift_ms`, positive for later; silence fills the gap."""
    shift = shift_ms * 16
    moved = np.zeros_like(samples)
    if shift >= 0:
        moved[shift:] = samples[: len(samples) - shift]
    else:
        moved[:shift] = samples[-shift:]
    return moved


def interval(right: NDArray, total: NDArray) -> tuple[float, float, float]:
    """The share of `right` in `total`, and its 95 % interval by a bootstrap over clips."""
    random = np.random.default_rng(1)
    drawn = random.integers(0, len(right), (2000, len(right)))
    shares = right[drawn].sum(1) / np.maximum(total[drawn].sum(1), 1)
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(right.sum() / max(total.sum(), 1)), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, nargs="?")
    parser.add_argument("--files", type=Path, nargs="+", help="films of one talker each instead of a corpus")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--videos", type=Path, help="folder of the corpus's videos: find the faces too")
    parser.add_argument("--partners", type=int, default=2, help="other clips that each clip is put beside")
    parser.add_argument("--late", type=int, metavar="MS", help="only choose, with sound that much later than the lips")
    arguments = parser.parse_args()
    if arguments.files:
        measure_files(arguments.files)
        return
    if arguments.manifest is None:
        parser.error("give a manifest, or --files")
    utterances = [u for u in read_manifest(arguments.manifest) if u.split == arguments.split and u.audio and u.video]
    clips = [Clip(utterance, arguments.manifest.parent) for utterance in utterances]
    if len(clips) < 2:
        raise avsr.DataError(f"{arguments.manifest}: too few clips", got=len(clips), expected="two or more")
    # The other face is of another speaker if the split has one; each clip draws its partners independently.
    partners = []
    for index, clip in enumerate(clips):
        others = [j for j in range(len(clips)) if j != index and clips[j].speaker != clip.speaker]
        others = others or [j for j in range(len(clips)) if j != index]
        partners.append([int(j) for j in generator(1, clip.id, "partners").permutation(others)[: arguments.partners]])
    speakers = sorted({clip.speaker for clip in clips})
    print(f"{arguments.split}: {len(clips)} clips of {len(speakers)} speakers ({' '.join(speakers)})")
    if arguments.late is not None:
        for clip in clips:
            clip.samples = _later(clip.samples, arguments.late)
        measure_choice(clips, partners, arguments.videos)
        return
    started = time.process_time()
    measure_choice(clips, partners, arguments.videos)
    if arguments.videos is None:
        used_s = time.process_time() - started
        media_s = sum(len(clip.crops) * len(partners[i]) for i, clip in enumerate(clips)) * SLOT_S * 3
        print(f"  {1000 * used_s / media_s:.1f} ms of CPU time for a second of two faces")
        if len(speakers) == 1:  # a face that takes turns must stay the same person
            measure_turns(clips, partners)
        measure_offsets(clips, repeats=max(1, 75 // len(clips)))
        measure_strangers(clips, partners)


if __name__ == "__main__":
    try:
        main()
    except avsr.AvsrError as error:
        raise SystemExit(f"speaker.py: {error}") from None
