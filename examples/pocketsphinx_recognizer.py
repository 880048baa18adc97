"""PocketSphinx as another recogniser for `avsr evaluate`: how a recogniser of one's own is put into the same table.

    pip install pocketsphinx
    avsr evaluate MANIFEST --recognizer examples/pocketsphinx_recognizer.py:transcribe
    avsr evaluate MANIFEST --recognizer examples/pocketsphinx_recognizer.py:transcribe_grid

or, with PocketSphinx in an environment of its own:

    avsr evaluate MANIFEST --command "other/bin/python examples/pocketsphinx_recognizer.py"

It only hears. Its English acoustic and language models come inside its wheel. The second function allows the sentences
of the GRID corpus only, as a model that was trained on them does.
"""

from __future__ import annotations

import functools
import sys
import wave
from typing import Any

GRID_GRAMMAR = """#JSGF V1.0;
grammar grid;
public <sentence> = (bin | lay | place | set) (blue | green | red | white) (at | by | in | with)
  (a | b | c | d | e | f | g | h | i | j | k | l | m | n | o | p | q | r | s | t | u | v | x | y | z)
  (zero | one | two | three | four | five | six | seven | eight | nine) (again | now | please | soon);
"""


def transcribe(samples: Any) -> str:
    """The text of samples, a float array [S] in [-1, 1] at 16 kHz, with PocketSphinx's own language model."""
    return _decode(_decoder(None), _pcm(samples))


def transcribe_grid(samples: Any) -> str:
    """As `transcribe`, but a sentence of the GRID corpus, or nothing."""
    return _decode(_decoder(GRID_GRAMMAR), _pcm(samples))


@functools.cache  # one in each process
def _decoder(grammar: str | None) -> Any:
    from pocketsphinx import Decoder

    if grammar is None:
        return Decoder(samprate=16_000, loglevel="FATAL")
    decoder = Decoder(samprate=16_000, loglevel="FATAL", lm=None)
    decoder.add_jsgf_string("grid", grammar)
    decoder.activate_search("grid")
    return decoder


def _decode(decoder: Any, pcm: bytes) -> str:
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis is not None else ""


def _pcm(samples: Any) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


if __name__ == "__main__":
    with wave.open(sys.argv[1]) as file:
        print(_decode(_decoder(None), file.readframes(file.getnframes())))
