"""Recognisers for tests of evaluation: what they write follows from what they are given."""

from __future__ import annotations

import numpy as np

from tests.tiny import WORDS


def loudest(samples: np.ndarray) -> str:
    """Three words: at which tenths of the sound it is loudest."""
    tenths = np.array_split(np.abs(samples), 10)
    order = np.argsort([-float(tenth.mean()) for tenth in tenths])
    return " ".join(WORDS[place % len(WORDS)] for place in order[:3])


def both(samples: np.ndarray | None, lips: np.ndarray | None, presence: np.ndarray | None) -> str:
    """What was given: how many samples, crops and slots with lips."""
    heard = "none" if samples is None else str(len(samples))
    seen = "none" if lips is None or presence is None else f"{len(lips)} {int(presence.sum())}"
    return f"{heard} {seen}"


both.modalities = ("a", "v", "av")  # type: ignore[attr-defined]


def nothing(samples: np.ndarray) -> str:
    return ""


def korean(samples: np.ndarray) -> str:
    return "오늘은 AI 를, 배웁니다!"


def broken(samples: np.ndarray) -> str:
    raise RuntimeError("out of order")


def number(samples: np.ndarray) -> int:
    return 7


not_callable = 3
