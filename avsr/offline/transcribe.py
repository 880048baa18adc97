"""A whole recording becomes a transcript, by any engine: windows -> engine -> words -> segments."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from avsr.arrays import Present
from avsr.decoding.search import FrameSearch, Search, Spoken
from avsr.engine import Card, Engine, FrameEngine, Model
from avsr.errors import ConfigError, MediaError
from avsr.grid import FRAME_MS, FRAME_SAMPLES, FRAME_SLOTS, SLOT_S, Modality
from avsr.lips.slots import Slot
from avsr.offline.source import Source, SourceLike, open_source
from avsr.offline.windows import Window, windows
from avsr.sound.silence import audible_frames, within_reach
from avsr.transcript import Segment, Transcript, VideoSummary, Word

FRAME_S = FRAME_MS / 1000
SEGMENT_PAUSE_S = 0.5
MAX_SEGMENT_S = 12.0

ModalityChoice = Literal["auto", "av", "a", "v"]

_REASONS = {
    "no_face": "no face found",
    "pose": "face turned away",
    "low_quality": "face too small",
    "occluded": "mouth covered",
    "late": "no picture",
}


def transcribe(
    model: Model,
    source: SourceLike,
    *,
    modality: ModalityChoice = "auto",
    face: str | int = "auto",
    search: Search | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Transcript:
    """The transcript of a recording.

    source: a path, an open binary file, or samples, as `open_source` takes them.
    modality: "a" sound, "v" lips, "av" both, "auto" what the recording offers and the model was trained for.
    face: the face to read lips from: "auto" the one that speaks, "largest", or the number of a face in the transcript.
    search: None for greedy search.
    on_progress: called with the media seconds done.

    Silence without lips gives no words. Raises MediaError when the recording cannot be read or
    lacks what the modality needs or the face that was asked for, ModelError when the model cannot use it, ConfigError
    for an unknown modality or face, ValueError for an array that is no sound.
    """
    if modality not in ("auto", "av", "a", "v"):
        raise ConfigError("unknown modality", got=modality, expected="auto, av, a or v")
    face = str(face)
    with open_source(source) as recording:
        use = _what_to_use(model.card, recording, modality)
        warnings = list(use.warnings)
        record = _Record()
        joiner = _joiner(model, search or Search())
        cut = windows(
            recording,
            sound=use.sound,
            picture=use.picture,
            face=face,
            core_s=model.card.window_s,
            margin_s=model.card.margin_s,
            on_slot=record.note_faces,
            on_warning=lambda line: warnings.append(recording.renamed(line)),
        )
        with contextlib.closing(cut):  # stops its threads also when the work ends in an error or Ctrl-C
            for window in cut:
                joiner.add(window)
                record.add(window)
                if on_progress is not None:
                    on_progress(min(record.end_s, recording.duration_s or record.end_s))
        # Only the whole recording shows that a face never came.
        _check_face(record, recording, face, use)
        words = joiner.words()
        warnings += _warnings(model.card, record, use, words)
        return _transcript(model.card, recording, use, record, words, warnings)


class _Use(NamedTuple):
    """Which parts of a recording are used."""

    sound: bool
    picture: bool
    warnings: tuple[str, ...] = ()


def _what_to_use(card: Card, recording: Source, modality: ModalityChoice) -> _Use:
    """Raises MediaError or ModelError if the recording and the model do not fit the modality."""
    name = recording.name
    # A modality that the user named must be possible; "auto" takes whatever the recording has.
    if modality != "auto":
        card.require(modality)
    if not recording.has_sound and modality in ("a", "av"):
        remedy = "use modality v or auto" if recording.has_picture else None
        raise MediaError(f"{name}: has no sound", expected=f"sound for modality {modality}", remedy=remedy)
    if not recording.has_picture and modality in ("v", "av"):
        raise MediaError(f"{name}: has no video", expected=f"video for modality {modality}", remedy="use modality a")
    sound = recording.has_sound and modality != "v"
    picture = recording.has_picture and modality != "a" and card.modalities != ("a",)
    if sound and card.modalities == ("v",):
        if not picture:
            raise MediaError(f"{name}: has no video", remedy=f"use a model that hears; {card.name} only reads lips")
        # This model knows lips only, so the sound is left out, with a warning.
        warning = f"recognised from the lips alone: model {card.name} was not trained for sound"
        return _Use(sound=False, picture=True, warnings=(warning,))
    if sound and picture and "av" not in card.modalities:  # trained for each alone: the sound is the better one
        return _Use(sound=True, picture=False)
    if not sound and not picture:
        raise MediaError(f"{name}: has no sound", remedy=f"use a model that reads lips; {card.name} only hears")
    return _Use(sound, picture)


class _Joiner(Protocol):
    """Puts the results of windows together."""

    def add(self, window: Window) -> None: ...
    def words(self) -> list[Spoken]: ...


def _joiner(model: Model, search: Search) -> _Joiner:
    model.card.require_search(search)
    if model.frames is not None:
        return _FrameJoiner(model.frames, search)
    return _WordJoiner(model.engine, search, has_times=model.card.has_times)


class _FrameJoiner:
    """Joins windows frame by frame, before the search: no word is lost or doubled where two windows meet."""

    def __init__(self, engine: FrameEngine[Any, Any], search: Search) -> None:
        self._engine = engine
        self._search: FrameSearch[Any] = engine.frame_search(search)
        self._beam = self._search.initial_state()

    def add(self, window: Window) -> None:
        log_probs_TV = window_log_probs(self._engine, self._search, window)
        self._beam = self._search.step(log_probs_TV, self._beam)

    def words(self) -> list[Spoken]:
        return self._search.words(self._beam)


class _WordJoiner:
    """Joins windows of an engine that gives words only: a word belongs to the window that decides on its beginning.

    has_times: False if word times are estimates.
    """

    def __init__(self, engine: Engine[Any, Any], search: Search, *, has_times: bool) -> None:
        self._engine, self._search, self._has_times = engine, search, has_times
        self._words: list[Spoken] = []

    def add(self, window: Window) -> None:
        audio, lips = _encode(self._engine, window)
        (words,) = self._engine.decode(audio, lips, self._search)
        reach = _within_reach(window)
        if not self._has_times:  # an estimate may lie in a silence between the words, and is no reason to drop a word
            reach[:] = reach.any()
        first_s = window.first * FRAME_S
        for word in words:
            start_s, end_s = word.start_s + first_s, word.end_s + first_s
            first = int(word.start_s / FRAME_S)
            frames = reach[first : max(first + 1, int(np.ceil(word.end_s / FRAME_S)))]
            # Some models invent words for silence; those are dropped.
            # Both windows see a word in their common margin; its beginning lies in the core of one of them only.
            in_core = window.keep[0] <= start_s / FRAME_S < window.keep[1]
            if in_core and frames.any():
                self._words.append(word._replace(start_s=start_s, end_s=end_s))

    def words(self) -> list[Spoken]:
        return self._words


def window_log_probs(engine: FrameEngine[Any, Any], search: FrameSearch[Any], window: Window) -> np.ndarray:
    """Log-probabilities [T, V + 1] of the frames that a window decides on.

    Frames that have neither sound nor lips within reach are certain to hold nothing.
    """
    (log_probs_TV,) = engine.log_probs(*_encode(engine, window))
    # Windows are cut in frames of 80 ms, whatever the frames of the model are.
    per_frame = FRAME_MS // engine.frame_ms
    absent_T = np.repeat(~_within_reach(window), per_frame)
    # Causal subsampling may give one frame more than there are; it is like the one before.
    absent_T = np.concatenate((absent_T, absent_T[-1:]))[: len(log_probs_TV)]
    if absent_T.any():
        # Models make words out of digital silence: from zeros `grid-tiny` gave "bin by".
        log_probs_TV = search.silence(log_probs_TV, absent_T)
    start, end = ((frame - window.first) * per_frame for frame in window.keep)
    if len(log_probs_TV) - end <= 1:  # the recording ends here, and the frame too many belongs to this window
        end = len(log_probs_TV)
    return log_probs_TV[start:end]


def _encode(engine: Engine[Any, Any], window: Window) -> tuple[Any, Any]:
    """Encoded sound and lips of a window; None for a missing side.

    Sound that is silent throughout counts as absent if there are lips: an engine makes noise of it.
    """
    has_lips = window.present is not None and bool(window.present.any())
    audible = window.samples is not None and bool(audible_frames(window.samples, FRAME_SAMPLES).any())
    audio = lips = None
    if window.samples is not None and (audible or not has_lips):
        audio = engine.encode_audio([window.samples])
    # Absent lips are given only if nothing else is, because an engine needs one side at least.
    if window.crops is not None and window.present is not None and (has_lips or audio is None):
        lips = engine.encode_lips([window.crops], [window.present], audio)
    return audio, lips


def _within_reach(window: Window) -> Present:
    """Of each 80 ms frame of a window: whether sound or lips are near enough for a word."""
    audible = np.zeros(0, bool) if window.samples is None else audible_frames(window.samples, FRAME_SAMPLES)
    seen = np.zeros(0, bool) if window.present is None else window.present.reshape(-1, FRAME_SLOTS).any(axis=1)
    there = np.zeros(max(len(audible), len(seen)), bool)
    there[: len(audible)] |= audible
    there[: len(seen)] |= seen
    return within_reach(there)


class _Record:
    """The sound and lips of a recording, slot by slot and frame by frame, small enough to keep for hours."""

    def __init__(self) -> None:
        self.spans: dict[int, tuple[int, int]] = {}
        """First and last slot of each face in the picture, whether its lips were used or not."""
        self.end_s = 0.0
        self.audible: list[bool] = []
        """Of each 80 ms frame: whether sound is within reach."""
        self._faces: list[int | None] = []
        self._reasons: Counter[str] = Counter()

    def note_faces(self, slot: Slot) -> None:
        """The next slot of the picture, with all faces."""
        for face in slot.lips:
            self.spans[face] = (self.spans.get(face, (slot.index, 0))[0], slot.index)

    def add(self, window: Window) -> None:
        """The next window."""
        start, end = (FRAME_SLOTS * (frame - window.first) for frame in window.keep)
        self._faces.extend(window.faces[start:end])
        self._reasons.update(window.reasons[start:end])
        self.audible.extend(_audible(window))
        self.end_s = window.keep[1] * FRAME_S

    @property
    def is_audible(self) -> bool:
        return any(self.audible)

    @property
    def num_lips(self) -> int:
        """Slots with lips that were used."""
        return self._reasons["ok"]

    @property
    def coverage(self) -> float:
        return self.num_lips / len(self._faces) if self._faces else 0.0

    def faces_between(self, start_s: float, end_s: float) -> list[int]:
        """The face of each slot with lips between two times."""
        slots = self._faces[round(start_s / SLOT_S) : round(end_s / SLOT_S)]
        return [face for face in slots if face is not None]

    def audible_between(self, start_s: float, end_s: float) -> bool:
        # Rounding of times must not add a neighbouring frame.
        first, end = int(start_s / FRAME_S + 1e-6), int(np.ceil(end_s / FRAME_S - 1e-6))
        return any(self.audible[first:end])

    def who(self) -> str:
        """The faces and when each was in the picture, for messages."""
        spans = (
            f"{face} ({first * SLOT_S:.1f}-{(last + 1) * SLOT_S:.1f} s)" for face, (first, last) in self.spans.items()
        )
        return f"faces {', '.join(spans)}" if self.spans else "no faces"

    def why_no_lips(self) -> str:
        reason = self._reasons.most_common(1)[0][0] if self._reasons else "late"
        return _REASONS.get(reason, reason)


def _audible(window: Window) -> list[bool]:
    """Of each frame that the window decides on: whether there is sound within reach."""
    audible = np.zeros(window.keep[1] - window.first, bool)
    if window.samples is not None:
        frames = audible_frames(window.samples, FRAME_SAMPLES)
        audible = np.pad(frames, (0, max(0, len(audible) - len(frames))))
    start, end = (frame - window.first for frame in window.keep)
    return within_reach(audible)[start:end].tolist()


def _check_face(record: _Record, recording: Source, face: str, use: _Use) -> None:
    """Raises MediaError if the face that was asked for never came, or if there was nothing to recognise from."""
    if use.picture and face.isdigit() and int(face) not in record.spans:
        raise MediaError(
            f"{recording.name}: face {int(face)} is not in the picture",
            got=record.who(),
            expected="the number of a face that is",
            remedy="use face auto, or one of these numbers" if record.spans else "use face auto",
        )
    if use.picture and not record.num_lips and not use.sound:
        no_sound = "sound that is not used" if recording.has_sound else "no sound"
        raise MediaError(
            f"{recording.name}: nothing to recognise",
            got=f"{no_sound} and no readable face ({record.why_no_lips()})",
            remedy="film the speaker's face from the front" + (", or use modality a" if recording.has_sound else ""),
        )


def _warnings(card: Card, record: _Record, use: _Use, words: Sequence[Spoken]) -> list[str]:
    """What a reader of the transcript must know, one line each."""
    lines = [] if card.notice is None else [card.notice]
    if not card.has_times:
        lines.append(f"model {card.name} gives text alone: word times are spread evenly over the sound")
    if use.sound and not record.is_audible:
        lines.append("the sound is silent" + (": recognised from the lips alone" if record.num_lips else ""))
    if use.picture and not record.num_lips:
        alone = ": recognised from sound alone" if record.is_audible else ""
        lines.append(f"no readable face ({record.why_no_lips()}){alone}")
    if not words and (record.is_audible or record.num_lips):
        lines.append("no words were recognised")  # a model that is not trained yet says nothing at all
    return lines


def _transcript(
    card: Card,
    recording: Source,
    use: _Use,
    record: _Record,
    words: Iterable[Spoken],
    warnings: Sequence[str],
) -> Transcript:
    # Some containers state no duration.
    duration_s = recording.duration_s or record.end_s
    # The transcript states the real modality: sound may be silent, and a picture may show no face.
    used: Modality = ("av" if record.is_audible else "v") if record.num_lips else "a"
    summary = None
    if use.picture and recording.fps is not None:
        summary = VideoSummary(fps=recording.fps, faces=len(record.spans), coverage=record.coverage)
    return Transcript(
        source=recording.name,
        duration=duration_s,
        model=card.name,
        modality=used,
        segments=tuple(_segments(_word(word, record, duration_s) for word in words)),
        video=summary,
        warnings=tuple(warnings),
    )


def _word(word: Spoken, record: _Record, duration_s: float) -> Word:
    faces = record.faces_between(word.start_s, word.end_s)
    audible = record.audible_between(word.start_s, word.end_s)
    return Word(
        word=word.word,
        start=min(word.start_s, duration_s),
        end=min(word.end_s, duration_s),  # the last frame may reach past the end
        confidence=word.confidence,
        modality=("av" if audible else "v") if faces else "a",
        face=Counter(faces).most_common(1)[0][0] if faces else None,
    )


def _segments(words: Iterable[Word]) -> list[Segment]:
    """Words in groups: a new one after a pause, and where the last would become too long."""
    segments: list[list[Word]] = []
    for word in words:
        current = segments[-1] if segments else []
        begins = not current or (
            word.start - current[-1].end >= SEGMENT_PAUSE_S or word.end - current[0].start > MAX_SEGMENT_S
        )
        if begins:
            segments.append([word])
        else:
            current.append(word)
    return [Segment(words=tuple(segment)) for segment in segments]
