"""What holds for all tests."""

import os

# Before torch is imported. Its threads spin while they wait, which on a shared machine costs the small tensors of tests
# several times what a second thread gains.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.fake_devices import camera, microphone  # noqa: E402, F401 (fixtures)
