"""Finds recordings of real people for tests. They are too large and too personal for this repository.

The environment variable AVSR_TEST_MEDIA names their folder; its default is `shared` beside the repository. Short clips
of many kinds are in `clips/`, corpora in `corpora/`, published model formats in `nemo/` and
`av_models/`. A test that needs a missing recording is skipped, with the name of the recording. Published weights are
taken from the models that are installed (`avsr models pull NAME`), and a test without them is skipped too.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from avsr.catalogue.entries import find_entry
from avsr.catalogue.store import installed_folder


def shared_clip(name: str) -> Path:
    """The file `clips/NAME` of the test media; skips the test when it is missing."""
    return _existing(Path("clips", name))


def shared_corpus(relative: str) -> Path:
    """The file or folder `corpora/RELATIVE` of the test media; skips the test when it is missing."""
    return _existing(Path("corpora", relative))


def shared_nemo(name: str) -> Path:
    """The file `nemo/NAME` of the test media; skips the test when it is missing."""
    return _existing(Path("nemo", name))


def shared_lip_model(name: str) -> Path:
    """The folder `av_models/NAME` of the test media; skips the test when it is missing."""
    return _existing(Path("av_models", name))


def installed_model(name: str) -> Path:
    """The folder of the installed model NAME; skips the test when it is not installed."""
    folder = installed_folder(find_entry(name))
    if folder is None:
        pytest.skip(f"model {name} is not installed: avsr models pull {name}")
    return folder


def _existing(relative: Path) -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("AVSR_TEST_MEDIA") or beside) / relative
    if not path.exists():
        pytest.skip(f"no test media {relative}: set AVSR_TEST_MEDIA to a folder that holds it")
    return path
