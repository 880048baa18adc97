"""Train the occlusion head, which says whether something is before a mouth: avsr/assets/occlusion.

    python recipes/train_occlusion.py work/grid/manifest.jsonl runs/occlusion

The lip crops show three talkers: splits train, train_other and video_only_other. Each crop becomes another face: it is
warped, bearded, made up, opened, given teeth. Drawn things cover its mouth or nearly so, and another camera takes the
picture. After each part of the training the network is judged on the development split, with other covers: by false
alarms, and by the covers it finds at each share of the mouth covered. Writes OUT/model.safetensors (16 bit).

Every picture depends on the seed and its number alone: the same seed gives the same weights on the same machine.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import DataLoader, Dataset

import avsr
from avsr.augment.video import occlude
from avsr.datasets.manifest import load_lips, read_manifest
from avsr.grid import CROP_PX
from avsr.lips.occlusion import LOOK_EVERY_SLOTS, CoverState, follow_cover
from avsr.training.occlusion import OcclusionHead, head_input, shipped_occlusion_head

TRAIN_SPLITS = ("train", "train_other", "video_only_other")
BATCH = 64
SPRITE_PX = 2 * CROP_PX
COVERED, FREE = 0.5, 0.2  # shares of the mouth from and to which it counts as one or the other
SHARES = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.01)

Picture = NDArray[np.float32]
Random = np.random.Generator


def mouth_mask() -> Picture:
    """Where lips are in a crop: [96, 96], 1 inside an ellipse of 46 by 22 pixels about the middle."""
    mask = np.zeros((CROP_PX, CROP_PX), np.uint8)
    cv2.ellipse(mask, (CROP_PX // 2, CROP_PX // 2), (23, 11), 0, 0, 360, 255, -1, cv2.LINE_AA)
    return mask.astype(np.float32) / 255


# -- things that come before a mouth: cover in [0, 1] and grey in [0, 255], both [192, 192], the thing in the middle --


def _smooth_noise(random: Random, size: int, cells: int) -> Picture:
    coarse = random.standard_normal((cells, cells)).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _line(image: Picture, start: NDArray, end: NDArray, width: float, value: float) -> None:
    points = [tuple(int(v * 16) for v in point) for point in (start, end)]
    cv2.line(image, points[0], points[1], value, max(1, round(width)), cv2.LINE_AA, 4)


def _ellipse(image: Picture, centre: NDArray, axes: tuple[float, float], angle_deg: float, value: float) -> None:
    middle = (round(float(centre[0])), round(float(centre[1])))
    cv2.ellipse(
        image, middle, (max(1, round(axes[0])), max(1, round(axes[1]))), angle_deg, 0, 360, value, -1, cv2.LINE_AA
    )


def _blank(random: Random, low: float = 20, high: float = 235) -> tuple[Picture, Picture]:
    grey = np.full((SPRITE_PX, SPRITE_PX), random.uniform(low, high), np.float32)
    return np.zeros_like(grey), grey + random.uniform(0, 15) * _smooth_noise(random, SPRITE_PX, 5)


MIDDLE = np.array([SPRITE_PX / 2, SPRITE_PX / 2])


def _fingers(random: Random) -> tuple[Picture, Picture]:
    cover, grey = _blank(random, 60, 220)
    width, count = random.uniform(10, 22), int(random.integers(1, 5))
    for finger in range(count):
        across = (finger - (count - 1) / 2) * width * random.uniform(0.9, 1.15)
        tip = MIDDLE + (random.uniform(-14, 34), across)
        start = MIDDLE + (-SPRITE_PX, across + random.uniform(-20, 20))
        _line(cover, start, tip, width, 1)
        _line(grey, start + (0, width / 2), tip + (0, width / 2), random.uniform(1, 3), float(grey.mean()) * 0.6)
        if random.random() < 0.5:  # a nail
            _ellipse(grey, tip - (2, 0), (width / 3, width / 3.5), 0, float(grey.mean()) * random.uniform(0.8, 1.25))
        for joint in random.uniform(15, 45, 2):
            _line(grey, tip - (joint, width / 3), tip - (joint, -width / 3), 1, float(grey.mean()) * 0.8)
    return cover, grey


def _palm(random: Random) -> tuple[Picture, Picture]:
    cover, grey = _blank(random, 60, 220)
    axes = (random.uniform(24, 46), random.uniform(20, 40))
    _ellipse(cover, MIDDLE, axes, random.uniform(-30, 30), 1)
    _line(cover, MIDDLE, MIDDLE + (random.uniform(-40, 40), SPRITE_PX), axes[0] * random.uniform(1.0, 1.6), 1)
    for finger in range(int(random.integers(0, 5))):
        angle = np.radians(-90 + 25 * (finger - 2) + random.uniform(-10, 10))
        _line(cover, MIDDLE, MIDDLE + random.uniform(45, 85) * np.array([np.cos(angle), np.sin(angle)]), 15, 1)
    for _ in range(int(random.integers(0, 6))):
        start = MIDDLE + random.uniform(-35, 35, 2)
        _line(grey, start, start + random.uniform(-40, 40, 2), random.uniform(1, 3), float(grey.mean()) * 0.75)
    return cover, grey


def _fist(random: Random) -> tuple[Picture, Picture]:
    cover, grey = _blank(random, 60, 220)
    width = random.uniform(11, 20)
    level = float(grey.mean())
    for knuckle in range(4):
        place = MIDDLE + ((knuckle - 1.5) * width * 1.3, random.uniform(-4, 4))
        _ellipse(cover, place, (width * 0.8, width * 1.5), random.uniform(-12, 12), 1)
        _ellipse(grey, place - (0, width * 0.5), (width * 0.5, width * 0.5), 0, level * random.uniform(1.0, 1.25))
        _line(grey, place + (width * 0.65, -width), place + (width * 0.65, width), random.uniform(1, 3), level * 0.6)
    _line(cover, MIDDLE + (0, width), MIDDLE + (random.uniform(-60, 60), SPRITE_PX), width * 4, 1)
    return cover, grey


def _microphone(random: Random) -> tuple[Picture, Picture]:
    cover, grey = _blank(random, 10, 130)
    radius = random.uniform(14, 44)
    axes = (radius, radius * random.uniform(0.8, 1.4))
    _ellipse(cover, MIDDLE, axes, 0, 1)
    grain = random.standard_normal(grey.shape).astype(np.float32)
    grey += random.uniform(5, 30) * cv2.GaussianBlur(grain, (0, 0), random.uniform(0.6, 1.6))
    if random.random() < 0.4:  # a grille
        step = int(random.integers(4, 9))
        grey[::step] += random.uniform(20, 90)
        grey[:, ::step] += random.uniform(20, 90)
    _ellipse(grey, MIDDLE - (radius / 3, radius / 3), (radius / 4, radius / 4), 0, float(grey.mean()) + 40)
    _line(cover, MIDDLE, MIDDLE + (random.uniform(-50, 50), SPRITE_PX), radius * random.uniform(0.5, 1.2), 1)
    return cover, grey


def _cup(random: Random) -> tuple[Picture, Picture]:
    cover, grey = _blank(random)
    top, bottom = random.uniform(24, 50), random.uniform(18, 45)
    height = random.uniform(50, 110)
    rim = MIDDLE[1] - random.uniform(15, 50)
    corners = np.array(
        [(-top, rim), (top, rim), (bottom, rim + height), (-bottom, rim + height)], np.float32
    ) + np.array([MIDDLE[0], 0], np.float32)
    cv2.fillConvexPoly(cover, np.rint(corners).astype(np.int32), 1, cv2.LINE_AA)
    tilt = random.uniform(0.05, 0.4)
    _ellipse(cover, np.array([MIDDLE[0], rim]), (top, top * tilt), 0, 1)
    if random.random() < 0.5:  # a print
        place = (int(MIDDLE[0] - random.uniform(0, 40)), int(MIDDLE[1] + random.uniform(-10, 30)))
        cv2.putText(
            grey,
            str(random.integers(10**4)),
            place,
            0,
            random.uniform(0.5, 1.6),
            random.uniform(0, 255),
            3,
            cv2.LINE_AA,
        )
    x = np.arange(SPRITE_PX, dtype=np.float32) - MIDDLE[0]
    grey += random.uniform(10, 70) * np.cos(x / top * random.uniform(0.6, 1.4) + random.uniform(-1, 1)) - 20
    _ellipse(grey, np.array([MIDDLE[0], rim]), (top * 0.92, top * tilt * 0.8), 0, float(grey.mean()) * 0.6)
    return cover, grey


def _card(random: Random) -> tuple[Picture, Picture]:
    """A box, a telephone, a book, a sheet of paper."""
    cover, grey = _blank(random, 5, 250)
    half = random.uniform(18, 70, 2)
    left, top = (MIDDLE - half).astype(int)
    right, bottom = (MIDDLE + half).astype(int)
    cover[max(0, top) : bottom, max(0, left) : right] = 1
    if random.random() < 0.6:  # text, a screen, a picture
        for row in range(top + 8, bottom - 6, int(random.integers(6, 14))):
            end = right - random.uniform(5, half[0])
            _line(grey, np.array([left + 6.0, row]), np.array([end, row]), random.uniform(1, 4), random.uniform(0, 255))
    if random.random() < 0.3:
        inset = int(random.integers(3, 12))
        grey[top + inset : bottom - inset, left + inset : right - inset] = random.uniform(0, 255)
    return cover, grey


def _scarf(random: Random) -> tuple[Picture, Picture]:
    """A scarf, a mask or a collar: all below a wavy line."""
    cover, grey = _blank(random, 15, 240)
    x = np.arange(SPRITE_PX)
    edge = MIDDLE[1] - random.uniform(8, 30) + random.uniform(-14, 14) * np.sin(x / random.uniform(15, 50) + x[0])
    edge += random.uniform(-0.004, 0.004) * (x - MIDDLE[0]) ** 2
    cover[np.arange(SPRITE_PX)[:, None] >= edge[None]] = 1
    if random.random() < 0.3:
        cover[int(MIDDLE[1] + random.uniform(20, 70)) :] = 0
    y = np.arange(SPRITE_PX, dtype=np.float32)[:, None] + 8 * _smooth_noise(random, SPRITE_PX, 6)
    period = random.uniform(4, 25)
    grey += random.uniform(0, 45) * np.sin(2 * np.pi * (y + random.uniform(-0.4, 0.4) * x[None]) / period)
    if random.random() < 0.4:  # knitted or woven
        grey += random.uniform(0, 25) * np.sin(2 * np.pi * x[None] / random.uniform(3, 10))
    return cover, grey


def _sleeve(random: Random) -> tuple[Picture, Picture]:
    cover, grey = _blank(random, 15, 235)
    away = np.array([SPRITE_PX, random.uniform(-60, 60)])
    _line(cover, MIDDLE - away * (random.random() < 0.6), MIDDLE + away, random.uniform(35, 90), 1)
    grey += random.uniform(5, 30) * _smooth_noise(random, SPRITE_PX, int(random.integers(6, 16)))
    return cover, grey


def _blob(random: Random) -> tuple[Picture, Picture]:
    """Nothing in particular, of any shape and texture."""
    cover, grey = _blank(random, 5, 250)
    y, x = np.mgrid[:SPRITE_PX, :SPRITE_PX].astype(np.float32) - SPRITE_PX / 2
    reach = random.uniform(18, 55)
    cover = ((x**2 + y**2) ** 0.5 < reach * (1 + 0.25 * _smooth_noise(random, SPRITE_PX, 6))).astype(np.float32)
    grey += random.uniform(0, 40) * _smooth_noise(random, SPRITE_PX, int(random.integers(3, 40)))
    return cover, grey


def _shipped(random: Random) -> tuple[Picture, Picture]:
    """The hand, microphone and box of `avsr.augment.video`, got at by covering black and white."""
    seed, share = int(random.integers(2**32)), float(random.uniform(0.03, 0.3))
    black, white = (
        occlude(np.full((1, SPRITE_PX, SPRITE_PX), value, np.uint8), np.random.default_rng(seed), share)[0].astype(
            np.float32
        )
        for value in (0, 255)
    )
    cover = 1 - (white - black) / 255
    return cover, black / np.maximum(cover, 0.05)


DRAWINGS: tuple[tuple[str, Callable[[Random], tuple[Picture, Picture]]], ...] = (
    ("shipped", _shipped),
    ("fingers", _fingers),
    ("palm", _palm),
    ("fist", _fist),
    ("microphone", _microphone),
    ("cup", _cup),
    ("card", _card),
    ("scarf", _scarf),
    ("sleeve", _sleeve),
    ("blob", _blob),
)


class Thing:
    """One thing to hold before a mouth. Its grey may be skin of another crop."""

    def __init__(self, number: int, seed: int, kind: int | None = None) -> None:
        random = np.random.default_rng([seed, number])
        self.kind, draw = DRAWINGS[number % len(DRAWINGS) if kind is None else kind]
        cover, grey = draw(random)
        self.cover = (255 * np.clip(cover, 0, 1)).astype(np.uint8)
        self.grey = np.clip(grey, 0, 255).astype(np.uint8)
        self.reach = float(np.sqrt(self.cover[48:144, 48:144].mean() / 255)) * 48

    def place(
        self, shift_px: tuple[float, float], angle_deg: float, scale: float, mirror: bool
    ) -> tuple[Picture, Picture]:
        """Cover and grey [96, 96] with its middle `shift_px` from the middle of the crop."""
        matrix = cv2.getRotationMatrix2D((SPRITE_PX / 2, SPRITE_PX / 2), angle_deg, scale)
        matrix[:, 2] += np.array(shift_px) - SPRITE_PX / 2 + CROP_PX / 2
        cover, grey = (
            cv2.warpAffine(image, matrix, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for image in (self.cover, self.grey)
        )
        if mirror:
            cover, grey = cover[:, ::-1], grey[:, ::-1]
        return cover.astype(np.float32) / 255, grey.astype(np.float32)


# -- other faces -------------------------------------------------------------------------------------------------------

_Y, _X = np.mgrid[:CROP_PX, :CROP_PX].astype(np.float32) - (CROP_PX - 1) / 2


def another_face(crop: Picture, mask: Picture, random: Random, strength: float = 1.0) -> tuple[Picture, Picture]:
    """Another shape of face and mouth, in another place: crop and mask of the mouth, [96, 96] each."""
    x, y = _X.copy(), _Y.copy()
    angle = np.radians(random.normal(0, 7) * strength)
    scale = np.exp(random.normal(0, 0.1) * strength)
    stretch = np.exp(random.normal(0, 0.08) * strength)
    x, y = x - random.normal(0, 3) * strength, y - random.normal(0, 3) * strength
    x, y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    x, y = x / scale * stretch, y / scale / stretch
    x = x + random.normal(0, 0.17) * strength * x**2 / 48  # turned sideways
    y = y + random.normal(0, 0.06) * strength * y**2 / 48  # up or down
    near = np.exp(-((x / 34) ** 2 + (y / 24) ** 2))  # the mouth: wide, full, smiling, askew
    bend = random.normal(-1, 4.5) * strength * (x / 24) ** 2
    x, y = (
        x * (1 - near * np.clip(random.normal(0.03, 0.2) * strength, -0.5, 0.45)),
        y * (1 - near * np.clip(random.normal(0, 0.25) * strength, -0.8, 0.5)) + near * bend,
    )
    bumps = random.uniform(0, 1.6) * strength
    x = x + bumps * _smooth_noise(random, CROP_PX, 5)
    y = y + bumps * _smooth_noise(random, CROP_PX, 5)
    if random.random() < 0.5:
        x = -x
    middle = np.float32((CROP_PX - 1) / 2)
    map_x, map_y = (x + middle).astype(np.float32), (y + middle).astype(np.float32)
    return (
        cv2.remap(crop, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        cv2.remap(mask, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT),
    )


def make_up(crop: Picture, mask: Picture, random: Random) -> Picture:
    """The crop with things that are no cover: lipstick, teeth, a beard, a moustache, shadows."""
    inside = mask > 0.5
    if not inside.any():
        return crop
    rows, columns = np.nonzero(inside)
    middle = np.array([columns.mean(), rows.mean()])
    half_x, half_y = float(np.ptp(columns)) / 2 + 1, float(np.ptp(rows)) / 2 + 1
    soft = cv2.GaussianBlur(mask, (0, 0), 2.0)
    if random.random() < 0.3:  # open, or a broad smile, perhaps with teeth
        hole = np.zeros_like(crop)
        axes = (half_x * random.uniform(0.4, 1.05), half_y * random.uniform(0.25, 1.1))
        _ellipse(hole, middle, axes, random.normal(0, 5), 1)
        hole = cv2.GaussianBlur(hole, (0, 0), random.uniform(0.6, 1.5))
        crop = crop * (1 - hole) + hole * crop.mean() * random.uniform(0.1, 0.6)
        if random.random() < 0.7:
            teeth = np.zeros_like(crop)
            place = middle + (0, axes[1] * random.uniform(-0.7, 0.3))
            _ellipse(teeth, place, (axes[0] * 0.85, max(1.0, axes[1] * random.uniform(0.2, 0.6))), 0, 1)
            teeth = cv2.GaussianBlur(teeth, (0, 0), 0.7) * hole
            crop = crop * (1 - teeth) + teeth * max(float(crop.max()), 150) * random.uniform(0.6, 1.2)
    if random.random() < 0.3:
        crop = crop * (1 + soft * random.uniform(-0.55, 0.5))
    grain = random.standard_normal(crop.shape).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), random.uniform(0.5, 1.5))
    grain /= grain.std()
    if random.random() < 0.25:  # a beard, of any length and colour
        hair = np.zeros_like(crop)
        _ellipse(hair, middle + (0, random.uniform(8, 22)), (random.uniform(28, 48), random.uniform(22, 40)), 0, 1)
        hair[: max(0, int(middle[1] - random.uniform(0, 14)))] = 0
        hair = cv2.GaussianBlur(hair, (0, 0), random.uniform(1, 5)) * (1 - soft) * random.uniform(0.4, 1.0)
        level = crop.mean() * (random.uniform(0.15, 0.7) if random.random() < 0.7 else random.uniform(0.9, 1.4))
        crop = crop * (1 - hair) + hair * (level + random.uniform(3, 20) * grain)
    if random.random() < 0.3:  # skin that shines: lips, chin, nose, cheeks
        shine = np.zeros_like(crop)
        for _ in range(int(random.integers(1, 6))):
            place = middle + random.normal(0, 18, 2)
            _ellipse(shine, place, (random.uniform(1, 8), random.uniform(1, 5)), random.uniform(0, 180), 1)
        crop = crop + cv2.GaussianBlur(shine, (0, 0), random.uniform(0.7, 4)) * random.uniform(10, 90)
    if random.random() < 0.2:  # another thing behind: hair, a wall, the dark, where a turned head ends
        direction = random.choice([0, np.pi]) + random.normal(0, 0.4)
        far = _X * np.cos(direction) + _Y * np.sin(direction) + random.uniform(0, 0.012) * _Y**2
        far -= random.uniform(min(half_x + 1, 43), 44) + float(
            np.dot(middle - 47.5, (np.cos(direction), np.sin(direction)))
        )
        behind = 1 / (1 + np.exp(-np.clip(far / random.uniform(0.4, 2), -30, 30)))
        crop = crop * (1 - behind) + behind * random.uniform(0, 230)
    if random.random() < 0.25:  # a moustache, at times over the upper lip
        hair = np.zeros_like(crop)
        place = middle - (0, half_y + random.uniform(-3, 6))
        _ellipse(hair, place, (half_x * random.uniform(0.6, 1.2), random.uniform(2, 6)), random.normal(0, 4), 1)
        hair = cv2.GaussianBlur(hair, (0, 0), random.uniform(0.7, 2)) * random.uniform(0.5, 1.0)
        crop = crop * (1 - hair) + hair * (crop.mean() * random.uniform(0.15, 0.8) + random.uniform(3, 20) * grain)
    if random.random() < 0.15:  # folds beside the mouth, wrinkles
        for side in (-1, 1):
            start = middle + (side * half_x * random.uniform(0.5, 0.9), -random.uniform(14, 26))
            fold = np.zeros_like(crop)
            _line(fold, start, middle + (side * half_x * random.uniform(1.0, 1.4), random.uniform(-4, 18)), 2, 1)
            crop = crop * (1 - cv2.GaussianBlur(fold, (0, 0), 1.2) * random.uniform(0.1, 0.4))
    if random.random() < 0.3:  # a shadow with an edge
        direction = random.uniform(0, 2 * np.pi)
        far = _X * np.cos(direction) + _Y * np.sin(direction) - random.uniform(-30, 30)
        far += random.uniform(0, 6) * _smooth_noise(random, CROP_PX, 5)
        crop = crop * (1 - random.uniform(0.2, 0.75) / (1 + np.exp(-np.clip(far / random.uniform(0.7, 8), -30, 30))))
    return crop


def camera(crop: Picture, random: Random) -> NDArray[np.uint8]:
    """Other light, lens, sensor and codec."""
    if random.random() < 0.5:
        direction = random.uniform(0, 2 * np.pi)
        crop = crop * (1 + random.uniform(0, 0.6) * (_X * np.cos(direction) + _Y * np.sin(direction)) / 48)
    crop = 255 * np.clip(crop / 255, 0, 1) ** np.exp(random.normal(0, 0.35))
    if random.random() < 0.3:  # dark skin, harsh light: any rising curve
        curve = np.cumsum(random.exponential(1.0, 5) + 0.1)
        knots = 255 * (curve - curve[0]) / (curve[-1] - curve[0])
        crop = np.interp(crop, np.linspace(0, 255, 5), knots).astype(np.float32)
    crop = (crop - crop.mean()) * random.uniform(0.25, 1.8) + random.uniform(20, 200)
    if random.random() < 0.35:
        crop = cv2.GaussianBlur(crop, (0, 0), random.uniform(0.5, 3.0))
    if random.random() < 0.15:  # moved
        kernel = np.zeros((9, 9), np.float32)
        reach = random.uniform(-4, 4, 2)
        _line(kernel, np.array([4, 4]) - reach, np.array([4, 4]) + reach, 1, 1)
        crop = cv2.filter2D(crop, -1, kernel / max(float(kernel.sum()), 1e-3))
    if random.random() < 0.3:
        side = int(random.integers(14, 64))
        small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
        crop = cv2.resize(small, (CROP_PX, CROP_PX), interpolation=cv2.INTER_LINEAR)
    if random.random() < 0.5:
        crop = crop + random.uniform(0, 9) * random.standard_normal(crop.shape).astype(np.float32)
    seen = np.clip(np.rint(crop), 0, 255).astype(np.uint8)
    if random.random() < 0.3:
        _, data = cv2.imencode(".jpg", seen, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(8, 60))])
        seen = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    return seen


def _skin(crop: Picture, random: Random) -> Picture:
    """A patch of a cheek or a chin, enlarged: what a hand is made of."""
    left = float(random.choice([0, 70]) if random.random() < 0.5 else random.uniform(20, 50))
    top = random.uniform(30, 60) if left < 20 or left == 70 else random.uniform(64, 76)
    side = int(random.integers(14, 22))
    patch = crop[int(top) : int(top) + side, int(left) : int(left) + side]
    return cv2.resize(patch, (CROP_PX, CROP_PX), interpolation=cv2.INTER_CUBIC)


class Drawn(Dataset[tuple[NDArray[np.uint8], np.float32]]):
    """Crops with a share of the mouth covered: item n is drawn from the seed and n."""

    def __init__(self, crops: list[NDArray[np.uint8]], things: list[Thing], count: int, seed: int) -> None:
        self.crops = crops  # by talker
        self.weights = np.array([2.0 if len(of_one) > 5000 else 1.0 for of_one in crops])
        self.weights /= self.weights.sum()
        self.things, self.count, self.seed = things, count, seed
        self.mask = mouth_mask()

    def __len__(self) -> int:
        return self.count

    def _crop(self, random: Random) -> Picture:
        of_one = self.crops[int(random.choice(len(self.crops), p=self.weights))]
        return of_one[int(random.integers(len(of_one)))].astype(np.float32)

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], np.float32]:
        random = np.random.default_rng([self.seed, number])
        crop, mask = another_face(self._crop(random), self.mask, random)
        if random.random() < 0.75:
            crop = make_up(crop, mask, random)
        share = 0.0
        for _ in range(int(random.choice([0, 1, 2], p=[0.3, 0.6, 0.1]))):
            thing = self.things[int(random.integers(len(self.things)))]
            near = random.random() < 0.6  # else anywhere, so that much is covered beside the mouth
            shift = random.normal(0, 9, 2) if near else random.uniform(-60, 60, 2)
            scale = float(np.exp(random.normal(0, 0.3)))
            upright = thing.kind in ("scarf", "cup")
            angle = random.normal(0, 12) if upright else random.uniform(0, 360)
            cover, grey = thing.place((shift[0], shift[1]), angle, scale, bool(random.random() < 0.5))
            if random.random() < 0.3:
                skin = _skin(self._crop(random), random)
                grey = skin + (grey - grey.mean()) * random.uniform(0.2, 1.0)
            if random.random() < 0.5:  # the same light as the face
                grey = (grey - grey.mean()) * random.uniform(0.3, 1.2) + crop.mean() * random.uniform(0.5, 1.5)
            blur = random.uniform(0, 2.5) if random.random() < 0.5 else 0.3
            cover, grey = (cv2.GaussianBlur(image, (0, 0), blur + 0.1) for image in (cover, grey))
            if random.random() < 0.3:  # it throws a shadow
                shadow = np.roll(cv2.GaussianBlur(cover, (0, 0), 3), random.integers(-5, 6, 2), (0, 1))
                crop = crop * (1 - random.uniform(0.1, 0.5) * shadow)
            crop = crop * (1 - cover) + grey * cover
            share = 1 - (1 - share) * (1 - float((cover * mask).sum() / max(float(mask.sum()), 1.0)))
        return camera(crop, random), np.float32(share)


# -- training ----------------------------------------------------------------------------------------------------------


class _Trainee(OcclusionHead):
    """The head with batch normalisation, which becomes part of its convolutions in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(layer.out_channels) for layer in self._layers()])
        self.dropout = nn.Dropout(0.3)

    def _layers(self) -> list[nn.Conv2d]:
        return [layer for layer in self.convolutions if isinstance(layer, nn.Conv2d)]

    def forward(self, pixels_BHW: Tensor) -> Tensor:
        x = pixels_BHW[:, None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
        return self.out(F.relu(self.flat(self.dropout(x.flatten(1)))))[:, 0]

    def fused(self) -> OcclusionHead:
        head = OcclusionHead()
        for index, (layer, norm) in enumerate(zip(self._layers(), self.norms, strict=True)):
            assert isinstance(norm, nn.BatchNorm2d)
            head.convolutions[index] = fuse_conv_bn_eval(layer.eval(), norm.eval())
        head.flat.load_state_dict(self.flat.state_dict())
        head.out.load_state_dict(self.out.state_dict())
        self.train()
        return head.half().float().eval()


def cover_loss(log_odds_B: Tensor, share_B: Tensor) -> Tensor:
    """Cross-entropy; shares in between count less, and in part for either."""
    target_B = ((share_B - FREE) / (COVERED - FREE)).clamp(0, 1)
    weight_B = torch.where((share_B > FREE) & (share_B < COVERED), 0.3, 1.0)
    return (
        F.binary_cross_entropy_with_logits(log_odds_B, target_B, reduction="none") * weight_B
    ).sum() / weight_B.sum()


# -- judging -----------------------------------------------------------------------------------------------------------


def covered_clip(
    crops_THW: NDArray[np.uint8], thing: Thing, random: Random
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A clip in which the thing covers the mouth, sways and leaves; and the share of the mouth covered, by slot."""
    slots = len(crops_THW)
    mask = mouth_mask()
    rest = random.normal(0, 11, 2)
    direction = random.uniform(0, 2 * np.pi)
    away = 90 * np.array([np.cos(direction), np.sin(direction)])
    comes, leaves, lasts = slots * 0.2, slots * 0.8, random.uniform(3, 10)
    angle = random.normal(0, 12) if thing.kind in ("scarf", "cup") else random.uniform(0, 360)
    scale, mirror = float(np.exp(random.normal(0, 0.2))), bool(random.random() < 0.5)
    phase, period, sway = random.uniform(0, 6, 2), random.uniform(20, 60, 2), random.uniform(0, 4, 2)
    covered, shares = np.empty_like(crops_THW), np.zeros(slots, np.float32)
    for t in range(slots):
        there = np.clip((t - comes) / lasts, 0, 1) * np.clip((leaves - t) / lasts, 0, 1)
        shift = rest + (1 - there) * away + sway * np.sin(2 * np.pi * t / period + phase)
        cover, grey = thing.place((shift[0], shift[1]), angle, scale, mirror)
        cover *= there > 0
        covered[t] = np.rint(crops_THW[t] * (1 - cover) + grey * cover)
        shares[t] = float((cover * mask).sum() / mask.sum())
    return covered, shares


def _held(shares_T: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Slots in which the mouth is covered, as in the five before."""
    padded = np.pad(shares_T >= COVERED, (5, 0))
    return np.lib.stride_tricks.sliding_window_view(padded, 6).all(1)


@torch.inference_mode()
def verdicts(crops_THW: NDArray[np.uint8], head: OcclusionHead) -> NDArray[np.bool_]:
    """Which slots of a clip count as covered."""
    state = CoverState()
    found = []
    for slot, value in enumerate(head(head_input(torch.from_numpy(crops_THW)))):
        if slot % LOOK_EVERY_SLOTS == 0:
            state = follow_cover(state, float(value))
        found.append(state.is_covered)
    return np.array(found)


class Judge:
    """Clips with and without covers, the same each time."""

    def __init__(self, clips: list[NDArray[np.uint8]], seed: int, num_things: int = 1) -> None:
        self.free = clips
        self.harmless, self.covered = [], []
        for number, clip in enumerate(clips):
            random = np.random.default_rng([seed, 1, number])
            face_seed = int(random.integers(2**32))
            changed = []
            for crop in clip:  # the same in each slot
                again = np.random.default_rng(face_seed)
                face, mask = another_face(crop.astype(np.float32), mouth_mask(), again)
                changed.append(camera(make_up(face, mask, again), again))
            self.harmless.append(np.stack(changed))
            for copy in range(num_things):
                index = number * num_things + copy
                thing = Thing(index, seed + 1000)
                self.covered.append((*covered_clip(clip, thing, np.random.default_rng([seed, 2, index])), thing.kind))

    def report(self, head: OcclusionHead) -> str:
        """Share of slots with a false alarm, and of covered slots that are found, by the share covered."""
        free = np.concatenate([verdicts(clip, head) for clip in self.free])
        harmless = np.concatenate([verdicts(clip, head) for clip in self.harmless])
        found = np.concatenate([verdicts(clip, head) for clip, _, _ in self.covered])
        share = np.concatenate([shares for _, shares, _ in self.covered])
        kinds = np.concatenate([[kind] * len(shares) for _, shares, kind in self.covered])
        held = np.concatenate([_held(shares) for _, shares, _ in self.covered])
        lines = [
            f"false alarms {free.mean():.2%} of {len(free)} slots, {harmless.mean():.2%} where changed and made up,"
            f" {found[share <= FREE].mean():.2%} with at most {FREE:.0%} covered; found of at least {COVERED:.0%}"
            f" covered: {found[share >= COVERED].mean():.1%}, from 0.2 s on {found[held].mean():.1%}"
        ]
        lines.append(
            "found by share: "
            + ", ".join(
                f"{low:.2f}-{min(high, 1):.2f}: {found[(share >= low) & (share < high)].mean():.0%}"
                for low, high in zip(SHARES[:-1], SHARES[1:], strict=True)
                if ((share >= low) & (share < high)).any()
            )
        )
        lines.append(
            f"found of at least {COVERED:.0%}, by thing: "
            + ", ".join(
                f"{kind} {found[(share >= COVERED) & (kinds == kind)].mean():.0%}"
                for kind in sorted(set(kinds))
                if ((share >= COVERED) & (kinds == kind)).any()
            )
        )
        return "\n  ".join(lines)


def read_clips(manifest: Path, splits: tuple[str, ...], step: int = 1) -> list[tuple[str, NDArray[np.uint8]]]:
    """The present crops of each clip, of talkers with more than 100 clips only each `step`-th, with its talker."""
    clips = []
    utterances = [u for u in read_manifest(manifest) if u.split in splits and u.video]
    of_talker = Counter(u.speaker for u in utterances)
    for utterance in utterances:
        crops, present = load_lips(utterance, manifest.parent)
        if present.any():
            clips.append(
                (utterance.speaker, crops[present][:: step if of_talker[utterance.speaker] > 100 else 1].copy())
            )
    if not clips:
        raise avsr.DataError(f"{manifest}: no clips with lips", expected=f"some of the splits {', '.join(splits)}")
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="of the prepared GRID corpus")
    parser.add_argument("output", type=Path, nargs="?", default=Path("runs/occlusion"))
    parser.add_argument("--pictures", type=int, default=140_000, help="to draw and train on, once each")
    parser.add_argument("--things", type=int, default=2000, help="to hold before mouths")
    parser.add_argument("--parts", type=int, default=5, help="after which it is judged")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--judge", metavar="SPLIT", help="judge the shipped head on a split, and train nothing")
    arguments = parser.parse_args()

    if arguments.judge is not None:
        clips = [clip for _, clip in read_clips(arguments.manifest, (arguments.judge,))]
        print(f"{arguments.judge}, {len(clips)} clips:")
        print("  " + Judge(clips, arguments.seed, max(1, 75 // len(clips))).report(shipped_occlusion_head()))
        return
    torch.manual_seed(arguments.seed)
    cv2.setNumThreads(1)  # pictures are small: threads would only wait for each other
    started = time.perf_counter()
    by_talker: dict[str, list[NDArray[np.uint8]]] = {}
    for talker, clip in read_clips(arguments.manifest, TRAIN_SPLITS, step=4):
        by_talker.setdefault(talker, []).append(clip)
    crops = [np.concatenate(clips) for clips in by_talker.values()]
    things = [Thing(number, arguments.seed) for number in range(arguments.things)]
    judge = Judge([clip for _, clip in read_clips(arguments.manifest, ("dev",))], arguments.seed)
    counts = ", ".join(f"{talker} {len(of_one)}" for talker, of_one in zip(by_talker, crops, strict=True))
    trainee = _Trainee()
    num_weights = sum(p.numel() for p in trainee.fused().parameters())
    print(
        f"crops of {counts}; {len(things)} things; {num_weights} weights, seed {arguments.seed}; "
        f"{time.perf_counter() - started:.0f} s to read and draw",
        flush=True,
    )
    drawn = DataLoader(
        Drawn(crops, things, arguments.pictures, arguments.seed),
        batch_size=BATCH,
        num_workers=arguments.workers,
        drop_last=True,
    )
    optimizer = torch.optim.AdamW(trainee.parameters(), lr=4e-3, weight_decay=2e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=len(drawn), pct_start=0.1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    target = arguments.output / "model.safetensors"
    losses: list[float] = []
    for step, (pictures_BHW, share_B) in enumerate(drawn, start=1):
        loss = cover_loss(trainee(head_input(pictures_BHW)), share_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % max(1, len(drawn) // arguments.parts) == 0 or step == len(drawn):
            head = trainee.fused()
            weights = {name: tensor.half().contiguous() for name, tensor in head.state_dict().items()}
            safetensors.torch.save_file(weights, target, metadata={"format": "pt"})
            spent = time.perf_counter() - started
            print(f"{step * BATCH} pictures, loss {np.mean(losses):.3f}, {spent:.0f} s; dev:\n  {judge.report(head)}")
            losses.clear()
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    try:
        main()
    except avsr.AvsrError as error:
        raise SystemExit(f"train_occlusion.py: {error}") from None
