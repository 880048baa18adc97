"""scripts/check_system.py names what is missing and how to get it."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, on a Linux machine that has neither libGL nor the second half of venv."""
    path = Path(__file__).resolve().parents[1] / "scripts" / "check_system.py"
    spec = importlib.util.spec_from_file_location("check_system", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def load(name: str) -> None:
        if name == "libGL.so.1":
            raise OSError

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    monkeypatch.setattr(sys, "argv", ["check_system.py"])
    return module


@pytest.mark.parametrize(
    ("release", "install"),
    [
        ({"ID": "debian"}, f"sudo apt-get install python3.{sys.version_info[1]}-venv libgl1"),
        (
            {"ID": "linuxmint", "ID_LIKE": "ubuntu debian"},
            f"sudo apt-get install python3.{sys.version_info[1]}-venv libgl1",
        ),
        ({"ID": "fedora"}, "sudo dnf install mesa-libGL"),
        ({"ID": "nixos"}, "look for packages with these names in your system's package manager"),
    ],
)
def test_missing_things_come_with_their_packages(
    script: ModuleType,
    release: dict[str, str],
    install: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    assert script.main() == 1
    venv, library, remedy = capsys.readouterr().err.splitlines()
    assert venv == "avsr: missing: Python's venv module, which keeps the packages of avsr apart"
    assert library == "avsr: missing: the library libGL.so.1, which OpenCV and MediaPipe load"
    assert remedy.endswith(install)


def test_names_alone_for_a_script(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "debian"})
    monkeypatch.setattr(sys, "argv", ["check_system.py", "--packages"])
    assert script.main() == 0
    assert capsys.readouterr().out == f"python3.{sys.version_info[1]}-venv libgl1\n"


def test_python_and_machine_without_wheels(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    monkeypatch.setattr(platform, "python_version", lambda: "3.13.0")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert script.main() == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "avsr: Python 3.13.0 does not fit: avsr needs 3.10, 3.11 or 3.12"
    assert lines[1] == "avsr: MediaPipe 0.10.21 has no wheel for Linux on aarch64, only on x86_64"
