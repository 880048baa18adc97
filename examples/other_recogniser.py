"""Puts another recogniser behind `avsr.Recognizer`: transcripts, subtitles and the rest then work with it.

    python examples/other_recogniser.py [FILE]

The recogniser here is a toy: it writes "speech" wherever the sound is loud. A real one would call its own library in
`encode_audio` and `decode`, which are all that a recogniser of whole files needs. Its `Card` says what it can do: this
one uses sound alone, in windows of 30 s.

To open it with `avsr.load` and on the command line, add a row to `FAMILIES` in avsr/families/__init__.py:

    Family("loud", lambda target: target == "loud", lambda target, device, dtype: make_model(), "the word loud")
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import avsr
from avsr.engine import Spoken

DEMO = Path(avsr.__file__).parent / "assets/demo.mp4"
BLOCK_S, BLOCK_SAMPLES = 0.1, 1600
LOUD = 0.02  # root mean square of a block


class Loudness:
    """An engine. Every list is a batch; what `encode_audio` returns is handed to `decode` unchanged."""

    def encode_audio(self, samples: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Of each item of the batch, float32 [S] at 16 kHz: the level of its blocks of 100 ms."""
        blocks = [item[: len(item) // BLOCK_SAMPLES * BLOCK_SAMPLES].reshape(-1, BLOCK_SAMPLES) for item in samples]
        return [np.sqrt((item**2).mean(axis=1)) for item in blocks]

    def encode_lips(self, crops: Sequence[np.ndarray], present: Sequence[np.ndarray], audio: object) -> None:
        """Never called, because the card names no modality with lips."""

    def decode(self, audio: list[np.ndarray] | None, lips: None, search: avsr.Search) -> list[list[Spoken]]:
        """The words of each item, with times from the beginning of the item."""
        return [self._words(levels) for levels in audio or []]

    def _words(self, levels: np.ndarray) -> list[Spoken]:
        edges = np.flatnonzero(np.diff(levels > LOUD, prepend=False, append=False))
        return [Spoken("speech", start * BLOCK_S, end * BLOCK_S, 0.5) for start, end in edges.reshape(-1, 2)]


def make_model() -> avsr.Model:
    card = avsr.Card(name="loud", family="loud", modalities=("a",), domain='the word "speech"', window_s=30, margin_s=0)
    return avsr.Model(card, Loudness())


def main(path: str = str(DEMO)) -> None:
    transcript = avsr.Recognizer(make_model()).transcribe(path)
    print(*transcript.warnings, sep="\n", file=sys.stderr)
    for segment in transcript.segments:
        print(f"{segment.start:6.2f} - {segment.end:6.2f} s  {segment.text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
