"""What may import what: the parts outside the engines work without torch, and no files import each other in a ring."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import avsr

ROOT = Path(avsr.__file__).parent

WITHOUT_TORCH = (
    "avsr",
    "avsr.engine",
    "avsr.media",
    "avsr.lips",
    "avsr.output",
    "avsr.decoding",
    "avsr.streaming",
    "avsr.offline.transcribe",
    "avsr.offline.source",
    "avsr.offline.windows",
    "avsr.recognizer",
    "avsr.families",
    "avsr.sound.silence",
    "avsr.sound.voice",
    "avsr.speakers.offset",
    "avsr.speakers.speaking_face",
)
"""Modules, and packages with all their modules, that must import where torch is missing."""

WITHOUT_RINGS = ("avsr.lips", "avsr.sound", "avsr.speakers")


def modules_of(name: str) -> list[str]:
    """A module, or a package and the modules in it; for `avsr` itself the package alone."""
    folder = ROOT.parent.joinpath(*name.split("."))
    if name == "avsr" or not folder.is_dir():
        return [name]
    inside = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    return [name, *(f"{name}.{stem}" for stem in inside)]


def imports_of(module: str) -> set[str]:
    """The modules of this repository that a module imports anywhere in its text, inside functions too."""
    path = ROOT.parent.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_the_parts_outside_the_engines_need_no_torch() -> None:
    modules = [module for name in WITHOUT_TORCH for module in modules_of(name)]
    assert "avsr.lips.occlusion" in modules and "avsr.media.video" in modules
    blocked = "import importlib, sys; sys.modules['torch'] = sys.modules['torchaudio'] = None\n"
    code = blocked + "".join(f"importlib.import_module({module!r})\n" for module in modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_lips_and_voice_are_found_without_torch() -> None:
    """Not only imported: crops are cut, covers judged and voices found where torch is missing."""
    code = f"""
import sys; sys.modules['torch'] = sys.modules['torchaudio'] = None
from avsr.lips.tracker import extract_lips
from avsr.media import read_audio
from avsr.sound.voice import VoiceActivity
assert extract_lips({str(ROOT / "assets" / "demo.mp4")!r}).present.mean() > 0.9
voice = VoiceActivity()
voice.push(read_audio({str(ROOT / "assets" / "demo.mp4")!r}))
assert voice.last_voice_s > 2.0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", WITHOUT_RINGS)
def test_no_files_import_each_other_in_a_ring(package: str) -> None:
    modules = set(modules_of(package)) - {package}
    order = graphlib.TopologicalSorter({module: imports_of(module) & modules for module in modules})
    assert len(tuple(order.static_order())) == len(modules)  # raises CycleError for a ring, naming its modules
