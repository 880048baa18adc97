"""Conditions of an evaluation: their names, their grid, what they do to lips."""

from __future__ import annotations

import numpy as np
import pytest

from avsr.errors import ConfigError
from avsr.evaluation.conditions import (
    DEFAULT_PICTURES,
    Condition,
    LipCondition,
    SoundCondition,
    change_picture,
    is_random,
    make_grid,
)


def lips(slots: int = 30) -> tuple[np.ndarray, np.ndarray]:
    crops = np.random.default_rng(0).integers(0, 256, (slots, 96, 96)).astype(np.uint8)
    return crops, np.ones(slots, bool)


def changed(name: str, seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    return change_picture(LipCondition(name, seed), *lips(), "s1/clip")


@pytest.mark.parametrize("name", DEFAULT_PICTURES)
def test_every_default_keeps_the_length_and_changes_what_it_says(name: str) -> None:
    crops, present = lips()
    new_crops, new_present = changed(name, 1 if is_random(name) else None)
    assert new_crops.shape == crops.shape and new_present.shape == present.shape
    is_same = np.array_equal(crops, new_crops) and np.array_equal(present, new_present)
    assert is_same == (name == "intact")
    again = changed(name, 1 if is_random(name) else None)
    np.testing.assert_array_equal(new_crops, again[0])
    np.testing.assert_array_equal(new_present, again[1])
    np.testing.assert_array_equal(crops, lips()[0])  # what was given is left alone


def test_amounts_are_what_the_name_says() -> None:
    crops, _ = lips()
    assert not changed("absent")[1].any()
    for third, name in enumerate(("first", "middle", "last")):
        lost = np.flatnonzero(~changed(f"lost-{name}-third")[1])
        assert lost.tolist() == list(range(10 * third, 10 * third + 10))
    assert changed("random-30", 1)[1].sum() == 21
    assert not np.array_equal(changed("random-30", 1)[1], changed("random-30", 2)[1])
    late, present = changed("late-120")
    np.testing.assert_array_equal(late[3:], crops[:-3])
    assert not present[:3].any() and present[3:].all()
    early, present = changed("early-120")
    np.testing.assert_array_equal(early[:-3], crops[3:])
    frozen, present = changed("frozen-50")
    assert (frozen[15:] == crops[15]).all() and present.all()
    np.testing.assert_array_equal(frozen[:15], crops[:15])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("intakt", "did you mean intact"),
        ("random", "random-N, where N is percent"),
        ("random-0", "percent of the slots lost, 1 to 99"),
        ("random-nan", "1 to 99"),
        ("random-1e1", "1 to 99"),  # else random-10 would have two names
        ("late-50", "a multiple of 40"),
        ("blur-0", "more than 0"),
        ("low-resolution-96", "in place of 96"),
        ("", "unknown condition"),
    ],
)
def test_wrong_names_are_explained(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_grid(("av",), (), (None,), (name,), (1,))


def test_grid_holds_each_condition_once() -> None:
    grid = make_grid(
        ("a", "v", "av"), ("white", "babble"), (None, 0.0, -5.0), ("intact", "absent", "random-50"), (1, 2)
    )
    conditions = list(grid.conditions())
    assert len(set(conditions)) == len(conditions)
    a, v, av = ([c for c in conditions if c.modality == m] for m in ("a", "v", "av"))
    assert len(a) == 1 + 2 * 2 * 2  # clean once: nothing about it is random
    assert [c.video for c in v] == ["intact", "random-50", "random-50"]  # nothing can be read from absent lips
    assert len(av) == (1 + 1 + 2) + 8 * 3  # a seed of the noise goes with the same seed of the lips
    assert Condition("av", "white", 0.0, "random-50", 2) in av
    assert all(c.seed is not None for c in av if c.noise != "clean")


def test_zero_db_is_a_level_and_clean_is_none() -> None:
    grid = make_grid(("a",), ("white",), (0.0,), ("intact",), (7,))
    assert grid.sounds == (SoundCondition("white", 0.0, 7),)
    assert [str(c) for c in grid.conditions()] == ["audio only, white 0 dB"]


def test_clean_sound_may_be_random_too() -> None:
    grid = make_grid(("a", "av"), (), (None,), ("intact", "random-50"), (1, 2), clean_is_random=True)
    assert [c.seed for c in grid.conditions()] == [1, 2, 1, 1, 2, 2]


def test_empty_and_double_lists_are_refused() -> None:
    with pytest.raises(ConfigError, match="SNR"):
        make_grid(("a",), ("white",), (0.0, 0.0), ("intact",), (1,))
    with pytest.raises(ConfigError, match="noise: got white, white"):
        make_grid(("a",), ("white", "white"), (0.0,), ("intact",), (1,))
    with pytest.raises(ConfigError, match="seed: got none"):
        make_grid(("a",), ("white",), (0.0,), ("intact",), ())
    with pytest.raises(ConfigError, match="expected numbers in dB"):
        make_grid(("a",), ("white",), (float("nan"),), ("intact",), (1,))
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        make_grid(("v",), (), (None,), ("absent",), (1,))
