"""What holds for all tests."""

import os

import pytest

# Before torch is imported. Its threads spin while they wait, which on a shared machine costs the small tensors of tests
# several times what a second thread gains.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.fake_devices import camera, microphone  # noqa: E402, F401 (fixtures)


@pytest.fixture
def grid_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands without --model take the model in the package, whatever is installed on this machine."""
    monkeypatch.setenv("AVSR_MODEL", "grid-tiny")


@pytest.fixture
def nothing_installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is installed, and none is named by the environment."""
    monkeypatch.setenv("AVSR_MODELS", str(tmp_path_factory.mktemp("models")))
    monkeypatch.delenv("AVSR_MODEL", raising=False)
