"""avsr stream: live words from a file, or from microphone and camera."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from avsr.cli.arguments import (
    add_chunk,
    add_device,
    add_language,
    add_look_ahead,
    add_model,
    add_quiet,
    add_search,
    add_tracks,
    face,
    media_file,
    model_name,
    non_negative_integer,
    positive_integer,
    search_of,
    tracks_of,
)
from avsr.cli.console import Console, UsageError, printable
from avsr.errors import AvsrError, ConfigError, MediaError
from avsr.grid import SAMPLE_RATE_HZ
from avsr.text import escape_controls

if TYPE_CHECKING:
    from avsr.account import Account
    from avsr.recognizer import Recognizer
    from avsr.streaming.events import Event
    from avsr.streaming.faults import Faults
    from avsr.streaming.live import Live
    from avsr.streaming.source import Clock, LivePicture, LiveSound

DESCRIPTION = (
    "Recognise speech live, from a microphone and a camera, or from a file as if it were live. Prints one\n"
    "JSON object a line, at once: partial and final words, changes between sound, lips and both, and at the\n"
    "end how many pictures were used, late or lost; or, with --captions, live captions. The sound is the\n"
    "clock, so a file without sound needs avsr transcribe --modality v."
)
EXAMPLE = "avsr stream talk.mp4 --realtime --drop-video 3:5 --captions"

MAX_QUIET_LAG_S = 1.0
"""If the work is further behind the sound at the end, a note on stderr says so."""
FAULTS = (
    "drop_video drop_audio delay_video_ms delay_audio_ms jitter_ms drop_frames duplicate_frames skew_ms drift_ppm"
    " video_fps seed"
).split()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr stream`."""
    add = parser.add_argument
    add("file", nargs="?", type=media_file, metavar="FILE", help="video or sound file to use instead of the devices")
    add("--realtime", action="store_true", help="read FILE as fast as it plays; default: as fast as possible")
    add("--mic", action="store_true", help="listen to the microphone, until Ctrl-C")
    add(
        "--mic-device",
        metavar="NAME|N",
        help="which microphone, as `python -m sounddevice` lists them; default: the system's",
    )
    add("--camera", type=_camera, metavar="N", help="camera N, which is /dev/videoN, for the lips")
    add("--captions", action="store_true", help="print captions, rewritten in place on a terminal; default: JSON lines")
    add_model(parser, "model that works live")
    add_chunk(parser)
    add_look_ahead(parser)
    add_language(parser)
    add_search(parser, usual_beam="1")
    add("--modality", choices=("auto", "av", "a"), default="auto", help="use sound and lips, or sound; default auto")
    add(
        "--face",
        type=face,
        default="auto",
        metavar="auto|largest|ID",
        help="whose lips to read; live, auto is the largest face. With a model that only hears, auto follows no face,"
        " and largest or a number names the face of each word",
    )
    add(
        "--force",
        action="store_true",
        help="keep the words of speech outside of the model's domain; default: a final of such speech has no words",
    )
    add(
        "--max-video-lag-ms",
        type=non_negative_integer,
        default=320,
        metavar="MS",
        help="how long sound waits for late lips at most; default 320",
    )
    add(
        "--threads",
        type=positive_integer,
        metavar="N",
        help="threads of the network; default: all cores for Whisper, else 1, because with a small model more threads"
        " only slow down face finding",
    )
    add_tracks(parser)
    add_device(parser)
    add_quiet(parser)
    _add_faults(parser.add_argument_group("faults of a FILE, to see what they do"))


