"""Accuracy and speed of face finding, tracking and lip cropping in videos that are not studio recordings.

    python benchmarks/lips_in_the_wild.py MEDIA                      # all of it, ten minutes
    python benchmarks/lips_in_the_wild.py MEDIA --only small,speed   # grid small false pairs copies speed

MEDIA is the folder of the test media, with `clips/` and `corpora/grid/` inside (see tests/media.py). Other videos are
composed from these: small faces on pictures without faces, talkers side by side, copies at other rates and sizes.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from avsr.grid import SLOT_S
from avsr.lips.face_models import quiet_stderr
from avsr.lips.faces import FaceFinder
from avsr.lips.slots import LipTrack
from avsr.lips.tracker import extract_lips
from avsr.media import VideoFrame, iter_frames, read_ahead

Picture = np.ndarray  # uint8 [H, W, 3]


def talkers(media: Path) -> list[Path]:
    """One clip of each GRID talker who is in no test split."""
    grid = media / "corpora" / "grid"
    found = [grid / "video" / "s1" / "bbaf2n.mp4", *sorted((grid / "video").glob("s[45]/*.mp4"))[::2]]
    found += [grid / "unlabelled" / f"u{number}.mp4" for number in range(1, 8)]
    found += [media / "clips" / name for name in ("grid_swiz3n.mpg", "grid_lbbc2a.mpg", "grid_lwbsza.mpg")]
    return [path for path in found if path.exists()]


def pictures(path: Path, count: int | None = None) -> list[Picture]:
    return [frame.rgb for frame in itertools.islice(iter_frames(path), count)]


def at_25(shown: Iterable[Picture]) -> Iterator[VideoFrame]:
    return (VideoFrame(number * SLOT_S, rgb) for number, rgb in enumerate(shown))


def grid(media: Path, finder: FaceFinder) -> None:
    """Print in how many pictures of GRID clips a face is found, and how many clips have one face throughout."""
    listed = [json.loads(line) for line in (media / "corpora/grid/clips.jsonl").open()]
    paths = [media / "corpora/grid" / clip["path"] for clip in listed if clip["split"] in ("dev", "train_other")]
    paths += sorted((media / "corpora/grid/unlabelled").glob("*.mp4"))
    num_pictures = num_found = num_steady = 0
    for path in paths:
        finder.reset()
        found = [finder.follow(frame) for frame in iter_frames(path)]
        num_pictures += len(found)
        num_found += sum(bool(faces) for faces in found)
        num_steady += {tuple(face.id for face in faces) for faces in found} == {(0,)}
        if not all(found):
            print(f"grid: {path.stem}: no face in pictures {[n for n, faces in enumerate(found) if not faces]}")
    print(f"grid: {num_found} of {num_pictures} pictures, {num_steady} of {len(paths)} clips with one face throughout")


def backgrounds(media: Path) -> dict[str, Picture]:
    """Real pictures without a detectable face: a wall, a drawn scene, a room with blurred people."""
    clips = media / "clips"
    room = pictures(clips / "podium_720p_face_down.mp4", 1)[0]
    return {
        "wall": pictures(clips / "no_face_brick_wall_no_audio.mp4", 1)[0],
        "cartoon": pictures(clips / "no_face_animation_51ch.mp4", 100)[-1],
        "room": cv2.GaussianBlur(room, (0, 0), 12.0),
    }


def small(media: Path, finder: FaceFinder) -> None:
    """Print how often faces of 80, 60, 50 and 40 pixels are found at random places in a large picture."""
    scenes = backgrounds(media)
    for (width, height), face_px in itertools.product(((1280, 720), (1920, 1080)), (80, 60, 50, 40)):
        random = np.random.default_rng(1)
        shares: dict[str, list[float]] = collections.defaultdict(list)
        num_other = num_pictures = 0
        for path in talkers(media):
            shown = pictures(path)
            finder.reset()
            widths = [face.box.right - face.box.left for frame in at_25(shown[:10]) for face in finder.follow(frame)]
            scale = face_px / float(np.median(widths))
            size = (round(shown[0].shape[1] * scale), round(shown[0].shape[0] * scale))
            for name, scene in scenes.items():
                canvas = cv2.resize(scene, (width, height), interpolation=cv2.INTER_CUBIC)
                left, top = int(random.integers(0, width - size[0])), int(random.integers(0, height - size[1]))
                finder.reset()
                hits = 0
                for number, rgb in enumerate(shown):
                    picture = canvas.copy()
                    inset = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
                    picture[top : top + size[1], left : left + size[0]] = inset
                    faces = finder.follow(VideoFrame(number * SLOT_S, picture))
                    inside = [
                        left < face.box.centre.real < left + size[0] and top < face.box.centre.imag < top + size[1]
                        for face in faces
                    ]
                    hits += any(inside)
                    num_other += len(inside) - sum(inside)
                    num_pictures += 1
                shares[name].append(hits / len(shown))
        overall = np.mean([share for values in shares.values() for share in values])
        each = ", ".join(f"{name} {np.mean(values):.4f}" for name, values in shares.items())
        lost = [
            f"{name} {number}: {value:.2f}"
            for name, v in shares.items()
            for number, value in enumerate(v)
            if value < 0.98
        ]
        print(
            f"small: {face_px} px in {width}x{height}: found in {overall:.4f} of {num_pictures} pictures ({each}); "
            f"{num_other} false faces; clips below 0.98: {', '.join(lost) or 'none'}"
        )


def false(media: Path, finder: FaceFinder) -> None:
    """Print how often a face is found in pictures without a readable face."""
    clips, random = media / "clips", np.random.default_rng(1)
    smooth = [cv2.GaussianBlur(random.integers(0, 256, (360, 640, 3), np.uint8), (0, 0), 8.0) for _ in range(75)]
    sets: dict[str, Iterable[Picture]] = {
        "upside down (pixels)": pictures(clips / "upside_down_pixels.mp4"),
        "cartoon": pictures(clips / "no_face_animation_51ch.mp4"),
        "cartoon, 1280x960": [
            cv2.resize(rgb, (1280, 960), interpolation=cv2.INTER_CUBIC)
            for rgb in pictures(clips / "no_face_animation_51ch.mp4")
        ],
        "brick wall": pictures(clips / "no_face_brick_wall_no_audio.mp4"),
        "white noise": [random.integers(0, 256, (360, 640, 3), np.uint8) for _ in range(75)],
        "smooth colour noise": [
            np.clip((picture.astype(np.float32) - 128) * 8 + 128, 0, 255).astype(np.uint8) for picture in smooth
        ],
        "black": [np.zeros((720, 1280, 3), np.uint8)] * 25,
    }
    for path in talkers(media):
        sets[f"upside down {path.stem}"] = [np.ascontiguousarray(rgb[::-1, ::-1]) for rgb in pictures(path)]
    for name in (
        "woman_700_30fps.mp4",
        "woman_glasses_524_25fps.mp4",
        "two_people_interview_720p.mp4",
        "podium_720p_face_down.mp4",
    ):
        sets[f"upside down {name}"] = [np.ascontiguousarray(rgb[::-1, ::-1]) for rgb in pictures(clips / name)]
    num_all = num_false = 0
    for name, shown in sets.items():
        finder.reset()
        found = [finder.follow(frame) for frame in at_25(shown)]
        num_all, num_false = num_all + len(found), num_false + sum(map(bool, found))
        if any(found):
            print(f"false: {name}: a face in {sum(map(bool, found))} of {len(found)} pictures")
    print(f"false: {num_false} of {num_all} pictures of {len(sets)} videos ({num_false / num_all:.4f})")


def pairs(media: Path, finder: FaceFinder) -> None:
    """Print for two talkers side by side how often both faces are found, and how often a face id changes its side."""
    num_pairs = num_both = num_pictures = num_switches = num_ids = 0
    for left, right in itertools.combinations(talkers(media), 2):
        shown = [
            np.hstack(pair)
            for pair in zip(pictures(left), pictures(right), strict=False)
            if pair[0].shape == pair[1].shape
        ]
        if not shown:
            continue
        num_pairs += 1
        finder.reset()
        side_of: dict[int, bool] = {}
        for frame in at_25(shown):
            faces = finder.follow(frame)
            num_pictures += 1
            sides = {face.id: face.box.centre.real > frame.rgb.shape[1] / 2 for face in faces}
            num_both += sorted(sides.values()) == [False, True]
            num_switches += sum(side_of.setdefault(number, side) != side for number, side in sides.items())
        num_ids += len(side_of)
    print(
        f"pairs: {num_pairs} pairs: both faces and no other in {num_both} of {num_pictures} pictures "
        f"({num_both / num_pictures:.4f}), {num_ids} identities for {2 * num_pairs} faces, {num_switches} switches"
    )


def write(
    path: Path,
    shown: Iterable[tuple[float, Picture]],
    *,
    crf: int = 18,
    size: tuple[int, int] | None = None,
    turns: int = 0,
) -> None:
    """Write pictures at their times in seconds as H.264.

    crf: quality of the encoder, lower is better.
    size: width and height; None for the size of the pictures.
    turns: quarter turns clockwise that a player makes (MOV matrix).
    """
    with av.open(str(path), "w") as container:
        stream: Any = None
        for time_s, rgb in shown:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            width, height = size or (frame.width // 2 * 2, frame.height // 2 * 2)
            if stream is None:
                stream = container.add_stream("libx264", rate=90_000, options={"crf": str(crf), "preset": "veryfast"})
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.codec_context.time_base = Fraction(1, 90_000)
            frame = frame.reformat(width=width, height=height, format="yuv420p")
            frame.pts, frame.time_base = round(time_s * 90_000), Fraction(1, 90_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if turns:
        _set_turns(path, turns)


def _set_turns(path: Path, turns: int) -> None:
    """Write a rotation by quarter turns clockwise into the track header of a MOV or MP4 file."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4
    version = data[start]
    matrix = start + (4 + 32 + 16 if version else 4 + 20 + 16)
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[turns % 4]
    values = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(data)


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel().astype(np.float32), other.ravel().astype(np.float32))[0, 1])


