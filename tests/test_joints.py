"""Recordings joined end to end, several tracks, and the account of what a reader left out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.packet import Packet
from av.stream import Disposition

from avsr.account import Account
from avsr.errors import MediaError
from avsr.grid import SAMPLE_RATE_HZ
from avsr.lips.tracks import probe_faces
from avsr.media import Tracks, iter_audio, iter_frames, probe, read_audio
from avsr.media.budget import Budget
from avsr.media.timeline import Timeline
from avsr.offline.source import open_source

PART_S = 1.6
TONES_HZ = (400, 800, 1600)

CONTAINERS = {
    ".ts": ("mpegts", "mpeg2video", "mp2", 48_000),
    ".mpg": ("mpeg", "mpeg1video", "mp2", 44_100),
    ".mkv": ("matroska", "mpeg4", "mp2", 48_000),
    ".avi": ("avi", "mpeg4", "mp2", 44_100),
    ".opus": ("ogg", None, "libopus", 48_000),
    ".ogg": ("ogg", None, "vorbis", 44_100),
    ".oga": ("ogg", None, "flac", 16_000),
}
"""Formats whose readers go on into the next recording, with codecs and sample rate."""


def write_part(path: Path, tone_hz: float, *, start_s: float = 0.0, pictures_s: float = PART_S) -> bytes:
    """A recording with a tone, and with pictures of one brightness where the format has pictures."""
    form, video_codec, sound_codec, rate = CONTAINERS[path.suffix]
    with av.open(str(path), "w", format=form) as container:
        video = None
        if video_codec is not None:
            video = container.add_stream(video_codec, rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(sound_codec, rate=rate)
        sound.codec_context.options = {"strict": "experimental"} if sound_codec == "vorbis" else {}
        sound.layout = "stereo" if sound_codec == "vorbis" else "mono"
        sound.format = sound.codec_context.codec.audio_formats[0].name
        for number in range(round(pictures_s * 25) if video else 0):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = number + round(start_s * 25), Fraction(1, 25)
            container.mux(video.encode(frame))
        values = 0.5 * np.sin(2 * np.pi * tone_hz * np.arange(round(PART_S * rate)) / rate, dtype=np.float64)
        frame = av.AudioFrame.from_ndarray(np.tile(values.astype(np.float32), (1, 1)), format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, round(start_s * rate), Fraction(1, rate)
        resampler = av.AudioResampler(
            sound.format.name, sound.layout.name, rate, sound.codec_context.frame_size or 4096
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(sound.encode(piece))
        container.mux([*sound.encode(), *(video.encode() if video else ())])
    return path.read_bytes()


def join(path: Path, *starts_s: float) -> Path:
    """Recordings with the tones of TONES_HZ, each with a clock that begins at its start, one after another."""
    parts = [
        write_part(path.with_stem(f"part{number}"), tone_hz, start_s=start_s)
        for number, (tone_hz, start_s) in enumerate(zip(TONES_HZ, starts_s, strict=False))
    ]
    path.write_bytes(b"".join(parts))
    return path


def tone_at(samples: np.ndarray, time_s: float) -> float:
    """The loudest frequency of 0.4 s around a time."""
    near = samples[round((time_s - 0.2) * SAMPLE_RATE_HZ) : round((time_s + 0.2) * SAMPLE_RATE_HZ)]
    spectrum = np.abs(np.fft.rfft(near * np.hanning(len(near))))
    return float(np.fft.rfftfreq(len(near), 1 / SAMPLE_RATE_HZ)[spectrum.argmax()])


class TestJoints:
    @pytest.mark.parametrize("suffix", sorted(CONTAINERS))
    def test_all_parts_are_read_one_after_another(self, tmp_path: Path, suffix: str) -> None:
        account = Account()
        count = 2 if suffix == ".mkv" else 3  # FFmpeg reads no more than two segments of Matroska
        path = join(tmp_path / f"joined{suffix}", *[0.0] * count)
        samples = read_audio(path, account=account)
        # Codecs fill up their last frame with silence.
        assert len(samples) / SAMPLE_RATE_HZ == pytest.approx(count * PART_S, abs=0.35)
        for number, tone_hz in enumerate(TONES_HZ[:count]):
            assert tone_at(samples, (number + 0.5) * PART_S + 0.05 * number) == pytest.approx(tone_hz, abs=10)
        if CONTAINERS[suffix][1] is not None:
            times_s = [frame.time_s for frame in iter_frames(path, account=account)]
            assert len(times_s) == pytest.approx(count * 25 * PART_S, abs=3)
            assert times_s[-1] == pytest.approx(len(samples) / SAMPLE_RATE_HZ, abs=0.2)
            assert max(np.diff(times_s)) < 0.2
        assert account["samples"].missing == account["pictures"].missing == 0
        if suffix != ".avi":  # it has no clock: its packets are counted
            assert "steps back" in account.lines()[0]
            assert account.lines()[0].endswith("; 2 in all") == (count == 3)

    @pytest.mark.parametrize(
        ("starts_s", "how"),
        [
            ((0.0, 5000.0), "jumps ahead"),
            ((5000.0, 0.0), "jumps ahead"),  # by 26.5 hours: FFmpeg takes the step back for a clock that wraps
            ((0.0, 1.0), "steps back"),  # the parts overlap
            ((0.0, 60.0), "jumps ahead"),
            ((30.0, 2.0), "steps back"),
        ],
    )
    def test_parts_may_overlap_step_ahead_or_back(self, tmp_path: Path, starts_s: tuple[float, ...], how: str) -> None:
        account = Account()
        path = join(tmp_path / "joined.ts", *starts_s)
        samples = read_audio(path, account=account)
        assert len(samples) / SAMPLE_RATE_HZ == pytest.approx(2 * PART_S, abs=0.2)
        assert [tone_at(samples, 0.8), tone_at(samples, 2.5)] == pytest.approx(TONES_HZ[:2], abs=10)
        assert len(account.lines()) == 1 and how in account.lines()[0]
        assert len(list(iter_frames(path, account=account))) == pytest.approx(2 * 25 * PART_S, abs=2)
        assert len(account.lines()) == 1  # the readers of sound and picture found the same joint

    def test_sound_and_picture_of_a_part_stay_together(self, tmp_path: Path) -> None:
        # The pictures of the first part end 0.8 s before its sound.
        short = write_part(tmp_path / "a.ts", 400, pictures_s=PART_S / 2)
        path = tmp_path / "joined.ts"
        path.write_bytes(short + write_part(tmp_path / "b.ts", 800))
        alone_s = [frame.time_s for frame in iter_frames(tmp_path / "b.ts")]
        times_s = [frame.time_s for frame in iter_frames(path)]
        gap = int(np.diff(times_s).argmax()) + 1
        length_s = len(read_audio(tmp_path / "a.ts")) / SAMPLE_RATE_HZ
        assert times_s[gap] - alone_s[0] == pytest.approx(length_s, abs=0.1)

    def test_a_gap_is_no_joint(self, tmp_path: Path) -> None:
        account = Account()
        path = join(tmp_path / "gap.mkv", 0.0)
        with av.open(str(path), "w", format="matroska") as container:
            stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout="mono")
            for start_s in (0.0, 300.0):
                frame = av.AudioFrame.from_ndarray(np.full((1, 8000), 8000, np.int16), format="s16", layout="mono")
                frame.sample_rate, frame.time_base = SAMPLE_RATE_HZ, Fraction(1, SAMPLE_RATE_HZ)
                frame.pts = round(start_s * SAMPLE_RATE_HZ)
                container.mux(stream.encode(frame))
        assert len(read_audio(path, account=account)) / SAMPLE_RATE_HZ == pytest.approx(300.5, abs=0.01)
        assert account.lines() == ["there is no sound for 299.50 s from 0.50 s on: silence takes its place"]

    @pytest.mark.parametrize("suffix", [".aiff", ".flv", ".mp4", ".wav"])
    def test_a_second_recording_that_no_player_reads_is_said(self, tmp_path: Path, suffix: str) -> None:
        with av.open(str(tmp_path / f"part{suffix}"), "w") as container:
            codec = {".mp4": "aac", ".flv": "aac", ".wav": "pcm_s16le", ".aiff": "pcm_s16be"}[suffix]
            stream = container.add_stream(codec, rate=16_000, layout="mono")
            values = np.random.default_rng(0).integers(-8000, 8000, (1, 16_000)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(values, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        part = (tmp_path / f"part{suffix}").read_bytes()
        path = tmp_path / f"joined{suffix}"
        path.write_bytes(part + part)
        account, alone = Account(), Account()
        assert len(read_audio(path, account=account)) == len(read_audio(tmp_path / f"part{suffix}", account=alone))
        assert alone.lines() == []
        assert account.lines() == [
            f"another recording begins at byte {len(part)} of the file and is not read: split the file there"
        ]


def place(packets: Sequence[tuple[int, float]], account: Account, form: str = "mpegts") -> list[tuple[int, float]]:
    """Tracks and times in seconds of packets of 40 ms, before and after."""
    made = []
    for track, time_s in packets:
        packet = Packet()
        packet.pts = packet.dts = round(time_s * 1000)
        packet.time_base = Fraction(1, 1000)
        packet.duration = 40
        made.append((track, packet))
    tracks = {id(packet): track for track, packet in made}

    class Numbered:
        """A packet with the number of its stream, which a bare packet lacks."""

        def __init__(self, packet: Packet) -> None:
            object.__setattr__(self, "packet", packet)

        def __getattr__(self, name: str) -> object:
            return tracks[id(self.packet)] if name == "stream_index" else getattr(self.packet, name)

        def __setattr__(self, name: str, value: object) -> None:
            setattr(self.packet, name, value)

    timeline = Timeline(form, 0.0, {0: 1e-3, 1: 1e-3}, account, Budget(24.0, 0))
    placed = timeline.place(iter([Numbered(packet) for _, packet in made]))  # type: ignore[list-item]
    return [(packet.stream_index, -1.0 if packet.pts is None else packet.pts / 1000) for packet in placed]


def regular(track: int, start_s: float, count: int) -> list[tuple[int, float]]:
    return [(track, start_s + 0.04 * number) for number in range(count)]


class TestTimeline:
    def test_tracks_that_cross_a_joint_at_different_packets_get_one_offset(self) -> None:
        # Track 1 still has five packets of the first part when track 0 begins the second.
        first = [*regular(0, 0.0, 50), *regular(1, 0.0, 45)]
        between = [*regular(0, 0.0, 5), *regular(1, 1.8, 5)]
        second = [*regular(0, 0.2, 20), *regular(1, 0.0, 20)]
        placed = place([*first, *between, *second], Account())
        of_track = [[time_s for track, time_s in placed if track == number] for number in (0, 1)]
        assert of_track[0] == pytest.approx([0.04 * number for number in range(75)], abs=2e-3)
        assert of_track[1] == pytest.approx([0.04 * number for number in range(70)], abs=2e-3)

    @pytest.mark.parametrize("wrong_s", [-500.0, 1.0, 90_000.0])
    def test_a_single_wrong_time_stamp_is_no_joint(self, wrong_s: float) -> None:
        times = regular(0, 100.0, 30)
        times[20] = (0, wrong_s)
        account = Account()
        placed = [time_s for _, time_s in place([(0, 100.0), *times[1:]], account, form="mov")]
        assert placed[20] == -1.0 and placed[21:] == pytest.approx([time_s for _, time_s in times[21:]], abs=2e-3)
        assert len(account.lines()) == 1 and "fits neither before nor after" in account.lines()[0]

    def test_a_sparse_track_joins_the_part_that_the_other_has_opened(self) -> None:
        # The sparse track comes to the second part only after more packets than are looked ahead.
        packets = [*regular(0, 0.0, 100), (1, 0.0), *regular(0, 0.0, 700), (1, 26.0), (1, 27.0)]
        placed = place(packets, Account())
        assert [time_s for track, time_s in placed if track == 1] == pytest.approx([0.0, 30.0, 31.0], abs=2e-3)

    @pytest.mark.parametrize(("track", "step_s"), [(0, -0.3), (0, -1.5), (1, -0.3), (1, -3.0), (1, 20.0)])
    def test_a_step_of_one_track_alone_is_no_joint(self, track: int, step_s: float) -> None:
        """The other track goes on: nothing moves, and the reader of the track leaves out what overlaps."""
        packets = [
            (number, round(0.04 * index + (step_s if number == track and index >= 75 else 0.0), 3))
            for index in range(400)
            for number in (0, 1)
        ]
        account = Account()
        assert np.array(place(packets, account)) == pytest.approx(np.array(packets), abs=2e-3)
        assert account.lines() == []

    def test_one_track_alone_far_ahead_goes_on_where_it_ended(self) -> None:
        packets = [
            (number, 0.04 * index + (5000.0 if number == 1 and index >= 75 else 0.0))
            for index in range(400)
            for number in (0, 1)
        ]
        expected = [(number, 0.04 * index) for index in range(400) for number in (0, 1)]
        assert np.array(place(packets, Account())) == pytest.approx(np.array(expected), abs=2e-3)

    def test_every_packet_comes_out_once_whatever_the_clock_does(self) -> None:
        random = np.random.default_rng(3)
        for _ in range(200):
            packets = [
                step
                for _ in range(random.integers(1, 8))
                for track in random.permutation(2)
                for step in regular(int(track), float(random.choice([0, 1, 2.5, 700, -3, 1e5])), random.integers(0, 40))
            ]
            placed = place(packets, Account(), form=str(random.choice(["mpegts", "mov,mp4", "ogg"])))
            assert [track for track, _ in placed] == [track for track, _ in packets]


def write_bare(path: Path, tones_hz: Sequence[float], rate: int) -> bytes:
    """A bare stream of MP3, AAC or FLAC: tones of PART_S each; 0 Hz is silence."""
    codec = {".mp3": "libmp3lame", ".aac": "aac", ".flac": "flac"}[path.suffix]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        parts = [0.5 * np.sin(2 * np.pi * hz * np.arange(round(PART_S * rate)) / rate) for hz in tones_hz]
        frame = av.AudioFrame.from_ndarray(np.concatenate(parts).astype(np.float32)[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        form = stream.codec_context.codec.audio_formats[0].name
        resampler = av.AudioResampler(form, "mono", rate, stream.codec_context.frame_size or 4096)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode())
    return path.read_bytes()


class TestBareStreams:
    """They have no clock: their times follow from the first sample rate, their length from the bit rate."""

    @pytest.mark.parametrize(("suffix", "rates"), [(".mp3", (44_100, 16_000)), (".aac", (48_000, 16_000))])
    def test_joined_with_other_sample_rates(self, tmp_path: Path, suffix: str, rates: tuple[int, int]) -> None:
        parts = [
            write_bare(tmp_path / f"{rate}{suffix}", (hz,), rate) for rate, hz in zip(rates, TONES_HZ, strict=False)
        ]
        path = tmp_path / f"joined{suffix}"
        path.write_bytes(b"".join(parts))
        account = Account()
        samples = read_audio(path, account=account)
        assert len(samples) / SAMPLE_RATE_HZ == pytest.approx(2 * PART_S, abs=0.25)
        assert [tone_at(samples, 0.8), tone_at(samples, 2.5)] == pytest.approx(TONES_HZ[:2], abs=10)
        assert account["samples"].lost.total() == 0

    def test_joined_flac_keeps_every_sample(self, tmp_path: Path) -> None:
        parts = [write_bare(tmp_path / f"{hz}.flac", (hz,), 16_000) for hz in TONES_HZ]
        path = tmp_path / "joined.flac"
        path.write_bytes(b"".join(parts))
        account = Account()
        assert len(read_audio(path, account=account)) == 3 * round(PART_S * 16_000)
        assert account.lines() == []

    @pytest.mark.parametrize("suffix", [".aac", ".mp3"])
    def test_its_length_is_an_estimate_that_cuts_no_word(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"pause{suffix}"
        write_bare(path, (400, 0, 0, 0, 0, 400), 16_000)  # silence takes few bytes
        account = Account()
        assert probe(path).is_estimated
        assert len(read_audio(path, account=account)) / SAMPLE_RATE_HZ == pytest.approx(6 * PART_S, abs=0.2)
        assert account.lines() == []
        with open_source(path) as source:
            assert source.duration_s is None


class TestTracks:
    def write(self, path: Path) -> Path:
        """Two sound tracks, of 400 and 800 Hz, and two video tracks, dark and bright."""
        with av.open(str(path), "w") as container:
            videos = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
            sounds = [container.add_stream("aac", rate=16_000, layout="mono") for _ in range(2)]
            sounds[1].metadata["language"] = "kor"
            for video in videos:
                video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for number, video in enumerate(videos):
                for index in range(25):
                    picture = np.full((48, 64, 3), 40 + 160 * number, np.uint8)
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
                    frame.pts, frame.time_base = index, Fraction(1, 25)
                    container.mux(video.encode(frame))
                container.mux(video.encode())
            for sound, tone_hz in zip(sounds, TONES_HZ, strict=False):
                values = 0.5 * np.sin(2 * np.pi * tone_hz * np.arange(16_000) / 16_000)
                frame = av.AudioFrame.from_ndarray(values.astype(np.float32)[None], format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
                container.mux(sound.encode(frame))
                container.mux(sound.encode())
        return path

    def test_the_choice_is_said_and_can_be_made(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "two.mp4")
        account = Account()
        info = probe_faces(path, account=account)
        assert [track.number for track in (*info.audio_tracks, *info.video_tracks)] == [1, 2, 1, 2]
        assert info.audio_tracks[1].title == "kor"
        assert account.lines() == [
            "sound track 1 of 2 is read (by its flags and quality); --audio-track takes another",
            "video track 1 of 2 is read (by its flags and quality); --video-track takes another",
        ]
        assert account["tracks"].missing == 0
        for number, tone_hz in enumerate(TONES_HZ[:2], start=1):
            assert tone_at(read_audio(path, tracks=Tracks(audio=number)), 0.5) == pytest.approx(tone_hz, abs=10)
            frame = next(iter_frames(path, tracks=Tracks(video=number)))
            assert frame.rgb.mean() == pytest.approx(40 + 160 * (number - 1), abs=6)
        asked = Account()
        assert probe_faces(path, tracks=Tracks(2, 2), account=asked).tracks == Tracks(2, 2)
        assert asked.lines() == [] and asked["tracks"].missing == 0

    def test_a_commentary_is_read_only_if_asked_for(self, tmp_path: Path) -> None:
        path = tmp_path / "film.mkv"
        with av.open(str(path), "w") as container:
            sounds = [container.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(2)]
            sounds[0].disposition = Disposition.comment | Disposition.default
            for sound, value in zip(sounds, (1000, 8000), strict=True):
                frame = av.AudioFrame.from_ndarray(np.full((1, 16_000), value, np.int16), format="s16", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
                container.mux(sound.encode(frame))
        account = Account()
        assert probe_faces(path, account=account).tracks.audio == 2
        assert account.lines()[0].startswith("sound track 2 of 2 is read")
        assert read_audio(path, tracks=Tracks(audio=1)).max() < 0.1 < read_audio(path).max()

    def test_a_track_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "two.mp4")
        with pytest.raises(
            MediaError, match="there is no sound track 3: got a file with 2 sound tracks, expected a number from 1 to 2"
        ):
            probe(path, tracks=Tracks(audio=3))
        with pytest.raises(MediaError, match="there is no video track 9"):
            next(iter_frames(path, tracks=Tracks(video=9)))


class TestAccount:
    def test_it_adds_up_over_damage_joints_gaps_overlaps_and_tracks(self, tmp_path: Path) -> None:
        """decoded = used + each named loss, whatever the file is like."""
        random = np.random.default_rng(7)
        parts = {
            (suffix, start_s): write_part(tmp_path / f"{start_s}{suffix}", 400, start_s=start_s)
            for suffix, start_s in itertools.product((".ts", ".mpg", ".mkv", ".opus"), (0.0, 1.0, 60.0))
        }
        parts[".mp4", 0.0] = TestTracks().write(tmp_path / "two.mp4").read_bytes()
        num_read = 0
        for suffix in (".ts", ".mpg", ".mkv", ".opus", ".mp4"):
            own = [data for (other, _), data in parts.items() if other == suffix]
            for _ in range(12):
                joined = b"".join(own[random.integers(len(own))] for _ in range(random.integers(1, 4)))
                data = np.frombuffer(joined, np.uint8).copy()
                where = random.integers(0, len(data), random.integers(0, 30))
                data[where] = random.integers(0, 256, len(where))
                path = tmp_path / f"any{suffix}"
                path.write_bytes(data.tobytes()[: random.integers(len(data) // 2, len(data) + 1)])
                num_read += self.check(path)
        assert num_read > 60  # most of the damaged files can still be read

    def check(self, path: Path) -> int:
        """Read all sound and pictures; returns how many of both could be read."""
        account = Account()
        num_read = num_samples = 0
        for read in (iter_audio, iter_frames):
            try:
                for item in read(path, account=account):
                    num_samples += len(item) if isinstance(item, np.ndarray) else 0
                num_read += 1
            except MediaError:
                pass
        assert account["samples"].missing == account["pictures"].missing == account["sound packets"].missing == 0
        # Every sample that was used is in the output.
        if account["samples"].used and CONTAINERS.get(path.suffix, ("",) * 4)[3]:
            assert num_samples >= account["samples"].used * SAMPLE_RATE_HZ / CONTAINERS[path.suffix][3] - 64 or any(
                "channels at" in line for line in account.lines()
            )
        return num_read


def test_a_time_of_showing_far_from_decoding_is_said_and_not_used() -> None:
    packet = Packet()
    packet.time_base, packet.duration, packet.dts, packet.pts = Fraction(1, 1000), 40, 0, 5_000_000

    class Numbered:
        def __init__(self) -> None:
            object.__setattr__(self, "stream_index", 0)

        def __getattr__(self, name: str) -> object:
            return getattr(packet, name)

        def __setattr__(self, name: str, value: object) -> None:
            setattr(packet, name, value)

    account = Account()
    (placed,) = Timeline("mpegts", 0.0, {0: 1e-3}, account, Budget(24.0, 0)).place(iter([Numbered()]))  # type: ignore[list-item]
    assert (placed.pts, placed.dts) == (None, 0)
    assert account.lines() == ["a time stamp of 5000.00 s is far from the time of its decoding, and is not used"]
