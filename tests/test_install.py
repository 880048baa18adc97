"""What `make` installs: every wheel by its hash, and each failure in one line."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.fake_sources import make_wheel

ROOT = Path(__file__).resolve().parents[1]
Install = Callable[[str], str]


def script(folder: str, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only place where pip looks."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path / "wheels"


@pytest.fixture
def install(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a list as the script does, into a folder; returns the problem."""
    module = script("scripts", "install")
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "installed"))

    def run(requirements: str) -> str:
        path = tmp_path / "requirements.txt"
        path.write_text(requirements)
        assert module.PACKAGES[-1] == "requirements.txt"
        problem: str = module._pip(Path(sys.executable), (*module.PACKAGES[:-1], str(path)))
        return problem

    return run


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="no pip")
class TestHashes:
    def test_the_right_wheel_is_installed(self, install: Install, wheels: Path, tmp_path: Path) -> None:
        digest = make_wheel(wheels, "toy", {"toy.py": b"x = 1"})
        assert install(f"toy==1.0 --hash=sha256:{digest}\n") == ""
        assert (tmp_path / "installed/toy.py").exists()

    def test_another_file_of_that_name_is_not(
        self, install: Install, wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        right = make_wheel(wheels, "toy", {"toy.py": b"x = 1"})
        make_wheel(wheels, "toy", {"toy.py": b"print('hostile')"})
        other = make_wheel(wheels, "other", {"other.py": b"x = 1"})
        problem = install(
            f"other==1.0 --hash=sha256:{other}\ntoy==1.0 \\\n    --hash=sha256:{'0' * 64} --hash=sha256:{right}\n"
        )
        assert problem.startswith("toy==1.0 is not the file that was tested: its hash is not in requirements.txt.")
        assert not (tmp_path / "installed").exists()
        assert capsys.readouterr().err == ""  # the line is ours alone

    def test_what_has_no_hash_is_not(self, install: Install, wheels: Path, tmp_path: Path) -> None:
        make_wheel(wheels, "toy", {"toy.py": b"x = 1"})
        assert "pip failed" in install("toy==1.0\n")
        assert not (tmp_path / "installed").exists()

    def test_a_package_without_a_wheel_is_named(self, install: Install, wheels: Path) -> None:
        make_wheel(wheels, "toy", {"toy.py": b"x = 1"})
        (wheels / "only-source-1.0.tar.gz").write_bytes(b"1 / 0")
        problem = install(f"only-source==1.0 --hash=sha256:{'0' * 64}\n")
        assert problem.startswith("only-source==1.0: the package index has no wheel for Python 3.")

    def test_a_full_disk(self) -> None:
        problem = script("scripts", "install")._problem("ERROR: [Errno 28] No space left on device\n")
        assert problem.startswith("no space left on the device: about 6 GB are needed")


class TestList:
    lock = script("tools", "lock")
    requirements = (ROOT / "requirements.txt").read_text()

    def test_it_agrees_with_the_constraints(self) -> None:
        pinned = [line.text for line in self.lock.read_constraints((ROOT / "constraints.txt").read_text())]
        listed = re.findall(r"^(\S.*?) \\$", self.requirements, re.MULTILINE)
        # The extra `rooms` alone needs these, and `make` does not install it.
        assert [line for line in pinned if not line.startswith(("pyroomacoustics==", "cython=="))] == listed

    def test_every_version_has_hashes_and_no_other_way_in(self) -> None:
        body = self.requirements.removeprefix(self.lock.HEADER)
        entry = r"\S.*(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
        assert re.fullmatch(rf"(?:{entry})+", body)
        assert "://" not in self.requirements

    def test_it_has_what_the_tests_run_with(self) -> None:
        listed = {name for name, _ in re.findall(r"^([a-z0-9.-]+)==(\S+)", self.requirements, re.MULTILINE)}
        # The backend that builds avsr itself is one of them, so that nothing is fetched without a hash.
        assert {"setuptools", "torch", "mediapipe", "pytest", "nvidia-cublas", "triton"} <= listed
        assert "setuptools" in (ROOT / "pyproject.toml").read_text().partition("[project]")[0]

    def test_a_lock_becomes_a_list(self) -> None:
        text = (
            '[[packages]]\nname = "one"\nversion = "1.0"\nwheels = [{ url = "https://x/one.whl", '
            f'hashes = {{ sha256 = "{"b" * 64}" }} }}, {{ hashes = {{ sha256 = "{"a" * 64}" }} }}]\n'
            f'[[packages]]\nname = "two"\nversion = "2"\nwheels = [{{ hashes = {{ sha256 = "{"c" * 64}" }} }}]\n'
        )
        hashes = self.lock.read_lock(text)
        lines = self.lock.read_constraints("# list\none==1.0; python_version < '3.11'\nunused==3\ntwo==2  # why\n")
        assert self.lock.render(lines, hashes).removeprefix(self.lock.HEADER) == (
            f"one==1.0; python_version < '3.11' \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n"
            f"two==2 \\\n    --hash=sha256:{'c' * 64}\n"
        )

    def test_make_installs_from_it(self) -> None:
        makefile = (ROOT / "Makefile").read_text()
        assert "$(STAMP): pyproject.toml requirements.txt" in makefile
        dry = subprocess.run(["make", "-n", "demo", "VENV=none"], cwd=ROOT, capture_output=True, text=True)
        assert "scripts/install.py none" in dry.stdout
