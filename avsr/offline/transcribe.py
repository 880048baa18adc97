"""A whole recording becomes a transcript, by any engine: windows -> engine -> words -> segments."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from avsr.decoding.search import Search, Spoken
from avsr.engine import Card, Model
from avsr.errors import ConfigError, MediaError
from avsr.grid import MAX_HOURS, Modality
from avsr.media import Tracks
from avsr.offline.chosen import ChosenWords, check_confidence, choose_words
from avsr.offline.joining import joiner as joiner_of
from avsr.offline.record import Record
from avsr.offline.source import Source, SourceLike, open_source
from avsr.offline.windows import windows
from avsr.sound.level import NOT_HEARD
from avsr.text import one_line
from avsr.transcript import Segment, Transcript, VideoSummary, Word

SEGMENT_PAUSE_S = 0.5
MAX_SEGMENT_S = 12.0

ModalityChoice = Literal["auto", "av", "a", "v"]


def transcribe(
    model: Model,
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
    """The transcript of a recording.

    source: a path, an open binary file, or samples, as `open_source` takes them.
    modality: "a" sound, "v" lips, "av" both, "auto" what the recording offers and the model was trained for.
    face: the face to read lips from: "auto" the one that speaks, "largest", or the number of a face in the transcript.
    search: None for the usual search of the model.
    tracks: which tracks of a file to read; None for the default, and of several video tracks the one with faces.
    force, min_confidence: which words are shown, as `choose_words` takes them.
    max_hours: how long a file may be, as `open_source` takes it.
    on_progress: called with the media seconds done.

    The faces of a picture are followed for models that only hear too, unless the modality is "a": they tell who speaks.
    Silence without lips gives no words. Raises MediaError when the recording cannot be read or
    lacks what the modality needs or the face that was asked for, ModelError when the model cannot use it, ConfigError
    for an unknown modality or face or a confidence outside of 0 to 1, ValueError for an array that is no sound.
    """
    if modality not in ("auto", "av", "a", "v"):
        raise ConfigError("unknown modality", got=modality, expected="auto, av, a or v")
    check_confidence(min_confidence)
    face = str(face)
    with open_source(source, tracks, max_hours=max_hours) as recording:
        use = _what_to_use(model.card, recording, modality)
        warnings = [*use.warnings, *_unused_face(recording, face, use)]
        record = Record()
        told = model.for_recording() if model.for_recording is not None else None
        model = model if told is None else model._replace(engine=told.engine)
        joiner = joiner_of(model, Search() if search is None else search)
        warnings += [] if search is None else model.card.without_effect(search)
        cut = windows(
            recording,
            sound=use.sound,
            picture=use.picture,
            face=face,
            core_s=model.card.window_s,
            margin_s=model.card.margin_s,
            lips=use.lips,
            at_pauses=model.card.cut_at_pauses and use.sound,
            on_slot=record.note_faces,
        )
        with contextlib.closing(cut):  # stops its threads also when the work ends in an error or Ctrl-C
            for window in cut:
                joiner.add(window)
                record.add(window)
                if on_progress is not None:
                    on_progress(min(record.end_s, recording.duration_s or record.end_s))
        # Only the whole recording shows that a face never came.
        _check_face(record, recording, face, use)
        choice = choose_words(model.card, joiner.words(), force=force, min_confidence=min_confidence)
        warnings += recording.account.lines()
        warnings += [] if told is None else told.lines()
        warnings += _warnings(model.card, record, use, choice, is_silence_said=NOT_HEARD in recording.account)
        warnings += choice.warnings
        return _transcript(model.card, recording, use, record, choice, warnings)


class _Use(NamedTuple):
    """Which parts of a recording are used."""

    sound: bool
    picture: bool
    """Whether faces are followed."""
    lips: bool
    """Whether the model reads lips."""
    warnings: tuple[str, ...] = ()


def _what_to_use(card: Card, recording: Source, modality: ModalityChoice) -> _Use:
    """Raises MediaError or ModelError if the recording and the model do not fit the modality."""
    name = recording.name
    # A modality that the user named must be possible; "auto" takes whatever the recording has.
    if modality != "auto":
        card.require(modality)
    if not recording.has_sound and modality in ("a", "av"):
        remedy = _without_sound(card) if recording.has_picture else None
        raise MediaError(f"{name}: has no sound", expected=f"sound for modality {modality}", remedy=remedy)
    if not recording.has_picture and modality in ("v", "av"):
        raise MediaError(f"{name}: has no video", expected=f"video for modality {modality}", remedy="use modality a")
    sound = recording.has_sound and modality != "v"
    picture = recording.has_picture and modality != "a"
    if sound and card.modalities == ("v",):
        if not picture:
            raise MediaError(f"{name}: has no video", remedy=f"use a model that hears; {card.name} only reads lips")
        # This model knows lips only, so the sound is left out, with a warning.
        warning = f"recognised from the lips alone: model {card.name} was not trained for sound"
        return _Use(sound=False, picture=True, lips=True, warnings=(warning,))
    # A model that was trained for each alone gets the sound, which is the better one.
    lips = picture and "av" in card.modalities if sound else picture and card.modalities != ("a",)
    if not sound and not lips:
        raise MediaError(f"{name}: has no sound", remedy=_without_sound(card))
    return _Use(sound, picture, lips)


def _without_sound(card: Card) -> str:
    """The remedy for a picture without sound."""
    if card.modalities == ("a",):
        return f"use a model whose modalities have v in the list of avsr models; {card.name} only hears"
    return "use modality v or auto"


def _unused_face(recording: Source, face: str, use: _Use) -> list[str]:
    """A line, if a number of a face was given and no picture is read."""
    if use.picture or not face.isdigit():
        return []
    why = "modality a leaves the picture unread" if recording.has_picture else "there is no picture"
    return [f"{why}: face {face} has no effect"]


def _check_face(record: Record, recording: Source, face: str, use: _Use) -> None:
    """Raises MediaError if the face that was asked for never came, or if there was nothing to recognise from."""
    if use.picture and face.isdigit() and int(face) not in record.spans:
        raise MediaError(
            f"{recording.name}: face {int(face)} is not in the picture",
            got=record.who(),
            expected="the number of a face that is there",
            remedy="use face auto, or one of these numbers" if record.spans else "use face auto",
        )
    if use.picture and not record.num_lips and not use.sound:
        no_sound = "sound that is not used" if recording.has_sound else "no sound"
        raise MediaError(
            f"{recording.name}: nothing to recognise",
            got=f"{no_sound} and no readable face ({record.why_no_lips()})",
            remedy="film the speaker's face from the front" + (", or use modality a" if recording.has_sound else ""),
        )


def _warnings(card: Card, record: Record, use: _Use, choice: ChosenWords, *, is_silence_said: bool) -> list[str]:
    """What a reader of the transcript must know, one line each. is_silence_said: the account says it already."""
    lines = [] if card.notice is None else [card.notice]
    has_lips = use.lips and record.num_lips > 0
    if not card.has_times:
        lines.append(f"model {card.name} gives text alone: word times are spread evenly over the sound")
    if use.sound and not record.is_audible and (has_lips or not is_silence_said):
        lines.append("the sound is silent" + (": recognised from the lips alone" if has_lips else ""))
    if use.lips and not has_lips:
        alone = ": recognised from sound alone" if record.is_audible else ""
        lines.append(f"no readable face ({record.why_no_lips()}){alone}")
    if not choice.recognised and (record.is_audible or has_lips):
        lines.append("no words were recognised")  # a model that is not trained yet says nothing at all
    return lines


def _transcript(
    card: Card,
    recording: Source,
    use: _Use,
    record: Record,
    choice: ChosenWords,
    warnings: Sequence[str],
) -> Transcript:
    # Some containers state no duration or a wrong one, and the clock of joined recordings says nothing of their length.
    stated_s = None if "joint" in recording.account else recording.duration_s
    duration_s = record.end_s if stated_s is None or record.end_s > stated_s + 1.0 else stated_s
    # The transcript states the real modality: sound may be silent, and a picture may show no face.
    used: Modality = ("av" if record.is_audible else "v") if use.lips and record.num_lips else "a"
    summary = None
    if use.picture and recording.fps is not None:
        summary = VideoSummary(fps=recording.fps, faces=len(record.spans), coverage=record.coverage)
    return Transcript(
        source=recording.name,
        duration=duration_s,
        model=card.name,
        modality=used,
        segments=tuple(_segments(_word(word, record, duration_s, lips=use.lips) for word in choice.words)),
        video=summary,
        language=_language(choice.words),
        warnings=tuple(warnings),
        foreign_words=choice.foreign,
        unsure_words=choice.unsure,
    )


def _language(words: Iterable[Spoken]) -> str | None:
    """The language of most words."""
    languages = Counter(word.language for word in words if word.language is not None)
    return languages.most_common(1)[0][0] if languages else None


def _word(word: Spoken, record: Record, duration_s: float, *, lips: bool) -> Word:
    """A word of the transcript. lips: whether the model reads them."""
    faces = record.faces_between(word.start_s, word.end_s)
    audible = record.audible_between(word.start_s, word.end_s)
    return Word(
        word=one_line(word.word),
        start=min(word.start_s, duration_s),
        end=min(word.end_s, duration_s),  # the last frame may reach past the end
        confidence=word.confidence,
        modality=("av" if audible else "v") if lips and faces else "a",
        face=Counter(faces).most_common(1)[0][0] if faces else None,
    )


def _segments(words: Iterable[Word]) -> list[Segment]:
    """Words in groups: a new one after a pause, where another face speaks, and where the last would become too long."""
    segments: list[list[Word]] = []
    speaker: int | None = None  # in the last segment
    for word in words:
        current = segments[-1] if segments else []
        begins = not current or (
            word.start - current[-1].end >= SEGMENT_PAUSE_S or word.end - current[0].start > MAX_SEGMENT_S
        )
        # A word without a face may belong to anybody.
        is_other = speaker is not None and word.face is not None and word.face != speaker
        if begins or is_other:
            segments.append([word])
            speaker = word.face
        else:
            current.append(word)
            speaker = word.face if speaker is None else speaker
    return [Segment(words=tuple(segment)) for segment in segments]
