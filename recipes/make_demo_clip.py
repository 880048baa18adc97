#!/usr/bin/env python3
"""Make the demo clip: a drawn face that says one GRID sentence with a synthetic voice, so that it belongs to nobody.

    python recipes/make_demo_clip.py avsr/assets/demo.mp4

640x480, 25 frames/s, H.264 and AAC. The sentence goes beside it, to the same name with the suffix .txt. The mouth
follows the phonemes of the voice. Needs the eSpeak NG library, see espeak.py.
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
from grid_sentences import DEMO_SENTENCE, resample

from avsr.errors import AvsrError

WIDTH, HEIGHT, FPS = 640, 480, 25
SAMPLE_RATE = 44_100
DURATION_S = 3.52
NUM_FRAMES = round(DURATION_S * FPS)
LEAD_S = 0.8  # silence before the voice
VOICE, RATE_WPM, PITCH, PITCH_RANGE = "en+f2", 150, 45, 60

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
    width: float = 0.6
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


def mouth_track(phonemes: Sequence[espeak.Span]) -> list[Mouth]:
    """The mouth shape of every frame, for phonemes at the times given (seconds).

    Each phoneme pulls the mouth towards its shape with a weight of its own, before and after its time as well (after
    Cohen and Massaro 1993, "Modeling coarticulation in synthetic visual speech", with Gaussian weights).
    """
    step_s = 0.002
    times = np.arange(0, DURATION_S, step_s)
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
    return [Mouth(*smooth[min(round(frame / FPS / step_s), len(times) - 1)]) for frame in range(NUM_FRAMES)]


# ---------------------------------------------------------------------------------------------------------------------
# Drawing. Coordinates are pixels of the final picture, x to the right, y down, from the point between the eyes.
# ---------------------------------------------------------------------------------------------------------------------

SCALE = 2  # everything is drawn at twice the size
CENTRE = (320.0, 226.0)  # of the coordinates, in the final picture

Color = tuple[float, float, float]
Points = Sequence[tuple[float, float]] | np.ndarray


def rgb(code: str) -> Color:
    """ "#rrggbb" in OpenCV's order."""
    return int(code[5:7], 16), int(code[3:5], 16), int(code[1:3], 16)


SKIN, SKIN_SHADE, SKIN_LIGHT, BLUSH = rgb("#e0aa86"), rgb("#9c624a"), rgb("#f8d4b6"), rgb("#d9806c")
HAIR, HAIR_LIGHT, HAIR_DARK = rgb("#57372a"), rgb("#94664a"), rgb("#301d17")
LIP_UPPER, LIP_LOWER, LIP_LIGHT, LIP_DARK = rgb("#b25a58"), rgb("#c66e69"), rgb("#e8a79c"), rgb("#74302f")
MOUTH_INSIDE, TONGUE, TEETH = rgb("#3d1214"), rgb("#b55a58"), rgb("#f3ede4")
EYE_WHITE, IRIS, IRIS_RIM, IRIS_LIGHT = rgb("#f3efea"), rgb("#6b4a2f"), rgb("#38251a"), rgb("#a5774c")
LASH, NOSTRIL, BLACK, WHITE = rgb("#2a1a15"), rgb("#5e3327"), rgb("#100a08"), rgb("#ffffff")
SWEATER, SWEATER_DARK = rgb("#3f7188"), rgb("#264a5b")
BACKGROUND_TOP, BACKGROUND_BOTTOM = rgb("#e3e9e6"), rgb("#b4c4c4")


def spline(points: Points, closed: bool = True) -> np.ndarray:
    """A smooth curve through `points` (Catmull-Rom): float [N, 2]."""
    p = np.asarray(points, float)
    before, after = (p[-1:], p[:2]) if closed else (p[:1], p[-1:])
    p = np.concatenate([before, p, after])
    t = np.linspace(0, 1, 16, endpoint=False)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True)
    ]
    return np.concatenate(pieces if closed else [*pieces, p[-1:]])


def both_sides(right: Points) -> list[tuple[float, float]]:
    """The outline whose right half is `right`, from top to bottom."""
    return [*right, *[(-x, y) for x, y in reversed(right) if x != 0]]


def flipped(points: Points, side: int) -> list[tuple[float, float]]:
    """`points` for side 1, their mirror image for side -1."""
    return [(side * x, y) for x, y in points]


def ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """An outline, float [N, 2]."""
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def blurred(picture: np.ndarray, radius: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), radius * SCALE)


def mix(below: np.ndarray | Color, above: np.ndarray | Color, share: np.ndarray | float) -> np.ndarray:
    """Colours between two colours or pictures, by `share`, which broadcasts to [H, W]: float32 [..., 3]."""
    low, high = np.asarray(below, np.float32), np.asarray(above, np.float32)
    return low + (high - low) * np.asarray(share, np.float32)[..., None]


class Layer:
    """A transparent sheet over a rectangle of the picture.

    pixels: float32 [H, W, 4] at SCALE times the size; blue, green, red in 0-255, times alpha, and alpha in 0-1.
    x [1, W], y [H, 1]: the coordinates of its pixels.
    """

    def __init__(self, left: int = 0, top: int = 0, width: int = WIDTH, height: int = HEIGHT) -> None:
        """left, top, width, height: the rectangle, in pixels of the final picture."""
        self.rows = slice(top * SCALE, (top + height) * SCALE)
        self.columns = slice(left * SCALE, (left + width) * SCALE)
        self.origin = np.array([left - CENTRE[0], top - CENTRE[1]])
        self.pixels = np.zeros((height * SCALE, width * SCALE, 4), np.float32)
        self.x = (np.arange(width * SCALE, dtype=np.float32) / SCALE + self.origin[0])[None]
        self.y = (np.arange(height * SCALE, dtype=np.float32) / SCALE + self.origin[1])[:, None]

    def mask(self, outline: np.ndarray, soft: float = 0.0) -> np.ndarray:
        """1 inside an outline [N, 2], 0 outside, the edge blurred by `soft` pixels: float32 [H, W]."""
        canvas = np.zeros(self.pixels.shape[:2], np.uint8)
        cv2.fillPoly(canvas, [self._fixed_point(outline)], 255, cv2.LINE_AA, shift=4)
        inside = canvas.astype(np.float32) / 255
        return blurred(inside, soft) if soft else inside

    def stroke(self, curve: np.ndarray, width: float, soft: float = 0.0) -> np.ndarray:
        """1 on a curve [N, 2] of this width, 0 beside it: float32 [H, W]."""
        canvas = np.zeros(self.pixels.shape[:2], np.uint8)
        cv2.polylines(
            canvas, [self._fixed_point(curve)], False, 255, max(1, round(width * SCALE)), cv2.LINE_AA, shift=4
        )
        inside = canvas.astype(np.float32) / 255
        return blurred(inside, soft) if soft else inside

    def _fixed_point(self, points: np.ndarray) -> np.ndarray:
        return np.round((points - self.origin) * SCALE * 16).astype(np.int32)

    def paint(self, color: Color | np.ndarray, alpha: np.ndarray) -> None:
        """Lay a colour, or a picture [H, W, 3], on it through `alpha` [H, W]."""
        a = alpha[..., None]
        self.pixels[..., :3] = self.pixels[..., :3] * (1 - a) + np.asarray(color, np.float32) * a
        self.pixels[..., 3] = self.pixels[..., 3] * (1 - alpha) + alpha

    def lay(self, sheet: Layer) -> None:
        """Put another layer, which must lie within this one, on top."""
        below = self.pixels[sheet.rows, sheet.columns]
        below *= 1 - sheet.pixels[..., 3:]
        below += sheet.pixels


FACE = spline(
    both_sides(
        [
            (0, -118),
            (42, -112),
            (73, -88),
            (89, -46),
            (93, 0),
            (90, 40),
            (80, 78),
            (62, 108),
            (38, 130),
            (16, 139),
            (0, 141),
        ]
    )
)
MOUTH_Y = 84.0
MOUTH_GAP = 25.0  # between the lips when the mouth is wide open