def _add_faults(options: argparse._ArgumentGroup) -> None:
    add = options.add_argument
    add("--drop-video", type=_span, action="append", metavar="S:E", help="no pictures from second S to E; repeatable")
    add("--drop-audio", type=_span, action="append", metavar="S:E", help="no sound from second S to E; repeatable")
    add("--delay-video", type=_number, dest="delay_video_ms", metavar="MS", help="pictures come MS later")
    add("--delay-audio", type=_number, dest="delay_audio_ms", metavar="MS", help="sound comes MS later")
    add("--jitter", type=_number, dest="jitter_ms", metavar="MS", help="each picture and sound comes up to MS later")
    add("--drop-frames", type=_share, metavar="SHARE", help="this share of the pictures, 0 to 1, is lost")
    add("--duplicate-frames", type=_share, metavar="SHARE", help="this share of the pictures, 0 to 1, comes twice")
    add("--skew", type=_number, dest="skew_ms", metavar="MS", help="the clock of the pictures is MS ahead")
    add("--drift", type=_number, dest="drift_ppm", metavar="PPM", help="it runs fast by PPM parts in a million")
    add("--video-fps", type=_number, metavar="N", help="N pictures a second, by leaving out or repeating pictures")
    add("--seed", type=non_negative_integer, metavar="N", help="seed of all random choices; default 1")


def run(arguments: argparse.Namespace) -> int:
    """Recognise until the source ends; 0, or 1 if it breaks off."""
    faults = _check(arguments)
    # A closed standard output fails now, and not with the first word.
    if sys.stdout is None:
        raise AvsrError("standard output is closed", got="no place for results", remedy="open it")
    with Console(quiet=arguments.quiet) as console:
        show = _Captions(console) if arguments.captions else _Lines(console)
        if arguments.mic:
            _from_devices(arguments, show)
        else:
            _from_file(arguments, faults, show)
    return 0


def _load(arguments: argparse.Namespace, show: _Lines) -> Recognizer:
    import avsr
    from avsr.processes import limit_threads

    if arguments.threads is not None:
        limit_threads(arguments.threads)  # before the model opens: Whisper takes its threads then
    recognizer = avsr.load(model_name(arguments, show.note), device=arguments.device)
    limit_threads(arguments.threads or 1)
    show.domain = recognizer.card.domain
    if recognizer.card.notice is not None:
        show.note(recognizer.card.notice)
    return recognizer


def _from_file(arguments: argparse.Namespace, faults: Faults, show: _Lines) -> None:
    from avsr.account import Account
    from avsr.streaming.source import open_file

    path = arguments.file
    live: Live | None = None

    def warn(line: str) -> None:
        text = f"{path}: warning: {line}"
        # While the run goes on, lines wait for the thread that prints the events.
        show.note(text) if live is None else live.warn(text)

    account = Account(warn)
    sound, pictures = open_file(path, tracks=tracks_of(arguments), account=account)
    if pictures is None and arguments.modality == "av":
        raise MediaError(f"{path}: has no video", expected="video for modality av", remedy="use modality a")
    recognizer = _load(arguments, show)
    if pictures is not None:
        pictures = faults.of_pictures(pictures) if _needs_pictures(recognizer, arguments) else None
    with _open(
        recognizer, faults.of_sound(sound), pictures, arguments, show, real_time=arguments.realtime, account=account
    ) as run:
        live = run
        _show_all(run, show, arguments.face)
    for line in account.totals():
        show.note(f"{path}: warning: {line}")


def _from_devices(arguments: argparse.Namespace, show: _Lines) -> None:
    from avsr.streaming.devices import Camera, Microphone
    from avsr.streaming.source import Clock

    recognizer = _load(arguments, show)
    clock = Clock()
    name = arguments.mic_device
    number_or_name = int(name) if name is not None and name.isdigit() else name
    with contextlib.ExitStack() as stack:
        camera = None
        if arguments.camera is not None and _needs_pictures(recognizer, arguments):
            # `live` is made below; the camera warns only while it runs.
            camera = stack.enter_context(Camera(clock, arguments.camera, on_warning=lambda line: live.warn(line)))
        pictures = None if camera is None else camera.pictures()
        microphone = Microphone(clock, number_or_name)
        live = stack.enter_context(
            _open(recognizer, microphone.sound(), pictures, arguments, show, real_time=True, clock=clock)
        )
        live.session.prepare()
        stack.enter_context(microphone)  # last, so that no sound piles up while the rest starts
        show.note("listening; Ctrl-C ends")
        _show_all(live, show, arguments.face)


def _needs_pictures(recognizer: Recognizer, arguments: argparse.Namespace) -> bool:
    """Whether lips are read, or faces are followed for a model that only hears, because --face names one."""
    if arguments.modality != "auto":
        recognizer.card.require(arguments.modality)
        return bool(arguments.modality == "av")
    return "av" in recognizer.card.modalities or arguments.face != "auto"


