"""The `avsr` command with the stand-in of fake_recognizer.py, for tests that need a process of their own."""

import sys

import avsr
from avsr.cli.main import main
from tests.fake_recognizer import load

avsr.load = load  # at import, because worker processes import this file again

if __name__ == "__main__":
    sys.exit(main())
