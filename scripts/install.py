"""Install avsr with all it needs into a virtual environment.

    python3 scripts/install.py .venv        from the root of the repository

Every package comes as a wheel whose hash requirements.txt has, the build backend too; no code of a package runs before.
Safe to repeat, to interrupt and to start twice: the file .installed in the environment is written last, and only one
installation runs at a time. An environment that an interrupted installation left behind is made anew.
"""

from __future__ import annotations

import fcntl
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

INPUTS = (Path("pyproject.toml"), Path("requirements.txt"))
SIZE = "about 6 GB"
PACKAGES = ("--require-hashes", "--only-binary", ":all:", "-r", "requirements.txt")
# Built by the backend that was just installed by its hash: without isolation pip would fetch another one.
AVSR = ("--no-index", "--no-deps", "--no-build-isolation", "-e", ".")


def main() -> int:
    """Install into the environment that is named on the command line; returns the exit code."""
    environment = Path(sys.argv[1])
    stamp = environment / ".installed"
    unfinished = environment / ".unfinished"
    python = environment / "bin" / "python"

    with INPUTS[0].open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits for another installation; goes with the process, however it ends
        if stamp.exists() and all(stamp.stat().st_mtime > path.stat().st_mtime for path in INPUTS) and _works(python):
            return 0  # the other installation did it
        stamp.unlink(missing_ok=True)
        # pip takes a package whose files were half written for installed, so an interrupted installation is not mended.
        if unfinished.exists() or not _works(python):
            shutil.rmtree(environment, ignore_errors=True)
            environment.mkdir(parents=True)
            unfinished.touch()
            subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        unfinished.touch()
        print(f"avsr: installing into {environment}: {SIZE}, which takes some minutes", file=sys.stderr)
        problem = _pip(python, PACKAGES) or _pip(python, AVSR)
        unfinished.unlink()
        if problem:
            print(f"avsr: {problem}", file=sys.stderr)
            return 1
        stamp.touch()
    return 0


def _pip(python: Path, what: tuple[str, ...]) -> str:
    """Install with pip; returns one line about what went wrong, empty if nothing did."""
    command = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input", *what]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
    problem = _problem(done.stderr) if done.returncode else ""
    if problem == "" or problem == OTHER:  # warnings, or what only pip can explain
        sys.stderr.write(done.stderr)
    return problem


OTHER = "pip failed, as it says above; run the same command again"


def _problem(message: str) -> str:
    """What pip reports, as one line; OTHER if it is nothing that is known here."""
    if "DO NOT MATCH THE HASHES" in message:
        wrong = re.search(r"^ +(?P<name>\S+)(?: .*)?:\n +Expected", message, re.MULTILINE)
        return (
            f"{wrong['name'] if wrong else 'a package'} is not the file that was tested: its hash is not in"
            " requirements.txt. Nothing was installed. Check where pip downloads from, then run the same command again"
        )
    missing = re.search(r"No matching distribution found for (?P<name>[^\s;]+)", message)
    if missing:
        machine = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        return (
            f"{missing['name']}: the package index has no wheel for {machine}, or it does not answer."
            " Linux on x86_64 and macOS 14 on arm64 have all wheels"
        )
    if "No space left on device" in message or "Disk quota exceeded" in message:
        return f"no space left on the device: {SIZE} are needed. Make room, then run the same command again"
    return OTHER


def _works(python: Path) -> bool:
    try:
        return subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
