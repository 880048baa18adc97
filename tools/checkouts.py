"""Runs Python in a checkout: the code of that folder, whichever version of `avsr` is installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = "avsr"
DEMO_CLIP = Path(PACKAGE, "assets", "demo.mp4")


class CheckoutError(Exception):
    """A folder is not a checkout, or a process in it failed. The message is one line and what the process wrote."""


def checkout(path: Path) -> Path:
    """The absolute path of a checkout. Raises CheckoutError if it has no package `avsr`."""
    folder = path.resolve()
    if not (folder / PACKAGE / "__init__.py").is_file():
        raise CheckoutError(f"{path}: not a checkout; expected a folder with the package {PACKAGE}")
    return folder


def environment(folder: Path, threads: int) -> dict[str, str]:
    """The environment of a process that imports `avsr` from `folder` and computes with `threads` threads."""
    return os.environ | {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "",  # empty: bytecode is cached, as for a user
        "OMP_NUM_THREADS": str(threads),
    }


def require_package_of(folder: Path) -> None:
    """Raises CheckoutError if this process imports `avsr` from elsewhere than `folder`."""
    import avsr

    found = Path(avsr.__file__).resolve()
    if folder.resolve() not in found.parents:
        raise CheckoutError(f"avsr was imported from {found}; expected {folder}")


def script(path: str, *words: object) -> list[str]:
    """The command line that runs a script of this folder with the interpreter of this process."""
    return [sys.executable, str(Path(path).resolve()), *map(str, words)]
