"""Whisper live: a stream engine that passes the sound on, and a search that recognises its last seconds again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from avsr.arrays import Rows, Samples
from avsr.decoding.redecoding import RedecodingSearch
from avsr.decoding.search import Search, Spoken
from avsr.engine import Chunk, StreamPlan
from avsr.errors import ConfigError
from avsr.families.whisper.engine import WhisperEngine
from avsr.grid import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ

CHUNKS_MS = (400, 800, 1600, 3200)
"""The times between two steps, look-ahead included."""
LONGEST_S = 8.0
"""The longest sound that is recognised again."""
LEAST_CONTEXT_S = 10.0
"""Silence fills a shorter sound up to this length. The network was trained with 30 s, which takes seven times as long;
with less than this it repeats itself and loses words."""
LEAST_PAD_S = 2.0
"""Silence after the sound."""


class Rest(NamedTuple):
    """The state of a stream: samples that are no whole frame yet."""

    samples: Samples


class WhisperStream:
    """Gives each frame of 80 ms as a row of samples. Raises ConfigError for chunks that are not in `CHUNKS_MS`.

    chunk_ms: from one step to the next. look_ahead_ms: sound that must follow a word before it is committed.
    """

    def __init__(self, name: str, chunk_ms: int, look_ahead_ms: int) -> None:
        if chunk_ms + look_ahead_ms not in CHUNKS_MS or chunk_ms < 1 or look_ahead_ms < 0 or chunk_ms % FRAME_MS:
            raise ConfigError(
                f"model {name} does not have such chunks",
                got=f"a chunk of {chunk_ms} ms and a look-ahead of {look_ahead_ms} ms",
                expected=f"{', '.join(map(str, CHUNKS_MS[:-1]))} or {CHUNKS_MS[-1]} ms for both together,"
                f" and a multiple of {FRAME_MS} ms for the chunk",
            )
        step_frames = chunk_ms // FRAME_MS
        self.plan = StreamPlan(
            frame_ms=FRAME_MS,
            chunk_frames=step_frames,
            step_frames=step_frames,
            edge_samples=0,
            look_ahead_samples=0,
            look_ahead_slots=0,
            joins_chunks=True,
        )

    def initial_state(self) -> Rest:
        """See `avsr.engine.StreamEngine`."""
        return Rest(np.zeros(0, np.float32))

    def step(self, chunk: Chunk, state: Rest) -> tuple[Rows, Rest]:
        """See `avsr.engine.StreamEngine`. Silence fills the last frame of a stream."""
        samples = np.concatenate((state.samples, chunk.samples))
        size = chunk.frames * FRAME_SAMPLES
        rows = np.pad(samples[:size], (0, max(0, size - len(samples)))).reshape(chunk.frames, FRAME_SAMPLES)
        return rows, Rest(samples[size:].copy())


def redecoding_search(engine: WhisperEngine, search: Search, look_ahead_ms: int) -> RedecodingSearch:
    """The search of a stream, with the settings of `search`. Five hypotheses take a third longer than one."""

    def recognize(samples: Samples, before: str, language: str | None) -> list[Spoken]:
        settings = search if language is None else search._replace(language=language)
        pad_s = max(LEAST_PAD_S, LEAST_CONTEXT_S - len(samples) / SAMPLE_RATE_HZ)
        return engine.recognize([samples], settings, prompt=before, pad_s=pad_s)[0].words

    return RedecodingSearch(
        recognize=recognize, frame_s=FRAME_MS / 1000, longest_s=LONGEST_S, look_ahead_s=look_ahead_ms / 1000
    )
