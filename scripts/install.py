"""Install avsr with all it needs into a virtual environment.

    python3 scripts/install.py .venv        from the root of the repository

Safe to repeat, to interrupt and to start twice: the file .installed in the environment is written last, and only one
installation runs at a time. An environment that an interrupted installation left behind is made anew.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

INPUTS = (Path("pyproject.toml"), Path("constraints.txt"))


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
        print(f"avsr: installing into {environment}: about 6 GB, which takes some minutes", file=sys.stderr)
        pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input"]
        done = subprocess.run(
            [*pip, "-c", "constraints.txt", "-e", ".[train,serve,whisper,hub,dev,docs]"], stdin=subprocess.DEVNULL
        )
        unfinished.unlink()
        if done.returncode:
            print("avsr: pip failed, as it says above; run the same command again", file=sys.stderr)
            return 1
        stamp.touch()
    return 0


def _works(python: Path) -> bool:
    try:
        return subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
