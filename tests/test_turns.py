"""Galleries: more faces than are searched in every picture take turns, and the one who speaks is found."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from avsr.account import Account
from avsr.grid import SLOT_S
from avsr.lips.face_models import LEFT_EYE, MOUTH, RIGHT_EYE, Box, Detection, FaceModels, Points, Region
from avsr.lips.faces import MAX_FACES, FaceFinder
from avsr.lips.holding import patch_of, shift_since
from avsr.lips.slots import Slot
from avsr.lips.tracker import slots_of
from avsr.lips.turns import AT_ONCE, LOOKS, SETTLED_S, Crowd, Waiting, whose_turn
from avsr.media import Picture, VideoFrame, iter_frames, read_audio
from avsr.speakers.speaking_face import SpeakingFace
from tests.media import shared_corpus

STEP_S = 0.04


def looks(movement: dict[int, float], num_pictures: int, step_s: float = STEP_S) -> dict[int, list[int]]:
    """By face: the pictures in which it is looked at.

    movement: by face, the change of the opening of its lips from look to look.
    """
    waiting = {face: Waiting(0.0, 0.0) for face in movement}
    looked: dict[int, list[int]] = {face: [] for face in movement}
    for number in range(1, num_pictures + 1):
        for face in whose_turn(waiting, number * step_s):
            looked[face].append(number)
            opening = movement[face] if waiting[face].opening == 0.0 else 0.0
            waiting[face].look(number * step_s, opening)
    return looked


@pytest.mark.parametrize("count", [7, 9, 16, 25, 49])
@pytest.mark.parametrize("opening", [0.0, 0.1])
def test_equals_are_looked_at_equally_often(count: int, opening: float) -> None:
    looked = looks(dict.fromkeys(range(count), opening), 200)
    # At first nobody's movement is known, and those who are looked at first come up more often.
    gaps = [np.diff([number for number in numbers if number > 50]).max() for numbers in looked.values()]
    assert max(gaps) <= np.ceil(count / LOOKS) + 1
    assert sum(map(len, looked.values())) == 200 * LOOKS


@pytest.mark.parametrize("step_s", [1 / 50, 1 / 25, 1 / 15])
def test_who_moves_the_mouth_is_looked_at_in_nearly_every_picture(step_s: float) -> None:
    looked = looks({face: 0.05 if face == 11 else 0.001 for face in range(16)}, 100, step_s)
    assert np.diff(looked[11][5:]).max() == 1
    calm = [np.diff(numbers).max() for face, numbers in looked.items() if face != 11]
    assert max(calm) <= 7  # and nobody is forgotten


def test_a_face_that_is_not_found_keeps_its_movement() -> None:
    waiting = Waiting(0.0, 0.0)
    for number, opening in enumerate((0.05, 0.0, 0.05)):
        waiting.look(float(number), opening)
    moved = waiting.movement
    waiting.look(3.0, float("nan"))
    waiting.look(4.0, 0.05)
    assert waiting.movement == moved > 0


# --- the account ---


def test_the_line_comes_once_with_the_number_of_all_faces() -> None:
    lines: list[str] = []
    account = Account(lines.append)
    crowd = Crowd(account)
    for number in range(100):
        count = min(9, 6 + number // 10)  # they are found one after another
        crowd.see(frozenset(range(count)), count, 0, number * STEP_S)
        assert not lines or number * STEP_S >= SETTLED_S
    crowd.finish()
    assert lines == ["9 faces are in the picture, and 4 are searched at a time: they take turns"] == account.lines()
    assert account.document()["faces"] == {"found": 9, "used": 9, "lost": {}}


def test_a_short_video_says_it_at_its_end_and_few_faces_say_nothing() -> None:
    for count, expected in ((AT_ONCE, 0), (AT_ONCE + 1, 1)):
        account = Account()
        crowd = Crowd(account)
        crowd.see(frozenset(range(count)), count, 0, 0.0)
        crowd.finish()
        assert len(account.lines()) == expected


def test_faces_beyond_the_limit_are_counted_and_said() -> None:
    account = Account()
    crowd = Crowd(account)
    for num_beyond in (3, 11, 11):
        crowd.see(frozenset(range(49)), 49, num_beyond, 0.0)
    crowd.finish()
    assert account["faces"].missing == 0
    assert account.document()["faces"] == {"found": 60, "used": 49, "lost": {"too many to follow": 11}}
    (line,) = account.lines()
    assert line.startswith("60 faces are in the picture, the 49 largest are followed, and 4")


# --- following, with models that take bright squares for faces ---


class Squares(FaceModels):
    """Both networks for pictures in which each bright square is a face. The first pixel of a square tells how far it
    opens its mouth: 255 not at all, less for more."""

    def __init__(self) -> None:
        self.num_meshes = 0

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        _, _, rows, _ = cv2.connectedComponentsWithStats((rgb[:, :, 0] > 100).astype(np.uint8))
        found = []
        for left, top, width, height, _ in rows[1:].tolist():
            # Like the real detector, which sees a face as a share of the picture that it is shown.
            if abs(width - height) <= 2 and width >= max(rgb.shape[:2]) / 20:
                box = Box(left, top, left + width, top + height)
                found.append(Detection(box, face_in(box, 0.0)[[33, 263, 1, 13]], 0.9))
        return found

    def mesh(self, picture: Picture, region: Region) -> tuple[Points, float] | None:
        self.num_meshes += 1
        x, y = int(region.centre.real), int(region.centre.imag)
        shown = picture.rgb[:, :, 0] > 100
        if not (0 <= y < shown.shape[0] and 0 <= x < shown.shape[1] and shown[y, x]):
            return None
        left, right = (int(np.argmin(line)) for line in (shown[y, x::-1], shown[y, x:]))
        top, bottom = (int(np.argmin(line)) for line in (shown[y::-1, x], shown[y:, x]))
        box = Box(x - left + 1, y - top + 1, x + right, y + bottom)
        opening = 255.0 - float(picture.rgb[int(box.top) + 1, int(box.left) + 1, 0])
        return face_in(box, opening / 100), 0.0

    def close(self) -> None:
        pass


def face_in(box: Box, opening: float) -> Points:
    """A mesh that fills a box; opening in eye distances."""
    x, y, side = box.centre.real, box.centre.imag, box.side
    points = np.full((468, 2), (x, y), np.float32)
    points[[0, 2]] = (box.left, box.top), (box.right, box.bottom)
    points[list(RIGHT_EYE)] = x - 0.2 * side, y - 0.15 * side
    points[list(LEFT_EYE)] = x + 0.2 * side, y - 0.15 * side
    points[[82, 13, 312]] = points[[87, 14, 317]] = points[list(MOUTH)] = x, y + 0.2 * side
    points[[87, 14, 317], 1] += 0.4 * side * opening
    points[10], points[152] = (x, box.top), (x, box.bottom)
    return points


def gallery(columns: int, sides: list[int], *, speaks: int | None = None, count: int = 100) -> Iterator[VideoFrame]:
    """Pictures of 1280x720 with a square in each tile. sides: pixels by tile, 0 for a black tile."""
    rows = -(-len(sides) // columns)
    for number in range(count):
        rgb = np.zeros((720, 1280, 3), np.uint8)
        for tile, side in enumerate(sides):
            left = 1280 * (2 * (tile % columns) + 1) // (2 * columns) - side // 2
            top = 720 * (2 * (tile // columns) + 1) // (2 * rows) - side // 2
            rgb[top : top + side, left : left + side] = 255 - (10 * (number % 2) if tile == speaks else 0)
        yield VideoFrame(number * STEP_S, rgb)


@pytest.mark.parametrize(
    ("columns", "sides"),
    [(3, [80] * 9), (4, [60] * 16), (5, [50] * 25), (7, [40] * 49), (3, [80] * 8 + [40]), (3, [80, 0] * 4 + [60])],
)
def test_everybody_in_a_gallery_is_followed_under_one_number(columns: int, sides: list[int]) -> None:
    with FaceFinder(Squares()) as finder:
        found = [[face.id for face in finder.follow(frame)] for frame in gallery(columns, sides)]
    everybody = list(range(sum(side > 0 for side in sides)))
    assert found[25:] == [everybody] * 75


def test_a_gallery_costs_no_more_than_the_faces_that_are_searched_at_once() -> None:
    models = Squares()
    with FaceFinder(models) as finder:
        for frame in gallery(4, [60] * 16, speaks=13):
            if frame.time_s == 50 * STEP_S:
                models.num_meshes = 0
            finder.follow(frame)
    assert models.num_meshes == 50 * LOOKS


def test_up_to_six_faces_are_searched_in_every_picture() -> None:
    models = Squares()
    with FaceFinder(models) as finder:
        for frame in gallery(3, [80] * AT_ONCE):
            if frame.time_s == 50 * STEP_S:
                models.num_meshes = 0
            finder.follow(frame)
    assert models.num_meshes == 50 * AT_ONCE


def test_a_tile_that_goes_black_ends_its_face_alone() -> None:
    shown = [*gallery(4, [60] * 16, count=50), *gallery(4, [60] * 15 + [0], count=75)]
    with FaceFinder(Squares()) as finder:
        found = [
            {face.id for face in finder.follow(VideoFrame(number * STEP_S, frame.rgb))}
            for number, frame in enumerate(shown)
        ]
    assert len(found[49]) == 16 and len(found[60]) == 15
    assert all(faces == found[60] for faces in found[60:])


def test_a_crowd_beyond_the_limit_is_told() -> None:
    account = Account()
    with FaceFinder(Squares()) as finder:
        slots = list(slots_of(gallery(9, [40] * 54, count=30), finder=finder, account=account))
    assert max(len(slot.lips) for slot in slots) == MAX_FACES
    tally = account["faces"]
    assert tally.used == MAX_FACES and tally.lost.total() > 0 and tally.missing == 0
    assert "faces are in the picture, the 49 largest are followed" in account.lines()[0]


# --- between two turns ---


def texture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (300, 300, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4).astype(np.float32)
    return ((smooth - smooth.min()) * 255 / np.ptp(smooth)).astype(np.uint8)


@pytest.mark.parametrize("shift", [0j, 3 + 1j, -5 + 4j, 8j])
def test_a_face_is_moved_along_between_its_turns(shift: complex) -> None:
    patch = patch_of(Picture.of_rgb(texture(5)), face_in(Box(100, 100, 200, 200), 0.0))
    moved = np.roll(texture(5), (int(shift.imag), int(shift.real)), (0, 1))
    found = shift_since(patch, Picture.of_rgb(moved))
    assert found is not None and abs(found - shift) < 0.6 * patch.scale


def test_a_picture_that_changed_moves_nothing() -> None:
    patch = patch_of(Picture.of_rgb(texture(0)), face_in(Box(100, 100, 200, 200), 0.0))
    assert shift_since(patch, Picture.of_rgb(texture(1))) is None


# --- real faces ---


def test_the_speaker_of_a_gallery_is_found_though_the_tile_is_the_smallest() -> None:
    """In a gallery of 3 x 3 the last tile is heard. Four others say something else, and four are still pictures."""
    names = [f"grid/unlabelled/u{number}.mp4" for number in range(1, 8)] + ["grid/video/s5/lbax4n.mp4"]
    heard = shared_corpus("grid/video/s4/lgbmzs.mp4")
    tiles = [[frame.rgb for frame in iter_frames(path)] for path in (*map(shared_corpus, names), heard)]
    samples = read_audio(heard)

    def pictures() -> Iterator[VideoFrame]:
        for number in range(75):
            rgb = np.zeros((720, 1280, 3), np.uint8)
            for tile, shown in enumerate(tiles):
                width, height = (300, 240) if tile < 8 else (180, 144)
                left, top = tile % 3 * 426, tile // 3 * 240
                size = (width, height)
                rgb[top : top + height, left : left + width] = cv2.resize(
                    shown[number if tile % 2 == 0 else 20], size, interpolation=cv2.INTER_AREA
                )
            yield VideoFrame(number * SLOT_S, rgb)

    account, widths = Account(), {}

    def watched(slots: Iterator[Slot]) -> Iterator[Slot]:
        for slot in slots:
            widths.update({face: lips.width_px for face, lips in slot.lips.items() if lips.present})
            yield slot

    lips = list(SpeakingFace(iter([samples])).follow(watched(slots_of(pictures(), account=account))))
    assert len(widths) == 9
    smallest = min(widths, key=lambda face: widths[face])
    assert [slot.face for slot in lips[30:60] if slot.present] == [smallest] * 30
    assert account.lines() == ["9 faces are in the picture, and 4 are searched at a time: they take turns"]
