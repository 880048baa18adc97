"""A disk that is full: the system refuses to let any file of this process grow beyond a size."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

REFUSED = "File too large"
"""What the system says. It takes the same way through all libraries as "No space left on device"."""
SIZES = (0, 1, 40, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000)


@contextlib.contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """No file grows beyond this size, whoever writes it: Python, torch, ffmpeg or safetensors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def hidden(folder: Path) -> list[Path]:
    """Unfinished files and folders."""
    return [path for path in folder.rglob("*") if path.name.endswith((".partial", ".part"))]


def until_it_fits(
    command: Callable[[], int],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    sizes: Sequence[int] = SIZES,
) -> list[str]:
    """Repeat a command with more room each time, until it succeeds. Returns the lines of the failures.

    Each failure is told in one line with a file of `folder` and a remedy, and leaves no half file there.
    """
    failures = []
    for size in sizes:
        with files_up_to(size):
            code = command()
        error = capsys.readouterr().err
        if code == 0:
            assert failures, "the first size was large enough, so nothing was tested"
            return failures
        assert code == 1 and "unexpected" not in error and "Traceback" not in error, error
        lines = [line for line in error.splitlines() if REFUSED in line]
        assert lines and all(str(folder) in line and "; raise the limit of the size" in line for line in lines), error
        assert hidden(folder) == []
        failures += lines
    raise AssertionError(f"even {sizes[-1]} bytes were not enough: {failures[-1]}")