def _open(
    recognizer: Recognizer,
    sound: Iterable[LiveSound | None],
    pictures: Iterable[LivePicture | None] | None,
    arguments: argparse.Namespace,
    show: _Lines,
    *,
    real_time: bool,
    clock: Clock | None = None,
    account: Account | None = None,
) -> Live:
    from avsr.streaming.live import Live

    session = recognizer.stream(
        chunk_ms=arguments.chunk_ms,
        look_ahead_ms=arguments.look_ahead_ms,
        video=pictures is not None,
        face=arguments.face,
        search=search_of(arguments),
        force=arguments.force,
        max_video_lag_ms=arguments.max_video_lag_ms,
        origin_s=0.0 if clock is None else None,  # a device has no time 0 of its own: the first sound is taken
    )
    return Live(session, sound, pictures, real_time=real_time, clock=clock, account=account, on_warning=show.note)


def _show_all(live: Live, show: _Lines, face: str) -> None:
    """Show every event as it comes; after Ctrl-C also the events of the sound so far. face: the value of --face."""
    try:
        try:
            for event in live.events():
                show.event(event)
        # SIGTERM comes as SystemExit (see main.py). After either, the words so far are shown.
        except (KeyboardInterrupt, SystemExit):
            for event in live.stop():
                show.event(event)
            raise
    finally:
        show.end()
    if live.lag_s > MAX_QUIET_LAG_S:
        show.note(
            f"the work was {live.lag_s:.1f} s behind at the end: this machine is too slow;"
            f" use a longer --chunk-ms{', or --modality a' if live.has_pictures else ''}"
        )
    if face.isdigit() and int(face) not in live.session.faces_seen:
        show.note(_never_seen(face, live))


def _never_seen(face: str, live: Live) -> str:
    """A line for a face that was asked for and never came."""
    if not live.has_pictures:
        return f"no picture was read: --face {face} has no effect"
    seen = live.session.faces_seen
    return f"face {face} was never seen; " + (f"seen: {', '.join(map(str, seen))}" if seen else "no face was seen")


class _Lines:
    """Shows events as JSON lines."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.domain = ""
        """What the model knows, as its card says."""

    def event(self, event: Event) -> None:
        text = json.dumps(event.document(), ensure_ascii=False, allow_nan=False)
        self._console.result(escape_controls(text) + "\n")

    def note(self, line: str) -> None:
        self._console.note(line)

    def end(self) -> None:
        """Called once, after the last event."""


class _Captions(_Lines):
    """Shows final words, one caption a line.

    On a terminal the unfinished caption stands below them and changes in place. It begins with AV, A or V for sound
    and lips, sound, or lips. If that changes, the reason follows in brackets until the next caption.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._in_place = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._badge, self._reason, self._words = "", "", ""
        self._line = ""  # the unfinished line that the terminal shows now

    def event(self, event: Event) -> None:
        text = printable(event.text)
        if event.event == "counters":
            self.note(_summary(event.counters or {}))
        elif event.event == "mode":
            # The first mode is no change: it needs a reason only if something is missing.
            has_changed, self._badge = bool(self._badge), "-" if event.text == "none" else event.text.upper()
            self._reason = event.reason if has_changed or event.reason != "ok" else ""
            self._draw()
        elif event.event == "partial":
            self._words = text
            self._draw()
        elif event.reason == "foreign":
            self._words = self._reason = ""
            span = f"{event.start:.1f}-{event.end:.1f} s"
            self.note(f"left out at {span}: it does not sound like {self.domain}; --force keeps it")
        else:
            self._words = self._reason = ""
            self._put(self._caption(text) + "\n" if self._in_place else text + "\n")
            self._draw()

    def note(self, line: str) -> None:
        # Notes go to standard error, often the same terminal: the unfinished caption must not stand in their line.
        self._put("")
        super().note(line)
        self._draw()

    def end(self) -> None:
        self._words = self._badge = ""
        self._put("")

    def _draw(self) -> None:
        if self._in_place:
            reason = f" ({self._reason})" if self._reason else ""
            width = max(1, shutil.get_terminal_size().columns - 5 - len(reason))  # badge, margin
            # Of a long caption the end is shown, because the new words are there.
            words = self._words if len(self._words) <= width else "…" + self._words[1 - width :]
            self._put(self._caption(words + reason) if words + reason else "")

    def _caption(self, text: str) -> str:
        return f"{self._badge:2} {text}"

    def _put(self, text: str) -> None:
        """Replace the unfinished line by `text`."""
        erase = "\r\x1b[K" if self._line else ""
        if erase or text:
            self._console.result(erase + text)
        self._line = "" if text.endswith("\n") else text


