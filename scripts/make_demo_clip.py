#!/usr/bin/env python3
"""Make the demo clip: a drawn face that says one GRID sentence with a synthetic voice, so that it belongs to nobody.

    python scripts/make_demo_clip.py avsr/assets/demo.mp4

640x480, 25 frames/s, H.264 and AAC. The sentence goes beside it, to the same name with the suffix .txt. The mouth follows
the phonemes of the voice. Needs the eSpeak NG library, see espeak.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import espeak
import numpy as np
from make_synthetic_voices import DEMO_SENTENCE

from avsr.errors import AvsrError

WIDTH, HEIGHT, FPS = 640, 480, 25
SAMPLE_RATE = 22_050  # eSpeak's own
DURATION_S = 3.52
LEAD_S = 0.75  # silence before the voice
VOICE, RATE_WPM, PITCH = "en+f2", 150, 45

# ---------------------------------------------------------------------------------------------------------------------
# Speech to mouth shapes
# ---------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Mouth:
    """A mouth shape; every value from 0 to 1.

    opening: height between the lips. width: corners pulled apart. rounding: corners pulled in, lips forward. pressing:
    lips thinned against each other. tucking: lower lip under the upper teeth. tongue: its tip behind the teeth.
    """

    opening: float = 0.0
    width: float = 0.35
    rounding: float = 0.0
    pressing: float = 0.0
    tucking: float = 0.0
    tongue: float = 0.0


REST = Mouth()
# By eSpeak's phoneme names; a diphthong is two shapes, one after the other.
VISEMES: dict[str, tuple[Mouth, ...]] = {
    **dict.fromkeys(["p", "b", "m"], (Mouth(0.0, 0.3, 0.0, 1.0),)),
    **dict.fromkeys(["f", "v"], (Mouth(0.14, 0.4, 0.0, 0.0, 1.0),)),
    **dict.fromkeys(["T", "D"], (Mouth(0.2, 0.4, 0.0, 0.0, 0.0, 1.0),)),
    **dict.fromkeys(["s", "z"], (Mouth(0.16, 0.65),)),
    **dict.fromkeys(["t", "d", "n"], (Mouth(0.2, 0.45, 0.0, 0.0, 0.0, 0.6),)),
    "l": (Mouth(0.28, 0.4, 0.0, 0.0, 0.0, 1.0),),
    **dict.fromkeys(["S", "Z", "tS", "dZ"], (Mouth(0.24, 0.1, 0.55),)),
    **dict.fromkeys(["k", "g", "h", "N"], (Mouth(0.3, 0.4),)),
    "r": (Mouth(0.24, 0.1, 0.55),),
    "j": (Mouth(0.22, 0.7),),
    "w": (Mouth(0.12, 0.0, 1.0),),
    **dict.fromkeys(["i:", "i", "I", "I2"], (Mouth(0.3, 1.0),)),
    **dict.fromkeys(["E", "e"], (Mouth(0.62, 0.6),)),
    **dict.fromkeys(["a", "a2", "aa"], (Mouth(0.92, 0.5),)),
    **dict.fromkeys(["A:", "A@", "0", "V"], (Mouth(0.9, 0.2, 0.15),)),
    **dict.fromkeys(["@", "3", "a#", "3:"], (Mouth(0.4, 0.35),)),
    **dict.fromkeys(["u:", "U", "u"], (Mouth(0.18, 0.0, 0.95),)),
    **dict.fromkeys(["O:", "O@", "o@", "o", "O"], (Mouth(0.55, 0.0, 0.8),)),
    "eI": (Mouth(0.55, 0.65), Mouth(0.3, 0.95)),
    "aI": (Mouth(0.9, 0.4), Mouth(0.35, 0.85)),
    "aU": (Mouth(0.9, 0.35), Mouth(0.25, 0.0, 0.85)),
    "oU": (Mouth(0.5, 0.2, 0.4), Mouth(0.22, 0.0, 0.9)),
    "i@": (Mouth(0.3, 0.95), Mouth(0.4, 0.4)),
}
# The lips must meet for p, b, m and bite for f, v, whatever their neighbours do.
_DOMINANCE = {**dict.fromkeys("pbm", 6.0), **dict.fromkeys("fv", 4.0), "w": 2.5, "u:": 1.5}
_SMOOTHING_S = 0.032  # standard deviation; a shape takes about 60 ms to form
_MOUTH_LEAD_S = 0.04  # mouths move before the sound comes


def mouth_track(phonemes: Sequence[espeak.Span], duration_s: float) -> list[Mouth]:
    """The mouth shape of every frame, for phonemes at the times given (seconds).

    Each phoneme pulls the mouth towards its shape with a weight of its own, before and after its time as well (Cohen and
    Massaro 1993, "Modeling coarticulation in synthetic visual speech").
    """
    step_s = 0.002
    times = np.arange(0, duration_s, step_s)
    targets = np.tile(dataclasses.astuple(REST), (len(times), 1))
    weights = np.full(len(times), 0.6)
    for phoneme in phonemes:
        shapes = VISEMES.get(phoneme.name)
        if shapes is None:  # glides and other marks between sounds
            continue
        edges = np.linspace(phoneme.start, phoneme.end, len(shapes) + 1) - _MOUTH_LEAD_S
        for shape, start, end in zip(shapes, edges[:-1], edges[1:], strict=True):
            inside = (times >= start) & (times < end)
            targets[inside] = dataclasses.astuple(shape)
            weights[inside] = _DOMINANCE.get(phoneme.name, 1.0)
    reach = np.arange(-4 * _SMOOTHING_S, 4 * _SMOOTHING_S, step_s)
    kernel = np.exp(-0.5 * (reach / _SMOOTHING_S) ** 2)
    total = np.convolve(weights, kernel, "same")
    smooth = np.stack([np.convolve(weights * column, kernel, "same") / total for column in targets.T], axis=1)
    return [Mouth(*smooth[min(round(frame / FPS / step_s), len(times) - 1)]) for frame in range(round(duration_s * FPS))]


# ---------------------------------------------------------------------------------------------------------------------
# Drawing. Coordinates are pixels of the final picture, x to the right, y down, from the point between the eyes.
# Layers are float32 [H, W, 4], blue green red in 0-255 and premultiplied alpha in 0-1, drawn at twice the size.
# ---------------------------------------------------------------------------------------------------------------------

SCALE = 2
CENTRE = np.array([320.0, 222.0])
_H, _W = HEIGHT * SCALE, WIDTH * SCALE

Color = tuple[float, float, float]


def rgb(code: str) -> Color:
    """"#rrggbb" in OpenCV's order."""
    return int(code[5:7], 16), int(code[3:5], 16), int(code[1:3], 16)


