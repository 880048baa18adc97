"""docs/security.md states the limits that hold: each row names a constant, and the number beside it is its value."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "security.md"
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "min": 60, "h": 3600}
"""By unit: what to multiply the number of the page with. Units that are not here, such as s and px, are those of the
constant."""


def rows() -> Iterator[tuple[str, str]]:
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| `(avsr\.[\w.]+)` \| ([^|]+) \| [^|]{20,} \|$", line)
        assert row or not line.startswith("| `"), f"no row of constant, limit, reason: {line}"
        if row:
            yield row[1], row[2].strip()


def value_of(name: str) -> object:
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"no such constant: {name}")


@pytest.mark.parametrize(("name", "limit"), list(rows()))
def test_the_page_states_the_value_of_the_constant(name: str, limit: str) -> None:
    number, _, unit = limit.partition(" ")
    assert float(number) * UNITS.get(unit, 1) == pytest.approx(value_of(name))


def test_every_large_group_of_limits_is_on_the_page() -> None:
    names = {name for name, _ in rows()}
    assert {name.split(".")[1] for name in names} >= {"untrusted", "media", "serving"}
