"""Live recognition: sound and pictures go in while they are recorded, words come out as soon as possible.

A session cuts the sound into chunks and gives each chunk, with its lips, to a stream engine. The engine's state holds
the model's memory; the session knows samples and slots only. With a look-ahead, a chunk is longer than the step after
which words are shown: the session computes and shows the beginning of the chunk, and the words may change until the
chunk is complete.

A chunk is due when its sound and its lips have come. If the lips are more than `max_video_lag_ms` behind, the chunk is
recognised without them. Pictures and sound that come later are counted and dropped. `policy.py` decides when lips are
used and waited for.

Longer than 450 lines: the state of a stream and the order in which it changes are one idea, and a third of the lines
document the public class.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, NamedTuple

import numpy as np

from avsr.arrays import Crops, LogProbs, Present, Samples
from avsr.decoding.checked import RowsCheck
from avsr.decoding.search import Search
from avsr.engine import Chunk, Model
from avsr.errors import ConfigError
from avsr.grid import HOP_SAMPLES, SAMPLE_RATE_HZ, SLOT_MS, SLOT_S
from avsr.lips.slots import LipSlot
from avsr.sound.level import LiveGain
from avsr.sound.silence import REACH_FRAMES, audible_frames
from avsr.streaming.clock import ClockAligner
from avsr.streaming.events import Event, Mode, Step
from avsr.streaming.inputs import check_samples, check_time, is_crop
from avsr.streaming.joints import ClockJoints
from avsr.streaming.lips import LipBuffer, Taken, arrays_of
from avsr.streaming.sound import SoundBuffer
from avsr.streaming.utterance import Said, Source, Utterance
from avsr.surroundings import require_own_process
from avsr.text import join_words

MAX_SOUND_LAG_S = 1.0
"""Sound that is further behind the pictures counts as lost."""

MAX_GAP_S = 10.0
"""A longer gap in the sound is skipped, so that nothing is computed for the hours that a computer slept."""

SKIPPED_GAP_S = 2.0
"""This much of a skipped gap is recognised as silence, which is enough for an utterance to end."""

SILENT_AFTER_S = 2.0
"""After this long without any sound, the lips are used alone."""


class Session:
    """One live stream of a model. Several may run at once. Sound and pictures may come from two threads.

    model: a model that streams: its card has `chunks_ms`.
    chunk_ms: how much sound comes between two updates of the words; None: 320 ms, or the next that the model has.
    look_ahead_ms: how much more sound the model gets before words are final. The sum of both must be one of the model's
        chunks.
    video: whether lips are used; None: if the model can use them. With a model that only hears, True names the face of
        each word.
    face: the face to read: "largest" (live, "auto" means the same) or the number of a face.
    max_video_lag_ms: how long the sound of a chunk waits for its lips.
    clocks: "shared" if all time stamps are of one clock; "arrival" if each device has its own clock, so that their
        offset is estimated from the arrival times.
    origin_s: the time at which the stream begins; None for the first time stamp.
    pause_ms: the pause after which an utterance ends.
    search: the search for words; None for the fastest one.
    force: keep the words of speech or noise that a model with a closed domain does not know. False: the final of such
        an utterance has no words, and its reason is "foreign"; partials may have shown some.

    The three callbacks run while the session is locked, so they must be quick:
    on_event: called with each event, in order, also when sound and pictures are pushed from two threads.
    on_log_probs: called with the log-probabilities [T, V + 1] of each chunk; for models with `Model.frames` only.
    on_chunk: called with each step of the engine, with or without new words.

    Raises ConfigError for options out of range or a model that cannot stream so, ModelError for a modality that the
    model was not trained for.
    """

    def __init__(
        self,
        model: Model,
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
    ) -> None:
        require_own_process()
        if clocks not in ("shared", "arrival"):
            raise ConfigError("unknown clocks", got=clocks, expected="shared or arrival")
        if not (0 <= max_video_lag_ms < math.inf and 0 < pause_ms < math.inf):
            raise ConfigError(
                "a session cannot be so",
                got=f"max_video_lag_ms {max_video_lag_ms}, pause_ms {pause_ms}",
                expected="0 or more, and more than 0",
            )
        if on_log_probs is not None and model.frames is None:
            raise ConfigError(
                f"model {model.card.name} gives words, not log-probabilities", remedy="leave out on_log_probs"
            )
        if model.stream is None:
            raise ConfigError(
                f"model {model.card.name} cannot stream",
                expected="a model that works in chunks",
                remedy="use transcribe, or a model that streams: avsr models says which",
            )
        self.video = "av" in model.card.modalities if video is None else video
        self._reads_lips = self.video and model.card.modalities != ("a",)
        model.card.require("av" if self._reads_lips else "a")
        search = Search() if search is None else search
        model.card.require_search(search)
        # Live, every update searches again: more hypotheses take longer than they are worth.
        search = search._replace(beam=search.beam or 1)
        if chunk_ms is None:
            chunk_ms = model.card.chunk_for(look_ahead_ms)
        self._engine, decoder = model.stream(chunk_ms, look_ahead_ms, lips=self._reads_lips, search=search)
        self._plan, self._search = self._engine.plan, decoder
        self._max_lag_s = max_video_lag_ms / 1000
        self._aligner = ClockAligner() if clocks == "arrival" else None
        self._origin_s = origin_s
        self.on_event = on_event
        self._on_log_probs, self._on_chunk = on_log_probs, on_chunk

        self._sound, self._gain = SoundBuffer(), LiveGain()
        self._joints = ClockJoints()
        self._lips = LipBuffer(str(face), self._max_lag_s, reads=self.video)
        sentences = None if force else model.card.sentences
        are_foreign = None if sentences is None else sentences.are_foreign
        self._utterance = Utterance(decoder, self._plan.frame_s, pause_ms / 1000, are_foreign)
        # Without frames the rows are samples for a search that recognises them.
        self._rows_check = None if model.frames is None else RowsCheck(model.card.name)
        self._state: Any = self._engine.initial_state()
        self._frames = 0
        """Number of frames in the state."""
        self._given = 0
        """Number of samples in the state."""
        self._shown = 0
        """Number of frames in the words last shown."""
        self._waiting_s = 0.0
        """Length of the sound that the caller has and has not pushed yet."""
        self._steps_skipped = 0
        self._ahead: dict[int, int | None] = {}
        """The face of each slot that the state holds for later frames."""
        self._there: deque[bool] = deque([False] * REACH_FRAMES, maxlen=REACH_FRAMES)
        """For each of the last frames: whether it had sound or lips."""
        self._silent_s = 0.0
        self._mode: tuple[Mode, str] | None = None
        self._ended = False
        # Faces are found under the first lock alone, so that sound does not wait. All other work holds the second lock.
        # The second may be taken twice, because `finish` and callbacks read `counters` while they hold it.
        self._video_lock, self._lock = threading.Lock(), threading.RLock()

    def __repr__(self) -> str:
        state = "ended" if self._ended else f"at {self._time_s(self._sound.end_s):.2f} s"
        return f"<Session {state}, mode {self.mode}, latency {self.latency_ms:.0f} ms>"

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the face finder. May be repeated; nothing can be pushed afterwards."""
        with self._video_lock, self._lock:
            self._ended = True
            self._lips.close()

    @property
    def latency_ms(self) -> float:
        """The longest time from speech to its words, without computing and without the camera's delay.

        It is the length of a chunk plus the look-ahead of the features and of the smoothing of the lips. On average it
        is half a chunk less.
        """
        after_s = self._plan.look_ahead_samples / SAMPLE_RATE_HZ
        if self.video:
            after_s = max(after_s, SLOT_S * (self._plan.look_ahead_slots + 1))
        return 1000 * (self._plan.frame_s * self._plan.step_frames + after_s)

    @property
    def look_ahead_ms(self) -> float:
        """How long the words of a frame may still change after they were first shown."""
        return 1000 * self._plan.frame_s * (self._plan.chunk_frames - self._plan.step_frames)

    @property
    def mode(self) -> Mode | None:
        """The inputs that words are recognised from now; None before the first chunk."""
        return None if self._mode is None else self._mode[0]

    @property
    def last_lips(self) -> LipSlot | None:
        """The newest slot of the engine that a picture came for: with lips, or with the reason why it has no lips."""
        return self._lips.last

    @property
    def recent_lips(self) -> list[LipSlot]:
        """The slots of the last chunk, oldest first."""
        return self._lips.recent

    @property
    def faces_seen(self) -> list[int]:
        """The numbers of all faces that were seen so far; 0 for lip crops of the caller."""
        return sorted(self._lips.faces_seen)

    @property
    def counters(self) -> dict[str, int]:
        """How many pictures and samples came, and how each was used.

        pictures: received. The sum of used, late, absent, duplicate and pending.
        used: lips were given to the engine, or named the face of words that are heard.
        late: too late, or out of order.
        absent: no readable lips, not used by the policy, or more than 10 s early.
        duplicate: another picture of the same 40 ms had come.
        pending: not decided yet; 0 after `finish`.
        samples: received.
        samples_lost: replaced by silence, because they never came.
        samples_late: dropped, because their time had passed.
        joints: how often the clock of the sound stepped back for good. The stream then goes on without a pause.
        raised_db: by how much very quiet sound was raised at most, in dB.
        steps_skipped: updates of the words that were left out, because the work was behind the sound.
        """
        with self._lock:
            lips, sound = self._lips, self._sound
            return {
                "pictures": lips.received,
                "used": lips.used,
                "late": lips.late,
                "absent": lips.absent,
                "duplicate": lips.duplicate,
                "pending": lips.pending,
                "samples": sound.received,
                "samples_lost": sound.lost,
                "samples_late": sound.late,
                "joints": self._joints.count,
                "raised_db": round(self._gain.most_db),
                "steps_skipped": self._steps_skipped,
            }

    def prepare(self) -> None:
        """Load the face finder now. It takes up to a second; with the first picture it would make that picture late."""
        with self._video_lock:
            if self.video and not self._ended:
                self._lips.open()

    def push_audio(
        self, samples: Samples, t: float | None = None, *, arrived: float | None = None, waiting_s: float = 0.0
    ) -> list[Event]:
        """Add sound. Returns the new events.

        samples: float32 [S] in [-1, 1] at 16 kHz, mono. Very quiet sound is raised once a voice was heard in it.
        t: time of the first sample in seconds; None if it follows the last sample. A step of more than 40 ms ahead is a
            gap, which is filled with silence and counted as lost. An overlap of more than 40 ms is cut off. Where the
            clock steps back by more than 1 s for good, the sound and the pictures go on at the end of the stream.
        arrived: time of arrival in seconds, for clocks "arrival", on the same clock as for pictures; None for now.
        waiting_s: length of the sound that waits to be pushed after this. A model that can take several chunks in one
            step does so while a chunk or more waits.

        The sound is the clock of the stream, so push no more of it at a time than pictures may lag. Raises ValueError
        for other arrays, or after the end.
        """
        check_samples(samples)
        check_time(t)
        with self._lock:
            self._require_open()
            self._waiting_s = waiting_s
            samples = self._gain.push(samples)
            t = None if t is None else t + self._joints.offset_s
            if t is not None and self._aligner is not None:
                # A block arrives when its last sample has been recorded, so the time of its end is compared with the
                # arrival.
                end_s = t + len(samples) / SAMPLE_RATE_HZ
                self._aligner.reference(end_s, time.monotonic() if arrived is None else arrived)
            if self._origin_s is None:
                self._origin_s = t or 0.0
            events: list[Event] = []
            ahead_s = 0.0 if t is None else t - self._origin_s - self._sound.end_s
            if ahead_s > MAX_GAP_S:
                # The chunks before the gap come out before the origin moves, because their words have times by the old
                # origin.
                self._sound.lose(round(SKIPPED_GAP_S * SAMPLE_RATE_HZ))
                events += self._advance()
                self._origin_s += ahead_s - SKIPPED_GAP_S
                ahead_s = 0.0
            for block, block_ahead_s in self._joints.place(samples, ahead_s):
                self._sound.receive(block, block_ahead_s)
            return self._emit(events + self._advance())

    def push_video(self, picture: Crops | None, t: float, *, arrived: float | None = None) -> list[Event]:
        """Add a picture. Returns the new events.

        picture: uint8 RGB [H, W, 3], in which this call finds faces, or a lip crop uint8 [96, 96]. A caller who cuts
            crops passes None for a picture without lips.
        t: time in seconds at which the picture was taken.
        arrived: as for sound.

        Raises ValueError for other arrays, or after the end.
        """
        cut = picture is None or is_crop(picture)
        check_time(t)
        with self._video_lock:
            with self._lock:
                self._require_open()
                t += self._joints.offset_s
                if self._aligner is not None:
                    t = self._aligner.align(t, time.monotonic() if arrived is None else arrived)
                if self._origin_s is None:
                    self._origin_s = t
                time_s = t - self._origin_s
                index = self._lips.register(time_s, self._sound.end_s, is_crop=cut)
                if index is None:
                    # Even a dropped picture may show, by its time, that the sound is lost.
                    return self._emit(self._advance())
            if picture is None or cut:
                slots = self._lips.give(index, picture)
            else:
                slots = self._lips.find(picture, time_s)
            with self._lock:
                if self._ended:  # another thread ended the session while faces were found
                    return []
                self._lips.add(slots, self._sound.end_s)
                return self._emit(self._advance())

    def finish(self) -> list[Event]:
        """End the stream and close the session. Returns the last events: words, the last final, and the counters."""
        with self._video_lock, self._lock:
            if self._ended:
                return []
            require_own_process()
            for block, ahead_s in self._joints.late():
                self._sound.receive(block, ahead_s)
            slots = self._lips.find_last()
            self._lips.add(slots, self._sound.end_s)
            lip_frames = -(-self._lips.final_slots * SLOT_MS // self._plan.frame_ms) if self.video else 0
            if lip_frames > self._plan.whole_frames(self._sound.end):  # the lips go on after the sound
                end = lip_frames * self._plan.frame_samples
                self._sound.add(np.zeros(end - self._sound.end, np.float32))
            events = self._advance(ending=True)
            events += [self._event(said, 0.0) for said in self._utterance.finish()]
            self._lips.end()
            self._ended = True
            self._lips.close()
            now_s = self._time_s(self._frames * self._plan.frame_s)
            counters = Event(event="counters", start=now_s, end=now_s, emitted=self._emitted_s, counters=self.counters)
            return self._emit([*events, counters])

    def _emit(self, events: list[Event]) -> list[Event]:
        """Pass each event to the callback. Returns the events unchanged."""
        if self.on_event is not None:
            for event in events:
                self.on_event(event)
        return events

    def _require_open(self) -> None:
        if self._ended:
            raise ValueError("the session has ended: start another")
        require_own_process()

    def _time_s(self, stream_s: float) -> float:
        """A time of the stream, converted to the caller's clock."""
        # The last frame may reach past the end of the sound.
        return (self._origin_s or 0.0) + min(stream_s, self._sound.end_s)

    @property
    def _emitted_s(self) -> float:
        return self._time_s(self._sound.end_s)

    def _advance(self, *, ending: bool = False) -> list[Event]:
        """Run the engine on all chunks that are due."""
        events: list[Event] = []
        while (end := self._due(ending=ending)) is not None:
            is_whole = ending or (end - self._frames) % self._plan.chunk_frames == 0
            events += self._run(end, for_good=is_whole, ending=ending)
        return events

    def _due(self, *, ending: bool) -> int | None:
        """The frame up to which the engine can run now; None if nothing is due."""
        chunk_end = self._frames + self._plan.chunk_frames
        if ending:
            frames = self._plan.whole_frames(self._sound.end)
            if frames <= self._frames:
                return None
            return frames if self._plan.joins_chunks else min(chunk_end, frames)
        end = max(self._frames, self._shown) + self._plan.step_frames
        wanted = self._plan.samples_needed(end)
        if self._sound.end < wanted:
            if not self.video or self._lips.newest_s < wanted / SAMPLE_RATE_HZ + MAX_SOUND_LAG_S:
                return None
            # Pictures are far ahead, so the sound is lost: silence takes its place, and the lips are recognised.
            self._sound.lose(wanted - self._sound.end)
        lips = self._lips
        if self.video and lips.policy.waits and lips.final_slots < self._plan.slots_needed(end):
            # The lips may still come in time.
            if self._sound.end_s - end * self._plan.frame_s < self._max_lag_s:
                return None
            if end == chunk_end:
                # The beginning of a chunk is computed again later, perhaps with lips; only the end of a chunk misses
                # them for good.
                lips.policy = lips.policy.missed()
        return self._joined(end) if self._plan.joins_chunks else end

    def _joined(self, end: int) -> int | None:
        """`end`, or the end of a later step if its sound has come too; None if more sound is about to come."""
        step_samples = self._plan.step_frames * self._plan.frame_samples
        if self._waiting_s * SAMPLE_RATE_HZ >= step_samples:
            return None
        skipped = (self._sound.end - self._plan.samples_needed(end)) // step_samples
        self._steps_skipped += skipped
        return end + skipped * self._plan.step_frames

    def _run(self, end: int, *, for_good: bool, ending: bool) -> list[Event]:
        """Run the engine up to frame `end`.

        for_good: the state moves on. False: the beginning of a chunk is shown, and the state stays.
        """
        started = time.perf_counter()
        first, plan = self._frames, self._plan
        sound = self._sound_of(first, end, ending=ending)
        slots, policy = self._lips.take(plan.slots_needed(end)) if self.video else ([], self._lips.policy)
        used = {taken.slot: taken.lips.face for taken in slots if taken.used and taken.lips is not None}
        ahead = self._ahead | used
        faces = [[ahead[slot] for slot in plan.slots_of(frame) if slot in ahead] for frame in range(first, end)]
        crops, present = arrays_of(slots if self._reads_lips else [])

        given_end = min(plan.samples_needed(end), self._sound.end)
        chunk = Chunk(
            frames=end - first,
            samples=self._sound.between(self._given, given_end),
            crops=crops,
            present=present,
            heard=sound.heard,
            is_last=ending and end == plan.whole_frames(self._sound.end),
        )
        rows, state = self._engine.step(chunk, self._state)
        if for_good and self._rows_check is not None:
            self._rows_check.add(rows, chunk.samples if chunk.heard else None, crops, present)
        audible = sound.audible & (not sound.is_lost)
        there = [
            *self._there,
            *(bool(a or (seen and self._reads_lips)) for a, seen in zip(audible, faces, strict=False)),
        ]
        # The network puts words into digital silence, so frames far from all sound and lips are made blank.
        nothing_T = np.array([not any(there[k : k + 2 * REACH_FRAMES + 1]) for k in range(len(rows))], bool)
        if nothing_T.any():
            rows = self._search.silence(rows, nothing_T)
        sources = [self._source(sound, seen) for seen in faces]
        self._shown = end
        if not for_good:
            partial = self._utterance.show(rows, sources)
            compute_ms = self._report_step(first, end, slots, started, for_good=False)
            return [] if partial is None else [self._event(partial, compute_ms)]

        self._state, self._frames, self._given = state, end, given_end
        self._lips.commit(slots, policy)
        self._ahead = {slot: face for slot, face in ahead.items() if slot >= plan.slots_of(end).start}
        self._there.extend(there[REACH_FRAMES:])
        self._silent_s = 0.0 if sound.audible.any() else self._silent_s + len(faces) * plan.frame_s
        # The next chunk gives the engine samples from `given_end` on, and measures their level from the edge on.
        self._sound.forget(min(plan.edge(end), given_end))
        if self._on_log_probs is not None:
            self._on_log_probs(rows)
        events = []
        if not ending or self._mode is None:  # at the end of the stream, missing input is not a loss
            events += self._change_mode(first, sound, has_lips=self._reads_lips and any(faces))
        said = self._utterance.add(rows, sources, end * plan.frame_s - self._sound.voice.last_voice_s)
        compute_ms = self._report_step(first, end, slots, started, for_good=True)
        return events + [self._event(some, compute_ms) for some in said]

    def _sound_of(self, first: int, end: int, *, ending: bool) -> _Heard:
        """The sound of frames [first, end): whether it came, and whether it is louder than silence."""
        start_sample, end_sample = self._plan.edge(first), self._plan.edge(end)
        if ending:  # the last frame may be shorter than a frame
            end_sample = min(end_sample, self._sound.end // HOP_SAMPLES * HOP_SAMPLES)
        is_lost = self._sound.lost_share(start_sample, end_sample) > 0.5
        audible = audible_frames(self._sound.between(start_sample, end_sample), self._plan.frame_samples)
        heard = not is_lost and (bool(audible.any()) or self._silent_s < SILENT_AFTER_S)
        return _Heard(heard, is_lost, audible)

    def _source(self, sound: _Heard, seen: list[int | None]) -> Source:
        """The inputs of a frame with the faces of its used slots."""
        if not seen:
            return Source("a", None)
        if not self._reads_lips:
            return Source("a", seen[0])
        return Source("av" if sound.heard else "v", seen[0])

    def _report_step(self, first: int, end: int, slots: list[Taken], started: float, *, for_good: bool) -> float:
        compute_ms = 1000 * (time.perf_counter() - started)
        if self._on_chunk is not None:
            used = tuple(taken.used for taken in slots)
            frame_s = self._plan.frame_s
            self._on_chunk(Step(first * frame_s, end * frame_s, for_good, used, compute_ms))
        return compute_ms

    def _change_mode(self, frame: int, sound: _Heard, *, has_lips: bool) -> list[Event]:
        """The event of a new mode, if frames from `frame` on are recognised from other inputs than before."""
        policy = self._lips.policy
        # The policy outlasts a few missing slots. It also begins with lips, so that some must have been used before.
        has_lips = has_lips or (self._reads_lips and policy.has_lips and self._lips.used > 0)
        if sound.heard:
            why_not = self._lips.last_reason if policy.has_lips else policy.reason
            mode: tuple[Mode, str] = ("av", "ok") if has_lips else ("a", why_not if self._reads_lips else "ok")
        else:
            mode = ("v" if has_lips else "none", "sound_lost" if sound.is_lost else "silent")
        if mode == self._mode:
            return []
        self._mode = mode
        at_s = self._time_s(frame * self._plan.frame_s)
        return [Event(event="mode", start=at_s, end=at_s, emitted=self._emitted_s, text=mode[0], reason=mode[1])]

    def _event(self, said: Said, compute_ms: float) -> Event:
        words = tuple(
            dataclasses.replace(word, start=self._time_s(word.start), end=self._time_s(word.end)) for word in said.words
        )
        spoken = said.words or said.taken_back
        now_s = self._frames * self._plan.frame_s
        return Event(
            event="partial" if said.ended is None else "final",
            start=self._time_s(spoken[0].start if spoken else now_s),
            end=self._time_s(spoken[-1].end if spoken else now_s),
            emitted=self._emitted_s,
            text=join_words(word.word for word in words),
            words=words,
            committed=said.committed,
            changed=said.changed,
            compute_ms=compute_ms,
            reason=said.ended or "",
        )


class _Heard(NamedTuple):
    """The sound of some frames."""

    heard: bool
    """Whether the engine uses the sound."""
    is_lost: bool
    """Whether more than half of the sound never came."""
    audible: Present
    """For each frame: whether it is louder than silence."""