def _summary(counters: dict[str, int]) -> str:
    seconds = f"{counters['samples'] / SAMPLE_RATE_HZ:.1f} s of sound"
    seconds += f", {counters['samples_lost'] / SAMPLE_RATE_HZ:.1f} s missing" if counters["samples_lost"] else ""
    if counters["steps_skipped"]:
        seconds += f", {counters['steps_skipped']} updates left out because the work was behind"
    if not counters["pictures"]:
        return seconds
    fates = ", ".join(f"{counters[fate]} {fate}" for fate in ("used", "late", "absent", "duplicate") if counters[fate])
    return f"{seconds}; {counters['pictures']} pictures: {fates}"


def _check(arguments: argparse.Namespace) -> Faults:
    """The faults that the options ask for. Raises UsageError for options that exclude each other."""
    given: dict[str, Any] = {name: getattr(arguments, name) for name in FAULTS if getattr(arguments, name) is not None}
    if arguments.mic and arguments.file is not None:
        raise UsageError(f"--mic and the file {arguments.file}: give one of them")
    if not arguments.mic and arguments.file is None:
        raise UsageError("nothing to listen to; name a file, or give --mic")
    for option in ("camera", "mic_device"):
        if not arguments.mic and getattr(arguments, option) is not None:
            raise UsageError(f"{_option(option)} needs --mic")
    if arguments.mic and (arguments.realtime or given):
        raise UsageError(f"{'--realtime' if arguments.realtime else _option(next(iter(given)))} is for a file")
    if arguments.mic and arguments.modality == "av" and arguments.camera is None:
        raise UsageError("--modality av needs a camera: add --camera 0")
    from avsr.streaming.faults import Faults

    given |= {name: tuple(given[name]) for name in ("drop_video", "drop_audio") if name in given}
    try:
        return Faults(**given)
    except ConfigError as error:
        # The error names a field of `Faults`, but the user knows the option.
        name = error.what.removeprefix("wrong ")
        raise UsageError(f"{_option(name)}: got {error.got}, expected {error.expected}") from None


def _option(name: str) -> str:
    return "--" + re.sub("_(ms|ppm)$", "", name).replace("_", "-")


def _span(text: str) -> tuple[float, float]:
    numbers = re.findall(r"\d+(?:\.\d*)?|\.\d+", text)
    if re.fullmatch(r"\s*[\d.]+:[\d.]+\s*", text) and len(numbers) == 2 and float(numbers[0]) < float(numbers[1]):
        return float(numbers[0]), float(numbers[1])
    ordered = sorted(numbers, key=float)
    hint = f"; did you mean {ordered[0]}:{ordered[1]}?" if len(numbers) == 2 and numbers[0] != numbers[1] else ""
    raise argparse.ArgumentTypeError(f"got {text!r}, expected START:END in seconds, as in 3:5{hint}")


def _as_number(text: str, expected: str, convert: Callable[[str], float]) -> float:
    try:
        return convert(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}") from None


def _number(text: str) -> float:
    return _as_number(text, "a number", float)


def _share(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?\s*%", text):
        text = str(float(text.rstrip("% ")) / 100)
    value = _as_number(text, "a share from 0 to 1, as 0.3, or 30%", float)
    if 1 < value <= 100:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a share from 0 to 1; did you mean {value / 100:g}?")
    return value


def _camera(text: str) -> int:
    device_number = text.removeprefix("/dev/video")
    if not device_number.isascii() or not device_number.isdigit():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected the number of a camera, as 0 for /dev/video0")
    return int(device_number)
