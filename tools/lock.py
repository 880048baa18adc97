"""Write requirements.txt: the versions of constraints.txt, each with the hashes of its wheels.

    pip install uv
    python tools/lock.py            writes requirements.txt
    python tools/lock.py --check    exit code 1 if requirements.txt is not what would be written

`uv` resolves what `make` installs, once for each Python and platform below, and says which wheels fit. Only wheels are
listed, so that an installation runs no code of a package. A version that constraints.txt does not name is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS, REQUIREMENTS = ROOT / "constraints.txt", ROOT / "requirements.txt"

EXTRAS = ("train", "serve", "whisper", "hub", "dev", "docs")
"""What `make` installs: scripts/install.py."""
PYTHONS = ("3.10.20", "3.11.20", "3.12.20")
"""The newest releases, because some packages need more than the first one, such as 3.11.5."""
PLATFORMS = ("x86_64-manylinux_2_40", "aarch64-apple-darwin")
"""Linux on ARM lacks a wheel of mediapipe, macOS on Intel one of torch: scripts/check_system.py says so."""
MACOS = "14.0"
"""The oldest macOS that is served: the wheels of some packages need it."""
HEADER = """\
# The versions of constraints.txt with the hashes of their wheels, as `make` installs them:
#     pip install --require-hashes --only-binary :all: -r requirements.txt
# Written by tools/lock.py: change constraints.txt, and run it again.
"""

Pin = tuple[str, str]
"""Name and version of a package."""


class Line(NamedTuple):
    """One line of constraints.txt."""

    text: str
    pin: Pin


def main() -> int:
    """Write or check the file; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare only")
    arguments = parser.parse_args()
    lines = read_constraints(CONSTRAINTS.read_text(encoding="utf-8"))
    hashes = resolved_hashes()
    missing = sorted(set(hashes) - {line.pin for line in lines})
    if missing:
        print("lock: constraints.txt lacks " + ", ".join(map("==".join, missing)), file=sys.stderr)
        return 1
    text = render(lines, hashes)
    if arguments.check:
        return int(REQUIREMENTS.read_text(encoding="utf-8") != text)
    REQUIREMENTS.write_text(text, encoding="utf-8")
    return 0


def read_constraints(text: str) -> list[Line]:
    """The pinned versions of a list, without its comments."""
    texts = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Line(text, _pin(text)) for text in texts if text]


def render(lines: list[Line], hashes: dict[Pin, set[str]]) -> str:
    """The text of requirements.txt. A version without a hash belongs to an extra that `make` does not install."""
    entries = (
        " \\\n    --hash=sha256:".join([line.text, *sorted(hashes[line.pin])]) for line in lines if line.pin in hashes
    )
    return HEADER + "\n".join(entries) + "\n"


def resolved_hashes() -> dict[Pin, set[str]]:
    """The hashes of the wheels of every version that some Python on some platform installs."""
    found: dict[Pin, set[str]] = defaultdict(set)
    for platform in PLATFORMS:
        for python in PYTHONS:
            try:
                wheels = _resolve(python, platform)
            except subprocess.CalledProcessError as error:
                print(f"lock: Python {python} on {platform} cannot be served: {_cause(error.stderr)}", file=sys.stderr)
                continue
            for pin, hashes in wheels.items():
                found[pin] |= hashes
    return found


def _resolve(python: str, platform: str) -> dict[Pin, set[str]]:
    """The versions and the hashes of the wheels that fit. Raises CalledProcessError if there is no solution."""
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder, "pylock.toml")
        command: list[str | Path] = [
            "uv",
            "pip",
            "compile",
            "--quiet",
            ROOT / "pyproject.toml",
            "--constraint",
            CONSTRAINTS,
        ]
        command += [part for extra in EXTRAS for part in ("--extra", extra)]
        command += ["--python-version", python, "--python-platform", platform, "--no-python-downloads"]
        command += ["--only-binary", ":all:", "--format", "pylock.toml", "--output-file", lock]
        environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": MACOS}
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
        )
        return read_lock(lock.read_text(encoding="utf-8"))


def read_lock(text: str) -> dict[Pin, set[str]]:
    """The packages of a pylock.toml with the hashes of their wheels."""
    packages = {}
    for part in text.split("[[packages]]")[1:]:
        name, version = (
            json.loads(re.findall(rf"^{key} = (.*)$", part, re.MULTILINE)[0]) for key in ("name", "version")
        )
        packages[name, version] = set(re.findall(r'sha256 = "([0-9a-f]{64})"', part))
    return packages


def _pin(text: str) -> Pin:
    match = re.fullmatch(r"([a-z0-9.-]+)==([^;\s]+)(?:\s*;.*)?", text)
    if match is None:
        raise ValueError(f"{text!r} is not NAME==VERSION; MARKER")
    return match[1], match[2]


def _cause(message: str) -> str:
    return " ".join(message.split())[-400:]


if __name__ == "__main__":
    sys.exit(main())
