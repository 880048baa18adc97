"""When each word of a recording is said, by forced alignment with a model whose units are words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avsr.arrays import Samples
from avsr.errors import DataError, ModelError

SAMPLE_RATE = 16_000
SHIFTS = 4
"""How many times a recording is aligned, each time a quarter of a frame later."""

Times = list[tuple[str, float, float]]
"""Words with start and end in seconds."""


class Aligner:
    """Finds the times of words with a model, on one thread: processes that do this work side by side.

    name: of the model. Raises ModelError if it does not exist or its units are no words.
    """

    def __init__(self, name: str) -> None:
        import torch

        import avsr
        from avsr.decoding.tokenizer import WordTokenizer

        torch.set_num_threads(1)
        self._recognizer = avsr.load(name)
        self._recognizer.card.require("a")
        frames = self._recognizer.model.frames
        tokenizer = getattr(frames, "tokenizer", None)
        if frames is None or not isinstance(tokenizer, WordTokenizer):
            raise ModelError(
                f"model {self._recognizer.name} cannot find word times",
                expected="a model whose units are words, such as grid-tiny",
            )
        self._tokenizer = tokenizer
        self._frame_s = frames.frame_ms / 1000

    def units(self, words: Sequence[str]) -> list[int]:
        """The numbers of the words. Raises DataError for a word that the model does not know."""
        return self._tokenizer.encode(" ".join(words))

    def word_times(self, samples: Samples, words: Sequence[str]) -> Times:
        """The words with their times; each word of `words` is one unit of the model.

        samples: float32 [S] at 16 kHz. A frame of the model is long (80 ms), so the recording is aligned four times,
        each time 20 ms further on; the times are the means. Raises DataError for a word that the model does not know,
        and for a recording that is too short for its words.
        """
        from avsr.decoding.alignment import align

        units = self.units(words)
        shifts_s = [self._frame_s * step / SHIFTS for step in range(SHIFTS)]
        later = [np.pad(samples, (round(shift_s * SAMPLE_RATE), 0)) for shift_s in shifts_s]
        try:
            aligned = [align(rows_TV, units, len(self._tokenizer)) for rows_TV in self._recognizer.log_probs(later)]
        except ValueError as error:  # there are too few frames
            raise DataError("too short for its words", got=error) from None
        found = [
            [(unit.first * self._frame_s - shift_s, unit.end * self._frame_s - shift_s) for unit in shifted]
            for shifted, shift_s in zip(aligned, shifts_s, strict=True)
        ]
        times_W2 = np.clip(np.mean(found, axis=0), 0, len(samples) / SAMPLE_RATE).tolist()
        return [(word, round(start, 3), round(end, 3)) for word, (start, end) in zip(words, times_W2, strict=True)]
