"""The `avsr` command with a small live model of random weights, for tests that need a process of their own."""

import sys

import avsr
from avsr.cli.main import main
from avsr.recognizer import Recognizer
from tests.tiny import live_network, own_recognizer, tiny_tokenizer


def load(name: str, *, device: str) -> Recognizer:
    """Takes the place of avsr.load."""
    return own_recognizer(live_network(), tiny_tokenizer())


if __name__ == "__main__":
    avsr.load = load  # type: ignore[assignment]
    sys.exit(main())