SKIN, SKIN_SHADE, SKIN_LIGHT = rgb("#e3ac88"), rgb("#a0654a"), rgb("#f9d3b4")
HAIR, HAIR_LIGHT, HAIR_DARK = rgb("#5a3826"), rgb("#8f5f3f"), rgb("#2f1b12")
LIP_UPPER, LIP_LOWER, LIP_LIGHT, LIP_DARK = rgb("#b4575a"), rgb("#c96c6a"), rgb("#e39a92"), rgb("#7d3338")
SWEATER, SWEATER_DARK = rgb("#3f6f86"), rgb("#274a5c")
BACKGROUND_TOP, BACKGROUND_BOTTOM = rgb("#dfe6e4"), rgb("#b9c7c6")


def spline(points: Sequence[tuple[float, float]], closed: bool = True) -> np.ndarray:
    """A smooth curve through `points` (Catmull-Rom): float [N, 2]."""
    p = np.asarray(points, float)
    before, after = (p[-1:], p[:2]) if closed else (p[:1], p[-1:])
    p = np.concatenate([before, p, after])
    t = np.linspace(0, 1, 16, endpoint=False)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True)
    ]
    return np.concatenate(pieces if closed else [*pieces, p[-2:-1]])


def mirrored(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The right half of an outline, top to bottom, made whole."""
    return [*points, *[(-x, y) for x, y in reversed(points) if x != 0]]


def mask(outline: np.ndarray, blur: float = 0.0) -> np.ndarray:
    """Float32 [H, W] in 0-1: inside of an outline [N, 2], its edge blurred by `blur` pixels."""
    canvas = np.zeros((_H, _W), np.uint8)
    pixels = np.round((outline + CENTRE) * SCALE * 16).astype(np.int32)
    cv2.fillPoly(canvas, [pixels], 255, cv2.LINE_AA, shift=4)
    result = canvas.astype(np.float32) / 255
    return cv2.GaussianBlur(result, (0, 0), blur * SCALE) if blur else result


def ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """An outline [N, 2]."""
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def new_layer() -> np.ndarray:
    return np.zeros((_H, _W, 4), np.float32)


def paint(layer: np.ndarray, color: Color | np.ndarray, alpha: np.ndarray) -> None:
    """Lay a colour, or a picture [H, W, 3], over `layer` through `alpha` [H, W]."""
    a = alpha[..., None]
    layer[..., :3] = layer[..., :3] * (1 - a) + np.asarray(color, np.float32) * a
    layer[..., 3] = layer[..., 3] * (1 - alpha) + alpha


def over(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    return below * (1 - above[..., 3:]) + above


def grid_xy() -> tuple[np.ndarray, np.ndarray]:
    """x [1, W] and y [H, 1] of every pixel."""
    x = np.arange(_W, dtype=np.float32)[None] / SCALE - CENTRE[0]
    y = np.arange(_H, dtype=np.float32)[:, None] / SCALE - CENTRE[1]
    return x, y


FACE = spline(
    mirrored(
        [(0, -112), (40, -108), (72, -86), (90, -45), (94, 0), (92, 40), (84, 76), (66, 108), (40, 132), (16, 142), (0, 144)]
    )
)


def relief() -> np.ndarray:
    """Height of the face towards the viewer, pixels, float32 [H, W]: a dome with brows, eye sockets, nose, cheeks, chin."""
    x, y = grid_xy()
    inside = mask(FACE)
    depth = cv2.distanceTransform((inside > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / SCALE
    radius = 92.0
    near = np.clip(depth / radius, 0, 1)
    height = cv2.GaussianBlur((0.8 * radius * np.sqrt(1 - (1 - near) ** 2)).astype(np.float32), (0, 0), 9 * SCALE)

    def bump(cx: float, cy: float, sx: float, sy: float, amount: float) -> np.ndarray:
        return amount * np.exp(-0.5 * (((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2))

    ridge = np.clip((y + 14) / 62, 0, 1)
    height += (3 + 11 * ridge) * np.exp(-0.5 * (x / (6 + 3.5 * ridge)) ** 2) / (1 + np.exp((y - 54) / 2.2)) * np.clip((y + 30) / 20, 0, 1)
    height += bump(0, 47, 9, 8, 7)
    for side in (-1, 1):
        height += bump(side * 13, 53, 5.5, 6, 6)
        height += bump(side * 41, 2, 24, 12, -7)
        height += bump(side * 38, -22, 28, 8, 4)
        height += bump(side * 56, 42, 24, 22, 6)
    height += bump(0, 84, 30, 14, 5) + bump(0, 70, 4, 6, -1.5) + bump(0, 104, 20, 5, -3) + bump(0, 124, 22, 13, 6)
    return height


def shaded_skin() -> np.ndarray:
    """Picture [H, W, 3] of the skin under a soft light from the upper left."""
    height = relief()
    slope_y, slope_x = np.gradient(height, 1 / SCALE)
    light = np.array([-0.42, -0.5, 0.76])
    facing = (-slope_x * light[0] - slope_y * light[1] + light[2]) / np.sqrt(slope_x**2 + slope_y**2 + 1)
    facing = cv2.GaussianBlur(facing.astype(np.float32), (0, 0), 1.5 * SCALE)[..., None]
    shade, skin, bright = (np.asarray(color, np.float32) for color in (SKIN_SHADE, SKIN, SKIN_LIGHT))
    low = np.clip((facing - 0.0) / 0.72, 0, 1)
    picture = shade + (skin - shade) * low**0.8
    return picture + (bright - skin) * np.clip((facing - 0.72) / 0.28, 0, 1) ** 1.5


def body_layer() -> np.ndarray:
    """Neck, shoulders and sweater."""
    layer = new_layer()
    x, y = grid_xy()
    neck = mask(spline([(-52, 80), (52, 80), (52, 140), (60, 172), (90, 190), (0, 240), (-90, 190), (-60, 172), (-52, 140)]))
    skin = np.asarray(SKIN, np.float32) * (1 - 0.10 * np.clip((x + 0 * y) / 60, -0.6, 1))[..., None]
    paint(layer, skin, neck)
    shadow = mask(spline([(-80, 60), (80, 60), (74, 128), (42, 158), (0, 168), (-42, 158), (-74, 128)]), 7)
    paint(layer, SKIN_SHADE, 0.62 * shadow * neck)
    for side in (-1, 1):  # collar bones
        paint(layer, SKIN_SHADE, 0.22 * neck * mask(spline([(side * 14, 196), (side * 40, 189), (side * 70, 186), (side * 40, 193)]), 2))
    shoulders = spline(
        mirrored([(0, 216), (34, 209), (58, 192), (74, 176), (120, 190), (170, 208), (200, 240), (216, 300), (0, 330)])
    )
    torso = mask(shoulders)
    fabric = np.asarray(SWEATER, np.float32) * (1.06 - 0.22 * np.clip((x + 60) / 220, -1, 1) - 0.1 * np.clip((y - 180) / 80, 0, 1))[..., None]
    paint(layer, fabric, torso)
    collar = spline(mirrored([(0, 226), (40, 218), (64, 200), (80, 178), (74, 175), (57, 193), (33, 209), (0, 215)]))
    paint(layer, SWEATER_DARK, 0.55 * mask(collar, 1))
    for side in (-1, 1):  # sleeves
        paint(layer, SWEATER_DARK, 0.35 * torso * mask(spline([(side * 138, 262), (side * 128, 225), (side * 134, 262)]), 3))
    return layer


def strands(layer: np.ndarray, area: np.ndarray, roots: np.ndarray, tips: np.ndarray, seed: int) -> None:
    """Fine lighter and darker hairs within `area`, running from a curve `roots` to a curve `tips`, each [N, 2]."""
    rng = np.random.default_rng(seed)
    for color, alpha in ((HAIR_LIGHT, 0.30), (HAIR_DARK, 0.30)):
        lines = np.zeros((_H, _W), np.uint8)
        for _ in range(130):
            where = rng.random()
            root = roots[min(int(where * len(roots)), len(roots) - 1)]
            tip = tips[min(int(np.clip(where + rng.normal(0, 0.02), 0, 0.999) * len(tips)), len(tips) - 1)]
            bend = (root + tip) / 2 + rng.normal(0, 3, 2)
            curve = spline([tuple(root), tuple(bend), tuple(tip)], closed=False)
            pixels = np.round((curve + CENTRE) * SCALE * 16).astype(np.int32)
            cv2.polylines(lines, [pixels], False, 255, int(rng.integers(1, 4)), cv2.LINE_AA, shift=4)
        soft = cv2.GaussianBlur(lines.astype(np.float32) / 255, (0, 0), 0.9 * SCALE)
        paint(layer, color, alpha * soft * area)


def back_hair_layer() -> np.ndarray:
    layer = new_layer()
    shape = mask(
        spline(mirrored([(0, -150), (60, -142), (104, -104), (120, -40), (122, 30), (118, 90), (104, 134), (70, 146), (0, 130)]))
    )
    paint(layer, HAIR_DARK, shape)
    return layer


def front_hair_layer() -> np.ndarray:
    """The parting on the left of the picture, hair to both sides of the face."""
    layer = new_layer()
    right = spline(
        [(-34, -146), (20, -152), (72, -138), (108, -98), (122, -40), (124, 30), (120, 96), (106, 138), (92, 140)]
        + [(98, 104), (100, 50), (97, 4), (90, -34), (66, -66), (20, -88), (-24, -98), (-40, -108)]
    )
    left = spline(
        [(-28, -148), (-72, -136), (-106, -100), (-120, -40), (-123, 30), (-119, 96), (-105, 138), (-91, 140)]
        + [(-97, 104), (-99, 50), (-97, 4), (-92, -34), (-80, -62), (-62, -84), (-38, -106)]
    )
    for outline, roots, tips, seed in (
        (right, [(-36, -140), (10, -148), (60, -138)], [(-34, -106), (20, -88), (66, -66), (92, -30), (98, 40), (98, 138)], 1),
        (right, [(20, -150), (72, -136), (106, -98)], [(96, 20), (100, 90), (96, 140), (110, 130), (118, 96)], 2),
        (left, [(-32, -142), (-60, -138), (-80, -126)], [(-40, -104), (-64, -82), (-92, -34), (-98, 40), (-95, 138)], 3),
        (left, [(-50, -142), (-80, -128), (-106, -98)], [(-98, 20), (-100, 90), (-96, 140), (-110, 130), (-118, 96)], 4),
    ):
        area = mask(outline)
        if seed in (1, 3):
            paint(layer, SKIN_SHADE, 0)if False else None
            x, y = grid_xy()
            sheen = np.exp(-0.5 * ((y + 96 + 0.0022 * (x + 20) ** 2 * 0 + 0 * x) / 16) ** 2) * np.exp(-0.5 * ((x + 10) / 70) ** 2)
            base = np.asarray(HAIR, np.float32) * (1.05 - 0.22 * np.clip((x - 20) / 100, -0.4, 1))[..., None]
            base = base + 0.45 * sheen[..., None] * (np.asarray(HAIR_LIGHT, np.float32) - base)
            paint(layer, base.astype(np.float32) + 0 * y[..., None], area)
        strands(layer, area, spline(roots, closed=False), spline(tips, closed=False), seed)
    return layer
