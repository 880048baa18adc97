"""Random changes of lip crops for training: view, light, sharpness, occluders, frozen pictures, slots without lips.

Letters: T slots of 40 ms, H W pixels. Crops are uint8 [T, 96, 96] and present is bool [T]. Random numbers come from the
generator that is passed in. No function writes to its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Crops, Present
from avsr.grid import LIP_INPUT_PX

Effect = dict[str, object]
"""The record of a change: its name under "effect", and the parameters that were drawn."""


HIDING_EFFECTS = ("occluder", "low_resolution", "blur", "frozen", "time_mask", "dropped", "late")
"""Effects after which lips may say nothing, or say it at another time."""


@dataclass(frozen=True, kw_only=True)
class LipEffects:
    """The probability of each effect on a clip, 0 to 1. The strength is drawn from the range that stands beside it."""

    occluder: float = 0.0
    """A hand, microphone or box covers 5 to 60 % of the picture, in the whole clip or a part of it."""
    light: float = 0.0
    """Brightness (-0.2 to 0.2 of the range), contrast (0.6 to 1.5) and gamma (0.6 to 1.6) change."""
    low_resolution: float = 0.0
    """The crop is reduced to 16 to 64 pixels a side."""
    blur: float = 0.0
    """A Gaussian blur with a standard deviation of 0.5 to 3 pixels."""
    compression: float = 0.0
    """JPEG with a quality of 5 to 40."""
    frozen: float = 0.0
    """One picture stays for 2 to 20 slots, or to the end."""
    time_mask: float = 0.0
    """For each 25 slots, a run of up to 10 slots shows the mean picture of the clip (Auto-AVSR, arXiv 2303.14307)."""
    dropped: float = 0.0
    """10 to 90 % of the slots, drawn one by one, lose their lips (present becomes False)."""
    face: float = 0.0
    """Another face: size, shape and height of the mouth, light from a side, a beard (`another_face`)."""
    late: float = 0.0
    """The lips come 200 to 600 ms late or early."""

    def __post_init__(self) -> None:
        for effect in fields(self):
            _require(0 <= getattr(self, effect.name) <= 1, effect.name, getattr(self, effect.name), "0 to 1")


def apply_effects(
    crops_THW: Crops, present_T: Present, effects: LipEffects, random: np.random.Generator
) -> tuple[Crops, Present, list[Effect]]:
    """Crops and present after random effects, in the order of the fields of `LipEffects`, and a record of each."""
    done: list[Effect] = []
    T = len(crops_THW)
    # All chances are drawn first, so that switching one effect on leaves the chances of the others unchanged.
    for name in [effect.name for effect in fields(effects) if random.random() < getattr(effects, effect.name)]:
        if T == 0:
            break
        record: Effect = {"effect": name}
        match name:
            case "occluder":
                covered_THW, record = _occluded(crops_THW, random, float(random.uniform(0.05, 0.6)))
                length = int(random.integers(1, 2 * T + 1))  # the whole clip half of the time
                first = int(random.integers(0, max(0, T - length) + 1))
                crops_THW = crops_THW.copy()
                crops_THW[first : first + length] = covered_THW[first : first + length]
                record |= {"first": first, "last": min(T, first + length) - 1}
            case "light":
                light = [round(float(random.uniform(*span)), 3) for span in ((-0.2, 0.2), (0.6, 1.5), (0.6, 1.6))]
                record |= zip(("brightness", "contrast", "gamma"), light, strict=True)
                crops_THW = relight(crops_THW, *light)
            case "low_resolution":
                record["side_px"] = side_px = int(random.integers(16, 65))
                crops_THW = low_resolution(crops_THW, side_px)
            case "blur":
                record["sigma_px"] = sigma_px = round(float(random.uniform(0.5, 3.0)), 3)
                crops_THW = blur(crops_THW, sigma_px)
            case "compression":
                record["quality"] = quality = int(random.integers(5, 41))
                crops_THW = compress(crops_THW, quality)
            case "frozen":
                first = int(random.integers(0, T))
                last = T - 1 if random.random() < 0.3 else min(T - 1, first + int(random.integers(1, 20)))
                record |= {"first": first, "last": last}
                crops_THW, present_T = freeze(crops_THW, present_T, first, last)
            case "time_mask":
                crops_THW, record["spans"] = _time_masked(crops_THW, present_T, random)
            case "dropped":
                record["share"] = share = round(float(random.uniform(0.1, 0.9)), 3)
                present_T = drop_slots(present_T, random, share)
            case "face":
                crops_THW, record = another_face(crops_THW, random)
            case "late":
                record["slots"] = slots = int(random.integers(5, 16) * random.choice([-1, 1]))
                crops_THW, present_T = shift_slots(crops_THW, present_T, slots)
        done.append(record)
    return crops_THW, present_T, done


def vary_lips(crops_THW: Crops, strength: float, random: np.random.Generator) -> tuple[Crops, Effect]:
    """A clip in a slightly different view, [T, 96, 96] -> [T, 88, 88], and a record of the change.

    The clip is shifted (up to 5 px), turned (up to 8 degrees), scaled (up to 12 %) and, with probability 1/2, mirrored;
    every crop of the clip changes alike. One clip in five also loses resolution.

    strength: scales all ranges and the probability of the lost resolution, 0 to 1.
    """
    mirrored = bool(random.random() < 0.5)
    shift_px = [float(value) for value in random.uniform(-5, 5, 2) * strength]
    angle_deg = float(random.uniform(-8, 8) * strength)
    scale = float(1 + random.uniform(-0.12, 0.12) * strength)
    done: Effect = {"effect": "view", "mirrored": mirrored, "angle_deg": round(angle_deg, 3), "scale": round(scale, 3)}
    done["shift_px"] = [round(value, 3) for value in shift_px]
    # One affine map does all of it. OpenCV takes a fifth of the time of torchvision's affine.
    side = crops_THW.shape[-1]
    middle = (side - 1) / 2
    to_view_23 = cv2.getRotationMatrix2D((middle, middle), -angle_deg, scale)
    if mirrored:
        to_view_23 = to_view_23 @ np.array([[-1.0, 0.0, side - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    to_view_23[:, 2] += np.array(shift_px) - (side - LIP_INPUT_PX) / 2
    small = int(random.integers(24, 56)) if random.random() < 0.2 * strength else None
    # Mean grey, because a black edge would be a sharp line that no real crop has.
    fill = float(crops_THW.mean())
    views = []
    for crop in crops_THW:
        view = cv2.warpAffine(crop, to_view_23, (LIP_INPUT_PX, LIP_INPUT_PX), borderValue=fill)
        if small is not None:
            view = cv2.resize(view, (small, small), interpolation=cv2.INTER_AREA)
            view = cv2.resize(view, (LIP_INPUT_PX, LIP_INPUT_PX), interpolation=cv2.INTER_LINEAR)
        views.append(view)
    if small is not None:
        done["side_px"] = small
    return np.stack(views) if views else crops_THW[:, :LIP_INPUT_PX, :LIP_INPUT_PX], done


def another_face(crops_THW: Crops, random: np.random.Generator) -> tuple[Crops, Effect]:
    """A clip as of another person, the same change in every crop, and a record of it. The movements stay.

    The mouth becomes up to 30 % wider or narrower and taller or flatter, and moves up or down by 6 px; the rest of the
    face bends by up to 4 px. Light falls from one side. One clip in three gets hair around the mouth: a moustache, a
    beard on the chin, or both, of a random darkness.
    """
    _, height, width = crops_THW.shape
    wide, tall = (float(value) for value in np.exp(random.uniform(-0.27, 0.27, 2)))
    down_px = float(random.uniform(-6, 6))
    bends_2GG = random.uniform(-4, 4, (2, 4, 4)).astype(np.float32)
    side, slope = float(random.uniform(-np.pi, np.pi)), float(random.uniform(0, 0.6))
    hair = str(random.choice(["none", "none", "none", "none", "moustache", "beard", "both"]))
    record: Effect = {"effect": "face", "wide": round(wide, 3), "tall": round(tall, 3), "hair": hair}

    x_HW, y_HW = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    across_HW, below_HW = (x_HW - (width - 1) / 2) / width, (y_HW - (height - 1) / 2) / height
    # Around the mouth, the middle of the crop, the change is whole; it fades towards the border.
    near_HW = np.exp(-((across_HW / 0.42) ** 2 + (below_HW / 0.36) ** 2))
    map_x_HW = x_HW + near_HW * across_HW * width * (1 / wide - 1) + cv2.resize(bends_2GG[0], (width, height))
    map_y_HW = (
        y_HW + near_HW * (below_HW * height * (1 / tall - 1) - down_px) + cv2.resize(bends_2GG[1], (width, height))
    )
    light_HW = 1 + slope * (across_HW * np.cos(side) + below_HW * np.sin(side))
    cover_HW, grey_HW = _hair(hair, across_HW, below_HW - down_px / height, random)
    changed = np.empty_like(crops_THW)
    for t, crop in enumerate(crops_THW):
        moved_HW = cv2.remap(crop, map_x_HW, map_y_HW, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        lit_HW = moved_HW * light_HW * (1 - cover_HW) + grey_HW * cover_HW
        changed[t] = np.clip(np.rint(lit_HW), 0, 255)
    return changed, record


def _hair(
    kind: str, across_HW: NDArray[np.float32], below_HW: NDArray[np.float32], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cover in [0, 1] and grey in [0, 255] of hair around a mouth in the middle of the crop."""
    if kind == "none":
        return np.zeros_like(across_HW), np.zeros_like(across_HW)
    depth = float(random.uniform(0.2, 0.7))
    grain_HW = cv2.GaussianBlur(random.standard_normal(across_HW.shape).astype(np.float32), (0, 0), 0.8)
    where_HW = np.zeros_like(across_HW)
    if kind != "beard":  # above the upper lip
        where_HW = np.maximum(where_HW, _blob(across_HW / 0.3, (below_HW + 0.22) / 0.09))
    if kind != "moustache":  # the chin, and the cheeks beside it
        where_HW = np.maximum(where_HW, _blob(across_HW / 0.45, (below_HW - 0.42) / 0.22))
        where_HW = np.maximum(where_HW, _blob((np.abs(across_HW) - 0.45) / 0.12, (below_HW - 0.1) / 0.5))
    grey = float(random.uniform(10, 90))
    return (depth * where_HW * (0.8 + 0.4 * grain_HW).clip(0, 1)).astype(np.float32), grey + 25 * grain_HW


