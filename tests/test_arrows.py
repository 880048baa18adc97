"""The arrows between the rooms of the package: who may import whom. No circle, no climbing, no family named outside."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import avsr

ROOT = Path(avsr.__file__).parent

FOUNDATION = {"account", "grid", "errors", "text"}
ARRAYS = {*FOUNDATION, "arrays", "surroundings"}

MAY_IMPORT: dict[str, set[str]] = {
    "grid": set(),
    "errors": set(),
    "text": set(),
    "randomness": set(),
    "account": set(),
    "surroundings": {"errors"},
    "arrays": set(),
    "config": {"errors", "text", "untrusted"},
    "files": {"errors"},
    "untrusted": {"errors", "files", "text"},
    "shipped": {"errors", "config"},
    "processes": {"errors", "files"},
    "output": {*FOUNDATION, "files"},
    "transcript": {"grid", "output", "text"},
    "nn": ARRAYS,
    "media": ARRAYS,
    "sound": {*ARRAYS, "nn"},
    "lips": {*ARRAYS, "media", "shipped"},
    "speakers": {*ARRAYS, "lips", "nn", "shipped", "sound"},
    "decoding": {*ARRAYS, "sound", "untrusted"},
    "engine": {*ARRAYS, "decoding"},
    "catalogue": {"errors", "config", "files", "shipped", "untrusted"},
    "families": {
        *ARRAYS, "catalogue", "config", "decoding", "engine", "files", "lips", "nn", "shipped", "sound", "untrusted",
    },
    "offline": {*ARRAYS, "decoding", "files", "engine", "lips", "media", "sound", "speakers", "transcript"},
    "streaming": {
        *ARRAYS, "decoding", "engine", "lips", "media", "output", "randomness", "sound", "speakers", "transcript",
    },
    "recognizer": {*ARRAYS, "decoding", "engine", "media", "offline", "streaming", "transcript"},
    "datasets": {*ARRAYS, "files", "lips", "media", "processes", "randomness", "shipped", "untrusted"},
    "noise": {*ARRAYS, "avsr", "datasets", "files", "media", "processes", "randomness", "untrusted"},
    "augment": {*ARRAYS, "noise"},
    "training": {
        *ARRAYS, "augment", "avsr", "config", "datasets", "decoding", "families", "files", "lips", "nn", "noise",
        "processes", "randomness", "shipped", "sound", "untrusted",
    },
    "evaluation": {
        *ARRAYS, "augment", "avsr", "datasets", "decoding", "engine", "families", "files", "noise", "offline",
        "processes", "randomness", "untrusted",
    },
    "bench": {
        *ARRAYS, "datasets", "decoding", "engine", "evaluation", "files", "lips", "media", "offline", "streaming",
        "transcript",
    },
    "serving": {*ARRAYS, "avsr", "engine", "lips", "processes", "shipped", "streaming"},
    "models": {"catalogue", "engine", "errors", "families"},
    "avsr": {"errors", "families", "models", "recognizer", "transcript"},
    "cli": {
        *ARRAYS, "avsr", "bench", "config", "datasets", "engine", "evaluation", "families", "files", "lips", "media",
        "models", "noise", "offline", "output", "processes", "serving", "shipped", "streaming", "training",
        "transcript", "untrusted",
    },
    "__main__": {"cli"},
}  # fmt: skip
"""By room (a folder or a file of the package): the rooms that it may import, inside functions too.

Imports for type checkers alone are not counted: they carry no code. The front door `avsr` imports what is below it when
it is asked for; whoever imports `avsr` wants its version or its `load`.
"""

NAME_A_FAMILY = {
    "families": "it is made of them",
    "training": "it trains our own network",
    "cli": "avsr import converts one kind of archive",
}
"""Rooms that may import one family by name, and why."""


def modules() -> dict[str, Path]:
    """All modules of the package, by name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        inside = path.relative_to(ROOT.parent)
        if "assets" not in inside.parts:
            name = ".".join(inside.with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    """The folder or file of the package that a module belongs to; "avsr" for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def imports(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, but for those that only type checkers import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                name = full if full in MODULES else str(node.module)
                if name in MODULES:
                    yield name
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


def test_the_rules_are_about_the_rooms_there_are() -> None:
    assert {room(module) for module in MODULES} <= MAY_IMPORT.keys()


def test_the_rules_themselves_have_no_circle() -> None:
    below = {name: allowed - {"avsr"} for name, allowed in MAY_IMPORT.items()}  # the front door is imported lazily
    assert tuple(graphlib.TopologicalSorter(below).static_order())


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_is_below_it(name: str) -> None:
    climbing = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        if room(module) == name
        for other in imports(path)
        if room(other) not in {name, *MAY_IMPORT[name]}
    ]
    assert not climbing


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {module: set(imports(path)) - {module, "avsr"} for module, path in MODULES.items()}
    assert tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_no_family_is_named_outside_the_families() -> None:
    named = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        if room(module) not in NAME_A_FAMILY
        for other in imports(path)
        if other.startswith("avsr.families.")
    ]
    assert not named


def test_nothing_branches_on_the_name_of_a_family() -> None:
    """Cards say what a model can do; their `family` is for people and records."""
    for module, path in MODULES.items():
        if room(module) == "families":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                assert ".family" not in ast.unparse(node), f"{module}:{node.lineno}"


def test_what_recognises_never_imports_what_trains() -> None:
    """Seen through all they import: inference needs no augmentation, no corpus, no training."""
    graph = {module: set(imports(path)) for module, path in MODULES.items()}
    for start in ("avsr.offline.transcribe", "avsr.streaming.session", "avsr.families", "avsr.recognizer"):
        reached, waiting = set(), [start]
        while waiting:
            module = waiting.pop()
            if module not in reached and module != "avsr":
                reached.add(module)
                waiting += graph.get(module, ())
        rooms = {room(module) for module in reached}
        assert not rooms & {"augment", "training", "datasets", "evaluation", "noise", "cli"}, (start, rooms)