def facing_light(layer: Layer) -> np.ndarray:
    """How much of a soft light from the upper left every point of the face gets, about 0-1: float32 [H, W]."""
    x, y = layer.x, layer.y

    def bump(cx: float, cy: float, sx: float, sy: float, amount: float) -> np.ndarray:
        return amount * np.exp(-0.5 * (((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2))

    # Height towards the viewer in pixels: a dome, with brows, eye sockets, nose, cheeks and chin on it.
    radius = 92.0
    depth = cv2.distanceTransform((layer.mask(FACE) > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / SCALE
    dome = 0.8 * radius * np.sqrt(1 - (1 - np.clip(depth / radius, 0, 1)) ** 2)
    height = blurred(dome.astype(np.float32), 9)
    along_nose = np.clip((y + 14) / 62, 0, 1)
    bridge = (3 + 11 * along_nose) * np.clip((y + 30) / 20, 0, 1) / (1 + np.exp((y - 54) / 2.4))
    height += bridge * np.exp(-0.5 * (x / (6 + 3.5 * along_nose)) ** 2) + bump(0, 47, 9, 8, 6)
    for side in (-1, 1):
        height += bump(side * 13, 53, 5.5, 6, 5) + bump(side * 56, 42, 24, 22, 6)
        height += bump(side * 41, 2, 24, 12, -7) + bump(side * 38, -24, 28, 8, 3)
    height += (
        bump(0, MOUTH_Y, 30, 14, 4) + bump(0, 69, 4, 6, -1.5) + bump(0, 105, 18, 5, -2.5) + bump(0, 124, 22, 13, 5)
    )
    slope_y, slope_x = np.gradient(height, 1 / SCALE)
    facing = (0.42 * slope_x + 0.5 * slope_y + 0.76) / np.sqrt(slope_x**2 + slope_y**2 + 1)
    return blurred(facing.astype(np.float32), 1.6)


def draw_head() -> Layer:
    """Skin, nose and ears; what does not move by itself."""
    layer = Layer()
    face = layer.mask(FACE)
    light = facing_light(layer)
    skin = mix(SKIN_SHADE, SKIN, np.clip(light / 0.74, 0, 1) ** 0.8)
    skin = mix(skin, SKIN_LIGHT, 0.9 * np.clip((light - 0.74) / 0.26, 0, 1) ** 1.4)
    layer.paint(skin, face)
    for side in (-1, 1):
        layer.paint(BLUSH, 0.20 * face * layer.mask(ellipse(side * 57, 44, 20, 14), 9))
        # wing of the nose, nostril, fold beside the mouth
        layer.paint(
            SKIN_SHADE, 0.45 * layer.stroke(spline(flipped([(15, 45), (19, 52), (16, 59)], side), False), 1.4, 1.2)
        )
        layer.paint(NOSTRIL, 0.75 * layer.mask(ellipse(side * 7.5, 60, 4.6, 2.3), 0.9))
        layer.paint(SKIN_SHADE, 0.16 * layer.stroke(spline(flipped([(23, 56), (35, 70), (40, 84)], side), False), 2, 2))
    layer.paint(SKIN_SHADE, 0.30 * layer.mask(spline([(-13, 62), (0, 64), (13, 62), (8, 69), (0, 70), (-8, 69)]), 2.5))
    return layer


def draw_body() -> Layer:
    """Neck, shoulders and sweater."""
    layer = Layer()
    right_neck = [(0, 80), (50, 80), (50, 136), (58, 168), (88, 188), (0, 240)]
    neck = layer.mask(spline(both_sides(right_neck)))
    layer.paint(mix(SKIN, SKIN_SHADE, np.clip(0.15 + layer.x / 200, 0, 1)), neck)
    chin_shadow = layer.mask(spline(both_sides([(0, 60), (80, 60), (72, 128), (40, 160), (0, 170)])), 7)
    layer.paint(SKIN_SHADE, 0.62 * chin_shadow * neck)
    right = [(0, 216), (34, 210), (58, 195), (74, 178), (120, 190), (172, 206), (206, 240), (222, 300), (0, 330)]
    torso = layer.mask(spline(both_sides(right)))
    shade = np.clip(0.25 + layer.x / 500 + np.clip(layer.y - 180, 0, 80) / 250, 0, 1)
    layer.paint(mix(SWEATER, SWEATER_DARK, shade), torso)
    collar = spline(both_sides([(0, 228), (40, 221), (66, 203), (84, 180), (74, 176), (57, 194), (33, 209), (0, 215)]))
    layer.paint(SWEATER_DARK, 0.6 * torso * layer.mask(collar, 0.6))
    for side in (-1, 1):
        sleeve = spline(flipped([(146, 270), (140, 246), (134, 232)], side), False)
        layer.paint(SWEATER_DARK, 0.5 * torso * layer.stroke(sleeve, 2, 1.5))
    return layer


def draw_strands(layer: Layer, area: np.ndarray, roots: np.ndarray, tips: np.ndarray, seed: int) -> None:
    """Fine lighter and darker hairs within `area` [H, W], from a curve `roots` to a curve `tips`, each [N, 2]."""
    rng = np.random.default_rng(seed)
    for color in (HAIR_LIGHT, HAIR_DARK):
        lines = np.zeros_like(area)
        for _ in range(70):
            start = rng.random()
            end = np.clip(start + rng.normal(0, 0.02), 0, 1)
            root, tip = roots[int(start * (len(roots) - 1))], tips[int(end * (len(tips) - 1))]
            outwards = np.array([np.sign(tip[0]) * 14, -6])
            bend = (root + tip) / 2 + outwards + rng.normal(0, 2, 2)
            lines = np.maximum(lines, layer.stroke(spline(np.stack([root, bend, tip]), False), 0.5))
        layer.paint(color, 0.35 * blurred(lines, 0.7) * area)


def draw_back_hair() -> Layer:
    layer = Layer()
    right = [(0, -146), (60, -136), (100, -100), (116, -40), (119, 30), (115, 90), (98, 128), (64, 140), (0, 132)]
    layer.paint(mix(HAIR, HAIR_DARK, 0.75), layer.mask(spline(both_sides(right))))
    return layer


def draw_front_hair() -> Layer:
    """Parted on one side, falling to both sides of the face."""
    layer = Layer()
    parting = (-34.0, -147.0)
    outside = [(10, -152), (62, -140), (102, -102), (120, -44), (126, 30), (122, 88), (100, 128), (74, 138)]
    right_edge = [(88, 112), (94, 60), (93, 4), (85, -36), (62, -68), (22, -92), (-18, -108), (-35, -114)]
    left_edge = [(-88, 112), (-94, 60), (-93, 4), (-88, -36), (-76, -68), (-56, -92), (-40, -108), (-33, -116)]
    for side, edge in ((1, right_edge), (-1, left_edge)):
        outer = flipped(outside[1:] if side < 0 else outside, side)
        area = layer.mask(spline([parting, *outer, *edge]), 0.5)
        sheen = np.exp(-0.5 * (((layer.y + 108 - 0.004 * layer.x**2) / 15) ** 2)) * np.exp(-0.5 * (layer.x / 60) ** 2)
        color = mix(HAIR, HAIR_DARK, np.clip((np.abs(layer.x) - 70) / 90, 0, 0.6))
        layer.paint(mix(color, HAIR_LIGHT, 0.4 * sheen), area)
        roots = spline([parting, *outer[:3]], False)
        draw_strands(layer, area, roots, spline(edge[::-1], False), seed=2 + side)
    return layer


def draw_eyes(blink: float, gaze: float, brow: float) -> Layer:
    """Eyes and brows. blink: 0 open to 1 shut. gaze: pixels to the right. brow: pixels up."""
    layer = Layer(210, 170, 220, 90)
    for side in (-1, 1):

        def curve(*points: tuple[float, float], side: int = side) -> np.ndarray:
            """Through points given from the middle of the eye, x away from the nose."""
            return spline([(side * (41 + x), y) for x, y in points], False)

        lid = -11.0 + 15.0 * blink  # y of the upper lid over the middle of the eye
        inner, outer = (-20.0, 3.0 + blink), (21.0, 4.0 * blink)
        upper = curve(inner, (-10, 0.8 * lid + 1), (1, lid), (12, 0.82 * lid), outer)
        lower = curve(outer, (11, 6), (0, 7.8), (-10, 6.6), inner)
        opening = layer.mask(np.concatenate([upper, lower]))
        layer.paint(SKIN_SHADE, 0.35 * layer.mask(np.concatenate([upper, lower]), 3.5))  # the socket
        if blink > 0.15:
            resting = curve(inner, (-10, -9), (1, -12), (12, -10), outer)
            layer.paint(mix(SKIN, SKIN_SHADE, 0.22), layer.mask(np.concatenate([resting, upper[::-1]]), 0.6))
        layer.paint(mix(EYE_WHITE, SKIN_SHADE, np.clip(0.55 - (layer.y - lid) / 14, 0, 0.55)), opening)
        x, y = side * 41 + gaze, -1.6
        away = np.hypot(layer.x - x, layer.y - y)
        iris = mix(IRIS, IRIS_RIM, np.clip((away - 6) / 4, 0, 1))
        iris = mix(iris, IRIS_LIGHT, 0.6 * np.clip((layer.y - y) / 9, 0, 1) * np.clip(1 - away / 10, 0, 1))
        layer.paint(iris, opening * layer.mask(ellipse(x, y, 10.4, 10.4), 0.4))
        layer.paint(BLACK, opening * layer.mask(ellipse(x, y, 4.6, 4.6), 0.3))
        layer.paint(BLACK, 0.32 * opening * layer.mask(np.concatenate([upper, upper[::-1] + (0, 5)]), 1.2))
        layer.paint(WHITE, 0.9 * opening * layer.mask(ellipse(x - 3.4, y - 4, 2.1, 2.1), 0.3))
        layer.paint(WHITE, 0.35 * opening * layer.mask(ellipse(x + 3.6, y + 3.6, 1.4, 1.4), 0.4))
        layer.paint(LASH, 0.9 * layer.stroke(upper, 2.0, 0.35))
        layer.paint(LASH, 0.8 * layer.stroke(curve((14, 0.7 * lid), outer, (23.5, outer[1] - 1.5)), 1.6, 0.4))
        layer.paint(SKIN_SHADE, 0.65 * layer.stroke(lower, 1.0, 0.5))
        crease = curve((-17, -7 + 3 * blink), (0, -17 + 5 * blink), (19, -9 + 4 * blink))
        layer.paint(SKIN_SHADE, 0.55 * layer.stroke(crease, 1.2, 0.8))
        above = curve((-24, -31), (-8, -36), (9, -37.5), (28, -28))
        below = curve((28, -28), (11, -33.5), (-7, -31.5), (-23, -27.5))
        layer.paint(HAIR, 0.78 * layer.mask(np.concatenate([above, below]) - (0, brow), 1.0))
    return layer


def mouth_outlines(mouth: Mouth) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The contour of the lips [N, 2]; the upper and the lower edge of the opening between them, from left to right."""
    half = 31 + 5 * (mouth.width - 0.35) - 11.5 * mouth.rounding
    gap = MOUTH_GAP * mouth.opening
    top, bottom = MOUTH_Y - mouth.tucking - 0.22 * gap, MOUTH_Y - mouth.tucking + 0.78 * gap
    corner = MOUTH_Y + 0.27 * gap - 2.0 - 2.5 * mouth.width
    thin = 1 - 0.45 * mouth.pressing
    upper = 8 * thin + 1.5 * mouth.rounding
    lower = 11 * thin * (1 - 0.45 * mouth.tucking) + 1.5 * mouth.rounding
    bow = 2.6 - 1.3 * mouth.rounding
    lips = [
        *((0.0, top - upper + bow), (0.2 * half, top - upper - 0.5), (0.62 * half, top - 0.62 * upper), (half, corner)),
        *((0.66 * half, bottom + 0.62 * lower - 0.12 * gap), (0.28 * half, bottom + lower)),
    ]
    inside = half - 3.5 - 2 * mouth.rounding
    dip = 1.2 * (1 - mouth.opening)
    upper_right = [(0, top + dip), (0.55 * inside, top + 0.04 * gap), (inside, corner)]
    lower_right = [(0, bottom + 0.8 * dip), (0.6 * inside, bottom - 0.125 * gap), (inside, corner)]
    upper_edge, lower_edge = (
        spline([*flipped(right[:0:-1], -1), *right], False) for right in (upper_right, lower_right)
    )
    return spline(both_sides(lips)), upper_edge, lower_edge


def draw_mouth(mouth: Mouth) -> Layer:
    """Lips, and what is seen between them."""
    layer = Layer(260, 270, 120, 90)
    outline, upper_edge, lower_edge = mouth_outlines(mouth)
    half, lowest = outline.max(axis=0)
    top, bottom = upper_edge[len(upper_edge) // 2, 1], lower_edge[:, 1].max()
    inside, gap, thickness = upper_edge[:, 0].max(), bottom - top, lowest - bottom

    lips = layer.mask(outline, 0.7)
    layer.paint(SKIN_SHADE, 0.25 * layer.mask(outline + (0, 3), 3.5))
    layer.paint(SKIN_SHADE, 0.35 * layer.mask(ellipse(0, lowest + 5, 17, 3.2), 2.5))
    layer.paint(mix(LIP_LOWER, LIP_UPPER, layer.y < upper_edge[:, 1].mean()), lips)
    layer.paint(LIP_DARK, 0.28 * lips * layer.stroke(outline, 2.0, 1.5))
    gleam = layer.mask(ellipse(-3, bottom + 0.48 * thickness, 0.42 * half, 0.2 * thickness + 0.6), 1.6)
    layer.paint(LIP_LIGHT, 0.55 * lips * gleam)

    hole = layer.mask(np.concatenate([upper_edge, lower_edge[::-1]]), 0.35)
    layer.paint(MOUTH_INSIDE, hole)
    if gap > 1:
        tongue = ellipse(0, bottom + 9 - (0.35 + 0.45 * mouth.tongue) * gap, 0.55 * inside, 8 + 0.1 * gap)
        layer.paint(TONGUE, 0.9 * hole * layer.mask(tongue, 1.2))
        tips = top + 6.5 - 2.5 * mouth.rounding
        teeth = layer.mask(spline(both_sides([(22, top - 6), (19, tips - 2.5), (8, tips)])), 0.5)
        layer.paint(TEETH, 0.95 * hole * teeth * min(gap / 3, 1))
        for x in (-10.5, -3.6, 3.6, 10.5):
            between = layer.stroke(np.array([(x, top - 3), (1.02 * x, tips)]), 0.6, 0.4)
            layer.paint(SKIN_SHADE, 0.16 * hole * between)
        shadow = layer.mask(np.concatenate([upper_edge, upper_edge[::-1] + (0, 2.2)]), 1.0)
        layer.paint(MOUTH_INSIDE, 0.55 * hole * shadow)
    layer.paint(LIP_DARK, (0.75 - 0.22 * mouth.opening) * layer.stroke(upper_edge, 1.3, 0.5))
    for side in (-1, 1):
        layer.paint(SKIN_SHADE, 0.5 * layer.mask(ellipse(side * half, upper_edge[0, 1], 2.6, 2.2), 1.3))
    return layer


def drop_jaw(head: Layer, mouth: Mouth) -> Layer:
    """The head with everything under the mouth moved down, as far as this opening takes the chin."""
    drop = 0.5 * MOUTH_GAP * mouth.opening
    moved = Layer()
    share = np.clip((moved.y - 66) / 50, 0, 1)
    share = share * share * (3 - 2 * share)
    map_x = np.broadcast_to((moved.x - moved.origin[0]) * SCALE, moved.pixels.shape[:2]).astype(np.float32)
    map_y = np.broadcast_to((moved.y - drop * share - moved.origin[1]) * SCALE, moved.pixels.shape[:2]).astype(
        np.float32
    )
    moved.pixels = cv2.remap(head.pixels, map_x, map_y, cv2.INTER_LINEAR)
    return moved


@dataclasses.dataclass(frozen=True)
class Pose:
    """How the head is held: shift in pixels, tilt in degrees; and the eyes, see draw_eyes."""

    right: float = 0.0
    down: float = 0.0
    tilt: float = 0.0
    blink: float = 0.0
    gaze: float = 0.0
    brow: float = 0.0


def move(pixels: np.ndarray, pose: Pose) -> np.ndarray:
    pivot = (CENTRE[0] * SCALE, (CENTRE[1] + 150) * SCALE)
    matrix = cv2.getRotationMatrix2D(pivot, -pose.tilt, 1.0)
    matrix[:, 2] += (pose.right * SCALE, pose.down * SCALE)
    return cv2.warpAffine(pixels, matrix, (WIDTH * SCALE, HEIGHT * SCALE), flags=cv2.INTER_LINEAR)


class Portrait:
    """The drawn person; what never changes is drawn once."""

    def __init__(self) -> None:
        self._background = Layer()
        fade = np.clip((self._background.y + CENTRE[1]) / HEIGHT + ((self._background.x + 60) / 420) ** 2 * 0.4, 0, 1)
        self._background.paint(mix(BACKGROUND_TOP, BACKGROUND_BOTTOM, fade), np.ones(fade.shape, np.float32))
        self._back_hair, self._body = draw_back_hair(), draw_body()
        self._head, self._front_hair = draw_head(), draw_front_hair()

    def frame(self, mouth: Mouth, pose: Pose = Pose()) -> np.ndarray:
        """One picture, uint8 [HEIGHT, WIDTH, 3], blue green red."""
        head = drop_jaw(self._head, mouth)
        head.lay(draw_eyes(pose.blink, pose.gaze, pose.brow))
        head.lay(draw_mouth(mouth))
        head.lay(self._front_hair)
        picture = self._background.pixels.copy()
        for sheet in (move(self._back_hair.pixels, pose), self._body.pixels, move(head.pixels, pose)):
            picture = picture * (1 - sheet[..., 3:]) + sheet
        small = cv2.resize(picture[..., :3], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        return np.clip(np.round(small), 0, 255).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# Putting it together
# ---------------------------------------------------------------------------------------------------------------------


def poses(speech_start_s: float, speech_end_s: float) -> list[Pose]:
    """A living head: it sways and nods a little and blinks before and after it speaks."""
    result = []
    for frame in range(NUM_FRAMES):
        t = frame / FPS
        blink = max(_pulse(t, 0.36, 0.085), _pulse(t, speech_end_s + 0.22, 0.085))
        speaking = _pulse(t, (speech_start_s + speech_end_s) / 2, (speech_end_s - speech_start_s) / 2)
        result.append(
            Pose(
                right=2.4 * np.sin(2 * np.pi * t / 3.3 + 0.4),
                down=1.6 * np.sin(2 * np.pi * t / 1.1) * speaking + 0.6 * np.sin(2 * np.pi * t / 2.3),
                tilt=1.1 * np.sin(2 * np.pi * t / 2.7 - 0.8),
                blink=blink,
                gaze=0.8 * np.sin(2 * np.pi * t / 2.9),
                brow=2.5 * _pulse(t, speech_start_s + 0.45, 0.4),
            )
        )
    return result


def _pulse(t: float, middle: float, reach: float) -> float:
    """A smooth hill from 0 to 1 and back."""
    distance = min(abs(t - middle) / reach, 1.0)
    return float(0.5 + 0.5 * np.cos(np.pi * distance))


def say_sentence() -> tuple[np.ndarray, list[espeak.Span]]:
    """The sound of the clip, float32 [S] at SAMPLE_RATE, and its phonemes at their times in the clip."""
    speech = espeak.speak(
        DEMO_SENTENCE.split(), voice=VOICE, rate_wpm=RATE_WPM, pitch=PITCH, pitch_range=PITCH_RANGE, noise_seed=1
    )
    rng = np.random.default_rng(1)
    sound = rng.normal(0, 3e-4, round(DURATION_S * SAMPLE_RATE))  # a quiet room, not digital silence
    voice = resample(speech.samples, speech.sample_rate, SAMPLE_RATE)
    start = round(LEAD_S * SAMPLE_RATE)
    voice = voice[: len(sound) - start] * 0.6 / np.abs(voice).max()
    sound[start : start + len(voice)] += voice
    phonemes = [
        dataclasses.replace(phoneme, start=phoneme.start + LEAD_S, end=phoneme.end + LEAD_S)
        for phoneme in speech.phonemes
    ]
    return sound.astype(np.float32), phonemes


def make_clip(path: Path) -> None:
    """Write the clip to `path` and its sentence beside it. Raises AvsrError when eSpeak NG is missing."""
    sound, phonemes = say_sentence()
    temporary = path.with_name(path.name + ".tmp")
    portrait = Portrait()
    with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["title"] = DEMO_SENTENCE
        container.metadata["comment"] = "Drawn face, synthetic voice: recipes/make_demo_clip.py"
        # One thread: with more, the bytes depend on the machine.
        video = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "slow", "threads": "1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", bit_rate=96_000)
        moods = poses(phonemes[0].start, phonemes[-1].end)
        for mouth, pose in zip(mouth_track(phonemes), moods, strict=True):
            picture = av.VideoFrame.from_ndarray(portrait.frame(mouth, pose), format="bgr24")
            container.mux(video.encode(picture))
        for start in range(0, len(sound), 1024):
            block = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            container.mux(audio.encode(block))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    os.replace(temporary, path)
    path.with_suffix(".txt").write_text(DEMO_SENTENCE + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the .mp4 file to write")
    args = parser.parse_args()
    try:
        make_clip(args.out)
    except (AvsrError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
