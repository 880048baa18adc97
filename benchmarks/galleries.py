"""How soon the speaker of a video gallery is found, as in calls with 9, 16 or 25 people.

    python benchmarks/galleries.py work/corpora/grid
    python benchmarks/galleries.py work/corpora/grid --galleries 4x4@1920x1080 --kinds listen --count 10 --fps 15

Each gallery shows GRID talkers of the splits `dev`, `train_other` and `unlabelled` in equal tiles, one talker a tile.
One tile plays clips with their sound. The others are, by kind:

    still    still pictures
    listen   people at rest: the pictures outside of the words, forth and back
    nod      the same, and they nod and sway
    talk     people who say other sentences without sound
    mixed    a half still, the others as in `talk` and `nod`
    black    a half black, the others as in `listen`
    turns    as in `nod`; a second speaker in another tile goes on after the first
    small    as in `nod`; the speaker's tile has half of the size
    last     as in `listen`; the speaker's tile is the last
    cropped  as in `listen`; pictures fill their tiles, which cuts chins off

Faces are found in the pictures, and the face is chosen as by `--face auto` for files. A speaker counts as found in a
slot if lips are read there and come from the speaker's tile. Printed: how many turns of speech have their speaker found
within 3 s after the first word begins, when (median and range), and the share of all slots inside of words, with a 95 %
interval by a bootstrap over galleries.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import avsr
from avsr.grid import SLOT_S, SLOT_SAMPLES
from avsr.lips.faces import Face, FaceFinder
from avsr.lips.tracker import slots_of
from avsr.media import VideoFrame, iter_frames, read_audio
from avsr.randomness import generator
from avsr.speakers.speaking_face import SpeakingFace

KINDS = ("still", "listen", "nod", "talk", "mixed", "black", "turns", "small", "last", "cropped")
GALLERIES = "3x3@1280x720,4x4@1920x1080"
TURN_CLIPS = 2
WITHIN_S = 3.0
ALIGNMENT_S = 1 / 25000  # unit of the word times of GRID

Rgb = NDArray[np.uint8]


@dataclasses.dataclass
class Clip:
    """A clip of one talker, one picture a slot."""

    speaker: str
    pictures: list[Rgb]
    samples: NDArray[np.float32]
    """[640 T]; silence if the clip has no sound."""
    words_T: NDArray[np.bool_]
    """True inside of words; False everywhere if they are not known."""

    def at_rest(self) -> list[Rgb]:
        """The pictures before the first word, forth and back; the first picture if there is no word."""
        lead = max(3, int(np.argmax(self.words_T)) - 2) if self.words_T.any() else 1
        return [*self.pictures[:lead], *self.pictures[:lead][::-1]]


@dataclasses.dataclass
class Gallery:
    """The contents of one gallery over T slots."""

    tiles: list[list[Rgb]]
    """The pictures of each tile, repeated where they end; no pictures: a black tile."""
    nodding: set[int]
    small: set[int]
    is_cropped: bool
    speaker_T: NDArray[np.intp]
    """The tile that speaks; -1 outside of words."""
    turns: list[tuple[int, int]]
    """First and last slot of the words of each turn."""
    samples: NDArray[np.float32]


def read_clips(corpus: Path, split: str) -> list[Clip]:
    clips = []
    rows = [json.loads(row) for row in (corpus / "clips.jsonl").read_text().splitlines()]
    by_id = {row["id"]: row for row in rows}
    for line in (corpus / "lists" / f"{split}.txt").read_text().split():
        clips.append(read_clip(corpus, by_id[line]))
    return clips


def read_clip(corpus: Path, record: dict[str, str]) -> Clip:
    path = corpus / record["path"]
    pictures = [frame.rgb for frame in iter_frames(path)]
    samples = read_audio(path)
    count = len(pictures) * SLOT_SAMPLES
    samples = np.pad(samples, (0, max(0, count - len(samples))))[:count]
    middle_s, words_T = (np.arange(len(pictures)) + 0.5) * SLOT_S, np.zeros(len(pictures), bool)
    if record.get("align"):
        for row in (corpus / record["align"]).read_text().splitlines():
            start, end, word = row.split()
            if word not in ("sil", "sp"):
                words_T |= (middle_s >= int(start) * ALIGNMENT_S) & (middle_s < int(end) * ALIGNMENT_S)
    return Clip(record["speaker"], pictures, samples, words_T)


def made_up(
    speakers: list[list[Clip]], others: list[Clip], kind: str, tiles: int, random: np.random.Generator
) -> Gallery:
    """A gallery of one kind. speakers: clips by speaker, each with at least TURN_CLIPS."""
    ours = [int(index) for index in random.permutation(len(speakers))][: 2 if kind == "turns" else 1]
    places = [int(place) for place in random.permutation(tiles)]
    if kind == "last":
        places.remove(tiles - 1)
        places.insert(0, tiles - 1)
    strangers = [clip for clip in others if clip.speaker not in {speakers[index][0].speaker for index in ours}]
    shown: list[list[Rgb]] = [[] for _ in range(tiles)]
    nodding: set[int] = set()
    for number, place in enumerate(places[len(ours) :]):
        clip = strangers[(number + int(random.integers(2))) % len(strangers)]
        role = role_of(kind, number)
        moment = int(random.integers(len(clip.pictures)))
        shown[place] = {
            "still": [clip.pictures[moment]],
            "rest": clip.at_rest(),
            "talk": [*clip.pictures[moment:], *clip.pictures[:moment]],
            "black": [],
        }[role.removeprefix("nod ")]
        if role.startswith("nod"):
            nodding.add(place)
    pictures: dict[int, list[Rgb]] = {place: [] for place in places[: len(ours)]}
    speaker: list[NDArray[np.intp]] = []
    samples, turns = [], []
    for place, index in zip(places, ours, strict=False):
        first = sum(len(part) for part in speaker)
        chosen = [speakers[index][number] for number in random.permutation(len(speakers[index]))[:TURN_CLIPS]]
        inside = np.concatenate([clip.words_T for clip in chosen])
        turns.append((first + int(np.flatnonzero(inside)[0]), first + int(np.flatnonzero(inside)[-1])))
        speaker.append(np.where(inside, place, -1))
        for clip in chosen:
            samples.append(clip.samples)
            for tile, played in pictures.items():
                rest = speakers[ours[places.index(tile)]][0].at_rest()
                played += clip.pictures if tile == place else [rest[k % len(rest)] for k in range(len(clip.pictures))]
    for tile, played in pictures.items():
        shown[tile] = played
    small = set(places[:1]) if kind == "small" else set()
    return Gallery(shown, nodding, small, kind == "cropped", np.concatenate(speaker), turns, np.concatenate(samples))


def role_of(kind: str, number: int) -> str:
    """What the tile of the n-th listener shows."""
    return {
        "still": ["still"],
        "listen": ["rest"],
        "talk": ["talk"],
        "mixed": ["still", "talk", "still", "nod rest"],
        "black": ["black", "rest"],
        "last": ["rest"],
        "cropped": ["rest"],
    }.get(kind, ["nod rest"])[number % (4 if kind == "mixed" else 2 if kind == "black" else 1)]


def composed(gallery: Gallery, columns: int, width: int, height: int, fps: float) -> Iterator[VideoFrame]:
    tile_width, tile_height = width // columns, height // (len(gallery.tiles) // columns)
    for number in range(round(len(gallery.speaker_T) * SLOT_S * fps)):
        time_s = number / fps
        slot = min(round(time_s / SLOT_S), len(gallery.speaker_T) - 1)
        picture = np.full((height, width, 3), 24, np.uint8)
        for tile, pictures in enumerate(gallery.tiles):
            top, left = tile // columns * tile_height, tile % columns * tile_width
            if pictures:
                scale = 0.5 if tile in gallery.small else 1.0
                fit = max if gallery.is_cropped else min
                sway = time_s * 2 * np.pi * (0.4 + 0.05 * (tile % 5)) if tile in gallery.nodding else 0.0
                place_tile(
                    picture[top : top + tile_height, left : left + tile_width],
                    pictures[slot % len(pictures)],
                    scale * fit(tile_height / pictures[0].shape[0], tile_width / pictures[0].shape[1]),
                    (0.02 * np.sin(sway), 0.03 * np.sin(2 * sway)),
                )
        yield VideoFrame(time_s, picture)


def place_tile(tile: Rgb, picture: Rgb, factor: float, shift: tuple[float, float]) -> None:
    """Draw a picture into the middle of a tile, scaled by a factor and moved by shares of the tile's height."""
    height, width = tile.shape[:2]
    x = (width - picture.shape[1] * factor) / 2 + shift[0] * height
    y = (height - picture.shape[0] * factor) / 2 + shift[1] * height
    if factor < 0.7:
        small = round(picture.shape[1] * factor), round(picture.shape[0] * factor)
        picture, factor = np.asarray(cv2.resize(picture, small, interpolation=cv2.INTER_AREA), np.uint8), 1.0
    matrix = np.array([[factor, 0, x], [0, factor, y]])
    tile[:] = cv2.warpAffine(picture, matrix, (width, height), borderValue=(24, 24, 24))


