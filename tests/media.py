"""Where tests find recordings of real people, which are too large and too personal to live in this repository.

They are looked for in the folder named by the environment variable AVSR_TEST_MEDIA, by default `shared` beside the
repository: short clips of many kinds in `clips/`, corpora in `corpora/`, published model formats in `nemo/`. A test
that asks for one that is not there is skipped, saying which.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_clip(name: str) -> Path:
    """The file `clips/NAME` of the test media; skips the test when it is missing."""
    return _existing(Path("clips", name))


def shared_corpus(relative: str) -> Path:
    """The file or folder `corpora/RELATIVE` of the test media; skips the test when it is missing."""
    return _existing(Path("corpora", relative))


def shared_nemo(name: str) -> Path:
    """The file `nemo/NAME` of the test media; skips the test when it is missing."""
    return _existing(Path("nemo", name))


def _existing(relative: Path) -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("AVSR_TEST_MEDIA") or beside) / relative
    if not path.exists():
        pytest.skip(f"no test media {relative}: set AVSR_TEST_MEDIA to a folder that holds it")
    return path
