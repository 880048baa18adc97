"""How often the choice of the speaking face is right in a picture with two faces, for people that nobody trained on.

    python benchmarks/two_faces.py MEDIA/corpora/talking
    python benchmarks/two_faces.py MEDIA/corpora/talking --pictures 4      # find the faces in composed pictures, too

FOLDER holds videos of one talker each, at any depth. A JSON lines file in it with `path` and `word_times` ([start, end,
word]) gives words. Without words, speech is where the voice detector hears a voice. Two clips stand side by side, on
sides drawn by a seed, with the sound of one of them:

    other     the other face speaks a sentence of its own, without sound; it starts again where it ends
    itself    the other face is the same person at another time (clips of 4 s or more)
    still     the other face is a photograph
    turns     the two take turns: one is heard up to a pause near the middle of the clip, then the other one
    nobody    two faces speak without sound, and a third person is heard who is not in the picture

A slot of 40 ms in speech is right if the face that is heard is chosen; for `nobody`, if no face is. With known words, a
word is right if most of its slots are. The share is over speech, then as the mean over clips, each with a 95 % interval
by a bootstrap over the clips whose sound is heard (seed 1).

Faces are found once in each clip, and the slots of two clips are joined as if they stood in one picture; with
--pictures N the first N pairs are also composed as pictures, and the share of slots with the same choice is printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import avsr
from avsr.grid import SAMPLE_RATE_HZ, SLOT_S, SLOT_SAMPLES
from avsr.lips.faces import Face, FaceFinder
from avsr.lips.slots import Slot
from avsr.lips.tracker import slots_of
from avsr.media import VideoFrame, iter_frames, probe, read_audio
from avsr.randomness import generator
from avsr.sound.voice import WINDOW_SAMPLES, VoiceActivity
from avsr.speakers.speaking_face import SpeakingFace

LEFT, RIGHT = 0, 1000
"""Added to the ids of the faces of the left and the right clip."""
MIN_ITSELF_S = 4.0
HEIGHT_PX = 360  # of composed pictures
KINDS = ("other", "itself", "still", "turns", "nobody")


@dataclasses.dataclass(frozen=True)
class Clip:
    """A video of one talker."""

    path: Path
    slots: list[Slot]
    samples: NDArray[np.float32]
    """[640 x slots]"""
    units: list[NDArray[np.intp]]
    """The slots of each word; without words, each slot of speech by itself."""

    def part(self, first: int, end: int) -> Clip:
        inside = [unit - first for unit in self.units if len(unit) and unit[0] >= first and unit[-1] < end]
        samples = self.samples[first * SLOT_SAMPLES : end * SLOT_SAMPLES]
        return Clip(self.path, self.slots[first:end], samples, inside)


@dataclasses.dataclass(frozen=True)
class Scene:
    """Two faces with one sound."""

    left: Clip
    right: Clip
    samples: NDArray[np.float32]
    units: list[NDArray[np.intp]]
    truth: NDArray[np.intp]
    """[T]: LEFT or RIGHT, or -1 if neither face is heard."""


def read_clips(folder: Path, finder: FaceFinder) -> list[Clip]:
    """All videos in a folder that show a face and hold sound, in order of their names."""
    words: dict[str, list[tuple[float, float, str]]] = {}
    for listing in sorted(folder.glob("*.jsonl")):
        for line in listing.read_text().splitlines():
            row = json.loads(line)
            words[row["path"]] = row.get("word_times") or []
    clips = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".mpg", ".mov", ".webm")):
        info = probe(path)
        if info.audio is None or info.video is None:
            print(f"  {path.relative_to(folder)}: left out, has no sound or no picture")
            continue
        slots = list(slots_of(iter_frames(path), finder=finder, end_s=info.duration_s or float("inf")))
        samples = np.resize(
            np.r_[read_audio(path), np.zeros(len(slots) * SLOT_SAMPLES, np.float32)], len(slots) * SLOT_SAMPLES
        )
        units = spoken(samples, words.get(str(path.relative_to(folder)), []))
        if not any(slot.lips for slot in slots) or not units:
            print(f"  {path.relative_to(folder)}: left out, no face or no speech")
            continue
        clips.append(Clip(path, slots, samples, units))
    return clips


def spoken(samples: NDArray[np.float32], words: list[tuple[float, float, str]]) -> list[NDArray[np.intp]]:
    """The slots of each word or, without words, each slot in which the voice detector hears a voice."""
    slots = len(samples) // SLOT_SAMPLES
    if words:
        middle_s = (np.arange(slots) + 0.5) * SLOT_S
        inside = [np.flatnonzero((middle_s >= start) & (middle_s < end)) for start, end, _ in words]
        return [unit for unit in inside if len(unit)]
    voice, heard = VoiceActivity(), np.zeros(slots, bool)
    for start in range(0, len(samples) - WINDOW_SAMPLES + 1, WINDOW_SAMPLES):
        voice.push(samples[start : start + WINDOW_SAMPLES])
        if abs(voice.last_voice_s * SAMPLE_RATE_HZ - start - WINDOW_SAMPLES) < 1:
            heard[(start + WINDOW_SAMPLES // 2) // SLOT_SAMPLES] = True
    return [np.array([slot]) for slot in np.flatnonzero(heard)]


def scenes(clips: list[Clip], kind: str, partners: int, seed: int) -> Iterator[tuple[int, Scene]]:
    """The scenes of one kind, each with the number of the clip that is heard first."""
    for number, clip in enumerate(clips):
        if kind == "itself" and len(clip.slots) * SLOT_S < MIN_ITSELF_S:
            continue
        random = generator(seed, clip.path.name, kind)
        others = [other for other in clips if other.path != clip.path]
        order = [others[index] for index in random.permutation(len(others))]
        for partner in range(1 if kind == "itself" else partners):
            heard, beside, truth = arranged(kind, clip, order[partner], order[partner - 1], random)
            is_swapped = bool(random.random() < 0.5)
            left, right = (beside, heard) if is_swapped else (heard, beside)
            # 0 is the clip that is heard first, 1 the clip beside it, -1 neither.
            sides = {0: RIGHT if is_swapped else LEFT, 1: LEFT if is_swapped else RIGHT, -1: -1}
            yield number, Scene(left, right, heard.samples, heard.units, np.array([sides[who] for who in truth]))


def arranged(
    kind: str, clip: Clip, other: Clip, third: Clip, random: np.random.Generator
) -> tuple[Clip, Clip, list[int]]:
    """The clip with the sound, the clip beside it, and who is heard in each slot: 0 or 1 of them, or -1."""
    slots = len(clip.slots)
    if kind == "itself":
        halves = [clip.part(0, slots // 2), clip.part(slots - slots // 2, slots)]
        heard, beside = halves[:: 1 if random.random() < 0.5 else -1]
        return heard, beside, [0] * (slots // 2)
    if kind == "still":
        moment = int(random.integers(len(other.slots)))
        return clip, other.part(moment, moment + 1), [0] * slots
    if kind == "turns":
        slots = min(slots, len(other.slots))
        turn = turning_point(clip.part(0, slots))
        first, second = clip.part(0, turn), other.part(turn, slots)
        units = first.units + [unit + turn for unit in second.units]
        samples = np.concatenate((first.samples, second.samples))
        heard = dataclasses.replace(clip.part(0, slots), samples=samples, units=units)
        return heard, other, [0] * turn + [1] * (slots - turn)
    if kind == "nobody":
        slots = min(slots, len(third.slots))
        sound = third.part(0, slots)
        return dataclasses.replace(clip.part(0, slots), samples=sound.samples, units=sound.units), other, [-1] * slots
    return clip, other, [0] * slots


def turning_point(clip: Clip) -> int:
    """The slot without speech that is nearest to the middle of the clip; the middle if all of it is speech."""
    slots = len(clip.slots)
    pauses = np.setdiff1d(np.arange(slots // 4, slots - slots // 4), np.concatenate([*clip.units, []]))
    return int(pauses[np.abs(pauses - slots // 2).argmin()]) if len(pauses) else slots // 2


def joined(scene: Scene) -> Iterator[Slot]:
    """The slots of both clips as one video; the shorter clip starts again where it ends."""
    for index in range(len(scene.truth)):
        lips = {}
        for clip, offset in ((scene.left, LEFT), (scene.right, RIGHT)):
            for number, face in clip.slots[index % len(clip.slots)].lips.items():
                lips[offset + number] = dataclasses.replace(face, index=index, face=offset + number)
        yield Slot(index, lips)


def choice(slots: Iterator[Slot], scene: Scene) -> NDArray[np.intp]:
    """[T]: LEFT or RIGHT, the side of the chosen face; -1 without a face."""
    faces = [lips.face for lips in SpeakingFace(iter([scene.samples])).follow(slots)]
    return np.array([-1 if face is None else face // RIGHT * RIGHT for face in faces])


def measure(clips: list[Clip], kind: str, partners: int, seed: int) -> None:
    right, total = np.zeros(len(clips)), np.zeros(len(clips))
    count = changes = 0
    for number, scene in scenes(clips, kind, partners, seed):
        sides = choice(joined(scene), scene)
        hits = [float(np.mean(sides[unit] == scene.truth[unit]) > 0.5) for unit in scene.units]
        right[number] += sum(hits)
        total[number] += len(hits)
        count += 1
        changes += int((np.diff(sides) != 0).sum())
    used = total > 0
    pooled, by_clip = interval(right[used], total[used], pooled=True), interval(right[used], total[used], pooled=False)
    print(
        f"  {kind:7} {pooled} of speech, {by_clip} mean of clips; {count} scenes, {used.sum()} clips, {changes} changes"
    )


def interval(right: NDArray[np.float64], total: NDArray[np.float64], *, pooled: bool) -> str:
    """The share of `right` in `total`, and its 95 % interval by a bootstrap over clips."""
    drawn = np.random.default_rng(1).integers(0, len(right), (2000, len(right)))
    drawn = np.concatenate((np.arange(len(right))[None], drawn))
    shares = right[drawn].sum(1) / total[drawn].sum(1) if pooled else (right / total)[drawn].mean(1)
    low, high = np.percentile(shares[1:], [2.5, 97.5])
    return f"{shares[0]:6.1%} [{low:.1%}, {high:.1%}]"


class SidedFinder(FaceFinder):
    """A face finder that remembers on which side of the picture each face is."""

    def __init__(self) -> None:
        super().__init__()
        self.is_right: dict[int, bool] = {}

    def follow(self, frame: VideoFrame) -> list[Face]:
        faces = super().follow(frame)
        for face in faces:
            self.is_right[face.id] = face.box.left + face.box.right > frame.picture.width
        return faces


def composed(scene: Scene, finder: SidedFinder) -> Iterator[Slot]:
    """The slots of both clips side by side in one picture, with faces renamed as `joined` does."""
    pictures = []
    for clip in (scene.left, scene.right):
        shown: list[NDArray[np.uint8]] = []
        for frame in iter_frames(clip.path):
            scale = HEIGHT_PX / frame.rgb.shape[0]
            picture = cv2.resize(frame.rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            while len(shown) * SLOT_S <= frame.time_s + SLOT_S / 2:
                shown.append(picture)
        pictures.append(shown[: len(clip.slots)])
    finder.is_right.clear()
    frames = (
        VideoFrame(index * SLOT_S, np.hstack([shown[index % len(shown)] for shown in pictures]))
        for index in range(len(scene.truth))
    )
    for slot in slots_of(frames, finder=finder):
        lips = {}
        for number, face in slot.lips.items():
            name = number + (RIGHT if finder.is_right[number] else LEFT)
            lips[name] = dataclasses.replace(face, face=name)
        yield Slot(slot.index, lips, slot.reason)


def compare_with_pictures(clips: list[Clip], count: int, seed: int) -> None:
    """Print how often the choice is the same if the two clips are composed as pictures."""
    right = same = total = 0
    finder = SidedFinder()
    with finder:
        for _, scene in list(scenes(clips, "other", 1, seed))[:count]:
            inside = np.concatenate(scene.units)
            fast, slow = choice(joined(scene), scene), choice(composed(scene, finder), scene)
            same += int((fast == slow)[inside].sum())
            right += int((slow == scene.truth)[inside].sum())
            total += len(inside)
    print(f"  pictures: {right / total:.1%} of speech, same choice in {same / total:.1%}; {count} scenes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--partners", type=int, default=4, help="other clips that each clip is put beside")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--pictures", type=int, default=0, metavar="N", help="compose N scenes as pictures, too")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with FaceFinder() as finder:
        clips = read_clips(arguments.folder, finder)
    if len(clips) < 3:
        raise avsr.DataError(f"{arguments.folder}: too few videos", got=len(clips), expected="three or more")
    seconds = sum(len(clip.slots) for clip in clips) * SLOT_S
    print(f"{arguments.folder.name}: {len(clips)} clips, {seconds:.0f} s")
    for kind in arguments.kinds.split(","):
        measure(clips, kind, arguments.partners, arguments.seed)
    if arguments.pictures:
        compare_with_pictures(clips, arguments.pictures, arguments.seed)


if __name__ == "__main__":
    try:
        main()
    except avsr.AvsrError as error:
        raise SystemExit(f"two_faces.py: {error}") from None
