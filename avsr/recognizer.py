"""The recogniser: one model, and the ways to use it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from os import PathLike
from typing import Literal

import numpy as np

from avsr.account import Account
from avsr.arrays import Crops, LogProbs, Present, Samples, check_samples
from avsr.decoding.checked import CheckedFrames
from avsr.decoding.search import Search
from avsr.engine import Card, Model
from avsr.errors import ConfigError
from avsr.grid import MAX_HOURS
from avsr.media import Tracks
from avsr.offline.source import SourceLike
from avsr.offline.transcribe import ModalityChoice
from avsr.offline.transcribe import transcribe as transcribe_model
from avsr.streaming.events import Event, Step
from avsr.streaming.session import Session
from avsr.streaming.source import LivePicture, LiveSound
from avsr.surroundings import require_own_process
from avsr.transcript import Transcript


class Recognizer:
    """A loaded model. `avsr.load` makes one; a model of your own goes in as `Recognizer(model)`."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __repr__(self) -> str:
        card = self.card
        live = f", live in chunks of {', '.join(map(str, card.chunks_ms))} ms" if card.chunks_ms else ""
        return f"<Recognizer {card.name}: {card.family}, {', '.join(card.modalities)}, domain {card.domain}{live}>"

    @property
    def card(self) -> Card:
        """What the model is and can do."""
        return self.model.card

    @property
    def name(self) -> str:
        return self.card.name

    def transcribe(
        self,
        source: SourceLike,
        *,
        modality: ModalityChoice = "auto",
        face: str | int = "auto",
        search: Search | None = None,
        tracks: Tracks | None = None,
        force: bool = False,
        min_confidence: float = 0.0,
        max_hours: float = MAX_HOURS,
        on_progress: Callable[[float], None] | None = None,
    ) -> Transcript:
        """The transcript of a video or sound file, an open binary file, or samples.

        source: a path, a file opened with mode "rb", or samples as float32 [S] in [-1, 1], mono, 16 kHz;
            values above 4 are refused.
        modality: "a" sound, "v" lips, "av" both, "auto" what the source offers and the model was trained for.
        face: the face to read lips from: "auto" the one that speaks, "largest", or the number of a face in the
            transcript.
        search: how words are looked for; None for the usual search of the model.
        tracks: which tracks of a file to read, as avsr.media.Tracks(audio=2); None for its default, and of several
            video tracks the one with faces.
        force: show also words of speech or noise that a model with a closed domain does not know; a warning marks them.
        min_confidence: leave out words below this, 0 to 1; a warning says how many.
        max_hours: a file that states a longer time is refused; one that turns out to be longer is cut, and a warning
            says where.
        on_progress: called with the media seconds done.

        Raises MediaError when the source cannot be read or lacks what the modality or the face needs, ModelError when
        the model cannot use it, ConfigError for an unknown modality or face or wrong tracks, ValueError for an
        array that is no sound, AvsrError in a process that was forked after its parent had used a model.
        """
        require_own_process()
        return transcribe_model(
            self.model,
            source,
            modality=modality,
            face=face,
            search=search,
            tracks=tracks,
            force=force,
            min_confidence=min_confidence,
            max_hours=max_hours,
            on_progress=on_progress,
        )

    def stream(
        self,
        *,
        chunk_ms: int | None = None,
        look_ahead_ms: int = 0,
        video: bool | None = None,
        face: str | int = "largest",
        max_video_lag_ms: float = 320.0,
        clocks: Literal["shared", "arrival"] = "shared",
        origin_s: float | None = None,
        pause_ms: float = 700.0,
        search: Search | None = None,
        force: bool = False,
        on_event: Callable[[Event], None] | None = None,
        on_log_probs: Callable[[LogProbs], None] | None = None,
        on_chunk: Callable[[Step], None] | None = None,
    ) -> Session:
        """A live session; `avsr.Session` says what the options are. Raises ConfigError or ModelError."""
        return Session(
            self.model,
            chunk_ms=chunk_ms,
            look_ahead_ms=look_ahead_ms,
            video=video,
            face=face,
            max_video_lag_ms=max_video_lag_ms,
            clocks=clocks,
            origin_s=origin_s,
            pause_ms=pause_ms,
            search=search,
            force=force,
            on_event=on_event,
            on_log_probs=on_log_probs,
            on_chunk=on_chunk,
        )

    def astream(
        self,
        source: str | PathLike[str] | Samples | Iterable[LiveSound | None],
        pictures: Iterable[LivePicture | None] | None = None,
        *,
        chunk_ms: int | None = None,
        look_ahead_ms: int = 0,
        video: bool | None = None,
        face: str | int = "largest",
        search: Search | None = None,
        real_time: bool = False,
        on_warning: Callable[[str], None] | None = None,
    ) -> AsyncIterator[Event]:
        """The events of a source, for `async for`. The work is done in threads, so the event loop stays free.

        source: a file, samples, or sound as it comes (`avsr.streaming.source.LiveSound`).
        pictures: as they come, beside sound as it comes; a file brings its own.
        video: whether lips are read; None for whether there are pictures and the model can.
        real_time: a file at the speed of life; else as fast as it goes.
        on_warning: called with a line for whatever is wrong and does not stop the run.
        chunk_ms, look_ahead_ms, face, search: as in `avsr.Session`.

        Leaving the loop early stops the work. Raises MediaError, ConfigError or ModelError.
        """
        from avsr.streaming.astream import events_of
        from avsr.streaming.live import Live
        from avsr.streaming.source import open_live_source

        sound, moving = open_live_source(source, pictures, account=Account(on_warning))
        reads = ("av" in self.card.modalities if video is None else video) and moving is not None
        session = self.stream(chunk_ms=chunk_ms, look_ahead_ms=look_ahead_ms, video=reads, face=face, search=search)
        live = Live(session, sound, moving if reads else None, real_time=real_time, on_warning=on_warning)
        return events_of(live)

    def log_probs(
        self,
        samples: Sequence[Samples] | None,
        crops: Sequence[Crops] | None = None,
        present: Sequence[Present] | None = None,
        *,
        chunk_ms: int | None = None,
    ) -> list[LogProbs]:
        """What transcription decodes: log-probabilities float32 [T, V + 1] of each utterance, the blank last.

        samples: sounds of any lengths; None to use the lips alone.
        crops: lip crops uint8 [T_lip, 96, 96] of each utterance, 40 ms a slot; None to use the sound alone. Where they
            end before the sound, the rest is absent.
        present: bool [T_lip] of each utterance; None for all present.
        chunk_ms: compute what a stream in such chunks would, at the cost of one pass; None for the whole utterance.

        Raises ModelError for a modality that the model was not trained for, ConfigError for a model that gives words
        only, ValueError when neither side is given or their numbers or shapes are wrong.
        """
        require_own_process()
        if self.model.frames is None:
            raise ConfigError(f"model {self.name} gives words, not log-probabilities", remedy="use transcribe")
        if not (samples is None or len(samples)) or not (crops is None or len(crops)):
            raise ValueError("log_probs: got no utterances, expected one or more")
        if samples is None and crops is None:
            raise ValueError("log_probs: got neither samples nor lips, expected at least one")
        # Parts that were not trained would give numbers too, and nothing would show that they mean no words.
        self.card.require("a" if crops is None else "v" if samples is None else "av")
        frames = self.model.frames
        if chunk_ms is not None:
            if self.model.in_chunks is None:
                raise ConfigError(f"model {self.name} cannot stream", remedy="leave out chunk_ms")
            frames = self.model.in_chunks(chunk_ms)
        engine = CheckedFrames(frames, self.name)
        for index, item in enumerate(samples or ()):
            check_samples(item, f"samples {index}")
        audio = None if samples is None else engine.encode_audio(samples)
        lips = None
        if crops is not None:
            if present is None:
                present = [np.ones(len(item), bool) for item in crops]
            lips = engine.encode_lips(crops, present, audio)
        return engine.log_probs(audio, lips)
