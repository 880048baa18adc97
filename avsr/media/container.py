"""Opens a media file safely, and decodes one of its streams as far as possible."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Literal

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from avsr.account import Account, Kind
from avsr.errors import MediaError
from avsr.grid import MAX_HOURS
from avsr.media.boxes import check_tables
from avsr.media.budget import Budget
from avsr.media.rest import second_recording
from avsr.media.timeline import Timeline
from avsr.media.tracks import Tracks, audio_tracks, choose_audio, choose_video, is_decodable, video_tracks
from avsr.media.types import FORMAT_NAMES

logger = logging.getLogger(__name__)

MAX_VIDEO_SIDE_PX = 8192
MAX_PICTURE_PX = 8192 * 4352
MAX_PICTURE_BYTES = 4 * MAX_PICTURE_PX
MAX_CHANNELS = 64
SAMPLE_RATES_HZ = (1_000, 768_000)

# A stream that ends earlier than the file states, by more than this, was cut off.
_MAX_MISSING_END_S = 0.5

_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": FORMAT_NAMES}

_BARE = {"aac", "ac3", "eac3", "amr", "flac", "mp3", "h264", "hevc", "m4v", "mpegvideo", "obu"}

BEYOND_LIMIT = "beyond the limit"
"""The reason in the account for what a limit of `budget.py` leaves out."""

_REMEDY = "check the file, or convert it to MP4, MKV or WAV"


@dataclasses.dataclass(frozen=True)
class OpenMedia:
    """An open file and the streams that are read from it."""

    path: Path
    container: InputContainer
    audio: AudioStream | None
    """None: the file has no sound that can be decoded."""
    video: VideoStream | None
    """None: the file has no video that can be decoded."""
    origin_s: float
    """Time of the container's clock at media time 0."""
    budget: Budget
    """What may be read from it. Every opening has its own."""

    @property
    def is_bare(self) -> bool:
        """Whether it is a bare stream without a container: its times and its length are estimates by the bit rate."""
        return self.container.format.name in _BARE

    def start_s(self, stream: AudioStream | VideoStream) -> float:
        """Media time at which `stream` begins, as the container states it."""
        start_s = _container_start_s(stream)
        return 0.0 if start_s is None else start_s - self.origin_s


@contextlib.contextmanager
def open_media(
    path: str | PathLike[str], tracks: Tracks | None = None, *, max_hours: float = MAX_HOURS
) -> Iterator[OpenMedia]:
    """A local media file, open for reading until the context ends.

    tracks: which tracks to read; None for the default of the file.
    max_hours: how much media time may be read.

    Raises MediaError if it is missing, is no media, lacks a track that is asked for, has a format that refers to other
    files, or is absurdly large.
    """
    path = Path(path)
    tracks = Tracks() if tracks is None else tracks
    check_is_file(path)
    check_tables(path)
    try:
        container = _opened(path)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(
            f"{path}: cannot be opened as media", got=_reason(error), expected="an audio or video file", remedy=_REMEDY
        ) from error
    with container:
        audio = choose_audio(path, container, tracks.audio)
        video = choose_video(path, container, tracks.video)
        _refuse_absurd(path, audio, video)
        # Streams may start at different times: one shared origin keeps sound and lips as far apart as in the file.
        starts_s = [_container_start_s(stream) for stream in (audio, video) if stream is not None]
        yield OpenMedia(
            path=path,
            container=container,
            audio=audio,
            video=video,
            origin_s=min((start_s for start_s in starts_s if start_s is not None), default=0.0),
            budget=Budget(max_hours, path.stat().st_size),
        )