def _blob(x_HW: NDArray[np.float32], y_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 inside an ellipse of radius 1, falling to 0 around it."""
    return 1 / (1 + np.exp(8 * (np.hypot(x_HW, y_HW) - 1)))


def hide_slots(present_T: Present, longest: int, random: np.random.Generator) -> tuple[Present, Effect]:
    """Present without one random run of up to `longest` slots, and a record of the run."""
    present_T = present_T.copy()
    length = int(random.integers(0, longest + 1))
    start = int(random.integers(0, max(1, len(present_T) - length + 1)))
    present_T[start : start + length] = False
    return present_T, {"effect": "hidden", "first": start, "last": start + length - 1}


# -- effects of a camera, a codec or a hand --------------------------------------------------------------------------
# These repeat exactly and take crops of any size [T, H, W]. Evaluation uses them as conditions.


def blur(crops_THW: Crops, sigma_px: float) -> Crops:
    """Crops out of focus: a Gaussian blur with a standard deviation of `sigma_px` pixels; 0 changes nothing."""
    _require(math.isfinite(sigma_px) and sigma_px >= 0, "sigma_px", sigma_px, "0 or more")
    if sigma_px == 0:
        return crops_THW.copy()
    return _each(crops_THW, lambda crop: cv2.GaussianBlur(crop, (0, 0), sigma_px))  # 7 times as fast as torchvision's


def low_resolution(crops_THW: Crops, side_px: int) -> Crops:
    """Crops as of a distant face: reduced to `side_px` pixels a side by area averaging, then enlarged again."""
    height, width = crops_THW.shape[1:]
    _require(1 <= side_px <= min(height, width), "side_px", side_px, f"1 to {min(height, width)}")

    def coarse(crop: Crops) -> Crops:
        small = cv2.resize(crop, (side_px, side_px), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)

    return _each(crops_THW, coarse)


def compress(crops_THW: Crops, quality: int) -> Crops:
    """Crops after JPEG with a quality from 1 (visible blocks of 8 pixels) to 100 (hardly a change)."""
    _require(1 <= quality <= 100, "quality", quality, "1 to 100")

    def coded(crop: Crops) -> Crops:
        _, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
        return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)

    return _each(crops_THW, coded)


def relight(crops_THW: Crops, brightness: float, contrast: float, gamma: float = 1.0) -> Crops:
    """Crops in other light, the same for the whole clip.

    A grey value g in [0, 1] becomes contrast * (g^gamma - 0.5) + 0.5 + brightness, clipped to [0, 1]. Brightness 0,
    contrast 1 and gamma 1 change nothing.
    """
    _require(math.isfinite(brightness + contrast + gamma), "light", (brightness, contrast, gamma), "finite numbers")
    _require(gamma > 0, "gamma", gamma, "more than 0")
    grey = np.linspace(0.0, 1.0, 256) ** gamma
    # There are 256 grey values, so one table serves all pixels of the clip.
    table = np.rint(255 * np.clip(contrast * (grey - 0.5) + 0.5 + brightness, 0.0, 1.0)).astype(np.uint8)
    return table[crops_THW]


def occlude(crops_THW: Crops, random: np.random.Generator, share: float) -> Crops:
    """Crops with a drawn hand, microphone or box in front of the mouth.

    share: part of the picture that it covers, 0 to 1, within 0.02. It lies near the middle and sways by a few pixels.

    The function does not return `present`, because a face finder may or may not find a covered mouth.
    """
    return _occluded(crops_THW, random, share)[0]


def drop_slots(present_T: Present, random: np.random.Generator, share: float) -> Present:
    """Present without a random `share` (0 to 1) of its present slots, rounded to whole slots."""
    _require(0 <= share <= 1, "share", share, "0 to 1")
    present = np.flatnonzero(present_T)
    kept = present_T.copy()
    kept[random.permutation(present)[: round(share * len(present))]] = False
    return kept


def shift_slots(crops_THW: Crops, present_T: Present, slots: int) -> tuple[Crops, Present]:
    """Crops and present moved later by `slots` slots of 40 ms, or earlier if negative, relative to the sound.

    Slots that become free are zero and not present. Slots that are moved out of the clip are lost.
    """
    moved, moved_present = np.zeros_like(crops_THW), np.zeros_like(present_T)
    count = len(crops_THW)
    source, target = max(0, -slots), max(0, slots)
    length = max(0, count - abs(slots))
    moved[target : target + length] = crops_THW[source : source + length]
    moved_present[target : target + length] = present_T[source : source + length]
    return moved, moved_present


def freeze(crops_THW: Crops, present_T: Present, first: int, last: int) -> tuple[Crops, Present]:
    """Crops and present with a frozen picture: slots `first` to `last`, inclusive, are copies of slot `first`."""
    count = len(crops_THW)
    _require(0 <= first <= last < count, "first, last", (first, last), f"0 <= first <= last < {count}")
    frozen_THW, frozen_present_T = crops_THW.copy(), present_T.copy()
    frozen_THW[first : last + 1], frozen_present_T[first : last + 1] = crops_THW[first], present_T[first]
    return frozen_THW, frozen_present_T


OCCLUDERS = ("hand", "microphone", "box")
_SWAY_PX = 6


def _occluded(
    crops_THW: Crops, random: np.random.Generator, share: float, kind: str | None = None
) -> tuple[Crops, Effect]:
    _require(0 <= share <= 1, "share", share, "0 to 1")
    T, height, width = crops_THW.shape
    kind = kind or str(random.choice(OCCLUDERS))
    draw = _Drawing(kind, random, height, width)
    low, high = 0.0, 12.0
    for _ in range(13):  # bisection for the size that covers the share
        scale = (low + high) / 2
        low, high = (scale, high) if draw.render(scale)[0][draw.inside].mean() < share else (low, scale)
    cover_HW, grey_HW = draw.render(high)
    record: Effect = {"effect": "occluder", "kind": kind, "share": round(share, 3)}
    if share == 0:
        return crops_THW.copy(), record
    # A slow sway by whole pixels: the drawing is larger than the crop, and another part of it is cut out each time.
    phase, period = random.uniform(0, 2 * np.pi, 2), random.uniform(20, 60, 2)
    sway_T2 = np.rint(
        random.uniform(0, _SWAY_PX, 2) * np.sin(2 * np.pi * np.arange(T)[:, None] / period + phase)
    ).astype(int)
    covered = np.empty_like(crops_THW)
    for t, (down, right) in enumerate(sway_T2):
        top, left = _SWAY_PX - down, _SWAY_PX - right
        cover = cover_HW[top : top + height, left : left + width]
        grey = grey_HW[top : top + height, left : left + width]
        covered[t] = np.rint(crops_THW[t] * (1 - cover) + grey * cover)
    return covered, record


def _time_masked(
    crops_THW: Crops, present_T: Present, random: np.random.Generator
) -> tuple[Crops, list[tuple[int, int]]]:
    T = len(crops_THW)
    masked_THW, spans = crops_THW.copy(), []
    # Absent crops are zero and would darken the mean.
    mean_HW = np.rint(crops_THW[present_T].mean(axis=0)) if present_T.any() else 0
    for _ in range(-(-T // 25)):
        length = int(random.integers(0, 11))
        first = int(random.integers(0, max(1, T - length + 1)))
        masked_THW[first : first + length] = mean_HW
        if length:
            spans.append((first, min(T, first + length) - 1))
    return masked_THW, spans


class _Drawing:
    """One occluder that can be drawn at any size, with a margin of `_SWAY_PX` pixels around the crop."""

    def __init__(self, kind: str, random: np.random.Generator, height: int, width: int) -> None:
        self.kind, self.height, self.width = kind, height, width
        self.inside = (slice(_SWAY_PX, _SWAY_PX + height), slice(_SWAY_PX, _SWAY_PX + width))
        middle = np.array([width, height]) / 2 + _SWAY_PX
        self.centre = middle + random.uniform(-0.12, 0.12, 2) * (width, height)
        self.angle = float(random.uniform(-np.pi, np.pi))  # direction of the arm, the shaft or the long side
        self.grey = float(random.uniform(90, 200) if kind == "hand" else random.uniform(10, 230))
        self.aspect = float(random.uniform(0.5, 1.0))
        self.spread = random.uniform(0.9, 1.1, 5)
        shape = (height + 2 * _SWAY_PX, width + 2 * _SWAY_PX)
        grain = cv2.GaussianBlur(random.standard_normal(shape).astype(np.float32), (0, 0), 1.0)
        x, y = np.meshgrid(np.arange(shape[1]) - middle[0], np.arange(shape[0]) - middle[1])
        slope = float(random.uniform(-40, 40)) / width
        self.shade = slope * (x * np.cos(self.angle) + y * np.sin(self.angle)) + 8 * grain  # light from one side

    def render(self, scale: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cover in [0, 1] and grey in [0, 255] of each pixel; at scale 1 the object is half as wide as the crop."""
        size = 0.25 * scale * min(self.height, self.width)
        cover = np.zeros(self.shade.shape, np.uint8)
        lines = np.zeros(self.shade.shape, np.uint8)  # darker lines: between the fingers, the grille of the microphone
        along = np.array([np.cos(self.angle), np.sin(self.angle)])
        across = np.array([-along[1], along[0]])
        end = 3 * max(self.height, self.width)
        if self.kind == "box":
            corners = [
                self.centre + size * (a * along + b * self.aspect * across)
                for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
            ]
            cv2.fillConvexPoly(cover, _fixed(corners), 255, cv2.LINE_AA, _SHIFT)
        elif self.kind == "microphone":
            _capsule(cover, self.centre, self.centre + end * along, 0.35 * size)
            cv2.circle(cover, _fixed([self.centre])[0].tolist(), round(size * 2**_SHIFT), 255, -1, cv2.LINE_AA, _SHIFT)
            for step in np.arange(-1.0, 1.01, 0.25):
                for one, other in ((along, across), (across, along)):
                    half = size * math.sqrt(max(0.0, 1 - step**2))
                    middle = self.centre + step * size * one
                    _capsule(lines, middle - half * other, middle + half * other, 0.04 * size)
        else:
            _capsule(cover, self.centre, self.centre + end * along, 0.75 * size)  # the wrist
            _capsule(cover, self.centre - 0.25 * size * across, self.centre + 0.25 * size * across, 0.8 * size)
            for finger, spread in enumerate(self.spread[:4]):
                root = self.centre + (0.44 * finger - 0.66) * size * across
                direction = -along + (0.12 * finger - 0.18) * across
                tip = root + (1.5 + 0.25 * (finger in (1, 2))) * spread * size * direction
                _capsule(cover, root, tip, 0.22 * size)
                if finger:
                    _capsule(lines, root - 0.22 * size * across, tip - 0.22 * size * across, 0.04 * size)
            thumb = self.centre + 0.6 * size * across
            _capsule(cover, thumb, thumb + self.spread[4] * size * (0.9 * across - 0.7 * along), 0.24 * size)
        grey = self.grey + self.shade - 0.35 * self.grey * (lines / 255.0)
        return (cover / np.float32(255)).astype(np.float32), np.clip(grey, 0, 255).astype(np.float32)


_SHIFT = 4  # OpenCV draws at sixteenths of a pixel


def _fixed(points: Sequence[NDArray[np.float64]]) -> NDArray[np.int32]:
    """Points in the fixed-point numbers of OpenCV."""
    return np.rint(np.array(points) * 2**_SHIFT).astype(np.int32)


def _capsule(image: Crops, start: NDArray[np.float64], end: NDArray[np.float64], radius: float) -> None:
    """Draw a thick line with round ends into `image`."""
    away = end - start
    length = float(np.hypot(*away))
    side = np.array([-away[1], away[0]]) / max(length, 1e-6) * radius
    cv2.fillConvexPoly(image, _fixed([start + side, end + side, end - side, start - side]), 255, cv2.LINE_AA, _SHIFT)
    for point in (start, end):
        cv2.circle(image, _fixed([point])[0].tolist(), round(radius * 2**_SHIFT), 255, -1, cv2.LINE_AA, _SHIFT)


def _each(crops_THW: Crops, change: Callable[[Crops], Crops]) -> Crops:
    changed = np.empty_like(crops_THW)
    for t, crop in enumerate(crops_THW):
        changed[t] = change(crop)
    return changed


def _require(is_valid: bool, name: str, got: object, expected: str) -> None:
    if not is_valid:
        raise ValueError(f"{name}: got {got}, expected {expected}")
