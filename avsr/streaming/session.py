"""Live recognition: sound and pictures in as they come, words out as soon as they are known.

Sound goes through the network in chunks. A chunk sees itself and the past, which is kept in an explicit `NetworkState`,
so that chunk after chunk equals one pass over all of it under the same mask. With a look-ahead, a chunk is that much
longer than what is shown at a time: words appear after each `chunk_ms` from the beginning of the chunk on, and may
change until the chunk is full.

A chunk is due when its sound is there, and its lips, unless those are more than `max_video_lag_ms` behind. What comes
later is counted and dropped. `policy.py` has when lips are used and waited for.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsr.errors import ConfigError
from avsr.grid import CROP_PX, HOP_SAMPLES, SAMPLE_RATE_HZ, SLOT_S
from avsr.lips.slots import LipSlot
from avsr.sound.mel import LOOK_AHEAD_SAMPLES
from avsr.sound.silence import NOT_HEARD, REACH_FRAMES, audible_frames
from avsr.streaming.clock import ClockAligner
from avsr.streaming.events import Chunk, Event, Mode
from avsr.streaming.lips import LipBuffer, Taken
from avsr.streaming.sound import SoundBuffer
from avsr.streaming.utterance import Said, Source, Utterance

if TYPE_CHECKING:
    from avsr.families.own.network import NetworkState
    from avsr.recognizer import Recognizer

MAX_PUSH_S = 60.0  # of sound at a time: more in one call is a mistake, not a stream
MAX_SOUND_LAG_S = 1.0  # behind the pictures; then the sound counts as lost
MAX_GAP_S = 10.0  # in the sound; a longer one is skipped, so that a machine that slept does not recognise its sleep
SKIPPED_GAP_S = 2.0  # how much of it is gone through: enough for an utterance to end
SILENT_AFTER_S = 2.0  # without any sound, the lips are on their own


class Session:
    """One live stream. Several may run at once on one recogniser. Sound and pictures may come from two threads.

    chunk_ms: of sound, after which words are shown; look_ahead_ms: how much more the network hears before they are
    final. Their sum must be one of the chunks that the model was trained for. video: whether lips are read, None for
    whether the model can. face: "largest" (as "auto" is live) or the number of a face. max_video_lag_ms: how long the
    sound of a chunk waits for its lips. clocks: "shared", all times are of one clock, or "arrival", each device has its
    own and arrival tells. origin_s: the time at which the stream begins, None for that of what comes first. pause_ms:
    without words and voice, which ends an utterance. Raises ConfigError for what the model cannot do.

    Called while the session is locked, so they must be quick: on_event with each event, in order, which matters where
    sound and pictures are pushed from two threads; on_log_probs with the log-probabilities [t, V + 1] of each chunk;
    on_chunk with each step of the network, also those that nothing was said after.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        chunk_ms: int = 320,
        look_ahead_ms: int = 0,
        video: bool | None = None,
        face: str | int = "largest",
        max_video_lag_ms: float = 320.0,
        clocks: Literal["shared", "arrival"] = "shared",
        origin_s: float | None = None,
        pause_ms: float = 700.0,
        on_event: Callable[[Event], None] | None = None,
        on_log_probs: Callable[[Tensor], None] | None = None,
        on_chunk: Callable[[Chunk], None] | None = None,
    ) -> None:
        config = recognizer.config
        if clocks not in ("shared", "arrival"):
            raise ConfigError("unknown clocks", got=clocks, expected="shared or arrival")
        if not (0 <= max_video_lag_ms < math.inf and 0 < pause_ms < math.inf):
            raise ConfigError(
                "a session cannot be so",
                got=f"max_video_lag_ms {max_video_lag_ms}, pause_ms {pause_ms}",
                expected="0 or more, and more than 0",
            )
        self._attention = config.chunk_context(chunk_ms + look_ahead_ms)
        self._step, self._chunk = _step_frames(recognizer, chunk_ms, look_ahead_ms), self._attention.right + 1
        self.video = "av" in config.modalities if video is None else video
        recognizer.require("av" if self.video else "a")
        self.recognizer = recognizer
        self._frame_s = config.frame_ms / 1000
        self._mel_per_frame = config.audio_encoder.subsampling
        self._causal = config.audio_encoder.subsampling_causal
        self._max_lag_s = max_video_lag_ms / 1000
        self._aligner = ClockAligner() if clocks == "arrival" else None
        self._origin_s = origin_s
        self._on_event, self._on_log_probs, self._on_chunk = on_event, on_log_probs, on_chunk

        self._sound = SoundBuffer()
        self._lips = LipBuffer(str(face), self._max_lag_s, reads=self.video)
        self._utterance = Utterance(recognizer, pause_ms / 1000)
        with torch.inference_mode():
            self._state: NetworkState = recognizer.network.initial_state(1, attention=self._attention)
        self._frames = 0  # that the network has had for good
        self._shown = 0  # that words were last shown of
        self._mel_frames = 0  # log-mel frames of these
        self._read: dict[int, int | None] = {}  # slots whose lips the network had for frames to come, and whose
        self._there: deque[bool] = deque(
            [False] * REACH_FRAMES, maxlen=REACH_FRAMES
        )  # sound or lips in the last frames
        self._silent_s = 0.0
        self._mode: tuple[Mode, str] | None = None
        self._ended = False
        # Faces are found under the first alone, so that sound does not wait; everything else is under the second.
        self._video_lock, self._lock = threading.Lock(), threading.RLock()

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
        """How long after it was spoken a frame is shown at most, by the algorithm alone: the chunk, and what features
        and the smoothing of lips see after its end. Half a chunk less on average. Computing and the camera's delay come
        on top."""
        after_s = LOOK_AHEAD_SAMPLES / SAMPLE_RATE_HZ
        if self.video:
            after_s = max(after_s, SLOT_S * (self.recognizer.network.look_ahead_slots + 1))
        return 1000 * (self._frame_s * self._step + after_s)

    @property
    def look_ahead_ms(self) -> float:
        """How long after it was shown a frame may still change."""
        return 1000 * self._frame_s * (self._chunk - self._step)

    @property
    def mode(self) -> Mode | None:
        """What words are recognised from at present; None before the first chunk."""
        return None if self._mode is None else self._mode[0]

    @property
    def last_lips(self) -> LipSlot | None:
        """The newest lips that the network had, or was to have: present or with the reason why not."""
        return self._lips.last

    @property
    def recent_lips(self) -> list[LipSlot]:
        """All that the network had, or was to have, with its last chunk, oldest first, as `last_lips` is of each."""
        return self._lips.recent

    @property
    def counters(self) -> dict[str, int]:
        """What came and what became of it.

        pictures = used + late + absent + duplicate + pending, the last 0 after `finish`. late: too late, or out of
        order. absent: without lips that can be read, or withheld by the policy, or far too early. duplicate: another
        picture of the same 40 ms was there. samples: of sound; samples_lost: silence in place of what never came;
        samples_late: dropped, since their time had passed.
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
            }

    def prepare(self) -> None:
        """Load the face finder now, not with the first picture, which would come late: it takes up to a second."""
        with self._video_lock:
            if self.video and not self._ended:
                self._lips.open()

    def push_audio(
        self, samples: NDArray[np.float32], t: float | None = None, *, arrived: float | None = None
    ) -> list[Event]:
        """More sound: float32 [S] in [-1, 1] at 16 kHz, mono. Returns what became known.

        t: seconds of its first sample, None where it goes on from the last. Steps of more than 40 ms are gaps (silence
        that does not count as heard) or overlaps (cut off). arrived: when it arrived, seconds of any clock; now where
        not given. Time goes on by the sound, so push no more of it at a time than pictures may lag. Raises ValueError
        for other arrays.
        """
        _check_samples(samples)
        _check_time(t)
        with self._lock:
            self._require_open()
            if t is not None and self._aligner is not None:
                end_s = t + len(samples) / SAMPLE_RATE_HZ
                self._aligner.reference(end_s, time.monotonic() if arrived is None else arrived)
            if self._origin_s is None:
                self._origin_s = t or 0.0
            events: list[Event] = []
            ahead_s = 0.0 if t is None else t - self._origin_s - self._sound.end_s
            if ahead_s > MAX_GAP_S:
                self._sound.lose(round(SKIPPED_GAP_S * SAMPLE_RATE_HZ))
                events += self._advance()
                self._origin_s += ahead_s - SKIPPED_GAP_S
                ahead_s = 0.0
            self._sound.receive(samples, ahead_s)
            return self._tell(events + self._advance())

    def push_video(self, picture: NDArray[np.uint8] | None, t: float, *, arrived: float | None = None) -> list[Event]:
        """One picture: uint8 RGB [H, W, 3], whose faces are found here and now, or a lip crop uint8 [96, 96]; None from
        those who cut crops themselves, where a picture shows no lips.

        t: seconds at which it was taken. arrived: as for sound. Returns what became known. Raises ValueError for other
        arrays.
        """
        is_crop = picture is None or _is_crop(picture)
        _check_time(t)
        with self._video_lock:
            with self._lock:
                self._require_open()
                if self._aligner is not None:
                    t = self._aligner.align(t, time.monotonic() if arrived is None else arrived)
                if self._origin_s is None:
                    self._origin_s = t
                time_s = t - self._origin_s
                index = self._lips.register(time_s, self._sound.end_s, is_crop=is_crop)
                if index is None:
                    return self._tell(self._advance())
            if picture is None or is_crop:
                slots = self._lips.give(index, picture)
            else:
                slots = self._lips.find(picture, time_s)
            with self._lock:
                if self._ended:  # in the meantime
                    return []
                self._lips.add(slots, self._sound.end_s)
                return self._tell(self._advance())

    def finish(self) -> list[Event]:
        """Nothing more will come: what is left, the last final, and the counters. The session is closed."""
        with self._video_lock, self._lock:
            if self._ended:
                return []
            slots = self._lips.find_last()
            self._lips.add(slots, self._sound.end_s)
            lip_frames = -(-self._lips.final_slots // 2) if self.video else 0
            if lip_frames > self._whole_frames():  # they go on after the sound
                end = lip_frames * self._mel_per_frame * HOP_SAMPLES
                self._sound.add(np.zeros(end - self._sound.end, np.float32))
            events = self._advance(ending=True)
            events += [self._event(said, 0.0) for said in self._utterance.finish()]
            self._lips.end()
            self._ended = True
            self._lips.close()
            now_s = self._time_s(self._frames * self._frame_s)
            counters = Event(event="counters", start=now_s, end=now_s, emitted=self._emitted_s, counters=self.counters)
            return self._tell([*events, counters])

    def _tell(self, events: list[Event]) -> list[Event]:
        if self._on_event is not None:
            for event in events:
                self._on_event(event)
        return events

    def _require_open(self) -> None:
        if self._ended:
            raise ValueError("the session has ended: start another")

    def _time_s(self, stream_s: float) -> float:
        """On the caller's clock."""
        return (self._origin_s or 0.0) + stream_s

    @property
    def _emitted_s(self) -> float:
        return self._time_s(self._sound.end_s)

    def _whole_frames(self) -> int:
        """How many frames all the sound so far is, if nothing follows."""
        mel = self._sound.end // HOP_SAMPLES
        return (mel - 1) // self._mel_per_frame + 1 if self._causal and mel else -(-mel // self._mel_per_frame)

    def _mel_end(self, frames: int) -> int:
        """How many log-mel frames so many frames read."""
        return self._mel_per_frame * (frames - 1) + 1 if self._causal else self._mel_per_frame * frames

    def _advance(self, *, ending: bool = False) -> list[Event]:
        """Run all that is due."""
        events: list[Event] = []
        while (end := self._due(ending=ending)) is not None:
            events += self._run(end, for_good=ending or end == self._frames + self._chunk, ending=ending)
        return events

    def _due(self, *, ending: bool) -> int | None:
        """Up to which frame the network can run now, None where nothing is due."""
        chunk_end = self._frames + self._chunk
        if ending:
            frames = self._whole_frames()
            return min(chunk_end, frames) if frames > self._frames else None
        end = max(self._frames, self._shown) + self._step
        wanted = self._mel_end(end) * HOP_SAMPLES + LOOK_AHEAD_SAMPLES
        if self._sound.end < wanted:
            if not self.video or self._lips.newest_s < wanted / SAMPLE_RATE_HZ + MAX_SOUND_LAG_S:
                return None
            self._sound.lose(wanted - self._sound.end)
        lips = self._lips
        if self.video and lips.policy.waits and lips.final_slots < self._slots_wanted(end):
            if self._sound.end_s - end * self._frame_s < self._max_lag_s:
                return None
            if end == chunk_end:
                lips.policy = lips.policy.missed()
        return end

    def _slots_wanted(self, frames: int) -> int:
        return 2 * frames + self.recognizer.network.look_ahead_slots

    def _run(self, end: int, *, for_good: bool, ending: bool) -> list[Event]:
        """Run the network up to frame `end`: for good, and its state goes on, or to show how a chunk begins."""
        started = time.perf_counter()
        first, mel_end = self._frames, self._mel_end(end)
        if ending:  # the last frame is as short as its sound
            mel_end = min(mel_end, self._sound.end // HOP_SAMPLES)
        start_sample, end_sample = self._mel_frames * HOP_SAMPLES, mel_end * HOP_SAMPLES
        is_lost = self._sound.lost_share(start_sample, end_sample) > 0.5
        audible = audible_frames(self._sound.between(start_sample, end_sample), self._mel_per_frame * HOP_SAMPLES)
        heard = not is_lost and (bool(audible.any()) or self._silent_s < SILENT_AFTER_S)

        slots, policy = self._lips.take(self._slots_wanted(end)) if self.video else ([], self._lips.policy)
        used = {taken.slot: taken.lips.face for taken in slots if taken.used and taken.lips is not None}
        read = self._read | used
        faces = [[read[slot] for slot in (2 * frame, 2 * frame + 1) if slot in read] for frame in range(first, end)]
        lips = presence = None
        if used:
            lips, presence = self.recognizer.lip_tensors(
                [np.stack([taken.crop for taken in slots])], [np.array([taken.used for taken in slots])]
            )

        samples, kept_from = self._sound.kept()
        mel = self.recognizer.log_mel.piece(
            torch.from_numpy(samples)[None].to(self.recognizer.device),
            self._mel_frames - kept_from,
            mel_end - kept_from,
        )
        output = self.recognizer.step(mel, lips, presence, self._state, self._attention, heard=heard)
        log_probs_TV = output.log_probs[0].float().cpu().clone()  # no inference tensor, which could not be changed
        there = [*self._there, *((bool(a) and not is_lost) or bool(f) for a, f in zip(audible, faces, strict=False))]
        for frame in range(len(log_probs_TV)):
            if not any(there[frame : frame + 2 * REACH_FRAMES + 1]):
                log_probs_TV[frame] = NOT_HEARD
                log_probs_TV[frame, self.recognizer.network.blank_id] = 0.0
        sources = [Source("av" if heard else "v", seen[0]) if seen else Source("a", None) for seen in faces]
        self._shown = end
        if not for_good:
            partial = self._utterance.show(log_probs_TV, sources)
            compute_ms = self._tell_chunk(first, end, slots, started, for_good=False)
            return [] if partial is None else [self._event(partial, compute_ms)]

        assert output.state is not None
        self._state, self._frames, self._mel_frames = output.state, end, mel_end
        self._lips.commit(slots, policy)
        self._read = {slot: face for slot, face in read.items() if slot >= 2 * end}
        self._there.extend(there[REACH_FRAMES:])
        self._silent_s = 0.0 if audible.any() else self._silent_s + len(faces) * self._frame_s
        self._sound.forget(mel_end)
        if self._on_log_probs is not None:
            self._on_log_probs(log_probs_TV)
        events = []
        if not ending or self._mode is None:  # what is missing at the end was not lost
            events += self._tell_mode(first, heard=heard, is_lost=is_lost, reads=any(faces))
        said = self._utterance.add(log_probs_TV, sources, end * self._frame_s - self._sound.voice.last_voice_s)
        compute_ms = self._tell_chunk(first, end, slots, started, for_good=True)
        return events + [self._event(some, compute_ms) for some in said]

    def _tell_chunk(self, first: int, end: int, slots: list[Taken], started: float, *, for_good: bool) -> float:
        compute_ms = 1000 * (time.perf_counter() - started)
        if self._on_chunk is not None:
            used = tuple(taken.used for taken in slots)
            self._on_chunk(Chunk(first * self._frame_s, end * self._frame_s, for_good, used, compute_ms))
        return compute_ms

    def _tell_mode(self, frame: int, *, heard: bool, is_lost: bool, reads: bool) -> list[Event]:
        policy = self._lips.policy
        has_lips = reads or (policy.has_lips and self._lips.used > 0)
        if heard:
            why_not = self._lips.last_reason if policy.has_lips else policy.reason
            mode: tuple[Mode, str] = ("av", "ok") if has_lips else ("a", why_not if self.video else "ok")
        else:
            mode = ("v" if has_lips else "none", "sound_lost" if is_lost else "silent")
        if mode == self._mode:
            return []
        self._mode = mode
        at_s = self._time_s(frame * self._frame_s)
        return [Event(event="mode", start=at_s, end=at_s, emitted=self._emitted_s, text=mode[0], reason=mode[1])]

    def _event(self, said: Said, compute_ms: float) -> Event:
        words = tuple(
            dataclasses.replace(word, start=self._time_s(word.start), end=self._time_s(word.end)) for word in said.words
        )
        now_s = self._time_s(self._frames * self._frame_s)
        return Event(
            event="partial" if said.ended is None else "final",
            start=words[0].start if words else now_s,
            end=words[-1].end if words else now_s,
            emitted=self._emitted_s,
            text=" ".join(word.word for word in words),
            words=words,
            changed=said.changed,
            compute_ms=compute_ms,
            reason=said.ended or "",
        )


def _step_frames(recognizer: Recognizer, chunk_ms: int, look_ahead_ms: int) -> int:
    """How many frames are shown at a time. Raises ConfigError for what cannot be."""
    config = recognizer.config
    if config.mel.normalize == "per_feature":
        raise ConfigError(f"model {config.name} cannot stream: its features are normalised over the whole recording")
    if chunk_ms < 1 or look_ahead_ms < 0 or chunk_ms % config.frame_ms or look_ahead_ms % chunk_ms:
        raise ConfigError(
            "wrong chunks",
            got=f"chunk_ms {chunk_ms}, look_ahead_ms {look_ahead_ms}",
            expected=f"a multiple of {config.frame_ms}, and a multiple of the chunk",
        )
    return chunk_ms // config.frame_ms


def _check_samples(samples: NDArray[np.float32]) -> None:
    if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
        raise ValueError(f"samples: got {_kind(samples)}, expected float32 [S] in [-1, 1] at 16 kHz")
    if len(samples) > MAX_PUSH_S * SAMPLE_RATE_HZ:
        raise ValueError(f"samples: got {len(samples)}, expected {MAX_PUSH_S:.0f} s or less at a time")
    if not np.isfinite(samples).all():
        raise ValueError("samples: got values that are not finite, expected float32 [S] in [-1, 1]")


def _check_time(t: float | None) -> None:
    if t is not None and not math.isfinite(t):
        raise ValueError(f"t: got {t}, expected seconds")


def _is_crop(picture: NDArray[np.uint8]) -> bool:
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8:
        if picture.shape == (CROP_PX, CROP_PX):
            return True
        if picture.ndim == 3 and picture.shape[2] == 3 and min(picture.shape) > 0:
            return False
    raise ValueError(f"picture: got {_kind(picture)}, expected uint8 [H, W, 3] in RGB, or a lip crop uint8 [96, 96]")


def _kind(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