def _opened(path: Path) -> InputContainer:
    """The container. Raises the errors of FFmpeg.

    To describe a file, FFmpeg decodes a picture of each video track and each cover, and keeps them all: hundreds fit in
    a small file. So they are counted first, without decoding any, which takes less than a millisecond. Then all of them
    together may have the size of one picture.
    """

    def opened(most_px: int) -> InputContainer:
        options = _OPTIONS | {"max_pixels": str(most_px)}
        # Without "file:", ffmpeg would take a name such as "concat:..." for a protocol.
        # Titles and other tags may be in any encoding; "replace" keeps them from stopping the file.
        return av.open(f"file:{path.absolute()}", options=options, metadata_errors="replace")

    container = opened(1)
    if not video_tracks(container):  # the sound is described as well as ever
        return container
    pictures = len(container.streams.video)
    container.close()
    return opened(MAX_PICTURE_PX // pictures)


def check_is_file(path: Path) -> None:
    """Raises MediaError if `path` is not a regular file, or is empty."""
    try:
        # FFmpeg gives the same error for an empty file and for a broken one, and waits for ever on a pipe.
        if path.is_dir():
            raise MediaError(f"{path}: is a folder", expected="an audio or video file")
        if path.is_symlink() and not path.exists():
            raise MediaError(f"{path}: link to a missing file", expected="a local audio or video file")
        if not path.exists():
            raise MediaError(f"{path}: no such file", expected="a local audio or video file")
        if not path.is_file():
            kind = "a pipe" if path.is_fifo() else "a device or socket"
            raise MediaError(
                f"{path}: cannot be read as media", got=kind, expected="a file", remedy="write it to a file first"
            )
        if path.stat().st_size == 0:
            raise MediaError(f"{path}: the file is empty", got="0 bytes", expected="an audio or video file")
    except (OSError, ValueError) as error:  # a name too long, a null byte, no permission
        raise MediaError(f"{path}: cannot be read", got=error) from error


class Damage:
    """Counts the damage of one track in the account of its file."""

    def __init__(self, path: Path, kind: Literal["sound", "picture"], account: Account) -> None:
        self._path = path
        self._kind = kind
        self.account = account
        self.count = 0

    def report(self, time_s: float, reason: object, *, packets: int = 0) -> None:
        """Note one more damage at about `time_s` of media time.

        reason: shown in the line, if the damage is the first.
        packets: how many packets could not be decoded.
        """
        self.count += 1
        logger.debug("%s: %s at %.2f s: %s", self._path, self._kind, time_s, reason)
        what = "the sound" if self._kind == "sound" else "the video"
        line = f"{what} is damaged at {max(time_s, 0.0):.2f} s ({reason})"
        kind: Kind = "sound packets" if self._kind == "sound" else "picture packets"
        self.account.lost(kind, "damaged", packets, line=line, is_found=False)

    def stop(self, time_s: float, why: str) -> None:
        """Note that the rest of the track, from about `time_s` of media time on, is not read, because of a limit."""
        what = "the sound" if self._kind == "sound" else "the picture"
        kind: Kind = "sound packets" if self._kind == "sound" else "picture packets"
        line = f"{what} from {max(time_s, 0.0):.2f} s on is not read: {why}"
        # At least one packet; the others are not even looked for.
        self.account.lost(kind, BEYOND_LIMIT, line=line, is_found=False)


def decode_audio(media: OpenMedia, stream: AudioStream, damage: Damage) -> Iterator[av.AudioFrame]:
    """All frames of `stream` that can be decoded, in order. Damaged packets are reported and skipped."""
    return (frame for frame in _decode(media, stream, damage) if isinstance(frame, av.AudioFrame))


def decode_video(media: OpenMedia, stream: VideoStream, damage: Damage) -> Iterator[av.VideoFrame]:
    """All pictures of `stream` that can be decoded, in order. Damaged packets are reported and skipped."""
    return (frame for frame in _decode(media, stream, damage) if isinstance(frame, av.VideoFrame))


def _decode(
    media: OpenMedia, stream: AudioStream | VideoStream, damage: Damage
) -> Iterator[av.AudioFrame | av.VideoFrame]:
    last: av.AudioFrame | av.VideoFrame | None = None
    # A track without a decoder cannot be followed: PyAV fails on it at the end of the file.
    followed = [
        *filter(is_decodable, audio_tracks(media.container)),
        *filter(is_decodable, video_tracks(media.container)),
    ]
    ticks_s = {track.index: float(track.time_base or 1) for track in followed}
    timeline = Timeline(media.container.format.name, media.origin_s, ticks_s, damage.account, media.budget)
    budget = media.budget
    packets = _Packets(media.container.demux(followed), budget)
    # Packets are decoded one by one: one damaged packet then costs only its own pictures or sound.
    for packet in packets if media.is_bare else timeline.place(packets):
        if packet.stream_index != stream.index:
            continue
        why = None if budget.is_over else budget.refuse_work()
        if why is not None:
            damage.stop(_end_s(last, stream, media.origin_s), why)
        if budget.is_over:
            return
        try:
            frames = packet.decode()
        except av.FFmpegError as error:  # one packet is damaged, the next may be whole
            damage.report(_end_s(last, stream, media.origin_s), _reason(error), packets=1)
            continue
        for frame in frames:
            if isinstance(frame, av.AudioFrame):
                budget.add_sound(frame.samples, frame.layout.nb_channels)
            elif isinstance(frame, av.VideoFrame):
                budget.add_picture(frame.width, frame.height)
            else:
                continue
            last = frame
            yield frame
    reached_s = _end_s(last, stream, media.origin_s)
    if packets.error is not None:
        damage.report(reached_s, _reason(packets.error))
        return
    second = second_recording(media.path, packets.end_bytes)
    if second is not None:
        line = f"another recording begins at byte {second} of the file and is not read: split the file there"
        damage.account.lost("files", "behind the first recording", line=line, cause=second, is_found=False)
    # A file with its index at the front can be cut off without any error. Its clock says nothing if it steps.
    start_s = _container_start_s(stream)
    if start_s is not None and stream.duration and not timeline.has_joints and not media.is_bare:
        end_s = start_s + stream.duration * float(stream.time_base or 0) - media.origin_s
        # Matroska states the duration of the longest track for all of them.
        seen_s = max(reached_s, timeline.reached_s) if "matroska" in media.container.format.name else reached_s
        # A damage that was reported already explains a missing end.
        if end_s - seen_s > _MAX_MISSING_END_S and not damage.count:
            damage.report(reached_s, f"it stops there, but the file states {end_s:.2f} s")


class _Packets(Iterator[Packet]):
    """The packets of a container, up to the place where it is damaged so that nothing after it can be found."""

    def __init__(self, packets: Iterator[Packet], budget: Budget) -> None:
        self._packets = packets
        self._budget = budget
        self.error: av.FFmpegError | None = None
        """The damage at the end, None if the file was read to its end."""
        self.end_bytes = 0
        """The byte behind the last packet."""

    def __next__(self) -> Packet:
        try:
            packet = next(self._packets)
            self._budget.add_packet(packet.size)
            if packet.pos is not None:
                self.end_bytes = max(self.end_bytes, packet.pos + packet.size)
            return packet
        except av.FFmpegError as error:
            self.error = error
            raise StopIteration from None
        except IndexError:
            # A track that begins in the middle of a file is unknown to PyAV (seen in 18.1), which fails on it behind
            # the last packet.
            raise StopIteration from None


def _end_s(frame: av.AudioFrame | av.VideoFrame | None, stream: AudioStream | VideoStream, origin_s: float) -> float:
    """Media time at which a frame ends; 0 without one, or if it has no time."""
    if frame is None or frame.time is None:
        return 0.0
    if isinstance(frame, av.AudioFrame):
        return frame.time - origin_s + frame.samples / max(1, frame.sample_rate)
    # A still picture may last for seconds.
    shown_s = (frame.duration or 0) * float(frame.time_base or 0)
    rate = stream.average_rate
    return frame.time - origin_s + max(shown_s, 1 / float(rate) if rate else 0.0)


def is_sane_sound(channels: int, rate: int) -> bool:
    """Whether this number of channels and this sample rate (Hz) can be meant. Damaged headers state others."""
    lowest, highest = SAMPLE_RATES_HZ
    return 1 <= channels <= MAX_CHANNELS and lowest <= rate <= highest


def _refuse_absurd(path: Path, audio: AudioStream | None, video: VideoStream | None) -> None:
    if video is not None:
        width, height = video.codec_context.width, video.codec_context.height
        max_pixels = _max_pixels(video)
        if max(width, height) > MAX_VIDEO_SIDE_PX or width * height > max_pixels:
            raise MediaError(
                f"{path}: the picture is too large",
                got=f"{width}x{height}",
                expected=f"at most {MAX_VIDEO_SIDE_PX} pixels a side, and {max_pixels / 1e6:.0f} million in all",
                remedy="scale it down first",
            )
        # The size can also change, or become known, in the middle of the stream.
        video.codec_context.options = {"max_pixels": str(max_pixels)}
    if audio is not None:
        channels, rate = audio.codec_context.channels, audio.codec_context.sample_rate
        if not is_sane_sound(channels, rate):
            lowest, highest = SAMPLE_RATES_HZ
            raise MediaError(
                f"{path}: the sound has an absurd layout",
                got=f"{channels} channels at {rate} Hz",
                expected=f"1-{MAX_CHANNELS} channels at {lowest}-{highest} Hz",
                remedy=_REMEDY,
            )


def _max_pixels(video: VideoStream) -> int:
    """How many pixels a picture may have. Decoders keep up to 17 pictures."""
    form = video.codec_context.format
    bytes_each = 1.0 if form is None else max(1.0, form.padded_bits_per_pixel / 8)
    return min(MAX_PICTURE_PX, int(MAX_PICTURE_BYTES / bytes_each))


def _container_start_s(stream: AudioStream | VideoStream) -> float | None:
    # Bare elementary streams state no start.
    if stream.start_time is None or not stream.time_base:
        return None
    return stream.start_time * float(stream.time_base)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