def copies(media: Path, finder: FaceFinder) -> None:
    """Print for re-encoded copies of clips the correlation of their crops with the original crops, and their delay."""
    names = ["s1/bbaf2n", "s1/lbax4n", "s1/pbbc4n", "s4/lwbsza", "s5/lbax4n"]
    paths = [path for name in names if (path := media / "corpora/grid/video" / f"{name}.mp4").exists()]
    paths += [media / "clips" / name for name in ("grid_swiz3n.mpg", "grid_lbbc2a.mpg")]
    random = np.random.default_rng(1)
    results: dict[str, list[tuple[float, float, float, float]]] = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.mp4"
        for path in paths:
            original = extract_lips(path, finder=finder)
            shown = [(frame.time_s, frame.rgb) for frame in iter_frames(path)]
            for kind in (
                "25 fps",
                "30 fps",
                "50 fps",
                "60 fps",
                "variable rate",
                "turned 90",
                "turned 180",
                "turned 270",
                "crf 35",
                "half size, crf 28",
            ):
                times_s = _times_of(kind, shown[-1][0], random)
                at_time = [(time_s, _nearest(shown, time_s)) for time_s in times_s]
                turns = {"turned 90": 1, "turned 180": 2, "turned 270": 3}.get(kind, 0)
                height, width = shown[0][1].shape[:2]
                write(
                    copy,
                    [(time_s, np.rot90(rgb, turns)) for time_s, rgb in at_time],
                    crf={"crf 35": 35, "half size, crf 28": 28}.get(kind, 18),
                    size=(width // 4 * 2, height // 4 * 2) if kind == "half size, crf 28" else None,
                    turns=turns,
                )
                results[kind].append(_compare(original, extract_lips(copy, finder=finder)))
    for kind, rows in results.items():
        mean, low, present, shift = (np.array(column) for column in zip(*rows, strict=True))
        print(
            f"copies: {kind}: correlation {mean.mean():.4f}, worst clip {mean.min():.4f}, worst slot {low.min():.3f}; "
            f"present {present.mean():.4f}; out of time by {np.abs(shift).max():.0f} ms at most"
        )


def _times_of(kind: str, end_s: float, random: np.random.Generator) -> list[float]:
    if kind == "variable rate":
        steps = random.choice([1 / 60, 1 / 30, 1 / 24, 0.06], int(end_s / 0.016))
        times = np.concatenate([[0.0], np.cumsum(steps)])
        return [float(time_s) for time_s in times if time_s <= end_s + 0.02]
    fps = float(kind.split()[0]) if kind.endswith("fps") else 25.0
    return [number / fps for number in range(int((end_s + 1e-6) * fps) + 1)]


def _nearest(shown: list[tuple[float, Picture]], time_s: float) -> Picture:
    """The picture at a moment, interpolated between the two pictures around it."""
    position = min(time_s / SLOT_S, len(shown) - 1)
    before = int(position)
    weight = position - before
    if weight < 1e-3 or before + 1 >= len(shown):
        return shown[before][1]
    mixed = (1 - weight) * shown[before][1].astype(np.float32) + weight * shown[before + 1][1]
    return mixed.astype(np.uint8)


def _compare(original: LipTrack, other: LipTrack) -> tuple[float, float, float, float]:
    """Mean and lowest correlation of the crops slot by slot, share of present slots, and delay of the copy in ms.

    The delay is the lag with the best correlation of the motion in the crops, refined between slots by a parabola.
    """
    count = min(len(original.crops), len(other.crops))
    values = [similarity(original.crops[slot], other.crops[slot]) for slot in range(count) if other.present[slot]]
    one, two = (
        np.diff(track.crops[:count].astype(np.float32), axis=0).reshape(count - 1, -1) for track in (original, other)
    )
    scores = []
    for lag in (-2, -1, 0, 1, 2):
        first, second = one[max(0, -lag) : len(one) - max(0, lag)], two[max(0, lag) : len(two) - max(0, -lag)]
        scores.append(similarity(first, second))
    best = int(np.argmax(scores))
    shift = float(best - 2)
    if 0 < best < 4:
        left, middle, right = scores[best - 1 : best + 2]
        shift += 0.5 * (left - right) / (left - 2 * middle + right)
    return float(np.mean(values)), float(np.min(values)), float(other.present[:count].mean()), 1000 * SLOT_S * shift


class OthersPreparation:
    """The steps of the MediaPipe preparation of mpc001/auto_avsr, written from their description, for timing only.

    All pictures are in memory. The full-range detector runs on each picture (the short-range detector if it finds no
    face at all). Eyes, nose and mouth are whole pixels; missing ones are interpolated. For each picture, the points are
    averaged over up to 13 pictures, a robust similarity maps them to a mean face, the grey picture is warped to 256x256
    pixels, and the 96x96 pixels around the mouth are cut out.
    """

    _REFERENCE = np.array([[95.0, 105.0], [161.0, 105.0], [128.0, 145.0], [128.0, 178.0]])

    def __init__(self) -> None:
        from mediapipe.python.solutions.face_detection import FaceDetection

        with quiet_stderr():
            self._detectors = [FaceDetection(min_detection_confidence=0.5, model_selection=model) for model in (1, 0)]
            for detector in self._detectors:
                detector.process(np.zeros((64, 64, 3), np.uint8))

    def __call__(self, path: Path) -> np.ndarray:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        for detector in self._detectors:
            points = [self._points(detector, rgb) for rgb in shown]
            known = {number: found for number, found in enumerate(points) if found is not None}
            if known:
                break
        else:
            raise RuntimeError("no face")
        filled = np.empty((len(shown), 4, 2))
        for part, axis in np.ndindex(4, 2):
            values = [found[part, axis] for found in known.values()]
            filled[:, part, axis] = np.interp(range(len(shown)), list(known), values)
        return np.stack([self._crop(rgb, filled, number) for number, rgb in enumerate(shown)])

    @staticmethod
    def _points(detector: Any, rgb: Picture) -> np.ndarray | None:
        height, width = rgb.shape[:2]
        found = None
        for detection in detector.process(rgb).detections or []:
            points = detection.location_data.relative_keypoints[:4]
            found = np.array([[int(point.x * width), int(point.y * height)] for point in points], np.float64)
        return found

    def _crop(self, rgb: Picture, points: np.ndarray, number: int) -> np.ndarray:
        margin = min(6, number, len(points) - 1 - number)
        smooth = points[number - margin : number + margin + 1].mean(axis=0)
        smooth += points[number].mean(axis=0) - smooth.mean(axis=0)
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        transform = cv2.estimateAffinePartial2D(smooth, self._REFERENCE, method=cv2.LMEDS)[0]
        warped = cv2.warpAffine(grey, transform, (256, 256))
        x, y = transform[:, :2] @ smooth[3] + transform[:, 2]
        left, top = round(min(max(x - 48, 0), 160)), round(min(max(y - 48, 0), 160))
        return warped[top : top + 96, left : left + 96].copy()


def speed(media: Path, finder: FaceFinder, seconds: float = 30.0, runs: int = 4) -> None:
    """Print the speed from a 720p file to crops, ours and the other preparation's, in turns on the same file."""
    shown = [cv2.resize(rgb, (900, 720), interpolation=cv2.INTER_CUBIC) for rgb in pictures(talkers(media)[0])]
    shown = [cv2.copyMakeBorder(rgb, 0, 0, 190, 190, cv2.BORDER_REPLICATE) for rgb in shown]
    bounced = [*shown, *shown[-2:0:-1]]  # played forth and back, so that there are no cuts
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "talk.mp4"
        write(
            path,
            [(number * SLOT_S, bounced[number % len(bounced)]) for number in range(round(seconds / SLOT_S))],
            crf=23,
        )
        kbps = path.stat().st_size * 8 / seconds / 1000
        print(f"speed: 1280x720, {seconds:.0f} s, {kbps:.0f} kbit/s, face of {round(900 / 360 * 120)} px or so")
        others = OthersPreparation()
        walls: dict[str, list[float]] = collections.defaultdict(list)
        cpus: dict[str, list[float]] = collections.defaultdict(list)
        for _ in range(runs):
            for name, work in (
                ("decoding alone", lambda: sum(1 for _ in read_ahead(iter_frames(path)))),
                ("avsr", lambda: extract_lips(path, finder=finder)),
                ("other", lambda: others(path)),
            ):
                started, used = time.perf_counter(), _cpu_s()
                work()
                wall_s, cpu_s = time.perf_counter() - started, _cpu_s() - used
                walls[name].append(wall_s)
                cpus[name].append(cpu_s)
                print(
                    f"speed: {name}: {seconds / wall_s:.1f} x real time, {1000 * cpu_s / seconds:.0f} CPU ms a second"
                )
        best = {name: min(values) for name, values in walls.items()}
        print(f"speed: best of {runs}: {seconds / best['avsr']:.1f} x real time, other {seconds / best['other']:.1f} x")
        for kind, taken in (("time", walls), ("CPU time", cpus)):
            ratios = [other / ours for ours, other in zip(taken["avsr"], taken["other"], strict=True)]
            print(
                f"speed: other's {kind} over ours, run by run {', '.join(f'{ratio:.2f}' for ratio in ratios)}, "
                f"median {np.median(ratios):.2f}"
            )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    sections = {section.__name__: section for section in (grid, small, false, pairs, copies, speed)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("media", type=Path)
    parser.add_argument("--only", default=",".join(sections), help="sections, joined by commas")
    arguments = parser.parse_args()
    with FaceFinder() as finder:
        for name in arguments.only.split(","):
            sections[name](arguments.media, finder)


if __name__ == "__main__":
    main()