class TileFinder(FaceFinder):
    """A face finder that remembers in which tile each face is."""

    def place(self, columns: int, rows: int) -> None:
        """Begin a gallery of that many tiles."""
        self.grid = columns, rows
        self.tile_of: dict[int, int] = {}

    def follow(self, frame: VideoFrame) -> list[Face]:
        faces = super().follow(frame)
        columns, rows = self.grid
        for face in faces:
            x, y = face.box.centre.real / frame.picture.width, face.box.centre.imag / frame.picture.height
            self.tile_of[face.id] = int(x * columns) + columns * int(y * rows)
        return faces


@dataclasses.dataclass
class Outcome:
    """What became of one gallery."""

    delays_s: list[float]
    """Of each turn, from the first word until the speaker is found; infinity if never."""
    right: int
    total: int
    faces: int
    cpu_ms: float
    """Per slot, of finding faces and choosing one."""


def outcome(gallery: Gallery, finder: TileFinder, columns: int, width: int, height: int, fps: float) -> Outcome:
    finder.place(columns, len(gallery.tiles) // columns)
    frames = list(composed(gallery, columns, width, height, fps))
    begin_s = time.process_time()
    slots = list(SpeakingFace(iter([gallery.samples])).follow(slots_of(iter(frames), finder=finder)))
    cpu_s = time.process_time() - begin_s
    tiles = [finder.tile_of[lips.face] if lips.face is not None and lips.present else -1 for lips in slots]
    tiles_T = np.resize(np.array([*tiles, *[-1] * len(gallery.speaker_T)]), len(gallery.speaker_T))
    hit_T = (tiles_T == gallery.speaker_T) & (gallery.speaker_T >= 0)
    delays_s = []
    for first, last in gallery.turns:
        hits = np.flatnonzero(hit_T[first : last + 1])
        delays_s.append(float(hits[0]) * SLOT_S if len(hits) else np.inf)
    total = int((gallery.speaker_T >= 0).sum())
    return Outcome(delays_s, int(hit_T.sum()), total, len(finder.tile_of), 1000 * cpu_s / len(slots))


def report(kind: str, outcomes: list[Outcome]) -> str:
    delays_s = np.array([delay for one in outcomes for delay in one.delays_s])
    found = delays_s <= WITHIN_S
    right, total = (np.array([getattr(one, name) for one in outcomes]) for name in ("right", "total"))
    drawn = np.random.default_rng(1).integers(0, len(right), (2000, len(right)))
    low, high = np.percentile(right[drawn].sum(1) / total[drawn].sum(1), [2.5, 97.5])
    faces = [one.faces for one in outcomes]
    return (
        f"  {kind:7} {found.sum()} of {len(found)} turns found within {WITHIN_S:.0f} s, "
        f"after {np.median(delays_s):.2f} s [{delays_s.min():.2f}, {delays_s.max():.2f}]; "
        f"{right.sum() / total.sum():6.1%} [{low:.1%}, {high:.1%}] of speech; "
        f"{min(faces)}-{max(faces)} faces, {np.mean([one.cpu_ms for one in outcomes]):.1f} ms a slot"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="folder of GRID with lists, clips.jsonl and videos")
    parser.add_argument("--galleries", default=GALLERIES, help="COLUMNSxROWS@WIDTHxHEIGHT, several with commas")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--count", type=int, default=6, help="galleries of each kind")
    parser.add_argument("--fps", type=float, default=25.0, help="pictures a second")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    dev, other = read_clips(arguments.corpus, "dev")[:24], read_clips(arguments.corpus, "train_other")
    by_speaker: dict[str, list[Clip]] = {}
    for clip in [*dev, *other]:
        by_speaker.setdefault(clip.speaker, []).append(clip)
    speakers = [clips for clips in by_speaker.values() if len(clips) >= TURN_CLIPS]
    others = [*read_clips(arguments.corpus, "unlabelled"), *other, *dev[:6]]
    finder = TileFinder()
    with finder:
        for text in arguments.galleries.split(","):
            shape, size = text.split("@")
            (columns, rows), (width, height) = (map(int, pair.split("x")) for pair in (shape, size))
            print(f"{text}, {arguments.fps:g} pictures a second, {arguments.count} galleries a kind")
            for kind in arguments.kinds.split(","):
                outcomes = []
                for number in range(arguments.count):
                    random = generator(arguments.seed, kind, number)
                    gallery = made_up(speakers, others, kind, columns * rows, random)
                    outcomes.append(outcome(gallery, finder, columns, width, height, arguments.fps))
                print(report(kind, outcomes), flush=True)


if __name__ == "__main__":
    try:
        main()
    except avsr.AvsrError as error:
        raise SystemExit(f"galleries.py: {error}") from None
